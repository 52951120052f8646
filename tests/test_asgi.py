"""`digi.asgi` under real ASGI servers, with real sockets."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from asgi_servers import SERVERS, AsgiServer
from chat_client import TIMEOUT, connected, live


@pytest.fixture(params=SERVERS)
def server(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[AsgiServer]:
    server = AsgiServer(request.param, tmp_path / "data")
    with server.running():
        yield server


def test_two_clients_chat_and_resume(server: AsgiServer) -> None:
    with live(server, "alice") as alice, live(server, "bob") as bob:
        added = alice.add("hello")
        assert bob.expect("add")["message"] == "hello"
        alice.send("edit", message_id=added["message_id"], message="hello, bob")
        assert bob.expect("edit")["message"] == "hello, bob"
        cursor = f"{bob.history()['cursor'].split('.')[0]}.{added['seq']}"
        alice.send("delete", message_id=added["message_id"])
        assert bob.expect("delete")["pos"] == added["pos"]
    with connected(server, "bob", after=cursor) as bob:
        assert bob.receive()["type"] == "delete"
        assert bob.receive()["type"] == "resumed"


def test_who_is_not_let_in_is_told_by_a_close_code(server: AsgiServer) -> None:
    with connected(server, "eve") as eve:
        assert eve.close_code() == 4501
    with connected(server, "bob", room="AAAA") as lost:
        assert lost.close_code() == 4500
    door = server.door("alice")
    with connect(door.url.partition("?")[0], open_timeout=TIMEOUT) as nobody, pytest.raises(ConnectionClosed) as closed:
        nobody.recv(TIMEOUT)
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 4503


def test_a_foreign_page_is_refused(server: AsgiServer) -> None:
    with pytest.raises(InvalidStatus) as refused, connected(server, "bob", origin="https://evil.example"):
        pass
    assert refused.value.response.status_code == 403
    with connected(server, "bob", origin=server.url.rstrip("/")) as bob:
        assert bob.receive()["type"] == "resumed"


def test_other_paths_are_refused(server: AsgiServer) -> None:
    with pytest.raises(InvalidStatus) as refused, connect(f"{server.ws_url}elsewhere/", open_timeout=TIMEOUT):
        pass
    assert refused.value.response.status_code == 403
    with pytest.raises(InvalidStatus), connect(f"{server.ws_url}ws/chatting", open_timeout=TIMEOUT):
        pass


def test_bad_frames_cost_an_error_and_nothing_else(server: AsgiServer) -> None:
    with live(server, "alice") as alice:
        for sent, code in (("{", "bad_json"), ('{"type":"dance"}', "unknown_type"), (b"\x00\xff", "not_text")):
            alice.socket.send(sent)
            assert alice.expect("error")["code"] == code
        assert alice.add("still here")["message"] == "still here"


def test_history_is_there_after_a_stop(server: AsgiServer) -> None:
    with live(server, "alice") as alice:
        alice.add("before")
    server.stop()
    server.start()
    with live(server, "bob") as bob:
        assert [message["message"] for message in bob.history()["messages"]] == ["before"]
