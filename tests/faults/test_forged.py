"""A stranger's index: nothing outside of its folder is read, written, emptied or removed, and every refusal is ours."""

from __future__ import annotations

import contextlib
import os
import threading
from pathlib import Path

import pytest
from small_index import add_document, ask, change, copy_of, make_index

from ultrafast_rag.errors import ConfigError, IndexCorruptError, IndexStateError, UltraFastRAGError
from ultrafast_rag.index.dense import DenseIndex
from ultrafast_rag.index.lexical import LexicalIndex
from ultrafast_rag.index.store import Store
from ultrafast_rag.types import PartCommit

pytestmark = pytest.mark.fault
PRECIOUS = b"keep me as I am " * 500


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return make_index(tmp_path_factory.mktemp("whole") / "index")


@pytest.fixture
def index(whole, tmp_path):
    return copy_of(whole, tmp_path / "index")


@pytest.fixture
def precious(tmp_path):
    """A file beside the index that nobody may touch."""
    path = tmp_path / "precious.f16"
    path.write_bytes(PRECIOUS)
    before = path.stat()
    yield path
    assert path.read_bytes() == PRECIOUS
    after = path.stat()
    assert (after.st_ino, after.st_mtime_ns, after.st_mode) == (before.st_ino, before.st_mtime_ns, before.st_mode)
    assert not list(tmp_path.glob("precious.f16?*"))


def use_everything(index: Path, scratch: Path) -> list[str]:
    """Do all that a user may do with an index; the names of the errors, all of our tree."""
    errors = []

    @contextlib.contextmanager
    def ours(doing: str):
        try:
            yield
        except UltraFastRAGError as error:
            errors.append(f"{doing}: {type(error).__name__}")

    with ours("ask"):
        ask(index)
    with ours("open"), Store.open(index) as store:
        with ours("add"):
            add_document(store, 500)
        with ours("delete"):
            store.delete(store.documents()[0].source)
        with ours("compact"):
            store.compact(above=0)
        with ours("verify"):
            store.verify()
        with ours("snapshot"):
            store.snapshot(scratch / "copy")
        with ours("build"):
            DenseIndex(store, "text", kind="sq8", folder=index).build()
        with ours("save"):
            LexicalIndex(store, folder=index).save()
    return errors


NAMES = [
    "../precious.f16",
    "{outside}",
    "sub/../../precious.f16",
    "vectors-text.f16/../../precious.f16",
    "precious.f16",
    "",
    ".",
    "..",
]
NAMES += ["vectors-other.f16", "index.sqlite", "writer.lock", "vectors-text.00.f16", "vectors-text.-1.f16", "VECTORS-TEXT.F16"]
NAMES += ["vectors-text.9999999999.f16", "vectors-text.f16\x00.f16", "vectors-text.1.f16 "]


@pytest.mark.parametrize("name", [*NAMES, b"vectors-text.f16", 7])
def test_a_forged_vector_file_name_reaches_nothing(index, precious, tmp_path, name):
    name = name.replace("{outside}", str(precious)) if isinstance(name, str) else name
    (index / "vectors-text.1.f16").unlink(missing_ok=True)
    change(index, "UPDATE spaces SET file = ?", name)
    database = (index / "index.sqlite").stat().st_size
    errors = use_everything(index, tmp_path)
    assert {"ask", "add", "snapshot"} <= {error.split(":")[0] for error in errors}
    assert (index / "index.sqlite").stat().st_size >= database


LINKED = ["writer.lock", "vectors-text.f16", "index.sqlite", "index.sqlite-wal", "index.sqlite-shm", "index.sqlite-journal"]
LINKED += ["dense-text.faiss", "dense-text.json", "lexical.json"]
LINKED += [f"{name}.HERE.partial" for name in ("lexical.json", "dense-text.json", "dense-text.faiss")]


def as_here(name: str) -> str:
    """The name that this process and thread would use."""
    return name.replace("HERE", f"{os.getpid()}-{threading.get_ident()}")


@pytest.mark.parametrize("name", LINKED)
def test_a_link_in_the_folder_is_never_followed(index, precious, tmp_path, name):
    name = as_here(name)
    (index / name).unlink(missing_ok=True)
    (index / name).symlink_to(precious)
    errors = use_everything(index, tmp_path)
    if name.startswith(("writer", "vectors", "index")):
        assert errors


