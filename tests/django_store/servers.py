"""Database servers of the tests' own, on throw-away data."""

import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

MARIADB = Path("/usr/sbin/mariadbd")
POSTGRES = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
IS_ROOT = os.geteuid() == 0


@contextmanager
def home_of(user: str) -> Iterator[Path]:
    """A directory of a user's own: the servers do not run as root, and pytest's directories are closed to others."""
    with TemporaryDirectory() as directory:
        if IS_ROOT:
            shutil.chown(directory, user)
        yield Path(directory)


@contextmanager
def postgresql() -> Iterator[int]:
    """A PostgreSQL server with an empty database `digi`: its port."""
    if not POSTGRES:
        pytest.skip("there is no PostgreSQL: install Debian's package postgresql")
    with home_of("postgres") as home:
        tools, data = POSTGRES[-1], home / "data"
        run_as: list[str | Path] = ["runuser", "-u", "postgres", "--"] if IS_ROOT else []
        initdb = [*run_as, tools / "initdb", "-U", "postgres", "-A", "trust", "-E", "UTF8", data]
        subprocess.run(initdb, cwd=home, check=True, capture_output=True)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        options = f"-p {port} -k {home} -c fsync=off -c listen_addresses=127.0.0.1"
        control: list[str | Path] = [*run_as, tools / "pg_ctl", "-D", data, "-w", "-l", home / "log"]
        subprocess.run([*control, "-o", options, "start"], cwd=home, check=True, stdout=subprocess.DEVNULL)
        try:
            create: list[str | Path] = [
                tools / "createdb",
                "-h",
                "127.0.0.1",
                "-p",
                str(port),
                "-U",
                "postgres",
                "digi",
            ]
            subprocess.run(create, check=True)
            yield port
        finally:
            stop = [*control, "-m", "immediate", "stop"]
            subprocess.run(stop, cwd=home, check=True, stdout=subprocess.DEVNULL)


@contextmanager
def mariadb() -> Iterator[Path]:
    """A MariaDB server with an empty database `digi`: its socket."""
    if not (find_spec("pymysql") and MARIADB.exists()):
        pytest.skip("there is no MariaDB: install Debian's package mariadb-server, and PyMySQL")
    with home_of("mysql") as home:
        data, path = home / "data", home / "socket"
        common = ["--no-defaults", f"--datadir={data}", *(["--user=mysql"] if IS_ROOT else [])]
        install = ["mariadb-install-db", *common, "--auth-root-authentication-method=normal", "--skip-test-db"]
        subprocess.run(install, check=True, capture_output=True)
        options = [f"--socket={path}", "--skip-networking", "--innodb-flush-log-at-trx-commit=0"]
        server = subprocess.Popen([MARIADB, *common, *options], stderr=subprocess.PIPE, text=True)
        try:
            # It says so in a line of its log, and little else: the pipe never fills.
            assert server.stderr is not None
            assert any("ready for connections" in line for line in server.stderr), "MariaDB did not start"
            client = ["mariadb", "--no-defaults", "--user=root", f"--socket={path}"]
            subprocess.run([*client, "-e", "CREATE DATABASE digi"], check=True)
            yield path
        finally:
            server.terminate()
            server.communicate()
