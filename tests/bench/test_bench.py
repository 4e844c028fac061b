"""Benchmarks on tiny inputs: what they say must be what happened, and what they write must name its machine."""

from __future__ import annotations

import argparse
import importlib
import itertools
import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from ultrafast_rag.bench import COMMANDS, busy, coldstart, gpu, run, write_result
from ultrafast_rag.bench.ablation import BESIDE, plot, row_of, steps
from ultrafast_rag.bench.answering import chosen
from ultrafast_rag.bench.answering import measure as answering_measure
from ultrafast_rag.bench.answering import row_of as answering_row
from ultrafast_rag.bench.bigpdf import write_pdf
from ultrafast_rag.bench.child import call, peak_mb
from ultrafast_rag.bench.gpu import transformer_flops
from ultrafast_rag.bench.plan import plan
from ultrafast_rag.bench.publicsets import Collection, load, read
from ultrafast_rag.bench.result import plain, records_markdown, shown_command
from ultrafast_rag.bench.settings import engine_of, fresh_cache, settings_of
from ultrafast_rag.bench.support import ANSWERABLE, ELSEWHERE, NEAR_MISS, Asked, best_threshold, further_of
from ultrafast_rag.bench.support import row_of as support_row
from ultrafast_rag.bench.vectors import cosine, forms
from ultrafast_rag.config import Config
from ultrafast_rag.errors import ConfigError, UltraFastRAGError
from ultrafast_rag.rag import UltraFastRAG
from ultrafast_rag.types import Answer, Hits, Table

ROOT = Path(__file__).parent.parent.parent
WORDS = ("lamp", "tide", "rope", "seal", "fog", "bell")


@pytest.fixture
def collection(tmp_path):
    """Six paragraphs and their questions in the public layout."""
    folder = tmp_path / "public"
    for name in ("xquad", "squad2", "scifact"):
        (folder / name).mkdir(parents=True)
    text = "The {} of the island is kept by {} people near the harbour."
    rows = [{"id": f"d:{w}:0", "text": text.format(w, n + 3)} for n, w in enumerate(WORDS)]
    asks = [
        {"id": f"q{w}", "text": f"How many keep the {w}?", "gold": [f"d:{w}:0"], "split": "dev", "answers": [f"{n + 3} people"]}
        for n, w in enumerate(WORDS)
    ]
    for corpus, queries in (
        ("xquad/corpus.en", "xquad/queries.en"),
        ("xquad/corpus.de", "xquad/queries.de"),
        ("xquad/corpus.zh", "xquad/queries.zh"),
        ("xquad/corpus.hi", "xquad/queries.hi"),
        ("squad2/corpus", "squad2/queries"),
        ("scifact/corpus", "scifact/queries.train"),
    ):
        (folder / f"{corpus}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        (folder / f"{queries}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in asks))
    return folder


def test_every_command_has_options_and_help():
    for command in COMMANDS.values():
        parser = argparse.ArgumentParser()
        command.add_arguments(parser)
        assert command.help
        # these take no Config: a provider's stand-in without models, damaged files, models of random weights
        assert ("--set" in parser.format_help()) == (command.name not in ("enrich", "faults", "parity"))
        assert callable(importlib.import_module(f"ultrafast_rag.bench.{command.name}").run)


def test_listing_the_commands_imports_no_model_library():
    code = "import sys, ultrafast_rag.bench as b; b.run(['list']); print(*sys.modules)"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert all(name in said for name in COMMANDS)
    assert not set(said.split()) & {"torch", "faiss", "openvino", "transformers", "pymupdf", "matplotlib"}


def test_list_of_committed_results_is_up_to_date():
    made = records_markdown({command.name: command.help for command in COMMANDS.values()}, ROOT / "data" / "benchmarks")
    committed = (ROOT / "data" / "benchmarks" / "README.md").read_text(encoding="utf-8")
    assert made == committed, "run: python -m ultrafast_rag bench list --markdown"
    listed = [[cell.strip() for cell in line.split(" | ")] for line in made.splitlines() if line.startswith("| `")]
    assert len(listed) == len(list((ROOT / "data" / "benchmarks").glob("*.json")))
    assert all(all(cells) for cells in listed), "each names what it measures, machine, date and command"


