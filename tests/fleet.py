"""A fleet: two gateways and one ASGI process on one database and one Redis, and the people who chat through them."""

import asyncio
import json
import os
import random
import sqlite3
import subprocess
import sys
import urllib.parse
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing, suppress
from pathlib import Path
from typing import Any

import psycopg
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import InvalidHandshake, WebSocketException

from asgi_app import SECRET
from asgi_servers import AsgiServer, free_port
from chat_client import TIMEOUT, Frame
from conftest import ROOT, Door, Process
from digi import TokenCipher

ROOMS = 20
PEOPLE = 200
# How many messages of one person wait for their acknowledgement, at the most.
IN_FLIGHT = 4
# Seconds, for everything to come to rest: comparisons with the store are up to 30 seconds apart.
SETTLING = 60.0


class Gateway(Process):
    """`fleet_node.py`."""

    def __init__(self, data: Path, environment: dict[str, str]) -> None:
        port = free_port()
        environment = environment | {"DIGI_DATA": str(data), "DIGI_PORT": str(port), "PYTHONUNBUFFERED": "1"}
        super().__init__([sys.executable, ROOT / "tests/fleet_node.py"], "gateway on ", data, environment)
        self.port = port

    def door(self, user: str) -> Door:
        raise NotImplementedError("a fleet's rooms are known to the fleet")


