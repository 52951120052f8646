"""From an entry of DATABASES to the store on SQL Server: what needs no server."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import pytest
from django.core.exceptions import ImproperlyConfigured
from django.db import connections
from django.test import override_settings

import digi
from digi._digi import schema
from digi.django import checks, conf, fields, mssql
from digi.django.engine import make_engine
from digi.django.models import Message
from digi.django.schema import TABLES, _statements
from digi.django.store import OrmStore

ALIAS = "sql_server"
PASSWORD = "p@ss:/?#[]%{}; ünd=&+ 'more\""


@contextmanager
def entry(**keys: Any) -> Iterator[None]:
    """Sets the database's entry, over one that is as it should be."""
    usual = {"ENGINE": "mssql", "HOST": "db.example", "NAME": "chat", "USER": "digi", "PASSWORD": PASSWORD}
    settings = connections.settings[ALIAS]
    before = dict(settings)
    settings.update({"PORT": "", "OPTIONS": {}} | usual | keys)
    try:
        with override_settings(DIGI={"DATABASE": ALIAS}):
            yield
    finally:
        settings.clear()
        settings.update(before)


def url(**parameters: str | int | bool) -> str:
    return mssql.store_url(ALIAS, parameters)


def test_an_entry_becomes_a_url() -> None:
    with entry(HOST="db.example", PORT=1444, NAME="chat & co", USER="CORP\\digi@home"):
        parts = urlsplit(url())
    assert (parts.scheme, parts.hostname, parts.port) == ("mssql", "db.example", 1444)
    assert unquote(parts.path) == "/chat & co"
    assert parts.username is not None
    assert parts.password is not None
    assert (unquote(parts.username), unquote(parts.password)) == ("CORP\\digi@home", PASSWORD)
    assert parse_qs(parts.query) == {"encrypt": ["required"]}


@pytest.mark.parametrize(
    ("host", "port", "address"),
    [
        ("", "", "localhost"),
        (".", "", "localhost"),
        ("(local)", 1433, "localhost:1433"),
        ("db.example", "", "db.example"),
        ("db.example", "1433", "db.example:1433"),
        ("db.example, 1433", "", "db.example:1433"),
        ("db.example,1433", "1433", "db.example:1433"),
        ("tcp:db.example,1433", "", "db.example:1433"),
        ("db.example\\CHAT", "1444", "db.example:1444"),
        ("db.example\\CHAT,1444", "", "db.example:1444"),
        ("::1", "1433", "[::1]:1433"),
        ("[fe80::1]", "", "[fe80::1]"),
        ("a/b?c", "", "a%2Fb%3Fc"),
    ],
)
def test_hosts(host: str, port: str | int, address: str) -> None:
    with entry(HOST=host, PORT=port):
        assert url().split("@")[1].split("/")[0] == address


@pytest.mark.parametrize(
    ("extra", "query"),
    [
        ("Encrypt=yes", "encrypt=required"),
        ("encrypt = Mandatory ; MARS_Connection=no;", "encrypt=required"),
        ("Encrypt=no", "encrypt=off&trust_cert=true"),
        ("Encrypt=Optional;TrustServerCertificate=no", "encrypt=off&trust_cert=true"),
        ("TrustServerCertificate=yes;Encrypt=yes;Encrypt=no", "encrypt=required&trust_cert=true"),
        ("Encrypt={strict};TrustServerCertificate=yes", "encrypt=strict"),
        ("nonsense;APP={a}};Encrypt=no};Encrypt={yes}", "encrypt=required"),
        ("Authentication=SqlPassword", "encrypt=required"),
    ],
)
def test_encryption(extra: str, query: str) -> None:
    with entry(OPTIONS={"extra_params": extra, "driver": "ODBC Driver 18 for SQL Server"}):
        assert url().split("?")[1] == query


@pytest.mark.parametrize(
    ("extra", "parameters", "query"),
    [
        ("", {"lanes": 8, "schema": "a b"}, "encrypt=required&lanes=8&schema=a%20b"),
        ("Encrypt=no", {"encrypt": "required"}, "encrypt=required"),
        ("TrustServerCertificate=yes", {"encrypt": "strict"}, "encrypt=strict"),
        ("TrustServerCertificate=yes", {"trust_ca": "/ca.pem"}, "encrypt=required&trust_ca=%2Fca.pem"),
        ("TrustServerCertificate=yes", {"trust_cert": False}, "encrypt=required&trust_cert=false"),
    ],
)
def test_parameters_come_first(extra: str, parameters: dict[str, str | int], query: str) -> None:
    with entry(OPTIONS={"extra_params": extra}):
        assert url(**parameters).split("?")[1] == query


