"""The classic chat in two real browsers: its pages, links, tables and scripts stay as they are at every step."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from browser_page import Open
from classic_site import ClassicPage, ClassicSite
from redis_servers import redis_servers

Pages = tuple[ClassicPage, ClassicPage]


@pytest.fixture
def site(tmp_path: Path) -> Iterator[ClassicSite]:
    with redis_servers(tmp_path, 1) as (redis,):
        site = ClassicSite(tmp_path, redis.url)
        site.manage("migrate")
        site.manage("demo")
        with site.running():
            yield site


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


def test_stock(site: ClassicSite, open_browser: Open) -> None:
    alice, bob = (ClassicPage(open_browser(), site, user) for user in ("alice", "bob"))
    for page in (alice, bob):
        page.enter()
        assert page.browser.current_url.split("/")[-2].startswith("Z0FBQUFB")
    chat(alice, bob)
    assert (alice.complaints(), bob.complaints()) == ([], [])
