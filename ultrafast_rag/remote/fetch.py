"""One file from an https address, and from nowhere that the address does not publicly name.

Before each connection every address that the host's name resolves to is looked at; one that is not public refuses the
whole name. The socket then goes to an address that was looked at, with the name in TLS and in the Host header, so that a
second look-up cannot point elsewhere. A redirect begins all over. No proxy, no credentials in the address, port 443 only.
What may be reached otherwise (a test's loopback server) is an argument of `Fetcher`: no setting and no index can say it.
"""

from __future__ import annotations

import hashlib
import http.client
import ipaddress
import os
import re
import socket
import ssl
import time
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qsl, unquote, urlencode, urljoin, urlsplit, urlunsplit

from ultrafast_rag.errors import ExtractionError, StorageError

PORT = 443  # of https; no other is spoken to
MOST_BYTES = 300_000_000  # twice the largest PDF of the public sets we read
MOST_REDIRECTS = 5  # chosen: shorteners and mirrors take two or three
MOST_SECONDS, SILENT_S = 180.0, 20.0  # for the whole file, redirects included; for each wait
MOST_CHARACTERS = 2000  # of an address; chosen: old browsers stop at 2 083
_PIECE = 1 << 16  # bytes read at once; the limits are looked at between
_UNUSABLE = re.compile(r"[\x00-\x20\x7f-\x9f\\<>\"{}|^`\ud800-\udfff]|%(?![0-9a-fA-F]{2})")
_HOST = re.compile(r"(?=.{1,253}$)(?:[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9])?\.)*[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?", re.I)
_SECRET = re.compile(
    r"token|key|sig|secret|pass|pwd|auth|cred|session|code|jwt|^x-(?:amz|goog|ms)-|^(?:se|sp|sv|sr|st|skoid|hash)$", re.I
)
_LONGEST_VALUE = 40  # of a query's parameter that is kept: longer ones are tickets more often than names
_NAT64 = ipaddress.ip_network("64:ff9b::/32")
_LOCAL_NAMES = (".localhost", ".local", ".internal", ".intranet", ".lan", ".home", ".corp", ".onion", ".home.arpa")

Resolve = Callable[[str, int], Sequence[str]]


@dataclass(frozen=True, slots=True)
class Address:
    """An https address that was looked at. host: as it is written in TLS and Host; target: path and query as they are sent."""

    host: str
    port: int
    target: str
    url: str


def parse_address(url: str, *, ports: frozenset[int] = frozenset({PORT})) -> Address:
    """Look at an address without asking any network. Raises ExtractionError that says what is wrong with it."""
    if len(url) > MOST_CHARACTERS:
        raise ExtractionError(f"the address has {len(url)} characters; {MOST_CHARACTERS} are read at most")
    if _UNUSABLE.search(url):
        raise ExtractionError("the address holds blanks or characters that no address has; copy it from the browser again")
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise ExtractionError(f"this is not an address: {error}") from error
    if parts.scheme.lower() != "https":
        raise ExtractionError(f"only https addresses are fetched, not {parts.scheme.lower()}; download the file and ingest that")
    if "@" in parts.netloc:
        raise ExtractionError("the address holds a user name or password; download the file and ingest that")
    if port is None and parts.netloc.endswith(":"):
        raise ExtractionError("the address ends its host with a colon and no port")
    if (port := PORT if port is None else port) not in ports:
        raise ExtractionError(f"only port {PORT} is fetched from, not {port}; download the file and ingest that")
    path = parts.path or "/"
    target = urlunsplit(("", "", path, parts.query, ""))
    host = _host(parts.hostname or "")
    try:
        target.encode("ascii")
    except UnicodeEncodeError:
        target = "".join(letter if letter.isascii() else _escaped(letter) for letter in target)
    return Address(host, port, target, urlunsplit(("https", host if port == PORT else f"{host}:{port}", path, parts.query, "")))


def _escaped(letter: str) -> str:
    return "".join(f"%{byte:02X}" for byte in letter.encode())


