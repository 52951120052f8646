"""`manage.py digi doctor`: connects to everything, and says what is wrong and what to do."""

from __future__ import annotations

import time
from argparse import ArgumentParser
from collections.abc import Iterator
from typing import Any

import django
from django.core import checks
from django.core.exceptions import ImproperlyConfigured
from django.core.management.base import BaseCommand, CommandError
from django.db import connections

import digi
from digi.django import conf
from digi.django.checks import missing_migrations
from digi.django.engine import make_engine
from digi.errors import DigiError

#: Milliseconds that two clocks may lie apart.
CLOCKS = 2_000
#: Seconds that the layer has to come up.
PATIENCE = 5.0

HELP = "connect to everything that the chat needs, and say what is wrong and what to do"

#: Whether it is in order, and the sentence.
Finding = tuple[bool, str]


def add_arguments(parser: ArgumentParser) -> None:
    """None."""
    del parser


def run(command: BaseCommand) -> None:
    """One line for each thing; fails if one of them is wrong."""
    wrong = 0
    for is_well, text in _findings():
        wrong += not is_well
        command.stdout.write(f"{'ok   ' if is_well else 'WRONG'} {text}")
    if wrong:
        raise CommandError(f"{wrong} of these have to be mended.")


def _findings() -> Iterator[Finding]:
    yield True, f"Digi {digi.__version__}, Django {django.get_version()}"
    try:
        config = conf.get()
    except ImproperlyConfigured as problem:
        yield False, str(problem)
        return
    yield from _settings()
    if config.store == "orm":
        try:
            yield from _database(config.database)
        except Exception as error:
            yield False, f"database {config.database!r}: {type(error).__name__}: {str(error).splitlines()[0]}"
            return
    yield from _engine(config)


def _settings() -> Iterator[Finding]:
    messages = checks.run_checks(tags=["digi"])
    found = [message for message in messages if message.level >= checks.WARNING and not message.is_silenced()]
    for message in found:
        yield False, f"{message.msg} {message.hint or ''}".strip()
    if not found:
        yield True, "the setting DIGI, and the keys"


def _database(alias: str) -> Iterator[Finding]:
    connection = connections[alias]
    connection.ensure_connection()
    yield True, f"database {alias!r}: {connection.display_name} can be reached"
    if missing := missing_migrations(connection):
        yield False, f"database {alias!r}: {missing} migrations of digi are missing: run `manage.py migrate`"
        return
    yield True, f"database {alias!r}: Digi's tables are there"
    for message in checks.run_checks(tags=[checks.Tags.database], databases=[alias]):
        if message.id and message.id.startswith("digi.") and not message.is_silenced():
            yield False, f"{message.msg} {message.hint or ''}".strip()
    if (apart := _clock(connection)) is not None:
        well = abs(apart) <= CLOCKS
        yield well, f"clock: {abs(apart):.0f} ms from the database's" + ("" if well else ": set both by NTP")


def _clock(connection: Any) -> float | None:
    """Milliseconds by which the database's clock is ahead; None where it is this machine's."""
    statements = {
        "postgresql": "SELECT EXTRACT(EPOCH FROM clock_timestamp()) * 1000",
        "mysql": "SELECT UNIX_TIMESTAMP(NOW(3)) * 1000",
    }
    if connection.vendor not in statements:
        return None
    with connection.cursor() as cursor:
        begun = time.time()
        cursor.execute(statements[connection.vendor])
        (theirs,) = cursor.fetchone()
    return float(theirs) - (begun + time.time()) * 500


def _engine(config: conf.Config) -> Iterator[Finding]:
    try:
        with make_engine() as engine:
            yield True, "the engine opens, and its store can be read"
            if config.layer == "local:":
                yield True, 'LAYER is "local:": right for one process; several hear of each other late'
            else:
                yield from _up(engine, "layer_up", "LAYER: Redis")
            if config.bridge:
                yield from _up(engine, "bridge_up", "BRIDGE: Redis")
    except DigiError as error:
        yield False, f"the engine does not open: {error}"


def _up(engine: digi.Engine, figure: str, name: str) -> Iterator[Finding]:
    until = time.monotonic() + PATIENCE
    while not engine.stats()[figure] and time.monotonic() < until:
        time.sleep(0.05)
    is_up = bool(engine.stats()[figure])
    yield is_up, f"{name} can be reached" if is_up else f"{name} cannot be reached: the log says why"
