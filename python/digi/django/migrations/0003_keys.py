"""UUIDs and texts as the keys of the project's own rooms and messages."""

from __future__ import annotations

from typing import ClassVar

from django.db import migrations, models
from django.db.migrations.operations.base import Operation

import digi.django.fields


class Migration(migrations.Migration):
    """Makes the table of the rooms' numbers, and the log's column for the messages' keys."""

    dependencies: ClassVar[list[tuple[str, str]]] = [("digi", "0002_log_post")]
    operations: ClassVar[list[Operation]] = [
        migrations.CreateModel(
            name="RoomKey",
            fields=[
                ("host_key", digi.django.fields.ExactCharField(max_length=255, primary_key=True, serialize=False)),
                ("room_id", models.BigIntegerField(unique=True)),
            ],
            options={"db_table": "digi_room_key"},
        ),
        migrations.AddField(
            model_name="log",
            name="message_key",
            field=digi.django.fields.ExactCharField(max_length=255, null=True),
        ),
        migrations.AddIndex(
            model_name="log",
            index=models.Index(fields=["message_key"], name="digi_log_message_key"),
        ),
    ]
