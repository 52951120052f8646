"""The ways of the channel layer to other processes: Redis, in the two formats of channels_redis 4.3.

Both are those of the package's own layers (`channels_redis.pubsub.RedisPubSubChannelLayer`,
`channels_redis.core.RedisChannelLayer`), so that processes with either may be in one fleet.
"""

from __future__ import annotations

import asyncio
import base64
import copy
import functools
import hashlib
import itertools
import logging
import random
import secrets
import threading
import time
import uuid
import zlib
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any, Protocol
from urllib.parse import unquote

import msgpack
from channels.exceptions import ChannelFull

from digi._digi import RedisLink

logger = logging.getLogger(__name__)

Message = dict[str, Any]
Command = list[bytes]

#: Seconds after which a reader looks anew.
WAIT = 5
#: Seconds at one of several servers before the next one is looked at.
TURN = b"0.05"
#: Seconds between two attempts to read where Redis is away.
RETRY = 0.5
#: How many messages are taken at once.
TOGETHER = 1_000
#: What `random_prefix_length` is in the core format, where a sorted set must not have two of the same.
PREFIX = 12


class Local(Protocol):
    """What a transport hands what has come to."""

    def arrived(self, messages: Iterable[tuple[str | None, str, Message]]) -> None:
        """Messages for a group (if one is named) or a channel, in their order."""

    def capacity_of(self, channel: str) -> int:
        """How many messages wait in a channel."""


class Serializer:
    """Messages as MessagePack, encrypted if there are keys."""

    def __init__(self, keys: Sequence[str | bytes], prefix: int, ttl: int | None) -> None:
        self._prefix = prefix
        self._ttl = ttl
        self._crypter = _crypter(keys) if keys else None

    def write(self, message: Mapping[str, Any]) -> bytes:
        """Raises what msgpack raises for values that it does not know."""
        payload: bytes = msgpack.packb(message)
        if self._crypter is not None:
            payload = self._crypter.encrypt(payload)
        return random.randbytes(self._prefix) + payload if self._prefix else payload

    def read(self, payload: bytes) -> Message | None:
        """None, and a line in the log, for what is no message."""
        try:
            payload = payload[self._prefix :]
            if self._crypter is not None:
                payload = self._crypter.decrypt(payload, self._ttl)
            message = msgpack.unpackb(payload, strict_map_key=False)
        except Exception as error:
            logger.warning("what came over Redis is no message and is dropped: %s", type(error).__name__)
            return None
        return message if isinstance(message, dict) else None


def _crypter(keys: Sequence[str | bytes]) -> Any:
    from cryptography.fernet import Fernet, MultiFernet

    secrets_ = [key.encode() if isinstance(key, str) else key for key in keys]
    return MultiFernet([Fernet(base64.urlsafe_b64encode(hashlib.sha256(key).digest())) for key in secrets_])


def host_of(name: str, size: int) -> int:
    """The host that a name belongs to, of so many: `channels_redis.utils._consistent_hash`."""
    return 0 if size == 1 else int((zlib.crc32(name.encode()) & 0xFFF) / (4096 / float(size)))


def link(url: str, *, waits: bool = False) -> RedisLink:
    """The way to the server that a URL names; what is for TLS stands behind its ?, as the bridge has it."""
    url, _, query = url.partition("?")
    if "@" in query:
        # Nothing of it is shown: it is a part of the password.
        raise ValueError("of a Redis URL, the password ends too early: write @ : / ? # in it percent-encoded")
    files = {name: unquote(value) for name, _, value in (pair.partition("=") for pair in query.split("&") if pair)}
    if unknown := files.keys() - {"ca", "cert", "key"}:
        raise ValueError(f"a Redis URL has no option {min(unknown)!r}: there are ca, cert and key")
    if files and not url.startswith("rediss://"):
        raise ValueError("ca, cert and key in a Redis URL are for TLS: write rediss:// for redis://")
    return RedisLink(url, waits=waits, ca=files.get("ca"), cert=files.get("cert"), key=files.get("key"))


class _Turn:
    """What one event loop asks."""

    __slots__ = ("is_due", "under_way", "waiting")

    def __init__(self, hosts: int) -> None:
        #: Of each server, what waits: commands, and who wants the answers.
        self.waiting: list[_Asked] = [[] for _ in range(hosts)]
        self.is_due = False
        #: How many batches have no answer yet.
        self.under_way = 0


_Asked = list[tuple[tuple[Command, ...], "asyncio.Future[list[Any]]"]]


