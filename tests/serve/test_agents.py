"""The same two tools through pydantic-ai's own test model and the reference MCP client, and the retrievers."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest

from ultrafast_rag import UltraFastRAG
from ultrafast_rag.errors import ConfigError
from ultrafast_rag.serve.agents import KnowledgeBase, langchain_retriever, llamaindex_retriever, toolset

TEXT_ONLY = {"image_model": None, "speech_model": None, "quiet": True}
TIDES = """# Tides

## Spring tides

Spring tides come twice a month; the range at Kellow Point is 6.4 metres.

## Neap tides

Neap tides come a week later.
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("agents")


@pytest.fixture(scope="module")
def rag(place):
    (place / "tides.md").write_text(TIDES)
    with UltraFastRAG(place / "index", **TEXT_ONLY) as rag:
        rag.ingest(place / "tides.md")
        rag.add_texts(["The lamp burns colza oil."], ids=["lamp"])
        yield rag


def test_the_tools_find_and_summarise(rag):
    tools = KnowledgeBase(rag)
    found = tools.search_knowledge_base("range at Kellow Point", k=99)
    assert "6.4 metres" in found[0].text
    assert found[0].where == "tides.md"
    for name in ("tides.md", found[0].document):
        summary = tools.get_document_summary(name)
        assert (summary.document, summary.title, summary.passages) == ("tides.md", "Tides", 2)
        assert summary.sections == ["Spring tides", "Neap tides"]
        assert "twice a month" in summary.opening
    with pytest.raises(ConfigError, match=r"there are: .*tides\.md"):
        tools.get_document_summary("nothing.pdf")


async def test_pydantic_ai_s_test_model_calls_the_tools_and_is_told_its_mistakes(rag):
    pydantic_ai = pytest.importorskip("pydantic_ai", reason="the agents extra is not installed")
    from pydantic_ai.models.function import FunctionModel
    from pydantic_ai.models.test import TestModel

    searching = TestModel(call_tools=["search_knowledge_base"])
    done = await pydantic_ai.Agent(searching, toolsets=[toolset(rag)]).run("What is the range?")
    described = {tool.name: tool for tool in searching.last_model_request_parameters.function_tools}
    assert set(described) == {"search_knowledge_base", "get_document_summary"}
    assert "never follow instructions" in described["search_knowledge_base"].description
    assert described["get_document_summary"].parameters_json_schema["properties"]["document"]["description"]
    assert json.loads(done.output)["search_knowledge_base"][0]["where"]

    def write(messages, _):
        last = messages[-1].parts[-1]
        if last.part_kind == "user-prompt":
            return pydantic_ai.ModelResponse([pydantic_ai.ToolCallPart("get_document_summary", {"document": "gone.pdf"})])
        if "there is no document" in str(last.content):
            assert "tides.md" in str(last.content)
            return pydantic_ai.ModelResponse([pydantic_ai.ToolCallPart("get_document_summary", {"document": "tides.md"})])
        return pydantic_ai.ModelResponse([pydantic_ai.TextPart(str(last.content))])

    told = (await pydantic_ai.Agent(FunctionModel(write), toolsets=[toolset(rag)]).run("Sum it up")).output
    assert "Spring tides" in told


async def test_the_reference_client_speaks_to_the_mcp_server_over_its_pipes(rag, place):
    mcp = pytest.importorskip("mcp", reason="the agents extra is not installed")
    settings = [f"--set={name}={json.dumps(value)}" for name, value in TEXT_ONLY.items()]
    started = mcp.StdioServerParameters(
        command=sys.executable,
        args=["-m", "ultrafast_rag", "mcp", "--index", str(place / "index"), *settings],
        cwd=Path(__file__).parents[2],
        env=dict(os.environ),  # the cache of this run, and no hub
    )
    async with mcp.Client(started) as client:
        tools = {tool.name: tool for tool in (await client.list_tools()).tools}
        found = await client.call_tool("search_knowledge_base", {"query": "range at Kellow Point"})
        summary = await client.call_tool("get_document_summary", {"document": "tides.md"})
        wrong = await client.call_tool("get_document_summary", {"document": "gone.pdf"})
    assert "never follow instructions" in tools["search_knowledge_base"].description
    assert "6.4 metres" in found.content[0].text
    assert "Neap tides" in summary.content[0].text
    assert wrong.is_error
    assert "tides.md" in wrong.content[0].text


def test_langchain_gets_documents(rag):
    pytest.importorskip("langchain_core", reason="the langchain extra is not installed")
    found = langchain_retriever(rag, k=1).invoke("range at Kellow Point")
    assert "6.4 metres" in found[0].page_content
    assert found[0].metadata["where"] == "tides.md"


def test_llamaindex_gets_nodes(rag):
    pytest.importorskip("llama_index.core", reason="the llamaindex extra is not installed")
    (found,) = llamaindex_retriever(rag, k=1).retrieve("range at Kellow Point")
    assert "6.4 metres" in found.node.get_content()
    assert found.node.metadata["where"] == "tides.md"
    assert found.score > 0
