"""What an index cannot do for the person who asks, said plainly: nothing in it, no model for pictures or speech, a language."""

from __future__ import annotations

from typing import Any

from ultrafast_rag.config import Config
from ultrafast_rag.language.stopwords import STOP_WORDS
from ultrafast_rag.language.terms import words_of
from ultrafast_rag.types import Answer, Hits

EMPTY = "Nothing is in this index yet: rag.ingest('paper.pdf', 'photos/'), or the upload panel IngestWidget(rag)."
_PICTURES = (
    "No picture of this index was looked at by a picture model: pictures are found by their captions and the words in them. "
    "rag.doctor() says what is missing; then ingest again."
)
_NO_PICTURES = "There is no picture in this index, or in the documents and pages chosen."
_NO_SPEECH = (
    "Nothing spoken is in this index, or in the documents chosen: no recording was ingested, or no speech model was there to "
    "transcribe it. rag.doctor() says which; transcripts (.vtt, .srt) beside recordings work without one."
)


def what_is_missing(rag: Any) -> list[str]:
    """What to say before anything is asked."""
    return [] if rag.documents() else [EMPTY]


def why_so_little(rag: Any, found: Answer | Hits, modality: str | None) -> list[str]:
    """What to say beside an answer that has no support, or beside nothing found."""
    hits = found if isinstance(found, Hits) else found.hits
    if not hits and (empty := what_is_missing(rag)):
        return [] if any("empty" in note for note in hits.notes) else empty
    notes = []
    if not hits and modality in ("image", "video"):
        notes.append(_NO_PICTURES)
    elif not hits and modality == "audio":
        notes.append(_NO_SPEECH)
    if modality == "image" and not rag.stats().get("vectors:visual"):
        notes.append(_PICTURES)
    if isinstance(found, Answer) and not found.supported and rag.config.text_model == Config().text_model:
        notes += _language(found.question)
    return notes


def _language(question: str) -> list[str]:
    """A note where the question is not in English, which is what the default models read."""
    language = language_of(question)
    if language in ("", "english"):
        return []
    named = f"in {language.capitalize()}" if language != "other" else "in a script that the default text model hardly knows"
    return [
        f"The question is {named}. The default models read English: documents in the question's own language are found mostly by "
        "their words. A multilingual encoder, Config(text_model=...) in a new index, also finds them by meaning."
    ]


def language_of(question: str) -> str:
    """The language whose common words the question holds most of, "other" for letters beyond Latin, "" where nothing tells."""
    letters = [letter for letter in question if letter.isalpha()]
    counts = {name: sum(word in stop for word in words_of(question)) for name, stop in STOP_WORDS.items()}
    best = max(counts, key=lambda name: counts[name])
    if counts[best] > counts["english"] and counts[best] > 1:
        return best
    if counts["english"]:
        return "english"
    return "other" if letters and sum(ord(letter) > 0x24F for letter in letters) > len(letters) / 2 else ""
