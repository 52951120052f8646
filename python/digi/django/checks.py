"""System checks: `manage.py check` and every start say what is wrong with the setting `DIGI`.

What has to be asked of the database itself, `manage.py migrate` and `manage.py check --database default` ask.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from django.core.checks import CheckMessage, Error, Tags, register
from django.core.checks import Warning as Warned
from django.core.exceptions import ImproperlyConfigured
from django.db import connections

from digi.django import conf, mssql
from digi.django.engine import get_cipher
from digi.errors import DigiError


@register("digi")
def check_settings(**_: Any) -> list[CheckMessage]:
    """Everything about `DIGI` that can be judged without opening a database."""
    found: list[CheckMessage] = [Error(problem, id="digi.E001") for problem in conf.problems()]
    if not found:
        try:
            get_cipher()
        except DigiError as error:
            hint = "Tokens are sealed with SECRET_KEY unless DIGI['KEYS'] is set."
            found.append(Error(f"DIGI: the keys cannot be used: {error.detail}", hint=hint, id="digi.E002"))
    return found


@register(Tags.database)
def check_sql_server(databases: Sequence[str] | None = None, **_: Any) -> list[CheckMessage]:
    """Whether the database is set as Digi needs it."""
    try:
        config = conf.get()
    except ImproperlyConfigured:
        return []  # The other check says what is wrong.
    alias = config.database
    if alias not in (databases or ()) or config.store != "orm" or not mssql.is_sql_server(alias):
        return []
    database = mssql.ask(connections[alias])
    alter = f"ALTER DATABASE {mssql.quoted(database.name)} SET"
    found: list[CheckMessage] = []
    if not database.has_snapshots:
        text = f"READ_COMMITTED_SNAPSHOT is off in the database {alias!r}: who reads a room waits for who writes in it."
        hint = f"{alter} READ_COMMITTED_SNAPSHOT ON WITH ROLLBACK IMMEDIATE"
        found.append(Warned(text, hint=hint, id="digi.W001"))
    if not database.has_openjson:
        text = f"The compatibility level of the database {alias!r} is too low: it does not know OPENJSON."
        found.append(Warned(text, hint=f"{alter} COMPATIBILITY_LEVEL = 130 (or higher)", id="digi.W002"))
    schema = mssql.schema_of(config.sql_server)
    if schema not in (mssql.SCHEMA, database.default_schema):
        text = (
            f"Digi's tables are in the schema {schema!r}, where Django does not look: the login's default schema is "
            f"{database.default_schema!r}."
        )
        hint = "DIGI['SQL_SERVER']['schema'] names the default schema, or dbo"
        found.append(Warned(text, hint=hint, id="digi.W003"))
    return found
