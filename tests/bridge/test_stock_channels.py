"""The bridge, with the real channels and channels_redis on the other side."""

import asyncio
from pathlib import Path

import pytest

import digi
from nodes import SECRET, Node, joined, nodes, run, until
from redis_servers import RedisServer, redis_servers
from stock import Event, Page, classic_token, group_send, page, stock_layer

STYLES = ["pubsub", "core"]
FERNET = "cw_0x689RpI-jtRR7oE8h_eQsKImvJapLeSbXpwF4e4="


def config_of(servers: list[RedisServer], keys: list[str]) -> dict[str, object]:
    """The same for both sides."""
    config: dict[str, object] = {"hosts": [server.url for server in servers]}
    return config | ({"symmetric_encryption_keys": keys} if keys else {})


async def both_joined(servers: list[RedisServer], room: int, pages: int = 0) -> None:
    """Both nodes are in the room's group. `pages`: how many stock processes with pub/sub are, too."""
    await until(lambda: joined(servers, room) == 2 + pages)


def classic(event: Event) -> Event:
    """An event without Digi's mark, which has to be there."""
    assert event.pop("digi")
    return event


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("keys", [[], ["first", "second"]], ids=["plain", "encrypted"])
@pytest.mark.parametrize("hosts", [1, 2])
def test_both_sides_hear_each_other_once(tmp_path: Path, style: str, keys: list[str], hosts: int) -> None:
    async def main(servers: list[RedisServer]) -> None:
        config = config_of(servers, keys)
        with stock_layer(style, config):
            async with (
                nodes(tmp_path, servers[0], {"format": style, **config}) as (one, other),
                page(one.room) as stock,
            ):
                await both_joined(servers, one.room, pages=style == "pubsub")
                await stock_hears(one, other, stock)
                for node in (one, other):
                    await node.enter()
                await digi_hears(one, other, stock)
                await all_rooms_get_over(one, stock_room=one.room)
            # A good end leaves nothing behind.
            assert joined(servers, one.room) == 0

    async def stock_hears(one: Node, other: Node, stock: Page) -> None:
        posted = await one.engine.post(one.room, "1", "alice", "höi", client_id="a")
        again = await one.engine.post(one.room, "1", "alice", "höi", client_id="a")
        assert again.kind == "duplicate"
        number = posted.message_id
        assert number is not None
        await other.read_up_to("2", "höi")
        await other.engine.edit(one.room, "1", "alice", number, "hello")
        await one.read_up_to("2", "hello")
        # What a stock consumer has no handler for would end it.
        await one.engine.add_member(one.room, "3", "carol", "member")
        await one.engine.remove_member(one.room, "3")
        one.engine.kick("1")
        await one.engine.delete(one.room, "1", "alice", number)
        token = one.engine.cipher.seal("message", number)
        wanted: list[Event] = [
            {"type": "chat.message", "message": "höi", "user": "alice", "message_id": token},
            {"type": "chat.message.edit", "message": "hello", "user": "alice", "message_id": token},
            {"type": "chat.message.delete", "user": "alice", "message_id": token},
        ]
        heard = [classic(await stock.hear()) for _ in wanted]
        # One node's order is kept; between two, it is the store's only in Digi.
        assert sorted(heard, key=lambda event: len(event["type"])) == wanted
        assert (heard[0], heard[-1]["type"]) == (wanted[0], "chat.message.delete")

    async def digi_hears(one: Node, other: Node, stock: Page) -> None:
        sent: list[Event] = [
            {"type": "chat.message", "message": "from stock", "user": "dave", "message_id": "s1"},
            {"type": "chat.message.edit", "message": "edited", "user": "dave", "message_id": "s1"},
            {"type": "chat.message.delete", "user": "dave", "message_id": "s1"},
            {"type": "chat.message", "message": "end", "user": "dave", "message_id": "s2"},
        ]
        await one.engine.post(one.room, "2", "bob", "from digi")
        assert classic(await stock.hear())["message"] == "from digi"
        for event in sent:
            await stock.send(**event)
        shown = [{**event, "type": kind} for event, kind in zip(sent, ("add", "edit", "delete", "add"), strict=True)]
        for node in (one, other):
            for user in node.sessions:
                frames = await node.read_up_to(user, "end")
                # The stock page's own, all of them, and nothing that Digi's nodes said over the bridge.
                assert [frame for frame in frames if "seq" not in frame and frame["type"] != "resumed"] == shown
        assert [await stock.hear() for _ in sent] == sent

    async def all_rooms_get_over(node: Node, stock_room: int) -> None:
        """Rooms lie on all hosts."""
        rooms = [await node.engine.create_room([("1", "alice", "member")]) for _ in range(8)]
        for room in rooms:
            async with page(room) as stock:
                session = await node.engine.connect(node.engine.cipher.seal("room", room), "1", "alice")
                while not any("resumed" in frame for frame in await session.frames()):
                    pass
                await node.engine.post(room, "1", "alice", f"in {room}")
                assert classic(await stock.hear())["message"] == f"in {room}"
                assert room != stock_room
                frames: list[str] = []
                while not any("from a view" in frame for frame in frames):
                    # The subscription comes by itself; until then, nobody hears.
                    await group_send(room, type="chat.message", message="from a view", user="x", message_id="y")
                    try:
                        frames += await asyncio.wait_for(session.frames(), 0.2)
                    except TimeoutError:
                        continue

    with redis_servers(tmp_path, hosts) as servers:
        run(main(servers))


