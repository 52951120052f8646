"""`manage.py digi restored`: after a backup was restored."""

from __future__ import annotations

import time
from argparse import ArgumentParser

from django.core.management.base import BaseCommand

from digi.django import conf
from digi.django.engine import make_engine
from digi.django.mssql import is_sql_server
from digi.django.store import OrmStore

HELP = "to be run once after a backup was restored: raises every room's epoch"


def add_arguments(parser: ArgumentParser) -> None:
    """None."""
    del parser


def run(command: BaseCommand) -> None:
    """Raises every room's epoch."""
    config = conf.get()
    if config.store == "orm" and not is_sql_server(config.database):
        OrmStore(config.database, conf.mapped()).raise_all(time.time_ns() // 1_000_000)
    else:
        with make_engine() as engine:
            engine.restored().result()
    command.stdout.write("Every room has a new epoch; clients load their rooms anew.")
