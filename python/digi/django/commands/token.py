"""`manage.py digi token`: from an id to what stands in URLs and frames, and back."""

from __future__ import annotations

from argparse import ArgumentParser

from django.core.management.base import BaseCommand, CommandError

from digi.django import conf
from digi.django.engine import get_cipher
from digi.errors import InputError

HELP = "seal an id, or open a token: token room 42, token message <token>"


def add_arguments(parser: ArgumentParser) -> None:
    """The arguments."""
    parser.add_argument("kind", choices=["room", "message"])
    parser.add_argument("given", metavar="id or token")


def run(command: BaseCommand, kind: str, given: str) -> None:
    """Says the other one."""
    cipher = get_cipher()
    if not given.lstrip("-").isdecimal():
        try:
            command.stdout.write(str(cipher.open("room" if kind == "room" else "message", given)))
        except InputError as error:
            raise CommandError(f"with the keys of this project it does not open as the token of a {kind}") from error
        return
    token = cipher.seal("room" if kind == "room" else "message", int(given))
    command.stdout.write(f"{conf.get().route}{token}/" if kind == "room" else token)
