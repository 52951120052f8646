"""`manage.py digi`."""

from __future__ import annotations

from inspect import signature
from typing import Any

from django.core.management.base import BaseCommand, CommandParser

from digi.django.commands import adopt, demo, doctor, keys, restored, serve, token

WORDS = {
    "adopt": adopt,
    "demo": demo,
    "doctor": doctor,
    "keys": keys,
    "restored": restored,
    "serve": serve,
    "token": token,
}


class Command(BaseCommand):
    """What an operator does with Digi."""

    help = "Digi: serving, looking after it, and what to do once"

    def add_arguments(self, parser: CommandParser) -> None:
        """One subcommand each."""
        words = parser.add_subparsers(dest="subcommand", required=True, metavar="subcommand")
        for name, module in WORDS.items():
            module.add_arguments(words.add_parser(name, help=module.HELP))

    def handle(self, *_: Any, subcommand: str, **options: Any) -> None:
        """Run the subcommand."""
        run = WORDS[subcommand].run
        # The rest is what every command of Django's has.
        run(self, **{name: options[name] for name in signature(run).parameters if name in options})
