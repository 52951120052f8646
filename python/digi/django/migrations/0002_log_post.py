"""The log beside messages in a table of the project's own, and what waits for a transaction of the project's."""

from __future__ import annotations

from typing import ClassVar

from django.db import migrations, models
from django.db.migrations.operations.base import Operation

import digi.django.fields


class Migration(migrations.Migration):
    """Makes the tables; the log stays empty where the messages are in Digi's own."""

    dependencies: ClassVar[list[tuple[str, str]]] = [("digi", "0001_initial")]
    operations: ClassVar[list[Operation]] = [
        migrations.CreateModel(
            name="Log",
            fields=[
                (
                    "pk",
                    digi.django.fields.CompositePrimaryKey(
                        "room_id", "seq", blank=True, editable=False, primary_key=True, serialize=False
                    ),
                ),
                ("room_id", models.BigIntegerField()),
                ("seq", models.BigIntegerField()),
                (
                    "kind",
                    models.BigIntegerField(
                        choices=[
                            (0, "Added"),
                            (1, "Edited"),
                            (2, "Deleted"),
                            (3, "Joined"),
                            (4, "Left"),
                            (5, "Adopted"),
                        ]
                    ),
                ),
                ("message_id", models.BigIntegerField(null=True)),
                ("pos", models.BigIntegerField(null=True)),
                ("user_key", digi.django.fields.ExactCharField(max_length=191, null=True)),
                ("sender_name", digi.django.fields.ExactTextField(null=True)),
                ("client_id", digi.django.fields.ExactCharField(max_length=64, null=True)),
                ("at", digi.django.fields.MillisField()),
            ],
            options={
                "db_table": "digi_log",
                "indexes": [models.Index(fields=["message_id"], name="digi_log_message")],
            },
        ),
        migrations.CreateModel(
            name="Post",
            fields=[
                ("op_id", digi.django.fields.ExactCharField(max_length=32, primary_key=True, serialize=False)),
                ("at", digi.django.fields.MillisField()),
                ("operation", digi.django.fields.ExactTextField()),
            ],
            options={"db_table": "digi_post"},
        ),
    ]
