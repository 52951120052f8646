#!/usr/bin/env bash
# Every test, in Rust and then from outside (Python, Node, browser), going on after a failure. At the end stands what
# was skipped and why; with CI=true a skip is a failure.
set -uo pipefail
cd "$(dirname "$0")/../.."
log=$(mktemp)
trap 'rm -f "$log"' EXIT
failed=()

cargo test --workspace --all-features --no-fail-fast 2>&1 | tee -a "$log" || failed+=("the Rust tests")
.venv/bin/pytest tests 2>&1 | tee -a "$log" || failed+=("the tests in tests/")

skipped=$(grep -E '^SKIPPED |^test .* \.\.\. ignored' "$log" || true)
echo
if [[ -n $skipped ]]; then
  printf 'Skipped:\n%s\n' "$skipped"
  [[ ${CI:-} == true ]] && failed+=("CI: nothing may be skipped")
else
  echo "Nothing was skipped."
fi
if ((${#failed[@]})); then
  printf 'FAILED: %s\n' "${failed[@]}"
  exit 1
fi
echo "All tests passed."
