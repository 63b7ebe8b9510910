"""The tracked report pages in a real browser: all pictures, no failing script, no network."""

import json
import re
import shutil
import subprocess

import pytest

from reidlib.experiments.study import load_study
from reidlib.report import table1_page
from reidlib.report.page import README_STUDIES
from reidlib.utils.paths import ROOT
from tests.report.made_up_runs import finish

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))),
               None)
HEAD = "<script>window.failed = []; addEventListener('error', e => failed.push(e.message || " \
       "e.target.src || e.target.href), true);</script>"
LOOK = """<script>addEventListener('load', () => {
  const all = name => [...document.querySelectorAll(name)];
  const found = {failed, missing: all('img').filter(i => !i.naturalWidth).map(i => i.alt),
    images: all('img').length, described: all('img').filter(i => i.alt).length,
    headings: all('h1, h2').map(h => h.textContent.replace('¶', '').trim()),
    tables: all('table').map(t => t.rows.length),
    answers: all('details:not([open])').map(d => d.textContent.length),
    nowhere: all('a[href^="#"]').map(a => decodeURIComponent(a.hash.slice(1)))
      .filter(id => !document.getElementById(id)),
    outside: all('[src], link[href]').map(e => e.src || e.href).filter(a => /^https?:/.test(a)),
    cut: all('table').filter(t => t.offsetWidth > t.parentElement.clientWidth + 1).length,
    wide: document.documentElement.scrollWidth - innerWidth};
  document.body.innerHTML = '<pre id=found>' + JSON.stringify(found) + '</pre>'; });</script>"""


def opened(page, folder, width=1280):
    """What the browser finds on a page; the page is copied with the question added."""
    text = page.read_text(encoding="utf-8")
    assert text.count("<head>") == text.count("</body>") == 1
    copy = folder / page.name
    copy.write_text(text.replace("<head>", "<head>" + HEAD).replace("</body>", LOOK + "</body>"),
                    encoding="utf-8")
    done = subprocess.run(
        [BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run",
         "--disable-background-networking", "--disable-component-update", "--disable-sync",
         f"--user-data-dir={folder / 'profile'}", f"--window-size={width},1000", "--dump-dom",
         "--virtual-time-budget=10000", copy.as_uri()],
        capture_output=True, text=True, check=True, timeout=120)
    answer = re.search(r"<pre id=\"found\">(.*?)</pre>", done.stdout, re.S)
    assert answer, f"the page's scripts did not run to the end: {done.stdout[-500:]}"
    return json.loads(answer[1].replace("&amp;", "&").replace("&lt;", "<").replace("&gt;", ">"))


needs_browser = pytest.mark.skipif(BROWSER is None, reason="no chromium here")


@needs_browser
@pytest.mark.parametrize("study", README_STUDIES)
def test_the_report_opens_whole(study, tmp_path):
    page = ROOT / "reports" / study / "report.html"
    found = opened(page, tmp_path)
    assert found["failed"] == found["missing"] == found["outside"] == found["nowhere"] == []
    assert found["images"] == found["described"] >= 5
    assert {"In two minutes", "Results", "Is each step real?", "The data", "How to reproduce",
            "Cost, hardware, versions"} <= set(found["headings"])
    assert len(found["answers"]) == 3 and min(found["answers"]) > 100  # folded away
    assert len(found["tables"]) >= 5 and min(found["tables"]) >= 3
    assert found["wide"] <= 0, "the page scrolls sideways"
    assert found["cut"] == 0, "a table is wider than the page"
    assert opened(page, tmp_path, 500)["wide"] <= 0, "the page scrolls sideways on a phone"


@needs_browser
def test_the_page_of_table_1_opens_whole(tmp_path):
    """With every row that it can have; no column of a table is cut off."""
    study = load_study("table1-market1501")
    for number, preset in enumerate(study.all_presets):
        finish(tmp_path, study.name, preset, (0.2 + number / 10, 0.9))
    found = opened(table1_page.write_page(tmp_path).with_suffix(".html"), tmp_path)
    assert found["failed"] == found["missing"] == found["outside"] == found["nowhere"] == []
    assert found["images"] == found["described"] == 1 and found["tables"] == [9, 9, 13]
    assert found["cut"] == 0 and found["wide"] <= 0


@needs_browser
def test_a_missing_picture_a_wide_table_and_a_failing_script_are_seen(tmp_path):
    page = tmp_path / "page.html"
    page.write_text("<html><head></head><body><h1>A</h1><img src='no.png' alt='none'>"
                    "<div style='width: 99px'><table><td><hr style='width: 200px'></table></div>"
                    "<script>nothing.there()</script></body></html>")
    (tmp_path / "other").mkdir()
    found = opened(page, tmp_path / "other")
    assert found["missing"] == ["none"] and found["headings"] == ["A"] and found["cut"] == 1
    assert any("nothing is not defined" in message for message in found["failed"])
    assert any(message.endswith("no.png") for message in found["failed"])
