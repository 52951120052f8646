"""digi.js against a server that says exactly what a test wants it to say, in that order.

What the real server can't be made to do at will: an answer that stays out, two frames that cross, a new epoch.
"""

import http
import json
import queue
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import parse_qs, urlparse

import pytest
from websockets.datastructures import Headers
from websockets.http11 import Request, Response
from websockets.sync.server import Server, ServerConnection, serve
from websockets.typing import Subprotocol

from chat_client import TIMEOUT, Frame
from node_client import NodeClient, node_client

AT = "2026-03-01T12:00:00.000Z"


class Line:
    """One connection of the client, held by the test."""

    def __init__(self, connection: ServerConnection) -> None:
        self._connection = connection
        self.over = threading.Event()
        assert connection.request is not None
        address = urlparse(connection.request.path)
        self.path, self.query = address.path, parse_qs(address.query)
        self.after = self.query.get("after", [None])[0]

    def say(self, kind: str, **keys: object) -> None:
        self._connection.send(json.dumps({"type": kind, **keys}))

    def change(self, kind: str, seq: int, pos: int, text: str | None = None, user: str = "bob") -> None:
        message = {} if text is None else {"message": text}
        self.say(kind, user=user, message_id=f"m{pos}", seq=seq, pos=pos, at=AT, **message)

    def page(self, asked: Frame, *messages: tuple[int, str | None], more: bool, through: int, epoch: int = 1) -> None:
        entries: list[Frame] = []
        for pos, text in messages:
            entry = {"user": "bob", "message_id": f"m{pos}", "pos": pos, "at": AT}
            entries.append(entry | ({"deleted": True} if text is None else {"message": text}))
        name = {"client_id": asked["client_id"]} if "client_id" in asked else {}
        self.say("history", messages=entries, more=more, through=through, cursor=f"{epoch}.{through}", **name)

    def acknowledge(self, sent: Frame, seq: int, pos: int | None = None) -> None:
        pos = pos or seq
        self.say("ack", client_id=sent["client_id"], message_id=f"m{pos}", seq=seq, pos=pos)

    def hear(self, kind: str) -> Frame:
        frame = json.loads(self._connection.recv(TIMEOUT))
        assert isinstance(frame, dict)
        assert frame["type"] == kind
        return frame

    def close(self, code: int) -> None:
        self._connection.close(code)
        self.over.set()

    def cut(self) -> None:
        """Breaks without a word."""
        self._connection.socket.shutdown(socket.SHUT_RDWR)
        self.over.set()


class Script:
    """The other end."""

    def __init__(self) -> None:
        self.lines: queue.SimpleQueue[Line] = queue.SimpleQueue()
        self._all: list[Line] = []
        self.join_status = http.HTTPStatus.OK
        self.server: Server = serve(
            self._hold,
            "127.0.0.1",
            0,
            process_request=self._answer,
            subprotocols=[Subprotocol("digi")],
            compression=None,
        )

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.socket.getsockname()[1]}/"

    def accept(self) -> Line:
        return self.lines.get(timeout=TIMEOUT)

    def close(self) -> None:
        # The server waits for its connections, so they have to end first.
        for line in self._all:
            line.over.set()
        self.server.shutdown()

    def _hold(self, connection: ServerConnection) -> None:
        line = Line(connection)
        self._all.append(line)
        self.lines.put(line)
        line.over.wait()

    def _answer(self, connection: ServerConnection, request: Request) -> Response | None:
        if not request.path.startswith("/join"):
            return None
        body = json.dumps({"path": "/ws/chat/room/", "login": "x"})
        response = connection.respond(self.join_status, body)
        response.headers = Headers(response.headers)
        return response


Stage = tuple[Script, NodeClient]


@contextmanager
def scripted(path: str | None = None, **options: object) -> Iterator[Stage]:
    script = Script()
    thread = threading.Thread(target=script.server.serve_forever)
    thread.start()
    if path is not None:
        options["where"] = script.url.rstrip("/") + path
    try:
        with node_client(script.url, "alice", **options) as client:
            yield script, client
    finally:
        script.close()
        thread.join()


