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
    store, count = OrmStore(config.database, mapped), 0
    rooms = mapped.room_model._base_manager.using(config.database).order_by("pk").values_list("pk", flat=True)
    some = list(rooms[:ROOMS_AT_ONCE])
    while some:
        count += store.adopt(some)
        some = list(rooms.filter(pk__gt=some[-1])[:ROOMS_AT_ONCE])
    command.stdout.write(f"{count} messages have got their numbers.")