class Fleet:
    """The nodes, each with its own way to Redis, and the rooms with their members.

    The database is an SQLite file, which the native store has open in every node, or PostgreSQL on a port, through
    Django. Where it is a file, nodes hear of each other's changes without Redis, too.
    """

    def __init__(self, data: Path, layers: list[str], postgresql: int | None = None) -> None:
        self.data = data
        self._postgresql = postgresql
        environment = {"PYTHONPATH": str(ROOT / "tests")}
        if postgresql is not None:
            database = {"ENGINE": "django.db.backends.postgresql", "NAME": "digi", "USER": "postgres"}
            database |= {"HOST": "127.0.0.1", "PORT": str(postgresql)}
            environment |= {"DIGI_STORE": "orm", "DIGI_DATABASE": json.dumps(database)}
        self._asgi = environment | {"DIGI_LAYER": layers[0]}
        self.nodes: list[Process] = [Gateway(data, environment | {"DIGI_LAYER": layer}) for layer in layers[1:]]
        self.nodes.append(AsgiServer("uvicorn", data))
        self.members = [[f"u{room}-{number}" for number in range(PEOPLE // ROOMS)] for room in range(ROOMS)]
        lists = [",".join(members) for members in self.members]
        command = [sys.executable, str(ROOT / "tests/fleet_node.py"), "rooms", *lists]
        environment |= os.environ | {"DIGI_DATA": str(data)}
        made = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        assert made.returncode == 0, made.stderr
        self.tokens = made.stdout.split()

    def start(self, node: Process) -> None:
        node.start(**(self._asgi if isinstance(node, AsgiServer) else {}))

    def close(self) -> None:
        for node in self.nodes:
            node.close()

    def show(self) -> None:
        """Prints what the nodes have said, but for the comings and goings."""
        for node in self.nodes:
            print(*(line for line in node.output_lines if "connection" not in line and "WebSocket /" not in line))

    def stored(self) -> list[dict[int, tuple[str, str | None]]]:
        """By room and place: every message's token and text, which a deleted one has none of."""
        cipher = TokenCipher(SECRET)
        rooms: list[dict[int, tuple[str, str | None]]] = [{} for _ in self.tokens]
        ids = {cipher.open("room", token): at for at, token in enumerate(self.tokens)}
        for message, room, pos, body in self._query("SELECT id, room_id, pos, body FROM digi_message"):
            if room in ids:
                rooms[ids[room]][pos] = (cipher.seal("message", message), body)
        return rooms

    def client_ids(self) -> list[str]:
        rows = self._query("SELECT client_id FROM digi_message WHERE client_id IS NOT NULL")
        return [client_id for (client_id,) in rows]

    def _query(self, query: str) -> list[tuple[Any, ...]]:
        if self._postgresql is not None:
            where = f"host=127.0.0.1 port={self._postgresql} dbname=digi user=postgres"
            with psycopg.connect(where) as connection:
                return connection.execute(query.encode()).fetchall()
        with closing(sqlite3.connect(f"file:{self.data / 'chat.db'}?mode=ro", uri=True)) as database:
            return database.execute(query).fetchall()


class Person:
    """One client, which connects again wherever it can, resumes, and sends again what has no answer."""

    def __init__(self, crowd: "Crowd", room: int, user: str) -> None:
        self.crowd = crowd
        self.room = room
        self.user = user
        self.dice = random.Random(user)
        self.node: Process | None = None
        self.shown: dict[int, tuple[str, str | None]] = {}
        # What lies before is not loaded.
        self.oldest = 0
        self.epoch = ""
        self.cursor: int | None = None
        self.live = False
        self.waiting: dict[str, str] = {}
        self.acknowledged: set[str] = set()
        self.own: list[str] = []
        self.sent = 0

    async def run(self) -> None:
        while not self.crowd.over:
            node = self.dice.choice(self.crowd.fleet.nodes)
            query = {"as": self.user} | ({} if self.cursor is None else {"after": f"{self.epoch}.{self.cursor}"})
            path = f"ws/chat/{self.crowd.fleet.tokens[self.room]}/?{urllib.parse.urlencode(query)}"
            # Whatever breaks, the next connection begins where this one ended. What must not happen is an assertion's.
            with suppress(WebSocketException, InvalidHandshake, OSError, EOFError, TimeoutError):
                async with connect(node.ws_url + path, compression=None, open_timeout=TIMEOUT, max_size=None) as socket:
                    self.node = node
                    await self._talk(socket)
            self.live = False
            self.node = None
            await asyncio.sleep(self.dice.uniform(0.05, 0.4))

    async def _talk(self, socket: ClientConnection) -> None:
        async with asyncio.TaskGroup() as tasks:
            writing = tasks.create_task(self._write(socket))
            with suppress(WebSocketException):
                async for text in socket:
                    self._receive(json.loads(text), socket, tasks)
            writing.cancel()

    async def _write(self, socket: ClientConnection) -> None:
        with suppress(WebSocketException):
            while not self.crowd.over:
                await asyncio.sleep(self.dice.uniform(0.2, 1.2))
                if not self.live or not self.crowd.may_send or len(self.waiting) >= IN_FLIGHT:
                    continue
                if self.own and self.dice.random() < 0.3:
                    message = self.dice.choice(self.own)
                    kind, keys = "delete", {"message_id": message}
                    if self.dice.random() < 0.7:
                        kind, keys = "edit", keys | {"message": f"edited {self.dice.random()}"}
                    await socket.send(json.dumps({"type": kind, **keys}))
                    continue
                self.sent += 1
                client_id = f"{self.user}:{self.sent}"
                self.waiting[client_id] = f"{client_id} says something"
                await self._add(socket, client_id)

    async def _add(self, socket: ClientConnection, client_id: str, **keys: bool) -> None:
        frame = {"type": "add", "message": self.waiting[client_id], "client_id": client_id, **keys}
        with suppress(WebSocketException):
            await socket.send(json.dumps(frame))

    async def _resend(self, socket: ClientConnection) -> None:
        for client_id in list(self.waiting):
            if client_id in self.waiting:
                await self._add(socket, client_id, resend=True)

    def _receive(self, frame: Frame, socket: ClientConnection, tasks: asyncio.TaskGroup) -> None:
        kind = frame["type"]
        if kind in ("add", "edit", "delete"):
            self._change(frame)
        elif kind == "resumed":
            if self.cursor is None:
                # Others were faster: what they said before is not shown.
                self.oldest = int(frame["cursor"].partition(".")[2]) + 1
            self._go_live(frame["cursor"])
            tasks.create_task(self._resend(socket))
        elif kind == "reset":
            self.shown.clear()
            self.live = False
        elif kind == "history":
            self.shown = {message["pos"]: self._look(message) for message in frame["messages"]}
            self.oldest = min(self.shown, default=0) if frame.get("more") else 0
            self._go_live(frame["cursor"])
            tasks.create_task(self._resend(socket))
        elif kind == "ack":
            if self.waiting.pop(frame["client_id"], None) is not None:
                self.acknowledged.add(frame["client_id"])
                self.own.append(frame["message_id"])
                self.crowd.acks += 1
        elif kind == "error":
            # A store that is busy for a moment, or a message that was deleted meanwhile: nothing else may go wrong.
            assert frame["code"] in ("store_unavailable", "busy", "message_deleted", "no_such_message"), frame
            if frame.get("client_id") in self.waiting:
                tasks.create_task(self._add(socket, frame["client_id"], resend=True))
        else:
            raise AssertionError(frame)

    def _go_live(self, cursor: str) -> None:
        self.epoch, _, seq = cursor.partition(".")
        assert self.cursor is None or int(seq) >= self.cursor, "the cursor went back"
        self.cursor = int(seq)
        self.live = True
        assert self.node is not None
        self.crowd.served.add(self.node)

    def _change(self, frame: Frame) -> None:
        if self.live:
            assert self.cursor is not None
            assert frame["seq"] > self.cursor, f"{self.user} has seen {self.cursor} and is shown {frame}"
            self.cursor = frame["seq"]
        if frame["pos"] >= self.oldest:
            self.shown[frame["pos"]] = self._look(frame)

    @staticmethod
    def _look(message: dict[str, Any]) -> tuple[str, str | None]:
        deleted = message.get("type") == "delete" or message.get("deleted")
        return message["message_id"], None if deleted else message["message"]

    def differs(self, stored: dict[int, tuple[str, str | None]]) -> dict[int, tuple[object, object]]:
        """By place: what is shown and what is stored, where these aren't the same."""
        wanted = {pos: look for pos, look in stored.items() if pos >= self.oldest}
        places = sorted(self.shown.keys() | wanted.keys())
        pairs = {pos: (self.shown.get(pos), wanted.get(pos)) for pos in places}
        return {pos: pair for pos, pair in pairs.items() if pair[0] != pair[1]}


class Crowd:
    """All people of a fleet."""

    def __init__(self, fleet: Fleet) -> None:
        self.fleet = fleet
        self.acks = 0
        self.may_send = True
        self.over = False
        self.served: set[Process] = set()
        self.people = [Person(self, room, user) for room, users in enumerate(fleet.members) for user in users]

    async def until(self, what: str, seconds: float, holds: Any) -> None:
        """Waits until it holds, and no longer than that."""
        deadline = asyncio.get_running_loop().time() + seconds
        while not holds():
            assert asyncio.get_running_loop().time() < deadline, f"{what}: not within {seconds} s"
            await asyncio.sleep(0.02)

    async def more_acks(self, count: int) -> None:
        wanted = self.acks + count
        await self.until(f"{count} more acknowledgements", 2 * TIMEOUT, lambda: self.acks >= wanted)

    async def come_to_rest(self) -> None:
        """Nobody sends any more; in the end everybody shows what is stored."""
        self.may_send = False
        await self.until("everybody is in", SETTLING, lambda: all(person.live for person in self.people))
        await self.until("everything is answered", SETTLING, lambda: not any(p.waiting for p in self.people))
        # An edit has no answer, so it may be stored after everything else is: what is stored is read again each time.
        deadline = asyncio.get_running_loop().time() + SETTLING
        while wrong := self._wrong(await asyncio.to_thread(self.fleet.stored)):
            assert asyncio.get_running_loop().time() < deadline, f"what they show is not what is stored: {wrong}"
            await asyncio.sleep(0.1)
        client_ids = self.fleet.client_ids()
        assert len(client_ids) == len(set(client_ids)), "a message is stored twice"
        acknowledged = set().union(*(person.acknowledged for person in self.people))
        assert acknowledged <= set(client_ids), "an acknowledged message is not stored"
        assert self.acks == len(acknowledged)

    def _wrong(self, stored: list[dict[int, tuple[str, str | None]]]) -> dict[str, object]:
        wrong = {person.user: person.differs(stored[person.room]) for person in self.people}
        return {user: differences for user, differences in wrong.items() if differences}


@asynccontextmanager
async def crowd_of(fleet: Fleet) -> AsyncIterator[Crowd]:
    """Everybody is in, and chats until the block ends. What one of them must not see fails the test."""
    crowd = Crowd(fleet)
    async with asyncio.TaskGroup() as tasks:
        chatting = [tasks.create_task(person.run()) for person in crowd.people]
        await crowd.until("everybody is in", 2 * TIMEOUT, lambda: all(person.live for person in crowd.people))
        yield crowd
        crowd.over = True
        for task in chatting:
            task.cancel()