@pytest.mark.parametrize("name", [name for name in LINKED if name.endswith(("lock", "f16", "partial"))])
def test_a_file_that_has_another_name_outside_is_not_written_to(index, precious, tmp_path, name):
    name = as_here(name)
    (index / name).unlink(missing_ok=True)
    os.link(precious, index / name)
    errors = use_everything(index, tmp_path)
    if name.startswith(("writer", "vectors")):
        assert errors


def test_a_segment_of_words_under_a_link_is_made_again(index, precious, whole):
    for path in index.glob("lexical-*.bin"):
        path.unlink()
        path.symlink_to(precious)
    assert ask(index) == ask(whole)


@pytest.mark.timeout(60)
@pytest.mark.parametrize("name", ["vectors-text.f16", "writer.lock", "dense-text.faiss", "lexical.json", "index.sqlite"])
def test_a_pipe_in_the_folder_does_not_hang(index, tmp_path, name):
    (index / name).unlink()
    os.mkfifo(index / name)
    use_everything(index, tmp_path)


def test_a_journal_that_names_a_foreign_file_does_not_remove_it(index, precious):
    """SQLite deletes the super-journal that a hot journal names, wherever that is."""
    name = str(precious).encode()
    tail = name + len(name).to_bytes(4, "big") + sum(name).to_bytes(4, "big") + bytes.fromhex("d9d505f920a163d7")
    header = (
        bytes.fromhex("d9d505f920a163d7")
        + bytes(4)
        + bytes(4)
        + (19).to_bytes(4, "big")
        + (512).to_bytes(4, "big")
        + (4096).to_bytes(4, "big")
    )
    for side in ("-wal", "-shm"):
        index.joinpath(f"index.sqlite{side}").unlink(missing_ok=True)
    (index / "index.sqlite-journal").write_bytes(header.ljust(512, b"\0") + b"\x7f\xff\xff\xff" + tail)
    with pytest.raises(IndexCorruptError, match="journal"):
        ask(index)


@pytest.mark.parametrize(
    "sql",
    ["CREATE TRIGGER t AFTER INSERT ON chunks BEGIN DELETE FROM documents; END",
     "CREATE VIEW extra AS SELECT * FROM chunks",
     "CREATE TABLE extra(x)",
     "ALTER TABLE assets ADD COLUMN more GENERATED ALWAYS AS (randomblob(100000000)) VIRTUAL",
     "DROP TABLE feedback",
     "DROP INDEX documents_id",
     "UPDATE sqlite_master SET sql = replace(sql, 'mtime_ns INTEGER', 'mtime_ns TEXT   ') WHERE name = 'documents'"],
)  # fmt: skip
def test_tables_that_are_not_ours_are_refused(index, sql):
    change(index, sql)
    with pytest.raises(IndexCorruptError, match=r"tables of an index|damaged"):
        ask(index)


FIELDS = [
    ("UPDATE spaces SET dim = ?", (0, -1, 2**40, 2**62, "x", None.__class__.__name__, 1.5)),
    ("UPDATE spaces SET rows = ?", (-1, 2**40, "many", 10**6)),
    ("UPDATE spaces SET name = ?", ("../x", "", "text\n", b"text")),
    ("UPDATE blocks SET chunk_ids = ?", (b"", b"\xff" * 20, b"\x01\x00\x00\x00" * 5, "text")),
    ("UPDATE blocks SET rows = ?", (0, -1, 2**40, "x")),
    ("UPDATE blocks SET sums = ?", (b"", b"\0" * 20, "x")),
    ("UPDATE parts SET first_chunk = ?", (0, -5, 2**40, 2**62, "x", b"x", 1.5)),
    ("UPDATE parts SET chunks = ?", (-3, 2**40, "x")),
    ("UPDATE chunks SET modality = ?", ("smell", 7, b"text")),
    ("UPDATE chunks SET metadata = ?", ("[1]", "{", "NaN", b"{}", "[" * 5000)),
    ("UPDATE chunks SET bbox = ?", ("[1]", "[1, 2, 3, NaN]", "{}", "x", 7, "[" * 5000)),
    ("UPDATE chunks SET page = ?", ("x", -1, 1.5, b"1")),
    ("UPDATE chunks SET text = ?", (b"bytes", 7)),
    ("UPDATE chunks SET asset = ?", ("../../precious.f16", 7)),
    ("UPDATE documents SET metadata = ?", ("[]", "{", 7)),
    ("UPDATE documents SET source = ?", (b"bytes", 7)),
    ("UPDATE documents SET visible = ?", (2, "x")),
    ("UPDATE state SET generation = ?", ("x", None, -1)),
    ("UPDATE state SET format = ?", ("x", 0, -1, 1, 99, None)),
    ("UPDATE state SET uid = ?", (7, None)),
    ("UPDATE meta SET value = ?", ("{", b"x", "[" * 5000)),
    ("UPDATE sqlite_sequence SET seq = ?", (0, 2**62, "x", -1)),
    ("DELETE FROM state WHERE ? IS NULL OR 1", (1,)),
    ("DELETE FROM chunks WHERE id % ? = 0", (2,)),
]  # fmt: skip


