"""The HTTP server over a real index: through its ASGI door, and as a process that is told to stop."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import io
import json
import re
import signal
import socket
import subprocess
import sys
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from ultrafast_rag import UltraFastRAG
from ultrafast_rag.cli import main
from ultrafast_rag.errors import ConfigError
from ultrafast_rag.remote.secrets import Secret
from ultrafast_rag.types import Answer, Hit, Words

pytest.importorskip("fastapi", reason="the server extra is not installed")
httpx = pytest.importorskip("httpx")

from ultrafast_rag.serve import http, messages  # noqa: E402  after the skip
from ultrafast_rag.serve.guard import Buckets  # noqa: E402

TEXT_ONLY = {"image_model": None, "speech_model": None, "quiet": True}
TIDES = "# Tides\n\nSpring tides come twice a month. At Kellow Point the range is then 6.4 metres.\n"
QUESTION = {"question": "What is the tidal range at Kellow Point?"}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A root with a document, and what lies outside of it."""
    folder = tmp_path_factory.mktemp("serve")
    (folder / "root" / "deep").mkdir(parents=True)
    (folder / "root" / "tides.md").write_text(TIDES)
    (folder / "root" / "deep" / "lamp.txt").write_text("The lamp burns colza oil since 1871.")
    (folder / "root-secret").mkdir()
    (folder / "root-secret" / "secret.txt").write_text("The password is swordfish.")
    (folder / "root" / "deep" / "link.txt").symlink_to(folder / "root-secret" / "secret.txt")
    return folder


@pytest.fixture(scope="module")
def rag(place):
    with UltraFastRAG(place / "index", **TEXT_ONLY) as rag:
        rag.ingest(place / "root" / "tides.md")
        yield rag


@pytest.fixture
def service(rag, place):
    def make(**serving):
        serving = {"rate_per_s": 1e6, "burst": 1_000_000, "roots": [place / "root"], **serving}
        return http.Service(rag, messages.Serving(**serving), index=place / "index")

    return make


def client(service, **headers):
    transport = httpx.ASGITransport(http.make_app(service), raise_app_exceptions=False)
    return httpx.AsyncClient(transport=transport, base_url="http://localhost", headers=headers, timeout=60)


# ---- asking


async def test_an_answer_is_the_package_s_own_without_this_machine_s_paths(service, rag, place):
    async with client(service()) as asking:
        reply = (await asking.post("/query", json=QUESTION)).json()
        found = (await asking.post("/search", json={**QUESTION, "k": 1})).json()
    answer = rag.query(QUESTION["question"])
    assert reply["text"] == answer.text
    assert "6.4 metres" in reply["text"]
    assert set(reply) == {field.name for field in dataclasses.fields(Answer)}
    assert set(found["hits"][0]) == {field.name for field in dataclasses.fields(Hit)}
    assert found["hits"][0]["source"] == reply["citations"][0]["hit"]["source"] == "tides.md"
    assert str(place) not in json.dumps([reply, found])


async def test_a_known_question_is_sent_again_until_the_index_changes(service, rag):
    made, asked = service(), {"question": "Who tends the winch on the slipway?", "k": 1}
    async with client(made) as asking:
        for path in ("/search", "/query"):
            replies = [(await asking.post(path, json=asked)).content for _ in range(4)]
            assert replies[2] == replies[3] != b""
        again = (await asking.get("/metrics")).text
        rag.add_texts(["Odd Marlow tends the winch on the slipway."], ids=["winch"])
        after = (await asking.post("/search", json=asked)).json(), (await asking.post("/query", json=asked)).json()
        rag.delete("winch")
    assert 'name="query_cache_sent_again"} 5' in again  # three searches, and the answers from the third on
    assert b"Marlow" not in replies[3]
    assert "Marlow" in after[0]["hits"][0]["text"]
    assert "Marlow" in after[1]["text"]


async def test_a_card_and_events_come_where_they_are_accepted(service):
    async with client(service()) as asking:
        card = await asking.post("/query", json=QUESTION, headers={"accept": "text/html"})
        events = await asking.post(
            "/query", json={"question": "How far do tides range?"}, headers={"accept": "text/event-stream"}
        )
        wrong = await asking.post("/query", json={"question": " "}, headers={"accept": "text/event-stream"})
    assert card.headers["content-type"].startswith("text/html")
    assert "6.4 metres" in card.text
    named = re.findall(r"^event: (\w+)\ndata: (.+)\n\n", events.text, re.M)
    assert [name for name, _ in named][-1] == "answer"
    assert set(name for name, _ in named[:-1]) <= {"text"}
    assert json.loads(named[-1][1])["supported"]
    assert wrong.status_code == 422


