#!/usr/bin/env bash
# Everything that can be judged without running Digi. Stops at the first complaint.
set -euo pipefail
cd "$(dirname "$0")/../.."
set -x

cargo fmt --all --check
cargo clippy --workspace --all-targets --all-features -- -D warnings
# Each feature alone, and none: what only compiles beside another feature shows here. Where the C library has a feature of
# the same name, both together: what they depend on is then read once.
alone=$(cargo metadata --no-deps --format-version 1 | python3 -c '
import json, sys
packages = {package["name"]: package["features"].keys() - {"default"} for package in json.load(sys.stdin)["packages"]}
core, ffi = packages["digi-core"], packages["digi-ffi"]
print("-p digi-core\n-p digi-ffi")
for feature in sorted(core):
    both = f" -p digi-ffi --features digi-ffi/{feature}" if feature in ffi else ""
    print(f"-p digi-core --features digi-core/{feature}{both}")')
while read -r -a one; do
  cargo clippy --lib --no-default-features "${one[@]}" -- -D warnings </dev/null
done <<<"$alone"

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
