"""Whatever a client sends: it gets a clear code, nothing is lost, and the connection goes on, or closes as written."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from websockets.exceptions import ConnectionClosed

from chat_client import connected, forge_login, live
from conftest import Server

# A server for all of these: each test looks only at what came after it began.


@pytest.fixture(scope="module")
def server(server_binary: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(server_binary, tmp_path_factory.mktemp("bad-input") / "data")
    with server.running():
        yield server


@pytest.fixture(scope="module")
def foreign_room(server_binary: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A room's token from a server with another secret."""
    other = Server(server_binary, tmp_path_factory.mktemp("foreign") / "data")
    try:
        other.start()
        return other.door("alice").room
    finally:
        other.close()


class Bad(NamedTuple):
    sent: str | bytes
    code: str


def frame(**keys: object) -> str:
    return json.dumps(keys)


BAD = {
    "no JSON": Bad("Hello", "bad_json"),
    "half a frame": Bad('{"type":"add","message":"x"', "bad_json"),
    "nothing": Bad("", "bad_json"),
    "no object": Bad('["add", "x"]', "bad_json"),
    "null": Bad("null", "bad_json"),
    "a lone surrogate": Bad('{"type":"add","message":"\\ud800"}', "bad_json"),
    "too deep": Bad('{"message":' * 5000 + "1" + "}" * 5000, "bad_json"),
    "too deep where nobody looks": Bad('{"x":' * 5000 + "1" + "}" * 5000, "bad_frame"),
    "a message that is a number": Bad(frame(type="add", message=1), "bad_frame"),
    "a message that is null": Bad(frame(type="add", message=None), "bad_frame"),
    "a message that is a list": Bad(frame(type="add", message=["x"]), "bad_frame"),
    "no message": Bad(frame(type="add"), "bad_frame"),
    "a type that is a number": Bad(frame(type=1, message="x"), "bad_frame"),
    "a key twice": Bad('{"type":"add","message":"x","message":"y"}', "bad_frame"),
    "a limit below zero": Bad(frame(type="history", limit=-1), "bad_frame"),
    "a limit too large": Bad(frame(type="history", limit=2**32), "bad_frame"),
    "a place that is a float": Bad(frame(type="history", before=1.5), "bad_frame"),
    "resend as text": Bad(frame(type="add", message="x", resend="true"), "bad_frame"),
    "no message_id": Bad(frame(type="delete"), "bad_frame"),
    "no cursor": Bad(frame(type="resume"), "bad_frame"),
    "an unknown type": Bad(frame(type="explode", message="x"), "unknown_type"),
    "an empty type": Bad(frame(type="", message="x"), "unknown_type"),
    "a type to come": Bad(frame(type="read", seq=1), "unsupported"),
    "an empty message": Bad(frame(type="add", message=""), "empty_body"),
    "only white space": Bad(frame(type="add", message=" \n\t\u2003"), "empty_body"),
    "one byte too long": Bad(frame(type="add", message="x" * 16_385), "body_too_long"),
    "too long in bytes": Bad(json.dumps({"type": "add", "message": "é" * 8_193}, ensure_ascii=False), "body_too_long"),
    "NUL": Bad(frame(type="add", message="a\0b"), "bad_body"),
    "an empty client_id": Bad(frame(type="add", message="x", client_id=""), "bad_client_id"),
    "a long client_id": Bad(frame(type="add", message="x", client_id="x" * 65), "bad_client_id"),
    "NUL in a client_id": Bad(frame(type="add", message="x", client_id="\0"), "bad_client_id"),
    "an empty message_id": Bad(frame(type="delete", message_id=""), "bad_token"),
    "broken base64": Bad(frame(type="delete", message_id="AQ!!"), "bad_token"),
    "a number for a token": Bad(frame(type="delete", message_id="1"), "bad_token"),
    "a legacy token without its key": Bad(
        frame(
            type="delete",
            message_id="Z0FBQUFBQm15MjlPNXcwQWdzUGlobHl3NE4tVHlQak81NWQwbEg2Rm9MUVJyMklYcV9LdWJvQnhXWThRZUhoWlhrVn"
            "FjZElScXJlR3Z6YW9TWGdSdm9TaWN6dFloR1R5SWc9PQ==",
        ),
        "bad_token",
    ),
    "a bad room": Bad(frame(type="add", message="x", room="AQ"), "bad_token"),
    "a binary frame": Bad(b'{"type":"add","message":"x"}', "not_text"),
}


@pytest.mark.parametrize("bad", BAD.values(), ids=BAD.keys())
def test_a_bad_frame_gets_its_code_and_nothing_else_happens(server: Server, bad: Bad) -> None:
    with live(server, "alice") as alice, live(server, "bob") as bob:
        before = alice.add("before")
        alice.socket.send(bad.sent)
        error = alice.receive()
        assert (error["type"], error["code"]) == ("error", bad.code)
        assert error["detail"].endswith(".")
        after = alice.add("after")
        assert after["seq"] == before["seq"] + 1
        assert (bob.receive(), bob.receive()) == (before, after)
        assert (alice.rest(), bob.rest()) == ([], [])


def test_an_error_names_the_frame_that_it_answers(server: Server) -> None:
    with live(server, "alice") as alice:
        alice.send("add", message=" ", client_id="one")
        alice.send("explode", client_id="two")
        alice.send("add", message=7, client_id="three")
        assert [alice.receive().get("client_id") for _ in range(3)] == ["one", "two", "three"]


