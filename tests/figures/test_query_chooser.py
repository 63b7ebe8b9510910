"""The menu of queries: shows what was chosen, and nothing where no person looks on."""

import ipywidgets
import numpy as np
import pytest
from matplotlib import pyplot as plt

from reidlib.evaluation.ranking import rank_gallery
from reidlib.figures import query_chooser


@pytest.fixture
def rankings(make_embeddings):
    query = make_embeddings([0, 90], ["1", "2"], ["a", "a"])
    gallery = make_embeddings([2, 88, 45], ["1", "2", "1"], ["b", "b", "b"])
    return {name: rank_gallery(query, gallery, flip=flip)
            for name, flip in (("baseline", "none"), ("improved", "query"))}


@pytest.fixture
def looked_on(monkeypatch):
    """A person looks on, in a notebook that a Jupyter server has opened."""
    monkeypatch.setattr(query_chooser, "is_interactive", lambda: True)
    monkeypatch.setenv("JPY_SESSION_NAME", "06_retrieval.ipynb")


def load(paths):
    return [np.full((32, 12, 3), 10 * int(path[0]), np.uint8) for path in paths]


def test_a_choice_shows_that_query_by_every_model(rankings, looked_on, monkeypatch):
    monkeypatch.setattr(plt, "show", lambda: None)
    menus = []
    monkeypatch.setattr(ipywidgets, "interact", lambda show, query: menus.append((show, query)))
    query_chooser.query_chooser(rankings, load, k=2)
    (show, queries), = menus
    assert queries == ["0.png", "1.png"]
    show("1.png")
    rows = plt.gcf().subfigs
    assert [row.get_suptitle().partition(":")[0] for row in rows] == ["baseline", "improved"]
    for row, ranking in zip(rows, rankings.values(), strict=True):
        asked, *answers = row.axes
        assert "id 2" in asked.get_xlabel() and len(answers) == 2
        shown = [int(ax.images[0].get_array()[0, 0, 0]) // 10 for ax in answers]
        assert shown == ranking.kept(1)[0][:2].tolist()


@pytest.mark.parametrize("by", ["variable", "papermill"])
def test_nothing_where_no_person_looks_on(rankings, looked_on, monkeypatch, by):
    if by == "variable":
        monkeypatch.setattr(query_chooser, "is_interactive", lambda: False)
    else:
        monkeypatch.delenv("JPY_SESSION_NAME")
    monkeypatch.setattr(ipywidgets, "interact", None)  # to call it would fail
    query_chooser.query_chooser(rankings, load)
    assert not plt.get_fignums()


def test_the_menu_is_a_widget(rankings, looked_on, monkeypatch):
    """With the real ipywidgets: another choice draws another figure."""
    found = []
    monkeypatch.setattr(query_chooser, "ranked_lists", lambda rows: found.append(rows[0].query))
    kept = []
    interact = ipywidgets.interact
    monkeypatch.setattr(ipywidgets, "interact", lambda *a, **k: kept.append(interact(*a, **k)))
    query_chooser.query_chooser(rankings, load)
    menu, = [w for w in kept[0].widget.children if isinstance(w, ipywidgets.Dropdown)]
    menu.value = "1.png"
    assert [int(picture[0, 0, 0]) for picture in found] == [0, 10]
