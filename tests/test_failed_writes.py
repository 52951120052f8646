"""A disk that fails once, and a power cut after that: what was acknowledged before and behind it is stored, once."""

import os
import shutil
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from c_library import ROOT, STRICT, C, run
from digi import Engine

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the disk that fails is made for Linux")

SECRET = "a secret of at least thirty-two bytes"
TIMEOUT = 30.0
#: Posts what it reads, a line each, and says what became of it.
CHAT = f"""
import sys, digi
with digi.Engine("{SECRET}", "sqlite:" + sys.argv[1]) as engine:
    print(engine.create_room([("1", "alice", "member")]).result(), flush=True)
    for line in sys.stdin:
        try:
            print(engine.post(1, "1", "alice", line.strip()).result().kind, flush=True)
        except digi.DigiError as error:
            print(error.code, flush=True)
"""


class Chat:
    """A process with an engine, on a disk that fails when it is told to."""

    def __init__(self, process: subprocess.Popen[str], database: Path) -> None:
        self.process = process
        self.database = database
        self.acknowledged: list[str] = []
        self.count = 0
        assert self.read() == "1"

    def read(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def post(self) -> str:
        """What became of the next message."""
        assert self.process.stdin is not None
        self.count += 1
        print(self.count, file=self.process.stdin, flush=True)
        answer = self.read()
        if answer == "added":
            self.acknowledged.append(str(self.count))
        return answer

    def wait_until_placed(self) -> None:
        until = time.monotonic() + TIMEOUT
        with closing(sqlite3.connect(f"file:{self.database}?mode=ro", uri=True)) as database:
            while database.execute("SELECT count(*) FROM digi_journal").fetchone() != (0,):
                assert time.monotonic() < until, "nothing is placed"
                time.sleep(0.01)

    def cut_power(self, after: Path) -> Path:
        """The database as the disk has it; the memory, and with it the `-shm`, is gone."""
        self.process.kill()
        self.process.wait()
        after.mkdir()
        for name in (self.database.name, f"{self.database.name}-wal"):
            shutil.copy(self.database.with_name(f"{name}.disk"), after / name)
        return after / self.database.name


@contextmanager
def chatting(tmp_path: Path) -> Iterator[Chat]:
    disk = tmp_path / "failing_disk.so"
    flags = [*C, *STRICT, "-shared", "-fPIC", "-pthread"]
    run(["gcc", *flags, ROOT / "tests/failing_disk.c", "-o", disk])
    database = tmp_path / "chat.db"
    with subprocess.Popen(
        [sys.executable, "-c", CHAT, database],
        env={**os.environ, "LD_PRELOAD": str(disk)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield Chat(process, database)
        finally:
            process.kill()


@pytest.mark.parametrize("times", [1, 3])
def test_acknowledged_messages_survive_a_power_cut_after_a_failed_write(tmp_path: Path, times: int) -> None:
    with chatting(tmp_path) as chat:
        for _ in range(3):
            assert [chat.post() for _ in range(5)] == ["added"] * 5
            chat.wait_until_placed()
            (tmp_path / "chat.db-wal.fail").write_bytes(bytes(times))
            assert [chat.post() for _ in range(times)] == ["store_unavailable"] * times
            assert [chat.post() for _ in range(5)] == ["added"] * 5
        found = chat.cut_power(tmp_path / "after")
        acknowledged = chat.acknowledged
    with Engine(SECRET, f"sqlite:{found}") as engine:
        assert [message.body for message in engine.history(1).result()] == acknowledged
    with closing(sqlite3.connect(found)) as stored:
        assert stored.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    assert not list(tmp_path.glob("*.fail")), "not everything has failed that was to"
