"""Cancellation, threads, several event loops, loops that close, forks: whoever waits, nothing hangs or gets lost."""

import asyncio
import contextlib
import gc
import os
import resource
import signal
import threading
import weakref
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

import digi
from engines import LIMITS, MEMBERS, SECRET, TIMEOUT, connect, new_engine, opened, read, run


def steps(count: int) -> Callable[[], Any]:
    async def some() -> None:
        for _ in range(count):
            await asyncio.sleep(0)

    return some


@pytest.mark.parametrize("after", range(4))
def test_cancelled_at_every_step_nothing_breaks(after: int) -> None:
    async def main() -> None:
        async with opened() as (engine, token, room):
            session = await connect(engine, token)
            calls: list[Callable[[], digi.Pending[Any]]] = [
                lambda: engine.connect(token, "2"),
                lambda: engine.post(room, "1", "alice", "posted"),
                lambda: engine.create_room(MEMBERS),
                lambda: engine.add_member(room, "3", "carol"),
                lambda: engine.remove_member(room, "3"),
                lambda: engine.history(room),
                lambda: session.receive('{"message": "received"}'),
                lambda: engine.open(),
            ]
            for call in calls:
                task = asyncio.ensure_future(call())
                await steps(after)()
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
                del task
            # What was given to the engine is done, whoever waited for it; the session that nobody got is gone.
            await engine.post(room, "1", "alice", "the end")
            shown = await read(session, '"add"', 3)
            assert sum("posted" in frame for frame in shown) == 1
            assert sum("received" in frame for frame in shown) == 1
            assert engine.stats()["sessions"] == 1

    run(main())


def test_a_cancelled_read_loses_no_frame() -> None:
    async def main() -> None:
        async with opened() as (engine, token, room):
            session = await connect(engine, token)
            got: list[str] = []

            async def read_on() -> None:
                async for frames in session:
                    got.extend(frames)

            for n in range(200):
                reader = asyncio.ensure_future(read_on())
                await steps(n % 4)()
                await engine.post(room, "1", "alice", f"message {n}")
                await steps(n % 3)()
                reader.cancel()
                await asyncio.gather(reader, return_exceptions=True)
            while len(got) < 200:
                got += await asyncio.wait_for(session.frames(), TIMEOUT)
            assert [f"message {n}" in frame for n, frame in enumerate(got)] == [True] * 200

    run(main())


def test_a_pending_whose_await_was_cancelled_can_be_awaited_again() -> None:
    async def main() -> None:
        async with opened() as (engine, token, room):
            session = await connect(engine, token)
            frames = session.frames()
            task = asyncio.ensure_future(frames)
            await asyncio.sleep(0)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            await engine.post(room, "1", "alice", "hello")
            assert "hello" in (await frames)[0]

    run(main())


def test_one_engine_under_two_event_loops() -> None:
    heard: dict[str, list[str]] = {}
    both = threading.Barrier(2, timeout=TIMEOUT)
    with new_engine() as engine:
        room = engine.create_room(MEMBERS).result()
        token = engine.cipher.seal("room", room)

        def person(user: str) -> None:
            async def main() -> None:
                session = await connect(engine, token, user)
                await asyncio.get_running_loop().run_in_executor(None, both.wait)
                for n in range(50):
                    await session.receive(f'{{"message": "{user}: {n}"}}')
                heard[user] = await read(session, '"add"', 100)

            run(main())

        threads = [threading.Thread(target=person, args=(user,)) for user in ("1", "2")]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(TIMEOUT)
    assert heard["1"] == heard["2"]
    assert len(heard["1"]) == 100


def test_plain_threads() -> None:
    with new_engine() as engine:
        room = engine.create_room(MEMBERS).result()
        token = engine.cipher.seal("room", room)
        with engine.connect(token, "1", "alice").result() as session:
            assert "resumed" in session.frames().result(TIMEOUT)[0]
            with ThreadPoolExecutor(8) as pool:
                posts = pool.map(lambda n: engine.post(room, "2", "bob", f"{n}").result(), range(200))
                assert sorted(post.seq or 0 for post in posts) == list(range(1, 201))
            heard = 0
            for frames in session:
                heard += len(frames)
                if heard == 200:
                    session.close()
            assert session.close_code == 1000
    with pytest.raises(digi.ClosedError):
        engine.post(room, "1", "alice", "closed").result()


