"""The setting `DIGI`, a dict. Every key is optional.

`STORE` is `"orm"` (the project's own database), a URL (`"sqlite:/srv/chat.db"`, `"mssql://user:password@host/name"`,
`"memory:"`), or the dotted path of a function or class that gives a store.

| key | default | what it is |
|---|---|---|
| `STORE` | `"orm"` | where rooms are kept |
| `DATABASE` | `"default"` | for `"orm"`: which of DATABASES |
| `SQL_SERVER` | `{}` | for `"orm"` on SQL Server: parameters of the store's URL, such as `lanes` and `trust_ca` |
| `ROOM_MODEL`, `ROOM_NUMBERS`, `MEMBERS`, `MESSAGE_MODEL`, `FIELDS` | | for `"orm"`: the project's, see `mapping` |
| `LAYER` | `"local:"` | the channel layer's URL |
| `BRIDGE` | `None` | for workers that still run stock Channels: `True` for the layer in CHANNEL_LAYERS |
| `PRESENCE` | `False` | tell the members of a room who comes and goes |
| `LIMITS` | `{}` | bounds by name, see `digi.Engine.LIMITS` |
| `STRICT` | `False` | refuse frames that claim another user, instead of ignoring the claim |
| `KEYS` | out of `SECRET_KEY` and `SECRET_KEY_FALLBACKS` | secrets for tokens by key id (0 to 255) |
| `SEAL_WITH` | the only one of `KEYS` | the id of the key that seals |
| `LEGACY_FERNET` | `[]` | Fernet keys of a classic app, whose tokens then open too |
| `EMIT` | `"v1"` | `"fernet"` seals as the classic app did |
| `ROUTE` | `"/ws/chat/"` | what precedes the token in the path |
| `LOGIN_CHECK` | `60` | seconds between two looks whether those who are connected are still logged in; 0: none |
| `ADMIN_BODIES` | `False` | whether Django's admin shows what messages say |
| `ORIGINS` | `None` | pages that may connect; `None`: those of the host that the request is for |
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured

from digi._digi import Engine
from digi.django import bridge as to_stock
from digi.django import mapping, mssql, project_keys

_SQLITE = "django.db.backends.sqlite3"
_DOTTED = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)+")


@dataclass(frozen=True)
class Config:
    """The setting, read."""

    #: As a URL it may have a password in it.
    store: str = field(default="orm", repr=False)
    database: str = "default"
    sql_server: Mapping[str, str | int | bool] = field(default_factory=dict)
    room_model: str | None = None
    room_numbers: bool = False
    members: Sequence[str] | Mapping[str, str] | None = None
    message_model: str | None = None
    fields: Mapping[str, str] = field(default_factory=dict)
    layer: str = "local:"
    #: As a dict it may have passwords and keys in it.
    bridge: to_stock.Given = field(default=None, repr=False)
    presence: bool = False
    limits: Mapping[str, int] = field(default_factory=dict)
    strict: bool = False
    keys: Mapping[int, str | bytes] | None = None
    seal_with: int | None = None
    legacy_fernet: Sequence[str] = ()
    emit: Literal["v1", "fernet"] = "v1"
    route: str = "/ws/chat/"
    login_check: int = 60
    admin_bodies: bool = False
    origins: Sequence[str] | None = None


def get() -> Config:
    """The setting as it is now. Raises `ImproperlyConfigured`, naming the key."""
    for problem in problems():
        raise ImproperlyConfigured(problem)
    given = getattr(settings, "DIGI", {})
    config = Config(**{key.lower(): value for key, value in given.items()})
    if (found := mapped()) is not None and "DATABASE" not in given:
        return replace(config, database=found.database)
    return config


def mapped() -> mapping.Mapped | None:
    """The project's own models, where the setting names them."""
    return mapping.look_up(getattr(settings, "DIGI", {}))


def problems() -> Iterator[str]:
    """What is wrong with the setting, a sentence each."""
    given = getattr(settings, "DIGI", {})
    if not isinstance(given, dict):
        yield f"DIGI: a dict, not {_kind(given)}"
        return
    found = list(_key_problems(given)) or list(_mapping_problems(given))
    yield from found or _database_problems(given)


def _key_problems(given: Mapping[str, Any]) -> Iterator[str]:
    for key, value in given.items():
        test = _TESTS.get(key)
        if test is None:
            yield f"DIGI: there is no key {key!r}; there are {', '.join(_TESTS)}"
        elif (wanted := test(value)) is not None:
            yield f"DIGI[{key!r}]: {wanted}"
    keys, seal_with = given.get("KEYS"), given.get("SEAL_WITH")
    if seal_with is not None and not (isinstance(keys, dict) and seal_with in keys):
        yield "DIGI['SEAL_WITH']: one of the ids in KEYS"
    elif isinstance(keys, dict) and len(keys) > 1 and seal_with is None:
        yield "DIGI['SEAL_WITH']: with several KEYS it has to say which of them seals"


def _mapping_problems(given: Mapping[str, Any]) -> Iterator[str]:
    try:
        found = mapping.look_up(given)
    except ImproperlyConfigured as problem:
        yield str(problem)
        return
    if found is None:
        return
    if given.get("STORE", "orm") != "orm":
        yield "DIGI['STORE']: models of the project's own (MESSAGE_MODEL) need \"orm\""
    elif mssql.is_sql_server(given.get("DATABASE", found.database)):
        yield "DIGI['MESSAGE_MODEL']: on SQL Server Digi has its own tables only, not the project's"
    elif (clash := project_keys.problem(given, found.room_key, found.message_key)) is not None:
        yield clash


