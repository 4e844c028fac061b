"""Every default, once, and what each setting may be.

Fields that change what a vector or a chunk is are `IDENTITY` fields: they are kept in the index,
which refuses to be written with others. All the rest belongs to the session and is never taken from
an index: one from a stranger must not choose paths, addresses or limits here. The checks are made of
the annotations below.
"""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from types import NoneType
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

from ultrafast_rag.errors import ConfigError, IndexStateError, did_you_mean

CONFIG_FACT = "config"  # the fact of an index that holds `Config.identity()`
JOINED = " + "  # between the text models of an ensemble
REMOTE_TEXT = ("openai:", "gemini:")  # a text_model that begins so is a service's: passages and questions are sent there
PACKAGED_READER = "packaged"  # the reader this package ships, on the default text model's weights
IDENTITY = (
    *("text_model", "query_prompt", "passage_prompt", "text_dim", "image_model"),
    *("chunker", "chunk_tokens", "chunk_overlap", "index_pages"),
)
LARGEST = 2**31 - 1  # of any number: what every library below takes as an int, and 68 years in seconds


@dataclass(frozen=True, slots=True)
class Within:
    """Bounds of a number, both included unless `above`: then it must be greater than `least`. NaN lies in none."""

    least: float
    most: float = LARGEST
    above: bool = False

    def __contains__(self, value: float) -> bool:
        return (value > self.least if self.above else value >= self.least) and value <= self.most

    def demand(self, value: float) -> str:
        """What a value outside was held to, in words."""
        if self.most < LARGEST:
            return f"must lie between {self.least:g} and {self.most:g}"
        if value > self.most:
            return f"must be at most {self.most}"
        return f"must be {'greater than' if self.above else 'at least'} {self.least:g}"


@dataclass(frozen=True, slots=True)
class Form:
    """What a text must look like; `words` say it."""

    pattern: str
    words: str


Count = Annotated[int, Within(1)]
Positive = Annotated[float, Within(0, above=True)]
NotNegative = Annotated[float, Within(0)]
Device = Annotated[str, Form(r"auto|cpu|cuda(:\d+)?", "'auto', 'cpu', 'cuda' or 'cuda:N'")]
OcrLanguage = Annotated[str, Form(r"[A-Za-z][\w/+]*", "tesseract's codes, e.g. 'eng' or 'deu+eng'")]
Language = Annotated[str, Form(r"[A-Za-z][A-Za-z -]*", "a language, e.g. 'en'")]
Address = Annotated[str, Form(r"https?://[^\s/]\S*", "an http(s) address")]
RedisAddress = Annotated[
    str, Form(r"(rediss?|unix)://[^@\s]+", "a redis:// address without a password; one with a password goes into REDIS_URL")
]
Name = Annotated[str, Form(r"(?=.*\S)[^\x00-\x1f\x7f\ud800-\udfff]+", "a name or a path")]


def default_cache_dir() -> Path:
    """`UFR_CACHE_DIR`, else a folder of ours under the user's cache directory."""
    if chosen := os.environ.get("UFR_CACHE_DIR"):
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ultrafast_rag"