def test_a_frame_of_1_mib_is_refused(server: Server) -> None:
    with live(server, "alice") as alice, live(server, "bob") as bob:
        before = alice.add("before")
        # Longer than a frame may be, but short enough to be read.
        alice.send("add", message="x" * 200_000)
        assert alice.receive()["code"] == "frame_too_large"
        between = alice.add("between")
        # The rest of it is not read, so that the connection cannot go on.
        alice.send("add", message="x" * 2**20)
        assert alice.receive()["code"] == "frame_too_large"
        assert alice.close_code() == 1009
        with live(server, "alice") as again:
            after = again.add("after")
        assert [bob.receive() for _ in range(3)] == [before, between, after]


def test_invalid_utf_8_is_refused(server: Server) -> None:
    with live(server, "alice") as alice, live(server, "bob") as bob:
        before = alice.add("before")
        alice.socket.send(b'{"type":"add","message":"\xff"}', text=True)
        # RFC 6455 8.1: the connection has to fail.
        assert alice.close_code() == 1007
        with live(server, "alice") as again:
            after = again.add("after")
        assert (bob.receive(), bob.receive()) == (before, after)


def test_a_token_of_another_kind_or_key_opens_no_room(server: Server, foreign_room: str) -> None:
    with live(server, "alice") as alice:
        message = alice.add("x")["message_id"]
        room = alice.room
    flipped = room[:-5] + ("A" if room[-5] != "A" else "B") + room[-4:]
    for token in (message, foreign_room, flipped, room[:-1], room + "A", "1", "%20", "a" * 4000):
        with connected(server, "alice", room=token) as alice:
            assert alice.close_code() == 4500, token


def test_a_token_of_another_kind_or_key_names_no_message(server: Server, foreign_room: str) -> None:
    with live(server, "alice") as alice:
        added = alice.add("stays")
        for token in (alice.room, foreign_room, added["message_id"][:-1], added["message_id"] + "A"):
            for request in ("edit", "delete"):
                alice.send(request, message_id=token, message="x", client_id="t")
                assert alice.expect("error")["code"] == "bad_token"
        alice.send("add", message="x", room=foreign_room)
        assert alice.expect("error")["code"] == "bad_token"
        alice.send("add", message="x", room=added["message_id"])
        assert alice.expect("error")["code"] == "bad_token"
        assert alice.history(limit=1)["messages"][0]["message"] == "stays"
        assert alice.rest() == []


def test_the_messages_of_others_cannot_be_changed(server: Server) -> None:
    with live(server, "alice") as alice, live(server, "bob") as bob:
        added = alice.add("Alice's own")
        for request in ("edit", "delete"):
            bob.send(request, message_id=added["message_id"], message="Bob's", user="alice", client_id=request)
            assert bob.expect("error", client_id=request)["code"] == "not_sender"
        assert bob.history(limit=1)["messages"][0]["message"] == "Alice's own"
        assert alice.rest() == []


def test_a_deleted_message_stays_as_it_is(server: Server) -> None:
    with live(server, "alice") as alice:
        added = alice.add("gone")
        alice.send("delete", message_id=added["message_id"])
        alice.expect("delete")
        for request in ("edit", "delete"):
            alice.send(request, message_id=added["message_id"], message="back", client_id=request)
            assert alice.expect("error", client_id=request)["code"] == "message_deleted"
        last = alice.history(limit=1)["messages"][0]
        assert last["deleted"] is True
        assert "message" not in last
        assert alice.add("next")["seq"] == added["seq"] + 2


def test_who_has_no_good_login_does_not_get_in(server: Server) -> None:
    logins = {
        "carol is no member": (forge_login(server, "carol"), 4501),
        "expired": (forge_login(server, "alice", lifetime=-3600), 4503),
        "another key": (forge_login(server, "alice", secret=b"x" * 32), 4503),
        "no token at all": ("nonsense", 4503),
        "unsigned": ("eyJhbGciOiJub25lIn0.eyJzdWIiOiJhbGljZSIsImV4cCI6OTk5OTk5OTk5OX0.", 4503),
    }
    for name, (login, code) in logins.items():
        with connected(server, "alice", login=login) as client:
            assert client.close_code() == code, name


def test_who_floods_is_slowed_down_and_harms_nobody(server: Server) -> None:
    with live(server, "alice") as alice, live(server, "bob") as bob:
        stored: list[int] = []
        refused: list[str] = []
        for number in range(250):
            alice.send("add", message=f"flood {number}", client_id=str(number))
        while len(stored) + len(refused) < 250:
            answer = alice.receive()
            if answer["type"] == "ack":
                stored.append(answer["pos"])
            elif answer["type"] == "error":
                assert answer["code"] == "rate_limited"
                refused.append(answer["client_id"])
        assert len(stored) >= 200
        assert refused
        assert [bob.expect("add")["pos"] for _ in stored] == stored
        assert bob.add("unharmed")["user"] == "bob"


def test_who_is_refused_over_and_over_is_closed(server: Server) -> None:
    with live(server, "alice") as alice, live(server, "bob") as bob:
        try:
            for _ in range(300):
                alice.socket.send("nonsense")
        except ConnectionClosed:
            pass
        assert alice.close_code() == 4506
        assert bob.add("unharmed")["user"] == "bob"
