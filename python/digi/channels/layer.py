"""The channel layer: what carries messages between consumers, as Channels specifies it.

    CHANNEL_LAYERS = {"default": {"BACKEND": "digi.channels.DigiChannelLayer"}}

It works within one process, for all of its event loops and threads; with `hosts`, over Redis, for any number of them.
"""

from __future__ import annotations

import asyncio
import copy
import functools
import logging
import marshal
import os
import re
import secrets
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any

from channels.exceptions import ChannelFull
from channels.layers import BaseChannelLayer
from django.core.exceptions import ImproperlyConfigured

logger = logging.getLogger(__name__)

Message = dict[str, Any]

#: Messages that wait in a channel, unless the setting says otherwise.
CAPACITY = 10_000
#: Seconds between two looks for what has expired.
SWEEP = 10.0
#: Seconds between two warnings about one channel.
WARN = 60.0

#: Of such values a receiver can have the same object as everybody.
_UNCHANGEABLE = frozenset((str, int, float, bool, bytes, type(None)))

_LONGEST = 99
_CHANNEL = re.compile(r"[a-zA-Z\d\-_.]+(![a-zA-Z\d\-_.]*)?", re.ASCII)
_GROUP = re.compile(r"[a-zA-Z\d\-_.]+", re.ASCII)


class _Frozen:
    """A message as it was when it was sent, for any number of receivers, none of whom sees what another one does to it.

    Most are flat, and a copy of the outermost dict is enough. Others consist of what `marshal` knows, and are written
    once and read by each. The rest is copied.
    """

    __slots__ = ("deadline", "flat", "rest", "written")

    def __init__(self, message: Message, deadline: float) -> None:
        #: By the monotonic clock.
        self.deadline = deadline
        self.flat: Message | None = None
        if _UNCHANGEABLE.issuperset(map(type, message.values())):
            self.flat = message.copy()
            return
        try:
            # Without references, of which version 3 and later keep count: half the time.
            self.written: bytes | None = marshal.dumps(message, 2)
        except ValueError:
            self.written = None
            self.rest = copy.deepcopy(message)

    def thaw(self) -> Message:
        """One that is the receiver's own."""
        if self.flat is not None:
            return self.flat.copy()
        message: Message = copy.deepcopy(self.rest) if self.written is None else marshal.loads(self.written)
        return message


class _Channel:
    """The messages that wait for a receiver, and the receivers that wait for a message."""

    __slots__ = ("capacity", "is_idle", "is_left", "messages", "waiting", "warned")

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.messages: deque[_Frozen] = deque()
        self.waiting: deque[asyncio.Future[None]] = deque()
        #: Whether nothing has happened since the last sweep.
        self.is_idle = False
        #: Whether the last receiver gave up.
        self.is_left = False
        self.warned = -WARN

    def next_waiting(self) -> asyncio.Future[None] | None:
        """Takes the receiver that has waited longest out."""
        waiting = self.waiting
        while waiting:
            future = waiting.popleft()
            if not future.done():
                return future
        return None

    def take(self, now: float) -> _Frozen | None:
        """The oldest message that has not expired."""
        messages = self.messages
        while messages:
            try:
                frozen = messages.popleft()
            except IndexError:
                break  # Another thread was faster.
            if frozen.deadline >= now:
                return frozen
        return None