@dataclass(frozen=True, slots=True)
class Config:
    """Settings of one UltraFastRAG. Raises ConfigError when a value is impossible."""

    # models: hub ids or paths; None switches the modality's model off
    text_model: Name = "sentence-transformers/all-MiniLM-L6-v2"
    query_prompt: str | None = None  # put before questions, "" for nothing; None: what the text model's folder says
    passage_prompt: str | None = None  # put before passages, likewise
    text_dim: Count | None = None  # of a vector's numbers the first so many, for models trained so; None: all
    embeddings_base_url: Address | None = None  # of an "openai:" text model; None: OpenAI's. Never taken from an index
    embeddings_timeout_s: Positive = 30.0  # of one request
    text_price_usd: NotNegative | None = None  # of a million tokens of it; None: by the table of `remote/prices.py`
    image_model: Name | None = "laion/CLIP-ViT-B-32-laion2B-s34B-b79K"  # OpenAI's own has no safetensors
    speech_model: Name | None = "base"
    rerank_model: Name | None = None
    reader_model: Name | None = PACKAGED_READER  # finds the answer in passages; or a hub id of a question-answering model
    local_model: Name | None = None
    offline: bool = False  # True: never ask the hub

    # how models are loaded
    device: Device = "auto"
    engine: Literal["auto", "torch-f32", "torch-bf16", "torch-f16", "openvino-f32", "openvino-bf16", "openvino-int8"] = "auto"
    quantization: Literal["auto", "none", "8bit", "4bit"] = "auto"
    compile: bool = False
    max_vram_gb: Positive | None = None  # None: what is free
    batch_size: Count | None = None  # texts per batch at most; None: batch_tokens alone decides
    batch_tokens: Count | None = None  # None: 1 024 on a CPU (cache-sized), grown to free memory on a GPU
    threads: Count | None = None  # that encode texts on a CPU; None: one a core

    # extraction
    max_workers: Count = 2  # reader processes
    page_timeout_s: Positive = 25.0  # longer on a busy machine, by its load per core
    worker_memory_mb: Count = 3072
    max_image_pixels: Count = 50_000_000
    image_px: Count = 512  # longest side of a stored picture
    index_pages: bool = False  # also embed each page as a picture
    ocr: bool = True  # where tesseract is installed
    ocr_language: OcrLanguage = "eng"
    speech_language: Language | None = None  # None: detect
    frame_interval_s: Positive = 5.0

    # chunks
    chunker: Literal["sentence", "fixed", "semantic", "hierarchical"] = "sentence"
    chunk_tokens: Count = 200
    chunk_overlap: Annotated[int, Within(0)] = 1  # sentences
    speech_chunk_s: Positive = 15.0  # longest passage of a recording: what a card plays, and what one listens to

    # embeddings and index
    cache_embeddings: bool = True
    cache_dir: Path = dataclasses.field(default_factory=default_cache_dir)
    cache_size_gb: Positive = 4.0
    # when passages get their vectors: all before ingest returns; in the background, what is asked for first; only that
    encode: Literal["first", "progressive", "on_demand"] = "first"
    index: Literal["auto", "exact", "ivfpq", "rabitq", "sq8"] = "auto"
    # what finds nearest passages: ours, or a server at QDRANT_URL, CHROMA_URL, ...; without one qdrant is in memory, chroma below
    # cache_dir
    store: Literal["faiss", "qdrant", "chroma", "weaviate", "pinecone"] = "faiss"
    pipelined: bool = True  # read, encode and commit at once
    streaming: bool = True  # False: a whole document in memory before the first chunk; the ablation's baseline

    # search
    alpha: Annotated[float, Within(0, 1)] = 0.65  # 0: words only, 1: meaning only
    fusion: Literal["convex", "rrf"] = "convex"
    rrf_k: Count = 60
    k: Count = 10
    collapse_duplicates: bool = True
    # switches that `bench switches` measures one by one; off, since none gains on every collection
    expansion: Literal["none", "feedback", "generated"] = "none"  # words of the first passages; variants by Gemini
    expansion_map: Name | None = None  # a JSON file of {"word": ["other", "words"]} that are searched too
    decompose: bool = False  # a question of two parts is also searched part by part
    stop_early: bool = False  # nothing is encoded for a question whose words single one passage out
    rerank_margin: Annotated[float, Within(0, 1)] | None = None  # rerank only where the first stands out by less; None: always
    query_cache: bool = True
    query_cache_ttl_s: Positive = 3600.0
    query_cache_disk: bool = False  # also keep results below cache_dir, for later sessions
    semantic_cache: bool = False  # a question that means the same as an earlier one gets its answer
    redis_url: RedisAddress | None = None  # also share results there; None: what REDIS_URL says

    # answers
    generator: Literal["auto", "extractive", "gemini", "legacy-gemini", "local"] = "auto"  # a function is passed to `query`
    gemini_model: Name = "gemini-3.5-flash-lite"
    gemini_base_url: Address | None = None  # None: Google's; else a proxy's
    gemini_thinking: Literal["minimal", "low", "medium", "high"] | None = None  # None: the model's own default
    gemini_rpm: Count | None = 10  # requests per minute; the free tier's numbers are shown at aistudio.google.com
    gemini_tpm: Count | None = 250_000
    gemini_rpd: Count | None = None  # None: until the provider says the day is spent
    context_tokens: Count = 3000
    answer_tokens: Count = 2048  # thinking included
    answer_timeout_s: Positive = 60.0
    answer_patience_s: NotNegative = 15.0  # a longer wait that the provider asks for is answered extractively instead
    enrich_concurrency: Count = 8

    quiet: bool = False  # True: no progress bars

    def __post_init__(self) -> None:
        for name in ("cache_dir", "expansion_map", *_MODELS):  # a path may be given as either
            value = getattr(self, name)
            if isinstance(value, (str, os.PathLike) if name == "cache_dir" else os.PathLike):
                path = Path(value)
                object.__setattr__(self, name, path if name == "cache_dir" else str(path))
        problems = [problem for name, kind in _kinds().items() if (problem := _problem(name, getattr(self, name), kind))]
        if problems:
            raise ConfigError("; ".join(problems))
        joined = len(members(self.text_model)) > 1
        if (joined or is_remote(self.text_model)) and self.encode != "first":
            raise ConfigError(f"for {self.text_model} there are no rough vectors at hand: use encode='first'")
        if joined and (self.query_prompt, self.passage_prompt, self.text_dim) != (None, None, None):
            raise ConfigError(f"{self.text_model} is several models: leave query_prompt, passage_prompt and text_dim out")

    @classmethod
    def basic(cls, **changes: Any) -> Config:
        """One text at a time, fp32, nothing cached or overlapped: the baseline of the ablation."""
        settings = {
            "engine": "torch-f32",
            "quantization": "none",
            "batch_size": 1,
            "cache_embeddings": False,
            "chunker": "fixed",
            "chunk_overlap": 0,
            "pipelined": False,
            "streaming": False,
            "index": "exact",
            "query_cache": False,
            "max_workers": 1,
        }
        return cls().replace(**{**settings, **changes})

    @classmethod
    def colab(cls, **changes: Any) -> Config:
        """A Colab T4: 2 host cores, 12 GB of RAM, 15 GB of VRAM."""
        return cls().replace(**{"max_workers": 2, "max_vram_gb": 14.0, **changes})

    @classmethod
    def kaggle(cls, **changes: Any) -> Config:
        """Kaggle's two T4s and 4 host cores."""
        return cls().replace(**{"max_workers": 3, "max_vram_gb": 14.0, **changes})

    @classmethod
    def production(cls, **changes: Any) -> Config:
        """A server: quiet, never asks the hub."""
        return cls().replace(**{"quiet": True, "offline": True, **changes})

    @classmethod
    def research(cls, **changes: Any) -> Config:
        """fp32 vectors and an exact index: slower, nothing approximated."""
        return cls().replace(**{"engine": "torch-f32", "quantization": "none", "index": "exact", **changes})

    @classmethod
    def extreme(cls, **changes: Any) -> Config:
        """Fastest settings that still pass the quality gate: no overlap, more readers, only what is asked for encoded."""
        return cls().replace(**{"chunk_overlap": 0, "encode": "on_demand", "max_workers": max(2, os.cpu_count() or 2), **changes})

    def replace(self, **changes: Any) -> Config:
        """A copy with some fields changed; an unknown field is a ConfigError that names the nearest one."""
        known = {f.name for f in dataclasses.fields(self)}
        if unknown := sorted(set(changes) - known):
            raise ConfigError(f"unknown setting {unknown[0]}{did_you_mean(unknown[0], sorted(known))}")
        return dataclasses.replace(self, **changes)

    def identity(self) -> dict[str, Any]:
        """The fields an existing index holds its writers to."""
        return {name: getattr(self, name) for name in IDENTITY}

    @classmethod
    def for_index(cls, kept: Any, base: Config | None, settings: Mapping[str, Any]) -> Config:
        """Settings of a session with an index that was made before: the session's own, and its `identity`.

        kept: what `identity()` gave when the index was made, as read back from it, so anything; other
        fields in it (older versions kept them all) are not looked at. base: the session's config, where
        it gave one; settings: single fields it asked for. Raises IndexStateError when the session asks
        for other vectors or chunks than the index holds, or when `kept` is not ours, and ConfigError
        for an impossible wish.
        """
        try:
            made = cls().replace(**_trusted(kept)).identity()
        except ConfigError as error:
            raise IndexStateError(f"the settings kept in the index cannot be used: {error}") from error
        wanted = (base or cls()).replace(**settings)
        if is_remote(made["text_model"]) and wanted.text_model != made["text_model"]:
            raise IndexStateError(
                f"the index was made with text_model={made['text_model']!r}, a service that passages and questions are sent to. "
                "That is yours to allow: open it with that setting (and embeddings_base_url, where the server is your own), "
                "or use another folder"
            )
        for name in IDENTITY:
            asked = base is not None or name in settings
            if not asked or getattr(wanted, name) == made[name]:
                continue
            if name in _NAMES_ONLY and None not in (getattr(wanted, name), made[name]):
                # the same weights lie elsewhere on another machine: whoever loads them holds them to the index's space
                if name in settings or getattr(wanted, name) != getattr(cls(), name):
                    made[name] = getattr(wanted, name)
                continue
            raise IndexStateError(
                f"the index was made with {name}={made[name]!r}, not {getattr(wanted, name)!r}. "
                "Open it without that setting, or use another folder"
            )
        return wanted.replace(**made)

    def to_json(self) -> dict[str, Any]:
        """Plain values, for another process. Holds no secret: keys are never in a Config."""
        return {f.name: str(v) if isinstance(v := getattr(self, f.name), Path) else v for f in dataclasses.fields(self)}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Config:
        """From `to_json`; fields of a later version are ignored."""
        known = {f.name for f in dataclasses.fields(cls)}
        return cls(**{name: value for name, value in values.items() if name in known})