@pytest.fixture
def stage() -> Iterator[Stage]:
    with scripted() as stage:
        yield stage


def begin(stage: Stage, *messages: tuple[int, str | None], more: bool = False, head: int = 10) -> Line:
    """A first visit, up to its first page."""
    line = stage[0].accept()
    assert line.after is None
    line.say("resumed", cursor=f"1.{head}")
    asked = line.hear("history")
    assert asked["before"] == head + 1
    line.page(asked, *messages, more=more, through=head)
    stage[1].wait_for_texts(*(text for _, text in messages))
    return line


def again(stage: Stage) -> Line:
    """The client comes back by itself."""
    return stage[0].accept()


def test_an_older_state_never_replaces_a_newer_one(stage: Stage) -> None:
    line = stage[0].accept()
    line.say("resumed", cursor="1.10")
    asked = line.hear("history")
    # The page was read after the edit that is still on its way.
    line.page(asked, (9, "in its second form"), (10, None), more=False, through=12)
    line.change("edit", 11, 9, "in its first form")
    line.change("delete", 12, 10)
    line.change("add", 13, 13, "new")
    stage[1].wait_for_texts("in its second form", None, "new")


def test_changes_that_come_while_a_page_is_under_way_are_applied(stage: Stage) -> None:
    line = begin(stage, (9, "nine"), (10, "ten"), more=True)
    stage[1].do("older")
    asked = line.hear("history")
    assert asked["before"] == 9
    line.change("edit", 11, 7, "seven, edited before the page was read")
    line.change("edit", 12, 8, "eight, edited after the page was read")
    line.change("delete", 13, 7)
    line.change("edit", 14, 3, "below this page as well")
    line.page(asked, (7, "seven, edited before the page was read"), (8, "eight"), more=True, through=11)
    shown = stage[1].wait_for_texts(None, "eight, edited after the page was read", "nine", "ten")
    assert shown["more"] is True
    # Without a page under way, changes below what is loaded are the server's to tell with their page.
    line.change("edit", 15, 5, "five")
    stage[1].do("older")
    line.page(line.hear("history"), (3, "three"), (5, "five"), more=False, through=15)
    stage[1].wait_for_texts("three", "five", None, "eight, edited after the page was read", "nine", "ten")


def test_the_cursor_moves_by_the_rules(stage: Stage) -> None:
    line = begin(stage, (10, "ten"))
    line.change("add", 11, 11, "eleven")
    stage[1].wait_for_texts("ten", "eleven")
    line.cut()
    line = again(stage)
    assert line.after == "1.11"
    # An interrupted replay is replayed.
    line.change("add", 12, 12, "twelve")
    stage[1].wait_for_texts("ten", "eleven", "twelve")
    line.cut()
    line = again(stage)
    assert line.after == "1.11"
    line.change("add", 12, 12, "twelve")
    line.change("edit", 14, 10, "ten, edited")
    line.say("resumed", cursor="1.15")
    stage[1].wait_for_texts("ten, edited", "eleven", "twelve")
    # An acknowledgement is no reason to believe that everything before it has come.
    stage[1].do("add", text="mine")
    line.acknowledge(line.hear("add"), 17)
    stage[1].wait_for_texts("ten, edited", "eleven", "twelve", "mine")
    line.cut()
    line = again(stage)
    assert line.after == "1.15"


def test_an_acknowledged_message_is_shown_once_in_whatever_order(stage: Stage) -> None:
    line = begin(stage)
    for ack_first in (True, False):
        head = 11 if ack_first else 12
        text = f"number {head}"
        stage[1].do("add", text=text)
        sent = line.hear("add")
        assert "resend" not in sent
        shown = stage[1].wait(lambda shown: bool(shown["outbox"]) and shown["outbox"][0]["sent"])
        assert shown["outbox"][0]["shown"] is False
        if ack_first:
            line.acknowledge(sent, head)
            shown = stage[1].wait_for_texts(*(f"number {number}" for number in range(11, head + 1)))
            line.change("add", head, head, text, user="alice")
            stage[1].wait(lambda shown: shown["messages"][-1]["at"] == AT)
        else:
            line.change("add", head, head, text, user="alice")
            # In the list, and therefore not in the outbox as well.
            stage[1].wait(lambda shown: bool(shown["outbox"]) and shown["outbox"][0]["shown"] is True)
            line.acknowledge(sent, head)
        stage[1].wait_for_texts(*(f"number {number}" for number in range(11, head + 1)))


