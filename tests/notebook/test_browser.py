"""The search notebook as a person uses it: JupyterLab, a real browser, the keyboard and the mouse."""

from __future__ import annotations

import json
import os
import sqlite3
from pathlib import Path

import pytest
from browsing import NEEDS_BROWSER, ROOT, Page, chromium, laboratory, unrun, until

NOTEBOOK = "03_querying.ipynb"
pytestmark = NEEDS_BROWSER


@pytest.fixture
def lab(tmp_path):
    """JupyterLab over a copy of what the notebook needs; yields its address, a token and the folder."""
    (tmp_path / "notebooks").mkdir()
    (tmp_path / "notebooks" / NOTEBOOK).write_text(json.dumps(unrun(ROOT / "notebooks" / NOTEBOOK)))
    (tmp_path / "data").symlink_to(ROOT / "data", target_is_directory=True)
    with laboratory(tmp_path) as (address, token):
        yield address, token, tmp_path


@pytest.fixture
def browser():
    with chromium() as driver:
        yield driver


def question_box(page):
    return until(lambda: page.find(".widget-text input[placeholder^='Ask your documents']"))[0]


def ask(page, question):
    from selenium.webdriver.common.keys import Keys

    box = question_box(page)
    page.driver.execute_script("arguments[0].scrollIntoView({block: 'center'})", box)
    box.click()
    box.send_keys(Keys.CONTROL, "a")
    box.send_keys(question, Keys.ENTER)


def votes_in(folder):
    """Feedback in any index below a folder."""
    found = []
    for path in Path(folder).rglob("index.sqlite"):
        with sqlite3.connect(f"file:{path}?mode=ro", uri=True) as database:
            names = {row[0] for row in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
            if "feedback" in names:
                found += database.execute("SELECT * FROM feedback").fetchall()
    return found


def test_a_person_searches_in_the_notebook(lab, browser):
    from selenium.webdriver.common.keys import Keys

    address, token, folder = lab
    page = Page(browser)
    cells = json.loads((ROOT / "notebooks" / NOTEBOOK).read_text(encoding="utf-8"))["cells"]
    code_cells = [cell for cell in cells if cell["cell_type"] == "code"]
    page.open(address, token, f"notebooks/{NOTEBOOK}")

    page.run_all()
    until(lambda: len(page.prompts()) == len(code_cells), say=lambda: f"{len(page.prompts())} of {len(code_cells)} cells ran")
    assert not page.find("[data-mime-type='application/vnd.jupyter.error'], [data-mime-type='application/vnd.jupyter.stderr']")
    until(lambda: "109 knots" in page.shown(), say=page.shown)  # the notebook asks a question of its own in the panel

    ask(page, "Who founded the station, and when?")
    until(lambda: "Agnes Thorvald" in page.shown(), say=page.shown)
    assert "larkholm_handbook.pdf, page 4" in page.shown()
    crop = until(lambda: page.find(".widget-html img[alt*='page 4']"))[0]
    assert browser.execute_script("return arguments[0].naturalWidth", crop) > 300  # decoded, not a broken picture

    choices = [select.get_property("selectedOptions")[0].text for select in page.find(".widget-dropdown select")]
    assert choices[:2] == ["everything", "auto"]

    slider = page.find(".widget-slider .noUi-handle")[0]
    readout = page.find(".widget-slider .widget-readout")[0]
    before = readout.text
    slider.send_keys(*[Keys.ARROW_LEFT] * 4)
    until(lambda: readout.text != before, 20)
    ask(page, "How many steps does the tower have?")
    until(lambda: "142 steps" in page.shown(), say=page.shown)

    page.button("Helpful").click()
    until(lambda: "stored in the index" in page.shown(), 60)
    assert any("How many steps does the tower have?" in row for row in votes_in(folder / "tmpdir"))
    if keep := os.environ.get("UFR_SCREENSHOT"):  # the README's picture of the panel: data/make_pictures.py
        panel = page.find(".jp-OutputArea .widget-vbox")[0]
        Path(keep).write_bytes(panel.screenshot_as_png)
