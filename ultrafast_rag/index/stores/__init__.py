"""Vector stores beside our own index: each fills `ports.VectorStore`, and none is the truth.

`open_store` knows them by name. Keys and addresses come from the environment, never from an index.
"""

from __future__ import annotations

import os
from pathlib import Path

from ultrafast_rag.errors import ConfigError
from ultrafast_rag.ports import VectorStore
from ultrafast_rag.remote.secrets import find_key

STORES = ("qdrant", "chroma", "weaviate", "pinecone")
TIMEOUT_S = 30.0  # of one call; a batch of 64 vectors takes a server some 10 ms


def open_store(name: str, collection: str, dim: int, *, folder: Path | None = None, timeout_s: float = TIMEOUT_S) -> VectorStore:
    """The store of a name, its collection made where it is not there.

    qdrant: the server at QDRANT_URL (key: QDRANT_API_KEY), else qdrant-client's local mode in memory.
    chroma: the server at CHROMA_URL (CHROMA_API_KEY), else Chroma's own engine in a folder below `folder`, None: in memory.
    weaviate, pinecone: the server at WEAVIATE_URL and WEAVIATE_GRPC_URL, the index at PINECONE_URL; keys likewise.
    MissingExtraError names the package to install; VectorStoreError when it cannot be asked, IndexStateError when the
    collection holds vectors of another dimension.
    """
    if name not in STORES:
        raise ConfigError(f"there is no vector store {name!r}; there are {', '.join(STORES)}")
    url, key = os.environ.get(f"{name.upper()}_URL", "").strip() or None, find_key((f"{name.upper()}_API_KEY",))
    if name == "qdrant":
        from ultrafast_rag.index.stores.qdrant import QdrantStore

        return QdrantStore(collection, dim, url=url, key=key, timeout_s=timeout_s)
    if name == "chroma":
        from ultrafast_rag.index.stores.chroma import ChromaStore

        place = folder and folder / name / collection
        return ChromaStore(collection, dim, url=url, key=key, folder=place, timeout_s=timeout_s)
    if name == "weaviate":
        from ultrafast_rag.index.stores.weaviate import WeaviateStore

        grpc_url = os.environ.get("WEAVIATE_GRPC_URL", "").strip() or None
        return WeaviateStore(collection, dim, url=url, key=key, timeout_s=timeout_s, grpc_url=grpc_url)
    from ultrafast_rag.index.stores.pinecone import PineconeStore

    return PineconeStore(collection, dim, url=url, key=key, timeout_s=timeout_s)
