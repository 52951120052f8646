#!/usr/bin/env bash
# Installs those of the named packages that the machine lacks. Where it can't, it says so and goes on: the tests that
# need them then skip with their reason (with CI=true a skip is a failure).
set -euo pipefail
if ! command -v apt-get >/dev/null; then
  echo "tools: no apt-get here; the tests use these if you install them yourself: $*"
  exit 0
fi
missing=()
for package in "$@"; do
  [[ $(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null) == installed ]] || missing+=("$package")
done
((${#missing[@]})) || exit 0
if ((EUID)); then
  echo "tools: not root, so not installed; please run: sudo apt-get install ${missing[*]}"
  exit 0
fi
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq && apt-get install -y -qq --no-install-recommends "${missing[@]}" </dev/null ||
  echo "tools: apt-get could not install ${missing[*]} (see above)"
