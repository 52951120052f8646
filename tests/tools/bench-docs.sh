#!/usr/bin/env bash
# Puts the last run's table and charts (made by `make bench` in target/bench, or the folder that is named) into
# docs/performance.md.
set -euo pipefail
cd "$(dirname "$0")/../.."
from=${1:-target/bench}
page=docs/performance.md
[[ -f $from/table.md ]] || { echo "bench-docs: no $from/table.md; make bench writes it" >&2; exit 1; }
mkdir -p docs/images/performance
cp "$from"/{rate,cpu,latency,memory}.svg docs/images/performance/
run=$(
  for chart in rate cpu latency memory; do printf '![%s](images/performance/%s.svg)\n\n' "$chart" "$chart"; done
  cat "$from/table.md"
)
export run
awk '
  /^<!-- run: end -->$/ { inside = 0 }
  !inside
  /^<!-- run: begin -->$/ { inside = 1; print ENVIRON["run"] }
' "$page" >"$page.new"
mv "$page.new" "$page"
