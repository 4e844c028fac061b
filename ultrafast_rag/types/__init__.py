"""What passes between stages: frozen values, no behaviour beyond reading well. Knows nothing of models, files or indexes."""

from ultrafast_rag.types.answers import (
    Answer,
    Citation,
    Completion,
    Evidence,
    EvidenceSource,
    Hit,
    Hits,
    IngestReport,
    Leaf,
    ProgressState,
    Ranking,
    Reading,
    Usage,
    Words,
)
from ultrafast_rag.types.elements import (
    DESCRIBES,
    MODALITIES,
    MOMENTS,
    PAGE_HEAD,
    TEXT_SPACE,
    VISUAL_SPACE,
    BBox,
    Chunk,
    ChunkIds,
    Document,
    Element,
    ElementKind,
    Mask,
    Modality,
    Part,
    PartCommit,
    Passage,
    Progress,
    Record,
    Segment,
    Stat,
    Unencoded,
    Vectors,
    moments_of,
)
from ultrafast_rag.types.shown import HTML_REPRS, Documents, Facts, Table, cell_text, visible

__all__ = [
    "DESCRIBES", "HTML_REPRS", "MODALITIES", "MOMENTS", "PAGE_HEAD", "TEXT_SPACE", "VISUAL_SPACE", "Answer", "BBox",
    "Chunk", "ChunkIds", "Citation", "Completion", "Document", "Documents", "Element", "ElementKind", "Evidence",
    "EvidenceSource", "Facts", "Hit", "Hits", "IngestReport", "Leaf", "Mask", "Modality", "Part", "PartCommit", "Passage",
    "Progress", "ProgressState", "Ranking", "Reading", "Record", "Segment", "Stat", "Table", "Unencoded", "Usage",
    "Vectors", "Words", "cell_text", "moments_of", "visible",
]  # fmt: skip
