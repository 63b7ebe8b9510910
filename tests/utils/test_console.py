"""A bar where a person watches, plain lines elsewhere."""

import sys

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
