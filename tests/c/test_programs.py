"""The C programs here, plainly, under AddressSanitizer and UndefinedBehaviorSanitizer, and under valgrind."""

from pathlib import Path

import pytest

from c_library import HERE, Library

PROGRAMS = ["arguments", "consumer", "frames", "many", "parts", "threads"]
SANITIZED = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
# What is lost for good. What a thread of the host's keeps until the process ends (Rust's own, per thread) is not.
VALGRIND = [
    "valgrind",
    "--quiet",
    "--fair-sched=yes",
    "--child-silent-after-fork=yes",
    "--error-exitcode=9",
    "--leak-check=full",
    "--show-leak-kinds=definite",
    "--errors-for-leak-kinds=definite",
]


@pytest.mark.parametrize("compiler", ["gcc", "clang"])
@pytest.mark.parametrize("name", PROGRAMS)
def test_as_it_is(library: Library, tmp_path: Path, name: str, compiler: str) -> None:
    library.run([library.compile(compiler, HERE / f"{name}.c", tmp_path / name)])


@pytest.mark.parametrize("name", PROGRAMS)
def test_with_sanitizers(library: Library, tmp_path: Path, name: str) -> None:
    library.run([library.compile("gcc", HERE / f"{name}.c", tmp_path / name, *SANITIZED)])


@pytest.mark.parametrize("name", PROGRAMS)
def test_under_valgrind(library: Library, tmp_path: Path, name: str) -> None:
    program = library.compile("gcc", HERE / f"{name}.c", tmp_path / name)
    # The forked child leaves what is its parent's, as it must.
    leaks = ["--leak-check=no"] if name == "threads" else []
    library.run([*VALGRIND, *leaks, program])


def test_a_hundred_thousand_sessions_leave_no_memory_behind(library: Library, tmp_path: Path) -> None:
    program = library.compile("gcc", HERE / "many.c", tmp_path / "many")
    early, late = map(int, library.run([program, "100000"]).split())
    # KiB. The room's thousand messages in memory are among it; a session left behind would be 3 KiB, a frame 200 bytes.
    assert late - early < 8_000, f"{early} KiB after a tenth, {late} KiB at the end"
