"""Whatever is put into a call, a clear exception comes out, and the engine goes on."""

import pickle
from types import MappingProxyType
from typing import Any

import pytest

import digi
from engines import MEMBERS, SECRET, connect, new_engine, opened, run

THINGS: list[Any] = [None, 7, -1, 2**70, 1.5, "text", b"bytes", "", "\0", "\ud800", [], {}, object(), ["a", "b"]]


def test_wrong_types_into_every_call_of_an_engine() -> None:
    async def main() -> None:
        async with opened() as (engine, token, room):
            session = await connect(engine, token)
            right: dict[Any, list[Any]] = {
                engine.connect: [token, "1", "alice"],
                engine.post: [room, "1", "alice", "text"],
                engine.edit: [room, "1", "alice", 1, "text"],
                engine.delete: [room, "1", "alice", 1],
                engine.add_member: [room, "3", "carol", "member"],
                engine.remove_member: [room, "3"],
                engine.create_room: [MEMBERS],
                engine.history: [room, None, 50],
                engine.kick: ["9"],
                session.receive: ["{}"],
                session.close: [1000],
                engine.cipher.seal: ["room", 1],
                engine.cipher.open: ["room", token],
            }
            for call, arguments in right.items():
                for place in range(len(arguments)):
                    for thing in THINGS:
                        if call == session.close and thing == 1000:
                            continue
                        wrong = [*arguments[:place], thing, *arguments[place + 1 :]]
                        try:
                            answer = call(*wrong)
                            if isinstance(answer, digi.Pending):
                                await answer
                        except (digi.DigiError, TypeError, ValueError, OverflowError) as error:
                            assert str(error), (call, wrong)  # noqa: PT017
                with pytest.raises(TypeError):
                    call(*arguments, *[None] * 20)
            # Some of that was right enough; the engine has taken no harm.
            assert (await engine.post(room, "1", "alice", "still here")).kind == "added"

    run(main())


@pytest.mark.parametrize(
    ("keys", "error", "says"),
    [
        ({"cipher": "short"}, digi.ConfigError, "at least 32"),
        ({"cipher": 7}, TypeError, "cipher"),
        ({"store": 7}, TypeError, "store"),
        ({"limits": {"body_size": 1}}, ValueError, "body_bytes"),
        ({"limits": {"body_bytes": -1}}, TypeError, "body_bytes"),
        ({"limits": {"history": 2**40}}, ValueError, "history"),
        ({"limits": {7: 7}}, TypeError, "limits"),
        ({"strict": "yes"}, TypeError, "strict"),
        ({"layer": 7}, TypeError, "layer"),
    ],
)
def test_wrong_settings_are_named(keys: dict[str, Any], error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=says):
        digi.Engine(**({"cipher": SECRET} | keys))


def test_limits_are_in_force() -> None:
    async def main() -> None:
        async with digi.Engine(SECRET, limits={"body_bytes": 5}) as engine:
            room = await engine.create_room(MEMBERS)
            with pytest.raises(digi.InputError) as long:
                await engine.post(room, "1", "alice", "123456")
            assert long.value.code == "body_too_long"

    run(main())
    assert digi.Engine.LIMITS["body_bytes"] == 16 * 1024
    digi.Engine(SECRET, limits=MappingProxyType({"body_bytes": 5}))


def test_ciphers() -> None:
    cipher = digi.TokenCipher(SECRET)
    token = cipher.seal("room", 42)
    assert cipher.open("room", token) == 42
    for kind, text in (("message", token), ("room", token[:-1]), ("room", "x")):
        with pytest.raises(digi.InputError) as error:
            cipher.open(kind, text)  # type: ignore[arg-type]
        assert error.value.code == "bad_token"
    rotated = digi.TokenCipher(keys=MappingProxyType({0: SECRET, 2: SECRET[::-1]}), seal_with=2)
    assert rotated.open("room", token) == 42
    assert rotated.seal("room", 42) != token
    before, after = digi.TokenCipher(django=[SECRET]), digi.TokenCipher(django=[SECRET[::-1], SECRET])
    assert after.open("message", before.seal("message", 7)) == 7
    assert SECRET not in repr(rotated) + repr(after)
    for keys, says in (
        ({}, "a keyring needs a key"),
        ({"keys": {1: SECRET, 2: SECRET}}, "which one seals"),
        ({"secret": SECRET, "keys": {0: SECRET}}, "id 0"),
        ({"secret": SECRET, "emit": "rot13"}, "emit"),
        ({"secret": SECRET, "legacy_kinds": ["user"]}, "kind"),
        ({"secret": 7}, "str or bytes"),
        ({"keys": {300: SECRET}}, "."),
    ):
        with pytest.raises((digi.ConfigError, TypeError, ValueError, OverflowError), match=says):
            digi.TokenCipher(**keys)


def test_errors_form_one_tree_and_can_be_pickled() -> None:
    with new_engine() as engine, pytest.raises(digi.NoSuchRoomError) as missing:
        engine.post(99, "1", "alice", "x").result()
    error = missing.value
    assert isinstance(error, digi.RefusedError)
    assert isinstance(error, digi.DigiError)
    again = pickle.loads(pickle.dumps(error))
    assert (type(again), again.code, again.number, str(again)) == (type(error), error.code, error.number, str(error))