class Hosts:
    """The Redis servers, and what is said to them: what an event loop says first goes out at once, and as long as there
    is no answer, all that it says in one turn together.
    """

    def __init__(self, urls: Sequence[str]) -> None:
        self.urls = list(urls)
        self.links = [link(url) for url in urls]
        self._turns: dict[asyncio.AbstractEventLoop, _Turn] = {}

    def of(self, name: str) -> int:
        """The number of the server for a name."""
        return host_of(name, len(self.links))

    def ask(self, host: int, *commands: Command) -> asyncio.Future[list[Any]]:
        """The answers to commands, which are done one after the other, or `ConnectionError`."""
        loop = asyncio.get_running_loop()
        turn = self._turns.get(loop) or self._begin(loop)
        future: asyncio.Future[list[Any]] = loop.create_future()
        if turn.under_way == 0:
            self._submit(turn, host, [(commands, future)])
            return future
        turn.waiting[host].append((commands, future))
        if not turn.is_due:
            turn.is_due = True
            loop.call_soon(self._send, turn)
        return future

    def _begin(self, loop: asyncio.AbstractEventLoop) -> _Turn:
        for other in list(self._turns):
            if other.is_closed():
                self._turns.pop(other, None)
        turn = self._turns[loop] = _Turn(len(self.links))
        return turn

    def _send(self, turn: _Turn) -> None:
        turn.is_due = False
        for host, asked in enumerate(turn.waiting):
            if asked:
                turn.waiting[host] = []
                self._submit(turn, host, asked)

    def _submit(self, turn: _Turn, host: int, asked: _Asked) -> None:
        turn.under_way += 1
        done = functools.partial(_answer, turn, asked)
        try:
            self.links[host].submit([command for commands, _ in asked for command in commands], done)
        except Exception as error:
            done(None, error)


def _answer(turn: _Turn, asked: _Asked, answers: list[Any] | None, error: Exception | None) -> None:
    turn.under_way -= 1
    first = 0
    for commands, future in asked:
        last = first + len(commands)
        # Whoever asked may have been cancelled.
        if not future.done():
            if error is not None:
                # Each raises its own: a traceback belongs to one.
                future.set_exception(copy.copy(error))
            elif answers is not None:
                future.set_result(answers[first:last])
        first = last


class PubSub:
    """The format of `RedisPubSubChannelLayer`: a Redis channel for every channel and every group."""

    #: Whether a channel has to be opened before others can send to it, and who receives to be counted.
    opens, counts = True, False

    def __init__(self, local: Local, hosts: Hosts, serializer: Serializer, prefix: str) -> None:
        self._local = local
        self._hosts = hosts
        self._serializer = serializer
        self._prefix = prefix
        self._groups = self._group("")
        self._readers = [_Reader(link, self._hand_on) for link in hosts.links]

    def new_name(self, prefix: str) -> str:
        """As the package makes them."""
        return f"{self._prefix}{prefix}{'' if prefix.endswith('.') else '.'}{uuid.uuid4().hex}"

    def _group(self, group: str) -> str:
        return f"{self._prefix}__group__{group}"

    async def open(self, channel: str) -> None:
        """From now on what is sent to a channel comes."""
        await self._subscribe(channel)

    def close(self, channels: Iterable[str], groups: Iterable[str]) -> None:
        """Nobody receives there any more; it need not be waited for."""
        for name in (*channels, *map(self._group, groups)):
            self._hosts.links[self._hosts.of(name)].unsubscribe([name])

    def group_add(self, group: str, channel: str) -> Awaitable[None]:
        """A channel here is in a group. Begins at once, and is to be awaited."""
        del channel
        # Once more where it is subscribed to: the first one may still be waiting for that.
        return self._subscribe(self._group(group))

    def group_discard(self, group: str, channel: str, was_last: bool) -> Awaitable[None]:
        """It no longer is; it was the last one of this process. Begins at once."""
        del channel
        if not was_last:
            return _nothing()
        name = self._group(group)
        return self._hosts.links[self._hosts.of(name)].unsubscribe([name])

    async def send(self, channel: str, message: Message) -> None:
        """To a channel of whatever process."""
        await self._publish(channel, message)

    async def group_send(self, group: str, message: Message) -> None:
        """To all processes that have channels in the group."""
        await self._publish(self._group(group), message)

    async def _publish(self, name: str, message: Message) -> None:
        command = [b"PUBLISH", name.encode(), self._serializer.write(message)]
        await self._hosts.ask(self._hosts.of(name), command)

    def _hand_on(self, messages: list[tuple[bytes, bytes]]) -> None:
        groups, arrived = self._groups, []
        for raw, payload in messages:
            name = raw.decode()
            if (message := self._serializer.read(payload)) is not None:
                group = name[len(groups) :] if name.startswith(groups) else None
                arrived.append((group, name, message))
        self._local.arrived(arrived)

    async def flush(self) -> None:
        """Redis keeps nothing."""

    def _subscribe(self, name: str) -> Awaitable[None]:
        reader = self._readers[self._hosts.of(name)]
        reader.begin()
        return reader.link.subscribe([name], reader.take)


