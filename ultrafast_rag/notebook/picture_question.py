"""A picture as the question: uploaded, dropped or pasted, and shown.

Stock widgets know no drop. One handler inside an HTML attribute, made of the browser's own parts, takes the file,
makes it smaller and puts it into a hidden text box; where a front end strips it, the upload button does the same.
"""

from __future__ import annotations

import base64
import binascii
import io
from collections.abc import Callable
from typing import Any

from ultrafast_rag.errors import ConfigError
from ultrafast_rag.notebook import markup
from ultrafast_rag.notebook.panel import unseen_label

LONGEST_PX = 1024  # a question needs no more: encoders look at a few hundred pixels
_MOST_BYTES = 20_000_000  # chosen: a camera's largest JPEG
_MOST_PIXELS = 100_000_000  # chosen: decoded they take 300 MB
_FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "AVIF")
_TAKE = (
    "event.preventDefault();const t=this.closest('.ufr-panel').querySelector('.ufr-dropped textarea'),"
    "d=event.dataTransfer||event.clipboardData,f=[...(d&&d.files||[])].find(f=>f.type.startsWith('image/'));"
    "if(t&&f)createImageBitmap(f).then(b=>{const s=Math.min(1,LONGEST/Math.max(b.width,b.height));"
    "const c=document.createElement('canvas');"
    "c.width=Math.max(1,b.width*s);c.height=Math.max(1,b.height*s);c.getContext('2d').drawImage(b,0,0,c.width,c.height);"
    "t.value=c.toDataURL('image/jpeg',.9);for(const e of ['input','change'])t.dispatchEvent(new Event(e,{bubbles:true}))})"
).replace("LONGEST", str(LONGEST_PX))
_AREA = (
    '<div tabindex="0" role="group" aria-label="Drop or paste a picture here to search by it" '
    f'ondragover="event.preventDefault()" ondrop="{_TAKE}" onpaste="{_TAKE}" '
    'style="border:1px dashed rgba(128,128,128,.7);border-radius:6px;padding:4px 12px;font-size:12px;line-height:1.6">'
    "or drop or paste one here</div>"
)


class PictureQuestion:
    """Controls that take a picture. taken: called with its bytes as PNG or JPEG; failed: with what to tell the user."""

    def __init__(self, widgets: Any, taken: Callable[[bytes], None], failed: Callable[[Exception], None]) -> None:
        self._taken, self._failed = taken, failed
        self.upload = widgets.FileUpload(
            accept="image/*", multiple=False, description="Ask with a picture", icon="image", layout={"width": "auto"}
        )
        self.dropped = unseen_label(widgets.Textarea(description="A dropped picture", layout={"display": "none"}))
        self.dropped.add_class("ufr-dropped")
        self.box = widgets.HBox(
            [self.upload, widgets.HTML(_AREA), self.dropped], layout={"flex_flow": "row wrap", "align_items": "center"}
        )
        self.upload.observe(self._uploaded, "value")
        self.dropped.observe(self._got, "value")

    def _uploaded(self, change: Any) -> None:
        value = change["new"]
        records = list(value.values()) if isinstance(value, dict) else list(value)  # ipywidgets 7: a dict by name
        if records:
            self._take(bytes(records[0]["content"]))
            if not isinstance(value, dict):
                self.upload.value = ()

    def _got(self, change: Any) -> None:
        if change["new"]:
            self.dropped.value = ""
            _, _, encoded = change["new"].partition("base64,")
            try:
                self._take(base64.b64decode(encoded, validate=True))
            except binascii.Error as error:
                self._failed(error)

    def _take(self, data: bytes) -> None:
        try:
            picture = readable(data)
        except ConfigError as error:
            self._failed(error)
        else:
            self._taken(picture)


def readable(data: bytes) -> bytes:
    """The picture as JPEG of at most LONGEST_PX a side; raises ConfigError, in words, for what is none."""
    from PIL import Image, ImageOps

    if len(data) > _MOST_BYTES:
        raise ConfigError(f"the picture has {len(data) / 1e6:.0f} MB; {_MOST_BYTES // 1_000_000} MB are read at most")
    try:
        with Image.open(io.BytesIO(data), formats=_FORMATS) as opened:
            if opened.width * opened.height > _MOST_PIXELS:
                raise ConfigError("the picture has too many pixels; make it smaller first")
            picture = ImageOps.exif_transpose(opened).convert("RGB")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise ConfigError("this file is not a picture that can be read (png, jpg, webp, gif, bmp, tiff, avif)") from error
    picture.thumbnail((LONGEST_PX, LONGEST_PX))
    out = io.BytesIO()
    picture.save(out, "JPEG", quality=90)
    return out.getvalue()


def thumbnail(data: bytes) -> str:
    """The picture that was asked with, small, as HTML."""
    shown = base64.b64encode(data).decode("ascii")
    style = "max-width:160px;max-height:120px;border-radius:6px;display:block;margin:2px 0 6px"
    return (
        f'<div style="{markup.MUTED}">Asked with this picture</div>'
        f'<img alt="the picture you asked with" style="{style}" src="data:image/jpeg;base64,{shown}">'
    )