async def test_a_question_is_never_the_path_of_a_picture(service, rag, place):
    picture = place / "picture.png"
    picture.write_bytes(
        base64.b64decode("iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==")
    )
    with pytest.raises(ConfigError, match="picture"):
        rag.search(str(picture))
    assert rag.search(Words(picture)).query == str(picture)
    async with client(service()) as asking:
        for path in ("/search", "/query"):
            reply = await asking.post(path, json={"question": str(picture)})
            assert reply.status_code == 200
            assert reply.json().get("query", reply.json().get("question")) == str(picture)


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ({"question": ""}, "question"),
        ({"question": "x" * 5000}, "4000"),
        ({"question": "tides", "k": 0}, "k"),
        ({"question": "tides", "alpha": 2}, "alpha"),
        ({"question": "tides", "modality": ["smell"]}, "modality"),
        ({"question": "tides", "filters": {"page": "one"}}, "page"),
        ({"question": "tides\ud800"}, ""),
        ({"question": "tides\0"}, "NUL"),
        ({}, "question"),
    ],
)
async def test_what_is_asked_wrongly_is_told_so(service, body, says):
    async with client(service()) as asking:
        reply = await asking.post("/search", content=json.dumps(body), headers={"content-type": "application/json"})
    assert reply.status_code == 422
    assert says in reply.json()["error"]


# ---- reading in


async def test_ingest_reads_below_the_roots_and_nowhere_else(service, rag, place):
    outside = (
        "/etc/passwd",
        "../root-secret/secret.txt",
        str(place / "root-secret"),
        "https://localhost/x.pdf",
        "file:///etc/passwd",
        "x\0y",
    )
    async with client(service()) as asking:
        for name in outside:
            reply = await asking.post("/ingest", json={"sources": [name]})
            assert reply.status_code == 403, name
        there = await asking.post("/ingest", json={"sources": ["/etc/passwd"]})
        gone = await asking.post("/ingest", json={"sources": ["../nothing-there.txt"]})
        reply = (await asking.post("/ingest", json={"sources": ["deep", "tides.md", "/etc/passwd", "gone.txt"]})).json()
    assert gone.json()["error"].removeprefix("../nothing-there.txt") == there.json()["error"].removeprefix("/etc/passwd")
    assert (reply["documents"], reply["unchanged"]) == (1, 1)
    failed = dict(reply["failed"])
    assert set(failed) == {"deep/link.txt", "/etc/passwd", "gone.txt"}
    assert "leads out" in failed["deep/link.txt"]
    assert failed["gone.txt"] == "gone.txt does not exist"
    assert not any("swordfish" in hit.text for hit in rag.search("the password swordfish", k=10))


async def test_a_server_without_roots_reads_uploads_only(service, rag, place, tmp_path):
    async with client(service(roots=[], uploads=tmp_path / "kept")) as asking:
        assert (await asking.post("/ingest", json={"sources": ["tides.md", str(place / "root")]})).status_code == 403
        first = await asking.post("/ingest/files", files=[("files", ("../../gull.txt", b"The gull is called Bertha."))])
        again = await asking.post("/ingest/files", files=[("files", ("gull.txt", b"The gull is called Agnes."))])
        assert (first.json()["documents"], again.json()["documents"]) == (1, 1)
        assert [path.name for path in (tmp_path / "kept").iterdir()] == ["gull.txt"]
        found = (await asking.post("/search", json={"question": "gull called", "k": 3})).json()["hits"]
        assert ("gull.txt", "The gull is called Agnes.") in [(hit["source"], hit["text"]) for hit in found]
        assert not any("Bertha" in hit["text"] for hit in found)
        for name in ("..", ".hidden", "x" * 300, "~root"):
            reply = await asking.post("/ingest/files", files=[("files", (name, b"x"))])
            assert reply.status_code == 422, name
    with pytest.raises(ConfigError, match="plain name"):
        service(uploads=tmp_path / "kept").readable.keep("a\x07b.txt", io.BytesIO(b"x"))
    rag.delete(str(tmp_path / "kept" / "gull.txt"))


