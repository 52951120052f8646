"""The setting `DIGI`, and what is made of it."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from django.core.exceptions import ImproperlyConfigured
from django.db import connections
from django.template import Context, Template
from django.test import override_settings

import digi
from digi.django import bridge, checks, conf
from digi.django.engine import get_cipher, get_engine, make_engine
from digi.django.store import OrmStore
from django_store.conftest import use_file
from django_store.toy import ToyStore

SECRET = "a secret of at least thirty-two bytes"


@pytest.mark.usefixtures("sqlite")
def test_there_is_a_default_for_everything() -> None:
    assert conf.get() == conf.Config()
    assert checks.check_settings() == []
    assert get_cipher().open("room", get_cipher().seal("room", 7)) == 7


@pytest.mark.parametrize(
    ("setting", "text"),
    [
        ([], "DIGI: a dict, not list"),
        ({"STROE": "orm"}, "DIGI: there is no key 'STROE'; there are STORE, "),
        ({"store": "orm"}, "there is no key 'store'"),
        ({"STORE": 7}, "DIGI['STORE']: a text, not int"),
        ({"STORE": "mysql://host/db"}, "DIGI['STORE']: \"orm\", a URL"),
        ({"DATABASE": "other"}, "DATABASES (default, postgresql, mariadb, sql_server), not 'other'"),
        ({"SQL_SERVER": "lanes=8"}, "DIGI['SQL_SERVER']: a dict of parameters"),
        ({"SQL_SERVER": {"lanes": None}}, "DIGI['SQL_SERVER']: a dict of parameters"),
        ({"LAYER": None}, "DIGI['LAYER']: a URL, not NoneType"),
        ({"BRIDGE": 7}, 'DIGI[\'BRIDGE\']: True, "pubsub", "core", or a dict, not int'),
        ({"BRIDGE": True}, "DIGI['BRIDGE']: CHANNEL_LAYERS['default']['BACKEND'] is None"),
        ({"BRIDGE": "redis"}, "DIGI['BRIDGE']: the format is \"pubsub\" or \"core\", not 'redis'"),
        ({"BRIDGE": {"format": "core", "HOSTS": []}}, "DIGI['BRIDGE']: there is no 'HOSTS'; there are format, "),
        ({"BRIDGE": {"format": "core", "hosts": "redis://a"}}, "DIGI['BRIDGE']: hosts: a list"),
        ({"BRIDGE": {"format": "core", "hosts": [{"sentinels": []}]}}, "DIGI['BRIDGE']: host 1: a URL"),
        ({"BRIDGE": {"format": "core", "serializer_format": "json"}}, "serializer_format is 'msgpack' on the bridge"),
        ({"LIMITS": 5}, "DIGI['LIMITS']: a dict"),
        ({"LIMITS": {"no_such": 5}}, "DIGI['LIMITS']: there is no limit 'no_such'"),
        ({"STRICT": "yes"}, "DIGI['STRICT']: True or False, not str"),
        ({"KEYS": SECRET}, "DIGI['KEYS']: secrets (str or bytes) by key id (0 to 255), not str"),
        ({"KEYS": {"1": SECRET}}, "'1' is no id"),
        ({"KEYS": {1: None}}, "the secret of 1 is a NoneType"),
        ({"KEYS": {1: SECRET, 2: SECRET + "2"}}, "DIGI['SEAL_WITH']: with several KEYS"),
        ({"KEYS": {1: SECRET}, "SEAL_WITH": 2}, "DIGI['SEAL_WITH']: one of the ids in KEYS"),
        ({"LEGACY_FERNET": "key"}, "DIGI['LEGACY_FERNET']: a list"),
        ({"EMIT": "v2"}, "DIGI['EMIT']: \"v1\" or \"fernet\", not 'v2'"),
        ({"ROUTE": "ws"}, "DIGI['ROUTE']: a path that begins and ends with a slash, not 'ws'"),
        ({"ORIGINS": "https://chat.example"}, "DIGI['ORIGINS']: a list of origins"),
    ],
)
def test_what_is_wrong_is_named(setting: object, text: str) -> None:
    with override_settings(DIGI=setting):
        with pytest.raises(ImproperlyConfigured) as raised:
            conf.get()
        assert text in str(raised.value)
        [error] = checks.check_settings()
        assert text in error.msg


STOCK = {
    "BACKEND": "channels_redis.core.RedisChannelLayer",
    "CONFIG": {
        "hosts": [
            "redis://:p%40@a/1",
            ("b", 6380),
            {"address": "rediss://c", "ssl_ca_certs": "/a b.pem", "ssl_cert_reqs": "required"},
            {"host": "::1", "password": "p@", "db": 2},
        ],
        "symmetric_encryption_keys": ["first", b"second"],
        "channel_capacity": {"http.request": 200},
    },
}


def test_the_bridge_is_made_of_what_stock_consumers_have() -> None:
    wanted = {
        "format": "core",
        "hosts": ["redis://:p%40@a/1", "redis://b:6380/0", "rediss://c?ca=/a%20b.pem", "redis://:p%40@[::1]:6379/2"],
        "symmetric_encryption_keys": ["first", b"second"],
    }
    with override_settings(CHANNEL_LAYERS={"default": STOCK}):
        for given, changed in ((True, {}), ({}, {}), ({"group": "room_{room}"}, {"group": "room_{room}"})):
            with override_settings(DIGI={"BRIDGE": given}):
                assert bridge.options(conf.get().bridge) == wanted | changed
        assert bridge.options({"format": "pubsub"}) == bridge.options("pubsub") == {"format": "pubsub"}
    assert bridge.options(None) is bridge.options(False) is None


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("rediss://a?ca=/x+y.pem", "rediss://a?ca=/x+y.pem"),
        ("redis://:a?b@c", "redis://:a?b@c"),
        ("rediss://a?ssl_ca_certs=/x%2By.pem&ssl_cert_reqs=required", "rediss://a?ca=/x%2By.pem"),
        ({"address": "rediss://a", "ssl_ca_certs": None, "ssl_certfile": None}, "rediss://a"),
    ],
)
def test_files_for_tls_have_the_bridges_names(host: object, url: str) -> None:
    assert bridge.urls([host]) == [url]


def test_an_engine_gets_the_bridge_of_the_setting(sqlite: str) -> None:
    with override_settings(CHANNEL_LAYERS={"default": STOCK}, DIGI={"BRIDGE": True}):
        assert checks.check_settings() == []
        assert "second" not in repr(conf.get())
        stock = STOCK | {"CONFIG": {"hosts": ["redis://:hush@127.0.0.1:1"], "capacity": 7}}
        with override_settings(CHANNEL_LAYERS={"default": stock}), make_engine() as engine:
            assert engine.stats()["bridge_up"] == 0, sqlite
    with override_settings(DIGI={}), make_engine() as engine:
        assert engine.stats()["bridge_up"] == 1


def test_a_short_key_is_found_by_the_checks() -> None:
    with override_settings(DIGI={"KEYS": {1: "short"}}):
        [error] = checks.check_settings()
        assert error.id == "digi.E002"
        assert "short" not in error.msg.removeprefix("DIGI: the keys cannot be used: ").split()


def test_keys_are_rotated() -> None:
    with override_settings(DIGI={"KEYS": {1: SECRET}}):
        old = get_cipher().seal("room", 7)
    with override_settings(DIGI={"KEYS": {1: SECRET, 2: SECRET + " two"}, "SEAL_WITH": 2}):
        assert get_cipher().open("room", old) == 7
        assert get_cipher().seal("room", 7) != old
    with override_settings(SECRET_KEY=SECRET * 2, SECRET_KEY_FALLBACKS=[SECRET]):
        assert get_cipher().open("room", get_cipher().seal("room", 8)) == 8


def test_the_tag_gives_a_token() -> None:
    page = Template("{% load digi %}{% room_token 7 %}").render(Context())
    assert get_cipher().open("room", page) == 7


@pytest.fixture
def linked(sqlite: str, tmp_path: Path) -> Path:
    link = tmp_path / "link.db"
    link.symlink_to(connections[sqlite].settings_dict["NAME"])
    return link


def test_a_second_copy_of_sqlite_on_one_file_is_refused(sqlite: str, linked: Path, tmp_path: Path) -> None:
    for name in (connections[sqlite].settings_dict["NAME"], str(linked), os.path.relpath(linked)):
        setting = {"STORE": f"sqlite:{name}?readers=2"}
        with override_settings(DIGI=setting), pytest.raises(ImproperlyConfigured, match="is the file of DATABASES"):
            make_engine()
    with override_settings(DIGI={"STORE": f"sqlite:{tmp_path / 'digi.db'}"}), make_engine() as engine:
        assert engine.create_room([]).result() == 1


def test_a_native_store_sees_what_slipped_through(sqlite: str) -> None:
    """The file is open in this process, by whatever name."""
    connections[sqlite].ensure_connection()
    engine = digi.Engine(SECRET, f"sqlite:{connections[sqlite].settings_dict['NAME']}")
    with pytest.raises(digi.ConfigError) as raised:
        engine.open().result()
    assert raised.value.code == "file_in_use"


MADE: list[ToyStore] = []


def make_store() -> ToyStore:
    MADE.append(ToyStore())
    return MADE[-1]


def test_a_store_is_named_by_its_path() -> None:
    with override_settings(DIGI={"STORE": f"{__name__}.make_store"}), make_engine() as engine:
        room = engine.create_room([("7", "alice", "member")]).result()
        engine.post(room, "7", "alice", "hello").result()
    assert len(MADE[-1].tables["messages"]) == 1


@pytest.fixture
def fresh() -> Iterator[None]:
    with override_settings(DIGI={}):
        yield


@pytest.mark.usefixtures("fresh")
def test_a_process_has_one_engine_and_a_child_its_own(sqlite: str) -> None:
    engine = get_engine()
    assert get_engine() is engine
    engine.open().result()
    connections[sqlite].close()
    child = os.fork()
    if child == 0:
        ok = 1
        try:
            own = get_engine()
            if own is not engine:
                own.open().result()
                own.create_room([], id=5).result()
                own.close().result()
                ok = 0
        finally:
            sys.stdout.flush()
            os._exit(ok)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert engine.history(5).result() == []
    engine.close().result()


def test_an_engine_on_the_projects_database(database: str) -> None:
    with override_settings(DIGI={"DATABASE": database}), make_engine() as engine:
        room = engine.create_room([("7", "alice", "member")], name="Room").result()
        first: Any = engine.post(room, "7", "alice", "hello").result()
        engine.edit(room, "7", "alice", first.message_id, "hello, all").result()
        assert [message.body for message in engine.history(room).result()] == ["hello, all"]
        engine.restored().result()
    store = OrmStore(database)
    assert [seq for _, _, seq in store.heads([room])] == [2]


@pytest.mark.usefixtures("sqlite")
def test_an_engine_without_tables_says_what_to_do(tmp_path: Path) -> None:
    use_file(tmp_path / "empty.db")
    with override_settings(DIGI={}), pytest.raises(digi.ConfigError, match=r"run `manage\.py migrate`"):
        make_engine().open().result()