def test_what_is_not_acknowledged_is_sent_again_in_order(stage: Stage) -> None:
    line = begin(stage)
    stage[1].do("add", text="one")
    first = line.hear("add")
    stage[1].do("add", text="two")
    stage[1].do("add", text="three")
    line.cut()
    line = again(stage)
    line.say("resumed", cursor="1.10")
    once_more = line.hear("add")
    assert once_more == first | {"resend": True}
    line.acknowledge(once_more, 11)
    for seq, text in ((12, "two"), (13, "three")):
        sent = line.hear("add")
        assert (sent["message"], "resend" in sent) == (text, False)
        line.acknowledge(sent, seq)
    stage[1].wait_for_texts("one", "two", "three")


@pytest.mark.parametrize("code", ["busy", "rate_limited", "store_unavailable"])
def test_what_is_refused_for_the_moment_is_not_overtaken(stage: Stage, code: str) -> None:
    line = begin(stage)
    stage[1].do("add", text="one")
    stage[1].do("add", text="two")
    for _ in range(2):
        sent = line.hear("add")
        assert sent["message"] == "one"
        line.say("error", code=code, detail="Later.", client_id=sent["client_id"])
    for seq, text in ((11, "one"), (12, "two")):
        sent = line.hear("add")
        assert sent["message"] == text
        line.acknowledge(sent, seq)
    stage[1].wait_for_texts("one", "two")


def test_what_is_refused_for_good_holds_nothing_up(stage: Stage) -> None:
    line = begin(stage)
    stage[1].do("add", text="too long")
    stage[1].do("add", text="two")
    line.say("error", code="body_too_long", detail="No.", client_id=line.hear("add")["client_id"])
    line.acknowledge(line.hear("add"), 11)
    stage[1].wait(lambda shown: [item.get("failed") for item in shown["outbox"]] == ["body_too_long"])
    stage[1].do("retry")
    # A frame that was not even read is answered without its name.
    line.hear("add")
    line.say("error", code="frame_too_large", detail="No.")
    stage[1].wait(lambda shown: [item.get("failed") for item in shown["outbox"]] == ["frame_too_large"])
    stage[1].do("discard")
    stage[1].wait_for_texts("two")


def test_a_deletion_that_was_done_already_is_done(stage: Stage) -> None:
    line = begin(stage, (10, "ten"))
    stage[1].do("remove", pos=10)
    line.hear("delete")
    line.cut()
    line = again(stage)
    line.change("delete", 11, 10)
    line.say("resumed", cursor="1.11")
    line.say("error", code="message_deleted", detail="No.", client_id=line.hear("delete")["client_id"])
    stage[1].wait_for_texts(None)


def test_a_reset_forgets_everything_but_what_was_not_sent(stage: Stage) -> None:
    line = begin(stage, (9, "nine"), (10, "ten"), more=True)
    stage[1].do("older")
    void = line.hear("history")
    stage[1].do("add", text="perhaps stored")
    line.hear("add")
    stage[1].do("add", text="not sent yet")
    line.say("reset", cursor="2.20")
    # The page of before is void, whenever it comes.
    line.page(void, (7, "seven"), more=False, through=10)
    line.page({}, (19, "nineteen"), (20, None), more=True, through=20, epoch=2)
    sent = line.hear("add")
    assert sent["message"] == "not sent yet"
    line.acknowledge(sent, 21)
    shown = stage[1].wait(lambda shown: len(shown["outbox"]) == 1 and len(shown["messages"]) == 3)
    assert [message["text"] for message in shown["messages"]] == ["nineteen", None, "not sent yet"]
    assert [(item["text"], item["failed"]) for item in shown["outbox"]] == [("perhaps stored", "unsure")]
    # If its user says so it is sent again, under the same name.
    stage[1].do("retry")
    sent = line.hear("add")
    assert (sent["message"], sent["resend"]) == ("perhaps stored", True)
    line.acknowledge(sent, 22)
    stage[1].wait_for_texts("nineteen", None, "not sent yet", "perhaps stored")
    line.change("add", 23, 23, "live")
    line.cut()
    assert again(stage).after == "2.23"