# ---- who, how often, how much


async def test_keys_open_what_holds_documents_and_nothing_else_needs_one(service):
    keys = [Secret("alpha-key", "a test"), Secret("beta-key", "a test")]
    async with client(service(keys=keys, host="0.0.0.0")) as asking:
        for path in ("/", "/health", "/openapi.json"):
            assert (await asking.get(path)).status_code == 200
        for headers in ({}, {"x-api-key": "gamma"}, {"authorization": "Bearer gamma"}, {"authorization": "Basic alpha-key"}):
            refused = await asking.post("/search", json=QUESTION, headers=headers)
            assert (refused.status_code, refused.headers["www-authenticate"]) == (401, "Bearer")
            assert (await asking.get("/metrics", headers=headers)).status_code == 401
        for headers in ({"x-api-key": "alpha-key"}, {"authorization": "Bearer beta-key", "host": "example.org"}):
            assert (await asking.post("/search", json=QUESTION, headers=headers)).status_code == 200


async def test_each_key_has_its_own_bucket(service):
    keys = [Secret("alpha-key", "a test"), Secret("beta-key", "a test")]
    async with client(service(keys=keys, rate_per_s=0.001, burst=2)) as asking:
        codes = [(await asking.post("/search", json=QUESTION, headers={"x-api-key": "alpha-key"})).status_code for _ in range(3)]
        refused = await asking.post("/search", json=QUESTION, headers={"x-api-key": "alpha-key"})
        other = await asking.post("/search", json=QUESTION, headers={"x-api-key": "beta-key"})
        guesses = [
            (await asking.post("/search", json=QUESTION, headers={"x-api-key": f"guess {n}"})).status_code for n in range(3)
        ]
        assert (await asking.get("/health")).status_code == 200
    assert codes == [200, 200, 429]
    assert 900 <= int(refused.headers["retry-after"]) <= 1000
    assert other.status_code == 200
    assert guesses == [401, 401, 429]


def test_a_bucket_fills_with_time_and_never_over():
    now = [0.0]
    buckets = Buckets(2.0, 3, clock=lambda: now[0])
    assert [buckets.wait_s("a") for _ in range(4)] == [0, 0, 0, 0.5]
    now[0] = 0.5
    assert [buckets.wait_s("a"), buckets.wait_s("a")] == [0, 0.5]
    now[0] = 100.0
    assert [buckets.wait_s("a") for _ in range(4)] == [0, 0, 0, 0.5]
    assert buckets.wait_s("b") == 0


async def test_a_body_over_the_limit_is_refused_with_and_without_a_length(service):
    sent = 0

    async def pieces():
        nonlocal sent
        for _ in range(50):
            sent += 100_000
            yield b" " * 100_000

    async with client(service(body_mb=1)) as asking:
        told = await asking.post("/search", content=b" " * 1_000_001, headers={"content-type": "application/json"})
        found_out = await asking.post("/search", content=pieces(), headers={"content-type": "application/json"})
        lied = await asking.post("/search", content=b"{}", headers={"content-length": "many"})
    assert (told.status_code, found_out.status_code, lied.status_code) == (413, 413, 413)
    assert sent <= 1_200_000


async def test_what_takes_too_long_is_given_up(service):
    async with client(service(timeout_s=1e-6)) as asking:
        assert (await asking.post("/query", json=QUESTION)).status_code == 504


async def test_without_a_key_other_hosts_and_origins_are_refused(service):
    async with client(service()) as asking:
        for headers in (
            {"host": "evil.example"},
            {"origin": "https://evil.example"},
            {"origin": "null"},
            {"host": "localhost.evil.example"},
        ):
            assert (await asking.post("/search", json=QUESTION, headers=headers)).status_code == 403, headers
        for headers in ({"host": "127.0.0.1:8000", "origin": "http://127.0.0.1:8000"}, {"host": "[::1]:80"}):
            assert (await asking.post("/search", json=QUESTION, headers=headers)).status_code == 200, headers
        asked_first = await asking.options("/query", headers={"access-control-request-method": "POST"})
    assert not [name for name in asked_first.headers if name.startswith("access-control")]


