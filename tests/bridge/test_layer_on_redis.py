"""`DigiChannelLayer` over Redis, beside the real layers of channels_redis."""

import asyncio
import os
import sys
import time
from collections.abc import AsyncIterator, Coroutine, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
import trustme
from channels.exceptions import ChannelFull
from django.core.exceptions import ImproperlyConfigured
from django.utils.module_loading import import_string

from digi.channels import DigiChannelLayer
from digi.channels.redis import host_of
from redis_servers import RedisServer, redis_servers
from stock import BACKENDS

TIMEOUT = 20
Layers = tuple[Any, DigiChannelLayer, DigiChannelLayer]


@pytest.fixture(params=[1, 2], ids=["one host", "two hosts"])
def servers(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[list[RedisServer]]:
    with redis_servers(tmp_path, request.param) as servers:
        yield servers


@pytest.fixture(params=["pubsub", "core"])
def style(request: pytest.FixtureRequest) -> str:
    found: str = request.param
    return found


@asynccontextmanager
async def layers(servers: list[RedisServer], style: str, **settings: Any) -> AsyncIterator[Layers]:
    """The package's layer, and Digi's in two processes."""
    hosts = [server.url for server in servers]
    stock = import_string(BACKENDS[style])(hosts=hosts, **settings)
    yield stock, *(DigiChannelLayer(hosts=hosts, format=style, **settings) for _ in range(2))
    await stock.flush()


def run(main: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(main, TIMEOUT * 2))


async def receive(layer: Any, channel: str) -> dict[str, Any]:
    found = await asyncio.wait_for(layer.receive(channel), TIMEOUT)
    assert isinstance(found, dict)
    return found


@pytest.mark.parametrize("keys", [None, ["a key", "an older key"]], ids=["plain", "encrypted"])
def test_everybody_hears_everybody(servers: list[RedisServer], style: str, keys: list[str] | None) -> None:
    async def main() -> None:
        async with layers(servers, style, symmetric_encryption_keys=keys) as all_of_them:
            channels = [await layer.new_channel() for layer in all_of_them for _ in range(3)]
            owners = [layer for layer in all_of_them for _ in range(3)]
            for group in ("room", "other", "third"):
                for layer, channel in zip(owners, channels, strict=True):
                    await layer.group_add(group, channel)
            sent = []
            for number, layer in enumerate(all_of_them * 5):
                for group in ("room", "other", "third"):
                    sent.append(
                        {"type": "chat.message", "n": number, "group": group, "b": b"\0", "x": [None, {"y": 1}]}
                    )
                    await layer.group_send(group, sent[-1])
            for layer, channel in zip(owners, channels, strict=True):
                got = [await receive(layer, channel) for _ in sent]
                for group in ("room", "other", "third"):
                    # Over one host for each group, so in the order in which it was sent.
                    assert [m for m in got if m["group"] == group] == [m for m in sent if m["group"] == group]
            # From each to each.
            for sender in all_of_them:
                for layer, channel in zip(owners, channels, strict=True):
                    # What the package itself sends to one channel of its core layer over several hosts gets lost.
                    if sender is all_of_them[0] is layer and style == "core" and len(servers) > 1:
                        continue
                    await sender.send(channel, {"type": "direct", "to": channel})
                    assert await receive(layer, channel) == {"type": "direct", "to": channel}
            for layer, channel in zip(owners, channels, strict=True):
                await layer.group_discard("room", channel)
            await all_of_them[1].group_send("room", {"type": "nobody"})
            await all_of_them[0].group_send("other", {"type": "last"})
            for layer, channel in zip(owners, channels, strict=True):
                assert (await receive(layer, channel))["type"] == "last"

    run(main())


def test_over_tls(style: str, tmp_path: Path) -> None:
    authority, files = trustme.CA(), {name: tmp_path / name for name in ("ca-cert", "cert", "key")}
    certificate = authority.issue_cert("127.0.0.1")
    authority.cert_pem.write_to_path(files["ca-cert"])
    certificate.cert_chain_pems[0].write_to_path(files["cert"])
    certificate.private_key_pem.write_to_path(files["key"])
    client = {"ssl_ca_certs": "ca-cert", "ssl_certfile": "cert", "ssl_keyfile": "key"}
    options = {option: str(files[name]) for option, name in client.items()}

    async def main(server: RedisServer) -> None:
        # Redis wants to see a certificate, too.
        given: list[Any] = [{"address": server.url, **options}, f"{server.url}?{urlencode(options)}"]
        stock = import_string(BACKENDS[style])(hosts=given[:1])
        layers = [stock, *(DigiChannelLayer(hosts=[host], format=style) for host in given)]
        channels = [await layer.new_channel() for layer in layers]
        for layer, channel in zip(layers, channels, strict=True):
            await layer.group_add("room", channel)
        for layer in layers:
            await layer.group_send("room", {"type": "hello"})
            for other, channel in zip(layers, channels, strict=True):
                assert await receive(other, channel) == {"type": "hello"}
        await stock.flush()
        options.pop("ssl_ca_certs")
        stranger = DigiChannelLayer(hosts=[{"address": server.url, **options}], format=style)
        with pytest.raises(ConnectionError, match="UnknownIssuer"):
            await stranger.group_send("room", {"type": "hello"})

    with redis_servers(tmp_path, 1, tls=files) as [server]:
        run(main(server))


@pytest.mark.parametrize(
    ("host", "text"),
    [
        ({"address": "rediss://a", "ssl_cert_reqs": None}, "the certificate is always checked"),
        ("rediss://a?ssl_cert_reqs=none", "the certificate is always checked"),
        ({"address": "rediss://a", "ssl": True}, "host 1: a URL"),
        ("rediss://a?ca=/nowhere.pem", "cannot read /nowhere.pem"),
        ("rediss://a?ssl_certfile=/nowhere.pem", "needs both"),
        ("redis://a?ca=ca.pem", "write rediss://"),
        ("redis://a?timeout=3", "no option 'timeout'"),
    ],
)
def test_what_is_wrong_with_a_host_is_said(host: Any, text: str, style: str) -> None:
    with pytest.raises(ImproperlyConfigured, match=text):
        DigiChannelLayer(hosts=[host], format=style)


def until_subscribed(server: RedisServer, name: str, count: int = 1) -> None:
    with server.client() as client:
        while client.pubsub_numsub(name) != [(name.encode(), count)]:
            time.sleep(0.01)


def test_channels_that_belong_to_no_process(servers: list[RedisServer], style: str) -> None:
    async def main() -> None:
        async with layers(servers, style) as (stock, first, second):
            if style == "core":
                for number in range(20):
                    await (stock, first, second)[number % 3].send("work", {"number": number})
                # Whatever one of them has taken, another one does not get.
                got = [await receive((first, second)[number % 2], "work") for number in range(20)]
                assert sorted(message["number"] for message in got) == list(range(20))
                return
            waiting = asyncio.ensure_future(first.receive("work"))
            server = servers[host_of("work", len(servers))]
            await asyncio.to_thread(until_subscribed, server, "work")
            await stock.send("work", {"number": 1})
            assert await asyncio.wait_for(waiting, TIMEOUT) == {"number": 1}

    run(main())


def test_who_comes_while_another_one_goes_hears_everything(servers: list[RedisServer], style: str) -> None:
    """As a page that is reloaded: the old consumer leaves the group while the new one joins it."""

    async def main() -> None:
        async with layers(servers, style) as (_, first, second):
            before = await first.new_channel()
            await first.group_add("room", before)
            for number in range(200):
                after = await first.new_channel()
                leaving = asyncio.ensure_future(first.group_discard("room", before))
                if number % 2:
                    await asyncio.sleep(0)
                await first.group_add("room", after)
                await second.group_send("room", {"number": number})
                assert await receive(first, after) == {"number": number}
                await leaving
                before = after

    run(main())


def test_who_leaves_without_a_word_leaves_nothing_behind(
    servers: list[RedisServer], style: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main() -> None:
        async with layers(servers, style, **({} if style == "pubsub" else {"expiry": 1})) as (_, first, second):
            monkeypatch.setattr("digi.channels.layer.SWEEP", 0.0)
            first.expiry = 1
            channel = await first.new_channel()
            await first.group_add("room", channel)
            receiving = asyncio.ensure_future(first.receive(channel))
            await asyncio.sleep(0)
            receiving.cancel()
            await second.group_send("room", {"type": "x"})
            await asyncio.to_thread(until_swept, first)
            assert not getattr(first._redis, "_wanted", None)
            if style == "pubsub":
                server = servers[host_of("asgi__group__room", len(servers))]
                await asyncio.to_thread(until_subscribed, server, "asgi__group__room", 0)

    run(main())


def until_swept(layer: DigiChannelLayer) -> None:
    layer._next_sweep = 0.0
    while layer._channels or layer._groups:
        # Time goes on, and with it the sweep.
        layer.arrived([])
        time.sleep(0.02)


def test_capacity_of_core(servers: list[RedisServer]) -> None:
    async def main() -> None:
        async with layers(servers[:1], "core", capacity=3) as (stock, first, second):
            for sender in (first, second, first):
                await sender.send("work", {"type": "x"})
            with pytest.raises(ChannelFull):
                await second.send("work", {"type": "x"})
            with pytest.raises(ChannelFull):
                await stock.send("work", {"type": "x"})
            # A group passes over what is full.
            await first.group_add("room", "work")
            await second.group_send("room", {"type": "y"})
            for _ in range(3):
                assert await receive(first, "work") == {"type": "x"}
            await second.group_send("room", {"type": "z"})
            assert await receive(stock, "work") == {"type": "z"}

    run(main())


def test_a_redis_that_goes_and_comes(servers: list[RedisServer], style: str) -> None:
    async def main() -> None:
        async with layers(servers, style) as (_, first, second):
            channel = await first.new_channel()
            await first.group_add("room", channel)
            await second.group_send("room", {"number": 1})
            assert await receive(first, channel) == {"number": 1}
            for server in servers:
                server.kill()
            with pytest.raises(ConnectionError, match="Redis"):
                await second.group_send("room", {"number": 2})
            for server in servers:
                server.start()
            # With the core format a Redis that keeps nothing has lost who is in the group.
            arrived: asyncio.Future[dict[str, Any]] = asyncio.ensure_future(first.receive(channel))
            while not arrived.done():
                try:
                    await first.group_add("room", channel)
                    await second.group_send("room", {"number": 3})
                except ConnectionError:
                    pass
                await asyncio.wait([arrived], timeout=0.1)
            assert arrived.result() == {"number": 3}

    run(main())


@pytest.mark.parametrize("fate", ["stands still", "is closed"])
def test_a_loop_that_does_nothing_holds_nobody_up(servers: list[RedisServer], fate: str) -> None:
    """The one that has subscribed last takes what comes, for all of them."""
    other = asyncio.new_event_loop()

    async def main() -> None:
        async with layers(servers, "pubsub") as (_, layer, sender):
            channel = await layer.new_channel()

            async def join(group: str) -> None:
                await layer.group_add(group, channel)

            await join("room")
            await asyncio.to_thread(other.run_until_complete, join("room"))
            if fate == "is closed":
                other.close()
            for number in range(20):
                await sender.group_send("room", {"number": number})
                assert await receive(layer, channel) == {"number": number}
            # This one takes it again.
            await join("third")
            for number in range(20):
                await sender.group_send("third", {"number": number})
            assert [(await receive(layer, channel))["number"] for _ in range(20)] == list(range(20))

    run(main())
    other.close()


def fork_and_send(layer: DigiChannelLayer) -> int:
    """As Celery's workers come into being: by a fork, from a process that has used the layer."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            asyncio.run(asyncio.wait_for(layer.group_send("room", {"by": "child"}), TIMEOUT))
            status = 0
        finally:
            os._exit(status)
    return child


def test_a_forked_process_has_connections_of_its_own(servers: list[RedisServer], style: str) -> None:
    async def main() -> None:
        async with layers(servers, style) as (_, first, second):
            channel = await first.new_channel()
            await first.group_add("room", channel)
            await second.group_send("room", {"by": "parent"})
            assert await receive(first, channel) == {"by": "parent"}
            child = await asyncio.to_thread(fork_and_send, second)
            assert await receive(first, channel) == {"by": "child"}
            assert await asyncio.to_thread(os.waitpid, child, 0) == (child, 0)

    run(main())


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"hosts": ["redis://127.0.0.1"]}, '"pubsub" or "core", not None'),
        ({"hosts": ["redis://127.0.0.1"], "format": "list"}, "not 'list'"),
        ({"format": "core"}, "need `hosts`"),
        ({"hosts": [("a", 1, 2)], "format": "core"}, "host 1"),
        ({"hosts": "redis://127.0.0.1", "format": "core"}, "a list"),
    ],
)
def test_wrong_settings(settings: dict[str, Any], problem: str) -> None:
    with pytest.raises(ImproperlyConfigured, match=problem):
        DigiChannelLayer(**settings)


def test_a_wrong_url_is_said_without_its_password() -> None:
    for url, text in (
        ("redis://:secret@host:port", "a Redis URL looks like"),
        ("redis://:a?secret@host", "the password ends too early"),
    ):
        with pytest.raises(ImproperlyConfigured, match=text) as said:
            DigiChannelLayer(hosts=[url], format="core")
        assert "secret" not in str(said.value)
        assert "secret" not in repr(sys.exc_info())
