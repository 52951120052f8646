#!/usr/bin/env python3
"""Installs the wheel of a folder into an empty environment under each Python that is here, and lets it chat."""

import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

OLDEST = (3, 10)
CHAT = """
import asyncio, digi

async def main():
    async with digi.Engine("a secret of at least thirty-two bytes", "sqlite:chat.db") as engine:
        room = await engine.create_room([("1", "alice", "member")])
        async with await engine.connect(engine.cipher.seal("room", room), "1", "alice") as session:
            await session.receive('{"message": "hello"}')
            async for frames in session:
                if any('"hello"' in frame for frame in frames):
                    return

asyncio.run(main())
"""


def pythons() -> dict[str, Path]:
    """Every Python of a version that the wheel is for, by version."""
    folders = [Path(folder) for folder in os.get_exec_path()]
    folders += sorted(Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")).glob("versions/*/bin"))
    found: dict[str, Path] = {}
    for folder in folders:
        for program in sorted(folder.glob("python3*")) if folder.is_dir() else []:
            if not re.fullmatch(r"python3(\.\d+)?", program.name):
                continue
            asked = subprocess.run(
                [program, "-c", "import sys, ensurepip; print(*sys.version_info[:2])"], capture_output=True, text=True
            )
            version = tuple(int(part) for part in asked.stdout.split())
            if asked.returncode == 0 and version >= OLDEST:
                found.setdefault(".".join(map(str, version)), program)
    return found


def check(python: Path, wheel: Path) -> None:
    folder = Path(tempfile.mkdtemp(prefix="digi-wheel-"))
    try:
        subprocess.run([python, "-m", "venv", folder / "venv"], check=True)
        inside = folder / "venv/bin/python"
        pip: list[str | Path] = [inside, "-m", "pip", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*pip, "install", "--no-index", wheel], check=True)
        subprocess.run([inside, "-c", CHAT], check=True, cwd=folder, timeout=60)
    finally:
        shutil.rmtree(folder)


def main() -> None:
    [wheel] = Path(sys.argv[1]).resolve().glob("*.whl")
    found = pythons()
    if not found:
        sys.exit("no Python of version 3.10 or later is here")
    for version, python in found.items():
        check(python, wheel)
        print(f"Python {version}: {wheel.name} installs and chats")


if __name__ == "__main__":
    main()
