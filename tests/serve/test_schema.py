"""What schemathesis makes of the server's own description: whatever is asked, nothing is an error of the server."""

from __future__ import annotations

import contextlib
import os
from collections import Counter

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis.errors import Unsatisfiable

from ultrafast_rag import UltraFastRAG
from ultrafast_rag.remote.secrets import Secret

pytest.importorskip("fastapi", reason="the server extra is not installed")
schemathesis = pytest.importorskip("schemathesis")

from ultrafast_rag.serve import http, messages  # noqa: E402  after the skip

FEW = int(os.environ.get("UFR_SCHEMA_CASES", "6"))  # of each kind and operation; hundreds by hand


@pytest.fixture(scope="module")
def schema(tmp_path_factory):
    folder = tmp_path_factory.mktemp("schema")
    with UltraFastRAG(folder / "index", image_model=None, speech_model=None, quiet=True) as rag:
        rag.add_texts(["Spring tides come twice a month."], ids=["tides"])
        service = http.Service(
            rag, messages.Serving(rate_per_s=1e6, burst=10**6, keys=[Secret("key", "a test")]), index=folder / "index"
        )
        yield schemathesis.openapi.from_asgi("/openapi.json", http.make_app(service))


def test_nothing_that_can_be_asked_is_an_error_of_the_server(schema):
    seen = Counter()
    few = settings(max_examples=FEW, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck))
    for found in schema.get_all_operations():
        operation = found.ok()
        for mode in schemathesis.GenerationMode:

            @few
            @given(case=operation.as_strategy(generation_mode=mode))
            def ask(case):
                response = case.call(headers={"x-api-key": "key"})
                seen[case.path, response.status_code] += 1
                assert response.status_code < 500 or (case.path == "/ready" and response.status_code == 503), response.text

            with contextlib.suppress(Unsatisfiable):  # where nothing is taken, nothing can be wrong
                ask()
    assert {("/search", 200), ("/search", 422), ("/query", 200), ("/query", 422), ("/metrics", 200), ("/ingest", 403)} <= set(
        seen
    )