class DigiChannelLayer(BaseChannelLayer):  # type: ignore[misc]
    """A channel layer within one process, or over Redis.

    * `hosts`: Redis servers, as URLs (`redis://[user:password@]host[:6379][/db]`), pairs of host and port, or dicts as
      channels_redis takes them; groups and channels are distributed over several as there
    * `format`: with `hosts`, which layer of channels_redis others may have: `"pubsub"` or `"core"`
    * `symmetric_encryption_keys`: with `hosts`, the first encrypts, each decrypts
    * `capacity`: how many messages wait in a channel (10,000); `channel_capacity`: the same by patterns of names
    * `expiry`: seconds until a message that nobody has received is gone (60)
    * `group_expiry`: seconds until a channel is no longer in a group, unless it was added again (86,400)
    * `prefix`: what names begin with (with `hosts`, those at Redis: "asgi")

    What doesn't fit is refused by `send` with `ChannelFull`; `group_send` passes that channel over, which `dropped`
    counts and the log says, once a minute for each channel. A `receive` that is cancelled takes no message with it.
    """

    extensions = ("groups", "flush")

    def __init__(
        self,
        *,
        hosts: Sequence[Any] | None = None,
        format: str | None = None,
        symmetric_encryption_keys: Sequence[str | bytes] | None = None,
        capacity: int = CAPACITY,
        channel_capacity: Mapping[Any, int] | None = None,
        expiry: float = 60,
        group_expiry: float = 86_400,
        prefix: str | None = None,
    ) -> None:
        super().__init__(expiry=expiry, capacity=capacity)
        self.channel_capacity = self.compile_capacities(channel_capacity or {})
        self.group_expiry = group_expiry
        self.prefix = prefix if prefix is not None else "asgi" if hosts else ""
        self._make = _maker(hosts, format, symmetric_encryption_keys or (), self)
        self._begin_anew()
        # The parent's connections, threads and waiting receivers are not there in a child.
        layer = weakref.ref(self)
        os.register_at_fork(after_in_child=lambda: _begin_anew(layer()))

    def _begin_anew(self) -> None:
        #: How many messages have found a channel full.
        self.dropped = 0
        self._lock = threading.Lock()
        self._channels: dict[str, _Channel] = {}
        #: Of each group the channels, with the time at which they are no longer in it; and the groups of each channel.
        self._groups: dict[str, dict[str, float]] = {}
        self._groups_of: dict[str, set[str]] = {}
        self._node = secrets.token_hex(6)
        self._next_sweep = time.monotonic() + SWEEP
        self._redis = self._make() if self._make else None

    async def new_channel(self, prefix: str = "specific") -> str:
        """A name that nobody else has."""
        if self._redis is None:
            return f"{self.prefix}{prefix.rstrip('.')}.{self._node}!{secrets.token_hex(6)}"
        name: str = self._redis.new_name(prefix)
        await self._opened(name)
        return name

    async def _opened(self, channel: str) -> _Channel:
        """The channel, to which others can send from now on."""
        _check_channel(channel)
        with self._lock:
            known = self._channels.get(channel)
            box = known or self._open(channel)
        if self._redis is not None and known is None:
            await self._redis.open(channel)
        return box

    async def send(self, channel: str, message: Message) -> None:
        """Sends to a channel. Raises `ChannelFull`, and with Redis away `ConnectionError`."""
        _check_channel(channel)
        if self._redis is not None:
            await self._redis.send(channel, _checked(message))
            return
        now = time.monotonic()
        frozen = self._freeze(message, now)
        with self._lock:
            self._sweep_if_due(now)
            box = self._channels.get(channel) or self._open(channel)
            if len(box.messages) >= box.capacity:
                raise ChannelFull(channel)
            box.messages.append(frozen)
            box.is_idle = False
            future = box.next_waiting()
        if future is not None:
            _wake([future])

    async def receive(self, channel: str) -> Message:
        """The next message of a channel; waits for it."""
        box = self._channels.get(channel) or await self._opened(channel)
        box.is_idle = box.is_left = False
        # Without the lock: a deque's operations are atomic, a sender looks for receivers after it has added the
        # message, and a receiver for messages after it has said that it waits.
        while (frozen := box.take(time.monotonic())) is None:
            future = asyncio.get_running_loop().create_future()
            box.waiting.append(future)
            if box.messages or self._channels.get(channel) is not box:
                box = self._look_again(channel, box, future)
                continue
            try:
                if self._redis is not None and self._redis.counts and "!" not in channel:
                    self._redis.wanted(channel)
                await future
            except BaseException:
                box.is_left = True
                self._give_up(box, future)
                if self._redis is not None and self._redis.counts and "!" not in channel:
                    self._redis.unwanted(channel)
                raise
        return frozen.thaw()

    def _look_again(self, channel: str, box: _Channel, future: asyncio.Future[None]) -> _Channel:
        """A message came, or the channel was swept away, while a receiver began to wait."""
        self._give_up(box, future)
        with self._lock:
            return self._channels.get(channel) or self._open(channel)

    def _give_up(self, box: _Channel, future: asyncio.Future[None]) -> None:
        """A receiver leaves: what it was woken for, or would have been, is told to another one."""
        with self._lock:
            with suppress(ValueError):
                box.waiting.remove(future)
            other = box.next_waiting() if box.messages else None
        if other is not None:
            _wake([other])

    async def group_add(self, group: str, channel: str) -> None:
        """Puts a channel into a group, or renews that."""
        _check_group(group)
        _check_channel(channel)
        with self._lock:
            self._groups.setdefault(group, {})[channel] = time.monotonic() + self.group_expiry
            self._groups_of.setdefault(channel, set()).add(group)
            # It begins with the lock held, so that it comes before or after what others ask for, as here.
            adding = self._redis.group_add(group, channel) if self._redis else None
        if adding is not None:
            await adding

    async def group_discard(self, group: str, channel: str) -> None:
        """Takes a channel out of a group; does nothing where it isn't in."""
        _check_group(group)
        _check_channel(channel)
        with self._lock:
            was_in = channel in self._groups.get(group, ())
            self._discard(group, channel)
            was_last = was_in and group not in self._groups
            discarding = self._redis.group_discard(group, channel, was_last) if self._redis else None
        if discarding is not None:
            await discarding

    async def group_send(self, group: str, message: Message) -> None:
        """Sends to all channels of a group, but for those that are full. Raises, with Redis away, `ConnectionError`."""
        _check_group(group)
        if self._redis is not None:
            await self._redis.group_send(group, _checked(message))
            return
        now = time.monotonic()
        frozen = self._freeze(message, now)
        woken: list[asyncio.Future[None]] = []
        with self._lock:
            self._sweep_if_due(now)
            self._spread(group, self._groups.get(group, ()), frozen, now, woken)
        _wake(woken)

    def arrived(self, messages: Iterable[tuple[str | None, str, Message]]) -> None:
        """What has come over Redis: for a group's channels here, or for a channel."""
        now = time.monotonic()
        woken: list[asyncio.Future[None]] = []
        with self._lock:
            self._sweep_if_due(now)
            for group, channel, message in messages:
                channels = (channel,) if group is None else self._groups.get(group, ())
                self._spread(group or "of its own", channels, self._freeze(message, now), now, woken)
        _wake(woken)

    def capacity_of(self, channel: str) -> int:
        """How many messages wait in a channel."""
        capacity: int = self.get_capacity(channel)
        return capacity

    async def flush(self) -> None:
        """Forgets all messages and groups. Who waits goes on waiting."""
        if self._redis is not None:
            await self._redis.flush()
        with self._lock:
            self._groups.clear()
            self._groups_of.clear()
            for box in self._channels.values():
                box.messages.clear()

    async def close(self) -> None:
        """There is nothing to close."""

    # What is called with the lock held.

    def _open(self, channel: str) -> _Channel:
        box = self._channels[channel] = _Channel(self.get_capacity(channel))
        return box

    def _spread(
        self, group: str, names: Iterable[str], frozen: _Frozen, now: float, woken: list[asyncio.Future[None]]
    ) -> None:
        channels = self._channels
        for name in names:
            box = channels.get(name) or self._open(name)
            messages = box.messages
            if len(messages) >= box.capacity:
                self._drop(group, name, box, now)
                continue
            messages.append(frozen)
            if box.waiting and (future := box.next_waiting()) is not None:
                woken.append(future)

    def _discard(self, group: str, channel: str) -> None:
        channels = self._groups.get(group)
        if channels is None or channels.pop(channel, None) is None:
            return
        if not channels:
            del self._groups[group]
        groups = self._groups_of[channel]
        groups.discard(group)
        if not groups:
            del self._groups_of[channel]

    def _drop(self, group: str, channel: str, box: _Channel, now: float) -> None:
        self.dropped += 1
        if now - box.warned >= WARN:
            box.warned = now
            text = "channel %s is full (%d messages): what is sent to group %s does not reach it"
            logger.warning(text, channel, box.capacity, group)

    def _sweep_if_due(self, now: float) -> None:
        """Forgets what has expired, now and then."""
        if now < self._next_sweep:
            return
        self._next_sweep = now + SWEEP
        closed, groups = [], set(self._groups)
        for channel, box in list(self._channels.items()):
            expired = False
            while box.messages and box.messages[0].deadline < now:
                box.messages.popleft()
                expired = True
            if expired and not box.waiting:
                # Nobody receives there any more: who was in groups is gone.
                for group in list(self._groups_of.get(channel, ())):
                    self._discard(group, channel)
            is_gone = expired or box.is_left or not (self._redis and self._redis.opens)
            if box.is_idle and is_gone and not box.messages and not box.waiting:
                del self._channels[channel]
                closed.append(channel)
            box.is_idle = True
        for group, channels in list(self._groups.items()):
            for channel in [channel for channel, until in channels.items() if until < now]:
                self._discard(group, channel)
        if self._redis is not None:
            self._redis.close(closed, groups - self._groups.keys())

    def _freeze(self, message: Message, now: float) -> _Frozen:
        return _Frozen(_checked(message), now + self.expiry)


