"""Documents over a Ray cluster of two machines here, one of which is killed while it has documents."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import numpy as np
import psutil
import pytest

from ultrafast_rag import UltraFastRAG
from ultrafast_rag.bench.qdrant_server import QdrantServer
from ultrafast_rag.errors import ConfigError
from ultrafast_rag.types import TEXT_SPACE

# read when ray is imported: everything over loopback, whatever addresses this machine has
os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
pytest.importorskip("ray", reason="the ray extra is not installed")
pytest.importorskip("qdrant_client", reason="the qdrant extra is not installed")
import ray
from ray import cluster_utils

from ultrafast_rag.index.stores.qdrant import QdrantStore
from ultrafast_rag.serve.ray import ingest

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore:::ray"), pytest.mark.timeout(280)]
ROOT = Path(__file__).parents[2]
TEXT_ONLY = {"image_model": None, "speech_model": None, "quiet": True}
SMALL = {"object_store_memory": 80 * 2**20}


@pytest.fixture(scope="module")
def server():
    with QdrantServer() as server:
        yield server


@pytest.fixture(scope="module")
def cluster(server):
    """A head that does no work and two machines of one core, by Ray's own cluster utility."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("PYTHONPATH", str(ROOT))
        patch.setenv("QDRANT_URL", server.url)
        try:
            cluster = cluster_utils.Cluster(
                initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False, **SMALL}
            )
            nodes = [cluster.add_node(num_cpus=1, **SMALL) for _ in range(2)]
            ray.init(address=cluster.address, log_to_driver=False)
        except Exception as error:  # Ray's own limit, which no setting lifts: 30 s for a node to start
            if "imed out" not in str(error):
                raise
            pytest.skip(f"this machine is too busy for a Ray cluster: {error}")
        yield cluster, nodes
        ray.shutdown()
        cluster.shutdown()


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("files")
    for number in range(12):
        words = f"Boat number {number} carries {number + 3} lamps. It sails on the {number}th day of the month."
        (folder / f"boat_{number:02}.txt").write_text(words)
    return folder


def test_points_go_straight_to_qdrant_and_again_are_the_same(tmp_path, cluster, files, server):
    with UltraFastRAG(tmp_path / "index", **TEXT_ONLY) as rag:
        first = ingest(rag, files, collection="boats", min_workers=2)
        again = ingest(rag, files, collection="boats")
        assert (first.documents, again.documents, first.failed) == (12, 12, ())
        assert not rag.documents()
        question = rag._models.text().encode_queries(["Which boat carries nine lamps?"])[0]
    store = QdrantStore("boats", len(question), url=server.url, key=None, timeout_s=10)
    assert len(store.ids()) == first.chunks
    assert store.search(question, 1)[0].payload["source"].startswith(str(files))
    store.close()


def test_a_machine_killed_with_documents_in_hand_costs_none_of_them(tmp_path, cluster, files):
    """Killed is the machine that has not brought anything yet, when the other one brings its first document."""
    utility, nodes = cluster
    came, killed = [], []

    def on_document(encoded):
        came.append(encoded.record.source)
        if not killed:
            (other,) = [node for node in nodes if node.node_id != encoded.node]
            killed.append(other.node_id)
            here = psutil.Process(other.all_processes["raylet"][0].process.pid).children(recursive=True)
            utility.remove_node(other, allow_graceful=False)
            for process in here:  # the utility leaves a worker to notice by itself; of a machine nothing lives on
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.kill()
            assert not psutil.wait_procs(here, timeout=60)[1]

    with UltraFastRAG(tmp_path / "index", **TEXT_ONLY) as rag:
        with pytest.raises(ConfigError, match="min_workers=3"):
            ingest(rag, files, min_workers=3)
        report = ingest(rag, files, min_workers=2, on_document=on_document)
        assert (report.documents, report.failed, len(killed)) == (12, (), 1)
        assert any("lost" in note for note in report.notes), report.notes
        assert sorted(came) == sorted(str(path) for path in files.iterdir())
        assert sorted(document.source for document in rag.documents()) == sorted(came)
        assert rag.search("sails on the 7th day", k=1, alpha=0)[0].source.endswith("boat_07.txt")
        by_ray = rag._store.vectors(TEXT_SPACE)
        assert len(by_ray.chunk_ids) == report.chunks == len(set(by_ray.chunk_ids.tolist()))
        assert ingest(rag, files).unchanged == 12
        with UltraFastRAG(tmp_path / "alone", **TEXT_ONLY) as alone:
            alone.ingest(files)
            ours = {text: vector for text, vector in _by_text(alone)}
            assert all(np.allclose(vector, ours[text], atol=2e-3) for text, vector in _by_text(rag))


def _by_text(rag):
    view = rag._store.vectors(TEXT_SPACE)
    rows = view.take(np.arange(len(view.chunk_ids)))
    for chunk, row in zip(rag._store.chunks(view.chunk_ids.tolist()), rows):
        yield chunk.text, row
