"""Digi's channel layer beside those that Channels projects have: CPU of the process per delivery, taking turns.

Each line is a number of groups, each with so many receivers and so many messages on their way at once. What the event
loop itself costs is measured by receivers that get nothing but a wake-up, and is in all figures. At the end of a line
stands by how much Digi's layer takes less: of all, and of what is left when that wake-up is taken off on both sides.
"""

from __future__ import annotations

import asyncio
import resource
import socket
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable
from contextlib import closing, suppress
from functools import partial
from typing import Any

from channels.layers import InMemoryChannelLayer
from channels_redis.core import RedisChannelLayer
from channels_redis.pubsub import RedisPubSubChannelLayer
from django.conf import settings

MESSAGE = {"type": "chat.message", "message": "x" * 64, "user": "alice", "message_id": "Z0FBQUFB" * 12}
ROUNDS = 3
TIMEOUT = 60
#: Groups, receivers of each, messages of each on their way, messages of each in all.
SHAPES = [(1, 2, 1, 2_000), (1, 100, 1, 200), (1, 1_000, 1, 20), (100, 2, 1, 30), (100, 2, 8, 64)]


#: A layer by name.
Peer = tuple[str, Callable[[], Any]]


class Floor:
    """What wakes receivers, and carries nothing."""

    def __init__(self) -> None:
        self.channels: list[asyncio.Queue[None]] = []

    async def new_channel(self) -> int:
        self.channels.append(asyncio.Queue())
        return len(self.channels) - 1

    async def group_add(self, group: str, channel: int) -> None:
        self.groups: dict[str, list[int]] = getattr(self, "groups", {})
        self.groups.setdefault(group, []).append(channel)

    async def group_discard(self, group: str, channel: int) -> None:
        self.groups[group].remove(channel)

    async def group_send(self, group: str, _: object) -> None:
        for channel in self.groups[group]:
            self.channels[channel].put_nowait(None)

    async def receive(self, channel: int) -> None:
        await self.channels[channel].get()


def cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


async def measure(layer: Any, groups: int, receivers: int, outstanding: int, count: int) -> tuple[float, int]:
    """Microseconds per delivery, and how many were lost."""
    total, got, complete = groups * receivers * count, 0, asyncio.Event()

    async def receive(channel: Any) -> None:
        nonlocal got
        while True:
            await layer.receive(channel)
            got += 1
            if got == total:
                complete.set()

    async def send(group: str) -> None:
        for _ in range(0, count, outstanding):
            await asyncio.gather(*(layer.group_send(group, MESSAGE) for _ in range(outstanding)))

    names, channels = [f"group{number}" for number in range(groups)], []
    for name in names * receivers:
        channels.append(await layer.new_channel())
        await layer.group_add(name, channels[-1])
    tasks = [asyncio.ensure_future(receive(channel)) for channel in channels]
    await asyncio.sleep(0.2)
    before = cpu()
    await asyncio.gather(*(send(name) for name in names))
    with suppress(TimeoutError):
        await asyncio.wait_for(complete.wait(), TIMEOUT)
    used = cpu() - before
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    # Otherwise this layer hears what the next one sends.
    for name, channel in zip(names * receivers, channels, strict=True):
        await layer.group_discard(name, channel)
    return used / max(got, 1) * 1e6, total - got


def compare(title: str, stock: Peer, ours: Peer, shapes: list[tuple[int, int, int, int]]) -> None:
    peers: list[Peer] = [("a wake-up alone", Floor), stock, ours]
    names = "".join(f"{name:>26}" for name, _ in peers)
    print(f"\n{title}\n{'groups x receivers, on their way':36}{names}   less in all, without the wake-up")
    for shape in shapes:
        figures: dict[str, list[float]] = {name: [] for name, _ in peers}
        lost = dict.fromkeys(figures, 0)
        for _ in range(ROUNDS):
            for name, make in peers:
                figure, missing = asyncio.run(measure(make(), *shape))
                figures[name].append(figure)
                lost[name] += missing
        cells = []
        for name, values in figures.items():
            text = f"{statistics.median(values):.1f} [{min(values):.1f}-{max(values):.1f}]"
            cells.append(text + (f" {lost[name]} lost" if lost[name] else ""))
        groups, receivers, outstanding, _ = shape
        floor, theirs, own = (statistics.median(values) for values in figures.values())
        alone = f"{(theirs - floor) / (own - floor):.1f}x" if own > floor else "all of it"
        line = f"{f'{groups} x {receivers}, {outstanding}':36}" + "".join(f"{cell:>26}" for cell in cells)
        print(f"{line}   {theirs / own:.1f}x, {alone}")


def redis_server(directory: str) -> tuple[subprocess.Popen[bytes], str]:
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
    server = subprocess.Popen(command, cwd=directory, stdout=subprocess.DEVNULL)
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            time.sleep(0.02)
        else:
            return server, f"redis://127.0.0.1:{port}"


def main() -> None:
    settings.configure()
    from digi.channels import DigiChannelLayer

    print("CPU us per delivery of the process, medians of the rounds [lowest-highest].")
    ours: Peer = ("DigiChannelLayer", DigiChannelLayer)
    compare("Within a process", ("InMemoryChannelLayer", partial(InMemoryChannelLayer, capacity=10_000)), ours, SHAPES)
    with tempfile.TemporaryDirectory() as directory:
        server, url = redis_server(directory)
        try:
            hosts = [url]
            # With its own capacity of 100 the core layer loses most of it.
            stocks = {"pubsub": RedisPubSubChannelLayer, "core": partial(RedisChannelLayer, capacity=10_000)}
            for style, stock in stocks.items():
                theirs: Peer = (f"channels_redis.{style}", partial(stock, hosts=hosts))
                ours = ("DigiChannelLayer", partial(DigiChannelLayer, hosts=hosts, format=style))
                compare(f"Over Redis, {style}", theirs, ours, [(1, 2, 1, 300), (1, 1_000, 1, 10), *SHAPES[3:]])
        finally:
            server.kill()
            server.wait()


if __name__ == "__main__":
    main()
