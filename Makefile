# Everything a newcomer needs: `make demo` shows Coffer, `make test` checks it. Both install what they need into .venv.
PYTHON ?= python3
BIN = .venv/bin
# Each half of the suite has servers of its own; the tests of one file stay together.
SIDE_BY_SIDE = -n 2 --dist loadfile --no-loadscope-reorder

.PHONY: install demo check test soak bench lock clean

install: .venv/installed

.venv/installed: requirements-dev.lock pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Coffer needs Python 3.11 or newer; run make PYTHON=python3.11 …")'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-dev.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --config-settings editable_mode=compat --editable .
	touch $@

demo: install
	@$(BIN)/coffer demo $(if $(ONCE),--once,) $(if $(PORT),--port $(PORT),)

check: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy .
	$(BIN)/lint-imports

test: install
	$(BIN)/python -m pytest $(SIDE_BY_SIDE)

soak: install
	COFFER_SOAK=1 $(BIN)/python -m pytest $(SIDE_BY_SIDE)

bench: install
	$(BIN)/python -m bench

# Needs uv. The lock carries hashes and no addresses.
lock:
	uv pip compile pyproject.toml --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header -q -o requirements.lock
	uv pip compile pyproject.toml --extra dev --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header -q -o requirements-dev.lock

clean:
	rm -rf .venv build *.egg-info
