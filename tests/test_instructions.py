"""How many instructions the pure paths take that every message goes: a number that is the same on a busy machine.

It depends on the compiler and on the versions of dependencies. What they change, and what is meant to cost more, is
written down anew with DIGI_WRITE_INSTRUCTIONS=1.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
#: For each path the instructions of one time; in the first line, by which compiler.
BASELINE = ROOT / "tests/instructions/baseline.txt"
#: By how much a path may differ.
TOLERANCE = 0.03
#: How often a path is taken. The difference of the two is what so many more take.
FEW, MANY = 200, 1_200


@pytest.fixture(scope="module")
def program() -> Path:
    if not shutil.which("valgrind"):
        pytest.skip("valgrind is not installed")
    command = ["cargo", "build", "--quiet", "--release", "-p", "digi-instructions"]
    assert subprocess.run(command, cwd=ROOT).returncode == 0, "cargo could not build digi-instructions"
    return Path(os.environ.get("CARGO_TARGET_DIR") or ROOT / "target") / "release/digi-instructions"


def run(*command: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)


def instructions(program: Path, path: str, count: int) -> int:
    valgrind = ["valgrind", "--tool=cachegrind", "--cache-sim=no", "--cachegrind-out-file=/dev/null"]
    found = re.search(r"I\s+refs:\s+([\d,]+)", run(*valgrind, program, path, str(count)).stderr)
    assert found
    return int(found[1].replace(",", ""))


def compiler() -> str:
    return run("rustc", "--version").stdout.split(" (")[0]


def test_no_path_takes_more_instructions_than_are_written_down(program: Path) -> None:
    paths = run(program).stdout.split()
    counts = {path: [instructions(program, path, count) for count in (FEW, MANY)] for path in paths}
    each = {path: (many - few) // (MANY - FEW) for path, (few, many) in counts.items()}
    if os.environ.get("DIGI_WRITE_INSTRUCTIONS"):
        lines = [compiler(), *(f"{path} {number}" for path, number in each.items())]
        BASELINE.write_text("\n".join(lines) + "\n")
    written_by, *lines = BASELINE.read_text().splitlines()
    baseline = {path: int(number) for path, number in map(str.split, lines)}
    assert list(baseline) == paths
    off = [
        f"{path}: {each[path]} instead of {number} ({each[path] / number - 1:+.1%})"
        for path, number in baseline.items()
        if abs(each[path] / number - 1) > TOLERANCE
    ]
    assert not off, "\n".join(
        [
            *off,
            f"The figures are those of {written_by}, here is {compiler()}.",
            f"If this is meant: DIGI_WRITE_INSTRUCTIONS=1 .venv/bin/pytest {Path(__file__).relative_to(ROOT)}",
        ]
    )
