"""One module for sha256 and files written whole: no copy elsewhere, and findings that are believed only as written."""

from __future__ import annotations

import re
import threading
from pathlib import Path

import pytest

from ultrafast_rag import files
from ultrafast_rag.files import Memory, sha256_of, write_whole

PACKAGE = Path(files.__file__).parent


@pytest.mark.fault
def test_what_is_not_as_it_was_written_is_not_believed(tmp_path):
    memory = Memory(tmp_path / "found.json")
    memory.remember("a", {"widths": [16, 32]})
    memory.remember("b", 1)
    assert memory.recall("a") == {"widths": [16, 32]}
    path = tmp_path / "found.json"
    path.write_text(path.read_text().replace("32", "48"))
    assert (memory.recall("a"), memory.recall("b"), memory.recall("c")) == (None, 1, None)
    path.write_text("{torn")
    assert memory.recall("b") is None


def test_findings_of_many_threads_are_all_kept(tmp_path):
    path = tmp_path / "new" / "found.json"
    threads = [threading.Thread(target=Memory(path).remember, args=(str(n), n)) for n in range(40)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [Memory(path).recall(str(n)) for n in range(40)] == list(range(40))
    assert [other.name for other in path.parent.iterdir()] == ["found.json"]


def test_a_folder_that_cannot_be_written_costs_a_finding_and_nothing_else(tmp_path):
    (tmp_path / "file").write_text("in the way")
    memory = Memory(tmp_path / "file" / "found.json")
    memory.remember("a", 1)
    assert memory.recall("a") is None


@pytest.mark.fault
def test_a_write_that_fails_leaves_the_old_file_and_no_other(tmp_path):
    write_whole(tmp_path, "kept", [b"old"])

    def pieces():
        yield b"new"
        raise OSError("no space left")

    with pytest.raises(OSError, match="no space"):
        write_whole(tmp_path, "kept", pieces())
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("kept", b"old")]
    assert sha256_of(tmp_path / "kept").startswith("cba06b57")  # sha256sum of "old"


def test_no_other_file_of_the_package_hashes_files_or_renames_by_itself():
    """What streams through a rename of its own (an archive, a snapshot, a database's copy) is named here."""
    streams = {
        "index/archive.py",
        "index/upkeep.py",
        "notebook/drive.py",
        "remote/fetch.py",
        "models/unpickle.py",
        "models/text/openvino.py",
        "files.py",
    }
    own = re.compile(r"os\.replace\(|os\.rename\(|mkstemp\(|NamedTemporaryFile|os\.fsync\(|file_digest\(|partial\.replace\(")
    streams |= {"files.py", "index/repair.py"}
    found = {path.relative_to(PACKAGE).as_posix() for path in PACKAGE.rglob("*.py") if own.search(path.read_text("utf-8"))}
    assert found - streams == {"index/vectors.py"}  # appends rows, and makes them durable before they are committed
