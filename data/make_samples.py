"""Write `data/samples/` (handbook, small texts, pictures, a recording, a film) and `data/questions.json`.

    python data/make_samples.py             # everything (sound needs espeak-ng and ffmpeg; kept as it is without them)
    python data/make_samples.py --out DIR --only texts,handbook,pictures,questions

Texts, handbook and pictures come out the same on every machine with the same versions of the libraries.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import subprocess
import sys
import tempfile
import wave
from pathlib import Path
from random import Random

import numpy as np

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))
import gold  # noqa: E402
import handbook  # noqa: E402
import speech  # noqa: E402
from drawing import chart, shapes  # noqa: E402
from scenes import scene  # noqa: E402
from side_texts import TEXTS  # noqa: E402

PARTS = ("texts", "handbook", "pictures", "sound", "questions")
FPS = 10


def write_texts(out: Path) -> None:
    """The Markdown, HTML and code files."""
    for name, text in TEXTS.items():
        (out / name).write_text(text, encoding="utf-8", newline="\n")


def write_handbook(out: Path) -> None:
    """The illustrated PDF."""
    handbook.make((HERE / "handbook.txt").read_text(encoding="utf-8"), out / gold.HANDBOOK)


def write_pictures(out: Path) -> None:
    """Six drawn pictures; the names of four of them say nothing."""
    pictures = {
        "power_by_month.png": chart(
            "line",
            "power",
            "month",
            title="Power by month",
            unit="kilowatt hours",
            values=(2410, 2180, 2050, 1690, 1420, 1180, 1090, 1150, 1480, 1830, 2220, 2630),
        ),
        "two_red_boats_at_sunset.jpg": scene([(2, "red", "boat")], sky="sunset", ground="sea", rng=Random(2), size=(800, 640)),
        "IMG_0417.png": scene(
            [(3, "green", "tree"), (1, "white", "house")], sky="day", ground="snow", rng=Random(3), size=(800, 640)
        ),
        "IMG_0418.jpg": scene([(1, "yellow", "lighthouse")], sky="storm", ground="beach", rng=Random(4), size=(800, 640)),
        "scan_0023.png": shapes([(3, "blue", "star"), (2, "red", "circle")], rng=Random(5), size=(700, 600)),
        "scan_0024.png": chart(
            "pie", "fish", "season", title="The catch by season", unit="share of the weight", values=(99, 278, 169, 53)
        ),
    }
    for name, image in pictures.items():
        (out / name).write_bytes(handbook.encoded(image, 96 if name.endswith(".png") else 0))


def write_sound(out: Path) -> dict[str, list[tuple[float, float]]]:
    """The recording and the film. Returns the seconds of each sentence; the spans of scenes for the film."""
    voices = [speech.Voice("en-gb-x-rp", "", 148, 45), speech.Voice("en-us", "+f2", 150, 55)]
    pcm, heard = speech.narrate(list(gold.RECORDING), voices)
    _ffmpeg(["-c:a", "libopus", "-b:a", "32k"], out / "station_report.ogg", pcm)
    starts = [gold.FILM_SCENE_S * k + 0.6 for k in range(len(gold.FILM))]
    pcm, _ = speech.narrate([row[0] for row in gold.FILM], voices[:1], starts_s=starts)
    length = gold.FILM_SCENE_S * len(gold.FILM)
    pcm = np.pad(pcm, (0, max(0, round(length * speech.RATE) - len(pcm))))
    with tempfile.TemporaryDirectory() as frames:
        for k in range(round(length * FPS)):
            words, things, sky, ground = gold.FILM[int(k / FPS / gold.FILM_SCENE_S)]
            t = (k / FPS) % gold.FILM_SCENE_S / gold.FILM_SCENE_S
            scene(list(things), sky=sky, ground=ground, rng=Random(words), size=(480, 360), drift=0.08 * (t - 0.5)).save(
                f"{frames}/{k:04d}.png"
            )
        _ffmpeg(
            [
                "-c:v",
                "libx264",
                "-pix_fmt",
                "yuv420p",
                "-crf",
                "26",
                "-preset",
                "slow",
                "-c:a",
                "aac",
                "-b:a",
                "48k",
                "-movflags",
                "+faststart",
                "-shortest",
            ],
            out / "island_film.mp4",
            pcm,
            video=["-framerate", str(FPS), "-i", f"{frames}/%04d.png"],
        )
    return {"station_report.ogg": heard, "island_film.mp4": [(s - 0.6, s - 0.6 + gold.FILM_SCENE_S) for s in starts]}


def _ffmpeg(options: list[str], target: Path, pcm: np.ndarray, video: list[str] | None = None) -> None:
    with tempfile.NamedTemporaryFile(suffix=".wav") as sound:
        with wave.open(sound.name, "wb") as out:
            out.setnchannels(1)
            out.setsampwidth(2)
            out.setframerate(speech.RATE)
            out.writeframes((np.clip(pcm, -1, 1) * 30000).astype("<i2").tobytes())
        subprocess.run(
            [
                "ffmpeg",
                "-v",
                "error",
                "-y",
                *(video or []),
                "-i",
                sound.name,
                "-map_metadata",
                "-1",
                "-fflags",
                "+bitexact",
                "-flags:a",
                "+bitexact",
                *options,
                str(target),
            ],
            check=True,
        )


def squeeze(text: str) -> str:
    """White space as single blanks, for finding a phrase across line ends."""
    return re.sub(r"\s+", " ", text)


def page_texts(path: Path) -> list[str]:
    """Text of each page of the PDF, white space squeezed."""
    import pymupdf

    with pymupdf.open(path) as doc:
        return [squeeze(page.get_text()) for page in doc]


def write_questions(out: Path, beside: Path, spans: dict[str, list[tuple[float, float]]]) -> None:
    """Look up the page of each evidence phrase and write questions.json and spoken.json; a phrase that is nowhere is an error.

    They lie beside the samples, not among them: an index of the samples must not hold the answers.
    """
    pages = page_texts(out / gold.HANDBOOK)
    last_text_page = len(pages) - 1  # the last one is the list of figures
    rows: list[dict[str, object]] = []

    def page_of(evidence: str, answer: str) -> int:
        found = [n for n, text in enumerate(pages[:last_text_page], 1) if evidence in text and answer in text and n > 2]
        if not found:
            raise ValueError(f"no page holds both {evidence!r} and {answer!r}")
        return found[0]

    for question, answer, evidence, source in gold.TEXT:
        page = page_of(evidence, answer) if source == gold.HANDBOOK else None
        if page is None and (evidence not in squeeze(TEXTS[source]) or answer not in squeeze(TEXTS[source])):
            raise ValueError(f"{source} does not hold {evidence!r} and {answer!r}")
        rows.append({"question": question, "answer": answer, "source": source, "page": page, "modality": "text"})
    picture_page = next(n for n, text in enumerate(pages, 1) if not text.strip())
    rows += [
        {"question": q, "answer": a, "source": s, "page": picture_page, "modality": m, "needs": "ocr"} for q, a, s, m in gold.OCR
    ]
    rows += [
        {"question": q, "answer": c, "source": gold.HANDBOOK, "page": page_of(c, c), "modality": "image"} for q, c in gold.FIGURES
    ]
    rows += [{"question": q, "answer": "", "source": s, "page": None, "modality": "image"} for q, s in gold.PICTURES]
    for question, answer, k in gold.HEARD:
        start, end = spans["station_report.ogg"][k]
        rows.append(
            {
                "question": question,
                "answer": answer,
                "source": "station_report.ogg",
                "start_s": start,
                "end_s": end,
                "modality": "audio",
            }
        )
    for question, k in gold.SEEN:
        start, end = spans["island_film.mp4"][k]
        rows.append(
            {"question": question, "answer": "", "source": "island_film.mp4", "start_s": start, "end_s": end, "modality": "video"}
        )
    rows += [{"question": q, "answer": None, "source": None, "page": None, "modality": "text"} for q in gold.UNANSWERABLE]
    for row in rows:
        if row["question"] in gold.DEMO:
            row["demo"] = True
    spoken = {
        name: [{"text": text, "start_s": s, "end_s": e} for text, (s, e) in zip(texts, spans[name])]
        for name, texts in (("station_report.ogg", gold.RECORDING), ("island_film.mp4", [row[0] for row in gold.FILM]))
    }
    for name, content in (("questions.json", rows), ("spoken.json", spoken)):
        (beside / name).write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def main() -> None:
    """Make the chosen parts."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=HERE / "samples")
    parser.add_argument("--only", default=",".join(PARTS), help=f"some of {','.join(PARTS)}")
    args = parser.parse_args()
    chosen = args.only.split(",")
    args.out.mkdir(parents=True, exist_ok=True)
    for name, write in (("texts", write_texts), ("handbook", write_handbook), ("pictures", write_pictures)):
        if name in chosen:
            write(args.out)
    spans = None
    if "sound" in chosen and speech.available() and shutil.which("ffmpeg"):
        spans = write_sound(args.out)
    if "questions" in chosen:
        write_questions(args.out, args.out.parent, spans or known_spans())


def known_spans() -> dict[str, list[tuple[float, float]]]:
    """Seconds of the committed recording and film, where they are not made anew."""
    spoken = json.loads((HERE / "spoken.json").read_text(encoding="utf-8"))
    return {name: [(row["start_s"], row["end_s"]) for row in rows] for name, rows in spoken.items()}


if __name__ == "__main__":
    main()
