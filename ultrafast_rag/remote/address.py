"""An https address: looked at without asking any network, and what an index calls it and its file.

No address of this machine or of its network passes, in whatever disguise; `fetch.py` looks again at what a name leads to.
"""

from __future__ import annotations

import hashlib
import ipaddress
import re
import unicodedata
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qsl, unquote, urlencode, urlsplit, urlunsplit

from ultrafast_rag.errors import ExtractionError

PORT = 443  # of https; no other is spoken to
BY_HAND = "download the file and ingest that"  # what to do where an address is not fetched from
MOST_CHARACTERS = 2000  # of an address; chosen: old browsers stop at 2 083
_UNUSABLE = re.compile(r"[\x00-\x20\x7f-\x9f\\<>\"{}|^`\ud800-\udfff]|%(?![0-9a-fA-F]{2})")
_HOST = re.compile(r"(?=.{1,253}$)(?:[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9])?\.)*[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?", re.I)
_SECRET = re.compile(
    r"token|key|sig|secret|pass|pwd|auth|cred|session|code|jwt|^x-(?:amz|goog|ms)-|^(?:se|sp|sv|sr|st|skoid|hash)$", re.I
)
_LONGEST_VALUE = 40  # of a query's parameter that is kept: longer ones are tickets more often than names
_NAT64 = ipaddress.ip_network("64:ff9b::/32")
_LOCAL_NAMES = (".localhost", ".local", ".internal", ".intranet", ".lan", ".home", ".corp", ".onion", ".home.arpa")


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
        raise ExtractionError(f"only https addresses are fetched, not {parts.scheme.lower()}; {BY_HAND}")
    if "@" in parts.netloc:
        raise ExtractionError(f"the address holds a user name or password; {BY_HAND}")
    if port is None and parts.netloc.endswith(":"):
        raise ExtractionError("the address ends its host with a colon and no port")
    if (port := PORT if port is None else port) not in ports:
        raise ExtractionError(f"only port {PORT} is fetched from, not {port}; {BY_HAND}")
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
            raise ExtractionError(f"{host} is not a public address; {BY_HAND}")
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
        raise ExtractionError(f"{host} is a name of this network alone; {BY_HAND}")
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
