"""Fractions become percentages, tables Markdown, templates pages."""

import pandas as pd
import pytest
from jinja2 import UndefinedError

from reidlib.utils.text import aligned, percent, render, to_markdown

NAN = float("nan")


@pytest.mark.parametrize("value, std, signed, ends, expected", [
    (0.929, NAN, False, None, "92.9"), (1.0, 0.0123, False, None, "100.0 ± 1.2"),
    (-0.004, NAN, True, None, "-0.4"), (0.039, 0.01, True, None, "+3.9 ± 1.0"),
    (0.5, NAN, False, (0.4, 0.625), "50.0 [40.0, 62.5]"),
    (0.01, NAN, True, (-0.02, 0.03), "+1.0 [-2.0, +3.0]"),
    (NAN, 0.1, False, None, "–"), (None, NAN, False, None, "–")])
def test_percent(value, std, signed, ends, expected):
    assert percent(value, std, signed, ends) == expected


def test_markdown_table():
    table = pd.DataFrame({"model": ["a"], "mAP": [0.5], "change": ["+3.9 [-1.0, 8.0]"]})
    assert to_markdown(table) == ("| model | mAP | change |\n| :-- | --: | --: |\n"
                                  "| a | 0.5 | +3.9 [-1.0, 8.0] |")


def test_a_table_for_a_terminal():
    table = pd.DataFrame({"model": ["a", "long name"], "mAP": [0.5, 12.25],
                          "queries": ["9 of 10", "10 of 10"]})
    assert aligned(table).splitlines() == [
        "model        mAP  queries",
        "a            0.5  9 of 10",
        "long name  12.25  10 of 10"]


def test_a_page_from_its_template(tmp_path):
    template = tmp_path / "page.md.j2"
    template.write_text("# {{ name }}\n\n{% if best %}\n{{ best | percent }}\n{% endif %}\n\n"
                        "{{ scores | table }}\n{{ name | loud }}\n")
    values = {"name": "smoke", "scores": pd.DataFrame({"mAP": [1]})}
    page = render(template, {"loud": str.upper}, best=None, **values)
    assert page == "# smoke\n\n| mAP |\n| --: |\n| 1 |\nSMOKE\n"
    assert "\n\n12.5\n\n" in render(template, {"loud": str.upper}, best=0.125, **values)
    with pytest.raises(UndefinedError, match="'best' is undefined"):
        render(template, {"loud": str.upper}, **values)