def test_a_first_page_that_stays_out_is_asked_for_again(stage: Stage) -> None:
    line = stage[0].accept()
    line.say("resumed", cursor="1.10")
    line.hear("history")
    line.change("add", 11, 11, "eleven")
    stage[1].wait_for_texts("eleven")
    line.cut()
    line = again(stage)
    assert line.after == "1.11"
    line.say("resumed", cursor="1.11")
    asked = line.hear("history")
    line.say("error", code="busy", detail="Later.", client_id=asked["client_id"])
    line.page(line.hear("history"), (10, "ten"), more=False, through=11)
    stage[1].wait_for_texts("ten", "eleven")


@pytest.mark.parametrize("code", [1000, 4500, 4501, 4502, 4506])
def test_after_some_codes_it_stays_away(stage: Stage, code: int) -> None:
    line = begin(stage)
    line.close(code)
    shown = stage[1].wait(lambda shown: shown["state"] == "closed")
    assert shown["closeCode"] == code


@pytest.mark.parametrize("code", [1001, 1011, 1012, 4000, 4001, 4499])
def test_after_others_it_comes_back(stage: Stage, code: int) -> None:
    line = begin(stage)
    line.close(code)
    assert again(stage).after == "1.10"


def test_who_may_not_join_does_not_try_again(stage: Stage) -> None:
    line = begin(stage)
    stage[0].join_status = http.HTTPStatus.INTERNAL_SERVER_ERROR
    line.cut()
    stage[1].wait(lambda shown: shown["state"] == "offline")
    stage[0].join_status = http.HTTPStatus.NOT_FOUND
    stage[1].wait(lambda shown: shown["state"] == "closed")


def test_what_it_does_not_know_it_ignores(stage: Stage) -> None:
    line = begin(stage)
    line.say("presence", user="bob", online=True)
    line.say("error", code="unsupported", detail="No.")
    line.change("add", 11, 11, "eleven")
    stage[1].wait_for_texts("eleven")


def test_a_path_is_enough() -> None:
    with scripted("/ws/chat/room/?theme=dark", protocols="digi") as stage:
        line = begin(stage)
        assert (line.path, line.query) == ("/ws/chat/room/", {"theme": ["dark"]})
        line.cut()
        line = again(stage)
        assert (line.path, line.query) == ("/ws/chat/room/", {"theme": ["dark"], "after": ["1.10"]})


def test_it_says_what_happens(stage: Stage) -> None:
    line = begin(stage, (10, "ten"))
    line.change("add", 11, 11, "eleven")
    line.change("edit", 12, 10, "ten, edited")
    stage[1].do("add", text="mine")
    line.acknowledge(line.hear("add"), 13)
    line.change("add", 13, 13, "mine", user="alice")
    stage[1].do("add", text="too long")
    line.say("error", code="body_too_long", detail="No.", client_id=line.hear("add")["client_id"])
    stage[1].wait(lambda shown: shown["outbox"][-1:] != [] and "failed" in shown["outbox"][0])
    line.cut()
    line = again(stage)
    line.change("delete", 14, 10)
    line.say("resumed", cursor="1.14")
    line.close(4502)
    heard = stage[1].wait(lambda shown: shown["state"] == "closed")["heard"]
    assert [detail["state"] for kind, detail in heard if kind == "state"] == ["online", "offline", "online", "closed"]
    assert heard[-1] == ["state", {"state": "closed", "closeCode": 4502}]
    changes = [
        (detail["type"], detail["message"]["text"], detail["live"]) for kind, detail in heard if kind == "message"
    ]
    assert changes == [
        ("add", "eleven", True),
        ("edit", "ten, edited", True),
        ("add", "mine", True),
        ("delete", None, False),
    ]
    (error,) = [detail for kind, detail in heard if kind == "error"]
    assert (error["code"], error["detail"], error["item"]["text"]) == ("body_too_long", "No.", "too long")


