"""`manage.py digi serve`: the chat's WebSockets in a process of their own."""

from __future__ import annotations

import sys
from argparse import SUPPRESS, ArgumentParser

from django.core.management.base import BaseCommand, CommandError

from digi.django import conf, serving

HELP = "serve the chat's WebSockets in a process of their own"


def add_arguments(parser: ArgumentParser) -> None:
    """The arguments."""
    parser.add_argument("--bind", default="127.0.0.1:9001", help="address and port (default: %(default)s)")
    parser.add_argument("--workers", type=int, default=1, help="processes that share the port (default: 1)")
    parser.add_argument("--worker", action="store_true", help=SUPPRESS)


def run(command: BaseCommand, bind: str, workers: int, worker: bool) -> None:
    """Serves until SIGTERM or SIGINT."""

    def say(text: str) -> None:
        command.stdout.write(text)
        command.stdout.flush()

    if workers < 1:
        raise CommandError("--workers: one or more")
    if worker or workers == 1:
        serving.run(bind, say, reuse_port=worker)
        return
    if conf.get().layer == "local:":
        raise CommandError("several workers need a channel layer between them: DIGI['LAYER'] = \"redis://…\"")
    sys.exit(serving.run_workers(workers, [sys.executable, *sys.argv, "--worker"]))