def test_the_tables_of_a_moved_index_are_repeated_in_the_list(tmp_path):
    rows = [{"built with": "torch-f32", "torch-f32": 0.81234567}, {"built with": "int8", "int8": None}]
    write_result("moved", {"rows": rows, "widths": [{"width": 16, "int8": 1.0}], "notes": ["a note"]}, tmp_path)
    made = records_markdown({}, tmp_path)
    assert "## moved.json: rows\n\n| built with | torch-f32 | int8 |\n| --- | --- | --- |\n| torch-f32 | 0.81235 |  |" in made
    assert made.endswith("- a note\n\n## moved.json: widths\n\n| width | int8 |\n| --- | --- |\n| 16 | 1 |\n")


def test_unknown_benchmark_is_refused_with_the_known_ones():
    with pytest.raises(ConfigError, match="quality"):
        run(["speed"])


def test_gpu_benchmark_without_a_gpu_says_so():
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(
        [sys.executable, "-m", "ultrafast_rag", "bench", "gpu"], capture_output=True, text=True, env=environment, cwd=ROOT
    )
    assert done.returncode == 2  # nothing failed: what was asked for is not here
    assert "needs a CUDA device" in done.stderr
    assert "Traceback" not in done.stderr


def test_gpu_benchmark_goes_through_every_kind_on_a_cpu(monkeypatch, tmp_path):
    """As `bench gpu --device cpu --small`, in this process, with the demonstration models and a few of the switches."""
    torch = pytest.importorskip("torch")
    pytest.importorskip("whisper")

    def call(target, arguments):
        return SimpleNamespace(value=getattr(gpu, target.partition(":")[2])(**arguments))

    compiled = []
    monkeypatch.setattr(torch, "compile", lambda model=None, **options: compiled.append(options) or model or (lambda f: f))
    words = ("default", "one", "compile", "8-bit", "faster")
    few = {kind: [row for row in listed if row[0].startswith(words)] for kind, listed in gpu.KINDS.items()}
    monkeypatch.setattr(
        gpu, "KINDS", {**few, "texts": [row for row in few["texts"] if row[0] != "8-bit"]}
    )  # held to float32 first
    monkeypatch.setattr(gpu, "call", call)
    monkeypatch.setattr(gpu, "_SMALL", {"texts": 4, "pictures": 2, "speech": 1})
    models = [f"--set=image_model={ROOT}/data/models/demo-clip", f"--set=speech_model={ROOT}/data/models/demo-whisper"]
    found = run(["gpu", "--device", "cpu", "--small", "--set=offline=true", *models, "--out", str(tmp_path / "gpu.json")])
    kept = json.loads((tmp_path / "gpu.json").read_text())
    rows = {(row["of"], row["switch"]): row for row in kept["rows"]}
    missing = [(kind, name) for kind, listed in gpu.KINDS.items() for name, _ in listed if (kind, name) not in rows]
    assert all("faster-whisper" in name for _, name in missing), found.table.notes  # its weights are not here
    assert {"dynamic": True} in compiled
    for (kind, _), row in rows.items():
        assert row["windows/s" if kind == "speech" else f"{kind}/s"] > 0
        assert row["TFLOP/s"] > 0
        assert row["one T4, estimated"] is None, "a processor says nothing of a T4"
    assert set(kept["ceiling"]) == {"float16", "float32", "GB/s"}


def test_a_t4s_figures_are_estimated_from_ceilings_and_bounded_by_what_it_can_do():
    ceiling = {"float16": 480.0, "float32": 48.0, "GB/s": 3200.0}
    # a tenth of this device's memory speed, a twentieth of its products: 1000/20 at the least; 24 x .5 / (10/1000) at the most
    assert gpu.t4_estimate(1000.0, 10.0, {}, ceiling) == pytest.approx((50.0, 1200.0))
    assert gpu.t4_estimate(1000.0, 10.0, {"engine": "torch-f32"}, ceiling) == pytest.approx((100.0, 405.0))
    for kernels in ({"engine": "torch-bf16"}, {"quantization": "8bit"}, {"quantization": "4bit"}):
        assert gpu.t4_estimate(1000.0, 10.0, kernels, ceiling) is None
    least, most = gpu.t4_estimate(1000.0, 400.0, {}, ceiling)
    assert least <= most == pytest.approx(30.0)


