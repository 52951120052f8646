"""`manage.py digi`."""

from __future__ import annotations

import sys
import time
from argparse import SUPPRESS
from typing import Any

from django.conf import settings
from django.contrib.auth import get_user_model
from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import transaction

from digi.django import conf, serving
from digi.django.engine import get_cipher, make_engine
from digi.django.models import Room
from digi.django.mssql import is_sql_server
from digi.django.rooms import Someone, create_room
from digi.django.store import OrmStore

PASSWORD = "digi-demo"
USERS = ("alice", "bob")
KIND = "demo"
#: How many rooms are numbered in one transaction.
ROOMS_AT_ONCE = 50
#: Who is in which room; the first one moderates it.
ROOMS = {"Alice and Bob": ("alice", "bob"), "Team": ("bob", "alice"), "Alice's notes": ("alice",)}


class Command(BaseCommand):
    """What an operator does with Digi."""

    help = "Digi: a demo, and what to do with old messages and after a restore"

    def add_arguments(self, parser: CommandParser) -> None:
        """One subcommand each."""
        commands = parser.add_subparsers(dest="subcommand", required=True, metavar="subcommand")
        demo = commands.add_parser("demo", help=f"make users {' and '.join(USERS)} and some rooms, if they are missing")
        demo.add_argument("--force", action="store_true", help="also when DEBUG is off: the password is well known")
        serve = commands.add_parser("serve", help="serve the chat's WebSockets in a process of their own")
        serve.add_argument("--bind", default="127.0.0.1:9001", help="address and port (default: %(default)s)")
        serve.add_argument("--workers", type=int, default=1, help="processes that share the port (default: 1)")
        serve.add_argument("--worker", action="store_true", help=SUPPRESS)
        commands.add_parser("adopt", help="number all messages of the project's own table that have no number yet")
        commands.add_parser("restored", help="to be run once after a backup was restored: raises every room's epoch")

    def handle(self, *_: Any, subcommand: str, **options: Any) -> None:
        """Run the subcommand."""
        if subcommand == "demo":
            self._demo(force=options["force"])
        elif subcommand == "serve":
            self._serve(**{name: options[name] for name in ("bind", "workers", "worker")})
        elif subcommand == "adopt":
            self._adopt()
        else:
            self._restored()

    def _demo(self, force: bool) -> None:
        if not (settings.DEBUG or force):
            raise CommandError("DEBUG is off, and the demo's password is well known: say --force if you mean it")
        if conf.get().store != "orm" or conf.mapped() is not None:
            raise CommandError("the demo's rooms are made in Digi's own tables in the project's database")
        with transaction.atomic():
            users = {name: self._user(name) for name in USERS}
            made = {room.name: room.pk for room in Room.objects.using(conf.get().database).filter(kind=KIND)}
            for name, members in ROOMS.items():
                if name not in made:
                    people = [users[member] for member in members]
                    first: Someone = (str(people[0].pk), people[0].get_username(), "moderator")
                    made[name] = create_room([first, *people[1:]], name=name, kind=KIND)
        self.stdout.write(f"Log in as {' or '.join(USERS)} with the password {PASSWORD}")
        for name in ROOMS:
            self.stdout.write(f"{name}: {conf.get().route}{get_cipher().seal('room', made[name])}/")

    def _user(self, name: str) -> Any:
        model: Any = get_user_model()
        found = model._default_manager.filter(**{model.USERNAME_FIELD: name}).first()
        return found or model._default_manager.create_user(**{model.USERNAME_FIELD: name, "password": PASSWORD})

    def _serve(self, bind: str, workers: int, worker: bool) -> None:
        if workers < 1:
            raise CommandError("--workers: one or more")
        if worker or workers == 1:
            serving.run(bind, self._say, reuse_port=worker)
            return
        if conf.get().layer == "local:":
            raise CommandError("several workers need a channel layer between them: DIGI['LAYER'] = \"redis://…\"")
        sys.exit(serving.run_workers(workers, [sys.executable, *sys.argv, "--worker"]))

    def _say(self, text: str) -> None:
        self.stdout.write(text)
        self.stdout.flush()

    def _adopt(self) -> None:
        config, mapped = conf.get(), conf.mapped()
        if mapped is None:
            raise CommandError("DIGI['MESSAGE_MODEL'] is not set: Digi's own table has nothing to adopt")
        store, count, last = OrmStore(config.database, mapped), 0, 0
        rooms = mapped.room_model._base_manager.using(config.database).order_by("pk").values_list("pk", flat=True)
        while some := list(rooms.filter(pk__gt=last)[:ROOMS_AT_ONCE]):
            count += store.number(some)
            last = some[-1]
        self.stdout.write(f"{count} messages have got their numbers.")

    def _restored(self) -> None:
        config = conf.get()
        if config.store == "orm" and not is_sql_server(config.database):
            OrmStore(config.database, conf.mapped()).raise_all(time.time_ns() // 1_000_000)
        else:
            with make_engine() as engine:
                engine.restored().result()
        self.stdout.write("Every room has a new epoch; clients load their rooms anew.")
