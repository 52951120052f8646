"""`manage.py digi token`: from an id to what stands in URLs and frames, and back."""

from __future__ import annotations

from argparse import ArgumentParser

from django.core.management.base import BaseCommand, CommandError

from digi.django import conf, keys
from digi.django.engine import get_cipher
from digi.errors import InputError, NoSuchRoomError, RefusedError

HELP = "seal an id or a key of the project's, or open a token: token room 42, token message <token>"


NOT_OPEN = "with the keys of this project it does not open as the token of a"


def add_arguments(parser: ArgumentParser) -> None:
    """The arguments."""
    parser.add_argument("kind", choices=["room", "message"])
    parser.add_argument("given", metavar="id, key or token")


def run(command: BaseCommand, kind: str, given: str) -> None:
    """Says the other one."""
    mapped = conf.mapped()
    is_number = mapped is None or (mapped.room_key if kind == "room" else mapped.message_key).is_number
    if not (is_number and given.lstrip("-").isdecimal()):
        try:
            command.stdout.write(str(_opened(kind, given)))
            return
        except InputError as error:
            if is_number:
                raise CommandError(f"{NOT_OPEN} {kind}") from error
    try:
        token = _sealed(kind, int(given) if is_number else given)
    except (NoSuchRoomError, RefusedError) as error:
        raise CommandError(f"{NOT_OPEN} {kind}, and there is no {kind} with such a key") from error
    command.stdout.write(f"{conf.get().route}{token}/" if kind == "room" else token)


def _opened(kind: str, token: str) -> object:
    """The project's key, or what was sealed where there is none any more."""
    number = get_cipher().open("room" if kind == "room" else "message", token)
    try:
        found = keys.room_key(number) if kind == "room" else keys.message_key(number)
    except NoSuchRoomError:
        found = None
    return number if found is None else found


def _sealed(kind: str, given: keys.Thing) -> str:
    return keys.room_token(given) if kind == "room" else keys.message_token(given)
