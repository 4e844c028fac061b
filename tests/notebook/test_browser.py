"""The search notebook as a person uses it: JupyterLab, a real browser, the keyboard and the mouse."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import socket
import sqlite3
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
DRIVER = shutil.which("chromedriver")
FLAGS = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage", "--window-size=1280,2000",
)  # fmt: skip
WAIT_S = 180
NOTEBOOK = "03_querying.ipynb"
NEEDED = {"chromium": CHROMIUM, "chromedriver": DRIVER, "selenium": importlib.util.find_spec("selenium"),
          "jupyterlab": importlib.util.find_spec("jupyterlab")}  # fmt: skip
SETTINGS = {
    "notebook-extension/tracker": {"windowingMode": "none"},  # else cells out of sight are not in the page
    "apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False},
}
MISSING = [name for name, found in NEEDED.items() if not found]
pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(900),
    pytest.mark.skipif(bool(MISSING), reason=f"not installed: {', '.join(MISSING)}"),
]


@pytest.fixture
def lab(tmp_path):
    """JupyterLab on a free loopback port over a copy of what the notebook needs; yields its address with a token."""
    (tmp_path / "notebooks").mkdir()
    (tmp_path / "notebooks" / NOTEBOOK).write_text(json.dumps(unrun(ROOT / "notebooks" / NOTEBOOK)))
    (tmp_path / "data").symlink_to(ROOT / "data", target_is_directory=True)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    own = {name: str(tmp_path / name.lower()) for name in ("JUPYTER_CONFIG_DIR", "JUPYTER_RUNTIME_DIR", "IPYTHONDIR", "TMPDIR")}
    own["JUPYTERLAB_SETTINGS_DIR"] = str(tmp_path / "settings")
    for name, content in SETTINGS.items():
        path = tmp_path / "settings" / "@jupyterlab" / f"{name}.jupyterlab-settings"
        path.parent.mkdir(parents=True)
        path.write_text(json.dumps(content))
    (tmp_path / "tmpdir").mkdir()
    token = "a-token-for-this-run"
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", f"--port={port}", "--ip=127.0.0.1",
               f"--IdentityProvider.token={token}", f"--ServerApp.root_dir={tmp_path}",
               "--LabApp.news_url=None", "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate"]  # fmt: skip
    with (tmp_path / "lab.log").open("wb") as log:
        server = subprocess.Popen(command, stdout=log, stderr=log, env={**os.environ, **own, "HF_HUB_OFFLINE": "1"})
    try:
        address = f"http://127.0.0.1:{port}"
        until(lambda: answers(f"{address}/api?token={token}"), 60, lambda: (tmp_path / "lab.log").read_text()[-2000:])
        yield address, token, tmp_path
    finally:
        server.terminate()
        server.wait(30)


@pytest.fixture
def browser():
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    with tempfile.TemporaryDirectory() as profile:
        for flag in (*FLAGS, f"--user-data-dir={profile}"):
            options.add_argument(flag)
        driver = webdriver.Chrome(options=options, service=Service(DRIVER))
        try:
            yield driver
            if folder := os.environ.get("UFR_BROWSER_SCREENSHOTS"):
                driver.save_screenshot(str(Path(folder, "last.png")))
        finally:
            driver.quit()


def unrun(path):
    """A notebook as if it had never been run."""
    book = json.loads(path.read_text(encoding="utf-8"))
    book["metadata"].pop("widgets", None)
    for cell in book["cells"]:
        if cell["cell_type"] == "code":
            cell["execution_count"], cell["outputs"] = None, []
    return book


def answers(url):
    try:
        with urllib.request.urlopen(url, timeout=2) as reply:
            return reply.status == 200
    except OSError:
        return False


def until(happens, seconds=WAIT_S, say=lambda: ""):
    """Wait for a true value of `happens()` and return it; the page may be redrawn under a look at it."""
    from selenium.common.exceptions import WebDriverException

    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            if found := happens():
                return found
        except WebDriverException:
            pass
        time.sleep(0.3)
    pytest.fail(f"did not happen within {seconds} s. {say()}")


class Page:
    """The notebook in the browser, by what a person sees of it."""

    def __init__(self, driver):
        self.driver = driver

    def find(self, css):
        return self.driver.find_elements("css selector", css)

    def button(self, text):
        return next(button for button in self.find(".jupyter-widgets button, .jupyter-button") if button.text.strip() == text)

    def shown(self):
        return "\n".join(element.text for element in self.find(".jp-OutputArea .widget-vbox"))

    def run_all(self):
        self.driver.execute_script("document.querySelector('.jp-NotebookPanel').focus()")
        self.menu("Run", "Run All Cells")

    def menu(self, title, entry):
        label = next(item for item in self.find(".lm-MenuBar-itemLabel") if item.text == title)
        label.click()
        until(lambda: [item for item in self.find(".lm-Menu-itemLabel") if item.text == entry], 20)[0].click()

    def prompts(self):
        """Execution counts of code cells that are done."""
        texts = self.driver.execute_script(
            "return [...document.querySelectorAll('.jp-CodeCell .jp-InputArea-prompt')].map(e => e.textContent)"
        )
        return [text for text in texts if text.strip("[]: ").isdigit()]


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
    browser.get(f"{address}/lab/tree/notebooks/{NOTEBOOK}?token={token}&reset")
    until(lambda: page.find(".jp-NotebookPanel .jp-CodeCell"), 90)
    until(lambda: "Idle" in browser.page_source or "idle" in browser.page_source, 90)

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
    assert choices[:2] == ["everything", "every document"]

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
