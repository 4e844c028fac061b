"""Enrichment through faults, limits, kills and hostile text, against the stand-in."""

from __future__ import annotations

import asyncio
import json
import re
import signal
import sqlite3
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from enriching import chunks, collect, enricher

from ultrafast_rag.bench.gemini_server import FORM, Server, every
from ultrafast_rag.enrich.enricher import OUTPUT_TOKENS, EnrichReport, value
from ultrafast_rag.errors import StorageError
from ultrafast_rag.remote.quota import Quota
from ultrafast_rag.types import Chunk

PNG = b"\x89PNG\r\n\x1a\n" + b"\0" * 20


def passage(request) -> int:
    return int(re.search(r"Passage\^number\^(\d+)", request.text)[1])


async def test_every_chunk_gets_a_form_and_is_asked_once(tmp_path):
    with Server() as server:
        found, report = await collect(enricher(server.url, tmp_path), chunks(30))
    assert sorted(e.chunk_id for e in found) == list(range(30))
    assert found[0].keywords == tuple(FORM["keywords"])
    assert FORM["questions"][0] in found[0].text
    assert Counter(map(passage, server.seen)) == Counter(range(30))
    assert (report.done, report.cached, report.complete) == (30, 0, True)
    assert report.usd == pytest.approx(30 * (100 * 0.30 + 15 * 2.50) / 1e6)


async def test_nothing_is_paid_twice_and_equal_content_once(tmp_path):
    twins = [*chunks(5), Chunk(chunks(1)[0].text, id=99, context="Handbook")]
    with Server() as server:
        await collect(enricher(server.url, tmp_path), twins)
        found, report = await collect(enricher(server.url, tmp_path), twins)
    assert len(server.seen) == 5
    assert (len(found), report.cached, report.done, report.usd) == (6, 6, 0, 0.0)


@pytest.mark.fault
async def test_five_hundred_survive_thirty_percent_faults_each_paid_once(tmp_path):
    with Server(schedule=every(0.3)) as server:
        made = enricher(server.url, tmp_path, concurrency=16)
        found, report = await collect(made, chunks(500))
    assert len(found) >= 495
    assert report.stopped == ""
    paid = Counter(map(passage, server.delivered))
    assert set(paid.values()) == {1}
    assert len(server.seen) > 600
    assert made.gate.totals.requests == len(server.seen)
    assert server.most_active <= 16


@pytest.mark.fault
@pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL")
async def test_a_killed_run_resumes_and_pays_again_for_nothing_it_had_committed(tmp_path):
    with Server(schedule=every(0.2, seed=3), delay_s=0.01) as server:
        command = [sys.executable, str(Path(__file__).with_name("enriching.py")), server.url, str(tmp_path), "120", "50"]
        killed = subprocess.run(command, capture_output=True, text=True, timeout=60)
        assert killed.returncode == -signal.SIGKILL, killed.stderr
        with sqlite3.connect(tmp_path / "enrichments.sqlite3") as db:
            (committed,) = db.execute("SELECT count(*) FROM enrichments").fetchone()
        while server.active:  # what was under way ends by noticing that its client is gone
            await asyncio.sleep(0.01)
        first = len(server.delivered)
        found, report = await collect(enricher(server.url, tmp_path), chunks(120))
    assert 50 <= committed <= first
    assert report.cached == committed
    assert sorted(e.chunk_id for e in found) == list(range(120))
    # what the kill caught between its arrival and its commit, at most one a worker, is all that is paid again
    paid = Counter(map(passage, server.delivered))
    assert sum(paid.values()) - 120 == first - committed <= 8
    assert max(paid.values()) <= 2


async def test_a_spent_day_stops_the_run_with_the_rest_left_for_tomorrow(tmp_path):
    with Server(schedule=lambda number, body: "429-day" if number >= 20 else None) as server:
        made = enricher(server.url, tmp_path, concurrency=1)
        found, report = await collect(made, chunks(50))
        assert (len(found), report.remaining) == (20, 30)
        assert "quota" in report.stopped
        assert made.gate.breaker.state == "open"
        _, again = await collect(made, chunks(50))
    assert len(server.seen) == 21
    assert (again.cached, again.done, again.remaining) == (20, 0, 30)


async def test_a_provider_that_is_down_stops_the_run_early(tmp_path):
    with Server(schedule=lambda number, body: "503") as server:
        _, report = await collect(enricher(server.url, tmp_path, concurrency=2, attempts=2), chunks(100))
    assert report.remaining >= 90
    assert "run it again" in report.stopped
    assert len(server.seen) <= 20


@pytest.mark.parametrize("limit_usd", [0.0008, 0.0015])
async def test_a_dollar_limit_is_never_passed(tmp_path, limit_usd):
    with Server() as server:
        _, report = await collect(enricher(server.url, tmp_path, concurrency=4), chunks(40), limit_usd=limit_usd)
    assert 0 < report.done < 40
    assert report.usd <= limit_usd
    assert report.remaining == 40 - report.done
    assert "$" in report.stopped


