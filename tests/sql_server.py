"""The SQL Server that `DIGI_MSSQL_URL` names, as Django's tests use it.

As a program: waits until the server answers and makes the database of the URL if it is not there.
"""

import os
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from secrets import token_hex
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import mssql_python

# A database that a connection is kept of can't be dropped.
mssql_python.pooling(enabled=False)

#: Seconds that a server that is being started may take.
PATIENCE = 180
NOT_TESTED = "SQL Server: DIGI_MSSQL_URL is not set"
_ENCRYPT = {"off": "no", "required": "yes", "strict": "strict"}


def url() -> str | None:
    """Where the server is; None: there is none to test with."""
    return os.environ.get("DIGI_MSSQL_URL") or None


def entry(url: str, name: str | None = None) -> dict[str, Any]:
    """The entry of DATABASES for a URL of Digi's, perhaps with another database."""
    parts = urlsplit(url)
    query = {key: values[-1] for key, values in parse_qs(parts.query).items()}
    encrypt = _ENCRYPT[query.get("encrypt", "required")]
    # Microsoft's driver looks for authorities where the system keeps them, and nowhere else.
    trust = "yes" if query.get("trust_cert") == "true" or "trust_ca" in query else "no"
    return {
        "ENGINE": "mssql",
        "HOST": parts.hostname or "",
        "PORT": str(parts.port or ""),
        "USER": unquote(parts.username or ""),
        "PASSWORD": unquote(parts.password or ""),
        "NAME": name or unquote(parts.path.removeprefix("/")),
        "OPTIONS": {
            "python_driver": "mssql_python",
            "extra_params": f"Encrypt={encrypt};TrustServerCertificate={trust}",
        },
    }


def connect(entry: Mapping[str, Any], name: str) -> mssql_python.Connection:
    """A connection without transactions to a database of the entry's server."""
    server = ",".join(filter(None, (entry["HOST"], entry["PORT"])))
    user, password, name = (f"{{{text.replace('}', '}}')}}}" for text in (entry["USER"], entry["PASSWORD"], name))
    return mssql_python.connect(
        f"SERVER={server};UID={user};PWD={password};DATABASE={name};{entry['OPTIONS']['extra_params']}",
        autocommit=True,
    )


@contextmanager
def database(url: str) -> Iterator[dict[str, Any]]:
    """A database of a test's own, as an entry of DATABASES."""
    name = f"digi_{token_hex(6)}"
    with closing(connect(entry(url), "master")) as connection, closing(connection.cursor()) as cursor:
        make(cursor, name)
        try:
            yield entry(url, name)
        finally:
            # Whoever still has a connection loses it; where there is no such statement, DROP DATABASE does that.
            with suppress(mssql_python.Error):
                cursor.execute(f"ALTER DATABASE {name} SET SINGLE_USER WITH ROLLBACK IMMEDIATE")
            cursor.execute(f"DROP DATABASE {name}")


def make(cursor: mssql_python.Cursor, name: str) -> None:
    """Makes a database in which who reads waits for nobody who writes, unless it is there."""
    quoted = f"[{name.replace(']', ']]')}]"
    asked = "SELECT is_read_committed_snapshot_on FROM sys.databases WHERE name = ?"
    if not cursor.execute(asked, name).fetchall():
        cursor.execute(f"CREATE DATABASE {quoted}")
    [(is_on,)] = cursor.execute(asked, name).fetchall()
    if not is_on:
        cursor.execute(f"ALTER DATABASE {quoted} SET READ_COMMITTED_SNAPSHOT ON WITH ROLLBACK IMMEDIATE")


def prepare(url: str) -> None:
    """Waits for the server, and makes the database if it is missing."""
    wanted = entry(url)
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            connection = connect(wanted, "master")
            break
        except mssql_python.Error as error:
            if time.monotonic() > deadline:
                sys.exit(f"SQL Server does not answer: {error}")
            time.sleep(1)
    with closing(connection), closing(connection.cursor()) as cursor:
        make(cursor, wanted["NAME"])
        [(version,)] = cursor.execute("SELECT @@VERSION").fetchall()
        print(str(version).splitlines()[0])


if __name__ == "__main__":
    prepare(url() or sys.exit(NOT_TESTED))
