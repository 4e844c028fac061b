"""What the panels promise, in a real browser: one JupyterLab, one kernel and one browser for all tests of this file."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from browsing import NEEDS_BROWSER, ROOT, Page, book, chromium, faint, laboratory, until

from ultrafast_rag.index.store import Store

pytestmark = NEEDS_BROWSER
SAMPLES = ROOT / "data" / "samples"
SETUP = """
import time
from ultrafast_rag import UltraFastRAG
from ultrafast_rag.notebook.widgets import IngestWidget, SearchWidget
rag = UltraFastRAG("index", image_model="models/demo-clip", speech_model="models/demo-whisper", quiet=True)
names = ["larkholm_handbook.pdf", "garden_calendar.md", "two_red_boats_at_sunset.jpg", "station_report.ogg"]
report = rag.ingest(*(f"samples/{name}" for name in names))
panel = rag.widget(); panel
"""
SLOW = """
def slow(question, hits):
    for sentence in ["Slowly it begins. ", "Then it goes on. ", "And on it goes. ", "Here it ends [1]."]:
        time.sleep(1); yield sentence
writing = SearchWidget(rag, generator=slow); writing
"""
INGEST = (
    'other = UltraFastRAG("other", image_model=None, speech_model=None, quiet=True); ingesting = IngestWidget(other); ingesting'
)
EMPTY = 'empty = UltraFastRAG("empty", image_model=None, speech_model=None, quiet=True); nothing = empty.widget(); nothing'
SLIDER = ".noUi-handle, .ui-slider-handle"  # of ipywidgets 8 and 7
FOUNDED = "Who founded the station, and when?"


class Panel:
    """One panel of the notebook, by what a person sees of it."""

    def __init__(self, page, place):
        self.page, self.place = page, place

    @property
    def box(self):
        return self.page.find(".ufr-panel")[self.place]

    def find(self, css):
        return self.box.find_elements("css selector", css)

    def shown(self):
        return self.box.text

    def button(self, text):
        found = [button for button in self.find("button") if text in button.text and button.is_displayed()]
        assert found, f"no button {text!r}: {[button.text for button in self.find('button')]}"
        return found[0]

    def press(self, text):
        button = until(lambda: self.button(text) if self.button(text).is_enabled() else None, 20)
        self.page.driver.execute_script("arguments[0].scrollIntoView({block: 'center'})", button)
        button.click()

    def ask(self, question):
        from selenium.webdriver.common.keys import Keys

        until(lambda: self.button("Ask").is_enabled(), 60)
        box = self.find("input[placeholder^='Ask your documents']")[0]
        self.page.driver.execute_script("arguments[0].scrollIntoView({block: 'center'})", box)
        box.send_keys(Keys.CONTROL, "a")
        box.send_keys(question, Keys.ENTER)

    def see(self, words, seconds=60):
        until(lambda: words in self.shown(), seconds, lambda: f"{words!r} is not in: {self.shown()[:3000]}")

    def card(self):
        return self.find(".widget-html-content > div[style*='border-left']")[-1].text


@pytest.fixture(scope="module")
def session(tmp_path_factory):
    folder = tmp_path_factory.mktemp("panel")
    for name in ("samples", "models"):  # beside the notebook: the README's moving picture shows no path of this machine
        (folder / name).symlink_to(ROOT / "data" / name, target_is_directory=True)
    (folder / "panel.ipynb").write_text(json.dumps(book(SETUP, SLOW, INGEST, EMPTY)))
    with laboratory(folder) as (address, token), chromium() as driver:
        page = Page(driver)
        page.open(address, token, "panel.ipynb")
        page.run_all()
        until(lambda: len(page.find(".ufr-panel")) == 4, say=lambda: driver.page_source[-3000:])
        yield page, folder


@pytest.fixture
def panel(session):
    return Panel(session[0], 0)


def keep(page, name):
    """A screenshot for those who want to look, where UFR_BROWSER_SCREENSHOTS names a folder."""
    if folder := os.environ.get("UFR_BROWSER_SCREENSHOTS"):
        page.driver.save_screenshot(str(Path(folder, f"{name}.png")))


def test_sample_questions_of_the_index_are_offered_and_asked(panel):
    keep(panel.page, "1_opened")
    panel.press("When was the station founded?")
    panel.see("1911")
    assert "larkholm_handbook.pdf, page" in panel.card()
    assert not [
        button for button in panel.find("button") if "When was the station founded?" in button.text and button.is_displayed()
    ]


def test_follow_ups_are_answered_from_evidence_and_the_history_is_shown(panel):
    panel.press("New conversation")
    panel.ask(FOUNDED)
    panel.see("Agnes Thorvald")
    until(lambda: FOUNDED in panel.card() and panel.button("Ask").is_enabled(), 60)
    keep(panel.page, "2_answer")
    panel.ask("more")
    panel.see("from the last answer's evidence")
    assert "barometers" in panel.card().split("support")[0]
    panel.see("Earlier in this conversation")
    assert FOUNDED in [summary.text for summary in panel.find("summary")]
    panel.ask("How many steps does the tower have?")
    panel.see("142 steps")
    panel.ask("And how high is it?")
    panel.see("Understood as: And how high is it? (steps tower)")
    panel.see("31 metres")
    keep(panel.page, "3_followed")


def test_a_click_on_a_citation_opens_the_whole_page_marked_and_pages_turn(panel):
    panel.ask(FOUNDED)
    panel.see("Agnes Thorvald")
    until(lambda: FOUNDED in panel.card(), 60)
    cite = until(lambda: panel.find("button.ufr-cite"), 20)[0]
    assert cite.get_attribute("aria-label") == "source 1: larkholm_handbook.pdf, page 4"
    cite.click()
    picture = until(lambda: panel.find("img[alt='larkholm_handbook.pdf, page 4, the passage marked in yellow']"), 60)[0]
    wide, high, yellow = panel.page.driver.execute_script(
        "const i = arguments[0], c = document.createElement('canvas'); c.width = i.naturalWidth; c.height = i.naturalHeight;"
        "const x = c.getContext('2d'); x.drawImage(i, 0, 0); const d = x.getImageData(0, 0, c.width, c.height).data; let n = 0;"
        "for (let p = 0; p < d.length; p += 4) if (d[p] > 235 && d[p+1] > 225 && d[p+2] < 200 && d[p+2] > 120) n++;"
        "return [c.width, c.height, n / (c.width * c.height)]",
        picture,
    )
    assert high > wide > 600  # a whole page, not a strip of it
    assert 0.01 < yellow < 0.3
    panel.page.driver.execute_script("arguments[0].scrollIntoView({block: 'end'})", picture)
    keep(panel.page, "4_page")
    panel.press("Next page")
    until(lambda: panel.find("img[alt='larkholm_handbook.pdf, page 5']"), 60)
    panel.press("Previous page")
    until(lambda: panel.find("img[alt*='page 4, the passage']"), 60)
    panel.press("Close page")
    until(lambda: not [button for button in panel.find("button") if "Next page" in button.text and button.is_displayed()], 20)


def test_a_recording_opens_at_its_second(panel):
    panel.ask("How strong was the wind that the recorded report speaks of?")
    until(lambda: "How strong was the wind" in panel.card() and "station_report.ogg" in panel.card(), 60)
    panel.press("· station_report.ogg")
    sound = until(lambda: panel.find("audio"), 60)[-1]
    assert "#t=" in sound.get_attribute("src")
    until(lambda: panel.page.driver.execute_script("return arguments[0].duration", sound) > 3, 30)
    panel.press("Close page")


def test_settings_ask_again_at_once(panel):
    from selenium.webdriver.common.keys import Keys
    from selenium.webdriver.support.ui import Select

    panel.press("New conversation")
    panel.ask(FOUNDED)
    until(lambda: FOUNDED in panel.card() and "Thorvald" in panel.card(), 60)
    files = Select(panel.find("select[multiple]")[0])
    files.select_by_visible_text("garden_calendar.md")
    until(lambda: "larkholm_handbook.pdf" not in panel.card(), 60, panel.card)
    files.select_by_visible_text("larkholm_handbook.pdf")  # several at once
    until(lambda: "Thorvald" in panel.card(), 60, panel.card)
    files.deselect_all()
    pages = panel.find("input[placeholder^='all, or']")[0]
    pages.send_keys("9-12", Keys.ENTER)
    until(lambda: "page 4" not in panel.card(), 60, panel.card)
    pages.send_keys(Keys.CONTROL, "a")
    pages.send_keys(Keys.BACKSPACE, Keys.ENTER)
    until(lambda: "page 4" in panel.card(), 60, panel.card)
    before = panel.card()
    panel.find(SLIDER)[0].send_keys(*[Keys.ARROW_LEFT] * 5)
    until(lambda: panel.card() != before, 60)
    Select(panel.find("select")[0]).select_by_visible_text("image")
    until(lambda: "two_red_boats" in panel.card() or "Not found" in panel.card(), 60, panel.card)
    Select(panel.find("select")[0]).select_by_visible_text("everything")
    until(lambda: "Thorvald" in panel.card(), 60, panel.card)


def test_the_answer_is_copied_and_saved_as_one_file(session, panel):
    from selenium.webdriver.common.keys import Keys

    page, folder = session
    panel.ask(FOUNDED)
    until(lambda: FOUNDED in panel.card() and "Thorvald" in panel.card(), 60)
    panel.press("Copy")
    panel.see("Copied")
    box = panel.find("input[placeholder^='Ask your documents']")[0]
    box.send_keys(Keys.CONTROL, "a")
    box.send_keys(Keys.CONTROL, "v")
    until(lambda: "Agnes Thorvald" in box.get_property("value"), 20)
    panel.press("Save as HTML")
    link = until(lambda: panel.find("a[download]"), 60)[0]
    path = folder / link.get_attribute("download")
    saved = path.read_text(encoding="utf-8")
    assert "Agnes Thorvald" in saved
    assert "data:image/" in saved
    assert "<script" not in saved
    assert "http" not in saved.replace("http-equiv", "")
    handle = page.driver.current_window_handle
    page.driver.switch_to.new_window("tab")
    try:
        page.driver.get(path.as_uri())
        assert page.driver.execute_script("return document.images[0].naturalWidth") > 300
        keep(page, "6_saved")
    finally:
        page.driver.close()
        page.driver.switch_to.window(handle)


def test_a_dropped_picture_is_the_question_and_is_shown(panel):
    area = panel.find("[aria-label^='Drop or paste a picture']")[0]
    panel.page.driver.execute_script(
        "const area = arguments[0], bytes = Uint8Array.from(atob(arguments[1]), c => c.charCodeAt(0)), d = new DataTransfer();"
        "d.items.add(new File([bytes], 'boats.jpg', {type: 'image/jpeg'}));"
        "area.dispatchEvent(new DragEvent('drop', {dataTransfer: d, bubbles: true, cancelable: true}))",
        area,
        __import__("base64").b64encode((SAMPLES / "two_red_boats_at_sunset.jpg").read_bytes()).decode(),
    )
    until(lambda: panel.find("img[alt='the picture you asked with']"), 60)
    panel.see("two_red_boats_at_sunset.jpg")
    assert "for (picture)" in panel.card()
    keep(panel.page, "5_picture")


def test_thumbs_are_kept_in_the_index(session, panel):
    panel.ask(FOUNDED)
    until(lambda: FOUNDED in panel.card() and "Thorvald" in panel.card(), 60)
    panel.press("Helpful")
    panel.see("stored in the index")
    with Store.open(session[1] / "index") as index:  # beside the kernel that has it open
        kept = index.feedback()[-1]
    assert (kept["question"], kept["chunk_id"], kept["vote"]) == (FOUNDED, None, 1)


def test_a_written_answer_streams_stops_and_grows_stale(session):
    panel = Panel(session[0], 1)
    driver = panel.page.driver
    driver.execute_script(
        "const p = arguments[0]; window.seen = [];"
        "new MutationObserver(() => window.seen.push(p.textContent)).observe(p, {childList: true, subtree: true})",
        panel.box,
    )
    panel.ask("Who writes?")
    panel.see("Here it ends")
    seen = driver.execute_script("return window.seen")
    assert [text for text in seen if "Slowly it begins" in text and "goes on" not in text]  # sentences, as they came
    assert [text for text in seen if "goes on" in text and "Here it ends" not in text]
    until(lambda: panel.button("Ask").is_enabled(), 30)
    from selenium.webdriver.common.keys import Keys

    panel.find(SLIDER)[0].send_keys(Keys.ARROW_LEFT)
    panel.see("The settings have changed since this answer")
    assert panel.find(".ufr-stale")
    panel.ask("Who stops?")
    until(lambda: "Who stops?" in panel.card() and "Slowly it begins" in panel.card(), 60)
    panel.press("Stop")
    panel.see("Stopped")
    assert "Here it ends" not in panel.card()
    assert not panel.find(".ufr-stale")  # that was the answer before


def test_upload_progress_pause_and_resume(session):
    panel = Panel(session[0], 2)
    panel.page.driver.execute_script("arguments[0].scrollIntoView({block: 'center'})", panel.box)
    path = panel.find("input[placeholder^='A file or folder']")[0]
    path.send_keys("samples/larkholm_handbook.pdf")
    panel.press("Ingest")
    panel.press("Pause")
    panel.see("Paused")
    panel.press("Resume")
    panel.see("Done.", 120)
    assert "pages a minute" in panel.card()
    keep(panel.page, "7_ingested")


def test_empty_states_say_what_is_missing(session, panel):
    from selenium.webdriver.support.ui import Select

    nothing = Panel(session[0], 3)
    assert "Nothing is in this index yet" in nothing.shown()
    panel.ask("Wie heißt der Koch und was wird an den Mittwochen gegessen?")
    panel.see("The question is in German")
    Select(panel.find("select")[0]).select_by_visible_text("video")
    panel.see("There is no picture in this index")
    Select(panel.find("select")[0]).select_by_visible_text("everything")


@pytest.mark.parametrize("theme", ["JupyterLab Dark", "JupyterLab Light"])
def test_every_word_is_readable_in_dark_and_light(panel, theme):
    panel.page.theme(theme)
    panel.ask(FOUNDED)
    until(lambda: FOUNDED in panel.card() and "Thorvald" in panel.card(), 60)
    panel.press("larkholm_handbook.pdf, page 4")
    until(lambda: panel.find("img[alt*='page 4, the passage']"), 60)
    keep(panel.page, f"9_{theme.split()[-1].lower()}")
    assert not faint(panel.page.driver, panel.box)
    panel.press("Close page")


def test_all_is_done_without_a_mouse(panel):
    from selenium.webdriver import ActionChains
    from selenium.webdriver.common.keys import Keys

    driver = panel.page.driver
    until(lambda: panel.button("Ask").is_enabled(), 60)
    driver.execute_script("arguments[0].scrollIntoView(); arguments[0].focus()", panel.find("button")[0])
    ActionChains(driver).key_down(Keys.SHIFT).send_keys(Keys.TAB).key_up(Keys.SHIFT).perform()  # back to the question
    assert driver.switch_to.active_element.get_attribute("placeholder") == "Ask your documents, then press Enter"
    ActionChains(driver).send_keys("How many steps does the tower have?", Keys.ENTER).perform()
    until(lambda: "142 steps" in panel.card(), 60)
    panel.page.tab_to(".ufr-cite")
    ActionChains(driver).send_keys(Keys.ENTER).perform()
    until(lambda: panel.find("img[alt*='the passage marked in yellow']"), 60)
    assert "Next page" in panel.page.tab_to("button:has(.fa-arrow-right)").text
    before = panel.find("img[alt^='larkholm_handbook.pdf, page']")[-1].get_attribute("alt")
    ActionChains(driver).send_keys(Keys.SPACE).perform()
    until(lambda: panel.find("img[alt^='larkholm_handbook.pdf, page']")[-1].get_attribute("alt") != before, 60)
    panel.press("Close page")


def test_words_are_copied_where_the_page_may_not_reach_the_clipboard(panel):
    """As over plain http, or in a frame without the permission; and where even the old way is refused they lie there selected."""
    from selenium.webdriver.common.keys import Keys

    driver = panel.page.driver
    panel.ask(FOUNDED)
    until(lambda: FOUNDED in panel.card() and "Thorvald" in panel.card(), 60)
    driver.execute_script("Object.defineProperty(navigator, 'clipboard', {value: undefined, configurable: true})")
    try:
        panel.press("Copy")
        panel.see("Copied")
        box = panel.find("input[placeholder^='Ask your documents']")[0]
        box.send_keys(Keys.CONTROL, "a")
        box.send_keys(Keys.CONTROL, "v")
        until(lambda: "Agnes Thorvald" in box.get_property("value"), 20)
        driver.execute_script("window.kept = document.execCommand; document.execCommand = () => false")
        panel.press("Copied")
        panel.see("Press Ctrl+C")
        assert "Agnes Thorvald" in driver.execute_script("return getSelection().toString() || document.activeElement.value")
    finally:
        driver.execute_script("delete navigator.clipboard; if (window.kept) document.execCommand = window.kept")


def test_the_servers_page_asks_and_shows_the_evidence(session):
    page, folder = session
    driver, handle = page.driver, page.driver.current_window_handle
    command = [sys.executable, "-m", "ultrafast_rag", "serve", "--index", str(folder / "index"), "--port", "0"]
    models = [f"--set={kind}_model={ROOT}/data/models/demo-{name}" for kind, name in (("image", "clip"), ("speech", "whisper"))]
    with subprocess.Popen([*command, *models], stderr=subprocess.PIPE, text=True, cwd=ROOT) as server:
        try:
            address = next(line.split()[-1] for line in server.stderr if line.startswith("serving on"))
            driver.switch_to.new_window("tab")
            driver.get(address)
            box = until(lambda: driver.find_element("id", "question"), 60)
            for scheme in ("light", "dark"):
                driver.execute_cdp_cmd(
                    "Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
                )
                box.clear()
                box.send_keys(FOUNDED, "\n")
                until(lambda: "Agnes Thorvald" in driver.find_element("id", "answer").text, 120)
                assert driver.execute_script("return document.querySelector('#answer img').naturalWidth") > 300
                keep(page, f"a_server_{scheme}")
                assert not faint(driver, driver.find_element("tag name", "body"))
            driver.close()
        finally:
            driver.switch_to.window(handle)
            server.terminate()
            server.wait(60)


@pytest.mark.parametrize("width", [400, 700, 1400])
def test_nothing_is_cut_off_from_400_to_1400_pixels(panel, width):
    driver = panel.page.driver
    driver.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride", {"width": width, "height": 1800, "deviceScaleFactor": 1, "mobile": False}
    )
    try:
        time.sleep(0.7)
        keep(panel.page, f"8_{width}")
        wide = driver.execute_script(
            "const p = arguments[0].getBoundingClientRect(); return [...arguments[0].querySelectorAll('*')].filter(e => "
            "e.offsetParent && e.getBoundingClientRect().right > p.right + 2 && getComputedStyle(e).position != 'absolute')"
            ".map(e => e.className || e.tagName)",
            panel.box,
        )
        assert not wide
    finally:
        driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_every_control_is_reached_by_tab_and_has_a_name(panel):
    driver = panel.page.driver
    tree = driver.execute_cdp_cmd("Accessibility.getFullAXTree", {})["nodes"]
    wanted = {"textbox", "button", "combobox", "listbox", "spinbutton", "MenuListPopup"}
    inside = driver.execute_script(
        "return [...arguments[0].querySelectorAll('input,select,button,textarea,[tabindex]')].filter(e => e.offsetParent && "
        "!e.disabled && e.tabIndex < 0).map(e => e.className)",
        panel.box,
    )
    assert not inside
    names = {node["name"]["value"] for node in tree if node.get("role", {}).get("value") in wanted and "name" in node}
    for name in ("Question", "Ask", "Look in", "Documents", "Pages", "Passages", "Helpful", "Not helpful", "Save as HTML"):
        assert any(seen.strip("\n \ue000-\uf8ff").endswith(name) for seen in names), names