def test_off_loopback_a_key_is_needed(tmp_path, capsys, monkeypatch):
    monkeypatch.delenv(messages.KEYS, raising=False)
    assert main(["serve", "--host", "0.0.0.0", "--index", str(tmp_path / "ix")]) == 2
    assert messages.KEYS in capsys.readouterr().err
    monkeypatch.setenv(messages.KEYS, "one, two")
    assert [key.reveal() for key in messages.keys_from_environment()] == ["one", "two"]
    assert messages.Serving(host="0.0.0.0", keys=messages.keys_from_environment())
    for wrong in ({"port": 70_000}, {"rate_per_s": 0}, {"burst": 0}, {"timeout_s": -1}):
        with pytest.raises(ConfigError):
            messages.Serving(**wrong)
    with pytest.raises(ConfigError, match="no folder"):
        http.Readable([tmp_path / "gone"], tmp_path)


# ---- what it says of itself


async def test_metrics_are_the_monitor_s(service, rag):
    from prometheus_client.parser import text_string_to_metric_families

    async with client(service()) as asking:
        await asking.post("/search", json={"question": "What burns in the lamp?"})
        await asking.get("/no-such-path")
        text = (await asking.get("/metrics")).text
    samples = {
        (one.name, *sorted(one.labels.items())): one.value
        for family in text_string_to_metric_families(text)
        for one in family.samples
    }
    assert samples["ultrafast_rag_http_requests_total", ("path", "/search"), ("status", "200")] == 1
    assert samples["ultrafast_rag_http_requests_total", ("path", "other"), ("status", "404")] == 1
    searched = rag.monitor.get_summary()["search"]
    assert samples["ultrafast_rag_operations_total", ("operation", "search")] == searched["count"]
    p50 = samples["ultrafast_rag_operation_seconds", ("operation", "search"), ("quantile", "0.5")]
    assert p50 == pytest.approx(searched["p50_ms"] / 1000)
    assert samples["ultrafast_rag_fact", ("name", "documents")] == len(rag.documents())


async def test_openapi_has_the_package_s_types_and_examples(service):
    async with client(service()) as asking:
        described = (await asking.get("/openapi.json")).json()
    schemas = described["components"]["schemas"]
    assert set(schemas["Hit"]["properties"]) == {field.name for field in dataclasses.fields(Hit)}
    assert set(schemas["Answer"]["properties"]) == {field.name for field in dataclasses.fields(Answer)}
    assert schemas["Query"]["properties"]["question"]["examples"]
    assert set(described["paths"]) == {"/ingest", "/ingest/files", "/search", "/query", "/health", "/ready", "/metrics"}
    for path in ("/search", "/query", "/ingest"):
        assert {"200", "401", "413", "429"} <= set(described["paths"][path]["post"]["responses"])


async def test_the_page_asks_nothing_outside_and_runs_only_its_own_script(service):
    async with client(service()) as asking:
        page = await asking.get("/")
        other = await asking.get("/health")
    (script,) = re.findall(r"<script>(.*?)</script>", page.text, re.S)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = page.headers["content-security-policy"]
    assert f"script-src 'sha256-{digest}'" in policy
    assert "default-src 'none'" in policy
    assert not re.findall(r"https?:|//\w", page.text)
    assert other.headers["content-security-policy"].startswith("default-src 'none'")
    assert other.headers["x-content-type-options"] == "nosniff"


async def test_ready_says_when_questions_are_taken(service):
    own = service()
    async with client(own) as asking:
        assert (await asking.get("/ready")).status_code == 503
        await own.warm_up()
        assert (await asking.get("/ready")).json() == {"status": "ok"}
        own.stop()
        assert (await asking.get("/ready")).json() == {"status": "stopping"}
        late = await asking.post("/ingest", json={"sources": ["deep"]})
    assert late.status_code == 503


# ---- as a process


