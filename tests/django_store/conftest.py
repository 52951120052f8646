"""Databases for the tests: a SQLite file of its own for each, and one PostgreSQL server for all."""

import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import django
import pytest

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "django_store.settings")
django.setup()

from django.core.management import call_command  # noqa: E402
from django.db import connections  # noqa: E402

from digi.django.schema import TABLES  # noqa: E402

POSTGRES = sorted(Path("/usr/lib/postgresql").glob("*/bin"))


@pytest.fixture(scope="session")
def migrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A SQLite file with the project's tables."""
    path = tmp_path_factory.mktemp("sqlite") / "template.db"
    use_file(path)
    call_command("migrate", verbosity=0)
    connections["default"].close()
    return path


def use_file(path: Path) -> None:
    """Points the default database at a file."""
    connections["default"].close()
    connections.settings["default"]["NAME"] = str(path)
    del connections["default"]


@pytest.fixture
def sqlite(migrated: Path, tmp_path: Path) -> Iterator[str]:
    """The alias of a fresh, migrated SQLite database."""
    path = tmp_path / "project.db"
    shutil.copy(migrated, path)
    use_file(path)
    yield "default"
    connections["default"].close()


@pytest.fixture(scope="session")
def postgresql_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """The port of a PostgreSQL server, with the project's tables in its database."""
    if not POSTGRES:
        pytest.skip("there is no PostgreSQL: install Debian's package postgresql")
    root = tmp_path_factory.mktemp("postgresql")
    for parent in (root, *root.parents[:3]):
        parent.chmod(parent.stat().st_mode | 0o055)
    data = root / "data"
    data.mkdir()
    shutil.chown(data, "postgres")
    as_postgres = ["runuser", "-u", "postgres", "--"] if os.geteuid() == 0 else []
    tools = POSTGRES[-1]
    subprocess.run([*as_postgres, tools / "initdb", "-A", "trust", "-E", "UTF8", data], check=True, capture_output=True)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    options = f"-p {port} -k {data} -c fsync=off -c listen_addresses=127.0.0.1"
    control = [*as_postgres, tools / "pg_ctl", "-D", data, "-w"]
    subprocess.run([*control, "-l", data / "log", "-o", options, "start"], check=True, stdout=subprocess.DEVNULL)
    try:
        subprocess.run([tools / "createdb", "-h", "127.0.0.1", "-p", str(port), "-U", "postgres", "digi"], check=True)
        connections.settings["postgresql"] |= {"HOST": "127.0.0.1", "PORT": port}
        call_command("migrate", database="postgresql", verbosity=0)
        yield port
    finally:
        connections["postgresql"].close()
        subprocess.run([*control, "-m", "immediate", "stop"], check=True, stdout=subprocess.DEVNULL)


@pytest.fixture
def postgresql(postgresql_server: int) -> Iterator[str]:
    """The alias of an empty PostgreSQL database."""
    with connections["postgresql"].cursor() as cursor:
        cursor.execute(f"TRUNCATE {', '.join(TABLES)}")
    yield "postgresql"
    connections["postgresql"].close()


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest) -> str:
    """The alias of an empty database, one of each kind."""
    alias: str = request.getfixturevalue(request.param)
    return alias