@pytest.mark.parametrize(("sql", "value"), [(sql, value) for sql, values in FIELDS for value in values])
def test_no_forged_field_is_a_raw_error_or_a_wrong_answer(index, whole, tmp_path, sql, value, truth):
    change(index, sql, value)
    try:
        answers = ask(copy_of(index, tmp_path / "asked"))
    except IndexStateError:
        answers = None
    assert answers is None or answers == truth
    use_everything(index, tmp_path)


@pytest.fixture(scope="module")
def truth(whole, tmp_path_factory):
    return ask(copy_of(whole, tmp_path_factory.mktemp("truth") / "index"))


@pytest.mark.parametrize("bad", ["half \ud800 pair", "NUL \x00 here"])
def test_text_that_cannot_be_kept_is_refused_by_name_and_nothing_else_suffers(index, bad):
    with Store.open(index) as store:
        before = store.counts()
        for arguments in (
            {"source": bad},
            {"source": "x", "title": bad},
            {"source": "x", "metadata": {"a": [bad]}},
            {"source": "x", "metadata": {bad: 1}},
        ):
            with pytest.raises(ConfigError, match=r"surrogate|NUL"):
                store.begin(**arguments, content_hash="h")
        with pytest.raises(ConfigError):
            store.delete("half \ud800 pair")
        assert store.counts() == before
        assert store.allowed({"year": 2013}).sum() == 6


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), 2**63, -(2**63) - 1, [1, [2**70]], {"deep": float("nan")}])
def test_numbers_that_cannot_be_kept_are_refused_and_filters_go_on(index, bad):
    with Store.open(index) as store:
        with pytest.raises(ConfigError, match="metadata"):
            store.begin("x", content_hash="h", metadata={"n": bad})
        assert store.allowed({"year": 2013}).sum() == 6
        if not isinstance(bad, list | dict):
            with pytest.raises(ConfigError):
                store.allowed({"year": bad})


def test_deeply_nested_metadata_is_refused(index):
    deep: list = []
    for _ in range(5000):
        deep = [deep]
    with Store.open(index) as store, pytest.raises(ConfigError, match="nested"):
        store.begin("x", content_hash="h", metadata={"deep": deep})


HIDDEN = [
    "UPDATE chunks SET page = 2 WHERE id = 40",  # only a filter looks at it
    "UPDATE chunks SET metadata = '{}' WHERE id = 40",
    "UPDATE documents SET metadata = '{}' WHERE key = 5",
    "UPDATE documents SET complete = 0 WHERE key = 5",
    "UPDATE documents SET visible = 0 WHERE key = 5",
    "DELETE FROM documents WHERE key = 5",
    "DELETE FROM chunks WHERE id = 40",
    "UPDATE parts SET document = 1000 WHERE document = 5",
    "UPDATE parts SET first_chunk = first_chunk + 6 WHERE document = 5",
    "DELETE FROM spaces",
    "UPDATE spaces SET name = 'texu'",
    "DELETE FROM meta",
    "UPDATE meta SET key = 'confih'",
    "DELETE FROM assets WHERE rowid = 7",
]


@pytest.mark.parametrize("sql", HIDDEN)
def test_a_row_that_was_changed_or_lost_is_never_passed_over_in_silence(index, whole, sql):
    change(index, sql)
    with pytest.raises(IndexStateError):
        ask(index)


def test_a_vote_and_a_failure_that_were_changed_are_noticed(index):
    with Store.open(index) as store:
        store.add_feedback("q", 3, 1)
        begun = store.begin("broken.pdf", content_hash="b")
        store.commit([PartCommit(begun.document_key, 0, failure="torn", final=True)])
        assert store.failures(begun.document_id) == [(0, "torn")]
    change(index, "UPDATE feedback SET vote = -1")
    change(index, "UPDATE parts SET failure = NULL")
    with Store.open(index) as store:
        with pytest.raises(IndexCorruptError):
            store.feedback()
        with pytest.raises(IndexCorruptError):
            store.failures(begun.document_id)