def test_operations_of_a_window_match_a_count_by_hand():
    dims = SimpleNamespace(n_mels=1, n_audio_ctx=2, n_audio_state=2, n_audio_layer=1, n_text_state=2, n_text_layer=1, n_vocab=5)
    encoder = 1 * (2 * 2 * (16 + 32) + 4 * 4 * 2)  # 4 dim^2 + 2 dim inner weights, two tokens; attention
    convolutions = 2 * 3 * (4 * 1 * 2 + 2 * 2 * 2)  # 4 frames of 1 band, then 2 of 2, three taps
    sound = 2 * 2 * 2 * (2 * 2)  # keys and values of two positions
    token = 2 * 14 * 4 + 4 * 2 * 2 + 2 * 2 * 5
    assert gpu.whisper_flops(dims, 3) == encoder + convolutions + sound + 3 * token


def test_result_names_machine_versions_date_and_command(tmp_path):
    path = write_result("x", {"rows": [{"ms": np.float32(1.5), "none": float("nan")}]}, tmp_path, command="c")
    found = json.loads(path.read_text())
    assert path == tmp_path / "x.json"
    assert found["rows"] == [{"ms": 1.5, "none": None}]
    assert found["machine"]["cores"] >= 1
    assert found["machine"]["ram_gb"] > 0
    assert found["versions"]["numpy"] == np.__version__
    assert found["date"].startswith("20")
    assert found["command"] == "c"


def test_command_shown_holds_no_folder_of_this_machine():
    shown = shown_command(["quality", "--data", "/srv/private/public", "--out=a.json"])
    assert shown.endswith("bench quality --data public --out=a.json")


def test_plain_keeps_five_digits_and_turns_numpy_to_python():
    assert plain({"a": np.arange(2), 1: 0.123456789, "p": Path("x")}) == {"a": [0, 1], "1": 0.12346, "p": "x"}


def test_settings_parse_json_values_and_refuse_other_shapes():
    assert settings_of(["alpha=0.5", "index=exact", "cache_embeddings=false", "text_model=a=b"]) == {
        "alpha": 0.5,
        "index": "exact",
        "cache_embeddings": False,
        "text_model": "a=b",
    }
    with pytest.raises(ConfigError, match="NAME=VALUE"):
        settings_of(["alpha"])


def test_fresh_cache_keeps_models_and_drops_embeddings(tmp_path, monkeypatch):
    for name in ("embeddings", "engines"):
        (tmp_path / "user" / name).mkdir(parents=True)
        (tmp_path / "user" / name / "file").write_text(name)
    monkeypatch.setenv("UFR_CACHE_DIR", str(tmp_path / "user"))
    fresh = fresh_cache(tmp_path / "fresh")
    assert (fresh / "engines" / "file").read_text() == "engines"
    assert not (fresh / "embeddings").exists()


def allocate(megabytes: int) -> dict[str, float]:
    """For the child below: hold some memory, touched."""
    held = np.ones(megabytes << 17, np.float64)
    return {"sum": float(held.sum()), "peak_mb": peak_mb()}


def fail(text: str) -> None:
    """For the child below."""
    raise ConfigError(text)


def test_child_reports_its_value_and_its_own_peak_memory():
    path = os.pathsep.join([str(ROOT / "tests" / "bench"), os.environ.get("PYTHONPATH", "")])
    small, large = (call("test_bench:allocate", {"megabytes": size}, environment={"PYTHONPATH": path}) for size in (1, 200))
    assert large.value["sum"] == 200 << 17
    assert 180 < large.peak_mb - small.peak_mb < 230
    assert large.tree_peak_mb >= large.peak_mb


