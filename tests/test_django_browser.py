"""Alice and Bob on the Django site, in two real browsers."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from browser_page import GONE, Open
from django_site import Site, SitePage, manage

Pages = tuple[SitePage, SitePage]
#: As `manage.py digi demo` makes it.
PASSWORD = "digi-demo"


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The data folder of a new site with the demo's users and room, and carol, who is in no room."""
    data = tmp_path_factory.mktemp("prepared")
    manage(data, "migrate")
    manage(data, "digi", "demo", "--force")
    user = "from django.contrib.auth.models import User; User.objects.create_user('carol', password='carol')"
    manage(data, "shell", "-c", user)
    assert (data / "secret_key").stat().st_mode & 0o777 == 0o600
    return data


@pytest.fixture
def site(prepared: Path, tmp_path: Path) -> Iterator[Site]:
    site = Site(prepared, tmp_path / "data")
    with site.running():
        yield site


@pytest.fixture
def pages(site: Site, open_browser: Open) -> Iterator[Pages]:
    """Alice and Bob, in their room."""
    alice, bob = SitePage(open_browser(), site), SitePage(open_browser(), site)
    for page, user in ((alice, "alice"), (bob, "bob")):
        page.browser.get(site.url)
        page.log_in(user, PASSWORD)
        page.enter()
    yield alice, bob
    assert (alice.complaints(), bob.complaints()) == ([], [])


def test_who_sees_what(site: Site, open_browser: Open) -> None:
    alice, carol = SitePage(open_browser(), site), SitePage(open_browser(), site)
    alice.browser.get(site.url)
    alice.log_in("alice", "wrong")
    assert "don't match" in alice.find("[role=alert]").text
    alice.log_in("alice", PASSWORD)
    assert alice.find("#rooms strong").text == "alice"
    assert "No messages yet" in alice.find("#rooms li a").text
    alice.enter()
    room = alice.browser.current_url

    # Who is no member gets the same answer as for what does not exist.
    carol.browser.get(room)
    carol.log_in("carol", "carol")
    assert "nothing here" in carol.find("main").text
    carol.browser.get(f"{site.url}rooms/nonsense/")
    assert "nothing here" in carol.find("main").text
    carol.browser.get(site.url)
    assert "You are in no chat yet." in carol.find("main").text
    carol.follow("form button")
    assert carol.browser.current_url == f"{site.url}login/"


def test_two_people_chat(pages: Pages) -> None:
    alice, bob = pages
    alice.write("Hello Bob")
    bob.wait_for_texts("Hello Bob")
    bob.write("Hello Alice")
    alice.wait_for_texts("Hello Bob", "Hello Alice")
    assert (alice.is_mine("Hello Bob"), bob.is_mine("Hello Bob")) == (True, False)
    # What others wrote is read out, one's own is not.
    alice.wait("announced", lambda: alice.find("#news").get_attribute("textContent") == "bob: Hello Alice")
    # Nobody can change what another wrote, but alice, who moderates the room, can delete it.
    assert bob.message("Hello Bob").find_elements(By.TAG_NAME, "button") == []
    assert [button.text for button in alice.message("Hello Alice").find_elements(By.TAG_NAME, "button")] == ["Delete"]

    alice.press("Hello Bob", "Edit")
    assert alice.find("#text").get_attribute("value") == "Hello Bob"
    alice.write("!")
    bob.wait_for_texts("Hello Bob!", "Hello Alice")
    assert "edited" in bob.message("Hello Bob!").text
    alice.wait_until_stored()

    alice.delete("Hello Bob!")
    for page in pages:
        page.wait_for_texts(GONE, "Hello Alice")
    bob.write("Something rude")
    alice.wait_for_texts(GONE, "Hello Alice", "Something rude")
    alice.delete("Something rude")
    bob.wait_for_texts(GONE, "Hello Alice", GONE)

    # The arrow up takes the last own message; Escape leaves it as it was.
    bob.find("#text").send_keys(Keys.ARROW_UP)
    assert bob.find("#text").get_attribute("value") == "Hello Alice"
    bob.find("#text").send_keys(" and the rest", Keys.ESCAPE)
    assert bob.find("#text").get_attribute("value") == ""
    assert bob.texts() == [GONE, "Hello Alice", GONE]

    # Two lines, and nothing in a text is taken for HTML.
    bob.find("#text").send_keys("<b>one</b>", Keys.SHIFT, Keys.ENTER, Keys.NULL, "two", Keys.ENTER)
    alice.wait_for_texts(GONE, "Hello Alice", GONE, "<b>one</b>\ntwo")
    alice.browser.refresh()
    alice.wait_for_texts(GONE, "Hello Alice", GONE, "<b>one</b>\ntwo")
    alice.follow("#back")
    last = alice.find("#rooms .last").text
    assert last.startswith("bob: <b>one</b>")
    assert ":" in alice.find("#rooms time").text  # of today: the time, and no day


