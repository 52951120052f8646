#!/usr/bin/env bash
# Every test, in Rust and then from outside (Python, Node, browser), going on after a failure. At the end stands what
# was skipped and why; with CI=true a skip is a failure. Two skips are allowed, by their names: there is no SQL Server
# that every machine could have (`make test-mssql` starts Microsoft's image), nor a Python that Django 6 runs on.
set -uo pipefail
cd "$(dirname "$0")/../.."
log=$(mktemp)
trap 'rm -f "$log"' EXIT
failed=()

cargo test --workspace --all-features --no-fail-fast 2>&1 | tee -a "$log" || failed+=("the Rust tests")
.venv/bin/pytest tests --numprocesses auto --maxprocesses 4 --dist worksteal 2>&1 | tee -a "$log" || failed+=("the tests in tests/")
tests/tools/test-oldest.sh 2>&1 | tee -a "$log" || failed+=("tests/django_store with the oldest Django")
newest=$(tests/tools/pythons.py 3.12)
if [[ -n $newest ]]; then
  tests/tools/test-newest.sh 2>&1 | tee -a "$log" || failed+=("tests/django_store with the newest Django")
fi

skipped=$(grep -E '^SKIPPED |^test .* \.\.\. ignored' "$log" || true)
echo
if [[ -z ${DIGI_MSSQL_URL:-} ]]; then
  skipped=$(grep -vE '^test mssql_server::|SQL Server: DIGI_MSSQL_URL is not set$' <<<"$skipped" || true)
  other=" else"
  echo "SQL Server was NOT TESTED: DIGI_MSSQL_URL is not set. make test-mssql tests it, where Docker is."
fi
if [[ -z $newest ]]; then
  other=" else"
  echo "Django 6 was NOT TESTED: it needs Python 3.12 or later, and there is none here."
fi
if [[ -n $skipped ]]; then
  printf 'Skipped:\n%s\n' "$skipped"
  [[ ${CI:-} == true ]] && failed+=("CI: nothing may be skipped")
else
  echo "Nothing${other:-} was skipped."
fi
if ((${#failed[@]})); then
  printf 'FAILED: %s\n' "${failed[@]}"
  exit 1
fi
echo "All tests passed."
