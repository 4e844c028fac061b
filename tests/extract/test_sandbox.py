"""Reader processes that hang, die, lie or are left behind."""

import contextlib
import io
import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest

from ultrafast_rag.config import Config
from ultrafast_rag.errors import CorruptError, EncryptedError, ExtractionError, UnsupportedError
from ultrafast_rag.extract.sandbox import protocol
from ultrafast_rag.extract.sandbox.pool import Sandbox
from ultrafast_rag.types import Element, Part

pymupdf = pytest.importorskip("pymupdf")
HEAVY = b"0 0 m 9 9 l S " * 3_000_000  # seconds of drawing


def made_pdf(tmp_path, pages=6, heavy=(), name="a.pdf"):
    document = pymupdf.open()
    for number in range(pages):
        page = document.new_page()
        page.insert_text((72, 100), f"Words of page {number + 1} are these.")
        if number in heavy:
            (xref,) = page.get_contents()
            document.update_stream(xref, HEAVY)
    path = tmp_path / name
    document.save(path, deflate=True)
    return path


def workers():
    """This process's reader processes; other libraries start helpers of their own."""
    children = psutil.Process().children(recursive=True)
    return [child for child in children if "ultrafast_rag.extract.sandbox.worker" in child.cmdline()]


def test_sandbox_gives_what_the_extractor_gives(tmp_path):
    from ultrafast_rag.extract.pdf.reader import PdfExtractor

    path = made_pdf(tmp_path)
    with Sandbox(Config(), workers=1) as sandbox:
        parts = list(sandbox.extract(path))
        assert [e.text for p in parts for e in p.elements] == [f"Words of page {n} are these." for n in range(1, 7)]
        direct = list(PdfExtractor(Config()).extract(path))
        assert [(p.number, p.total, p.title, p.notes) for p in parts] == [(p.number, p.total, p.title, p.notes) for p in direct]
        assert parts[0].elements[0].bbox == pytest.approx(direct[0].elements[0].bbox, abs=0.01)
        assert [p.number for p in sandbox.extract(path, start_part=4)] == [4, 5]
        assert sandbox.render_page(path, 1, max_px=64).startswith(b"\x89PNG")


def test_sandbox_reuses_its_workers_and_serves_threads(tmp_path):
    paths = [made_pdf(tmp_path, pages=3 + n, name=f"{n}.pdf") for n in range(6)]
    counts = {}
    with Sandbox(Config(), workers=2) as sandbox:
        sandbox.warm()
        first = {process.pid for process in workers()}
        threads = [threading.Thread(target=lambda p=p: counts.update({p.name: len(list(sandbox.extract(p)))})) for p in paths]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert {process.pid for process in workers()} == first
        assert len(first) == 2
    assert counts == {f"{n}.pdf": 3 + n for n in range(6)}
    assert not {process.pid for process in workers()} & first


@pytest.mark.fault
def test_sandbox_passes_typed_errors_and_the_worker_lives_on(tmp_path):
    document = pymupdf.open()
    document.new_page()
    document.save(tmp_path / "closed.pdf", encryption=pymupdf.PDF_ENCRYPT_AES_256, owner_pw="a", user_pw="b")
    (tmp_path / "empty.txt").write_bytes(b"")
    (tmp_path / "thing.bin").write_bytes(bytes(range(256)) * 8)
    with Sandbox(Config(), workers=1) as sandbox:
        list(sandbox.extract(made_pdf(tmp_path)))  # a worker that has started is told by its command
        before = {process.pid for process in workers()}
        for name, error in (
            ("closed.pdf", EncryptedError),
            ("empty.txt", CorruptError),
            ("thing.bin", UnsupportedError),
            ("gone.pdf", ExtractionError),
        ):
            with pytest.raises(error) as caught:
                list(sandbox.extract(tmp_path / name))
            assert caught.value.path == str(tmp_path / name)
        with pytest.raises(ExtractionError, match="has no page 9"):
            sandbox.render_page(made_pdf(tmp_path), 9)
        with pytest.raises(ExtractionError, match="not a function"):
            sandbox.call("__init__.os.system", command="true")
        assert {process.pid for process in workers()} == before


@pytest.mark.fault
def test_sandbox_goes_on_after_its_worker_is_killed_in_mid_document(tmp_path):
    path = tmp_path / "long.txt"
    path.write_text(
        "\n\n".join(f"Paragraph {n} " + "word " * 400 for n in range(4000))
    )  # 8 MB, 40 parts: far more than a pipe holds
    with Sandbox(Config(), workers=1) as sandbox:
        whole = list(sandbox.extract(path))
        parts = []
        for part in sandbox.extract(path):
            parts.append(part)
            if part.number == 2:
                (worker,) = workers()
                worker.send_signal(signal.SIGKILL)
    assert [p.number for p in parts] == [p.number for p in whole]
    (failed,) = [p for p in parts if p.failure]
    assert "SIGKILL" in failed.failure
    assert [p for p in parts if not p.failure] == [p for p in whole if p.number != failed.number]


