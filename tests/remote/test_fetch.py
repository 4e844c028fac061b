"""Fetching an address: what is refused without any connection, and a real TLS server on loopback for the rest."""

from __future__ import annotations

import http.server
import shutil
import ssl
import subprocess
import sys
import threading
import time
from typing import ClassVar

import pytest

from ultrafast_rag import UltraFastRAG
from ultrafast_rag.errors import ConfigError, ExtractionError
from ultrafast_rag.remote.address import file_name, kept_at, kept_file, parse_address, public, stored_name
from ultrafast_rag.remote.fetch import Fetcher

BAD = (
    # not https, or no address at all
    "http://example.org/a.pdf", "ftp://example.org/a.pdf", "file:///etc/passwd", "file://localhost/etc/passwd",
    "gopher://example.org/", "data://text/plain,hi", "javascript://example.org/%0aalert(1)", "jar:https://example.org/a!/b",
    "HTTP://example.org/", "https://", "https:///a.pdf", "https://?x", "https://#a", "https://:443/", "https://example.org:/a",
    # who asks, and where
    "https://user@example.org/a.pdf", "https://user:pass@example.org/", "https://example.org@127.0.0.1/", "https://:@example.org/",
    "https://example.org:80/", "https://example.org:22/", "https://example.org:6379/", "https://example.org:0/",
    "https://example.org:99999/", "https://example.org:-1/", "https://example.org:https/",
    # this machine and its network, written out
    "https://127.0.0.1/", "https://127.1.2.3/", "https://0.0.0.0/", "https://10.0.0.1/", "https://172.16.0.1/",
    "https://192.168.1.1/", "https://169.254.169.254/latest/meta-data/", "https://100.64.0.1/", "https://198.18.0.1/",
    "https://224.0.0.1/", "https://255.255.255.255/", "https://240.0.0.1/", "https://192.0.2.1/", "https://[::1]/",
    "https://[::]/", "https://[fe80::1]/", "https://[fe80::1%25eth0]/", "https://[fc00::1]/", "https://[ff02::1]/",
    "https://[::ffff:127.0.0.1]/", "https://[::ffff:10.0.0.1]/", "https://[64:ff9b::7f00:1]/", "https://[2002:7f00:1::]/",
    "https://[2001:db8::1]/", "https://[::1/",
    # numbers in disguise, and names of this network alone
    "https://2130706433/", "https://0x7f000001/", "https://0177.0.0.1/", "https://127.1/", "https://0x7f.1/",
    "https://①②⑦.0.0.1/", "https://localhost/", "https://LOCALHOST./", "https://a.localhost/", "https://printer.local/",
    "https://metadata.google.internal/", "https://router/", "https://intranet.corp/", "https://x.onion/",
    # characters that are read differently by different programs
    "https://example.org\\@127.0.0.1/", "https://exa mple.org/", "https://example.org/\r\nHost: evil", "https://example.org/\x00",
    "https://-example.org/", "https://exa_mple..org/", "https://" + "a" * 64 + ".org/", "https://example.org/" + "a" * 3000,
    "https://example.org/%zz",
)  # fmt: skip
INSIDE = {
    "inside.example": ["10.0.0.7"],
    "half.example": ["93.184.216.34", "127.0.0.1"],  # one public address does not make the other one public
    "six.example": ["::1"],
    "mapped.example": ["::ffff:192.168.0.1"],
    "cloud.example": ["169.254.169.254"],
    "nobody.example": [],
}


@pytest.fixture
def connections(monkeypatch):
    """Every socket that is connected while a test runs, by the interpreter's own audit hook."""
    seen = []
    watching = [True]

    def hook(event, arguments):
        if watching[0] and event == "socket.connect":
            seen.append(arguments[1])

    sys.addaudithook(hook)
    yield seen
    watching[0] = False


def refused(host, port):
    raise AssertionError(f"{host} was looked up")


def test_bad_addresses_connect_to_nothing_and_look_nothing_up(tmp_path, connections):
    assert len(set(BAD)) >= 60
    for url in BAD:
        with pytest.raises(ExtractionError):
            Fetcher(resolve=refused).fetch(url, tmp_path)
    assert connections == []
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("host", INSIDE)
def test_names_that_lead_inside_are_not_asked(tmp_path, connections, host):
    with pytest.raises(ExtractionError, match="public addresses only"):
        Fetcher(resolve=lambda name, port: INSIDE[name]).fetch(f"https://{host}/a.pdf", tmp_path)
    assert connections == []


