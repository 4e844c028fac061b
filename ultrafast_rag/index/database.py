"""The store's SQLite file: its tables, its connections, and its errors in plain words.

WAL with synchronous=FULL: a commit that returned survives power loss, and readers never wait for the
writer. Readers borrow a connection each, so search threads do not queue behind one another.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import threading
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from ultrafast_rag.errors import ConfigError, IndexCorruptError, IndexLockedError, IndexStateError, StorageError
from ultrafast_rag.files import refuse_links
from ultrafast_rag.index.rows import ADVICE, integer

FORMAT = 2  # 1 had no checksum for each row
DATABASE = "index.sqlite"
_FORMAT_1 = """
CREATE TABLE state(id INTEGER PRIMARY KEY CHECK(id = 1), format INTEGER, generation INTEGER, removals INTEGER, uid TEXT);
INSERT INTO state VALUES(1, 1, 0, 0, lower(hex(randomblob(16))));
CREATE TABLE meta(key TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE documents(
  key INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL, source TEXT NOT NULL, title TEXT NOT NULL, media_type TEXT NOT NULL,
  content_hash TEXT NOT NULL, size INTEGER NOT NULL, mtime_ns INTEGER NOT NULL, metadata TEXT NOT NULL,
  next_part INTEGER NOT NULL DEFAULT 0, total INTEGER, section TEXT NOT NULL DEFAULT '',
  complete INTEGER NOT NULL DEFAULT 0, visible INTEGER NOT NULL);
CREATE UNIQUE INDEX documents_id ON documents(id, visible);
CREATE INDEX documents_source ON documents(source);
CREATE TABLE parts(
  document INTEGER NOT NULL, number INTEGER NOT NULL, first_chunk INTEGER NOT NULL, chunks INTEGER NOT NULL, failure TEXT,
  PRIMARY KEY(document, number)) WITHOUT ROWID;
CREATE INDEX parts_chunk ON parts(first_chunk);
CREATE TABLE chunks(
  id INTEGER PRIMARY KEY AUTOINCREMENT, document INTEGER NOT NULL, part INTEGER NOT NULL, ordinal INTEGER NOT NULL,
  modality TEXT NOT NULL, text TEXT NOT NULL, context TEXT NOT NULL, page INTEGER, bbox TEXT, start_s REAL, end_s REAL,
  asset TEXT NOT NULL, metadata TEXT NOT NULL);
CREATE INDEX chunks_document ON chunks(document);
CREATE INDEX chunks_asset ON chunks(asset) WHERE asset <> '';
CREATE TABLE assets(sha256 TEXT PRIMARY KEY, data BLOB NOT NULL);
CREATE TABLE spaces(name TEXT PRIMARY KEY, dim INTEGER NOT NULL, rows INTEGER NOT NULL, file TEXT NOT NULL);
CREATE TABLE blocks(
  space TEXT NOT NULL, first_row INTEGER NOT NULL, rows INTEGER NOT NULL, crc32 INTEGER NOT NULL, chunk_ids BLOB NOT NULL,
  PRIMARY KEY(space, first_row)) WITHOUT ROWID;
CREATE TABLE feedback(id INTEGER PRIMARY KEY, question TEXT NOT NULL, chunk_id INTEGER, vote INTEGER NOT NULL, at REAL NOT NULL);
"""
# a checksum a row, and one number a table (`totals.py`): a row that is lost, or shown again, is noticed
_FORMAT_2 = """
ALTER TABLE documents ADD COLUMN sum INTEGER NOT NULL DEFAULT -1;
ALTER TABLE parts ADD COLUMN sum INTEGER NOT NULL DEFAULT -1;
ALTER TABLE chunks ADD COLUMN sum INTEGER NOT NULL DEFAULT -1;
ALTER TABLE meta ADD COLUMN sum INTEGER NOT NULL DEFAULT -1;
ALTER TABLE blocks ADD COLUMN sums BLOB NOT NULL DEFAULT x'';
ALTER TABLE blocks ADD COLUMN sum INTEGER NOT NULL DEFAULT -1;
CREATE INDEX documents_content ON documents(content_hash);
ALTER TABLE state ADD COLUMN visible_runs INTEGER NOT NULL DEFAULT 0;
ALTER TABLE state ADD COLUMN all_documents INTEGER NOT NULL DEFAULT 0;
ALTER TABLE state ADD COLUMN all_parts INTEGER NOT NULL DEFAULT 0;
ALTER TABLE state ADD COLUMN all_assets INTEGER NOT NULL DEFAULT 0;
ALTER TABLE state ADD COLUMN all_meta INTEGER NOT NULL DEFAULT 0;
ALTER TABLE state ADD COLUMN all_spaces INTEGER NOT NULL DEFAULT 0;
ALTER TABLE state ADD COLUMN all_feedback INTEGER NOT NULL DEFAULT 0;
UPDATE state SET format = 2;
"""
STEPS = (_FORMAT_1, _FORMAT_2)
_SIDE_FILES = (DATABASE, f"{DATABASE}-wal", f"{DATABASE}-shm", f"{DATABASE}-journal")
_REFUSALS = ("full", "disk i/o", "unable to open", "readonly", "out of memory")  # SQLite, of a disk or system that refuses
_JOURNAL_MAGIC = bytes.fromhex("d9d505f920a163d7")


@cache
def _schema(version: int) -> frozenset[tuple[str, ...]]:
    """What SQLite lists for an index of this format: every table and index, word by word."""
    with contextlib.closing(sqlite3.connect(":memory:")) as made:
        for step in STEPS[:version]:
            made.executescript(step)
        return _listed(made)


def _listed(connection: sqlite3.Connection) -> frozenset[tuple[str, ...]]:
    rows = connection.execute("SELECT type, name, tbl_name, sql FROM sqlite_master WHERE name NOT LIKE 'sqlite@_%' ESCAPE '@'")
    return frozenset((str(kind), str(name), str(table), " ".join(str(sql).split())) for kind, name, table, sql in rows)


@contextlib.contextmanager
def plain_errors(folder: Path, *, but: type[OSError] = StorageError) -> Iterator[None]:
    """Turn what SQLite and the disk say into StorageError, IndexLockedError or IndexCorruptError; `but` passes as it is."""
    try:
        yield
    except sqlite3.ProgrammingError as error:
        raise IndexStateError(f"the index in {folder} is closed. Open it again.") from error
    except sqlite3.OperationalError as error:
        if "locked" in str(error) or "busy" in str(error):
            raise IndexLockedError(f"{folder} is busy: another process holds its database. Try again in a moment.") from error
        if any(words in str(error).lower() for words in _REFUSALS):
            raise _refused(folder, str(error)) from error
        raise IndexCorruptError(f"{folder / DATABASE} is damaged ({error}). {ADVICE}") from error
    except (sqlite3.DatabaseError, UnicodeDecodeError) as error:  # what SQLite quotes from a damaged file may be no text
        if isinstance(error, sqlite3.IntegrityError):
            raise IndexStateError(f"{folder}: {error}") from error
        raise IndexCorruptError(f"{folder / DATABASE} is damaged ({error}). {ADVICE}") from error
    except (OverflowError, UnicodeEncodeError) as error:
        raise ConfigError(f"this cannot be kept in an index: {error}. Numbers have 64 bits at most, text is UTF-8.") from error
    except (StorageError, but):
        raise
    except OSError as error:
        raise _refused(folder, error.strerror or str(error)) from error


def _refused(folder: Path, why: str) -> StorageError:
    return StorageError(
        f"the disk of {folder} refused: {why}. What was committed before is safe and can be searched; free some space "
        "(or make the folder writable) and run the same call again."
    )


class Database:
    """Connections to one index folder: a pool for reading, one for writing.

    writable: False opens read-only media too (a Kaggle input), where SQLite cannot make its side files.
    """

    def __init__(self, folder: Path, *, writable: bool) -> None:
        self.folder, self.path, self.writable = folder, folder / DATABASE, writable
        self.format = FORMAT
        self._free: list[sqlite3.Connection] = []
        self._all: list[sqlite3.Connection] = []
        self._writer: sqlite3.Connection | None = None
        self._closed = False
        self._guard = threading.Lock()
        self._process = os.getpid()

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
        return self._closed

    @property
    def opened_here(self) -> bool:
        """Whether this is the process that opened it, not one forked from it."""
        return self._process == os.getpid()

    def create(self) -> None:
        """Make the tables, all or none."""
        self.writer().executescript(f"BEGIN EXCLUSIVE;{''.join(STEPS)}COMMIT;")

    def is_new(self) -> bool:
        """Whether no tables were ever committed here."""
        refuse_links(self.folder, *_SIDE_FILES)
        if not self.path.exists() or (self.path.stat().st_size == 0 and not _size(self.path.with_name(f"{DATABASE}-wal"))):
            return True
        _refuse_super_journal(self.path.with_name(f"{DATABASE}-journal"))
        with self.reading() as reader:
            return reader.execute("SELECT 1 FROM sqlite_master").fetchone() is None

    def check_format(self) -> None:
        """Learn the format; IndexStateError when a later version wrote it, IndexCorruptError when none of ours did.

        The tables must be ours word by word: no view, trigger or computed column of a stranger's runs here.
        """
        with self.reading() as reader:
            listed = _listed(reader)
            known = next((version for version in range(FORMAT, 0, -1) if listed == _schema(version)), None)
            is_ours = known or ("table", "state") in {entry[:2] for entry in listed}
            row = reader.execute("SELECT format FROM state").fetchone() if is_ours else None
        found = integer(row[0] if row else None, "the format of an index", 1)
        if found > FORMAT:
            raise IndexStateError(
                f"{self.folder} was written by a later version (format {found}, this one reads {FORMAT}). "
                "Run: pip install -U ultrafast_rag"
            )
        if known != found:
            raise IndexCorruptError(f"{self.path} does not hold the tables of an index: damaged, or forged. {ADVICE}")
        self.format = found

    def writer(self) -> sqlite3.Connection:
        """The one connection that writes; callers serialize its use."""
        if self._writer is None:
            self._writer = self._connect(f"file:{_quoted(self.path)}?mode=rwc")
            self._writer.execute("PRAGMA journal_mode = WAL")
            self._writer.execute("PRAGMA synchronous = FULL")
        return self._writer

    @contextlib.contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """Borrow a connection for reading."""
        if not self.opened_here:
            raise IndexStateError(
                f"the index in {self.folder} was opened before this process was forked, and neither its connections nor its "
                "models outlive that. Open it in this process, or start processes with the 'spawn' method."
            )
        with self._guard:
            if self._closed:
                raise IndexStateError(f"the index in {self.folder} is closed. Open it again.")
            connection = self._free.pop() if self._free else None
        if connection is None:
            connection = self._reader()
            with self._guard:
                self._all.append(connection)
        try:
            yield connection
        finally:
            with self._guard:
                self._free.append(connection)

    @contextlib.contextmanager
    def snapshot(self) -> Iterator[sqlite3.Connection]:
        """Borrow a connection that sees one moment of the index throughout."""
        with self.reading() as connection:
            connection.execute("BEGIN")
            try:
                yield connection
            finally:
                connection.execute("ROLLBACK")

    def close(self) -> None:
        """Close every connection, whatever one of them says; the last one folds the WAL into the file."""
        with self._guard:
            self._closed = True
            connections, self._free, self._all = self._all, [], []
            writer, self._writer = self._writer, None
        if not self.opened_here:
            return  # they are the parent's
        with contextlib.ExitStack() as closing:
            for connection in ([writer] if writer else []) + connections:
                closing.callback(connection.close)

    def _reader(self) -> sqlite3.Connection:
        uri = f"file:{_quoted(self.path)}"
        if self.writable:
            connection = self._connect(f"{uri}?mode=rw")
            connection.execute("PRAGMA query_only = 1")
            return connection
        try:
            connection = self._connect(f"{uri}?mode=ro")
            connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
            return connection
        except sqlite3.OperationalError:
            if self.path.with_name(DATABASE + "-wal").exists():
                raise  # immutable would hide what the WAL holds
            return self._connect(f"{uri}?immutable=1")

    def _connect(self, uri: str) -> sqlite3.Connection:
        # autocommit: transactions are begun by name; connections move between threads, one at a time
        connection = sqlite3.connect(uri, uri=True, timeout=10.0, isolation_level=None, check_same_thread=False)
        connection.execute("PRAGMA trusted_schema = 0")
        connection.execute("PRAGMA cell_size_check = 1")
        return connection


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def _refuse_super_journal(path: Path) -> None:
    """IndexCorruptError for a journal that names another: SQLite would delete the file of that name. Ours never do."""
    if (size := _size(path)) < 8:
        return
    with path.open("rb") as file:
        file.seek(size - 8)
        if file.read(8) == _JOURNAL_MAGIC:
            raise IndexCorruptError(f"{path} names a file outside of this index; it is not ours. Remove that journal.")


def _quoted(path: Path) -> str:
    text = path.resolve().as_posix().replace("%", "%25").replace("?", "%3f").replace("#", "%23")
    return text if text.startswith("/") else "/" + text
