#!/usr/bin/env bash
# What the C ABI costs beside Rust, and how large the library is with and without its parts.
set -euo pipefail
cd "$(dirname "$0")/../.."
prefix=$PWD/${CARGO_TARGET_DIR:-target}/bench-c
digi-ffi/install.sh "$prefix" >/dev/null
cc -std=c99 -D_GNU_SOURCE -O2 -I"$prefix/include" tests/load/c/session.c -o "$prefix/session" \
  -L"$prefix/lib" -ldigi -Wl,-rpath,"$prefix/lib"
cargo run --quiet --release -p digi-load -- c "$prefix/session"

echo -e "\nThe stripped shared library"
for features in mssql,redis,server,sqlite redis,server,sqlite mssql,server,sqlite mssql,redis,sqlite sqlite; do
  FEATURES=$features digi-ffi/install.sh "$prefix" >/dev/null
  printf '%-28s%8d KiB\n' "$features" $(($(stat -Lc %s "$prefix/lib/libdigi.so") / 1024))
done
