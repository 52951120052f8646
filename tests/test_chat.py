"""Two people chat with the example server over real sockets, through a client that is not Digi's."""

import urllib.error
import urllib.request

import pytest
from websockets.exceptions import InvalidStatus

from chat_client import Frame, connected, forge_login, live
from conftest import Server


def texts(history: Frame) -> list[str | None]:
    return [message.get("message") for message in history["messages"]]


def test_both_see_add_edit_and_delete(server: Server) -> None:
    with live(server, "alice") as alice, live(server, "bob") as bob:
        alice.send("add", message="Hello", client_id="a")
        ack = alice.expect("ack")
        added = bob.expect("add")
        assert added == alice.expect("add")
        assert (added["message"], added["user"], added["seq"], added["pos"]) == ("Hello", "alice", 1, 1)
        assert ack == {"type": "ack", "client_id": "a", "message_id": added["message_id"], "seq": 1, "pos": 1}

        alice.send("edit", message_id=added["message_id"], message="Hello, Bob", client_id="b")
        edited = bob.expect("edit")
        assert edited == alice.expect("edit")
        assert (edited["message"], edited["message_id"], edited["seq"], edited["pos"]) == (
            "Hello, Bob",
            added["message_id"],
            2,
            1,
        )
        assert alice.expect("ack", client_id="b")["seq"] == 2

        alice.send("delete", message_id=added["message_id"], client_id="c")
        deleted = bob.expect("delete")
        assert deleted == alice.expect("delete")
        assert "message" not in deleted
        assert (deleted["message_id"], deleted["seq"], deleted["pos"]) == (added["message_id"], 3, 1)
        assert alice.expect("ack", client_id="c")["seq"] == 3

        assert alice.rest() == []
        assert bob.rest() == []


def test_classic_frames_are_understood(server: Server) -> None:
    with live(server, "alice") as alice, live(server, "bob") as bob:
        alice.socket.send('{"message": "no type", "user": "alice"}')
        added = bob.expect("add")
        alice.socket.send(f'{{"action": "edit", "message_id": "{added["message_id"]}", "message": "x", "user": 1}}')
        assert bob.expect("edit")["message"] == "x"


def test_a_claimed_user_is_not_believed(server: Server) -> None:
    with live(server, "alice") as alice, live(server, "bob") as bob:
        alice.send("add", message="I am Bob", user="bob")
        assert bob.expect("add")["user"] == "alice"


@pytest.mark.parametrize("text", ["👩‍👩‍👧 🇩🇪", "שלום مرحبا", "e\u0301 \u202e", "a\r\n\tb", "<b>&amp;", "x" * 16_384])
def test_texts_come_back_as_they_were(server: Server, text: str) -> None:
    with live(server, "alice") as alice, live(server, "bob") as bob:
        alice.add(text)
        assert bob.expect("add")["message"] == text
        assert texts(bob.history()) == [text]


def test_a_resend_is_acknowledged_and_not_stored_again(server: Server) -> None:
    with live(server, "bob") as bob:
        with live(server, "alice") as alice:
            alice.send("add", message="once", client_id="the same")
            first = alice.expect("ack")
        with live(server, "alice") as alice:
            alice.send("add", message="once", client_id="the same", resend=True)
            assert alice.expect("ack") == first
            # A client_id belongs to its sender.
            bob.send("add", message="another's", client_id="the same")
            assert bob.expect("ack")["pos"] == 2
            assert texts(alice.history()) == ["once", "another's"]
        assert [frame["pos"] for frame in [bob.expect("add"), bob.expect("add")]] == [1, 2]
        assert bob.rest() == []


