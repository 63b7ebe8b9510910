"""Named evaluation protocols: which gallery images count for a query, and how AP is taken."""

from dataclasses import dataclass

import numpy as np

from reidlib.utils.errors import check_choice


@dataclass(frozen=True)
class Protocol:
    """Which gallery images count for a query, and how average precision is taken."""

    name: str
    drop_same_camera: bool     # same identity seen by the query's own camera
    drop_junk: bool            # identity "-1" of Market-1501
    drop_copies: bool          # byte-identical to the query image
    depth: int | None          # look at this many nearest only
    rule: str                  # see metrics.average_precision
    source: str
    draws: int | None = None   # one random gallery image of each identity, so many times
    other_camera: bool = False  # these are from other cameras than the query's
    every_image: bool = False  # each image of query and gallery is a query against all the others

    def __post_init__(self):
        if self.draws and (self.drop_copies or not self.drop_junk):
            raise ValueError(f"protocol {self.name!r}: drawn galleries hold no junk, and copies "
                             "cannot be dropped from them")

    @property
    def reranks(self) -> bool:
        """Whether re-ranked galleries are scored.

        Not where every image is a query: each would be its own neighbour twice. Not where only the
        nearest few count.
        """
        return not (self.every_image or self.depth)

    def keeps(self, same_person, same_camera, junk, copy):
        """Which (query, gallery image) pairs count; the one statement of the rules.

        Each argument is a boolean or an array of them, for pairs: the two show the same person,
        are from the same camera, the gallery image is junk, is byte-identical to the query.
        """
        dropped = np.logical_and(junk, self.drop_junk) | np.logical_and(copy, self.drop_copies)
        own_camera = np.logical_and(same_person, same_camera)
        return ~(dropped | np.logical_and(own_camera, self.drop_same_camera))


# a name never gets other rules: runs that were scored under it would say something else then
PROTOCOLS = {p.name: p for p in (
    Protocol("standard", True, True, False, None, "rectangle",
             "Market-1501 as torchreid and TransReID score it"),
    Protocol("standard-all", True, True, False, None, "rectangle",
             "standard with more queries: ours", every_image=True),
    Protocol("lat-top10", False, False, False, 10, "rectangle",
             "public LA-Transformer test code; the paper's numbers"),
    Protocol("all-gallery", False, False, False, None, "rectangle",
             "every gallery image, full ranking"),
    Protocol("leak-free", False, False, True, None, "rectangle",
             "all-gallery without byte-identical copies of the query"),
    Protocol("market-matlab", True, True, False, None, "trapezoid",
             "the original Market-1501 script"),
    Protocol("single-shot-torchreid", True, True, False, None, "rectangle",
             "CUHK03's rule as torchreid draws it", draws=100),
    Protocol("single-shot-2014", True, True, False, None, "rectangle",
             "CUHK03's first rule (Li et al. 2014)", draws=100, other_camera=True),
)}
PAPER_PROTOCOL = "lat-top10"
SHOWN = ("standard", PAPER_PROTOCOL)  # always side by side


def get_protocol(name: str) -> Protocol:
    check_choice("protocol", name, PROTOCOLS)
    return PROTOCOLS[name]