@pytest.mark.skipif(not hasattr(os, "getloadavg"), reason="this system does not tell its load")
@pytest.mark.parametrize(("load", "cores", "seconds"), [(0.5, 2, 4), (2, 2, 4), (6, 2, 12), (500, 2, 40), (6, None, 24)])
def test_a_busy_machine_is_given_more_time(monkeypatch, load, cores, seconds):
    monkeypatch.setattr(os, "getloadavg", lambda: (load, 0.0, 0.0))
    monkeypatch.setattr(os, "cpu_count", lambda: cores)
    assert protocol.patience(4) == seconds


@pytest.mark.fault
def test_sandbox_page_that_overruns_is_recorded_and_the_rest_is_read(tmp_path):
    path = made_pdf(tmp_path, pages=4, heavy={1})
    with Sandbox(Config(page_timeout_s=4.0), workers=1) as sandbox:  # the pages beside it must be read on a busy machine too
        parts = list(sandbox.extract(path))
    assert [p.number for p in parts] == [0, 1, 2, 3]
    said = r"page or part 2 could not be read: it took longer than [\d.e+]+ s \(Config\.page_timeout_s\)"
    assert re.fullmatch(said, parts[1].failure)
    assert [e.text for p in parts for e in p.elements] == [f"Words of page {n} are these." for n in (1, 3, 4)]


@pytest.mark.fault
def test_sandbox_gives_a_document_up_when_nothing_of_it_can_be_read(tmp_path):
    path = made_pdf(tmp_path, pages=8, heavy=set(range(8)))
    with Sandbox(Config(page_timeout_s=1.0), workers=1) as sandbox:
        with pytest.raises(CorruptError, match="stopped at part 3 after 3 failures in a row"):
            list(sandbox.extract(path))
        assert len(list(sandbox.extract(made_pdf(tmp_path, name="b.pdf")))) == 6


@pytest.mark.fault
def test_sandbox_memory_limit_costs_the_page_not_the_program(tmp_path):
    path = made_pdf(tmp_path, pages=3, heavy={1})
    with Sandbox(Config(worker_memory_mb=450, page_timeout_s=60), workers=1) as sandbox:
        parts = list(sandbox.extract(path))
    assert [bool(p.failure) for p in parts] == [False, True, False]


@pytest.mark.fault
def test_sandbox_names_the_setting_when_a_whole_file_needs_too_much_memory(tmp_path):
    path = tmp_path / "a.ipynb"
    path.write_text('{"cells": [' + "{}," * 8_000_000)
    with Sandbox(Config(worker_memory_mb=400, page_timeout_s=60), workers=1) as sandbox:
        with pytest.raises(CorruptError, match=r"a\.ipynb needs more memory than Config\.worker_memory_mb=400"):
            list(sandbox.extract(path))


def test_sandbox_reader_that_stops_early_gives_its_worker_back(tmp_path):
    path = made_pdf(tmp_path)
    with Sandbox(Config(), workers=1) as sandbox:
        for _ in range(3):
            stream = sandbox.extract(path)
            assert next(stream).number == 0
            stream.close()
        assert len(list(sandbox.extract(path))) == 6
        assert len(workers()) == 1


def test_sandbox_worker_does_not_run_ahead_of_a_slow_reader(tmp_path):
    path = tmp_path / "long.txt"
    path.write_text("\n\n".join("word " * 400 for _ in range(4000)))
    with Sandbox(Config(), workers=1) as sandbox:
        stream = sandbox.extract(path)
        next(stream)
        (worker,) = workers()
        busy = [0.0, -1.0]
        while busy[-1] != busy[-2]:  # until it stands still, blocked on the pipe
            time.sleep(0.2)
            busy.append(sum(worker.cpu_times()[:2]))
        assert worker.memory_info().rss < 200 << 20
        assert sum(1 for _ in stream) == 39  # and the rest comes


@pytest.mark.fault
def test_sandbox_worker_inherits_no_secret(tmp_path, monkeypatch):
    monkeypatch.setenv("GEMINI_API_KEY", "very-secret")
    with Sandbox(Config(), workers=1) as sandbox:
        list(sandbox.extract(made_pdf(tmp_path)))
        (worker,) = workers()
        environment = worker.environ()
    assert "very-secret" not in str(environment)
    assert set(environment) <= {
        "PATH",
        "HOME",
        "LANG",
        "LC_ALL",
        "LC_CTYPE",
        "PYTHONPATH",
        "PYTHONHOME",
        "VIRTUAL_ENV",
        "TESSDATA_PREFIX",
        "TMPDIR",
        "TEMP",
        "TMP",
        "LD_LIBRARY_PATH",
        "TZ",
        "OMP_NUM_THREADS",
        "OPENBLAS_NUM_THREADS",
        "OMP_THREAD_LIMIT",
        "PYTHONUTF8",
        "SYSTEMROOT",
    }


