"""The classic chat in two real browsers: its pages, links, tables and scripts stay as they are at every step."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from browser_page import Open
from classic_site import SERVERS, ClassicPage, ClassicSite
from redis_servers import redis_servers

Pages = tuple[ClassicPage, ClassicPage]


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[str]:
    with redis_servers(tmp_path, 1) as (server,):
        yield server.url


@contextmanager
def prepared(directory: Path, redis: str, server: str = "daphne") -> Iterator[ClassicSite]:
    """The stock project, with Alice and Bob in its database."""
    site = ClassicSite(directory, redis, server)
    site.manage("migrate")
    site.manage("demo")
    try:
        yield site
    finally:
        site.close()
        print(site.output)


def chat(alice: ClassicPage, bob: ClassicPage) -> None:
    """What people do in it."""
    alice.write("Hello Bob")
    bob.wait_for_texts("Hello Bob")
    bob.write("Hello Alice")
    bob.write("Lunch at eleven?")
    alice.wait_for_texts("Hello Bob", "Hello Alice", "Lunch at eleven?")
    bob.edit("Lunch at eleven?", "Lunch at twelve?")
    alice.wait_for_texts("Hello Bob", "Hello Alice", "Lunch at twelve?")
    # A page that was loaded later finds the messages of before.
    bob.reload()
    bob.wait_for_texts("Hello Bob", "Hello Alice", "Lunch at twelve?")
    alice.edit("Hello Bob", "Hello, Bob")
    bob.wait_for_texts("Hello, Bob", "Hello Alice", "Lunch at twelve?")
    bob.button("Hello Alice", "delete")
    for page in (alice, bob):
        page.wait_for_texts("Hello, Bob", "Lunch at twelve?")
        page.reload()
        page.wait_for_texts("Hello, Bob", "Lunch at twelve?")


def enter(site: ClassicSite, open_browser: Open) -> Pages:
    alice, bob = (ClassicPage(open_browser(), site, user) for user in ("alice", "bob"))
    for page in (alice, bob):
        page.enter()
        assert page.browser.current_url.split("/")[-2].startswith("Z0FBQUFB")
    return alice, bob


def test_stock(tmp_path: Path, redis: str, open_browser: Open) -> None:
    with prepared(tmp_path, redis) as site:
        site.start()
        alice, bob = enter(site, open_browser)
        chat(alice, bob)
        assert (alice.complaints(), bob.complaints()) == ([], [])


@pytest.mark.parametrize("server", SERVERS)
def test_digis_consumer(server: str, tmp_path: Path, redis: str, open_browser: Open) -> None:
    with prepared(tmp_path, redis, server) as site:
        link = site.manage("shell", "-v0", "-c", "from chat.tokens import encrypt_id; print(encrypt_id(1))").strip()
        site.take("2-consumer")
        site.manage("migrate")
        site.manage("check", "--fail-level", "WARNING")
        site.start()
        alice, bob = enter(site, open_browser)
        # A link from before leads into the same room.
        bob.browser.get(f"{site.url}chat/{link}/")
        bob.wait_until_connected()
        chat(alice, bob)
        assert (alice.complaints(), bob.complaints()) == ([], [])
