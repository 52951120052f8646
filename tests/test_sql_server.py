"""On SQL Server, if `DIGI_MSSQL_URL` names one: the Django example in two browsers, and an engine in Python."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

import digi
import sql_server
from browser_page import GONE, Open
from conftest import ROOT
from django_site import Site, SitePage, manage

SECRET = "a secret of at least thirty-two bytes"
PASSWORD = "digi-demo"


@pytest.fixture
def database() -> Iterator[dict[str, Any]]:
    """A database of the test's own, as an entry of DATABASES."""
    url = sql_server.url()
    if url is None:
        pytest.skip(sql_server.NOT_TESTED)
    with sql_server.database(url) as entry:
        yield entry


def test_the_django_example_by_its_databases_alone(
    database: dict[str, Any], open_browser: Open, tmp_path: Path
) -> None:
    changes = {
        "DJANGO_SETTINGS_MODULE": "site_on_sql_server",
        "DIGI_TEST_DATABASE": json.dumps(database),
        "PYTHONPATH": str(ROOT / "tests"),
    }
    prepared = tmp_path / "prepared"
    prepared.mkdir()
    assert "WARNINGS" not in manage(prepared, "migrate", **changes)
    first = manage(prepared, "digi", "demo", "--force", **changes)
    assert manage(prepared, "digi", "demo", "--force", **changes) == first

    site = Site(prepared, tmp_path / "data", **changes)
    with site.running():
        alice, bob = SitePage(open_browser(), site), SitePage(open_browser(), site)
        for page, user in ((alice, "alice"), (bob, "bob")):
            page.browser.get(site.url)
            page.log_in(user, PASSWORD)
            page.enter()
        alice.write("Hello Bob")
        bob.wait_for_texts("Hello Bob")
        bob.say("Grüße 👋🏽, Alice")
        alice.wait_for_texts("Hello Bob", "Grüße 👋🏽, Alice")
        alice.press("Hello Bob", "Edit")
        alice.write("!")
        bob.wait_for_texts("Hello Bob!", "Grüße 👋🏽, Alice")
        alice.delete("Hello Bob!")
        bob.wait_for_texts(GONE, "Grüße 👋🏽, Alice")
        bob.write("before the restart")
        alice.wait_for_texts(GONE, "Grüße 👋🏽, Alice", "before the restart")

        site.restart()
        for page in (alice, bob):
            page.wait_for_status("Connected")
        bob.write("after it")
        alice.wait_for_texts(GONE, "Grüße 👋🏽, Alice", "before the restart", "after it")
        alice.browser.refresh()
        alice.wait_for_texts(GONE, "Grüße 👋🏽, Alice", "before the restart", "after it")
        alice.follow("#back")
        assert alice.find("#rooms .last").text == "bob: after it"
        # The rooms of both, and their times, come out of Django's own queries.
        assert ":" in alice.find("#rooms time").text
        assert (alice.complaints(), bob.complaints()) == ([], [])


def url_of(entry: dict[str, Any], **changes: str) -> str:
    """The native store's URL, as one would write it."""
    parts = {key: quote(entry[key], safe="") for key in ("USER", "PASSWORD", "HOST", "PORT", "NAME")} | changes
    return "mssql://{USER}:{PASSWORD}@{HOST}:{PORT}/{NAME}?trust_cert=true".format(**parts)


def test_an_engine_on_a_url(database: dict[str, Any]) -> None:
    with digi.Engine(SECRET, url_of(database)) as engine:
        room = engine.create_room([("7", "alice", "member")], name="Room").result()
        first = engine.post(room, "7", "alice", "hello", client_id="one").result()
        assert engine.post(room, "7", "alice", "hello", client_id="one").result().kind == "duplicate"
        assert first.message_id is not None
        engine.edit(room, "7", "alice", first.message_id, "hello, all").result()
    with digi.Engine(SECRET, url_of(database) + "&lanes=1&pool=1&app=again") as engine:
        assert [message.body for message in engine.history(room).result()] == ["hello, all"]
        assert engine.post(room, "7", "alice", "bye").result().seq == 3


def test_what_is_wrong_is_said_without_the_password(database: dict[str, Any]) -> None:
    for changes, text in (
        ({"PASSWORD": "Wrong-secret-1"}, "check user and password"),
        ({"NAME": "no_such_database"}, "no_such_database"),
        ({"PORT": "1"}, f"nothing listens on {database['HOST']}:1"),
    ):
        with pytest.raises(digi.StoreUnavailableError) as raised:
            digi.Engine(SECRET, url_of(database, **changes)).open().result()
        assert text in str(raised.value)
        assert "secret" not in str(raised.value)
        assert database["PASSWORD"] not in str(raised.value)