def test_one_sees_who_is_there_and_who_writes(site: Site, pages: Pages) -> None:
    alice, bob = pages
    for page, other in ((alice, "bob"), (bob, "alice")):
        page.wait_for_others(f"{other} is here")
    bob.find("#text").send_keys("H")
    alice.wait_for_others("bob is writing …")
    bob.find("#text").send_keys("i", Keys.ENTER)
    alice.wait_for_texts("Hi")
    alice.wait_for_others("bob is here")
    bob.follow("#back")
    alice.wait_for_others("")
    bob.enter()
    alice.wait_for_others("bob is here")
    site.restart()
    for page, other in ((alice, "bob"), (bob, "alice")):
        page.wait_for_status("Connected")
        page.wait_for_others(f"{other} is here")


def test_a_killed_server_loses_and_doubles_nothing(site: Site, pages: Pages) -> None:
    alice, bob = pages
    alice.write("before")
    bob.wait_for_texts("before")
    site.kill()
    for page in pages:
        page.wait_for_status("Not connected")
    alice.write("written offline")
    alice.write("and a second one")
    bob.write("Bob as well")
    alice.wait_for_texts("before", "written offline", "and a second one")
    assert "Waiting" in alice.message("written offline").text
    alice.press("before", "Edit")
    alice.write(", edited offline")
    alice.wait_for_texts("before, edited offline", "written offline", "and a second one")

    site.start()
    for page in pages:
        page.wait_for_status("Connected")
        page.wait("all four", lambda page=page: len(page.texts()) == 4)  # type: ignore[misc]
        page.wait_until_stored()
    texts = alice.texts()
    assert sorted(texts) == sorted(["before, edited offline", "written offline", "and a second one", "Bob as well"])
    assert texts.index("written offline") < texts.index("and a second one")
    bob.wait_for_texts(*texts)
    bob.browser.refresh()
    bob.wait_for_texts(*texts)


def test_a_server_that_dies_while_someone_writes(site: Site, pages: Pages) -> None:
    alice, bob = pages
    expected = []
    for number in range(45):
        expected.append(f"message {number}")
        alice.write(expected[-1])
        if number % 20 == 10:
            site.restart()
    for page in pages:
        page.wait_for_status("Connected")
        page.wait_for_texts(*expected)
        page.wait_until_stored()
    bob.browser.refresh()
    bob.wait_for_texts(*expected)


def test_older_messages_come_in_pages_and_new_ones_are_counted(pages: Pages) -> None:
    alice, bob = pages
    texts = [f"message {number}" for number in range(120)]
    for text in texts:
        bob.say(text)
        # Within what an outbox takes, and what a connection may send.
        if text.endswith("9"):
            bob.wait_until_stored()
    alice.wait_for_texts(*texts)
    alice.browser.refresh()
    alice.wait_for_texts(*texts[70:])
    alice.find("#older").click()
    alice.wait_for_texts(*texts[20:])
    # What one was looking at stays in sight.
    assert alice.browser.execute_script("return document.getElementById('scroller').scrollTop") > 500
    alice.find("#older").click()
    alice.wait_for_texts(*texts)
    assert not alice.find("#older").is_displayed()
    # Who reads further up is not moved, but told.
    alice.browser.execute_script("document.getElementById('scroller').scrollTop = 0")
    bob.write("one")
    alice.wait("told", lambda: alice.find("#newest").text == "1 new message")
    bob.write("two")
    alice.wait("told", lambda: alice.find("#newest").text == "2 new messages")
    alice.find("#newest").click()
    alice.wait("at the end", lambda: not alice.find("#newest").is_displayed() and alice.message("two").is_displayed())


def test_what_is_refused_says_so_and_can_be_discarded(pages: Pages) -> None:
    alice, bob = pages
    too_long = "x" * 17_000
    alice.say(too_long)
    alice.wait("refused", lambda: bool(alice.browser.find_elements(By.CSS_SELECTOR, ".failed")))
    assert "Too long" in alice.find(".failed .note").text
    alice.write("what follows is sent")
    bob.wait_for_texts("what follows is sent")
    alice.press(too_long, "Discard")
    alice.wait_for_texts("what follows is sent")


