"""JupyterLab and a headless browser for the tests beside this file, and for the pictures of the README."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import shutil
import socket
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
NEEDED = {"chromium": CHROMIUM, "chromedriver": DRIVER, "selenium": importlib.util.find_spec("selenium"),
          "jupyterlab": importlib.util.find_spec("jupyterlab")}  # fmt: skip
SETTINGS = {
    "notebook-extension/tracker": {"windowingMode": "none"},  # else cells out of sight are not in the page
    "apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False},
}
MISSING = [name for name, found in NEEDED.items() if not found]
NEEDS_BROWSER = [
    pytest.mark.slow,
    pytest.mark.timeout(900),
    pytest.mark.skipif(bool(MISSING), reason=f"not installed: {', '.join(MISSING)}"),
]


def book(*cells):
    """A notebook of these code cells."""
    made = [
        {"cell_type": "code", "id": f"cell-{n}", "metadata": {}, "execution_count": None, "outputs": [], "source": text}
        for n, text in enumerate(cells)
    ]
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    return {"cells": made, "metadata": {"kernelspec": kernel}, "nbformat": 4, "nbformat_minor": 5}


@contextlib.contextmanager
def laboratory(folder):
    """JupyterLab on a free loopback port over `folder`; its address and token."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    own = {name: str(folder / name.lower()) for name in ("JUPYTER_CONFIG_DIR", "JUPYTER_RUNTIME_DIR", "IPYTHONDIR", "TMPDIR")}
    own["JUPYTERLAB_SETTINGS_DIR"] = str(folder / "settings")
    for name, content in SETTINGS.items():
        path = folder / "settings" / "@jupyterlab" / f"{name}.jupyterlab-settings"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(content))
    (folder / "tmpdir").mkdir()
    token = "a-token-for-this-run"
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", f"--port={port}", "--ip=127.0.0.1",
               f"--IdentityProvider.token={token}", f"--ServerApp.root_dir={folder}",
               "--LabApp.news_url=None", "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate"]  # fmt: skip
    environment = {**os.environ, **own, "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(ROOT)}
    with (folder / "lab.log").open("wb") as log:
        server = subprocess.Popen(command, stdout=log, stderr=log, env=environment)
    try:
        address = f"http://127.0.0.1:{port}"
        until(lambda: answers(f"{address}/api?token={token}"), WAIT_S, lambda: (folder / "lab.log").read_text()[-2000:])
        yield address, token
    finally:
        server.terminate()
        server.wait(30)


@contextlib.contextmanager
def chromium():
    """A headless browser; it leaves a screenshot in UFR_BROWSER_SCREENSHOTS, where that names a folder."""
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
    read = json.loads(path.read_text(encoding="utf-8"))
    read["metadata"].pop("widgets", None)
    for cell in read["cells"]:
        if cell["cell_type"] == "code":
            cell["execution_count"], cell["outputs"] = None, []
    return read


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
        except (WebDriverException, OSError):
            pass
        time.sleep(0.2)
    pytest.fail(f"did not happen within {seconds} s. {say()}")


# words whose colour is too near to what lies behind them: WCAG 2.1, 1.4.3 asks for 4.5, of disabled controls for nothing
_FAINT = """
const rgba = t => { const n = (t.match(/[\\d.]+/g) || [0, 0, 0, 0]).map(Number); return n.length < 4 ? [...n, 1] : n };
const over = (a, b) => [0, 1, 2].map(i => a[i] * a[3] + b[i] * (1 - a[3]));
const lum = c => [0.2126, 0.7152, 0.0722].reduce((s, w, i) => { const v = c[i] / 255;
  return s + w * (v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4) }, 0);
const probe = document.body.appendChild(document.createElement('i')); probe.style.background = 'Canvas';
const paper = rgba(getComputedStyle(probe).backgroundColor), found = []; probe.remove();
for (const e of arguments[0].querySelectorAll('*')) {
  const own = [...e.childNodes].filter(n => n.nodeType == 3).map(n => n.textContent.trim()).join(' ').trim();
  const box = e.getBoundingClientRect();
  if (!/\\w/.test(own) || box.width < 2 || e.matches('style, script, option') || e.closest(':disabled')) continue;
  const line = []; for (let n = e; n; n = n.parentElement) line.unshift(n);
  let back = paper, opacity = 1;
  for (const n of line) { const s = getComputedStyle(n); back = over(rgba(s.backgroundColor), back); opacity *= s.opacity }
  const ink = rgba(getComputedStyle(e).color); ink[3] *= opacity;
  const [a, b] = [lum(over(ink, back)), lum(back)].sort((x, y) => y - x), ratio = (a + 0.05) / (b + 0.05);
  if (ratio < 4.5) found.push(`${ratio.toFixed(1)}: ${own.slice(0, 60)}`);
}
return [...new Set(found)];
"""


def faint(driver, element):
    """Texts inside that are hard to read for their colours, each with its contrast."""
    return driver.execute_script(_FAINT, element)


class Page:
    """The notebook in the browser, by what a person sees of it."""

    def __init__(self, driver):
        self.driver = driver

    def open(self, address, token, path):
        self.driver.get(f"{address}/doc/tree/{path}?token={token}&reset")
        until(lambda: self.find(".jp-NotebookPanel .jp-CodeCell"), WAIT_S)
        # run before its kernel is there, a notebook asks which kernel to take; the mark alone says idle without one, too
        until(lambda: self.has_kernel(f"{address}/api/kernels?token={token}"), 90, self.kernel)
        until(lambda: self.find(".jp-Notebook-ExecutionIndicator[data-status='idle']"), 90, self.kernel)

    def has_kernel(self, url):
        """Whether a kernel waits for work; a page that was open before it knew any asks for one, and gets the one it offers."""
        for button in self.find(".jp-Dialog .jp-mod-accept"):
            button.click()
        with urllib.request.urlopen(url, timeout=5) as reply:
            return any(kernel["execution_state"] == "idle" for kernel in json.load(reply))

    def kernel(self):
        """What the notebook says of its kernel."""
        return [one.get_attribute("outerHTML")[:200] for one in self.find(".jp-Notebook-ExecutionIndicator")]

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

    def theme(self, name):
        """Choose a theme of JupyterLab, e.g. "JupyterLab Dark"."""
        from selenium.webdriver import ActionChains

        def entry(text):
            return until(lambda: [item for item in self.find(".lm-Menu-itemLabel") if item.text == text], 20)[0]

        next(item for item in self.find(".lm-MenuBar-itemLabel") if item.text == "Settings").click()
        ActionChains(self.driver).move_to_element(entry("Theme")).perform()
        entry(name).click()
        until(lambda: self.find(f"body[data-jp-theme-name='{name}']"), 20)

    def tab_to(self, css, most=80):
        """Press Tab until an element of `css` has the focus, and return it: as one gets there without a mouse."""
        from selenium.webdriver import ActionChains
        from selenium.webdriver.common.keys import Keys

        for _ in range(most):
            ActionChains(self.driver).send_keys(Keys.TAB).perform()
            at = self.driver.switch_to.active_element
            if self.driver.execute_script("return arguments[0].matches(arguments[1])", at, css):
                return at
        pytest.fail(f"{most} times Tab lead to no {css}")

    def prompts(self):
        """Execution counts of code cells that are done."""
        texts = self.driver.execute_script(
            "return [...document.querySelectorAll('.jp-CodeCell .jp-InputArea-prompt')].map(e => e.textContent)"
        )
        return [text for text in texts if text.strip("[]: ").isdigit()]
