#!/usr/bin/env python3
"""The Pythons that are here. As a program: `pythons.py 3.12` prints the newest one's path, if it is of that version."""

import os
import re
import subprocess
import sys
from pathlib import Path

OLDEST = (3, 10)

Version = tuple[int, ...]


def pythons() -> dict[Version, Path]:
    """Every Python that Digi is for, by version."""
    folders = [Path(folder) for folder in os.get_exec_path()]
    folders += sorted(Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")).glob("versions/*/bin"))
    found: dict[Version, Path] = {}
    for folder in folders:
        for program in sorted(folder.glob("python3*")) if folder.is_dir() else []:
            if not re.fullmatch(r"python3(\.\d+)?", program.name):
                continue
            asked = subprocess.run(
                [program, "-c", "import sys, ensurepip; print(*sys.version_info[:2])"], capture_output=True, text=True
            )
            version = tuple(int(part) for part in asked.stdout.split())
            if asked.returncode == 0 and version >= OLDEST:
                found.setdefault(version, program)
    return found


def main() -> None:
    newest, program = max(pythons().items(), default=((), None))
    if newest >= tuple(int(part) for part in sys.argv[1].split(".")):
        print(program)


if __name__ == "__main__":
    main()
