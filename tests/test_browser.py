"""Alice and Bob on the page of the Rust example, in two real browsers."""

from collections.abc import Iterator

import pytest

from browser_page import GONE, Open, Page
from chat_client import live
from conftest import Server

Pages = tuple[Page, Page]


@pytest.fixture
def pages(server: Server, open_browser: Open) -> Iterator[Pages]:
    alice, bob = Page(open_browser()), Page(open_browser())
    for page, user in ((alice, "alice"), (bob, "bob")):
        page.browser.get(server.url)
        page.find(f"nav a[href='?as={user}']").click()
        page.wait_for_status(", connected.")
    yield alice, bob
    assert (alice.complaints(), bob.complaints()) == ([], [])


def test_two_people_chat(server: Server, pages: Pages) -> None:
    alice, bob = pages
    alice.write("Hello Bob")
    bob.wait_for_texts("Hello Bob")
    bob.write("<b>Hello</b> Alice")
    alice.wait_for_texts("Hello Bob", "<b>Hello</b> Alice")
    assert (alice.is_mine("Hello Bob"), bob.is_mine("Hello Bob")) == (True, False)
    alice.press("Hello Bob", "Edit")
    alice.write("!")
    bob.wait_for_texts("Hello Bob!", "<b>Hello</b> Alice")
    assert "edited" in bob.message("Hello Bob!").text
    bob.press("<b>Hello</b> Alice", "Delete")
    alice.wait_for_texts("Hello Bob!", GONE)
    with live(server, "alice") as client:
        assert client.history()["through"] == 4


def test_a_killed_server_loses_and_doubles_nothing(server: Server, pages: Pages) -> None:
    alice, bob = pages
    alice.write("before")
    bob.wait_for_texts("before")
    server.kill()
    for page in pages:
        page.wait_for_status("not connected")
    alice.write("written offline")
    alice.wait_for_texts("before", "written offline")
    server.start()
    for page in pages:
        page.wait_for_status(", connected.")
        page.wait_for_texts("before", "written offline")
        page.wait("unsent", lambda page=page: "sending" not in page.message("written offline").text)  # type: ignore[misc]
    with live(server, "alice") as client:
        assert client.history()["through"] == 2
