"""One Django's part in a database that two use in turn: run as a program, each by a Python of its own.

python -m django_store.under '{"ENGINE": …, "NAME": …}' alice
"""

import json
import os
import sys
import time
from io import StringIO
from typing import Any

import django
from django.conf import settings


def main(entry: dict[str, Any], user: str) -> dict[str, Any]:
    """Does what a project does, and says what it has found and left."""
    os.environ["DJANGO_SETTINGS_MODULE"] = "django_store.settings"
    settings.DATABASES["default"] = entry
    django.setup()
    from django.core.management import call_command
    from django.db import connection

    from digi._digi import Batch, BatchId, Command
    from digi.django import rooms
    from digi.django.models import Change, Head, Member, Message
    from digi.django.schema import LOG_TABLE, POST_TABLE, TABLES
    from digi.django.store import OrmStore

    out = StringIO()
    call_command("migrate", "digi", stdout=out)
    call_command("makemigrations", "digi", check_changes=True, dry_run=True, verbosity=0)
    call_command("check", databases=["default"], stdout=StringIO())
    head = Head.objects.first()
    room = head.room_id if head else rooms.create_room([("0", "root")], name="Both")
    rooms.add_member(room, (user, user))
    store, now = OrmStore(), time.time_ns() // 1_000_000
    number = store.heads([room])[0][2]
    commands = [Command("add", room, user, user, body=f"from {user}")]
    if newest := Message.objects.order_by("-id").first():
        commands.append(Command("edit", room, newest.sender_key, "", message_id=newest.pk, body=f"{newest.body}!"))
    outcomes = store.apply(Batch(BatchId(1, number), commands, now=now)).outcomes
    own = Member.objects.get(pk=(room, user))
    own.role = 1
    own.save()
    with connection.cursor() as cursor:
        tables = {
            table: {
                "columns": [
                    [str(value) for value in (column.name, column.type_code, column.null_ok, column.default)]
                    for column in connection.introspection.get_table_description(cursor, table)
                ],
                "constraints": sorted(
                    [name, *map(str, (found["columns"], found["primary_key"], found["unique"], found["index"]))]
                    for name, found in connection.introspection.get_constraints(cursor, table).items()
                ),
            }
            for table in (*TABLES, LOG_TABLE, POST_TABLE)
        }
    return {
        "django": django.get_version(),
        "had nothing to migrate": "No migrations to apply" in out.getvalue(),
        "outcomes": [outcome.kind for outcome in outcomes],
        "members": sorted(Member.objects.values_list("user_key", "role", "read_seq")),
        "messages": list(Message.objects.order_by("id").values_list("body", flat=True)),
        "changes": Change.objects.count(),
        "tables": tables,
    }


if __name__ == "__main__":
    print(json.dumps(main(json.loads(sys.argv[1]), sys.argv[2])))
