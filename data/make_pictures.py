"""The README's pictures, from real runs: an evidence card, the search panel in a browser, the ablation, a gallery of cards.

    python data/make_pictures.py            # all; needs chromium, chromedriver and the [test] extra
    python data/make_pictures.py gallery    # one of card, widget, ablation, gallery

The panel is photographed by the browser test at its end; the ablation is drawn from its committed JSON.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
IMAGES = HERE / "images"
QUESTION = "Who founded the station, and when?"
FLAGS = ("--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--force-device-scale-factor=2",
         "--disable-background-networking", "--disable-sync", "--no-first-run", "--window-size=1000,1200")  # fmt: skip


def card(path: Path) -> None:
    """An answer's card on a white page, twice the size for sharp screens."""
    from ultrafast_rag import UltraFastRAG

    with UltraFastRAG(image_model=None, speech_model=None, quiet=True) as rag:
        rag.ingest(HERE / "samples" / "larkholm_handbook.pdf")
        rag.query("How many steps does the tower have?")  # the picture shows a warm answer
        html = rag.query(QUESTION)._repr_html_()
    photograph({path: f'<body style="margin:12px;background:#fff;color:#1b1b1b"><div id="card">{html}</div></body>'})


# what a reader sees of each: its file, what it shows, the call
GALLERY = (
    ("page", "A sentence and the page it stands on, cropped to the passage, with the passage marked",
     "query", {"question": QUESTION}),
    ("table", "A number out of a table, asked for by its row",
     "query", {"question": "How much coffee is stored for ninety days?"}),
    ("picture", "A picture by what it shows; nothing in its name or around it says it",
     "search", {"query": "three green trees and a white house in the snow", "modality": "image", "k": 1}),
    ("recording", "A recording that plays from the sentence asked for",
     "query", {"question": "What did the warden count near the cliff?", "modality": "audio"}),
    ("film", "A film at its second, by what is seen",
     "search", {"query": "a lighthouse in the night", "modality": "video", "k": 2}),
    ("not_found", "An honest answer to what the documents do not say",
     "query", {"question": "How many submarines are stationed at Larkholm?"}),
    ("passages", "Passages instead of an answer, with both scores", "search", {"query": "night watch", "k": 3}),
    ("documents", "What the index holds", "documents", {}),
)  # fmt: skip
GALLERY_HEAD = """# Gallery

What notebooks show for the documents in `data/samples`, light and dark. Made by `python data/make_pictures.py gallery` from real
runs with the demonstration models; the machine was not kept quiet, so the times in the pictures mean nothing.
"""


def gallery(path: Path) -> None:
    """A page of cards: each call with what it shows, in a notebook's light and dark colours."""
    from ultrafast_rag import UltraFastRAG

    models = {f"{kind}_model": str(HERE / "models" / f"demo-{name}") for kind, name in (("image", "clip"), ("speech", "whisper"))}
    cards, page = {}, [GALLERY_HEAD]
    with UltraFastRAG(**models, quiet=True) as rag:
        report = rag.ingest(HERE / "samples")
        shown = [(name, words, method, options, getattr(rag, method)(**options)) for name, words, method, options in GALLERY]
        shown.insert(0, ("report", "What went in, and where the time went", "ingest", {"": "samples/"}, report))
        for name, words, method, options, found in shown:
            words_of = [(option, json.dumps(value)) for option, value in options.items()]
            given = ", ".join(f"{option}={value}" if n else value for n, (option, value) in enumerate(words_of))
            call = f"rag.{method}({given})"
            for mode, colours in (("light", "#fff;color:#1b1b1b"), ("dark", "#111;color:#e3e3e3;color-scheme:dark")):
                body = f'<body style="margin:12px;background:{colours}"><div id="card">{found._repr_html_()}</div></body>'
                cards[path.parent / "gallery" / f"{name}_{mode}.webp"] = body
            page += [f"## {words}\n\n```python\n{call}\n```\n"]
            pictured = f'<img alt="{words}" src="gallery/{name}_light.webp" width="900">'
            dark = f'<source media="(prefers-color-scheme: dark)" srcset="gallery/{name}_dark.webp">'
            page += [f"<picture>{dark}{pictured}</picture>\n"]
    photograph(cards)
    path.write_text("\n".join(page), encoding="utf-8")


def photograph(pages: dict[Path, str]) -> None:
    """Render each page in headless Chromium and keep its #card."""
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium") or shutil.which("google-chrome") or ""
    with tempfile.TemporaryDirectory() as folder:
        for flag in (*FLAGS, f"--user-data-dir={folder}/profile"):
            options.add_argument(flag)
        driver = webdriver.Chrome(options=options, service=Service(shutil.which("chromedriver")))
        try:
            for path, html in pages.items():
                page = Path(folder, "card.html")
                page.write_text(f"<!doctype html><meta charset='utf-8'>{html}", encoding="utf-8")
                driver.get(page.as_uri())
                time.sleep(0.5)  # players draw their first picture
                path.parent.mkdir(exist_ok=True)
                keep(driver.find_element("id", "card").screenshot_as_png, path)
        finally:
            driver.quit()


def keep(png: bytes, path: Path) -> None:
    """A screenshot as a PNG of 256 colours, or as WebP at the size it is shown in."""
    from PIL import Image

    path.write_bytes(png)
    if path.suffix == ".png":
        shrink(path)
        return
    with Image.open(path) as picture:
        half = picture.convert("RGB").resize((picture.width // 2, picture.height // 2), Image.Resampling.LANCZOS)
    half.save(path, "WEBP", quality=70, method=6)


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


PICTURES = {"card": (card, "evidence_card.png"), "widget": (widget, "widget.png"), "ablation": (ablation, "ablation.png"),
            "gallery": (gallery, "README.md")}  # fmt: skip

if __name__ == "__main__":
    IMAGES.mkdir(exist_ok=True)
    for name in sys.argv[1:] or PICTURES:
        make, file_name = PICTURES[name]
        make(IMAGES / file_name)
        print(f"{file_name}: {(IMAGES / file_name).stat().st_size / 1000:.0f} kB")
