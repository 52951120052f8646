#!/usr/bin/env bash
# Everything that can be judged without running Digi. Stops at the first complaint.
set -euo pipefail
cd "$(dirname "$0")/../.."
set -x

cargo fmt --all --check
cargo clippy --workspace --all-targets --all-features -- -D warnings
# Each feature alone, and none: what only compiles beside another feature shows here.
alone=$(cargo metadata --no-deps --format-version 1 | python3 -c '
import json, sys
packages = {package["name"]: package for package in json.load(sys.stdin)["packages"]}
for name in ("digi-core", "digi-ffi"):
    print(name, *(f"{name}:{feature}" for feature in sorted(packages[name]["features"].keys() - {"default"})))')
for one in $alone; do
  [[ $one == *:* ]] && feature=${one#*:} || feature=""
  cargo clippy -p "${one%:*}" --lib --no-default-features --features "$feature" -- -D warnings
done

cargo deny check --hide-inclusion-graph licenses bans sources
# The advisories are a git repository, which not every machine reaches.
if cargo deny fetch db; then
  cargo deny check --disable-fetch advisories
else
  echo "NOT CHECKED: security advisories, because their database could not be fetched (see above)."
fi

.venv/bin/ruff check python tests examples
.venv/bin/ruff format --check python tests examples
.venv/bin/mypy python/digi
PYTHONPATH=tests/django_store .venv/bin/mypy --config-file tests/pyproject.toml tests
# The stubs say what the module has, and nothing else.
.venv/bin/stubtest digi._digi --mypy-config-file pyproject.toml
git ls-files '*.js' '*.mjs' | xargs -r -n 1 node --check