def _host(host: str) -> str:
    """The host's name in ASCII; ExtractionError for none, for one of this network alone, for a number in disguise."""
    literal = host.partition("%")[0]
    try:
        address = ipaddress.ip_address(literal)
    except ValueError:
        pass
    else:
        if "%" in host or not public(literal):
            raise ExtractionError(f"{host} is not a public address")
        return f"[{address}]" if address.version == 6 else str(address)
    try:
        name = unicodedata.normalize("NFKC", host).encode("idna").decode("ascii").lower().rstrip(".")
    except UnicodeError as error:
        raise ExtractionError(f"{host!r} is not the name of a host") from error
    if not _HOST.fullmatch(name):
        raise ExtractionError(f"{host!r} is not the name of a host")
    last = name.rsplit(".", 1)[-1]
    if last.isdigit() or re.fullmatch(r"0x[0-9a-f]*", last):
        raise ExtractionError(f"{host} is a number in disguise, not the name of a host")
    if "." not in name or f".{name}".endswith(_LOCAL_NAMES):
        raise ExtractionError(f"{host} is a name of this network alone; download the file and ingest that")
    return name


def public(address: str) -> bool:
    """Whether anybody on the internet could reach this address; False too for one that carries another inside it."""
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return False
    if isinstance(parsed, ipaddress.IPv6Address):
        if parsed.ipv4_mapped or parsed.sixtofour or parsed.teredo or parsed in _NAT64 or parsed.is_site_local:
            return False
    return parsed.is_global and not parsed.is_multicast and not parsed.is_reserved and not parsed.is_unspecified


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
        raise ExtractionError(f"the address leads on more than {MOST_REDIRECTS} times")

    def _connect(self, address: Address, deadline: float) -> _Pinned:
        """A connection to the first address of the host, once all of them were looked at."""
        try:
            found = list(self._resolve(address.host.strip("[]"), address.port))
        except (OSError, UnicodeError) as error:
            raise ExtractionError(f"the host {address.host} is not known here: {error}; is there a network?") from error
        if not found or not all(self._reachable(ip) for ip in found):
            raise ExtractionError(f"{address.host} does not lead to public addresses only, so it is not asked")
        left = min(SILENT_S, max(0.1, deadline - time.monotonic()))
        return _Pinned(address, found[0], timeout_s=left, tls=self._tls or ssl.create_default_context())

    def _check(self, reply: http.client.HTTPResponse, address: Address) -> None:
        if reply.status != 200:
            raise ExtractionError(f"{address.host} answers {reply.status} {reply.reason}: the file is not to be had there")
        if (reply.getheader("Content-Encoding") or "identity").lower() != "identity":
            raise ExtractionError(f"{address.host} sends the file compressed although it was asked not to")
        length = reply.getheader("Content-Length") or ""
        if length.isdigit() and int(length) > self._most_bytes:
            raise ExtractionError(f"the file has {int(length) / 1e6:.0f} MB; {self._most_bytes / 1e6:.0f} MB are fetched at most")

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
                        raise ExtractionError(f"the file has more than {self._most_bytes / 1e6:.0f} MB, the most that is fetched")
                    if time.monotonic() > deadline or stopping():
                        raise ExtractionError(f"the file did not come within {self._most_seconds:.0f} s, or its time was up")
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


def is_address(source: object) -> bool:
    """Whether a source is an address rather than a path."""
    return isinstance(source, str) and re.match(r"[a-z][a-z0-9+.-]+://", source, re.I) is not None


def stored_name(url: str) -> str:
    """How an index and its citations call an address: no fragment, no credentials, no value that may be a secret."""
    try:
        parts = urlsplit(url)
    except ValueError:  # a bracket of IPv6 that does not close: it is refused, and named without what may be secret
        return re.sub(r"//[^/]*@", "//", url.partition("?")[0])[:200]
    kept = [
        (name, "hidden" if _SECRET.search(name) or len(value) > _LONGEST_VALUE else value)
        for name, value in parse_qsl(parts.query, keep_blank_values=True)
    ]
    return urlunsplit((parts.scheme.lower(), parts.netloc.rpartition("@")[2].lower(), parts.path or "/", urlencode(kept), ""))


def file_name(url: str) -> str:
    """The last part of an address's path, made safe: its suffix says what cannot be told from the bytes."""
    last = unquote(urlsplit(url).path).replace("\\", "/").rsplit("/", 1)[-1]
    safe = re.sub(r"[^\w.() -]+", "_", last).strip(" .")
    return safe[-80:] or "page"


def kept_at(folder: Path, name: str, called: str) -> Path:
    """Where a fetched file of this stored name lies."""
    return folder / f"{hashlib.sha256(name.encode()).hexdigest()[:24]}-{called}"


def kept_file(folder: Path, name: str) -> Path | None:
    """The fetched file of a stored name, or None; never through a link."""
    path = kept_at(folder, name, file_name(name))
    plain = not folder.is_symlink() and not path.is_symlink() and path.is_file()
    return path if plain else None
