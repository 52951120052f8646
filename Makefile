# make run: the example site.  make test: every test.  The rest is for those who change Digi; CONTRIBUTING.md has more.
SHELL := /bin/bash
CARGO_DENY := 0.20.2
DEBIAN := caddy chromium chromium-driver clang cmake fonts-dejavu-core fonts-noto-color-emoji libgssapi-krb5-2 libodbc2 \
	mariadb-server nginx-light pkg-config postgresql redis-server valgrind
DENY := $(abspath $(or $(CARGO_TARGET_DIR),target))/tools/cargo-deny-$(CARGO_DENY)
PREFIX ?= /usr/local
PYTHON := python3
SECONDS ?= 5
SEEDS ?= 1000
WHEELS := target/wheels
SOURCES := $(shell git ls-files Cargo.lock Cargo.toml pyproject.toml digi-core/Cargo.toml digi-core/src digi-py python)
export PATH := $(DENY)/bin:$(PATH)

.PHONY: run wheel install header test newest test-mssql sim bench bench-docs bench-store lint doc tools debian

run: .venv-run/.digi
	PATH="$(CURDIR)/.venv-run/bin:$$PATH" examples/django-chat/run.sh

# A wheel for every Python from 3.10 on, tried out in an empty environment under each that is here.
wheel: $(WHEELS)/.built
	tests/tools/check_wheel.py $(WHEELS)

# The C library, its headers, its pkg-config file and its CMake package.
install:
	@DESTDIR="$(DESTDIR)" digi-ffi/install.sh "$(PREFIX)"

# include/digi.h out of digi-ffi; the tests compare them.
header:
	DIGI_WRITE_HEADER=1 cargo test --quiet -p digi-ffi --test header

test: tools .venv/.digi .venv-oldest/.digi newest
	tests/tools/test.sh

# For the tests with the newest Django, which not every machine has a Python for.
newest: $(WHEELS)/.built
	@[[ -z "$$(tests/tools/pythons.py 3.12)" ]] || $(MAKE) --no-print-directory .venv-newest/.digi

# What SQL Server is needed for, against Microsoft's image in Docker or the server that DIGI_MSSQL_URL names.
test-mssql: debian .venv/.digi
	tests/tools/test-mssql.sh

sim:
	DIGI_SIM_SEEDS=$(SEEDS) cargo test --release -p digi-core --features bugs --test simulation -- --nocapture

bench: .venv-bench/.digi tests/load/node/node_modules/.package-lock.json
	cargo bench -p digi-core
	cargo run --release -p digi-load -- --python .venv-bench/bin/python --node node
	cargo run --release -p digi-load -- layer
	.venv-bench/bin/python tests/load/python/channel_layers.py
	tests/tools/bench-c.sh

# The last run's table and charts into docs/performance.md.
bench-docs:
	tests/tools/bench-docs.sh

# The URL goes on in the environment: a command line, and with it a password, can be read by everybody on the machine.
bench-store:
	@DIGI_BENCH_STORE="$$URL" cargo run --release -p digi-load -- store --seconds $(SECONDS)

lint: doc .venv/.digi $(DENY)/bin/cargo-deny
	tests/tools/lint.sh

doc:
	RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --all-features

# What the tests need beyond Rust, Python, Node and a C compiler. Does nothing once everything is there.
tools: debian .venv/.installed .venv-oldest/.installed tests/node/node_modules/.package-lock.json

debian:
	@tests/tools/debian-packages.sh $(DEBIAN)

.venv/.installed: tests/requirements.txt
# With the oldest Django that Digi works with.
.venv-oldest/.installed: tests/requirements-django42.txt
# With the newest one, and the newest Python.
.venv-newest/.installed: tests/requirements-django61.txt
.venv-newest/.installed: PYTHON = $(shell tests/tools/pythons.py 3.12)
.venv-run/.installed: examples/django-chat/requirements.txt
.venv/.installed .venv-oldest/.installed .venv-newest/.installed .venv-run/.installed:
	$(PYTHON) -c 'import ensurepip' || tests/tools/debian-packages.sh python3-venv
	$(PYTHON) -m venv $(@D) && $(@D)/bin/pip install --quiet --disable-pip-version-check -r $< && touch $@

$(WHEELS)/.built: $(SOURCES)
	$(MAKE) .venv-run/.installed
	rm -rf $(WHEELS) && .venv-run/bin/maturin build --release --locked --out $(WHEELS) && touch $@

%/.digi: %/.installed $(WHEELS)/.built
	$*/bin/pip install --quiet --disable-pip-version-check --force-reinstall --no-deps $(WHEELS)/*.whl && touch $@

# What only the load run needs: the peers in Python; socketify is linked against libuv. Those on Channels need Redis, as
# the tests do.
.venv-bench/.installed: tests/load/python/requirements.txt | debian
	tests/tools/debian-packages.sh libuv1 python3-venv
	python3 -m venv .venv-bench && .venv-bench/bin/pip install --quiet --disable-pip-version-check -r $< && touch $@

%/node_modules/.package-lock.json: %/package-lock.json
	cd $* && npm ci --no-audit --no-fund && touch node_modules/.package-lock.json

# Not optimised: it builds in a third of the time, and reading this workspace's dependencies takes it a second.
$(DENY)/bin/cargo-deny:
	cargo install --quiet --locked --debug --root $(DENY) cargo-deny@$(CARGO_DENY)