def _begin_anew(layer: DigiChannelLayer | None) -> None:
    if layer is not None:
        layer._begin_anew()


def _maker(
    hosts: Sequence[Any] | None, format: str | None, keys: Sequence[str | bytes], layer: DigiChannelLayer
) -> Callable[[], Any] | None:
    """What makes the way to Redis, or None. Raises `ImproperlyConfigured`."""
    if not hosts:
        if format or keys:
            raise ImproperlyConfigured("DigiChannelLayer: `format` and `symmetric_encryption_keys` need `hosts`")
        return None
    if format not in ("pubsub", "core"):
        raise ImproperlyConfigured(
            f'DigiChannelLayer: with `hosts`, `format` says which layer of channels_redis others have: "pubsub" or '
            f'"core", not {format!r}'
        )
    from digi.channels import redis
    from digi.django.bridge import urls

    try:
        found = urls(hosts)
        for url in found:
            redis.link(url)
    except (ImproperlyConfigured, ValueError) as problem:
        raise ImproperlyConfigured(f"DigiChannelLayer: {problem}") from None
    if format == "pubsub":
        serializer = redis.Serializer(keys, 0, None)
        return lambda: redis.PubSub(layer, redis.Hosts(found), serializer, layer.prefix)
    expiry, group_expiry = int(layer.expiry), int(layer.group_expiry)
    serializer = redis.Serializer(keys, redis.PREFIX, expiry + 10)
    return lambda: redis.Core(layer, redis.Hosts(found), serializer, layer.prefix, expiry, group_expiry)


