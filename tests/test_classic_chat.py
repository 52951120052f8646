"""The classic chat in two real browsers: its pages, links, tables and scripts stay as they are at every step."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from browser_page import Open
from classic_site import SERVERS, Caddy, ClassicPage, ClassicSite, DigiServer, Nginx
from conftest import Process
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


def enter(site: Process, open_browser: Open) -> Pages:
    alice, bob = (ClassicPage(open_browser(), site, user) for user in ("alice", "bob"))
    for page in (alice, bob):
        page.enter()
        assert page.browser.current_url.split("/")[-2].startswith("Z0FBQUFB")
    return alice, bob


@pytest.mark.parametrize("step", [None, "1-layer"])
def test_the_projects_own_consumer(step: str | None, tmp_path: Path, redis: str, open_browser: Open) -> None:
    """On the stock layer, and on Digi's."""
    with prepared(tmp_path, redis) as site:
        if step:
            site.take(step)
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


def test_digis_server(tmp_path: Path, redis: str, open_browser: Open) -> None:
    with prepared(tmp_path, redis, "uvicorn") as site:
        site.take("3-server")
        site.manage("migrate")
        server = DigiServer(site)
        nginx = Nginx(tmp_path, site.port, server.port)
        with server.running(), nginx.running():
            site.start()
            alice, bob = enter(nginx, open_browser)
            chat(alice, bob)
            # A new version of the pages comes, and the chat goes on.
            site.kill()
            alice.write("Nobody noticed")
            bob.wait_for_texts("Hello, Bob", "Lunch at twelve?", "Nobody noticed")
            site.start()
            # Whoever logs out, in another tab, is out at once, and nobody else is.
            tab = alice.browser.current_window_handle
            alice.browser.switch_to.new_window("tab")
            alice.browser.get(nginx.url)
            alice.find("#logout button").click()
            alice.browser.switch_to.window(tab)
            alice.wait_until_closed()
            assert bob.find("#chat-state").text == "connected"
            # So is who is no longer active.
            site.manage("shell", "-v0", "-c", DEACTIVATE)
            bob.wait_until_closed()
            assert (alice.complaints(), bob.complaints()) == ([], [])


#: By a process that ends at once: it waits until the others have been told.
DEACTIVATE = """
from django.contrib.auth.models import User
from digi.django.engine import get_engine
user = User.objects.get(username="bob")
user.is_active = False
user.save()
get_engine().close().result()
"""


def test_several_workers_share_a_port(tmp_path: Path, redis: str, open_browser: Open) -> None:
    """And Caddy in front of them."""
    with prepared(tmp_path, redis, "uvicorn") as site:
        site.take("3-server")
        site.manage("migrate")
        server = DigiServer(site, "--workers", "2")
        caddy = Caddy(tmp_path, site.port, server.port)
        with server.running(), caddy.running():
            site.start()
            chat(*enter(caddy, open_browser))
            assert server.stop() == 0
            assert server.output.count("Digi has ended.") == 2


def test_a_fleet_of_stock_workers_and_digis(tmp_path: Path, redis: str, open_browser: Open) -> None:
    """Alice's page is served by the project's own consumer, Bob's by Digi's, Alice's other one by Digi's server, and
    Bob's other one by the project's own consumer on Digi's layer.
    """
    with prepared(tmp_path, redis) as stock, ExitStack() as stack:
        layered = ClassicSite(tmp_path / "layered", redis, step="1-layer", data=stock.data)
        changed = ClassicSite(tmp_path / "changed", redis, "uvicorn", step="2-consumer", data=stock.data)
        changed.manage("migrate")
        server = DigiServer(changed)
        nginx = Nginx(tmp_path, changed.port, server.port)
        for process in (stock, layered, changed, server, nginx):
            stack.enter_context(process.running())
        alice, bob, other, last = (
            ClassicPage(open_browser(), site, user)
            for site, user in ((stock, "alice"), (changed, "bob"), (nginx, "alice"), (layered, "bob"))
        )
        pages = (alice, bob, other, last)
        for page in pages:
            page.enter()
        shown = []
        for number in range(3):
            for page, name in zip(pages, ("stock", "consumer", "server", "layer"), strict=True):
                shown.append(f"{name} {number}")
                page.write(shown[-1])
                for each in pages:
                    each.wait_for_texts(*shown)
        # What the stock worker has stored gets its number, and is not shown again.
        alice.write("the last one")
        shown.append("the last one")
        changed.manage("digi", "adopt")
        bob.edit("consumer 1", "consumer one")
        bob.button("consumer 2", "delete")
        other.edit("server 1", "server one")
        shown[shown.index("consumer 1")] = "consumer one"
        shown[shown.index("server 1")] = "server one"
        shown.remove("consumer 2")
        for page in pages:
            page.wait_for_texts(*shown)
            page.reload()
            page.wait_for_texts(*shown)
            assert page.complaints() == []
