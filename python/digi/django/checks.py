"""System checks: `manage.py check` and every start say what is wrong with the setting `DIGI`.

What has to be asked of the database itself, `manage.py migrate` and `manage.py check --database default` ask.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from typing import Any

from django.core.checks import CheckMessage, Error, Tags, register
from django.core.checks import Warning as Warned
from django.core.exceptions import ImproperlyConfigured
from django.db import connections
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.migrations.executor import MigrationExecutor
from django.utils.encoding import force_bytes

from digi.django import conf, mssql
from digi.django.engine import get_cipher
from digi.errors import DigiError

#: Where servers look for the number of their processes, if their command line does not say it.
WORKERS = ("WEB_CONCURRENCY", "GRANIAN_WORKERS")
#: A secret with fewer different characters is none, as Django says of SECRET_KEY.
DIFFERENT = 5
#: Whose SQL Digi was tried with; of the family of MySQL that is MariaDB.
TRIED = ("sqlite", "postgresql", "mysql", mssql.VENDOR)


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
        found += [*_workers(conf.get()), *_weak_keys(conf.get())]
    return found


def _workers(config: conf.Config) -> Iterator[CheckMessage]:
    if config.layer != "local:":
        return
    for name in WORKERS:
        given = os.environ.get(name, "")
        if given.isdecimal() and int(given) > 1:
            text = (
                f"{name} asks for {given} processes, and DIGI['LAYER'] is \"local:\": each hears late of the others' "
                "messages, and not at all of who types or is thrown out there."
            )
            hint = "DIGI['LAYER'] = \"redis://…\", or one process for the chat"
            yield Warned(text, hint=hint, id="digi.W004")


def _weak_keys(config: conf.Config) -> Iterator[CheckMessage]:
    for number, secret in (config.keys or {}).items():
        if len(set(force_bytes(secret))) < DIFFERENT:
            text = f"DIGI['KEYS'][{number}] is made of fewer than {DIFFERENT} different characters: it can be guessed."
            hint = "`manage.py digi keys new` makes one, `manage.py digi keys rotate` says how to change it."
            yield Warned(text, hint=hint, id="digi.W005")


def _config_for(databases: Sequence[str] | None) -> conf.Config | None:
    """The setting, if the rooms are in one of these databases."""
    try:
        config = conf.get()
    except ImproperlyConfigured:
        return None  # The other check says what is wrong.
    return config if config.store == "orm" and config.database in (databases or ()) else None


@register(Tags.database)
def check_database(databases: Sequence[str] | None = None, **_: Any) -> list[CheckMessage]:
    """Whether it is one that Digi knows, takes every text, and has the tables."""
    config = _config_for(databases)
    if config is None:
        return []
    alias, connection = config.database, connections[config.database]
    found: list[CheckMessage] = []
    is_mysql = connection.vendor == "mysql" and not connection.mysql_is_mariadb  # type: ignore[attr-defined]
    if is_mysql or connection.vendor not in TRIED:
        text = f"Digi has not been tried with {connection.display_name} (the database {alias!r})."
        hint = "SQLite, PostgreSQL, MariaDB and SQL Server are tested. DIGI['DATABASE'] may name another of DATABASES."
        found.append(Warned(text, hint=hint, id="digi.W007"))
    if connection.vendor == "mysql":
        with connection.cursor() as cursor:
            cursor.execute("SELECT @@character_set_client")
            [(characters,)] = cursor.fetchall()
        if characters != "utf8mb4":
            text = f"Connections to the database {alias!r} speak {characters}, in which not every text can be written."
            hint = f"DATABASES[{alias!r}]['OPTIONS']['charset'] = 'utf8mb4', which Django has by itself since 5.2"
            found.append(Warned(text, hint=hint, id="digi.W008"))
    # Whoever migrates need not be told to.
    if sys.argv[1:2] != ["migrate"] and (missing := missing_migrations(connection)):
        text = f"{missing} migrations of digi are missing in the database {alias!r}: the chat does not open."
        found.append(Warned(text, hint=f"manage.py migrate digi --database {alias}", id="digi.W006"))
    return found


def missing_migrations(connection: BaseDatabaseWrapper) -> int:
    """How many of Digi's have not been applied."""
    executor = MigrationExecutor(connection)
    targets = [node for node in executor.loader.graph.leaf_nodes() if node[0] == "digi"]
    return len(executor.migration_plan(targets))


@register(Tags.database)
def check_sql_server(databases: Sequence[str] | None = None, **_: Any) -> list[CheckMessage]:
    """Whether the database is set as Digi needs it."""
    config = _config_for(databases)
    if config is None or not mssql.is_sql_server(config.database):
        return []
    alias = config.database
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