def is_remote(text_model: str) -> bool:
    """Whether a text model is a service that texts are sent to, rather than weights on this machine."""
    return any(member.startswith(REMOTE_TEXT) for member in members(text_model))


def members(text_model: str) -> list[str]:
    """The models of an ensemble ("MODEL + MODEL"), or the one that it is."""
    return [member.strip() for member in text_model.split(JOINED)]


_NAMES_ONLY = ("text_model", "image_model")  # where weights are found; what they are is the index's space
_MODELS = ("text_model", "image_model", "speech_model", "rerank_model", "local_model")
_REMOTE = re.compile(r"\w+://|[\\/]{2}")  # an address, or a share of another machine (reading one sends it a password's hash)


def _trusted(kept: Any) -> dict[str, Any]:
    """The identity fields of what an index keeps about itself; a model's name there must not lead to another machine."""
    if not isinstance(kept, Mapping):
        raise ConfigError("they are no mapping")
    fields = {name: kept[name] for name in IDENTITY if name in kept}
    for name, value in fields.items():
        if isinstance(value, str) and any(map(_REMOTE.match, members(value))):
            raise ConfigError(f"the index names {value!r} as its {name}, which is neither a hub id nor a folder of this machine")
    return fields


@dataclass(frozen=True, slots=True)
class _Kind:
    """What a field's annotation says: its type, the closed set it is one of, its bounds or form, whether None is allowed."""

    type: type[Any]
    choices: tuple[str, ...] = ()
    rule: Within | Form | None = None
    optional: bool = False


