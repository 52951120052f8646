"""What the documents show of Python runs: the blocks of the pages, and the examples in the docstrings."""

import ast
import doctest
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

import digi
from conftest import ROOT

#: Seconds that the blocks of a page may take together.
TIMEOUT = 60
FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
#: Runs the blocks of a page, one after the other in one namespace, as somebody does who types them in.
RUNNER = """
import json, sys
names = {"__name__": "__main__"}
for page, line, text in json.load(sys.stdin):
    # So that a traceback names the page's line.
    exec(compile("\\n" * line + text, page, "exec"), names)
"""


class Block(NamedTuple):
    page: str
    line: int
    text: str

    def compile(self) -> None:
        compile("\n" * self.line + self.text, self.page, "exec")


def blocks(page: Path, language: str) -> list[Block]:
    """The code blocks of a page that are marked with a language."""
    text = page.read_text()
    return [
        Block(str(page.relative_to(ROOT)), text.count("\n", 0, found.start(2)), found[2])
        for found in FENCE.finditer(text)
        if found[1] == language
    ]


def pages() -> list[Path]:
    listed = subprocess.run(["git", "ls-files", "*.md"], cwd=ROOT, capture_output=True, text=True, check=True)
    return [ROOT / name for name in listed.stdout.splitlines()]


PAGES = {page: found for page in pages() if (found := blocks(page, "python"))}


@pytest.mark.parametrize("page", list(PAGES), ids=lambda page: str(page.relative_to(ROOT)))
def test_the_blocks_of_a_page_run(page: Path, tmp_path: Path) -> None:
    found = [block for block in PAGES[page] if "..." not in block.text]
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", RUNNER],
        input=json.dumps(found),
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_block_compiles() -> None:
    found = [block for page in pages() for language in ("py", "python") for block in blocks(page, language)]
    assert len(found) > 10
    for block in found:
        block.compile()


def test_the_table_of_bounds_is_complete() -> None:
    text = (ROOT / "docs/python.md").read_text()
    rows = re.findall(r"^\| `(\w+)` \| ([\d,]+) \|", text, re.MULTILINE)
    assert {name: int(default.replace(",", "")) for name, default in rows} == dict(digi.Engine.LIMITS)


def test_the_table_of_exceptions_is_complete() -> None:
    text = (ROOT / "docs/python.md").read_text()
    table = set(re.findall(r"^\| `(\w+)` \| `\w+` \|", text, re.MULTILINE))
    raised = {name for name, kind in vars(digi).items() if isinstance(kind, type) and issubclass(kind, Exception)}
    assert table == raised


def examples() -> Iterator[doctest.DocTest]:
    """Every docstring with a prompt in it. The sources are read, not imported: the stubs can't be."""
    parser = doctest.DocTestParser()
    package = ROOT / "python" / "digi"
    for path in sorted([*package.rglob("*.py"), *package.rglob("*.pyi")]):
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                continue
            name = f"{path.relative_to(package)}:{getattr(node, 'name', 'module')}"
            found = parser.get_doctest(ast.get_docstring(node) or "", {}, name, str(path), getattr(node, "lineno", 0))
            if found.examples:
                yield found


@pytest.mark.parametrize("example", list(examples()), ids=lambda example: example.name)
def test_the_examples_in_docstrings_run(
    example: doctest.DocTest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    said: list[str] = []
    doctest.DocTestRunner().run(example, out=said.append)
    assert said == []
