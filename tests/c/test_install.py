"""What lies below the prefix is enough: pkg-config, CMake, static linking."""

from pathlib import Path

from c_library import HERE, ROOT, Library, run


def test_what_is_there(library: Library) -> None:
    files = {str(path.relative_to(library.prefix)) for path in library.prefix.rglob("*") if not path.is_dir()}
    assert files == {
        "include/digi.h",
        "include/digi.hpp",
        "lib/cmake/digi/digiConfig.cmake",
        "lib/cmake/digi/digiConfigVersion.cmake",
        "lib/libdigi.a",
        "lib/libdigi.so",
        "lib/libdigi.so.0",
        "lib/libdigi.so.0.1.0",
        "lib/pkgconfig/digi.pc",
    }
    assert library.run(["pkg-config", "--modversion", "digi"]) == "0.1.0\n"


def test_a_static_program_needs_no_library(library: Library, tmp_path: Path) -> None:
    libraries = (
        library.run(["pkg-config", "--static", "--libs-only-l", "digi"]).replace("-ldigi", "-l:libdigi.a").split()
    )
    source, program = HERE / "arguments.c", tmp_path / "program"
    include = f"-I{library.prefix}/include"
    run(["gcc", "-std=c99", include, source, "-o", program, f"-L{library.prefix}/lib", *libraries])
    run([program])
    assert "libdigi" not in run(["ldd", program])


def test_cmake_finds_both_and_no_other_version(library: Library, tmp_path: Path) -> None:
    (tmp_path / "CMakeLists.txt").write_text(
        "cmake_minimum_required(VERSION 3.16)\n"
        "project(both C)\n"
        "find_package(digi 9 QUIET)\n"
        'if(digi_FOUND)\n  message(FATAL_ERROR "found version 9")\nendif()\n'
        "find_package(digi 0.1 REQUIRED)\n"
        f"foreach(kind digi static)\n  add_executable(with_${{kind}} {HERE / 'consumer.c'})\n"
        "  target_link_libraries(with_${kind} PRIVATE digi::${kind})\nendforeach()\n"
    )
    library.run(["cmake", "-S", tmp_path, "-B", tmp_path / "out", f"-DCMAKE_PREFIX_PATH={library.prefix}"])
    library.run(["cmake", "--build", tmp_path / "out"])
    for kind in ("digi", "static"):
        library.run([tmp_path / "out" / f"with_{kind}"])


def test_prefix_is_not_where_a_package_is_put_together(tmp_path: Path) -> None:
    run(["make", "install", "PREFIX=/opt/digi", f"DESTDIR={tmp_path}"], cwd=ROOT)
    assert "prefix=/opt/digi\n" in (tmp_path / "opt/digi/lib/pkgconfig/digi.pc").read_text()