def test_history_comes_in_pages(server: Server) -> None:
    with live(server, "alice") as alice:
        for number in range(1, 121):
            alice.send("add", message=str(number))
        for number in range(1, 121):
            assert alice.expect("add")["pos"] == number
        tombstone = alice.history(before=101, limit=1)["messages"][0]
        alice.send("delete", message_id=tombstone["message_id"])
        alice.expect("delete")
        edited = alice.history(before=100, limit=1)["messages"][0]
        alice.send("edit", message_id=edited["message_id"], message="edited")
        alice.expect("edit")

        newest = alice.history()
        assert texts(newest) == [None if pos == 100 else "edited" if pos == 99 else str(pos) for pos in range(71, 121)]
        assert (newest["more"], newest["through"]) == (True, 122)
        assert (
            newest["messages"][29] == {**tombstone, "deleted": True} | {"message": None}
            or "message" not in (newest["messages"][29])
        )
        assert "edited_at" in newest["messages"][28]

        middle = alice.history(before=71, limit=60)
        assert ([message["pos"] for message in middle["messages"]], middle["more"]) == (list(range(11, 71)), True)
        oldest = alice.history(before=11, limit=10)
        assert ([message["pos"] for message in oldest["messages"]], oldest["more"]) == (list(range(1, 11)), False)
        nothing = alice.history(before=1)
        assert (nothing["messages"], nothing["more"]) == ([], False)


def test_who_comes_back_gets_what_changed_once(server: Server) -> None:
    with live(server, "bob") as bob:
        old = [bob.add(text) for text in ("edited later", "deleted later", "untouched")]
        with connected(server, "alice") as alice:
            cursor = alice.expect("resumed")["cursor"]
        bob.send("edit", message_id=old[0]["message_id"], message="edited")
        bob.send("edit", message_id=old[0]["message_id"], message="edited twice")
        bob.send("delete", message_id=old[1]["message_id"])
        new = [bob.add(text) for text in ("new", "new and edited", "new and deleted")]
        bob.send("edit", message_id=new[1]["message_id"], message="new in its second form")
        bob.send("delete", message_id=new[2]["message_id"])
        bob.expect("delete", message_id=new[2]["message_id"])

        with connected(server, "alice", after=cursor) as alice:
            replayed = [alice.receive() for _ in range(6)]
            assert [
                (frame["type"], frame.get("message"), frame.get("pos"), frame.get("seq")) for frame in replayed
            ] == [
                ("edit", "edited twice", 1, 5),
                ("delete", None, 2, 6),
                ("add", "new", 7, 7),
                ("add", "new in its second form", 8, 10),
                ("delete", None, 9, 11),
                ("resumed", None, None, None),
            ]
            epoch = cursor.split(".")[0]
            assert replayed[-1]["cursor"] == f"{epoch}.11"
            assert alice.rest() == []
            live_again = bob.add("live again")
            assert alice.receive() == live_again

            # The same within a connection.
            alice.send("resume", after=f"{epoch}.11")
            assert alice.receive() == live_again
            assert alice.receive() == {"type": "resumed", "cursor": f"{epoch}.12"}


def test_a_resume_after_a_restart_goes_on_where_it_was(server: Server) -> None:
    with live(server, "alice") as alice:
        first = alice.add("before")
    with connected(server, "alice") as alice:
        cursor = alice.expect("resumed")["cursor"]
        server.restart()
    with live(server, "bob") as bob:
        second = bob.add("after")
        assert second["seq"] == first["seq"] + 1
    with connected(server, "alice", after=cursor) as alice:
        assert alice.receive() == second
        assert alice.expect("resumed")["cursor"] == cursor.rpartition(".")[0] + ".2"


def reset_cursors(cursor: str) -> dict[str, str]:
    epoch, seq = (int(part) for part in cursor.split("."))
    return {
        "an epoch that was": f"{epoch - 1}.{seq}",
        "an epoch to come": f"{epoch + 1}.{seq}",
        "ahead of the room": f"{epoch}.{seq + 1}",
        "no history at all": "0.0",
        "as large as can be": f"{2**64 - 1}.{2**64 - 1}",
    }


