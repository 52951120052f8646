"""When digi.js connects, comes back and stays away, and what it says of it. The server is a script."""

import http
from collections.abc import Iterator

import pytest

from client_script import Stage, again, begin, scripted


@pytest.fixture
def stage() -> Iterator[Stage]:
    with scripted() as stage:
        yield stage


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
