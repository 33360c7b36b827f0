# Every target does its own set-up: `make demo` needs Python 3.11 and a C++ compiler, nothing else.
PYTHON ?= python3
CONSTRAINTS := -c requirements/constraints.txt
SOURCES := pyproject.toml CMakeLists.txt requirements/constraints.txt $(shell find csrc -type f)

.PHONY: demo test test-all lint clean

demo: .venv-demo/.stamp
	.venv-demo/bin/python -P -m diffuse_fast.demo out/digits.png

test: .venv/.stamp
	.venv/bin/python -m pytest -n 2 -m "not slow"

test-all: .venv/.stamp
	.venv/bin/python -m pytest -n 2

lint: .venv/.stamp
	.venv/bin/ruff check .
	.venv/bin/lint-imports

# The demo's environment: no torch in it. -P above: the installed package, not the source folder beside it.
.venv-demo/.stamp: $(SOURCES)
	$(PYTHON) -m venv .venv-demo
	.venv-demo/bin/pip install -q $(CONSTRAINTS) ".[cpu]" pillow
	touch $@

.venv/.stamp: $(SOURCES)
	$(PYTHON) -m venv .venv
	.venv/bin/pip install -q $(CONSTRAINTS) torch==2.13.0 "scikit-build-core>=0.11" "pybind11>=2.13" ninja cmake
	.venv/bin/pip install -q $(CONSTRAINTS) --no-build-isolation -C editable.rebuild=true -C editable.verbose=false -e ".[dev]"
	touch $@

clean:
	rm -rf build .venv .venv-demo out