@pytest.mark.parametrize("style", STYLES)
def test_ids_are_understood_on_both_sides(tmp_path: Path, style: str) -> None:
    async def main(servers: list[RedisServer]) -> None:
        config = config_of(servers, [])
        cipher = digi.TokenCipher(SECRET, legacy_fernet=[FERNET], emit="fernet")
        with stock_layer(style, config):
            bridge = {"format": style, **config}
            async with nodes(tmp_path, servers[0], bridge, cipher) as (one, _), page(one.room) as stock:
                await both_joined(servers, one.room, pages=style == "pubsub")
                posted = await one.engine.post(one.room, "1", "alice", "hello")
                assert posted.message_id is not None
                token = (await stock.hear())["message_id"]
                assert token == cipher.seal("message", posted.message_id)
                assert cipher.open("message", token) == posted.message_id
                sealed = [classic_token(FERNET, 42), "no token of ours"]
                for token in sealed:
                    await stock.send(type="chat.message", message=token, user="dave", message_id=token)
                frames = await one.read_up_to("2", sealed[-1])
                assert [frame["message_id"] for frame in frames[-2:]] == [cipher.seal("message", 42), sealed[-1]]

    with redis_servers(tmp_path, 1) as servers:
        run(main(servers))


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("keys", [[], ["first"]], ids=["plain", "encrypted"])
def test_what_cannot_be_read_is_counted_and_dropped(
    tmp_path: Path, style: str, keys: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    async def main(servers: list[RedisServer]) -> None:
        config = config_of(servers, keys)
        # A worker that encrypts under a key that the bridge lacks.
        other = config | {"symmetric_encryption_keys": ["another"]}
        async with nodes(tmp_path, servers[0], {"format": style, **config}) as (one, two):
            await both_joined(servers, one.room)
            with stock_layer(style, other):
                await group_send(one.room, type="chat.message", message="top secret", user="dave", message_id="s1")
            with stock_layer(style, config):
                await group_send(one.room, type="chat.message", message=["top secret"], user="dave", message_id="s1")
                await group_send(one.room, type="user.joined", name="no matter of Digi's")
                await group_send(one.room, type="chat.message", message="end", user="dave", message_id="s2")
            for node in (one, two):
                frames = await node.read_up_to("1", "end")
                assert [frame["message"] for frame in frames if "seq" not in frame] == ["end"]
                await node.until("undecodable", 2)
                assert (node.stat("received"), node.stat("lost")) == (1, 0)
        warnings = [
            record.getMessage() for record in caplog.records if "on the bridge is dropped" in record.getMessage()
        ]
        assert warnings
        assert "secret" not in caplog.text

    with redis_servers(tmp_path, 1) as servers:
        run(main(servers))


@pytest.mark.parametrize("style", STYLES)
def test_redis_may_go_and_come_back(tmp_path: Path, style: str) -> None:
    async def main(layer: RedisServer, servers: list[RedisServer]) -> None:
        config = config_of(servers, [])
        async with nodes(tmp_path, layer, {"format": style, **config}) as (one, other):
            await both_joined(servers, one.room)
            with stock_layer(style, config):
                async with page(one.room) as stock:
                    await one.engine.post(one.room, "1", "alice", "before")
                    await stock.hear_message("before")
            servers[0].kill()
            await one.until("up", 0)
            # Nobody waits for it.
            await one.engine.post(one.room, "1", "alice", "meanwhile")
            for node in (one, other):
                await node.read_up_to("2", "meanwhile")
            servers[0].start()
            for node in (one, other):
                await node.until("up", 1)
            await both_joined(servers, one.room)
            with stock_layer(style, config):
                async with page(one.room) as stock:
                    await other.engine.post(one.room, "1", "alice", "after")
                    await stock.hear_message("after")
                    await stock.send(type="chat.message", message="heard", user="dave", message_id="s1")
                    for node in (one, other):
                        assert len(await node.read_up_to("2", "heard")) == 2

    with redis_servers(tmp_path, 2) as [layer, *servers]:
        run(main(layer, servers))


def test_a_stock_process_at_capacity_misses_the_rest(tmp_path: Path) -> None:
    """As with its own layer; Digi counts what it misses."""

    async def main(servers: list[RedisServer]) -> None:
        config = config_of(servers, []) | {"capacity": 5}
        with stock_layer("core", config):
            async with nodes(tmp_path, servers[0], {"format": "core", **config}) as (one, _):
                await both_joined(servers, one.room)
                key = f"asgi:group:chat_{one.room}"
                with servers[0].client() as client:
                    # A process that does not read.
                    client.zadd(key, {"specific.feed!a": 9e9, "specific.feed!b": 9e9})
                    for number in range(8):
                        await one.engine.post(one.room, "1", "alice", str(number))
                    await one.until("lost", 3)
                    assert client.zcard("asgispecific.feed!") == 5
                    assert 0 < client.ttl("asgispecific.feed!") <= 60
                    assert one.stat("sent") == 5

    with redis_servers(tmp_path, 1) as servers:
        run(main(servers))


def test_a_membership_in_a_group_is_renewed(tmp_path: Path) -> None:
    """Whoever empties Redis puts an end to those of stock processes, for good."""

    async def main(servers: list[RedisServer]) -> None:
        config = config_of(servers, [])
        async with nodes(tmp_path, servers[0], {"format": "core", **config, "group_expiry": 4}) as (one, _):
            await both_joined(servers, one.room)
            with servers[0].client() as client:
                assert 0 < client.ttl(f"asgi:group:chat_{one.room}") <= 4
                client.flushall()
                await both_joined(servers, one.room)
            with stock_layer("core", config):
                await group_send(one.room, type="chat.message", message="end", user="dave", message_id="s1")
            assert len(await one.read_up_to("1", "end")) == 1

    with redis_servers(tmp_path, 1) as servers:
        run(main(servers))


@pytest.mark.parametrize("style", STYLES)
def test_a_password_and_a_prefix(tmp_path: Path, style: str) -> None:
    async def main(servers: list[RedisServer]) -> None:
        config = config_of(servers, []) | {"prefix": "site"}
        with stock_layer(style, config):
            bridge = {"format": style, **config, "group": "chat_{room}"}
            async with nodes(tmp_path, servers[0], bridge) as (one, _), page(one.room) as stock:
                await one.engine.post(one.room, "1", "alice", "hello")
                await stock.hear_message("hello")

    with redis_servers(tmp_path, 1, password="hush") as servers:
        run(main(servers))


@pytest.mark.parametrize(
    ("bridge", "text"),
    [
        ("pub", 'the format is "pubsub" or "core"'),
        ({"format": "core", "host": []}, 'there is no "host"; there are format, hosts'),
    ],
)
def test_a_mistake_is_named(bridge: object, text: str) -> None:
    with pytest.raises(ValueError, match=text):
        digi.Engine(SECRET, bridge=bridge)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("bridge", "code"),
    [
        ({"format": "core", "hosts": ["http://:hush@host"]}, "bad_url"),
        ({"format": "core", "hosts": ["redis+cluster://:hush@host"]}, "bad_url"),
        ({"format": "core", "hosts": ["redis://:hush@host?prefix=x"]}, "bad_url"),
        ({"format": "core", "group": "chat_%s"}, "config"),
        ({"format": "core", "capacity": 0}, "config"),
    ],
)
def test_what_would_not_work_is_said_when_the_engine_opens(bridge: dict[str, object], code: str) -> None:
    with pytest.raises(digi.ConfigError) as raised:
        digi.Engine(SECRET, bridge=bridge).open().result()
    assert raised.value.code == code
    assert "bridge" in str(raised.value)
    assert "hush" not in str(raised.value)