PARENT = """
import sys, time
from ultrafast_rag.config import Config
from ultrafast_rag.extract.sandbox.pool import Sandbox
sandbox = Sandbox(Config(), workers=1)
stream = sandbox.extract(sys.argv[1])
next(stream)
print(next(iter(sandbox._alive))._process.pid, flush=True)
time.sleep(60)
"""


@pytest.mark.fault
def test_sandbox_workers_end_when_the_parent_is_killed(tmp_path):
    path = made_pdf(tmp_path)
    parent = subprocess.Popen([sys.executable, "-c", PARENT, str(path)], stdout=subprocess.PIPE, text=True)
    pid = int(parent.stdout.readline())
    worker = psutil.Process(pid)
    parent.kill()
    parent.wait()
    parent.stdout.close()
    worker.wait(timeout=20)
    assert not psutil.pid_exists(pid) or worker.status() == psutil.STATUS_ZOMBIE


def test_sandbox_closed_refuses_work(tmp_path):
    sandbox = Sandbox(Config(), workers=1)
    sandbox.close()
    sandbox.close()
    with pytest.raises(ExtractionError, match="closed"):
        list(sandbox.extract(made_pdf(tmp_path)))


def test_wire_brings_a_part_back_whole():
    part = Part(
        3,
        (
            Element(
                "image", "Größe \u2003", 2, (1.0, 2.0, 3.5, 4.25), data=b"\0\x89PNG" * 9, metadata={"caption": "x", "n": [1, 2]}
            ),
            Element("sound", "", start_s=1.5, end_s=2.25, data=b""),
            Element("heading", "H", level=2),
        ),
        title="T",
        total=9,
        failure=None,
        notes=("n",),
        head="Balance sheets\n(in millions)",
        apart=True,
    )
    stream = io.BytesIO()
    protocol.send(stream, *protocol.pack_part(part))
    stream.seek(0)
    assert protocol.unpack_part(*protocol.receive(stream)) == part
    assert protocol.receive(stream) is None


def test_wire_stores_only_what_utf8_can_hold():
    message, data = protocol.pack_part(Part(0, (Element("text", "a\0b\ud800c"),)))
    assert protocol.unpack_part(message, data).elements[0].text == "ab?c"


GOOD = {"number": 0, "elements": [{"kind": "text", "text": "x"}], "title": "", "notes": []}


@pytest.mark.fault
@pytest.mark.parametrize(
    "change",
    [
        {"number": -1}, {"number": "0"}, {"number": None}, {"number": True}, {"title": 3}, {"notes": "x"}, {"notes": [1]},
        {"elements": {}}, {"elements": ["x"]}, {"elements": [{"kind": "exec", "text": ""}]},
        {"elements": [{"kind": "text", "text": None}]}, {"elements": [{"kind": "image", "text": "", "data": 5}]},
        {"elements": [{"kind": "text", "text": "", "bbox": [1, 2, 3]}]},
        {"elements": [{"kind": "text", "text": "", "bbox": [1, 2, 3, float("nan")]}]},
        {"elements": [{"kind": "text", "text": "", "page": 1.5}]},
        {"elements": [{"kind": "text", "text": "", "metadata": []}]}, {"elements": [{"kind": "text", "text": "\ud800"}]},
    ],
)  # fmt: skip
def test_wire_refuses_parts_out_of_form(change):
    assert protocol.unpack_part(GOOD, []).elements[0].text == "x"
    with pytest.raises(protocol.WireError):
        protocol.unpack_part({**GOOD, **change}, [])


@pytest.mark.fault
@pytest.mark.parametrize(
    "raw", [b"\xff" * 64, b"\x02\0\0\0\0\0\0\0[]", b"\x03\0\0\0\0\0\0\0{x}", b"\x02\0\0\0\x01\0\0\0{}\xff\xff\xff\xff"]
)
def test_wire_refuses_frames_out_of_form(raw):
    with pytest.raises(protocol.WireError):
        protocol.receive(io.BytesIO(raw))


DATA = os.environ.get("UFR_TEST_DATA")


@pytest.mark.public
@pytest.mark.skipif(not DATA, reason="UFR_TEST_DATA is not set")
def test_public_pdfs_end_as_parts_or_typed_errors():
    files = (
        sorted(Path(DATA or ".", "pdf_varied").rglob("*.pdf"))[::3]
        + sorted(Path(DATA or ".", "pdf_malformed").rglob("*.pdf"))[::12]
    )
    outcomes = []
    with Sandbox(Config(ocr=False), workers=2) as sandbox:
        for path in files:
            numbers: list[int] = []
            with contextlib.suppress(ExtractionError):  # a typed end is an end; any other error fails this test
                numbers.extend(part.number for part in sandbox.extract(path))
            outcomes.append(numbers)
    assert len(files) > 50
    assert all(numbers == list(range(len(numbers))) for numbers in outcomes)
    assert sum(map(bool, outcomes)) > len(files) / 2