@pytest.mark.parametrize(
    ("keys", "text"),
    [
        ({"NAME": None}, "set NAME"),
        ({"USER": ""}, "set both"),
        ({"PASSWORD": ""}, "set both"),
        ({"OPTIONS": {"extra_params": "Trusted_Connection=yes"}}, "set both"),
        (
            {"OPTIONS": {"extra_params": "Authentication=ActiveDirectoryMsi"}},
            "not with Authentication=ActiveDirectoryMsi",
        ),
        ({"TOKEN": "secret"}, "not with a TOKEN"),
        ({"OPTIONS": {"dsn": "chat"}}, "OPTIONS['dsn']"),
        ({"OPTIONS": {"extra_params": "PWD={secret}"}}, "looks for pwd in PASSWORD"),
        ({"OPTIONS": {"extra_params": "ApplicationIntent=ReadOnly"}}, "has to write"),
        ({"OPTIONS": {"extra_params": "Encrypt=maybe"}}, "Encrypt=yes, no and strict, not 'maybe'"),
        ({"OPTIONS": {"extra_params": "HostNameInCertificate=db"}}, "DIGI['SQL_SERVER']['trust_ca']"),
        ({"HOST": "db.example\\CHAT"}, "where the instance CHAT listens"),
        ({"HOST": "np:db.example"}, "over TCP only, not over np:"),
        ({"HOST": "db.example,1433", "PORT": "1434"}, "two ports, 1433 in HOST and 1434 in PORT"),
        ({"PORT": "x"}, "1 to 65535 in PORT, not 'x'"),
        ({"PORT": 65536}, "1 to 65535 in PORT"),
        ({"PORT": "1" * 5_000}, "1 to 65535 in PORT"),
    ],
)
def test_what_cannot_be_is_named(keys: dict[str, Any], text: str) -> None:
    with entry(**keys):
        [error] = checks.check_settings()
        assert error.msg.startswith(f"DATABASES['{ALIAS}']: Digi's store for SQL Server ")
        assert text in error.msg
        assert "secret" not in error.msg
        assert PASSWORD not in error.msg
        with pytest.raises(ImproperlyConfigured, match="Digi's store for SQL Server"):
            make_engine()


def test_nothing_shows_the_password() -> None:
    with entry():
        assert checks.check_settings() == []
        found = mssql.store_url(ALIAS, {})
    assert repr(found) == "<the URL of a store>"
    with override_settings(DIGI={"STORE": "mssql://digi:secret@db.example/chat"}):
        assert "secret" not in repr(conf.get())
    with override_settings(DIGI={"STORE": "mssql:/digi:secret@db.example/chat"}):
        [problem] = conf.problems()
    assert "secret" not in problem


def test_the_scripts_fall_into_statements() -> None:
    (first, version_table), *scripts = schema("mssql")
    assert first == 0
    found = [statement for script in (version_table, *dict(scripts).values()) for statement in _statements(script)]
    guards = [re.search(r"^IF OBJECT_ID\(N'\{schema\}\.(\w+)', N'U'\) IS NULL$", text, re.MULTILINE) for text in found]
    assert [guard and guard[1] for guard in guards] == ["digi_schema", *TABLES]


@pytest.mark.parametrize(
    ("changes", "schema", "expected"),
    [
        ({}, "dbo", []),
        ({}, "app", []),
        ({"has_snapshots": False}, "dbo", ["digi.W001"]),
        ({"has_snapshots": False, "has_openjson": False}, "dbo", ["digi.W001", "digi.W002"]),
        ({}, "elsewhere", ["digi.W003"]),
    ],
)
def test_what_a_database_says_is_judged(
    monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any], schema: str, expected: list[str]
) -> None:
    """The questions themselves are asked where there is a server."""
    said = mssql.Database("odd]name", has_snapshots=True, has_openjson=True, default_schema="app")._replace(**changes)
    monkeypatch.setattr(mssql, "ask", lambda _connection: said)
    with entry(), override_settings(DIGI={"DATABASE": ALIAS, "SQL_SERVER": {"schema": schema}}):
        found = checks.check_sql_server(databases=[ALIAS])
    assert [warning.id for warning in found] == expected
    hints = [str(warning.hint) for warning in found if warning.id != "digi.W003"]
    assert all(hint.startswith("ALTER DATABASE [odd]]name] SET ") for hint in hints)


def test_names_are_quoted() -> None:
    assert mssql.quoted("a]b[c") == "[a]]b[c]"


def test_the_orm_store_leaves_it_to_the_native_one() -> None:
    with entry(), pytest.raises(digi.ConfigError, match=r"use digi\.django\.engine\.get_engine\(\)"):
        OrmStore(ALIAS)


def time_field(name: str) -> fields.MillisField:
    field = Message._meta.get_field(name)
    assert isinstance(field, fields.MillisField)
    return field


@pytest.mark.parametrize(
    ("millis", "stored"),
    [
        (0, datetime(1970, 1, 1)),
        (1_700_000_000_123, datetime(2023, 11, 14, 22, 13, 20, 123_000)),
        (-1, datetime(1969, 12, 31, 23, 59, 59, 999_000)),
        # What lies beyond the column's bounds is cut.
        (2**63 - 1, datetime(9999, 12, 31, 23, 59, 59, 999_000)),
        (-(2**63), datetime(1, 1, 1)),
    ],
)
def test_times(millis: int, stored: datetime) -> None:
    assert time_field("created_at").get_db_prep_value(millis, connections[ALIAS]) == stored


def test_only_sql_server_has_times_of_its_own() -> None:
    field, query = time_field("edited_at"), Message.objects.all().query
    assert field.db_type(connections[ALIAS]) == "datetime2(3)"
    assert "DATEDIFF_BIG(" in field.select_format(query.get_compiler(ALIAS), "edited_at", ())[0]
    for alias in ("postgresql", "default"):
        assert field.db_type(connections[alias]) == "bigint"
        assert field.get_db_prep_value(5, connections[alias]) == 5
        assert field.select_format(query.get_compiler(alias), "edited_at", ()) == ("edited_at", ())