def test_a_full_outbox_says_so() -> None:
    with scripted(outboxLimit=2) as stage:
        line = begin(stage)
        line.cut()
        stage[1].wait(lambda shown: shown["state"] == "offline")
        for text in ("one", "two", "three"):
            stage[1].do("add", text=text)
        line = again(stage)
        line.say("resumed", cursor="1.10")
        line.acknowledge(line.hear("add"), 11)
        line.acknowledge(line.hear("add"), 12)
        shown = stage[1].wait_for_texts("one", "two")
        assert [detail["code"] for kind, detail in shown["heard"] if kind == "error"] == ["outbox_full"]
        stage[1].do("add", text="three")
        line.acknowledge(line.hear("add"), 13)
        stage[1].wait_for_texts("one", "two", "three")


def test_a_network_that_is_back_ends_the_pause(stage: Stage) -> None:
    line = begin(stage)
    stage[1].do("stretch", factor=None)
    line.cut()
    stage[1].wait(lambda shown: shown["state"] == "offline")
    stage[1].do("wake")
    assert again(stage).after == "1.10"


def test_a_connection_that_leads_nowhere_is_found_out(stage: Stage) -> None:
    line = begin(stage)
    stage[1].do("wake")
    probe = line.hear("history")
    # What is answered in time is good, and its page shows nothing.
    line.page(probe, (3, "three"), more=True, through=10)
    line.change("add", 11, 11, "eleven")
    stage[1].wait_for_texts("eleven")
    stage[1].do("stretch", factor=0.01)
    stage[1].do("wake")
    line.hear("history")
    assert again(stage).after == "1.11"


def test_silence_is_taken_for_a_break(stage: Stage) -> None:
    line = begin(stage)
    stage[1].do("stretch", factor=0.1)
    stage[1].do("add", text="mine")
    sent = line.hear("add")
    # No answer, and on the next connection not a word.
    assert again(stage).after == "1.10"
    stage[1].do("stretch", factor=1)
    line = again(stage)
    line.say("resumed", cursor="1.10")
    once_more = line.hear("add")
    assert once_more == sent | {"resend": True}
    line.acknowledge(once_more, 11)
    stage[1].wait_for_texts("mine")


def test_it_leaves_and_comes_back(stage: Stage) -> None:
    line = begin(stage)
    stage[1].do("add", text="mine")
    sent = line.hear("add")
    stage[1].do("close")
    shown = stage[1].wait(lambda shown: shown["state"] == "closed")
    assert (shown["closeCode"], len(shown["outbox"])) == (1000, 1)
    line.over.set()
    stage[1].do("wake")
    stage[1].do("connect")
    line = again(stage)
    line.say("resumed", cursor="1.10")
    once_more = line.hear("add")
    assert once_more == sent | {"resend": True}
    line.acknowledge(once_more, 11)
    assert stage[1].wait_for_texts("mine")["closeCode"] == 0
    assert stage[0].lines.empty()


def test_what_was_trimmed_is_asked_for_again(stage: Stage) -> None:
    line = begin(stage, (8, "eight"), (9, "nine"), (10, "ten"))
    stage[1].do("trim", keep=2)
    assert stage[1].wait_for_texts("nine", "ten")["more"] is True
    line.change("edit", 11, 8, "eight, edited")
    line.change("add", 12, 12, "twelve")
    stage[1].wait_for_texts("nine", "ten", "twelve")
    stage[1].do("older")
    asked = line.hear("history")
    assert asked["before"] == 9
    line.page(asked, (8, "eight, edited"), more=False, through=12)
    stage[1].wait_for_texts("eight, edited", "nine", "ten", "twelve")