class _Reader:
    """Takes what comes from a server, and hands it on in the order in which it has come."""

    def __init__(self, link: RedisLink, hand_on: Callable[[list[tuple[bytes, bytes]]], None]) -> None:
        self.link = link
        self._hand_on = hand_on
        self._has_begun = False
        self._lock = threading.Lock()

    def begin(self) -> None:
        """With a thread for what no event loop takes."""
        if not self._has_begun:
            self._has_begun = True
            _in_thread("digi-pubsub", self._take_what_is_left)

    def take(self) -> None:
        """Called by the event loop that subscribed last, and by the thread."""
        with self._lock:
            self._hand_on(self.link.take())

    def _take_what_is_left(self) -> None:
        while True:
            self.link.is_left().result()
            self.take()


async def _nothing() -> None:
    pass


#: Keys: those of the channels. Arguments: a payload each, a capacity each, the score, the expiry. As the package's own.
_ADD = b"""
local full = {}
local now, expiry = ARGV[#ARGV - 1], ARGV[#ARGV]
for i = 1, #KEYS do
    redis.call('ZREMRANGEBYSCORE', KEYS[i], '-inf', tonumber(now) - tonumber(expiry))
    if redis.call('ZCARD', KEYS[i]) < tonumber(ARGV[#KEYS + i]) then
        redis.call('ZADD', KEYS[i], now, ARGV[i])
        redis.call('EXPIRE', KEYS[i], expiry)
    else
        full[#full + 1] = i
    end
end
return full
"""

_DELETE = b"""
local keys = redis.call('KEYS', ARGV[1])
for i = 1, #keys, 5000 do
    redis.call('DEL', unpack(keys, i, math.min(i + 4999, #keys)))
end
"""


