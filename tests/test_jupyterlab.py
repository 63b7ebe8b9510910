"""A person's way: a notebook opened in JupyterLab, in a real browser, and run by its menu."""

import re
import secrets
import subprocess
import sys
import time

import nbformat
import pytest

from reidlib.report.notebooks import NOTEBOOKS
from tests.report.test_html import BROWSER, needs_browser

sync_api = pytest.importorskip("playwright.sync_api", reason="no playwright here")


@pytest.fixture
def server(tmp_path):
    """Address of a JupyterLab whose folder is ``tmp_path``."""
    token, log = secrets.token_hex(8), tmp_path / "server.log"
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", "--port=0",
               f"--IdentityProvider.token={token}", f"--notebook-dir={tmp_path}"]
    with log.open("w") as file, subprocess.Popen(command, stdout=file, stderr=file) as process:
        try:
            until = time.monotonic() + 120
            while not (found := re.search(r"(http://127\.0\.0\.1:\d+/lab)\?", log.read_text())):
                assert process.poll() is None and time.monotonic() < until, log.read_text()
                time.sleep(0.2)
            yield f"{found[1]}/tree/{{}}?token={token}"
        finally:
            process.terminate()


@needs_browser
def test_a_notebook_runs_in_jupyterlab_from_its_menu(server, tmp_path):
    notebook = nbformat.read(NOTEBOOKS[0], 4)
    parameters, = (c for c in notebook.cells if "parameters" in c.metadata.get("tags", []))
    parameters.source += f"\nworkspace = {str(tmp_path / 'workspace')!r}"
    path = tmp_path / NOTEBOOKS[0].name
    nbformat.write(notebook, path)
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1366, "height": 900})
        page.goto(server.format(path.name))
        page.locator(".jp-Notebook .jp-CodeCell").first.wait_for(timeout=120_000)
        page.get_by_text("| Idle").wait_for(timeout=120_000)  # the kernel has started
        page.get_by_role("menuitem", name="Run", exact=True).click()
        page.get_by_role("menuitem", name="Run All Cells", exact=True).click()
        code = [c for c in notebook.cells if c.cell_type == "code"]
        page.wait_for_function(
            "n => [...document.querySelectorAll('.jp-InputPrompt')]"
            ".some(prompt => prompt.textContent.includes(`[${n}]`))", arg=len(code),
            timeout=240_000)
        with page.expect_response(lambda r: r.request.method == "PUT" and path.name in r.url):
            page.get_by_role("menuitem", name="File", exact=True).click()
            page.get_by_role("menuitem", name="Save Notebook").first.click()
        browser.close()
    saved = nbformat.read(path, 4)
    outputs = [o for c in saved.cells if c.cell_type == "code" for o in c.outputs]
    assert not [o for o in outputs if o.output_type == "error"]
    assert [c.execution_count for c in saved.cells if c.cell_type == "code"] == [
        *range(1, len(code) + 1)]
    assert sum("image/jpeg" in o.get("data", {}) for o in outputs) >= 3
