"""`digi.Engine` and `digi.Session`, awaited."""

import asyncio
import gc
import json
import weakref
from pathlib import Path

import pytest

import digi
from engines import MEMBERS, SECRET, TIMEOUT, connect, new_engine, opened, read, run


def test_two_members_chat() -> None:
    async def main() -> None:
        async with opened() as (engine, token, _):
            alice, bob = await connect(engine, token, "1"), await connect(engine, token, "2")
            await alice.receive(json.dumps({"type": "add", "message": "hello", "client_id": "x"}))
            [frame] = await read(bob, "hello")
            shown = json.loads(frame)
            assert (shown["type"], shown["user"], shown["seq"]) == ("add", "alice", 1)
            [ack] = await read(alice, '"ack"')
            assert json.loads(ack)["message_id"] == shown["message_id"]

    run(main())


def test_the_host_speaks_and_changes_members() -> None:
    async def main() -> None:
        async with opened() as (engine, token, room):
            posted = await engine.post(room, "1", "alice", "one", client_id="a")
            assert (posted.kind, posted.seq, posted.pos) == ("added", 1, 1)
            again = await engine.post(room, "1", "alice", "one", client_id="a")
            assert (again.kind, again.message_id, again.seq) == ("duplicate", posted.message_id, None)
            assert posted.message_id is not None
            edited = await engine.edit(room, "1", "alice", posted.message_id, "uno")
            assert edited.message is not None
            assert (edited.kind, edited.message.body, edited.message.pos) == ("edited", "uno", 1)
            with pytest.raises(digi.RefusedError) as refused:
                await engine.delete(room, "2", "bob", posted.message_id)
            assert (refused.value.code, refused.value.number) == ("not_sender", 122)
            deleted = await engine.delete(room, "0", "the host", posted.message_id, as_host=True)
            assert deleted.message is not None
            assert (deleted.kind, deleted.message.body) == ("deleted", None)
            assert (await engine.add_member(room, "3", "carol", "moderator")).kind == "joined"
            assert (await engine.add_member(room, "3", "carol", "moderator")).kind == "unchanged"
            carol = await connect(engine, token, "3")
            assert (await engine.remove_member(room, "3")).user == "3"
            assert await asyncio.wait_for(carol.frames(), TIMEOUT) == []
            assert (carol.close_code, carol.close_reason) == (4502, "removed")
            [tombstone] = await engine.history(room)
            assert (tombstone.body, tombstone.sender, tombstone.sender_name) == (None, "1", "alice")
            assert engine.stats()["committed"] == 5

    run(main())


def test_who_may_not_enter_gets_the_close_code() -> None:
    async def main() -> None:
        async with opened() as (engine, token, _):
            for bad_token, user, number in ((token, "9", 4501), ("AAAA", "1", 4500)):
                with pytest.raises(digi.ConnectionRefusedByDigi) as refused:
                    await engine.connect(bad_token, user)
                assert refused.value.number == number
                assert not refused.value.may_reconnect

    run(main())


def test_kick_and_close_end_the_iteration() -> None:
    async def main() -> None:
        async with opened() as (engine, token, _):
            first, second = await connect(engine, token), await connect(engine, token, "2")
            engine.kick("1")
            assert [frames async for frames in first] == []
            assert first.close_code == 4504
            second.close(4003)
            assert [frames async for frames in second] == []
            assert second.close_reason == "overloaded"
            with pytest.raises(digi.ClosedError) as closed:
                await second.receive("{}")
            assert closed.value.code == "session_closed"

    run(main())


def test_closing_stores_what_is_queued_and_closes_the_sessions(tmp_path: Path) -> None:
    store = f"sqlite:{tmp_path / 'chat.db'}"

    async def before() -> int:
        async with opened(store) as (engine, token, room):
            session = await connect(engine, token)
            for n in range(100):
                await session.receive(json.dumps({"message": f"message {n}"}))
        shown = [frame async for frames in session for frame in frames]
        assert (len(shown), session.close_code) == (100, 1012)
        with pytest.raises(digi.ClosedError):
            await engine.post(room, "1", "alice", "too late")
        return room

    room = run(before())

    async def after() -> None:
        async with new_engine(store) as engine:
            assert len(await engine.history(room, limit=200)) == 100

    run(after())


def test_an_engine_that_is_not_open_says_so() -> None:
    async def main() -> None:
        engine = new_engine()
        assert not engine.is_open
        with pytest.raises(digi.ClosedError, match="not open"):
            await engine.create_room(MEMBERS)
        assert await engine.open() is engine
        # Both at once, and again.
        await asyncio.gather(engine.open(), engine.open())
        assert engine.is_open
        await engine.close()
        await engine.close()
        with pytest.raises(digi.ClosedError):
            await engine.open()

    run(main())


def test_a_bad_store_is_named() -> None:
    async def main() -> None:
        with pytest.raises(digi.ConfigError) as bad:
            await digi.Engine(SECRET, "oracle:x").open()
        assert bad.value.code == "bad_url"
        with pytest.raises(digi.DigiError, match="/nowhere/at/all"):
            await digi.Engine(SECRET, "sqlite:/nowhere/at/all/chat.db").open()
        with pytest.raises(digi.ConfigError):
            await digi.Engine(SECRET, layer="carrier-pigeon:").open()

    run(main())


def test_an_engine_that_is_dropped_leaves_nothing(tmp_path: Path) -> None:
    store = f"sqlite:{tmp_path / 'chat.db'}"

    async def leave() -> weakref.ref[digi.Session]:
        engine = await new_engine(store).open()
        room = await engine.create_room(MEMBERS)
        session = await connect(engine, engine.cipher.seal("room", room))
        await session.receive('{"message": "last words"}')
        await read(session, "last words")
        return weakref.ref(session)

    session = run(leave())
    gc.collect()
    assert session() is None

    async def look() -> None:
        async with new_engine(store) as engine:
            assert [message.body for message in await engine.history(1)] == ["last words"]

    run(look())


def test_a_second_reader_takes_over() -> None:
    async def main() -> None:
        async with opened() as (engine, token, _):
            session = await connect(engine, token)
            first = asyncio.ensure_future(session.frames())
            await asyncio.sleep(0)
            second = asyncio.ensure_future(session.frames())
            with pytest.raises(RuntimeError, match="another reader"):
                await first
            await session.receive('{"message": "for the second"}')
            assert "for the second" in (await second)[0]

    run(main())


def test_a_pending_is_awaited_once() -> None:
    async def main() -> None:
        async with opened() as (engine, token, room):
            pending = engine.post(room, "1", "alice", "once")
            assert (await pending).seq == 1
            with pytest.raises(RuntimeError, match="already"):
                await pending
            # It is done, awaited or not.
            session = await connect(engine, token)
            engine.post(room, "1", "alice", "not waited for")
            await read(session, "not waited for")

    run(main())