def test_a_cursor_that_is_of_no_use_gets_a_reset(server: Server) -> None:
    with live(server, "bob") as bob:
        bob.add("one")
        bob.add("two")
        with connected(server, "alice") as alice:
            good = alice.expect("resumed")["cursor"]
        for name, cursor in reset_cursors(good).items():
            with connected(server, "alice", after=cursor) as alice:
                assert alice.receive() == {"type": "reset", "cursor": good}, name
                history = alice.receive()
                assert (history["type"], texts(history), history["cursor"]) == ("history", ["one", "two"], good), name
                # From here it is live; and a `resume` goes the same way.
                alice.send("resume", after=cursor)
                assert [alice.receive()["type"], alice.receive()["type"]] == ["reset", "history"], name
                assert alice.rest() == [], name


def test_a_cursor_that_is_none_gets_an_error_and_a_reset(server: Server) -> None:
    for cursor in ("", "1", "x.y", "1.-1", "1.1.1"):
        with connected(server, "alice", after=cursor) as alice:
            assert (alice.receive()["code"], alice.receive()["type"]) == ("bad_cursor", "reset"), cursor
            assert alice.receive()["type"] == "history"
            alice.send("resume", after=cursor, client_id="r")
            assert alice.expect("error", client_id="r")["code"] == "bad_cursor"
            assert alice.rest() == []


def test_who_is_more_than_1000_changes_behind_gets_a_reset(server: Server) -> None:
    with live(server, "alice") as alice:
        alice.add("the first")
        near, far = alice.history()["cursor"], alice.history()["cursor"].rpartition(".")[0] + ".0"
    # As many as a connection may send at once, with some to spare.
    for _ in range(10):
        with live(server, "bob") as bob:
            for _ in range(100):
                bob.send("add", message="x")
            last = [bob.expect("add") for _ in range(100)][-1]
    assert last["seq"] == 1001
    with connected(server, "alice", after=near) as alice:
        assert [alice.receive()["seq"] for _ in range(1000)] == list(range(2, 1002))
        assert alice.receive()["type"] == "resumed"
    with connected(server, "alice", after=far) as alice:
        assert alice.receive()["type"] == "reset"
        page = alice.receive()
        assert ([message["pos"] for message in page["messages"]], page["more"]) == (list(range(952, 1002)), True)


def test_everybody_hears_that_the_server_restarts(server: Server) -> None:
    with live(server, "alice") as alice, live(server, "bob") as bob:
        alice.add("kept")
        assert server.stop() == 0, server.output
        assert (alice.close_code(), bob.close_code()) == (1012, 1012)
    server.start()
    with live(server, "bob") as bob:
        assert texts(bob.history()) == ["kept"]


def test_the_log_names_who_comes_and_goes_and_no_secrets(server: Server) -> None:
    with live(server, "alice") as alice:
        alice.add("a private matter")
        room = alice.room
    assert server.stop() == 0
    assert " CONNECT " in server.output
    assert "DISCONNECT" in server.output
    assert room not in server.output
    assert "a private matter" not in server.output


def test_only_alice_and_bob_can_join(server: Server) -> None:
    for query in ("join?user=carol", "join", "join?user=", "join?user=alice%00", "nothing/here"):
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(server.url + query, timeout=10)
        refused.value.close()
        assert refused.value.code == 404, query


def test_the_secret_is_for_its_owner_only(server: Server) -> None:
    secret = server.data / "secret"
    assert secret.stat().st_mode & 0o777 == 0o600
    before = secret.read_bytes()
    room = server.door("alice").room
    server.restart()
    assert (secret.read_bytes(), server.door("bob").room) == (before, room)


def test_a_page_of_another_site_cannot_connect(server: Server) -> None:
    with pytest.raises(InvalidStatus) as refused, connected(server, "alice", origin="http://evil.example"):
        pass
    assert refused.value.response.status_code == 403
    with connected(server, "alice", origin=server.url.rstrip("/")) as alice:
        alice.expect("resumed")


def test_who_is_no_member_is_told_so(server: Server) -> None:
    with connected(server, "carol", login=forge_login(server, "carol")) as carol:
        assert carol.close_code() == 4501
