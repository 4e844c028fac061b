"""The README's moving picture of the panel: what the browser tests see, step by step.

python data/make_gif.py                  # runs tests/notebook/test_panel.py and keeps its screenshots
python data/make_gif.py FOLDER           # joins the screenshots that lie in FOLDER already
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image

HERE = Path(__file__).resolve().parent
TARGET = HERE / "images" / "panel.gif"
STEPS = {"1_opened": 4, "2_answer": 7, "3_followed": 7, "4_page": 8, "5_picture": 6, "6_saved": 4, "7_ingested": 4}  # seconds
SHOWN = (80, 80, 1130, 1330)  # of a screenshot: the notebook without the browser's surroundings
ELSEWHERE = {"4_page": (80, 580, 1130, 1830), "6_saved": (0, 0, 1050, 1250)}  # where a step is to be seen instead
SIZE, COLOURS = (756, 900), 64  # colours enough for a page of text; twice as many make the file half as large again
MOST_BYTES = 1_000_000


def record(folder: Path) -> None:
    """The panel's tests, which keep a screenshot of each step."""
    command = [sys.executable, "-m", "pytest", "-q", "tests/notebook/test_panel.py"]
    subprocess.run(command, cwd=HERE.parent, env={**os.environ, "UFR_BROWSER_SCREENSHOTS": str(folder)}, check=True)


def join(folder: Path, target: Path) -> None:
    """Screenshots -> one GIF that shows each step long enough to read."""
    frames, times = [], []
    for name, seconds in STEPS.items():
        if (path := folder / f"{name}.png").exists():
            with Image.open(path) as picture:
                shown = picture.convert("RGB")
            shown = shown.crop(ELSEWHERE.get(name, SHOWN)).resize(SIZE, Image.Resampling.LANCZOS)
            frames.append(shown.quantize(COLOURS, dither=Image.Dither.NONE))
            times.append(seconds * 1000)
    if not frames:
        sys.exit(f"no screenshots in {folder}")
    frames[0].save(target, save_all=True, append_images=frames[1:], duration=times, loop=0, optimize=True)
    size = target.stat().st_size
    if size > MOST_BYTES:
        sys.exit(f"{target.name} has {size / 1e6:.1f} MB; {MOST_BYTES / 1e6:.0f} MB is the most")
    print(f"{target.name}: {len(frames)} steps, {sum(times) / 1000:.0f} s, {size / 1000:.0f} kB")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        join(Path(sys.argv[1]), TARGET)
    else:
        with tempfile.TemporaryDirectory() as made:
            record(Path(made))
            join(Path(made), TARGET)