def test_child_that_fails_is_an_error_with_its_words():
    path = os.pathsep.join([str(ROOT / "tests" / "bench"), os.environ.get("PYTHONPATH", "")])
    with pytest.raises(UltraFastRAGError, match="no such thing"):
        call("test_bench:fail", {"text": "no such thing"}, environment={"PYTHONPATH": path})
    with pytest.raises(UltraFastRAGError, match="AttributeError"):
        call("test_bench:nothing_here", {}, environment={"PYTHONPATH": path})


def test_made_pdf_has_its_pages_and_distinct_text(tmp_path):
    import pymupdf

    with pymupdf.open(write_pdf(tmp_path / "a.pdf", 27)) as document:
        texts = [page.get_text() for page in document]
        assert len(document[25].get_images()) == 1
    assert len(texts) == len(set(texts)) == 27
    assert min(len(text.split()) for text in texts) > 200
    assert texts[8].startswith("Chapter 2")


def test_collections_load_and_thin_out(collection):
    squad = load("squad2", collection)
    assert squad.qrels["qtide"] == {"d:tide:0": 1.0}
    assert squad.answers["qlamp"] == ["3 people"]
    assert list(squad.first(3).questions) == ["qlamp", "qrope", "qfog"]
    with pytest.raises(ConfigError, match="squad2"):
        load("trec", collection)
    (collection / "squad2/corpus.jsonl").unlink()
    with pytest.raises(ConfigError, match=r"corpus\.jsonl"):
        load("squad2", collection)


def test_quality_measures_through_the_public_surface(collection, tmp_path, capsys):
    out = tmp_path / "quality.json"
    run(["quality", "--data", str(collection), "--sets", "xquad-en", "--out", str(out), "--json"])
    (row,) = json.loads(capsys.readouterr().out)["rows"]
    assert (row["collection"], row["documents"], row["questions"], row["target"]) == ("xquad-en", 6, 6, None)
    # each question names its paragraph's one telling word, so words alone find it first
    assert row["lexical"] == row["default"] == 1
    assert json.loads(out.read_text())["command"].endswith("--out quality.json --json")


def test_search_benchmark_fills_up_with_copies_and_agrees_with_an_exact_scan(collection, tmp_path):
    out = tmp_path / "search.json"
    run(["search", "--data", str(collection), "--n", "40", "--questions", "5", "--out", str(out), "--set", 'index="exact"'])
    found = json.loads(out.read_text())
    distinct, all_chunks = found["rows"]
    assert (distinct["chunks"], all_chunks["chunks"], all_chunks["distinct"]) == (6, 40, 6)
    assert all_chunks["recall@10"] == 1
    assert all_chunks["search p50 ms"] > 0
    legs = found["measured"][1]["legs_ms"]
    assert {"words search", "dense search", "fetch chunks"} <= set(legs)
    assert any(name.startswith("encode") for name in legs)


def test_ablation_goes_from_basic_to_default_one_change_at_a_time():
    named = steps()
    first, default = Config().replace(**named[0][1]), Config().replace(**named[-1 - len(BESIDE)][1])
    apart = {"cache_dir", "image_model", "speech_model", "quiet"}
    assert {k: v for k, v in first.to_json().items() if k not in apart} == {
        k: v for k, v in Config.basic().to_json().items() if k not in apart
    }
    assert {k: v for k, v in default.to_json().items() if k not in apart} == {
        k: v for k, v in Config().to_json().items() if k not in apart
    }
    for (_, before), (name, after) in itertools.pairwise(named):
        assert any(before.get(field) != after.get(field) for field in after), name


def test_ablation_rows_and_plot(tmp_path):
    value = {
        "engine": "torch-f32",
        "again_per_minute": 1.0,
        "first_ms": 2.0,
        "repeated_ms": 1.0,
        "load_s": 1.0,
        "vram_mb": None,
        "chunks": 3,
        "ndcg": 0.5,
        "recall": 1.0,
    }
    rows: list[dict] = []
    for name, speed in (("basic", 10.0), ("+ batching", 20.0), ("+ engine", 80.0)):
        rows.append(row_of(name, {**value, "pages_per_minute": speed}, 100.0, rows))
    assert [(row["times row above"], row["times basic"]) for row in rows] == [(1, 1), (2, 2), (4, 8)]
    plot(rows, tmp_path / "a.png")
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
    assert "times basic" in str(Table(rows))


