"""`manage.py digi keys`: what seals ids, and how to change it."""

from __future__ import annotations

import secrets
from argparse import ArgumentParser

from django.core.management.base import BaseCommand, CommandError

from digi.django import conf

HELP = "keys new: a secret; keys rotate: what to set, in two steps; keys legacy: what opens the links of a classic chat"


def add_arguments(parser: ArgumentParser) -> None:
    """The arguments."""
    parser.add_argument("what", choices=["new", "rotate", "legacy"])


def run(command: BaseCommand, what: str) -> None:
    """Says what to write into the settings, and changes nothing."""
    config = conf.get()
    if what == "new":
        command.stdout.write(secrets.token_urlsafe(48))
    elif what == "rotate":
        command.stdout.write(_rotation(config))
    elif not config.legacy_fernet:
        raise CommandError(
            "DIGI['LEGACY_FERNET'] is not set: list there the Fernet keys with which the classic chat encrypts ids"
        )
    else:
        number, emit = len(config.legacy_fernet), config.emit
        command.stdout.write(
            f"Tokens of {number} Fernet key{'s' if number > 1 else ''} open. New ones are sealed as "
            + ("the classic chat seals them, for workers that still run it." if emit == "fernet" else "Digi's own.")
        )


def _rotation(config: conf.Config) -> str:
    if config.keys is None:
        return (
            "Ids are sealed with SECRET_KEY. To change it, put the old one into SECRET_KEY_FALLBACKS: links that were "
            "handed out go on opening, and new ones are sealed with the new key. To keep the two apart, set "
            "DIGI['KEYS'] = {1: <a secret>} (`manage.py digi keys new` makes one)."
        )
    used = sorted(config.keys)
    free = next(number for number in range(1, 257) if number not in used)
    if free > 255:
        raise CommandError("all key ids from 1 to 255 are in use: remove those whose links no longer matter")
    seals = used[0] if config.seal_with is None else config.seal_with
    return (
        f"1. Everywhere, add the new secret to DIGI['KEYS'] under {free}, and set DIGI['SEAL_WITH'] = {seals}, the one "
        f"that seals now.\n"
        f"2. When every process has that, set DIGI['SEAL_WITH'] = {free} everywhere.\n"
        "Links of before go on opening until their key is removed. Tokens of messages change with step 2: pages with "
        "the classic script have to be reloaded then, digi.js knows messages by their places."
    )