def test_a_full_outbox_keeps_the_text(site: Site, pages: Pages) -> None:
    alice, bob = pages
    site.kill()
    alice.wait_for_status("Not connected")
    texts = [f"message {number}" for number in range(100)]
    for text in texts:
        alice.say(text)
    alice.say("one too many")
    alice.wait("told", lambda: "Too much waits" in alice.find("#notice").text)
    assert alice.find("#text").get_attribute("value") == "one too many"
    site.start()
    bob.wait_for_texts(*texts)
    alice.wait("no longer", lambda: not alice.find("#notice").is_displayed())
    alice.find("#text").send_keys(Keys.ENTER)
    bob.wait_for_texts(*texts, "one too many")


def test_who_logs_out_elsewhere_is_asked_to_log_in(site: Site, pages: Pages) -> None:
    alice, bob = pages
    room, tab = alice.browser.current_url, alice.browser.current_window_handle
    alice.browser.switch_to.new_window("tab")
    alice.browser.get(site.url)
    alice.follow("header form button")
    alice.browser.switch_to.window(tab)
    site.restart()
    alice.wait("told", lambda: "no longer logged in" in alice.find("#notice").text)
    bob.wait_for_status("Connected")
    alice.follow("#reload")
    alice.log_in("alice", PASSWORD)
    assert alice.browser.current_url == room
    alice.wait_for_status("Connected")


def test_light_and_dark_wide_and_narrow(pages: Pages, tmp_path: Path) -> None:
    alice, bob = pages
    converse(alice, bob)
    folder = tmp_path / "pictures"
    side_by_side = []
    for page, name in ((alice, "alice"), (bob, "bob")):
        for scheme in ("light", "dark"):
            for width, height, touch in ((720, 900, False), (390, 760, True), (360, 640, True), (320, 568, True)):
                page.emulate(scheme=scheme, width=width, height=height, touch=touch)
                assert page.fits()
                assert page.find("#send").is_displayed()
                page.picture(f"{name}-{scheme}-{width}", folder)
        if name == "alice":
            tap(page, "Lunch at twelve? At the harbour.")
            page.picture("tapped", folder)
        page.emulate(scheme="light" if name == "alice" else "dark", width=560, height=640)
        if name == "alice":
            page.focus("Lunch at twelve? At the harbour.", "Edit")
        side_by_side.append(page.picture(f"{name}-half", folder))
    bob.follow("#back")
    look_around(bob, "rooms", folder)
    bob.follow("header form button")
    look_around(bob, "login", folder)
    frames = "".join(f"<img src='data:image/png;base64,{picture}'>" for picture in side_by_side)
    alice.browser.get("about:blank")
    alice.browser.execute_script(
        "document.body.style.cssText = 'margin:0;padding:16px;display:flex;gap:16px;background:#c3c9d4';"
        "document.body.innerHTML = arguments[0]",
        frames,
    )
    alice.resize(2 * 560 + 48, 640 + 32)
    alice.picture("two-tabs", folder)


def converse(alice: SitePage, bob: SitePage) -> None:
    lines = [
        (alice, "Did you see that the new engine is in?"),
        (bob, "Yes! I closed the laptop in the train and nothing was lost when I came back"),
        (bob, "It even kept the order."),
        (alice, "Lunch at twelve?"),
        (alice, "Wrong chat, sorry"),
        (bob, "See you there. שלום"),
    ]
    for number, (page, text) in enumerate(lines, 1):
        page.write(text)
        for each in (alice, bob):
            each.wait("it", lambda each=each, number=number: len(each.texts()) == number)  # type: ignore[misc]
        page.wait_until_stored()
    alice.press("Lunch at twelve?", "Edit")
    alice.write(" At the harbour.")
    alice.wait_until_stored()
    alice.delete("Wrong chat, sorry")
    alice.wait_until_stored()
    texts = [text for _, text in lines]
    texts[3:5] = ["Lunch at twelve? At the harbour.", GONE]
    for each in (alice, bob):
        each.wait_for_texts(*texts)


def tap(page: SitePage, text: str) -> None:
    """On a phone what can be done with a message shows when it is tapped."""
    (edit, _) = page.message(text).find_elements(By.TAG_NAME, "button")
    heights = "return [...arguments[0].parentElement.getClientRects()].map((box) => box.height)"
    assert page.browser.execute_script(heights, edit) == [1]
    page.message(text).find_element(By.TAG_NAME, "p").click()
    page.wait("buttons", lambda: page.browser.execute_script(heights, edit)[0] > 30)
    page.find("#text").click()


def look_around(page: SitePage, name: str, folder: Path) -> None:
    for scheme in ("light", "dark"):
        for width, height in ((720, 900), (360, 640)):
            page.emulate(scheme=scheme, width=width, height=height)
            assert page.fits()
            page.picture(f"{name}-{scheme}-{width}", folder)
