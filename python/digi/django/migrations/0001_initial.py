"""Digi's tables."""

from __future__ import annotations

from typing import ClassVar

from django.db import migrations, models
from django.db.migrations.operations.base import Operation

import digi.django.fields
from digi.django.schema import Tables


class Migration(migrations.Migration):
    """Makes the tables."""

    initial = True
    dependencies: ClassVar[list[tuple[str, str]]] = []
    operations: ClassVar[list[Operation]] = [
        Tables(
            [
                migrations.CreateModel(
                    name="Room",
                    fields=[
                        ("id", models.BigIntegerField(primary_key=True, serialize=False)),
                        ("name", digi.django.fields.ExactTextField()),
                        ("kind", digi.django.fields.ExactTextField()),
                        ("created_at", digi.django.fields.MillisField()),
                    ],
                    options={"db_table": "digi_room"},
                ),
                migrations.CreateModel(
                    name="Head",
                    fields=[
                        ("room_id", models.BigIntegerField(primary_key=True, serialize=False)),
                        ("epoch", models.BigIntegerField()),
                        ("last_seq", models.BigIntegerField()),
                        ("floor", models.BigIntegerField()),
                        ("last_at", digi.django.fields.MillisField()),
                    ],
                    options={"db_table": "digi_head"},
                ),
                migrations.CreateModel(
                    name="Member",
                    fields=[
                        (
                            "pk",
                            digi.django.fields.CompositePrimaryKey(
                                "room_id", "user_key", blank=True, editable=False, primary_key=True, serialize=False
                            ),
                        ),
                        ("room_id", models.BigIntegerField()),
                        ("user_key", digi.django.fields.ExactCharField(max_length=191)),
                        ("user_name", digi.django.fields.ExactTextField()),
                        ("role", models.BigIntegerField(choices=[(0, "Member"), (1, "Moderator")])),
                        ("read_seq", digi.django.fields.integer_from_zero()),
                        ("joined_at", digi.django.fields.MillisField()),
                    ],
                    options={"db_table": "digi_member"},
                ),
                migrations.CreateModel(
                    name="Message",
                    fields=[
                        ("id", models.BigIntegerField(primary_key=True, serialize=False)),
                        ("room_id", models.BigIntegerField()),
                        ("pos", models.BigIntegerField()),
                        ("sender_key", digi.django.fields.ExactCharField(max_length=191)),
                        ("sender_name", digi.django.fields.ExactTextField()),
                        ("client_id", digi.django.fields.ExactCharField(max_length=64, null=True)),
                        ("created_at", digi.django.fields.MillisField()),
                        ("edited_at", digi.django.fields.MillisField(null=True)),
                        ("deleted_at", digi.django.fields.MillisField(null=True)),
                        ("body", digi.django.fields.ExactTextField(null=True)),
                    ],
                    options={"db_table": "digi_message"},
                ),
                migrations.CreateModel(
                    name="Change",
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
                            models.BigIntegerField(choices=[(1, "Edited"), (2, "Deleted"), (3, "Joined"), (4, "Left")]),
                        ),
                        ("message_id", models.BigIntegerField(null=True)),
                        ("user_key", digi.django.fields.ExactCharField(max_length=191, null=True)),
                        ("at", digi.django.fields.MillisField()),
                    ],
                    options={"db_table": "digi_change"},
                ),
                migrations.CreateModel(
                    name="Batch",
                    fields=[
                        (
                            "pk",
                            digi.django.fields.CompositePrimaryKey(
                                "node", "number", blank=True, editable=False, primary_key=True, serialize=False
                            ),
                        ),
                        ("node", models.BigIntegerField()),
                        ("number", models.BigIntegerField()),
                        ("at", digi.django.fields.MillisField()),
                        ("outcomes", digi.django.fields.ExactTextField(null=True)),
                    ],
                    options={"db_table": "digi_batch"},
                ),
            ],
            versions={"sqlite": 2, "mssql": 1},
        ),
    ]