async def test_a_time_budget_of_nothing_starts_nothing(tmp_path):
    with Server() as server:
        _, report = await collect(enricher(server.url, tmp_path), chunks(3), time_budget_s=0)
    assert not server.seen
    assert report.remaining == 3


async def test_a_declined_passage_is_told_and_not_asked_again(tmp_path):
    with Server(schedule=lambda number, body: "blocked" if "number^1^" in json.dumps(body) else None) as server:
        for _ in range(2):
            found, report = await collect(enricher(server.url, tmp_path), chunks(3))
            assert [chunk_id for chunk_id, _ in report.failed] == [1]
            assert len(found) == 2
    assert len(server.seen) == 3


async def test_pictures_are_sent_and_come_first(tmp_path):
    some = [*chunks(3), Chunk("Figure 1", "image", id=7, data=PNG)]
    with Server() as server:
        found, _ = await collect(enricher(server.url, tmp_path, concurrency=1), some)
    assert [len(request.pictures) for request in server.seen] == [1, 0, 0, 0]
    assert found[0].chunk_id == 7
    assert value(some[3]) > value(some[0])


async def test_leaving_early_keeps_what_was_paid_and_leaves_no_task(tmp_path):
    before = asyncio.all_tasks()
    with Server(delay_s=0.01) as server:
        run = enricher(server.url, tmp_path, concurrency=4).run(chunks(40))
        pieces = run.__aiter__()
        first = await anext(pieces)
        await pieces.aclose()
        assert asyncio.all_tasks() <= before
        found, report = await collect(enricher(server.url, tmp_path), chunks(40))
    assert first in found
    assert report.cached >= 1
    assert run.report.remaining > 30


async def test_a_broken_row_is_asked_for_again(tmp_path):
    with Server() as server:
        await collect(enricher(server.url, tmp_path), chunks(2))
        with sqlite3.connect(tmp_path / "enrichments.sqlite3") as db:
            db.execute("UPDATE enrichments SET body = '{\"caption\": 3' WHERE rowid = 1")
        found, report = await collect(enricher(server.url, tmp_path), chunks(2))
    assert (len(found), report.cached, report.done) == (2, 1, 1)


def test_a_file_that_is_no_database_is_a_storage_error(tmp_path):
    (tmp_path / "enrichments.sqlite3").write_bytes(b"not a database at all" * 100)
    with pytest.raises(StorageError, match="move the file away"):
        enricher("http://127.0.0.1:1", tmp_path)


async def test_what_the_model_writes_is_stripped_before_it_is_kept(tmp_path):
    evil = {"caption": "a ![x](https://evil.example/p)", "summary": "see <a href='https://evil.example'>it</a>",
            "keywords": ["www.evil.example/x", "pump"], "questions": ["[Who](https://evil.example)?"]}  # fmt: skip
    with Server(reply=lambda body: json.dumps(evil)) as server:
        (found,), _ = await collect(enricher(server.url, tmp_path), chunks(1))
    assert found.text == "a\nsee it\npump\nWho?"


def test_a_plan_counts_what_is_left_in_tokens_money_and_days(tmp_path):
    made = enricher("http://127.0.0.1:1", tmp_path, quota=Quota(rpm=10, rpd=20))
    plan = made.plan(chunks(100))
    assert (plan.chunks, plan.cached, plan.days) == (100, 0, 5)
    assert plan.minutes == 20  # half of the ten a minute may go in a burst, so five are steady
    assert plan.output_tokens == 100 * OUTPUT_TOKENS
    assert plan.usd == pytest.approx((plan.input_tokens * 0.30 + plan.output_tokens * 2.50) / 1e6)
    assert "5 days" in str(plan)
    assert not list(tmp_path.iterdir())  # to plan is not to write


def test_an_unfinished_report_is_not_complete():
    assert EnrichReport().complete
    assert not EnrichReport(remaining=1).complete
    assert not EnrichReport(failed=[(1, "why")]).complete


def test_plans_and_reports_read_well():
    from ultrafast_rag.enrich.enricher import EnrichPlan, EnrichReport

    plan = EnrichPlan(chunks=7, cached=2, input_tokens=900, output_tokens=100, usd=None, minutes=1.0, days=1)
    report = EnrichReport(done=5, failed=[(3, "refused")], remaining=1, stopped="the day's quota is spent")
    assert repr(plan) == str(plan)
    assert "7 chunks to enrich" in repr(plan)
    assert repr(report) == str(report)
    assert "1 failed, 1 remain" in repr(report)
    assert "it ended early: the day's quota is spent" in repr(report)
    assert "<table" in plan._repr_html_()
    assert "<table" in report._repr_html_()
