"""`manage.py digi adopt`: numbers for what was there before."""

from __future__ import annotations

from argparse import ArgumentParser

from django.core.management.base import BaseCommand, CommandError

from digi.django import conf
from digi.django.store import OrmStore

#: How many rooms are numbered in one transaction.
ROOMS_AT_ONCE = 50

HELP = "number all messages of the project's own table that have no number yet"


def add_arguments(parser: ArgumentParser) -> None:
    """None."""
    del parser


def run(command: BaseCommand) -> None:
    """Goes through all rooms."""
    config, mapped = conf.get(), conf.mapped()
    if mapped is None:
        raise CommandError("DIGI['MESSAGE_MODEL'] is not set: Digi's own table has nothing to adopt")
    store, count, last = OrmStore(config.database, mapped), 0, 0
    rooms = mapped.room_model._base_manager.using(config.database).order_by("pk").values_list("pk", flat=True)
    while some := list(rooms.filter(pk__gt=last)[:ROOMS_AT_ONCE]):
        count += store.number(some)
        last = some[-1]
    command.stdout.write(f"{count} messages have got their numbers.")
