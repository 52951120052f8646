"""`kill -9` under load, again and again: what was acknowledged is stored, once, and the numbers have no gaps."""

import random
import shutil
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from websockets.exceptions import ConnectionClosed

from asgi_servers import AsgiServer
from chat_client import TIMEOUT, Client, Frame, connected
from conftest import Process, Server
from digi import Engine

KILLS = 20
WRITERS = ("alice", "alice", "bob", "bob")
# How many messages of a writer may wait for their acknowledgement.
IN_FLIGHT = 16
# Acknowledgements of one round, all writers together. With what is in flight less than the 1,000 changes within which
# a resend is recognised, and less than a connection may send at once.
MOST_ACKS = 400


class Load:
    """What the writers have sent and heard, over all rounds."""

    def __init__(self) -> None:
        self.changed = threading.Condition()
        self.acknowledged: dict[str, int] = {}
        self.resent = 0
        self.connected = 0
        self.may_send = True

    def wait(self, acks: int) -> None:
        """Waits until every writer is in, and so many acknowledgements have come since."""
        with self.changed:
            assert self.changed.wait_for(lambda: self.connected == len(WRITERS), TIMEOUT)
            enough = len(self.acknowledged) + acks
            assert self.changed.wait_for(lambda: len(self.acknowledged) >= enough, TIMEOUT)


class Writer:
    """Sends as fast as acknowledgements come. After a kill it resends what has none, in order, and goes on."""

    def __init__(self, load: Load, number: int) -> None:
        self.load = load
        self.user = WRITERS[number]
        self.number = number
        self.sent = 0
        self.waiting: dict[str, bool] = {}
        self.failure: BaseException | None = None

    def round(self, server: Process) -> None:
        try:
            with connected(server, self.user) as client:
                self._write(client)
        except (ConnectionClosed, ConnectionError, EOFError):
            pass  # the kill
        except BaseException as failure:
            self.failure = failure
            raise

    def _write(self, client: Client) -> None:
        client.expect("resumed")
        for client_id in self.waiting:
            client.send("add", message=client_id, client_id=client_id, resend=True)
        with self.load.changed:
            self.load.connected += 1
            self.load.resent += len(self.waiting)
            self.load.changed.notify_all()
        while True:
            while self.load.may_send and len(self.waiting) < IN_FLIGHT:
                client_id = f"{self.number}-{self.sent}"
                self.sent += 1
                self.waiting[client_id] = True
                client.send("add", message=client_id, client_id=client_id)
            if not self.waiting:
                return
            frame = client.receive()
            assert frame["type"] in ("ack", "add"), frame
            if frame["type"] == "ack":
                self._heard(frame)

    def _heard(self, ack: Frame) -> None:
        del self.waiting[ack["client_id"]]
        with self.load.changed:
            self.load.acknowledged[ack["client_id"]] = ack["pos"]
            self.load.changed.notify_all()


@contextmanager
def writing(load: Load, writers: list[Writer], server: Process) -> Iterator[None]:
    """All writers write until the block has ended and their connections are gone."""
    load.connected = 0
    threads = [threading.Thread(target=writer.round, args=(server,)) for writer in writers]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        for thread in threads:
            thread.join(TIMEOUT)
    assert [writer.failure for writer in writers] == [None] * len(writers)
    assert not any(thread.is_alive() for thread in threads)


OWN = "SELECT pos, client_id, body, sender_key FROM digi_message ORDER BY pos"
#: Of the project's own tables; a row there that has no number, or a number without its row, shows as a gap.
PROJECTS = (
    "SELECT log.seq, log.client_id, post.text, post.author FROM project_post AS post"
    " LEFT JOIN digi_log AS log ON log.message_id = post.id AND log.kind = 0 ORDER BY log.seq"
)
#: The same with UUIDs as keys.
UUIDS = PROJECTS.replace("project_post", "project_call").replace("message_id", "message_key")


def check(data: Path, copy: Path, acknowledged: dict[str, int]) -> int:
    """Looks at a copy, so that the server itself has to recover what the kill has left.

    Gives the number of messages that are stored, but whose acknowledgement the kill has swallowed.
    """
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(data, copy)
    with closing(sqlite3.connect(copy / "chat.db")) as database:
        is_native = database.execute("SELECT 1 FROM sqlite_master WHERE name = 'digi_journal'").fetchall()
    if is_native:
        # What is in the journal comes into the tables.
        with Engine("a secret of at least thirty-two bytes", f"sqlite:{copy / 'chat.db'}"):
            pass
    with closing(sqlite3.connect(copy / "chat.db")) as database:
        assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        is_own = not database.execute("SELECT 1 FROM sqlite_master WHERE name = 'project_post'").fetchall()
        has_keys = not is_own and database.execute("SELECT 1 FROM digi_room_key").fetchall()
        messages = database.execute(OWN if is_own else UUIDS if has_keys else PROJECTS).fetchall()
        changes = database.execute("SELECT seq FROM digi_change").fetchall()
        (last,) = database.execute("SELECT last_seq FROM digi_head").fetchone()
    numbers = sorted([pos for pos, *_ in messages] + [seq for (seq,) in changes])
    assert numbers == list(range(1, last + 1))
    stored = {client_id: pos for pos, client_id, *_ in messages}
    assert len(stored) == len(messages), "a message is there twice"
    assert all(client_id == body for _, client_id, body, _ in messages)
    assert all(WRITERS[int(client_id.split("-")[0])] == sender for _, client_id, _, sender in messages)
    assert acknowledged.items() <= stored.items()
    return len(stored) - len(acknowledged)


@pytest.fixture(params=["rust", "native", "orm", "project", "uuids"])
def killable(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Process]:
    """The Rust server, and Uvicorn with the engine in it, over the native store and over Django's connection, in
    Digi's own tables and in the project's, also with UUIDs as keys.
    """
    data = tmp_path / "data"
    if request.param == "rust":
        server: Process = Server(request.getfixturevalue("server_binary"), data)
    else:
        server = AsgiServer("uvicorn", data, request.param)
    with server.running():
        yield server


@pytest.mark.timeout(180)
def test_acknowledged_messages_survive_kills(killable: Process, tmp_path: Path) -> None:
    server = killable
    dice = random.Random(9)
    load = Load()
    writers = [Writer(load, number) for number in range(len(WRITERS))]
    swallowed = 0
    for _ in range(KILLS):
        with writing(load, writers, server):
            load.wait(dice.randint(1, MOST_ACKS))
            server.kill()
        swallowed += check(server.data, tmp_path / "copy", load.acknowledged)
        server.start()
    # The kills really came in the middle: of some resent messages the first was stored already, of others not.
    assert 0 < swallowed < load.resent

    load.may_send = False
    with writing(load, writers, server):
        pass
    assert not any(writer.waiting for writer in writers)
    assert len(load.acknowledged) == sum(writer.sent for writer in writers)
    with connected(server, "alice") as client:
        client.expect("resumed")
        newest = client.history(limit=200)
        assert newest["through"] == len(load.acknowledged)
        assert {
            message["message"]: message["pos"] for message in newest["messages"]
        }.items() <= load.acknowledged.items()
    server.stop()
    assert check(server.data, tmp_path / "copy", load.acknowledged) == 0
    acks = len(load.acknowledged)
    print(f"{KILLS} kills: {acks} acknowledged, {load.resent} resent, {swallowed} of which were stored before")