def _checked(message: Message) -> Message:
    if not isinstance(message, dict):
        raise TypeError(f"a message is a dict, not a {type(message).__name__}")
    return message


def _wake(futures: list[asyncio.Future[None]]) -> None:
    """Wakes receivers: those of this loop at once, those of another with one call for all of them."""
    if not futures:
        return
    here = asyncio._get_running_loop()
    elsewhere: dict[asyncio.AbstractEventLoop, list[asyncio.Future[None]]] = {}
    for future in futures:
        loop = future.get_loop()
        if loop is here:
            future.set_result(None)
        else:
            elsewhere.setdefault(loop, []).append(future)
    for loop, theirs in elsewhere.items():
        # A loop that is closed has nobody left who waits.
        with suppress(RuntimeError):
            loop.call_soon_threadsafe(_set_all, theirs)


def _set_all(futures: list[asyncio.Future[None]]) -> None:
    for future in futures:
        if not future.done():
            future.set_result(None)


@functools.lru_cache(maxsize=100_000)
def _check_channel(name: str) -> None:
    _check(name, "channel", _CHANNEL)


@functools.lru_cache(maxsize=100_000)
def _check_group(name: str) -> None:
    _check(name, "group", _GROUP)


def _check(name: object, what: str, pattern: re.Pattern[str]) -> None:
    if not isinstance(name, str) or len(name) > _LONGEST or not pattern.fullmatch(name):
        raise TypeError(
            f"a {what} name is a text of at most {_LONGEST} ASCII letters, digits, hyphens, underscores and periods"
            f"{', with one ! where it belongs to a process' if what == 'channel' else ''}, not {name!r}"
        )
