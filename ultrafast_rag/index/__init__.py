"""Keep and find: the store is the truth, the FAISS and BM25 files are derived from it."""