def test_the_engine_that_encodes_is_named(tmp_path):
    with UltraFastRAG(tmp_path / "ix", engine="torch-f32", image_model=None, speech_model=None, quiet=True) as rag:
        rag.add_texts(["The lamp burns oil."], ids=["a"])
        assert engine_of(rag) == "torch-f32"


def test_busy_processes_are_there_and_gone():
    with busy.spinning(2) as ids:
        assert len(set(ids)) == 2
        assert all(Path(f"/proc/{one}").exists() for one in ids) or sys.platform != "linux"
    assert not any(Path(f"/proc/{one}").exists() for one in ids)


def test_core_seconds_are_of_the_work_alone_and_a_slow_machine_comes_to_an_end(monkeypatch):
    monkeypatch.setattr(busy, "_ENOUGH_S", 0.0)
    found = busy.measure("texts", 2, {"engine": "torch-f32"}, repeats=10**9)
    assert found["model"] == "torch-f32"
    assert 0 < found["core-s"]


def test_flops_match_a_count_by_hand():
    # one layer, dim 2, inner 3, 5 tokens: weights 4*4 + 2*6 = 28; 2*5*28 = 280; attention 4*25*2 = 200
    assert transformer_flops(5, 2, 3, 1) == 480


def test_support_threshold_separates_what_can_be_separated():
    def asked(kind, cosine, gold, quotable=True):
        right = np.array([gold, not gold and kind == ANSWERABLE])
        return Asked(kind, np.array([cosine, 0.1]), np.array([0.5, 0.0]), right, np.array([quotable, True]))

    questions = [asked(ANSWERABLE, 0.7, True), asked(ANSWERABLE, 0.8, True), asked(ANSWERABLE, 0.9, False)]
    questions += [asked(ELSEWHERE, 0.2, False), asked(ELSEWHERE, 0.6, False), asked(NEAR_MISS, 0.75, False)]
    threshold = best_threshold(questions, 1.0)
    row = support_row(questions, 1.0, threshold)
    assert 0.6 < threshold <= 0.7
    assert (row["supported"], row["wrongly"], row["balanced"]) == (1, 0, 1)
    assert row["near misses"] == 1
    assert support_row([asked(NEAR_MISS, 0.75, False, quotable=False)], 1.0, threshold)["near misses"] == 0
    assert row["best sentence right"] == pytest.approx(2 / 3)
    assert support_row(questions, 1.0, 0.5)["wrongly"] == 0.5
    assert further_of(questions, 1.0, 0.1) == {"share of the best": 0.1, "sentences": 2, "hold the answer": 1}


def test_the_readers_row_counts_facts_said_first_and_the_unanswerable_supported():
    class Ready:
        """Answers as it was told to, by the port that the benchmark asks."""

        def search(self, question):
            return []

        def query(self, question):
            text, supported = {"a?": ("Ada. [1] Bo. [2]", True), "b?": ("Ada. [1] Bo. [2]", True)}.get(question, ("Cy.", True))
            return Answer(question, text, Hits(), supported=supported)

    texts = {name: f"{name}?" for name in "abcd"}
    collection = Collection("s", {}, texts, {name: {} for name in texts}, {"a": ["Ada"], "b": ["Bo"]})
    asked = chosen(collection, 4)
    assert asked == ["a", "b", "c", "d"]
    row = answering_row("x", answering_measure(Ready(), asked, collection))
    assert (row["questions"], row["first statement"], row["answer"], row["wrongly supported"]) == (4, 0.5, 1.0, 1.0)
    assert 0 <= row["search p50 ms"] <= row["p95 ms"]


