"""A stranger's index, cache or archive: nothing outside of it is read, written or contacted, whatever it names.

Sixty and more forged ones are opened, asked, added to and exported in a process of its own, whose every file, connection
and child is watched by an audit hook.
"""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
from small_index import change, copy_of, make_index

from ultrafast_rag import UltraFastRAG
from ultrafast_rag.bench.trials import rows_for
from ultrafast_rag.enrich.results import EnrichmentStore
from ultrafast_rag.errors import StorageError
from ultrafast_rag.index.archive import export_archive
from ultrafast_rag.index.embedding_cache import EmbeddingCache, content_key
from ultrafast_rag.index.home import is_home, settle
from ultrafast_rag.index.store import HOME, Store
from ultrafast_rag.types import Hit

pytestmark = pytest.mark.fault
URL = "https://198.51.100.7/steal"

CHILD = """
import contextlib, json, os, sys, traceback
sys.path[:0] = [sys.argv[3], sys.argv[4]]
from pathlib import Path
import numpy as np, faiss, sqlite3, tarfile, bm25s
from small_index import add_document, ask, rows_for
from ultrafast_rag.errors import UltraFastRAGError
from ultrafast_rag.config import Config
from ultrafast_rag.index.archive import export_archive, restore_archive
from ultrafast_rag.index.embedding_cache import EmbeddingCache, content_key
from ultrafast_rag.index.store import Store
from ultrafast_rag.rag import UltraFastRAG
import warnings
warnings.simplefilter("ignore")
kind, folder = sys.argv[1], Path(sys.argv[2])
own = (str(folder.parent), sys.prefix, sys.base_prefix, sys.argv[3], sys.argv[4], "/proc", "/sys", "/dev/null", "/etc/localtime")
own += (os.environ["UFR_CACHE_DIR"],)
seen = []
def watch(event, arguments):
    if event in ("socket.connect", "socket.getaddrinfo", "socket.gethostbyname", "subprocess.Popen", "os.system", "os.exec"):
        seen.append([event, str(arguments)])
    one = event in ("open", "os.remove", "sqlite3.connect") and isinstance(arguments[0], (str, bytes))
    paths = [os.fsdecode(arguments[0])] if one else []
    paths += [os.fsdecode(path) for path in arguments[:2]] if event in ("os.rename", "os.link", "os.symlink") else []
    for path in paths:
        path = path.removeprefix("file:").split("?")[0]
        if path not in (":memory:", "") and not os.path.abspath(path).startswith(own):
            seen.append([event, path])
        if "precious" in path:
            seen.append([event, path])
sys.addaudithook(watch)
@contextlib.contextmanager
def trying():
    try:
        yield
    except UltraFastRAGError:
        pass
    except Exception as error:
        seen.append(["raw", one.name, traceback.format_exc()[-400:]])
for one in sorted(folder.iterdir()):
    if kind == "cache":
        cache = EmbeddingCache(one, size_gb=1)
        cache.get_many("m", [content_key(str(n)) for n in range(20)])
        cache.put_many("m", [content_key("new")], rows_for([1]))
        cache.close()
        continue
    if kind == "archive":
        with trying():
            restore_archive(one, one.with_suffix(".restored"))
        one = one.with_suffix(".restored")
        if not one.exists():
            continue
    with trying():
        ask(one)
    with trying(), Store.open(one) as store:
        add_document(store, 500)
        store.delete("/home/someone/papers/lamp-1.pdf")
        store.compact(above=0.0)
    with trying(), Store.open(one) as store:
        export_archive(store, folder.parent / "out.tar")
    with trying(), UltraFastRAG(one, quiet=True) as rag:
        assert rag.config.gemini_base_url is None and rag.config.cache_dir == Config().cache_dir
        rag.stats(); rag.documents(); repr(rag)
    with trying():
        UltraFastRAG.repair(one)
print(json.dumps(seen))
"""


