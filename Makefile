# The two commands of the README are `make demo` and `make test`; the rest is for whoever works on mixcli.
PYTHON ?= python3
BIN := .venv/bin
.DEFAULT_GOAL := demo
.PHONY: setup demo test test-quick lint help picture clean

setup: .venv/.ready

.venv/.ready: pyproject.toml .ci/setup
	@PYTHON="$(PYTHON)" .ci/setup

demo: setup
	@$(BIN)/mixcli pull demo
	@printf '\n$$ echo "What is the capital of France?" | mixcli run -m demo\n'
	@echo "What is the capital of France?" | $(BIN)/mixcli run -m demo

test: setup
	$(BIN)/python -m pytest

test-quick: setup
	$(BIN)/python -m pytest -m "not slow"

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

help: setup
	$(BIN)/python -m tests.help_page > docs/help.md

picture: setup
	@$(BIN)/mixcli pull -q demo
	$(BIN)/python docs/picture.py

clean:
	rm -rf build dist .venv
