"""Named evaluation protocols: which gallery images count for a query, and how AP is taken."""

from dataclasses import dataclass

JUNK_ID = "-1"  # Market-1501: boxes that show no person well. Its "0000" are ordinary strangers.


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
    draws: int | None = None   # one random gallery image per identity and camera, so many times
    every_image: bool = False  # each image of query and gallery is a query against all the others


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
    Protocol("single-shot", True, True, False, None, "rectangle",
             "CUHK03's single-gallery-shot rule", draws=100),
)}


def get_protocol(name: str) -> Protocol:
    if name not in PROTOCOLS:
        raise ValueError(f"unknown protocol {name!r}; known: {', '.join(PROTOCOLS)}")
    return PROTOCOLS[name]
