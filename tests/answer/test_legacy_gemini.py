"""The old client behind the same port; skipped where it is not installed, as beside a newer protobuf."""

from __future__ import annotations

import pytest

from ultrafast_rag.answer.prompt import ReplyCleaner
from ultrafast_rag.bench.gemini_server import Server
from ultrafast_rag.errors import MissingExtraError, RateLimitedError, RefusedError, UnavailableError
from ultrafast_rag.rag import UltraFastRAG
from ultrafast_rag.remote.limits import Gate, Retry
from ultrafast_rag.remote.secrets import Secret
from ultrafast_rag.types import Hit

HITS = [Hit(1, "a", "pumps.pdf", "text", "The pump delivers sixteen litres a second.", 0.9, page=4)]


def installed() -> bool:
    try:
        import google.generativeai  # noqa: F401
    except ImportError:
        return False
    return True


needs_library = pytest.mark.skipif(not installed(), reason="google-generativeai is not installed")


def generator(url):
    from ultrafast_rag.answer.legacy_gemini import LegacyGeminiGenerator

    return LegacyGeminiGenerator(
        model="gemini-3.5-flash",
        key=Secret("old-key-0123456789", "the argument"),
        context_tokens=500,
        gate=Gate("g", retry=Retry(attempts=3, base_s=0.001)),
        timeout_s=5,
        max_output_tokens=64,
        base_url=url,
    )


async def ask(model):
    return "".join([piece async for piece in model.stream("How much?", HITS)])


@pytest.mark.skipif(installed(), reason="google-generativeai is installed")
def test_without_the_library_the_error_names_the_extra():
    with pytest.raises(MissingExtraError, match="legacy-gemini"):
        generator(None)


def test_the_setting_leads_to_it():
    settings = {"image_model": None, "speech_model": None, "quiet": True, "generator": "legacy-gemini"}
    with Server(reply=lambda body: "Sixteen litres [1].") as server:
        with UltraFastRAG(gemini_api_key="old-key-0123456789", gemini_base_url=server.url, **settings) as rag:
            rag.add_texts(["The pump delivers sixteen litres a second."])
            if installed():
                assert rag.query("How much does the pump deliver?").generator.startswith("legacy-gemini")
            else:
                with pytest.raises(MissingExtraError, match=r"pip install 'ultrafast_rag\[legacy-gemini\]'"):
                    rag.query("How much does the pump deliver?")


@needs_library
async def test_a_reply_comes_and_its_sources_were_marked():
    with Server(reply=lambda body: "Sixteen litres [1].") as server:
        model = generator(server.url)
        text = await ask(model)
    assert ReplyCleaner(HITS).feed(text + "\n").strip() == "Sixteen litres [1]."
    assert "^The^pump^delivers" in server.seen[0].text
    assert model.gate.totals.input_tokens == 100


@needs_library
@pytest.mark.parametrize("fault", ["500", "503", "429-minute"])
async def test_a_transient_fault_is_tried_again(fault):
    with Server(schedule=lambda number, body: fault if number == 0 else None) as server:
        assert await ask(generator(server.url))
    assert len(server.seen) == 2


@needs_library
@pytest.mark.parametrize(
    ("fault", "kind"), [("429-day", RateLimitedError), ("400-key", UnavailableError), ("blocked", RefusedError)]
)
async def test_what_cannot_change_is_not_tried_again(fault, kind):
    with Server(schedule=lambda number, body: fault) as server, pytest.raises(kind):
        await ask(generator(server.url))
    assert len(server.seen) == 1