def test_own_collections_are_read_in_the_layouts_of_beir_and_squad(tmp_path):
    beir = tmp_path / "beir"
    (beir / "qrels").mkdir(parents=True)
    texts = [{"_id": "d1", "title": "Lamp", "text": "It burns."}, {"_id": "d2", "title": "", "text": "Rope."}]
    asks = [{"_id": "q1", "text": "What burns?"}, {"_id": "q2", "text": "Not judged?"}]
    for name, rows in (("corpus", texts), ("queries", asks)):
        (beir / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (beir / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\nq1\td1\t2\nq1\td2\t0\n")
    found = read(beir)
    assert found.documents == {"d1": "Lamp\nIt burns.", "d2": "Rope."}
    assert (found.questions, found.qrels) == ({"q1": "What burns?"}, {"q1": {"d1": 2.0}})
    (beir / "qrels" / "test.tsv").rename(beir / "qrels" / "dev.tsv")
    assert read(beir).qrels == found.qrels
    (beir / "qrels" / "dev.tsv").unlink()
    (beir / "qrels").rmdir()
    (beir / "queries.jsonl").write_text('{"id": 7, "text": "What burns?", "gold": "d1"}\n')
    assert read(beir).qrels == {"7": {"d1": 1.0}}
    squad = tmp_path / "dev.json"
    asked = [{"id": "a", "question": "Who?", "answers": [{"text": "Agnes"}]}, {"id": "b", "question": "Where?", "answers": []}]
    squad.write_text(json.dumps({"data": [{"title": "T", "paragraphs": [{"context": "Agnes came.", "qas": asked}]}]}))
    found = read(squad)
    assert (found.documents, found.answers) == ({"T:0": "Agnes came."}, {"a": ["Agnes"]})
    assert found.qrels == {"a": {"T:0": 1.0}, "b": {"T:0": 1.0}}
    squad.write_text("[]")
    with pytest.raises(ConfigError, match="SQuAD"):
        read(squad)


def test_compressed_forms_keep_what_their_bytes_allow():
    rng = np.random.default_rng(5)
    documents = rng.normal(size=(300, 96)).astype(np.float32)
    documents /= np.linalg.norm(documents, axis=1, keepdims=True)
    found = {form.name: form for form in forms(documents)}
    assert [form.size for form in found.values()] == [384, 192, 100, 12, 204, 256, 48, 96]
    near = {name: float(cosine(documents, form.decoded).mean()) for name, form in found.items()}
    assert near["float32"] == pytest.approx(1)
    assert near["float16"] == pytest.approx(1, abs=1e-6)
    assert near["int8"] > 0.9999
    # E|x| of a unit Gaussian: sqrt(2 / pi)
    assert near["binary"] == pytest.approx(np.sqrt(2 / np.pi), abs=0.01)
    thin = found["sparse, 64 values"].decoded
    assert (np.count_nonzero(thin, axis=1) == 64).all()
    assert np.abs(thin).max(axis=1) == pytest.approx(np.abs(documents).max(axis=1), rel=1e-3)
    assert near["PQ, 96 bytes"] > near["PQ, 48 bytes"] > 0.8


def test_compressed_vectors_are_measured_against_float32(collection, tmp_path):
    result = run(["vectors", "--data", str(collection), "--sets", "scifact", "--out", str(tmp_path / "v.json")])
    rows = {row["form"]: row for row in result.table}
    assert (rows["float32"]["recall@10"], rows["float32"]["p"]) == (1, None)
    assert rows["int8"]["nDCG@10"] == pytest.approx(rows["float32"]["nDCG@10"])
    assert rows["binary, 100 again"]["recall@10"] == 1  # all six documents are scored again
    assert json.loads((tmp_path / "v.json").read_text())["encoders"]


def test_a_plan_scales_what_was_measured():
    known = {"seconds": 0.0036, "bytes_each": 3000, "dim": 384, "days": 5, "dollars": 0.5, "node_gb": 64}
    small, large = plan(10**6, **known), plan(10**10, **known)
    assert (small["dollars"], small["index GB"], small["nodes for 5 days"], small["nodes that serve"]) == (0.5, 3.0, 1, 1)
    assert (large["dollars"], large["days on one node"]) == (5000.0, pytest.approx(10_000 / 24))
    assert (large["nodes for 5 days"], large["int8 GB in memory"], large["nodes that serve"]) == (84, 5760.0, 90)


def test_settings_reach_the_process_whose_start_is_measured(tmp_path):
    with pytest.raises(UltraFastRAGError, match="no_such"):
        coldstart.start(tmp_path / "index", "What burns?", {"quiet": True, "no_such": 1})