def watched(kind: str, folder: Path) -> list[list[str]]:
    """What a process touched outside while it used every forged thing in a folder."""
    here, root = Path(__file__).parent, Path(__file__).parents[2]
    command = [sys.executable, "-c", CHILD, kind, str(folder), str(here), str(root)]
    environment = {**os.environ, "TMPDIR": str(folder.parent), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=folder.parent, timeout=280, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    seen: list[list[str]] = json.loads(done.stdout.splitlines()[-1])
    return seen


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return make_index(tmp_path_factory.mktemp("whole") / "index", documents=12)


@pytest.fixture
def outside(tmp_path):
    precious = tmp_path / "outside" / "precious.f16"
    precious.parent.mkdir()
    precious.write_bytes(b"precious " * 1000)
    yield precious
    assert precious.read_bytes() == b"precious " * 1000
    assert [path.name for path in precious.parent.iterdir()] == ["precious.f16"]


def forgeries(outside: Path) -> list[tuple[str, tuple[object, ...]]]:
    """SQL and its values: names, paths, URLs, sizes and types that this package never writes."""
    bad = [
        str(outside),
        f"../outside/{outside.name}",
        "../../etc/passwd",
        f"file://{outside}",
        URL,
        "a/b",
        "\x00",
        7,
        None,
        b"x",
        2**62,
    ]
    columns = ["spaces.file", "documents.source", "documents.media_type", "chunks.asset", "meta.value"]
    made = [
        (f"UPDATE OR IGNORE {table} SET {column} = ?", (value,))
        for table, column in (name.split(".") for name in columns)
        for value in bad
    ]
    settings = {"gemini_base_url": URL, "cache_dir": str(outside.parent), "text_model": str(outside), "worker_memory_mb": 2**40}
    made += [
        ("INSERT OR REPLACE INTO meta VALUES('config', ?, -1)", (json.dumps({name: value}),)) for name, value in settings.items()
    ]
    return [*made, ("UPDATE spaces SET rows = ?", (2**40,)), ("UPDATE spaces SET dim = ?", (2**31,))]


def resealed(index: Path) -> None:
    """Give every row the checksum of what it holds, as a stranger could who knows how."""
    from ultrafast_rag.index import rows, totals

    connection = sqlite3.connect(index / "index.sqlite", isolation_level=None)
    for key, value in connection.execute("SELECT key, value FROM meta").fetchall():
        connection.execute("UPDATE meta SET sum = ? WHERE key = ?", (rows.checksum((key, value)), key))
    for (key,) in connection.execute("SELECT key FROM documents").fetchall():
        rows.seal_document(connection, key)
    for row in connection.execute(f"SELECT {rows.chunk_columns()} FROM chunks").fetchall():
        connection.execute("UPDATE chunks SET sum = ? WHERE id = ?", (rows.chunk_sum(row), row[0]))
    totals.recount(connection)
    connection.close()


@pytest.mark.timeout(300)
def test_sixty_forged_indexes_reach_nothing_outside(whole, outside, tmp_path):
    folder = tmp_path / "forged"
    folder.mkdir()
    made = 0
    for number, (sql, values) in enumerate(forgeries(outside)):
        index = copy_of(whole, folder / f"{number:03}")
        try:
            change(index, sql, *values)
        except sqlite3.IntegrityError:  # NULL, where the table takes none
            continue
        resealed(index)
        made += 1
    assert made >= 50
    assert watched("index", folder) == []


def test_forged_archives_reach_nothing_outside(whole, outside, tmp_path):
    folder = tmp_path / "forged"
    folder.mkdir()
    for number, (sql, values) in enumerate(forgeries(outside)[:8]):
        index = copy_of(whole, tmp_path / "made")
        change(index, sql, *values)
        (folder / f"{number}.tar").write_bytes(b"")
        with tarfile.open(folder / f"{number}.tar", "w") as tar:
            for path in sorted(index.iterdir()):
                tar.add(path, arcname=("../" if number % 2 else "") + path.name)
    with Store.open(whole) as store:
        content = export_archive(store, tmp_path / "whole.tar").read_bytes()
    for number, name in enumerate((str(outside), "../outside/precious.f16", URL)):
        (folder / f"w{number}.tar").write_bytes(content.replace(b"vectors-text.f16", name.encode()[:16].ljust(16, b"x")))
    assert watched("archive", folder) == []


def test_forged_caches_reach_nothing_outside(outside, tmp_path):
    folder = tmp_path / "forged"
    for number, sql in enumerate(
        (
            f"UPDATE Cache SET filename = '{outside}', mode = 2, value = NULL",
            "UPDATE Cache SET filename = '../../outside/precious.f16', mode = 4, value = NULL",
            "UPDATE Cache SET mode = 4, value = x'80049500'",
            "UPDATE Cache SET raw = 0",
            f"UPDATE Settings SET value = '{outside.parent}' WHERE key LIKE 'disk%'",
            f"INSERT INTO Settings VALUES ('_directory', '{outside.parent}')",
        )
    ):
        cache = EmbeddingCache(folder / str(number), size_gb=1)
        cache.put_many("m", [content_key(str(n)) for n in range(20)], rows_for(range(20)))
        cache.close()
        connection = sqlite3.connect(folder / str(number) / "cache.db")
        with connection:
            connection.execute(sql)
        connection.close()
    assert watched("cache", folder) == []


def test_of_an_index_from_elsewhere_no_local_file_is_shown_until_it_was_ingested_here(tmp_path):
    """Its stored path, size and time are those of a local file; the file is private all the same."""
    path = tmp_path / "private.pdf"
    path.write_bytes(b"%PDF-1.4 private")
    stat = path.stat()
    cache = {"cache_dir": tmp_path / "cache", "quiet": True}
    with Store.open(tmp_path / "index") as store:
        about = {"content_hash": "h", "stat": (stat.st_size, stat.st_mtime_ns), "media_type": "application/pdf"}
        begun = store.begin(str(path), **about)
        store.finish(begun.document_key)
        store.set_meta(HOME, "f" * 64)  # a code of the stranger's machine
    hit = Hit(chunk_id=1, document_id=begun.document_id, source=str(path), modality="text", text="x", score=1.0, page=1)
    with UltraFastRAG(tmp_path / "index", **cache) as rag:
        shown = rag._evidence(hit)
        assert "another machine" in shown.caption
        assert shown.data == b""
        assert "_sandbox" not in rag.__dict__  # nobody opened the file
        settle(rag._store, rag.config.cache_dir)
        assert is_home(rag._store, rag.config.cache_dir)
        assert not rag._store.unchanged(str(path), (stat.st_size, stat.st_mtime_ns))  # read again before it counts
    assert oct((tmp_path / "cache" / "machine.key").stat().st_mode)[-3:] == "600"


def test_an_archive_says_nothing_of_the_machine_it_was_made_on(tmp_path):
    with Store.open(tmp_path / "index") as store:
        settle(store, tmp_path / "cache")
        archive = export_archive(store, tmp_path / "a.tar", paths=True)
    with UltraFastRAG.restore(archive, tmp_path / "r", cache_dir=tmp_path / "cache", quiet=True) as rag:
        assert not is_home(rag._store, tmp_path / "cache")


def test_enrichments_of_a_stranger_run_nothing_and_reach_nothing(outside, tmp_path):
    path = tmp_path / "enrichments.sqlite3"
    store = EnrichmentStore(path)
    row = {"caption": "c", "summary": "s", "keywords": [], "questions": []}
    store.put("k", row, 0.1)
    assert store.get_many(["k"]) == {"k": row}
    store.close()
    connection = sqlite3.connect(path)
    with connection:
        connection.execute("UPDATE enrichments SET body = replace(body, '\"s\"', '\"forged\"')")
    store = EnrichmentStore(path)
    assert store.get_many(["k"]) == {}  # paid for anew rather than believed
    store.close()
    with connection:
        connection.execute("CREATE TRIGGER t AFTER INSERT ON enrichments BEGIN DELETE FROM enrichments; END")
    connection.close()
    with pytest.raises(StorageError, match="forged"):
        EnrichmentStore(path)
    path.unlink()
    path.symlink_to(outside)
    with pytest.raises(Exception, match="link"):
        EnrichmentStore(path).put("k", row, 0.1)
