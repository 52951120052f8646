"""include/digi.h and digi.hpp: what they show works, and every compiler takes them."""

import re
from pathlib import Path

import pytest

import digi
from c_library import ROOT, Library


def usage() -> str:
    """The program at the header's top."""
    header = (ROOT / "include/digi.h").read_text()
    found = re.search(r"^ \* usage:\n(.*?)^ \* end of usage$", header, re.DOTALL | re.MULTILINE)
    assert found
    return "".join(line.removeprefix(" *").removeprefix("   ") + "\n" for line in found[1].splitlines())


@pytest.mark.parametrize("compiler", ["gcc", "clang"])
def test_the_usage_at_the_top_compiles_and_runs(library: Library, tmp_path: Path, compiler: str) -> None:
    source = tmp_path / "usage.c"
    source.write_text(usage())
    lines = library.run([library.compile(compiler, source, tmp_path / "usage")]).splitlines()
    assert [re.sub(r"\d{10,}|\"(message_id|at)\":\"[^\"]*\",?", "", line) for line in lines] == [
        f'{name}: {{"type":"{rest}'
        for rest in ('resumed","cursor":".0"}', 'add","message":"hello","user":"alice","seq":1,"pos":1,}')
        for name in ("alice", "bob")
    ]


@pytest.mark.parametrize("compiler", ["g++", "clang++"])
@pytest.mark.parametrize("header", ["digi.h", "digi.hpp"])
def test_the_headers_are_cpp(library: Library, tmp_path: Path, compiler: str, header: str) -> None:
    source = tmp_path / "include.cpp"
    source.write_text(f"#include <{header}>\n#include <{header}>\nint main() {{ return digi_version() == nullptr; }}\n")
    library.run([library.compile(compiler, source, tmp_path / "program")])


def test_the_page_lists_every_setting() -> None:
    page = (ROOT / "docs/c.md").read_text()
    rows = re.findall(r"^\| `(\w+)` \| (\d+) \|$", page, re.MULTILINE)
    assert {name: int(default) for name, default in rows} == dict(digi.Engine.LIMITS)


def test_the_header_lists_every_bound() -> None:
    header = (ROOT / "include/digi.h").read_text()
    found = re.search(r"The bounds with their defaults.*?\. *\n// *\n", header, re.DOTALL)
    assert found
    text = " ".join(line.removeprefix("//").strip() for line in found[0].splitlines())
    bounds = re.findall(r"`(\w+)` (\d+)[,.]", text)
    assert {name: int(default) for name, default in bounds} == dict(digi.Engine.LIMITS)
