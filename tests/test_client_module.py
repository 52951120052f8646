"""What digi.js makes of the frames that it gets.

The server is a script, because a real one can't be made to do at will: an answer that stays out, two frames that cross,
a new epoch.
"""

from collections.abc import Iterator

import pytest

from client_script import AT, Stage, again, begin, scripted


@pytest.fixture
def stage() -> Iterator[Stage]:
    with scripted() as stage:
        yield stage


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


def test_what_it_does_not_know_it_ignores(stage: Stage) -> None:
    line = begin(stage)
    line.say("weather", user="bob", sunny=True)
    line.say("error", code="unsupported", detail="No.")
    line.change("add", 11, 11, "eleven")
    stage[1].wait_for_texts("eleven")


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


def test_who_types_and_who_is_there(stage: Stage) -> None:
    line = begin(stage)
    shown = stage[1]
    line.say("presence", user="bob", online=True)
    line.say("presence", user="carol", online=True)
    line.say("typing", user="bob")
    shown.wait(lambda page: page["present"] == ["bob", "carol"] and page["typing"] == ["bob"])
    line.say("presence", user="carol", online=False)
    line.change("add", 11, 11, "eleven", user="bob")
    shown.wait_for_texts("eleven")
    shown.wait(lambda page: page["present"] == ["bob"] and page["typing"] == [])
    for _ in range(3):
        shown.do("type")
    shown.do("add", text="done")
    assert line.hear("typing") == {"type": "typing"}
    assert line.hear("add")["message"] == "done", "it is told every few seconds only"
    line.say("typing", user="bob")
    shown.wait(lambda page: page["typing"] == ["bob"])
    line.cut()
    shown.wait(lambda page: page["present"] == [] and page["typing"] == [])


def test_who_stops_typing_is_forgotten(stage: Stage) -> None:
    line = begin(stage)
    stage[1].do("stretch", factor=0.01)
    line.say("typing", user="bob")
    line.say("presence", user="bob", online=True)
    stage[1].wait(lambda page: page["present"] == ["bob"] and page["typing"] == [])


def test_what_a_stock_worker_says_is_shown_without_a_number(stage: Stage) -> None:
    line = begin(stage, (10, "ten"))
    for number in (1, 2):
        line.say("add", message=f"stock {number}", user="dave", message_id=f"s{number}")
    line.change("add", 11, 11, "eleven")
    line.say("edit", message="stock 1, edited", user="dave", message_id="s1")
    line.say("delete", user="dave", message_id="s2")
    line.say("edit", message="ten, edited", user="bob", message_id="m10")
    line.say("edit", message="nobody knows it", user="bob", message_id="s9")
    line.say("add", message="stock 3", user="dave", message_id="s3")
    stage[1].wait_for_texts("ten, edited", "stock 1, edited", None, "eleven", "stock 3")
    line.cut()
    line = again(stage)
    assert line.after == "1.11"
    # Once it is numbered, it has its place.
    line.say("add", message="stock 3", user="dave", message_id="s3", seq=12, pos=12, at=AT)
    line.say("resumed", cursor="1.12")
    line.change("add", 13, 13, "thirteen")
    stage[1].wait_for_texts("ten, edited", "stock 1, edited", None, "eleven", "stock 3", "thirteen")
    line.change("edit", 14, 10, "ten, edited again")
    stage[1].wait_for_texts("ten, edited again", "stock 1, edited", None, "eleven", "stock 3", "thirteen")
