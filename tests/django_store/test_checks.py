"""What `manage.py check` says about settings and databases."""

import io
import sys
from pathlib import Path

import pytest
from django.core.checks import CheckMessage, run_checks
from django.core.management import CommandError, call_command
from django.db import connections
from django.db.backends.base.base import BaseDatabaseWrapper
from django.test import override_settings

import digi.django
from digi.django import checks
from django_store.conftest import use_file


def ids(messages: list[CheckMessage]) -> list[str | None]:
    return [message.id for message in messages]


def said_of(alias: str) -> list[CheckMessage]:
    with override_settings(DIGI={"DATABASE": alias}):
        return checks.check_database(databases=[alias])


@pytest.mark.usefixtures("sqlite")
@pytest.mark.parametrize("name", checks.WORKERS)
def test_several_workers_need_a_layer(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    for given, layer, expected in (
        ("4", "local:", ["digi.W004"]),
        ("4", "redis://127.0.0.1:6379", []),
        ("1", "local:", []),
        ("many", "local:", []),
    ):
        monkeypatch.setenv(name, given)
        with override_settings(DIGI={"LAYER": layer}):
            found = checks.check_settings()
        assert ids(found) == expected
        assert all(name in message.msg and "redis://" in str(message.hint) for message in found)


@pytest.mark.usefixtures("sqlite")
def test_a_key_that_can_be_guessed() -> None:
    for secret, expected in (("ab" * 20, ["digi.W005"]), (b"\0" * 32, ["digi.W005"]), ("a secret, " * 4, [])):
        with override_settings(DIGI={"KEYS": {3: secret}}):
            found = checks.check_settings()
        assert ids(found) == expected
        assert all("[3]" in message.msg and str(secret) not in message.msg for message in found)


def test_a_database_as_it_should_be(database: str) -> None:
    assert said_of(database) == []


def test_missing_migrations(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    call_command("migrate", "digi", "0001", database=database, verbosity=0)
    later = len(list(Path(digi.django.__file__).with_name("migrations").glob("0*.py"))) - 1
    try:
        [warning] = said_of(database)
        assert warning.id == "digi.W006"
        assert warning.msg.startswith(f"{later} migrations of digi are missing")
        monkeypatch.setattr(sys, "argv", ["manage.py", "migrate"])
        assert said_of(database) == []
    finally:
        call_command("migrate", "digi", database=database, verbosity=0)


@pytest.mark.usefixtures("sqlite")
def test_only_whoever_asks_for_a_database_has_it_opened(tmp_path: Path) -> None:
    use_file(tmp_path / "empty.db")
    with override_settings(DIGI={}):
        # Since Django 6.1 all databases are meant where none is named, and MariaDB is opened for what it can do.
        assert [message for message in run_checks(databases=[]) if str(message.id).startswith("digi.")] == []
        assert checks.check_database() == []
        assert not (tmp_path / "empty.db").exists()
        assert "digi.W006" in ids(run_checks(databases=["default"]))
    with override_settings(DIGI={"DATABASE": "postgresql"}):
        assert checks.check_database(databases=["default"]) == []
    with override_settings(DIGI={"STORE": "memory:"}):
        assert checks.check_database(databases=["default"]) == []
    with override_settings(DIGI={"COLOUR": "red"}):
        assert checks.check_database(databases=["default"]) == []


def test_a_database_that_was_not_tried(sqlite: str, mariadb: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(connections[sqlite], "vendor", "oracle")
        patched.setattr(connections[sqlite], "display_name", "Oracle")
        [warning] = said_of(sqlite)
    assert warning.id == "digi.W007"
    assert "Oracle" in warning.msg
    connection: BaseDatabaseWrapper = connections[mariadb]
    assert connection.mysql_is_mariadb  # type: ignore[attr-defined]
    monkeypatch.setitem(connection.__dict__, "mysql_is_mariadb", False)
    assert ids(said_of(mariadb)) == ["digi.W007"]


def test_connections_that_cannot_say_everything(mariadb: str, monkeypatch: pytest.MonkeyPatch) -> None:
    connections[mariadb].close()
    monkeypatch.setitem(connections[mariadb].settings_dict["OPTIONS"], "charset", "utf8mb3")
    [warning] = said_of(mariadb)
    assert warning.id == "digi.W008"
    assert "utf8mb3" in warning.msg
    connections[mariadb].close()


@pytest.mark.usefixtures("sqlite")
def test_the_doctor_says_so_too_unless_it_is_silenced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WEB_CONCURRENCY", "4")
    out = io.StringIO()
    with override_settings(DIGI={}):
        with pytest.raises(CommandError, match="have to be mended"):
            call_command("digi", "doctor", stdout=out)
        assert "WRONG WEB_CONCURRENCY asks for 4 processes" in out.getvalue()
        with override_settings(SILENCED_SYSTEM_CHECKS=["digi.W004"]):
            call_command("digi", "doctor", stdout=out)
