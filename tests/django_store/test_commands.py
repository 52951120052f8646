"""What an operator asks `manage.py digi` for."""

import io
import re
from pathlib import Path
from typing import Any

import pytest
from cryptography.fernet import Fernet
from django.core.management import CommandError, call_command
from django.test import override_settings

import digi
from digi.django.engine import get_cipher
from django_store.conftest import use_file
from redis_servers import redis_servers

KEY = Fernet.generate_key().decode()


def said(*words: str, **setting: Any) -> str:
    out = io.StringIO()
    with override_settings(DIGI=setting):
        call_command("digi", *words, stdout=out)
    return out.getvalue().strip()


def test_tokens() -> None:
    path = said("token", "room", "42")
    assert path.startswith("/ws/chat/")
    assert said("token", "room", path.split("/")[-2]) == "42"
    message = said("token", "message", "42")
    assert get_cipher().open("message", message) == 42
    with pytest.raises(CommandError, match="does not open as the token of a room"):
        said("token", "room", message)
    fernet = said("token", "room", "42", LEGACY_FERNET=[KEY], EMIT="fernet").split("/")[-2]
    assert fernet.startswith("Z0FBQUFB")
    # Both kinds lead into the same room.
    assert said("token", "room", fernet, LEGACY_FERNET=[KEY]) == "42"
    assert said("token", "room", path.split("/")[-2], LEGACY_FERNET=[KEY], EMIT="fernet") == "42"


def test_keys() -> None:
    new = said("keys", "new")
    assert digi.TokenCipher(new).open("room", digi.TokenCipher(new).seal("room", 7)) == 7
    assert new != said("keys", "new")
    assert "SECRET_KEY_FALLBACKS" in said("keys", "rotate")
    steps = said("keys", "rotate", KEYS={1: new, 2: new}, SEAL_WITH=2)
    assert re.search(r"under 3, and set DIGI\['SEAL_WITH'\] = 2.*\n2\..*SEAL_WITH'\] = 3", steps)
    with pytest.raises(CommandError, match="are in use"):
        said("keys", "rotate", KEYS=dict.fromkeys(range(1, 256), new), SEAL_WITH=1)
    with pytest.raises(CommandError, match="LEGACY_FERNET"):
        said("keys", "legacy")
    assert "Tokens of 1 Fernet key open. New ones are sealed as Digi's" in said("keys", "legacy", LEGACY_FERNET=[KEY])
    assert "classic chat seals them" in said("keys", "legacy", LEGACY_FERNET=[KEY, KEY], EMIT="fernet")


def examined(**setting: Any) -> tuple[str, str]:
    """What the doctor says, and the error that it ends with."""
    out = io.StringIO()
    error = ""
    with override_settings(DIGI=setting):
        try:
            call_command("digi", "doctor", stdout=out)
        except CommandError as failed:
            error = str(failed)
    return out.getvalue(), error


def test_the_doctor_finds_all_well(database: str, tmp_path: Path) -> None:
    with redis_servers(tmp_path, 1) as (redis,):
        stock = {"format": "core", "hosts": [redis.url]}
        found, error = examined(DATABASE=database, LAYER=redis.url, BRIDGE=stock)
    assert error == ""
    assert "WRONG" not in found
    lines = [
        "Digi's tables are there",
        "the engine opens",
        "LAYER: Redis can be reached",
        "BRIDGE: Redis can be reached",
    ]
    assert [line for line in lines if line not in found] == []
    assert ("clock: " in found) == (database != "default")


def test_the_doctor_finds_what_is_wrong(sqlite: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert sqlite == "default"
    assert "there is no key 'COLOUR'" in examined(COLOUR="red")[0]
    with override_settings(SECRET_KEY="short"):
        found, error = examined()
        assert "WRONG DIGI: the keys cannot be used" in found
        assert "have to be mended" in error
    monkeypatch.setattr("digi.django.commands.doctor.PATIENCE", 0.2)
    found, error = examined(LAYER="redis://127.0.0.1:1")
    assert "WRONG LAYER: Redis cannot be reached" in found
    assert error == "1 of these have to be mended."
    use_file(tmp_path / "empty.db")
    assert "migrations of digi are missing: run `manage.py migrate`" in examined()[0]
    use_file(tmp_path / "no such folder" / "file.db")
    assert "WRONG database 'default': OperationalError" in examined()[0]
