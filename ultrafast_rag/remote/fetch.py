"""One file from an https address, and from nowhere that the address does not publicly name.

Before each connection every address that the host's name resolves to is looked at; one that is not public refuses the
whole name. The socket then goes to an address that was looked at, with the name in TLS and in the Host header, so that a
second look-up cannot point elsewhere. A redirect begins all over. No proxy, no credentials in the address, port 443 only.
What may be reached otherwise (a test's loopback server) is an argument of `Fetcher`: no setting and no index can say it.
"""

from __future__ import annotations

import http.client
import os
import socket
import ssl
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from urllib.parse import urljoin

from ultrafast_rag.errors import ExtractionError, StorageError
from ultrafast_rag.remote.address import BY_HAND, PORT, Address, file_name, kept_at, parse_address, public, stored_name

MOST_BYTES = 300_000_000  # twice the largest PDF of the public sets we read
MOST_REDIRECTS = 5  # chosen: shorteners and mirrors take two or three
MOST_SECONDS, SILENT_S = 180.0, 20.0  # for the whole file, redirects included; for each wait
_PIECE = 1 << 16  # bytes read at once; the limits are looked at between

Resolve = Callable[[str, int], Sequence[str]]


def look_up(host: str, port: int) -> list[str]:
    """Every address of a name, as the system says."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


class _Pinned(http.client.HTTPSConnection):
    """To one address, with TLS and Host of the name."""

    def __init__(self, address: Address, ip: str, *, timeout_s: float, tls: ssl.SSLContext) -> None:
        super().__init__(address.host, address.port, timeout=timeout_s, context=tls)
        self._ip, self._tls, self._name = ip, tls, address.host.strip("[]")

    def connect(self) -> None:
        raw = socket.create_connection((self._ip, self.port), self.timeout)
        try:
            self.sock = self._tls.wrap_socket(raw, server_hostname=self._name)
        except BaseException:  # an interrupt too leaves no socket open
            raw.close()
            raise


class Fetcher:
    """Fetches files. The arguments are for tests: resolve looks names up, reachable says which addresses may be connected to."""

    def __init__(
        self,
        *,
        resolve: Resolve = look_up,
        reachable: Callable[[str], bool] = public,
        ports: frozenset[int] = frozenset({PORT}),
        tls: ssl.SSLContext | None = None,
        most_bytes: int = MOST_BYTES,
        most_seconds: float = MOST_SECONDS,
    ) -> None:
        self._resolve, self._reachable, self._ports, self._tls = resolve, reachable, ports, tls
        self._most_bytes, self._most_seconds = most_bytes, most_seconds

    def fetch(self, url: str, folder: Path, *, stopping: Callable[[], bool] = lambda: False) -> Path:
        """The file at `url`, under a name of its stored address in `folder`; it takes the place of an earlier one when whole.

        Raises ExtractionError for what cannot be had, StorageError when the disk refuses.
        """
        deadline = time.monotonic() + self._most_seconds
        at = url
        for _ in range(MOST_REDIRECTS + 1):
            address = parse_address(at, ports=self._ports)
            connection = self._connect(address, deadline)
            try:
                connection.request("GET", address.target, headers={"Accept": "*/*", "Accept-Encoding": "identity"})
                reply = connection.getresponse()
                if reply.status in (301, 302, 303, 307, 308):
                    at = urljoin(address.url, reply.getheader("Location") or "")
                    continue
                self._check(reply, address)
                return self._keep(reply, url, folder, deadline, stopping)
            except (TimeoutError, http.client.HTTPException, OSError, ValueError) as error:
                if isinstance(error, StorageError):
                    raise
                raise ExtractionError(f"{address.host} could not be read: {error or type(error).__name__}") from error
            finally:
                connection.close()
        raise ExtractionError(f"the address leads on more than {MOST_REDIRECTS} times; {BY_HAND}")

    def _connect(self, address: Address, deadline: float) -> _Pinned:
        """A connection to the first address of the host, once all of them were looked at."""
        try:
            found = list(self._resolve(address.host.strip("[]"), address.port))
        except (OSError, UnicodeError) as error:
            raise ExtractionError(f"the host {address.host} is not known here: {error}; is there a network?") from error
        if not found or not all(self._reachable(ip) for ip in found):
            raise ExtractionError(f"{address.host} does not lead to public addresses only, so it is not asked; {BY_HAND}")
        left = min(SILENT_S, max(0.1, deadline - time.monotonic()))
        return _Pinned(address, found[0], timeout_s=left, tls=self._tls or ssl.create_default_context())

    def _check(self, reply: http.client.HTTPResponse, address: Address) -> None:
        if reply.status != 200:
            raise ExtractionError(
                f"{address.host} answers {reply.status} {reply.reason}; open the address in a browser to see what is there"
            )
        if (reply.getheader("Content-Encoding") or "identity").lower() != "identity":
            raise ExtractionError(f"{address.host} sends the file compressed although it was asked not to; {BY_HAND}")
        length = reply.getheader("Content-Length") or ""
        if length.isdigit() and int(length) > self._most_bytes:
            most_mb = self._most_bytes / 1e6
            raise ExtractionError(f"the file has {int(length) / 1e6:.0f} MB, and {most_mb:.0f} MB are fetched at most; {BY_HAND}")

    def _keep(
        self, reply: http.client.HTTPResponse, url: str, folder: Path, deadline: float, stopping: Callable[[], bool]
    ) -> Path:
        path = kept_at(folder, stored_name(url), file_name(url))
        partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
        read = 0
        try:
            folder.mkdir(parents=True, exist_ok=True)
            file = partial.open("wb")
        except OSError as error:
            raise StorageError(f"{folder} cannot be written to: {error}. Make room, or choose another folder") from error
        try:
            with file:
                while piece := reply.read1(_PIECE):
                    read += len(piece)
                    if read > self._most_bytes:
                        most_mb = self._most_bytes / 1e6
                        raise ExtractionError(f"the file has more than {most_mb:.0f} MB, the most that is fetched; {BY_HAND}")
                    if time.monotonic() > deadline or stopping():
                        seconds = self._most_seconds
                        raise ExtractionError(f"the file did not come within {seconds:.0f} s, or its time was up; {BY_HAND}")
                    _write(file, piece, folder)
            length = reply.getheader("Content-Length") or ""
            if length.isdigit() and int(length) != read:
                raise ExtractionError(f"the file broke off after {read} of {length} bytes; try again")
            os.replace(partial, path)
        finally:
            partial.unlink(missing_ok=True)
        return path


def _write(file: object, piece: bytes, folder: Path) -> None:
    try:
        file.write(piece)  # type: ignore[attr-defined]
    except OSError as error:
        raise StorageError(f"{folder} cannot be written to: {error}. Make room, or choose another folder") from error
