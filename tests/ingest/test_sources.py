"""What is there to read, when some of the names are bad."""

import contextlib
import os

import pytest

from ultrafast_rag.extract.detect import media_type
from ultrafast_rag.extract.discover import discover
from ultrafast_rag.index.store import Store
from ultrafast_rag.ingest.sources import find_sources


@pytest.mark.fault
def test_bad_names_end_as_failed_entries_that_can_be_shown(tmp_path):
    folder = tmp_path / "files"
    folder.mkdir()
    (folder / "good.txt").write_text("words")
    with open(os.fsencode(folder) + b"/caf\xe9.txt", "w") as file:
        file.write("x")
    (folder / "loop").symlink_to(folder / "loop")
    with contextlib.closing(Store.open(tmp_path / "index")) as store:
        found = find_sources(
            store, [folder, "a\0b", "\ud800.txt", tmp_path / "gone.txt"], discover=discover, media_type=media_type
        )
    assert [source.path.name for source in found.todo] == ["good.txt"]
    names = [name for name, _ in found.failed]
    assert names == [str(folder / "caf\\udce9.txt"), str(folder / "loop"), "a\\x00b", "\\ud800.txt", str(tmp_path / "gone.txt")]
    assert "\n".join(f"{name}: {why}" for name, why in found.failed).encode()  # what a terminal and SQLite need
    assert all(why for _, why in found.failed)
