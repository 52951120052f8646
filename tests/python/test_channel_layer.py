"""`DigiChannelLayer` in one process, as Channels specifies a layer."""

import asyncio
import datetime
import logging
import random
import threading
from collections.abc import Coroutine
from typing import Any

import pytest
from asgiref.sync import async_to_sync
from channels.exceptions import ChannelFull

from digi.channels import DigiChannelLayer
from digi.channels import layer as module

TIMEOUT = 20


def run(main: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(main, TIMEOUT))


class Clock:
    """Time that goes on when it is told to."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1_000.0
        monkeypatch.setattr("digi.channels.layer.time.monotonic", lambda: self.now)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


async def is_silent(layer: DigiChannelLayer, channel: str) -> bool:
    """Whether nothing waits in a channel."""
    receiving = asyncio.ensure_future(layer.receive(channel))
    for _ in range(5):
        await asyncio.sleep(0)
    silent = not receiving.done()
    receiving.cancel()
    return silent


def test_messages_come_in_their_order() -> None:
    async def main() -> None:
        layer = DigiChannelLayer()
        channel = await layer.new_channel()
        for number in range(100):
            await layer.send(channel, {"type": "count", "number": number})
        assert [(await layer.receive(channel))["number"] for _ in range(100)] == list(range(100))
        waiting = asyncio.ensure_future(layer.receive(channel))
        await asyncio.sleep(0)
        await layer.send(channel, {"type": "late"})
        assert await waiting == {"type": "late"}

    run(main())


def test_new_channels_are_a_processes_own() -> None:
    async def main() -> None:
        layer = DigiChannelLayer(prefix="chat-")
        names = {await layer.new_channel() for _ in range(100)} | {await layer.new_channel("other") for _ in range(100)}
        assert len(names) == 200
        for name in names:
            assert name.startswith(("chat-specific.", "chat-other."))
            assert name.count("!") == 1
            assert layer.require_valid_channel_name(name)

    run(main())


def test_groups() -> None:
    async def main() -> None:
        layer = DigiChannelLayer()
        first, second, third = [await layer.new_channel() for _ in range(3)]
        for channel in (first, second):
            await layer.group_add("room", channel)
        await layer.group_add("room", first)  # twice is once
        await layer.group_send("room", {"type": "hello"})
        for channel in (first, second):
            assert await layer.receive(channel) == {"type": "hello"}
            assert await is_silent(layer, channel)
        assert await is_silent(layer, third)
        await layer.group_discard("room", first)
        await layer.group_discard("room", third)
        await layer.group_discard("nobody", third)
        await layer.group_send("room", {"type": "again"})
        await layer.group_send("nobody", {"type": "again"})
        assert await layer.receive(second) == {"type": "again"}
        assert await is_silent(layer, first)
        await layer.group_discard("room", second)
        assert (layer._groups, layer._groups_of) == ({}, {})

    run(main())


def test_what_finds_a_channel_full(caplog: pytest.LogCaptureFixture, clock: Clock) -> None:
    async def main() -> None:
        layer = DigiChannelLayer(capacity=3, channel_capacity={"tiny.*": 1})
        assert DigiChannelLayer().capacity == 10_000
        await layer.send("tiny.one", {"number": 1})
        with pytest.raises(ChannelFull):
            await layer.send("tiny.one", {"number": 2})
        for channel in ("tiny.one", "roomy"):
            await layer.group_add("room", channel)
        for number in range(5):
            await layer.group_send("room", {"number": number})
        assert layer.dropped == 5 + 2
        assert [(await layer.receive("roomy"))["number"] for _ in range(3)] == [0, 1, 2]
        assert (await layer.receive("tiny.one"))["number"] == 1
        assert await is_silent(layer, "tiny.one")
        warnings = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
        assert warnings == [
            "channel tiny.one is full (1 messages): what is sent to group room does not reach it",
            "channel roomy is full (3 messages): what is sent to group room does not reach it",
        ]
        clock.now += module.WARN
        await layer.group_send("room", {"number": 5})
        await layer.group_send("room", {"number": 6})
        assert len([record for record in caplog.records if "tiny.one" in record.getMessage()]) == 2

    with caplog.at_level(logging.WARNING, "digi"):
        run(main())


def test_what_nobody_receives_expires(clock: Clock) -> None:
    async def main() -> None:
        layer = DigiChannelLayer(expiry=30, group_expiry=1_000)
        await layer.send("one", {"number": 1})
        clock.now += 31
        await layer.send("one", {"number": 2})
        assert (await layer.receive("one"))["number"] == 2

        # Who has died without a word is no longer in any group, and leaves nothing behind.
        await layer.group_add("room", "dead")
        await layer.group_send("room", {"number": 3})
        for _ in range(5):
            clock.now += 31
            await layer.send("one", {"number": 4})
            await layer.receive("one")
        assert (layer._groups, list(layer._channels)) == ({}, ["one"])

        await layer.group_add("room", "old")
        await layer.group_add("room", "renewed")
        clock.now += 600
        await layer.group_add("room", "renewed")
        clock.now += 600
        await layer.group_send("room", {"number": 5})
        assert list(layer._groups["room"]) == ["renewed"]

    run(main())


@pytest.mark.parametrize("name", ["", "a b", "a/b", "ä", "x" * 100, 7, None, b"bytes", "a!b!c", "a\n"])
def test_wrong_names(name: Any) -> None:
    async def main() -> None:
        layer = DigiChannelLayer()
        for wrong in (
            layer.send(name, {}),
            layer.receive(name),
            layer.group_add("room", name),
            layer.group_discard("room", name),
            layer.group_add(name, "channel"),
            layer.group_discard(name, "channel"),
            layer.group_send(name, {}),
        ):
            with pytest.raises(TypeError, match=r"a (channel|group) name is a text"):
                await wrong
        with pytest.raises(TypeError, match="a group name"):
            await layer.group_send("a!b", {})
        with pytest.raises(TypeError, match="a message is a dict, not a str"):
            await layer.send("channel", "text")  # type: ignore[arg-type]

    run(main())


class Label(str):
    """As Django's SafeString is one."""

    __slots__ = ()