def test_result_gives_up_and_may_be_asked_again() -> None:
    with new_engine() as engine:
        room = engine.create_room(MEMBERS).result()
        session = engine.connect(engine.cipher.seal("room", room), "1").result()
        session.frames().result(TIMEOUT)
        frames = session.frames()
        for _ in range(3):
            with pytest.raises(TimeoutError):
                frames.result(0.01)
        engine.post(room, "2", "bob", "late").result()
        assert "late" in frames.result(TIMEOUT)[0]
        for bad in (-1, float("nan")):
            with pytest.raises(ValueError, match="timeout"):
                session.frames().result(bad)


def test_result_does_not_block_an_event_loop() -> None:
    async def main() -> None:
        async with opened() as (engine, _, room):
            pending = engine.post(room, "1", "alice", "hello")
            with pytest.raises(RuntimeError, match="await"):
                pending.result()
            assert (await pending).seq == 1

    run(main())


def test_ctrl_c_interrupts_a_wait() -> None:
    with new_engine() as engine:
        room = engine.create_room(MEMBERS).result()
        session = engine.connect(engine.cipher.seal("room", room), "1").result()
        session.frames().result(TIMEOUT)
        main = threading.get_ident()
        threading.Timer(0.05, lambda: signal.pthread_kill(main, signal.SIGINT)).start()
        with pytest.raises(KeyboardInterrupt):
            session.frames().result(TIMEOUT)


def test_a_loop_may_close_while_sessions_are_open() -> None:
    with new_engine() as engine:
        room = engine.create_room(MEMBERS).result()
        token = engine.cipher.seal("room", room)
        loop = asyncio.new_event_loop()

        async def leave_waiting() -> tuple[digi.Session, "asyncio.Task[list[str]]"]:
            session = await connect(engine, token)
            waiting = asyncio.ensure_future(_frames(session))
            await asyncio.sleep(0)
            return session, waiting

        async def _frames(session: digi.Session) -> list[str]:
            return await session.frames()

        session, waiting = loop.run_until_complete(leave_waiting())
        loop.close()
        # It is told of frames that it can't hear of.
        engine.post(room, "2", "bob", "one").result()
        engine.post(room, "2", "bob", "two").result()
        shown: list[str] = []
        while len(shown) < 2:
            shown += session.frames().result(TIMEOUT)
        assert "two" in shown[1]

        async def go_on() -> None:
            engine.post(room, "2", "bob", "three")
            assert "three" in (await session.frames())[0]

        run(go_on())
        waiting._log_destroy_pending = False  # type: ignore[attr-defined]


def test_a_forked_child_is_told_and_makes_its_own() -> None:
    engine = new_engine()
    engine.open().result()
    room = engine.create_room(MEMBERS).result()
    session = engine.connect(engine.cipher.seal("room", room), "1").result()
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        said = "nothing"
        try:
            codes = []
            for call in (
                lambda: engine.post(room, "1", "alice", "x").result(),
                lambda: session.receive("{}"),
                lambda: session.frames(),
                lambda: session.close(),
                lambda: engine.stats(),
            ):
                try:
                    call()
                except digi.ClosedError as error:
                    codes.append(error.code)
            with digi.Engine(SECRET, limits=LIMITS) as own:
                made = own.create_room(MEMBERS).result(TIMEOUT)
            del engine, session
            said = f"{codes} {made}"
        except BaseException as error:
            said = repr(error)
        finally:
            os.write(writer, said.encode())
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as answers:
        assert answers.read() == f"{['engine_forked'] * 5} 1"
    os.waitpid(child, 0)
    assert engine.post(room, "1", "alice", "the parent goes on").result().seq == 1
    engine.close().result()