@lru_cache(maxsize=1)
def _kinds() -> dict[str, _Kind]:
    kinds = {}
    for name, hint in get_type_hints(Config, include_extras=True).items():
        members = [hint] if get_origin(hint) in (Annotated, Literal, None) else list(get_args(hint))
        optional = NoneType in members
        (wanted,) = [member for member in members if member is not NoneType]
        if get_origin(wanted) is Literal:
            kinds[name] = _Kind(str, get_args(wanted), None, optional)
        elif get_origin(wanted) is Annotated:
            base, rule = get_args(wanted)
            kinds[name] = _Kind(base, (), rule, optional)
        else:
            kinds[name] = _Kind(wanted, (), None, optional)
    return kinds


_WORDS = {int: "a whole number", float: "a number", bool: "True or False", str: "text", Path: "a path"}


def _problem(name: str, value: Any, kind: _Kind) -> str:
    """What is wrong with a field's value and what it may be, or ""."""
    if value is None and kind.optional:
        return ""
    types: tuple[type[Any], ...] = (int, float) if kind.type is float else (kind.type,)
    if not isinstance(value, types) or (isinstance(value, bool) and kind.type is not bool):
        or_none = " or None" if kind.optional else ""
        return f"{name} takes {_WORDS[kind.type]}{or_none}, not {value!r:.80}"
    if kind.choices and value not in kind.choices:
        return f"{name} must be one of {', '.join(map(repr, kind.choices))}, not {value!r:.80}{did_you_mean(value, kind.choices)}"
    if isinstance(kind.rule, Form) and not re.fullmatch(kind.rule.pattern, value):
        return f"{name} takes {kind.rule.words}, not {value!r:.80}"
    if isinstance(kind.rule, Within) and value not in kind.rule:
        return f"{name} {kind.rule.demand(value)}, not {value!r:.80}"
    return ""