def _database_problems(given: Mapping[str, Any]) -> Iterator[str]:
    """What the store could not make of the database's own entry."""
    alias = given.get("DATABASE", Config.database)
    if given.get("STORE", "orm") == "orm" and mssql.is_sql_server(alias):
        try:
            mssql.store_url(alias, given.get("SQL_SERVER", {}))
        except ImproperlyConfigured as problem:
            yield str(problem)


def _kind(value: object) -> str:
    return type(value).__name__


def _is(type_: type, text: str) -> Callable[[Any], str | None]:
    return lambda value: None if isinstance(value, type_) else f"{text}, not {_kind(value)}"


def _texts(value: Any) -> bool:
    return isinstance(value, (list, tuple)) and all(isinstance(item, str) for item in value)


def _store(value: Any) -> str | None:
    if not isinstance(value, str):
        return f"a text, not {_kind(value)}"
    if value.startswith("sqlite:"):
        return _own_file(value)
    if value in ("orm", "memory:") or value.startswith("mssql://") or _DOTTED.fullmatch(value):
        return None
    # What was meant for a URL may have a password in it.
    shown = "a text with @ in it" if "@" in value else repr(value)
    return f'"orm", a URL (sqlite:path, mssql://…, memory:) or a dotted path, not {shown}'


def _own_file(url: str) -> str | None:
    path = Path(url.removeprefix("sqlite:").split("?")[0])
    for alias, database in settings.DATABASES.items():
        if database.get("ENGINE") == _SQLITE and _is_same(path, Path(str(database.get("NAME", "")))):
            return (
                f"{path} is the file of DATABASES[{alias!r}]. Django opens it with Python's copy of SQLite and Digi "
                "with its own; two copies in one process remove each other's file locks, and committed data is lost. "
                "Write \"orm\", which goes through Django's connections, or name a file of Digi's own"
            )
    return None


def _is_same(one: Path, other: Path) -> bool:
    try:
        return one.samefile(other)
    except OSError:
        return one.resolve() == other.resolve()


def _database(value: Any) -> str | None:
    if isinstance(value, str) and value in settings.DATABASES:
        return None
    return f"one of DATABASES ({', '.join(settings.DATABASES)}), not {value!r}"


def _sql_server(value: Any) -> str | None:
    wanted = "a dict of parameters of the store's URL (names, and texts, numbers, True or False)"
    if not isinstance(value, dict):
        return wanted
    fits = (isinstance(name, str) and isinstance(parameter, (str, int)) for name, parameter in value.items())
    return None if all(fits) else wanted


def _limits(value: Any) -> str | None:
    if not isinstance(value, dict):
        return f"a dict, not {_kind(value)}"
    for name, limit in value.items():
        if name not in Engine.LIMITS:
            return f"there is no limit {name!r}; there are {', '.join(sorted(Engine.LIMITS))}"
        if isinstance(limit, bool) or not isinstance(limit, int) or limit < 0:
            return f"{name}: a number, not {limit!r}"
    return None


def _keys(value: Any) -> str | None:
    wanted = "secrets (str or bytes) by key id (0 to 255)"
    if not isinstance(value, dict) or not value:
        return f"{wanted}, not {_kind(value)}"
    for key, secret in value.items():
        if isinstance(key, bool) or not isinstance(key, int) or not 0 <= key <= 255:
            return f"{wanted}: {key!r} is no id"
        if not isinstance(secret, (str, bytes)):
            return f"{wanted}: the secret of {key} is a {_kind(secret)}"
    return None


def _seal_with(value: Any) -> str | None:
    return None if isinstance(value, int) and not isinstance(value, bool) else f"the id of a key, not {_kind(value)}"


def _route(value: Any) -> str | None:
    if isinstance(value, str) and value.startswith("/") and value.endswith("/"):
        return None
    return f"a path that begins and ends with a slash, not {value!r}"


def _legacy_fernet(value: Any) -> str | None:
    return None if _texts(value) else "a list of Fernet keys"


def _emit(value: Any) -> str | None:
    return None if value in ("v1", "fernet") else f'"v1" or "fernet", not {value!r}'


def _login_check(value: Any) -> str | None:
    is_number = isinstance(value, int) and not isinstance(value, bool) and value >= 0
    return None if is_number else f"a number of seconds, or 0, not {value!r}"


def _origins(value: Any) -> str | None:
    return None if value is None or _texts(value) else "a list of origins (https://chat.example), or None"


_TESTS: dict[str, Callable[[Any], str | None]] = {
    "STORE": _store,
    "DATABASE": _database,
    "SQL_SERVER": _sql_server,
    # What they have to be depends on one another: `mapping` says it.
    **dict.fromkeys(mapping.KEYS, lambda _: None),
    "ROOM_NUMBERS": _is(bool, "True or False"),
    "LAYER": _is(str, "a URL"),
    "BRIDGE": to_stock.problem,
    "PRESENCE": _is(bool, "True or False"),
    "LIMITS": _limits,
    "STRICT": _is(bool, "True or False"),
    "KEYS": _keys,
    "SEAL_WITH": _seal_with,
    "LEGACY_FERNET": _legacy_fernet,
    "EMIT": _emit,
    "ROUTE": _route,
    "LOGIN_CHECK": _login_check,
    "ADMIN_BODIES": _is(bool, "True or False"),
    "ORIGINS": _origins,
}