class Core:
    """The format of `RedisChannelLayer`: sorted sets, one for all channels of a process and one for every other channel
    and every group.
    """

    opens, counts = False, True

    def __init__(
        self, local: Local, hosts: Hosts, serializer: Serializer, prefix: str, expiry: int, group_expiry: int
    ) -> None:
        self._local = local
        self._hosts = hosts
        self._serializer = serializer
        self._prefix = prefix
        self._expiry = expiry
        self._group_expiry = group_expiry
        self._client = uuid.uuid4().hex
        self._reading: set[str] = set()
        #: Channels that belong to no process: how many receivers wait.
        self._wanted: defaultdict[str, int] = defaultdict(int)
        self._lock = threading.Lock()
        self._last_score = 0.0

    def new_name(self, prefix: str) -> str:
        """As the package makes them."""
        return f"{prefix.rstrip('.')}.{self._client}!{secrets.token_hex(16)}"

    async def open(self, channel: str) -> None:
        """What is sent to this process's channels comes from now on."""
        place = _place(channel)
        if "!" not in channel or not place.endswith(f"{self._client}!"):
            return
        if self._begins(place):
            for url in self._hosts.urls:
                # Where the package's `send` puts what is for one channel depends on its whole name: it may be any host.
                _in_thread("digi-core", self._read_own, place, url)

    def close(self, channels: Iterable[str], groups: Iterable[str]) -> None:
        """They have nothing of their own at Redis."""

    def _key(self, place: str) -> bytes:
        return f"{self._prefix}{place}".encode()

    def _group(self, group: str) -> bytes:
        return f"{self._prefix}:group:{group}".encode()

    def _score(self) -> bytes:
        """The time, and no two the same: what is sent first comes first."""
        self._last_score = max(time.time(), self._last_score + 1e-6)
        return b"%.6f" % self._last_score

    async def group_add(self, group: str, channel: str) -> None:
        """Any channel, of any process."""
        key = self._group(group)
        await self._hosts.ask(
            self._hosts.of(group),
            [b"ZADD", key, b"%.6f" % time.time(), channel.encode()],
            [b"EXPIRE", key, b"%d" % self._group_expiry],
        )

    async def group_discard(self, group: str, channel: str, was_last: bool) -> None:
        """The same."""
        del was_last
        await self._hosts.ask(self._hosts.of(group), [b"ZREM", self._group(group), channel.encode()])

    async def send(self, channel: str, message: Message) -> None:
        """Raises `ChannelFull`."""
        if "!" in channel:
            message = message | {"__asgi_channel__": channel}
            host = self._hosts.of(_place(channel))
        else:
            host = random.randrange(len(self._hosts.links))
        item = (self._key(_place(channel)), self._serializer.write(message), self._local.capacity_of(channel))
        if await self._add(host, [item]):
            raise ChannelFull(channel)

    async def group_send(self, group: str, message: Message) -> None:
        """To all channels of the group that have room."""
        key, host = self._group(group), self._hosts.of(group)
        expired = b"%d" % (int(time.time()) - self._group_expiry)
        _, members = await self._hosts.ask(
            host, [b"ZREMRANGEBYSCORE", key, b"0", expired], [b"ZRANGE", key, b"0", b"-1"]
        )
        places: defaultdict[str, list[str]] = defaultdict(list)
        for member in members:
            channel = member.decode()
            places[_place(channel)].append(channel)
        by_host: defaultdict[int, list[tuple[bytes, bytes, int]]] = defaultdict(list)
        for place, channels in places.items():
            payload = self._serializer.write(message | {"__asgi_channel__": channels})
            by_host[self._hosts.of(place)].append((self._key(place), payload, self._local.capacity_of(channels[0])))
        full = sum(await asyncio.gather(*(self._add(host, items) for host, items in by_host.items())))
        if full:
            logger.info("%d places for channels of group %s are full", full, group)

    async def _add(self, host: int, items: Sequence[tuple[bytes, bytes, int]]) -> int:
        """Adds to sorted sets; how many were full."""
        keys, payloads, capacities = zip(*items, strict=True)
        command = [b"EVAL", _ADD, b"%d" % len(keys), *keys, *payloads, *(b"%d" % capacity for capacity in capacities)]
        [full] = await self._hosts.ask(host, [*command, self._score(), b"%d" % self._expiry])
        return len(full)

    def wanted(self, channel: str) -> None:
        """Somebody waits at a channel that belongs to no process: one message is taken for each who does."""
        with self._lock:
            self._wanted[channel] += 1
        if self._begins(channel):
            _in_thread("digi-core", self._read_shared, channel)

    def _begins(self, place: str) -> bool:
        """Whether nobody reads there yet."""
        with self._lock:
            if place in self._reading:
                return False
            self._reading.add(place)
            return True

    def _read_own(self, place: str, url: str) -> None:
        """What is for this process, all that waits at once."""
        key = self._key(place)
        commands = [[b"BZPOPMIN", key, b"%d" % WAIT], [b"ZPOPMIN", key, b"%d" % TOGETHER]]
        # A connection that waits can do nothing else.
        own = link(url, waits=True)
        while True:
            try:
                first, rest = own.run(commands).result()
            except ConnectionError:
                time.sleep(RETRY)
                continue
            payloads = [] if first is None else [first[1]]
            self._hand_on(place, payloads + _members(rest))

    def _read_shared(self, channel: str) -> None:
        """One message for each who waits, and no more: others may wait for the rest."""
        key, links = self._key(channel), [link(url, waits=True) for url in self._hosts.urls]
        # The package's `send` takes any of the hosts, and so each is looked at in turn.
        command = [b"BZPOPMIN", key, b"%d" % WAIT if len(links) == 1 else TURN]
        for host in itertools.cycle(links):
            with self._lock:
                if channel not in self._wanted:
                    self._reading.discard(channel)
                    return
            try:
                [popped] = host.run([command]).result()
            except ConnectionError:
                time.sleep(RETRY)
                continue
            if popped is not None:
                self.unwanted(channel)
                self._hand_on(channel, [popped[1]])

    def _hand_on(self, place: str, payloads: Iterable[bytes]) -> None:
        messages = [message for payload in payloads if (message := self._serializer.read(payload)) is not None]
        if messages:
            self._local.arrived(_spread(place, messages))

    def unwanted(self, channel: str) -> None:
        """One receiver less."""
        with self._lock:
            left = self._wanted.pop(channel, 0) - 1
            if left > 0:
                self._wanted[channel] = left

    async def flush(self) -> None:
        """Deletes all keys that begin so, as the package does."""
        for host in range(len(self._hosts.links)):
            await self._hosts.ask(host, [b"EVAL", _DELETE, b"0", f"{self._prefix}*".encode()])


def _place(channel: str) -> str:
    """Where what is for a channel waits: of a process's channels, all in one place."""
    return channel[: channel.find("!") + 1] or channel


def _members(popped: list[Any]) -> list[bytes]:
    """The members out of an answer of ZPOPMIN, which is a list of pairs or flat."""
    return [entry[0] if isinstance(entry, list) else entry for entry in popped if not isinstance(entry, float)]


def _spread(place: str, messages: Iterable[Message]) -> Iterable[tuple[None, str, Message]]:
    for message in messages:
        channels = message.pop("__asgi_channel__", place)
        for channel in channels if isinstance(channels, list) else [channels]:
            yield None, channel, message


def _in_thread(name: str, work: Callable[..., None], *arguments: Any) -> None:
    threading.Thread(target=work, args=arguments, name=name, daemon=True).start()