def test_a_server_told_to_stop_finishes_and_lets_go_of_the_index(place, tmp_path):
    settings = [f"--set={name}={json.dumps(value)}" for name, value in TEXT_ONLY.items()]
    command = [
        sys.executable,
        "-m",
        "ultrafast_rag",
        "serve",
        "--port",
        "0",
        "--index",
        str(tmp_path / "ix"),
        "--root",
        str(place / "root"),
    ]
    process = subprocess.Popen([*command, *settings], stderr=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2])
    try:
        address = re.search(r"http://[\d.:]+", process.stderr.readline()).group()
        request = urllib.request.Request(
            f"{address}/ingest", json.dumps({"sources": ["tides.md"]}).encode(), {"content-type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=60) as reply:
            assert json.load(reply)["documents"] == 1
        process.send_signal(signal.SIGTERM)
        said = process.stderr.read()
        assert process.wait(60) == 0, said
        assert "Traceback" not in said
    finally:
        process.kill()
        process.wait()
        process.stderr.close()
    with UltraFastRAG(tmp_path / "ix", **TEXT_ONLY) as rag:
        assert len(rag.documents()) == 1


STOPPED_AT_WORK = """
import os, signal, sys, threading
from pathlib import Path
from ultrafast_rag import UltraFastRAG
from ultrafast_rag.serve import http

both, stopped = threading.Barrier(2), threading.Event()
stop = http.Service.stop

def stopping(self):
    stop(self)
    stopped.set()

http.Service.stop = stopping
root, index = Path(sys.argv[1]), Path(sys.argv[2])
with UltraFastRAG(index, image_model=None, speech_model=None, quiet=True) as rag:
    rag.add_texts(["Spring tides come twice a month. At Kellow Point the range is then 6.4 metres."], ids=["tides"])
    ingest, stream = rag.ingest, rag.stream

    def ingest_until_told(*sources, **options):
        def at_work(state):
            if not stopped.is_set():
                both.wait(60)
                os.kill(os.getpid(), signal.SIGTERM)
                assert options["stop"].wait(60)
        return ingest(*sources, on_progress=at_work, **options)

    def stream_until_told(*question, **options):
        for n, piece in enumerate(stream(*question, **options)):
            yield piece
            if n == 0:
                both.wait(60)
                assert stopped.wait(60)

    rag.ingest, rag.stream = ingest_until_told, stream_until_told
    http.serve(rag, http.Serving(port=0, roots=[root]), index=index, say=lambda words: print(words, file=sys.stderr, flush=True))
"""


def test_a_server_told_to_stop_at_work_ends_an_ingest_in_good_order_and_a_stream_at_its_end(place, tmp_path):
    """The signal comes when an ingest has read its first part and a stream has sent its first piece, and both wait for it."""
    command = [sys.executable, "-c", STOPPED_AT_WORK, str(place / "root"), str(tmp_path / "ix")]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2])
    try:
        address = re.search(r"http://[\d.:]+", process.stderr.readline()).group()

        def ask(path, body, accept):
            headers = {"content-type": "application/json", "accept": accept}
            with urllib.request.urlopen(
                urllib.request.Request(address + path, json.dumps(body).encode(), headers), timeout=120
            ) as reply:
                return reply.read().decode()

        with ThreadPoolExecutor(2) as pool:
            report = pool.submit(ask, "/ingest", {"sources": ["tides.md", "deep/lamp.txt"]}, "application/json")
            events = pool.submit(ask, "/query", QUESTION, "text/event-stream")
            assert json.loads(report.result())["complete"] is False
            assert re.findall(r"^event: (\w+)", events.result(), re.M)[-1] == "answer"
        said = process.stderr.read()
        assert process.wait(60) == 0, said
        assert "Traceback" not in said
    finally:
        process.kill()
        process.wait()
        process.stderr.close()
    with UltraFastRAG(tmp_path / "ix", **TEXT_ONLY) as rag:
        report = rag.ingest(place / "root" / "tides.md", place / "root" / "deep" / "lamp.txt")
        assert (report.complete, report.failed, len(rag.documents())) == (True, (), 3)


def test_answers_do_not_wait_for_an_acknowledgement(tmp_path, monkeypatch):
    """What the server hands to uvicorn sends small pieces at once, and so does what it accepts (Linux inherits it)."""
    accepted = []

    def ran(self, sockets):
        with socket.create_connection(sockets[0].getsockname()), sockets[0].accept()[0] as connection:
            accepted.append(connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))

    monkeypatch.setattr(http.Server, "run", ran)
    with UltraFastRAG(tmp_path / "index", image_model=None, speech_model=None, quiet=True) as rag:
        http.serve(rag, messages.Serving(port=0), index=tmp_path / "index")
    assert accepted[0] != 0
