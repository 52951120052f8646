import uuid
from typing import ClassVar

import django.db.models.deletion
import django.utils.timezone
from django.db import migrations, models
from django.db.migrations.operations.base import Operation

import digi.django.fields
import django_store.project.models


class Migration(migrations.Migration):
    dependencies: ClassVar = [("project", "0001_initial")]

    operations: ClassVar[list[Operation]] = [
        migrations.CreateModel(
            name="Hall",
            fields=[
                ("id", models.UUIDField(default=uuid.uuid4, primary_key=True, serialize=False)),
            ],
        ),
        migrations.CreateModel(
            name="GreatHall",
            fields=[
                (
                    "hall_ptr",
                    models.OneToOneField(
                        auto_created=True,
                        on_delete=django.db.models.deletion.CASCADE,
                        parent_link=True,
                        primary_key=True,
                        serialize=False,
                        to="project.hall",
                    ),
                ),
            ],
            bases=("project.hall",),
        ),
        migrations.CreateModel(
            name="Topic",
            fields=[
                (
                    "name",
                    models.CharField(
                        default=django_store.project.models.word, max_length=100, primary_key=True, serialize=False
                    ),
                ),
            ],
        ),
        migrations.CreateModel(
            name="Call",
            fields=[
                ("id", models.UUIDField(default=uuid.uuid4, primary_key=True, serialize=False)),
                ("author", digi.django.fields.ExactTextField()),
                ("text", digi.django.fields.ExactTextField()),
                ("called", models.DateTimeField(default=django.utils.timezone.now)),
                ("hall", models.ForeignKey(on_delete=django.db.models.deletion.CASCADE, to="project.hall")),
            ],
        ),
        migrations.CreateModel(
            name="HallMember",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("person", digi.django.fields.ExactCharField(max_length=191)),
                ("is_moderator", models.IntegerField(default=0)),
                ("hall", models.ForeignKey(on_delete=django.db.models.deletion.CASCADE, to="project.hall")),
            ],
        ),
        migrations.CreateModel(
            name="Note",
            fields=[
                (
                    "slug",
                    models.SlugField(
                        default=django_store.project.models.word, max_length=60, primary_key=True, serialize=False
                    ),
                ),
                ("author", digi.django.fields.ExactTextField()),
                ("text", digi.django.fields.ExactTextField()),
                ("circle", models.ForeignKey(on_delete=django.db.models.deletion.CASCADE, to="project.circle")),
            ],
        ),
        migrations.CreateModel(
            name="Remark",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("author", digi.django.fields.ExactTextField()),
                ("text", digi.django.fields.ExactTextField()),
                ("topic", models.ForeignKey(on_delete=django.db.models.deletion.CASCADE, to="project.topic")),
            ],
        ),
        migrations.CreateModel(
            name="TopicMember",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("person", digi.django.fields.ExactCharField(max_length=191)),
                ("is_moderator", models.IntegerField(default=0)),
                ("topic", models.ForeignKey(on_delete=django.db.models.deletion.CASCADE, to="project.topic")),
            ],
        ),
    ]