def test_public_addresses_are_told_from_others():
    assert all(map(public, ("93.184.216.34", "8.8.8.8", "2606:2800:220:1:248:1893:25c8:1946")))
    assert not any(map(public, ("::ffff:8.8.8.8", "2002:808:808::", "64:ff9b::808:808", "nonsense", "")))


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("https://Example.ORG/a.pdf?page=3#top", "https://example.org/a.pdf?page=3"),
        ("https://u:p@example.org/a?token=abc&x=1", "https://example.org/a?token=hidden&x=1"),
        ("https://s3.example.org/a?X-Amz-Signature=1f&X-Amz-Date=2", "https://s3.example.org/a?X-Amz-Signature=hidden&X-Amz-Date=hidden"),
        ("https://example.org/a?ticket=" + "z" * 60, "https://example.org/a?ticket=hidden"),
        ("https://example.org", "https://example.org/"),
    ],
)  # fmt: skip
def test_the_stored_name_holds_no_secret(url, name):
    assert stored_name(url) == name


def test_a_name_of_any_script_is_asked_by_its_ascii_form():
    address = parse_address("https://bücher.example/straße?q=ü")
    assert (address.host, address.target) == ("xn--bcher-kva.example", "/stra%C3%9Fe?q=%C3%BC")


# ---- a real server


class Pages(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    asked: ClassVar[list] = []
    pages: ClassVar[dict] = {
        "/note.md": b"# Kellow\n\nThe spring range at Kellow Point is 6.4 metres.",
        "/lies.pdf": b"<!doctype html><html><body><p>The keeper trims the wick every four hours.</p></body></html>",
        "/large": b"x" * 3000,
    }
    moved: ClassVar[dict] = {
        "/moved": "/note.md",
        "/inside": "https://127.0.0.1/secret",
        "/plain": "http://files.example/note.md",
        "/loop": "/loop",
    }

    def do_GET(self):
        self.asked.append((self.headers["Host"], self.path))
        name = self.path.split("?")[0]
        if name in self.moved:
            self.send_response(302)
            self.send_header("Location", self.moved[name])
            self.send_header("Content-Length", "0")
            self.end_headers()
        elif name == "/slow":
            self.send_response(200)
            self.end_headers()
            for _ in range(100):
                self.wfile.write(b"drop by drop ")
                time.sleep(0.05)
        elif name == "/broken":
            self.send_response(200)
            self.send_header("Content-Length", "1500")
            self.end_headers()
            self.wfile.write(b"half")
            self.close_connection = True
        elif name in self.pages:
            self.send_response(200)
            self.send_header("Content-Type", "application/octet-stream")  # by content, not by what a header says
            if name != "/large":
                self.send_header("Content-Length", str(len(self.pages[name])))
            else:
                self.close_connection = True
            self.end_headers()
            self.wfile.write(self.pages[name])
        else:
            self.send_error(404)

    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed, so there is no certificate for a server")
    folder = tmp_path_factory.mktemp("tls")
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
               "-subj", "/CN=files.example", "-addext", "subjectAltName=DNS:files.example",
               "-keyout", str(folder / "key"), "-out", str(folder / "cert")]  # fmt: skip
    subprocess.run(command, check=True, capture_output=True)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Pages)
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(folder / "cert", folder / "key")
    server.socket = tls.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server.server_address[1], ssl.create_default_context(cafile=str(folder / "cert"))
    server.shutdown()
    server.server_close()


@pytest.fixture
def reach(server):
    """A fetcher that may reach this server, and nothing else of this machine."""
    port, tls = server
    Pages.asked = []

    def make(**options):
        allowed = {"resolve": lambda host, at: ["127.0.0.1"], "reachable": lambda ip: ip == "127.0.0.1", "tls": tls}
        return Fetcher(**allowed, ports=frozenset({443, port}), **options), f"https://files.example:{port}"

    return make


