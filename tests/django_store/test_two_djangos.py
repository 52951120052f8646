"""A database that the oldest Django has migrated is the newest one's, and the other way round."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from django.db import connections

ROOT = Path(__file__).resolve().parents[2]
OLDEST = str(ROOT / ".venv-oldest" / "bin" / "python")


def empty_database(request: pytest.FixtureRequest, kind: str, name: str) -> dict[str, Any]:
    """Where it is, as an entry of DATABASES."""
    if kind == "sqlite":
        tmp_path: Path = request.getfixturevalue("tmp_path")
        return {"ENGINE": "django.db.backends.sqlite3", "NAME": str(tmp_path / f"{name}.db")}
    with connections[request.getfixturevalue(kind)].cursor() as cursor:
        cursor.execute(f"CREATE DATABASE {name}")
    return {**connections.settings[kind], "NAME": name}


def under(python: str, entry: dict[str, Any], user: str) -> dict[str, Any]:
    """What one of the two has done with a database, and found there."""
    command = [python, "-m", "django_store.under", json.dumps(entry), user]
    path = os.pathsep.join(filter(None, [str(ROOT / "tests"), os.environ.get("PYTHONPATH")]))
    environment = os.environ | {"PYTHONPATH": path}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.mark.parametrize("kind", ["sqlite", "postgresql", "mariadb"])
def test_a_database_is_used_by_both(request: pytest.FixtureRequest, kind: str) -> None:
    if not Path(OLDEST).exists():
        pytest.skip("there is no second Django: make .venv-oldest/.digi")
    tables = []
    for name, first, second in (("old_first", OLDEST, sys.executable), ("new_first", sys.executable, OLDEST)):
        entry = empty_database(request, kind, name)
        turns = [under(python, entry, str(user)) for user, python in enumerate((first, second, first), start=1)]
        assert turns[0]["django"] == turns[2]["django"] != turns[1]["django"]
        assert [turn["had nothing to migrate"] for turn in turns] == [False, True, True]
        assert [turn["outcomes"] for turn in turns] == [["added"], ["added", "edited"], ["added", "edited"]]
        assert turns[2]["messages"] == ["from 1!", "from 2!", "from 3"]
        assert turns[2]["members"] == [["0", 0, 0], ["1", 1, 0], ["2", 1, 0], ["3", 1, 0]]
        tables += [turn["tables"] for turn in turns]
    # Whoever has made them and whoever looks.
    assert all(seen == tables[0] for seen in tables)
