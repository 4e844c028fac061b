"""Opening recordings and films: by content, with demuxers that read no other file, errors typed.

Shared by `audio.py` and `video.py`. Knows nothing of windows, voices or scenes.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ultrafast_rag.errors import CorruptError, ExtractionError, UnsupportedError, require
from ultrafast_rag.extract.image import stem_words

# Demuxers that read other files or URLs (hls, concat, dash, sdp, image2, ...) are not among these.
FORMATS = (
    "wav,w64,mp3,flac,ogg,aac,mov,mp4,m4a,matroska,webm,avi,asf,flv,mpeg,mpegts,aiff,au,amr,caf,ac3,eac3,opus,"
    "wv,ape,tta,dts,rm,h264,hevc,m4v,gif,mpegvideo,ivf,voc,3gp,mj2,3g2,xwma,dsf,tak,gsm,mxf,nut,truehd"
)
_FAMILIES = {
    "wav": {".wav", ".wave"},
    "mp3": {".mp3", ".mp2", ".mpga"},
    "flac": {".flac"},
    "aac": {".aac"},
    "avi": {".avi"},
    "ogg": {".ogg", ".oga", ".opus", ".ogv", ".spx"},
    "mov": {".mov", ".mp4", ".m4a", ".m4b", ".m4v", ".3gp", ".3g2", ".qt"},
    "matroska": {".mkv", ".mka", ".webm", ".weba", ".mks"},
    "asf": {".wma", ".wmv", ".asf"},
    "aiff": {".aif", ".aiff", ".aifc"},
}


def open_media(path: Path) -> Any:
    """A PyAV container, told by content, not by name. Raises ExtractionError, CorruptError, UnsupportedError."""
    av = require("av", extra="speech")
    try:
        size = path.stat().st_size
    except OSError as error:
        raise ExtractionError(f"{path.name} cannot be read: {error.strerror}", path=str(path)) from error
    if size == 0:
        raise CorruptError(f"{path.name} is empty", path=str(path))
    try:
        options = {"format_whitelist": FORMATS, "protocol_whitelist": "file"}
        container = av.open(str(path), options=options, metadata_errors="replace")
    except av.error.ArgumentError as error:
        raise UnsupportedError(
            f"{path.name}: unsupported file type: no recording or film that FFmpeg decodes", path=str(path)
        ) from error
    except (av.error.FFmpegError, ValueError, OSError) as error:
        raise CorruptError(f"{path.name} cannot be opened as a recording or film: {reason(error)}", path=str(path)) from error
    if not container.streams.audio and not container.streams.video:
        container.close()
        raise UnsupportedError(f"{path.name} holds neither sound nor pictures", path=str(path))
    return container


def media_title(container: Any, path: Path) -> str:
    """The title tag, else the file's name in words."""
    tag = " ".join(str(container.metadata.get("title", "")).split())[:200]
    return tag or stem_words(path)


def media_duration_s(container: Any) -> float:
    """Seconds as the container says; 0.0 where it does not know."""
    return max(0.0, container.duration / 1e6) if container.duration else 0.0


def suffix_notes(container: Any, path: Path) -> list[str]:
    """A note where the name promises another format than the content is."""
    kinds = set(container.format.name.split(","))
    promised = [kind for kind, suffixes in _FAMILIES.items() if path.suffix.lower() in suffixes]
    known = [kind for kind in _FAMILIES if kind in kinds]
    if path.suffix and known and promised != known:
        return [f"{path.name} is named {path.suffix} but holds {known[0]}; it was read as what it holds"]
    return []


def frames_of(container: Any, stream: Any) -> Iterator[Any]:
    """Decoded frames; a reason in words for each packet that could not be decoded."""
    av = require("av", extra="speech")
    packets = container.demux(stream)
    while True:
        try:
            packet = next(packets)
        except StopIteration:
            return
        except (av.error.FFmpegError, OSError) as error:
            yield reason(error)
            return
        try:
            yield from packet.decode()
        except (av.error.FFmpegError, ValueError) as error:
            yield reason(error)


def reason(error: BaseException) -> str:
    """FFmpeg's words for an error."""
    return str(getattr(error, "strerror", "") or error)
