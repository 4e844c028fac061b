.PHONY: install check test notebooks build
BIN := .venv/bin

install:  ## a virtual environment with every extra, the test tools and the commit hooks
	python3 -m venv .venv
	$(BIN)/pip install -q -e ".[all,test,dev]"
	$(BIN)/pre-commit install

check:  ## what is cheap to know
	$(BIN)/python -m tests lint format types

test:  ## all but the slow tests
	$(BIN)/python -m tests tests

notebooks:  ## every notebook against its committed output
	$(BIN)/python -m tests notebooks

build:  ## wheel and source archive in dist/, API reference in build/api/
	$(BIN)/python -m build
	$(BIN)/pdoc --docformat google --output-directory build/api ultrafast_rag $(foreach m,types ports errors bench.metrics,ultrafast_rag.$(m))
