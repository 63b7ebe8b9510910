"""The page of ranked pictures: complete in one file, whatever the files' names are."""

import re
from html import unescape
from pathlib import Path

from reidlib.report.ranked_page import ranked_text, write_ranked_page
from reidlib.utils.paths import ROOT

GALLERY = Path("photos")
RANKED = {Path("q.png"): [(GALLERY / "deep" / "a.png", 0.98765), (GALLERY / "b.png", -0.25)],
          Path("<b>&.png"): [(GALLERY / "b.png", 1.0)]}


def write(folder, ranked=RANKED, left_out=()):
    path = write_ranked_page(folder / "page.html", ranked, left_out, Path("best.safetensors"),
                             GALLERY, lambda image: f"data:image/jpeg;base64,{image.stem}")
    return path.read_text(encoding="utf-8")


def test_pictures_come_in_order_with_rank_cosine_and_name(tmp_path):
    page = write(tmp_path)
    cells = re.findall(r"<li>.*?base64,(\w+).*?<b>(\d+)</b> · (.*?)<br><small>(.*?)</small>", page)
    assert cells == [("a", "1", "0.988", "deep/a.png"), ("b", "2", "-0.250", "b.png"),
                     ("b", "1", "1.000", "b.png")]
    assert "The 2 most similar pictures in photos" in page and "model best.safetensors" in page
    assert page.startswith("<!DOCTYPE html>") and "Left out" not in page


def test_it_needs_no_other_file_and_runs_no_script(tmp_path):
    page = write(tmp_path)
    assert all(source.startswith("data:") for source in re.findall(r'src="(.*?)"', page))
    assert not re.search(r"https?:|<script|<link|url\(|href=", page)


def test_names_are_text_and_never_markup(tmp_path):
    page = write(tmp_path, left_out=["<i>.png cannot be read", "bad\udcff.png"])
    assert "<h2>&lt;b&gt;&amp;.png</h2>" in page and "<li>&lt;i&gt;.png cannot be read</li>" in page
    assert "<li>bad?.png</li>" in page


def test_it_says_what_a_cosine_is_not_and_what_the_page_is_not_for(tmp_path):
    text = unescape(re.sub(r"<.*?>", "", write(tmp_path)))
    assert "alone it says little" in text and "Do not use this page to track" in text
    heading = re.search(r"under (.*?)\.\n", text)[1]
    assert f"\n## {heading}\n" in (ROOT / "README.md").read_text()


def test_a_gallery_of_one_image_has_its_name():
    image = Path("photos/a.png")
    assert ranked_text({Path("q.png"): [(image, 0.5)]}, [], image).endswith("0.500  photos/a.png")


def test_the_same_as_text():
    assert ranked_text(RANKED, ["c.png cannot be read"], GALLERY).splitlines() == [
        "q.png", "   1  0.988  deep/a.png", "   2  -0.250  b.png", "<b>&.png", "   1  1.000  b.png",
        "left out: c.png cannot be read"]