def test_ten_thousand_sessions_leave_nothing_behind() -> None:
    async def main() -> None:
        async with opened() as (engine, token, _):

            async def one(n: int) -> None:
                async with await engine.connect(token, str(1 + n % 2)) as session:
                    await session.receive('{"type": "history", "limit": 1}')
                    await session.frames()

            for _ in range(40):
                await asyncio.gather(*[one(n) for n in range(50)])
            before = memory()
            for _ in range(200):
                await asyncio.gather(*[one(n) for n in range(50)])
            assert engine.stats()["sessions"] == 0
            # 10,000 sessions that each left half a kilobyte would be more than that.
            assert memory() - before < 4 * 1024 * 1024

    run(main())


def memory() -> int:
    """Bytes of memory that the process holds."""
    gc.collect()
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def test_a_read_that_was_never_begun_takes_nothing() -> None:
    async def main() -> None:
        async with opened() as (engine, token, room):
            session = await connect(engine, token)
            await engine.post(room, "2", "bob", "hello")
            task = asyncio.ensure_future(session.frames())
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(session.frames(), 0)
            with pytest.raises(RuntimeError, match="await"):
                next(session)
            assert "hello" in (await session.frames())[0]

    run(main())


def test_of_two_who_wait_for_the_same_one_is_told() -> None:
    async def main() -> None:
        async with opened() as (engine, token, room):
            session = await connect(engine, token)
            frames = session.frames()
            both = [asyncio.ensure_future(frames), asyncio.ensure_future(frames)]
            await asyncio.sleep(0)
            await engine.post(room, "2", "bob", "hello")
            got = await asyncio.wait_for(asyncio.gather(*both, return_exceptions=True), TIMEOUT)
            assert sorted(type(answer).__name__ for answer in got) == ["RuntimeError", "list"]

            frames = session.frames()
            waiting = asyncio.ensure_future(frames)
            await asyncio.sleep(0)
            with pytest.raises(TimeoutError):
                await asyncio.to_thread(frames.result, 0.01)
            with pytest.raises(RuntimeError, match="elsewhere"):
                await asyncio.wait_for(waiting, TIMEOUT)

    run(main())


def test_an_engine_closed_while_it_opens_ends() -> None:
    async def main() -> None:
        for _ in range(20):
            engine = new_engine()
            opening, closing = engine.open(), engine.close()
            await asyncio.wait_for(closing, TIMEOUT)
            with contextlib.suppress(digi.ClosedError):
                await opening
            assert engine.is_closed
            with pytest.raises(digi.ClosedError):
                await engine.create_room(MEMBERS)

    run(main())


def test_loops_that_end_leave_nothing_behind() -> None:
    with new_engine() as engine:
        room = engine.create_room(MEMBERS).result()
        token = engine.cipher.seal("room", room)

        async def leave() -> tuple[digi.Session, "weakref.ref[asyncio.AbstractEventLoop]"]:
            session = await connect(engine, token)
            task = asyncio.ensure_future(session.frames())
            await asyncio.sleep(0)
            task.cancel()
            return session, weakref.ref(asyncio.get_running_loop())

        before = len(list(Path("/proc/self/fd").iterdir()))
        loops = []
        for _ in range(20):
            session, loop = asyncio.run(leave())
            engine.post(room, "2", "bob", "to nobody").result()
            del session
            loops.append(loop)
        # The thread remembers the loop that it ran last.
        run(connect(engine, token))
        gc.collect()
        assert [loop() for loop in loops] == [None] * 20
        assert len(list(Path("/proc/self/fd").iterdir())) <= before + 4


def test_long_waits_are_no_panic() -> None:
    with new_engine() as engine:
        room = engine.create_room(MEMBERS).result()
        session = engine.connect(engine.cipher.seal("room", room), "1").result()
        for timeout in (1e19, float("inf")):
            engine.post(room, "2", "bob", "hello").result()
            assert session.frames().result(timeout)
