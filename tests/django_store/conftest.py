"""Databases for the tests: a SQLite file of its own for each, and one server of each other kind for all."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import django
import pytest

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "django_store.settings")
django.setup()

from django.core.management import call_command  # noqa: E402
from django.db import connections  # noqa: E402
from django.test import override_settings  # noqa: E402

from digi.django.schema import LOG_TABLE, POST_TABLE, ROOM_KEY_TABLE, TABLES  # noqa: E402
from django_store import servers  # noqa: E402

#: No file: SQLite would make one wherever a test that has forgotten its fixture happens to run.
NOWHERE = Path(connections.settings["default"]["NAME"])
#: Digi's tables, and the project's with those first that lead to others.
EVERY_TABLE = (
    *TABLES,
    LOG_TABLE,
    POST_TABLE,
    ROOM_KEY_TABLE,
    *(f"project_{name}" for name in ("note", "post", "membership", "circle", "letter", "pair")),
    *(f"project_{name}" for name in ("call", "hallmember", "greathall", "hall", "remark", "topicmember", "topic")),
)

SERVERS = {"postgresql", "mariadb", "sql_server"}


def pytest_addoption(parser: pytest.Parser) -> None:
    """Only where these tests are run by themselves: pytest asks just the folders that it is given for options."""
    about = "leave out what needs another database than SQLite, but for these files: a.py,b.py"
    parser.addoption("--servers-only-for", metavar="FILES", help=about)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Does as `--servers-only-for` says."""
    files = config.getoption("--servers-only-for", None)
    if files is None:
        return
    spared = files.split(",")
    left_out = {item for item in items if item.path.name not in spared and databases_of(item) & SERVERS}
    config.hook.pytest_deselected(items=list(left_out))
    items[:] = [item for item in items if item not in left_out]


def databases_of(item: pytest.Item) -> set[str]:
    """By fixtures, and by what parametrizes them."""
    assert isinstance(item, pytest.Function)
    parameters = item.callspec.params.values() if hasattr(item, "callspec") else ()
    return {*item.fixturenames, *(value for value in parameters if isinstance(value, str))}


@pytest.fixture(scope="session")
def migrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A SQLite file with the project's tables."""
    path = tmp_path_factory.mktemp("sqlite") / "template.db"
    use_file(path)
    call_command("migrate", verbosity=0)
    use_file(NOWHERE)
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
    use_file(NOWHERE)


@pytest.fixture(scope="session")
def postgresql_server() -> Iterator[int]:
    """The port of a PostgreSQL server, with the project's tables in its database."""
    with servers.postgresql() as port:
        connections.settings["postgresql"] |= {"HOST": "127.0.0.1", "PORT": port}
        call_command("migrate", database="postgresql", verbosity=0)
        yield port
        connections["postgresql"].close()


@pytest.fixture
def postgresql(postgresql_server: int) -> Iterator[str]:
    """The alias of an empty PostgreSQL database."""
    assert connections["postgresql"].settings_dict["PORT"] == postgresql_server
    with connections["postgresql"].cursor() as cursor:
        cursor.execute(f"TRUNCATE {', '.join(EVERY_TABLE)}")
    yield "postgresql"
    connections["postgresql"].close()


@pytest.fixture(scope="session")
def mariadb_server() -> Iterator[Path]:
    """The socket of a MariaDB server, with the project's tables in its database."""
    with servers.mariadb() as path:
        connections.settings["mariadb"]["OPTIONS"]["unix_socket"] = str(path)
        call_command("migrate", database="mariadb", verbosity=0)
        yield path
        connections["mariadb"].close()


@pytest.fixture
def mariadb(mariadb_server: Path) -> Iterator[str]:
    """The alias of an empty MariaDB database."""
    assert mariadb_server.exists()
    with connections["mariadb"].cursor() as cursor:
        for table in EVERY_TABLE:
            cursor.execute(f"DELETE FROM {table}")
    yield "mariadb"
    connections["mariadb"].close()


@pytest.fixture(scope="session")
def sql_server_database() -> Iterator[str]:
    """A database of the tests' own on the server that `DIGI_MSSQL_URL` names, with the chat's tables in it."""
    import sql_server

    url = sql_server.url()
    if url is None:
        pytest.skip(sql_server.NOT_TESTED)
    with sql_server.database(url) as entry:
        connections["sql_server"].close()
        connections.settings["sql_server"] |= entry
        call_command("migrate", "digi", database="sql_server", verbosity=0)
        yield entry["NAME"]
        connections["sql_server"].close()


@pytest.fixture(name="sql_server")
def sql_server_alias(sql_server_database: str) -> Iterator[str]:
    """The alias of an empty SQL Server database."""
    assert connections["sql_server"].settings_dict["NAME"] == sql_server_database
    with connections["sql_server"].cursor() as cursor:
        for table in TABLES:
            cursor.execute(f"DELETE FROM {table}")
    with override_settings(DIGI={"DATABASE": "sql_server"}):
        yield "sql_server"
    connections["sql_server"].close()


@pytest.fixture(params=["sqlite", "postgresql", "mariadb"])
def database(request: pytest.FixtureRequest) -> str:
    """The alias of an empty database, one of each kind."""
    alias: str = request.getfixturevalue(request.param)
    return alias
