#!/usr/bin/env python3
"""Installs the wheel of a folder into an empty environment under each Python that is here, and lets it chat."""

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from pythons import pythons

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
    for version, python in sorted(found.items()):
        check(python, wheel)
        print(f"Python {'.'.join(map(str, version))}: {wheel.name} installs and chats")


if __name__ == "__main__":
    main()
