"""A bar where a person watches, plain lines elsewhere."""

import sys

import pytest

from reidlib.utils import console


def test_headless_means_nobody_watches(monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    monkeypatch.delenv("REIDLIB_HEADLESS", raising=False)
    assert console.is_interactive()
    monkeypatch.setenv("REIDLIB_HEADLESS", "1")
    assert not console.is_interactive()


def test_bar_yields_everything(monkeypatch, capsys):
    monkeypatch.setattr(console, "is_interactive", lambda: True)
    bar = console.progress_bar(iter("abc"), 3, "reading", "letter", least=3)
    assert list(bar) == ["a", "b", "c"]
    assert "reading" in capsys.readouterr().err
    assert list(console.progress_bar("ab", 2, "reading", "letter", least=3)) == ["a", "b"]
    assert capsys.readouterr().err == ""


def test_a_line_is_there_at_once(capsys):
    console.log("epoch 1/2")
    assert capsys.readouterr().out == "epoch 1/2\n"


def test_the_bar_of_a_training_moves_with_every_step(monkeypatch, capsys):
    monkeypatch.setattr(console, "is_interactive", lambda: True)
    with console.epoch_bar("run", 1, 3, shown=True) as bar:
        bar.move(2.0)
        bar.log("loss 4.2")
    said = capsys.readouterr()
    assert "67%" in said.err and "epoch 2/3, loss 4.2" in said.err and said.out == ""


@pytest.mark.parametrize("watched", [True, False])
@pytest.mark.parametrize("first, shown", [(3, True), (1, False)])
def test_no_bar_and_no_line_where_there_is_nothing_to_do(monkeypatch, capsys, watched, first,
                                                         shown):
    monkeypatch.setattr(console, "is_interactive", lambda: watched)
    with console.epoch_bar("run", first, 3, shown) as bar:
        bar.log("loss 4.2")
    assert capsys.readouterr() == ("", "")


def test_without_a_person_every_epoch_is_a_line(monkeypatch, capsys):
    monkeypatch.setattr(console, "is_interactive", lambda: False)
    with console.epoch_bar("run", 1, 3, shown=True) as bar:
        bar.move(1.5)
        bar.log("loss 4.2")
    assert capsys.readouterr().out == "run: training, epoch 2 to 3\nrun: epoch 2/3, loss 4.2\n"
