# The everyday commands. All but `setup`, `clean` and `help` need the environment that `make setup` makes.

PYTHON ?= python3

.PHONY: help setup test lint types bench demo clean

help: ## list these commands
	@awk -F ' *[|:].*## ' '/^[a-z]+:.*## / { printf "make %-6s  %s\n", $$1, $$2 }' Makefile

setup: ## make .venv, compile the package and install it there with all its tools
	$(PYTHON) -m venv .venv
	.venv/bin/pip install -e '.[lint,bench,uvloop]' $(addprefix -r ,$(wildcard examples/*/requirements.txt))

test: | .venv ## run the tests, two files at a time
	.venv/bin/pytest -n 2 --dist loadfile

# cython-lint looks for pycodestyle on the path.
lint: | .venv ## check style and formatting
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	PATH="$$PWD/.venv/bin:$$PATH" cython-lint mcp_manager benchmarks

# The types of all that is public, and users' code in the strict mode. Other configuration files are ignored.
PYRIGHT = PYTHONPATH=tests .venv/bin/python -m support.public_types .venv/bin/pyright \
	&& .venv/bin/pyright --pythonpath .venv/bin/python -p pyproject.toml

# The programs in the documentation and in notebooks are users' code. stubtest imports what is in its working directory
# first; elsewhere, it finds the installed package with its compiled modules.
types: | .venv ## check types, and the stubs against the compiled modules
	.venv/bin/mypy --strict -p mcp_manager
	@if .venv/bin/pyright --version >/dev/null 2>&1; then $(PYRIGHT); else echo 'pyright is left out: it needs Node, and its package from npm'; fi
	MYPYPATH=tests .venv/bin/mypy --strict --explicit-package-bases benchmarks/*.py benchmarks/calls benchmarks/gateways benchmarks/simulation
	MYPYPATH=tests:examples/observability/grafana:examples/fastapi_service:examples/gunicorn_workers:examples/testing_your_code:examples/django_service:examples/celery_worker .venv/bin/mypy --strict --explicit-package-bases examples tests/support/*.py tests/conformance/*.py
	PYTHONPATH=tests .venv/bin/python -m support.documents build/documented
	PYTHONPATH=tests .venv/bin/python -m support.notebooks build/documented
	.venv/bin/mypy --strict build/documented
	cd .venv && bin/python -m mypy.stubtest mcp_manager._core
	.venv/bin/python -c 'from benchmarks.calls.build import build_loopback; build_loopback()'
	.venv/bin/python -m mypy.stubtest benchmarks.calls.loopback

bench: | .venv ## run the benchmark
	.venv/bin/python -m benchmarks

demo: | .venv ## start a few servers, break them, and watch them recover
	.venv/bin/mcp-manager demo

# The environment stays: making it anew takes minutes and a network.
clean: ## delete everything that was built or cached, but not .venv
	rm -rf build dist *.egg-info .benchmarks .hypothesis .mypy_cache .pytest_cache .ruff_cache .coverage .coverage.* htmlcov
	find benchmarks examples mcp_manager tests -type d -name __pycache__ -prune -exec rm -rf {} +
	find benchmarks mcp_manager -type f -not -path '*/gateway/admin/page/*' \( -name '*.so' -o -name '*.pyd' -o -name '*.c' -o -name '*.html' \) -delete

.venv:
	@echo 'There is no .venv yet: run "make setup" first.' >&2
	@exit 1
