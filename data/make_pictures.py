"""The README's pictures, from real runs: an evidence card, the search panel in a browser, the ablation.

    python data/make_pictures.py            # all; needs chromium, chromedriver and the [test] extra
    python data/make_pictures.py card       # one of card, widget, ablation

The panel is photographed by the browser test at its end; the ablation is drawn from its committed JSON.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
IMAGES = HERE / "images"
QUESTION = "Why are there fewer kittiwakes now?"
FLAGS = ("--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--force-device-scale-factor=2",
         "--disable-background-networking", "--disable-sync", "--no-first-run", "--window-size=1000,1200")  # fmt: skip


def card(path: Path) -> None:
    """An answer's card on a white page, twice the size for sharp screens."""
    from ultrafast_rag import UltraFastRAG

    with UltraFastRAG(image_model=None, speech_model=None, quiet=True) as rag:
        rag.ingest(HERE / "samples" / "larkholm_handbook.pdf")
        rag.query("Who founded the station, and when?")  # the picture shows a warm answer
        html = rag.query(QUESTION)._repr_html_()
    photograph(f'<body style="margin:12px;background:#fff;color:#1b1b1b"><div id="card">{html}</div></body>', path)


def photograph(html: str, path: Path) -> None:
    """Render a page in headless Chromium and keep its #card."""
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium") or shutil.which("google-chrome") or ""
    with tempfile.TemporaryDirectory() as folder:
        for flag in (*FLAGS, f"--user-data-dir={folder}/profile"):
            options.add_argument(flag)
        page = Path(folder, "card.html")
        page.write_text(f"<!doctype html><meta charset='utf-8'>{html}", encoding="utf-8")
        driver = webdriver.Chrome(options=options, service=Service(shutil.which("chromedriver")))
        try:
            driver.get(page.as_uri())
            path.write_bytes(driver.find_element("id", "card").screenshot_as_png)
        finally:
            driver.quit()
    shrink(path)


def widget(path: Path) -> None:
    """The panel as the browser test leaves it."""
    command = [sys.executable, "-m", "pytest", "-q", "-m", "slow", "tests/notebook/test_browser.py"]
    subprocess.run(command, cwd=HERE.parent, env={**os.environ, "UFR_SCREENSHOT": str(path)}, check=True)
    shrink(path)


def ablation(path: Path) -> None:
    """Pages a minute, one change at a time, from data/benchmarks/ablation.json."""
    from ultrafast_rag.bench.ablation import plot

    record = HERE / "benchmarks" / "ablation.json"
    if not record.exists():
        sys.exit("no data/benchmarks/ablation.json: run python -m ultrafast_rag bench ablation first")
    plot(json.loads(record.read_text(encoding="utf-8"))["rows"], path)


def shrink(path: Path) -> None:
    """256 colours: a screenshot loses nothing that a reader sees, and most of its bytes."""
    from PIL import Image

    with Image.open(path) as picture:
        small = picture.convert("RGB").quantize(256, dither=Image.Dither.NONE)
    small.save(path, optimize=True)


PICTURES = {"card": (card, "evidence_card.png"), "widget": (widget, "widget.png"), "ablation": (ablation, "ablation.png")}

if __name__ == "__main__":
    IMAGES.mkdir(exist_ok=True)
    for name in sys.argv[1:] or PICTURES:
        make, file_name = PICTURES[name]
        make(IMAGES / file_name)
        print(f"{file_name}: {(IMAGES / file_name).stat().st_size / 1000:.0f} kB")
