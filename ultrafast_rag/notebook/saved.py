"""An answer to take away: its words for the clipboard, and one HTML file with its evidence that needs nothing else."""

from __future__ import annotations

import base64
import html
import re
from pathlib import Path

from ultrafast_rag.errors import StorageError
from ultrafast_rag.notebook.display import answer_html, hits_html
from ultrafast_rag.types import Answer, Hits, visible

FILE_BYTES = 4_000_000  # chosen: small enough to mail
# a page over http, or in a frame, may lack navigator.clipboard or be refused it; then the words are there, selected, to be copied
_COPY = (
    "const t=this.dataset.words,d=this,s=()=>{d.textContent='Copied'};const old=()=>{const a=document.createElement('textarea');"
    "a.value=t;a.rows=3;a.setAttribute('aria-label','The answer, to be copied');a.onblur=()=>a.remove();d.after(a);a.select();"
    "if(document.execCommand('copy')){s();d.focus()}else{d.textContent='Press Ctrl+C'}};"
    "navigator.clipboard?navigator.clipboard.writeText(t).then(s,old):old()"
)
_PAGE = """<!doctype html>
<html lang="und"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<meta http-equiv="Content-Security-Policy"
content="default-src 'none'; img-src data:; media-src data:; style-src 'unsafe-inline'">
<meta name="color-scheme" content="light dark"><title>{title}</title></head>
<body style="margin:16px;max-width:1000px">{card}</body></html>
"""


def answer_page(found: Answer | Hits) -> str:
    """An HTML page that needs no other file and loads nothing: the card, with larger evidence than a notebook holds."""
    card = hits_html(found) if isinstance(found, Hits) else answer_html(found, most_bytes=FILE_BYTES)
    title = found.query if isinstance(found, Hits) else found.question
    return _PAGE.format(title=html.escape(visible(title or "answer")[:200]), card=card)


def save_page(found: Answer | Hits, folder: Path) -> Path:
    """Write `answer_page` into a new file of the folder, named by its question; StorageError when the disk refuses."""
    title = found.query if isinstance(found, Hits) else found.question
    stem = "answer_" + (re.sub(r"\W+", "_", title).strip("_")[:50] or "picture")
    try:
        for number in range(1, 1000):
            path = folder / (f"{stem}.html" if number == 1 else f"{stem}_{number}.html")
            try:
                with path.open("x", encoding="utf-8") as file:
                    file.write(answer_page(found))
                return path
            except FileExistsError:
                continue
    except OSError as error:
        raise StorageError(f"the answer cannot be written to {folder}: {error}. Make room, or change the folder") from error
    raise StorageError(f"{folder} holds a thousand answers to this question already; move them away")


def download_link(path: Path) -> str:
    """A link that hands a saved page to the browser: the notebook's machine may be far away."""
    data = base64.b64encode(path.read_bytes()).decode("ascii")
    name = html.escape(path.name)
    return f'Saved as <b>{name}</b>. <a download="{name}" href="data:text/html;base64,{data}">Download it</a>'


def copy_button(found: Answer | Hits) -> str:
    """A button that copies the words; the browser does it, so the kernel's machine may be far away."""
    return (
        f'<button type="button" class="jupyter-button" data-words="{html.escape(str(found), quote=True)}" onclick="{_COPY}" '
        'style="width:auto;margin:2px;padding:0 10px;cursor:pointer" title="Copy the answer with its sources">Copy</button>'
    )