def test_a_file_is_fetched_from_the_address_that_was_looked_at(reach, tmp_path, connections):
    fetcher, base = reach()
    path = fetcher.fetch(f"{base}/moved", tmp_path)
    assert path.read_bytes() == Pages.pages["/note.md"]
    assert path == kept_file(tmp_path, stored_name(f"{base}/moved"))
    host = base.removeprefix("https://")
    assert Pages.asked == [(host, "/moved"), (host, "/note.md")]
    assert {address[:2] for address in connections} == {("127.0.0.1", int(base.rsplit(":", 1)[1]))}


@pytest.mark.parametrize(
    ("page", "says"),
    [("/inside", "not a public address"), ("/plain", "only https"), ("/loop", "leads on more than 5 times"), ("/none", "404"),
     ("/large", "the most that is fetched"), ("/broken", "broke off|could not be read"), ("/slow", "did not come within")],
)  # fmt: skip
def test_what_a_server_may_not_do(reach, tmp_path, page, says):
    fetcher, base = reach(most_bytes=2000, most_seconds=1.0)
    with pytest.raises(ExtractionError, match=says):
        fetcher.fetch(base + page, tmp_path)
    assert not [path for path in tmp_path.iterdir() if path.is_file()]


def test_a_redirect_is_looked_up_anew(reach, tmp_path, server):
    _, base = reach()
    answers = iter([["127.0.0.1"], ["10.0.0.1"]])  # the name leads inside the second time
    fetcher = Fetcher(
        resolve=lambda host, port: next(answers),
        reachable=lambda ip: ip == "127.0.0.1",
        ports=frozenset({server[0]}),
        tls=server[1],
    )
    with pytest.raises(ExtractionError, match="public addresses only"):
        fetcher.fetch(f"{base}/moved", tmp_path)


def test_a_certificate_of_another_name_is_refused(server, tmp_path):
    port, tls = server
    fetcher = Fetcher(resolve=lambda host, at: ["127.0.0.1"], reachable=lambda ip: True, ports=frozenset({port}), tls=tls)
    with pytest.raises(ExtractionError, match="could not be read"):
        fetcher.fetch(f"https://other.example:{port}/note.md", tmp_path)


def test_an_address_is_ingested_asked_shown_and_deleted(reach, tmp_path):
    fetcher, base = reach()
    with UltraFastRAG(tmp_path / "index", image_model=None, speech_model=None, quiet=True) as rag:
        rag._fetcher = fetcher
        report = rag.ingest(f"{base}/note.md?token=geheim", f"{base}/lies.pdf", f"{base}/none")
        assert report.documents == 2
        assert [source for source, _ in report.failed] == [f"{base}/none"]
        assert {document.source for document in rag.documents()} == {f"{base}/note.md?token=hidden", f"{base}/lies.pdf"}
        assert {document.media_type for document in rag.documents()} == {"text/markdown", "text/html"}
        hit = rag.search("spring range at Kellow Point")[0]
        assert hit.source == f"{base}/note.md?token=hidden"
        assert rag._evidence(hit) is None  # text needs no picture; and no word that the file is gone
        assert rag.ingest(f"{base}/note.md?token=geheim").unchanged == 1
        assert not [path for path in (tmp_path / "index").rglob("*") if path.is_file() and b"geheim" in path.read_bytes()]
        assert rag.delete(f"{base}/lies.pdf")
        assert len(list((tmp_path / "index" / "fetched").iterdir())) == 1


def test_no_setting_opens_the_way_inside(tmp_path):
    with UltraFastRAG(tmp_path / "index", image_model=None, speech_model=None, quiet=True, offline=True) as rag:
        assert "offline" in rag.ingest("https://example.org/a.pdf").failed[0][1]
    for name in ("fetcher", "resolve", "reachable", "allow_private"):
        with pytest.raises(ConfigError):
            UltraFastRAG(**{name: True})


def test_a_link_in_the_folder_of_fetched_files_is_not_followed(tmp_path):
    name = "https://example.org/a.pdf"
    (tmp_path / "secret").write_text("secret")
    folder = tmp_path / "fetched"
    folder.mkdir()
    assert kept_file(folder, name) is None
    kept_at(folder, name, file_name(name)).symlink_to(tmp_path / "secret")
    assert kept_file(folder, name) is None
