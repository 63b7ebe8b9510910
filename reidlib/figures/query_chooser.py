"""A menu of queries: what each model answers to the one that a person chooses."""

import os
from collections.abc import Callable, Mapping, Sequence

from matplotlib import pyplot as plt

from reidlib.evaluation.ranking import Ranking
from reidlib.figures.ranked_lists import Picture, ranked_lists, ranked_row
from reidlib.utils.console import is_interactive


def query_chooser(rankings: Mapping[str, Ranking], load: Callable[[Sequence[str]], list[Picture]],
                  k: int = 8) -> None:
    """Show the menu, and below it the chosen query's ``k`` nearest by each ranking.

    ``rankings``: by model, of the same queries; ``load`` reads pictures by their paths. Nothing
    where no person looks on in a Jupyter server: a page without a running notebook cannot answer.
    """
    # papermill and nbconvert wait for ever at such a menu (jupyter/nbclient issue 312); a server
    # sets this variable in the kernels that it starts
    if not is_interactive() or "JPY_SESSION_NAME" not in os.environ:
        return
    from ipywidgets import interact  # of the notebooks' extra

    first, *_ = rankings.values()
    queries = {path: i for i, path in enumerate(first.query.paths.tolist())}

    def show(query: str) -> None:
        ranked_lists([ranked_row(ranking, queries[query], model, load, k)
                      for model, ranking in rankings.items()])
        plt.show()

    interact(show, query=list(queries))
