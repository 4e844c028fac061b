"""The store's SQLite file: its tables, its connections, and its errors in plain words.

WAL with synchronous=FULL: a commit that returned survives power loss, and readers never wait for the
writer. Readers borrow a connection each, so search threads do not queue behind one another.
"""

from __future__ import annotations

import contextlib
import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path

from ultrafast_rag.errors import IndexCorruptError, IndexLockedError, IndexStateError, StorageError

FORMAT = 1
DATABASE = "index.sqlite"
SCHEMA = f"""
CREATE TABLE state(id INTEGER PRIMARY KEY CHECK(id = 1), format INTEGER, generation INTEGER, removals INTEGER, uid TEXT);
INSERT INTO state VALUES(1, {FORMAT}, 0, 0, lower(hex(randomblob(16))));
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


@contextlib.contextmanager
def plain_errors(folder: Path) -> Iterator[None]:
    """Turn what SQLite and the disk say into StorageError, IndexLockedError or IndexCorruptError."""
    try:
        yield
    except sqlite3.ProgrammingError as error:
        raise IndexStateError(f"the index in {folder} is closed. Open it again.") from error
    except sqlite3.OperationalError as error:
        if "locked" in str(error) or "busy" in str(error):
            raise IndexLockedError(f"{folder} is busy: another process holds its database. Try again in a moment.") from error
        raise _refused(folder, str(error)) from error
    except sqlite3.DatabaseError as error:
        if isinstance(error, sqlite3.IntegrityError):
            raise IndexStateError(f"{folder}: {error}") from error
        raise IndexCorruptError(f"{folder / DATABASE} is damaged ({error}). Restore a snapshot or capsule of it.") from error
    except StorageError:
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
        self._free: list[sqlite3.Connection] = []
        self._all: list[sqlite3.Connection] = []
        self._writer: sqlite3.Connection | None = None
        self._closed = False
        self._guard = threading.Lock()

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
        return self._closed

    def create(self) -> None:
        """Make the tables, all or none."""
        writer = self.writer()
        writer.executescript(f"BEGIN EXCLUSIVE;{SCHEMA}COMMIT;")

    def is_new(self) -> bool:
        """Whether no tables were ever committed here."""
        if not self.path.exists() or self.path.stat().st_size == 0:
            return True
        with self.reading() as reader:
            return reader.execute("SELECT 1 FROM sqlite_master WHERE name = 'state'").fetchone() is None

    def check_format(self) -> None:
        """IndexStateError when a later version wrote this index."""
        with self.reading() as reader:
            found = reader.execute("SELECT format FROM state").fetchone()[0]
        if found > FORMAT:
            raise IndexStateError(
                f"{self.folder} was written by a later version (format {found}, this one reads {FORMAT}). "
                "Run: pip install -U ultrafast_rag"
            )

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
        """Close every connection; the last one folds the WAL into the file."""
        with self._guard:
            self._closed = True
            connections, self._free, self._all = self._all, [], []
        for connection in connections:
            connection.close()
        if self._writer is not None:
            self._writer.close()
            self._writer = None

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
        return sqlite3.connect(uri, uri=True, timeout=10.0, isolation_level=None, check_same_thread=False)


def _quoted(path: Path) -> str:
    text = path.resolve().as_posix().replace("%", "%25").replace("?", "%3f").replace("#", "%23")
    return text if text.startswith("/") else "/" + text
