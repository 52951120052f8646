"""Stores written in Python behind Digi's trait."""

import multiprocessing
import os
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

import pytest

import digi
from digi._digi import Applied, Batch
from digi.testing import Subject, run_store_test, store_suite_tests
from django_store.toy import ToyStore

SECRET = "a secret of at least thirty-two bytes"
# A test of the suite that writes, and reads what it wrote.
SOME = "numbers::changes_are_numbered_without_gaps"


@pytest.mark.parametrize("name", store_suite_tests())
def test_a_toy_passes_the_suite(name: str) -> None:
    def factory() -> Subject:
        store = ToyStore()
        another = lambda: ToyStore(store.tables, store.lock)  # noqa: E731
        return Subject(store, second=another, reopen=another, remembers_batches=True)

    print(*run_store_test(name, factory), sep="\n")


def test_what_does_not_apply_is_said() -> None:
    assert run_store_test(SOME, lambda: Subject(ToyStore())) == []
    for name, why in {
        "batches::an_offender_stops_its_batch_and_no_other": "names no offender",
        "batches::a_full_store_says_so_and_stays_readable": "sets no bound to fill",
        "batches::a_void_batch_is_never_done": "says that it remembers no batches",
        "numbers::two_handles_leave_no_gap": "does not offer a second handle",
    }.items():
        assert run_store_test(name, lambda: Subject(ToyStore())) == [f"does not apply: this store's factory {why}"]


def test_a_wrong_store_fails_the_suite() -> None:
    class Forgetful(ToyStore):
        def heads(self, rooms: Sequence[int]) -> list[tuple[int, int, int]]:
            return super().heads(rooms)[1:]

    with pytest.raises(AssertionError):
        run_store_test(SOME, lambda: Subject(Forgetful()))
    with pytest.raises(KeyError):
        run_store_test("numbers::no_such_test", lambda: Subject(ToyStore()))


def test_each_thread_is_released() -> None:
    store = ToyStore()
    run_store_test(SOME, lambda: Subject(store))
    assert store.released == 3


def test_writes_have_one_thread_and_keep_what_it_keeps() -> None:
    local = threading.local()
    seen: dict[str, set[int]] = {"apply": set(), "heads": set()}
    counts: list[int] = []

    class Watched(ToyStore):
        def apply(self, batch: Batch) -> Applied:
            seen["apply"].add(threading.get_ident())
            local.count = getattr(local, "count", 0) + 1
            counts.append(local.count)
            return super().apply(batch)

        def heads(self, rooms: Sequence[int]) -> list[tuple[int, int, int]]:
            seen["heads"].add(threading.get_ident())
            return super().heads(rooms)

    run_store_test(SOME, lambda: Subject(Watched()))
    assert len(seen["apply"]) == 1
    assert len(seen["heads"]) <= 2
    assert not seen["apply"] & seen["heads"]
    assert counts == list(range(1, len(counts) + 1))


@pytest.mark.parametrize("step", ["middle", "after"])
def test_an_apply_that_raises_is_repeated(step: str) -> None:
    """Whether it had done its work or not."""
    store = ToyStore()
    with digi.Engine(SECRET, store) as engine:
        room = engine.create_room([("7", "alice", "member")]).result()
        store.fail_in = step
        outcome = engine.post(room, "7", "alice", "hello").result()
        assert (outcome.kind, outcome.seq) == ("added", 1)
        assert [message.body for message in engine.history(room).result()] == ["hello"]


def test_exceptions_become_what_they_mean() -> None:
    class Failing(ToyStore):
        error: Exception = ValueError("oops")

        def _head(self, _room: int) -> tuple[int, int, int, int]:
            raise self.error

    store = Failing()
    with digi.Engine(SECRET, store) as engine:
        for error, kind, text in [
            (ValueError("oops"), digi.StoreUnavailableError, "ValueError: oops"),
            (digi.StoreUnavailableError("later"), digi.StoreUnavailableError, "later"),
            (digi.StoreFullError("full up"), digi.StoreFullError, "full up"),
            (digi.StoreRejectedError("no"), digi.StoreRejectedError, "no"),
            (digi.NoSuchRoomError("gone"), digi.NoSuchRoomError, "no room 7"),
        ]:
            store.error = error
            with pytest.raises(kind, match=text):
                engine.history(7).result()


def test_an_answer_of_the_wrong_type_is_named() -> None:
    class Odd(ToyStore):
        def history(self, *_: object) -> digi.History:
            return "no history"  # type: ignore[return-value]

    with (
        digi.Engine(SECRET, Odd()) as engine,
        pytest.raises(digi.StoreUnavailableError, match=r"history\(\): it has to return digi.History, not str"),
    ):
        engine.history(7).result()


def test_what_is_no_store_is_refused() -> None:
    class Half:
        def migrate(self) -> None:
            pass

    with pytest.raises(TypeError, match=r"it has no method apply\(\)"):
        run_store_test(SOME, lambda: Subject(Half()))  # type: ignore[arg-type]


def test_a_forked_child_does_not_hang() -> None:
    engine = digi.Engine(SECRET, ToyStore()).open().result()
    room = engine.create_room([("7", "alice", "member")]).result()

    def child() -> None:
        try:
            engine.post(room, "7", "alice", "from the child").result()
        except digi.ClosedError:
            os._exit(0)
        os._exit(1)

    process = multiprocessing.get_context("fork").Process(target=child)
    process.start()
    process.join(30)
    assert process.exitcode == 0
    assert engine.post(room, "7", "alice", "from the parent").result().seq == 1
    engine.close().result()


@pytest.mark.parametrize("ending", ["", "engine.close().result()", "sys.exit(0)", "del engine"])
def test_the_interpreter_ends_in_order(ending: str) -> None:
    script = f"""
import sys
import digi
from django_store.toy import ToyStore
engine = digi.Engine({SECRET!r}, ToyStore()).open().result()
room = engine.create_room([("7", "alice", "member")]).result()
pending = [engine.post(room, "7", "alice", str(n)) for n in range(100)]
print(max(post.result().seq for post in pending))
{ending}
"""
    tests = Path(__file__).parent.parent
    path = os.pathsep.join([str(tests), *sys.path])
    done = subprocess.run(
        [sys.executable, "-c", script],
        env=os.environ | {"PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "100\n", "")


@pytest.mark.parametrize("run", range(5))
def test_the_interpreter_waits_for_threads_on_their_way_out(run: int, tmp_path: Path) -> None:
    """One that comes back from closing its connection, when the interpreter is gone, would take the process with it."""
    app = Path(__file__).parent.parent / "asgi_app.py"
    environment = {name: value for name, value in os.environ.items() if name != "DJANGO_SETTINGS_MODULE"}
    environment |= {"DIGI_DATA": str(tmp_path), "DIGI_STORE": "orm"}
    done = subprocess.run([sys.executable, app], env=environment, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, ""), run