def test_every_value_arrives_as_it_was_and_belongs_to_its_receiver() -> None:
    async def main() -> None:
        layer = DigiChannelLayer()
        flat: dict[Any, Any] = {
            "type": "x",
            "bytes": b"\0\xff",
            "none": None,
            "big": 10**40,
            "float": 1.5,
            "yes": True,
            "text": "שלום",
        }
        nested: dict[Any, Any] = {"list": [1, [2, {"deep": b"x"}]], "tuple": (1, 2), "set": {1}, 5: "number"}
        others: dict[Any, Any] = {"label": Label("x"), "at": datetime.datetime(2026, 1, 1), "list": [1]}
        for message in (flat, nested, others):
            for channel in ("one", "two"):
                await layer.group_add("room", channel)
            sent = dict(message)
            await layer.group_send("room", sent)
            sent.clear()
            if "list" in message:
                assert isinstance(message["list"], list)
                message["list"].append("after it was sent")
                wanted = message | {"list": message["list"][:-1]}
            else:
                wanted = dict(message)
            first = await layer.receive("one")
            assert first == wanted
            first["new"] = "mine"
            if "list" in first:
                first["list"].append("mine")
            second = await layer.receive("two")
            assert second == wanted
            assert [type(value) for value in second.values()] == [type(value) for value in wanted.values()]

    run(main())


def test_a_cancelled_receive_loses_no_message() -> None:
    async def main() -> None:
        layer, dice, got = DigiChannelLayer(), random.Random(1), []

        async def receive() -> None:
            got.append((await layer.receive("channel"))["number"])

        tasks: list[asyncio.Task[None]] = []
        for number in range(2_000):
            tasks += [asyncio.ensure_future(receive()) for _ in range(dice.randint(0, 3))]
            if dice.random() < 0.5:
                await asyncio.sleep(0)
            await layer.send("channel", {"number": number})
            for task in dice.sample(tasks, min(len(tasks), 2)):
                task.cancel()
            if dice.random() < 0.5:
                await asyncio.sleep(0)
            tasks = [task for task in tasks if not task.done()]
        while len(got) < 2_000:
            await asyncio.wait_for(receive(), 5)
        assert sorted(got) == list(range(2_000))
        for task in tasks:
            task.cancel()

    run(main())


def test_receivers_of_one_channel_share_its_messages() -> None:
    async def main() -> None:
        layer = DigiChannelLayer()
        receiving = [asyncio.ensure_future(layer.receive("work")) for _ in range(10)]
        await asyncio.sleep(0)
        for number in range(10):
            await layer.send("work", {"number": number})
        assert sorted(message["number"] for message in await asyncio.gather(*receiving)) == list(range(10))

    run(main())


def test_many_loops_and_threads() -> None:
    layer = DigiChannelLayer()
    threads, each = 4, 500
    got: list[list[tuple[int, int]]] = [[] for _ in range(threads)]
    ready = threading.Barrier(2 * threads)

    def receive(at: int) -> None:
        async def main() -> None:
            channel = await layer.new_channel()
            await layer.group_add("room", channel)
            ready.wait(TIMEOUT)
            for _ in range(threads * each):
                message = await layer.receive(channel)
                got[at].append((message["sender"], message["number"]))

        run(main())

    def send(at: int) -> None:
        ready.wait(TIMEOUT)
        for number in range(each):
            # As a synchronous consumer, view or task does: another loop each time.
            async_to_sync(layer.group_send)("room", {"sender": at, "number": number})

    workers = [threading.Thread(target=work, args=(at,)) for work in (receive, send) for at in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(TIMEOUT)
    assert not any(worker.is_alive() for worker in workers)
    for seen in got:
        # Nothing is lost or doubled, and of each sender all is in order.
        for sender in range(threads):
            assert [number for who, number in seen if who == sender] == list(range(each))


def test_a_receiver_whose_loop_is_gone_holds_nobody_up() -> None:
    layer = DigiChannelLayer()
    loop = asyncio.new_event_loop()
    # Whoever waits in a loop that ends without a word: nothing is cancelled.
    layer._channels["there"] = box = module._Channel(10)
    box.waiting.append(loop.create_future())
    loop.close()

    async def main() -> None:
        await layer.group_add("room", "there")
        await layer.group_send("room", {"number": 1})
        assert (await layer.receive("there"))["number"] == 1

    run(main())


def test_flush() -> None:
    async def main() -> None:
        layer = DigiChannelLayer()
        await layer.group_add("room", "one")
        await layer.group_send("room", {"number": 1})
        waiting = asyncio.ensure_future(layer.receive("two"))
        await asyncio.sleep(0)
        await layer.flush()
        assert await is_silent(layer, "one")
        await layer.group_send("room", {"number": 2})
        assert await is_silent(layer, "one")
        await layer.send("two", {"number": 3})
        assert (await waiting)["number"] == 3
        await layer.close()

    run(main())
