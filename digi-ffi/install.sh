#!/usr/bin/env bash
# Puts libdigi, its headers, its pkg-config file and its CMake package below a prefix. FEATURES leaves parts out:
# FEATURES=sqlite,server make install (mssql, redis, server, sqlite; all by default).
set -euo pipefail
cd "$(dirname "$0")/.."
prefix=${1:?usage: digi-ffi/install.sh PREFIX}
version=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -1)
major=${version%%.*}
features=()
[[ -n ${FEATURES+set} ]] && features=(--no-default-features --features "$FEATURES")
cargo build --release --locked -p digi-ffi "${features[@]}"
built=${CARGO_TARGET_DIR:-target}/release

# DESTDIR is for those who make packages.
to=${DESTDIR:-}$prefix
install -d "$to/include" "$to/lib/pkgconfig" "$to/lib/cmake/digi"
install -m 644 include/digi.h include/digi.hpp "$to/include"
install -m 755 "$built/libdigi.so" "$to/lib/libdigi.so.$version"
install -m 644 "$built/libdigi.a" "$to/lib/libdigi.a"
strip --strip-unneeded "$to/lib/libdigi.so.$version"
strip --strip-debug "$to/lib/libdigi.a"
ln -sf "libdigi.so.$version" "$to/lib/libdigi.so.$major"
ln -sf "libdigi.so.$major" "$to/lib/libdigi.so"

cat >"$to/lib/pkgconfig/digi.pc" <<END
prefix=$prefix
libdir=\${prefix}/lib
includedir=\${prefix}/include

Name: digi
Description: A chat engine: stored, in one order, nothing lost and nothing doubled
Version: $version
Libs: -L\${libdir} -ldigi
Libs.private: -lpthread -ldl -lm
Cflags: -I\${includedir}
END

cat >"$to/lib/cmake/digi/digiConfig.cmake" <<END
# digi::digi is the shared library, digi::static the other one.
get_filename_component(_digi_prefix "\${CMAKE_CURRENT_LIST_DIR}/../../.." ABSOLUTE)
if(NOT TARGET digi::digi)
  add_library(digi::digi SHARED IMPORTED)
  set_target_properties(digi::digi PROPERTIES
    IMPORTED_LOCATION "\${_digi_prefix}/lib/libdigi.so.$version"
    IMPORTED_SONAME "libdigi.so.$major"
    INTERFACE_INCLUDE_DIRECTORIES "\${_digi_prefix}/include")
  add_library(digi::static STATIC IMPORTED)
  set_target_properties(digi::static PROPERTIES
    IMPORTED_LOCATION "\${_digi_prefix}/lib/libdigi.a"
    INTERFACE_LINK_LIBRARIES "pthread;dl;m"
    INTERFACE_INCLUDE_DIRECTORIES "\${_digi_prefix}/include")
endif()
unset(_digi_prefix)
END

cat >"$to/lib/cmake/digi/digiConfigVersion.cmake" <<END
set(PACKAGE_VERSION "$version")
if(PACKAGE_FIND_VERSION VERSION_GREATER PACKAGE_VERSION)
  set(PACKAGE_VERSION_COMPATIBLE FALSE)
elseif(PACKAGE_FIND_VERSION_MAJOR EQUAL $major)
  set(PACKAGE_VERSION_COMPATIBLE TRUE)
  if(PACKAGE_FIND_VERSION VERSION_EQUAL PACKAGE_VERSION)
    set(PACKAGE_VERSION_EXACT TRUE)
  endif()
else()
  set(PACKAGE_VERSION_COMPATIBLE FALSE)
endif()
END
size=$(stat -c %s "$to/lib/libdigi.so.$version")
echo "libdigi $version is below $prefix; the shared library has $((size / 1024)) KiB."
