"""What is particular about SQL Server: rooms are kept there by Digi's native store, in the database that Django uses.

The store has connections of its own, apart from Django's. Where they lead, the entry of `DATABASES` says; here it
becomes the URL of the store. `DIGI["SQL_SERVER"]` has what such an entry has no words for.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from ipaddress import AddressValueError, IPv6Address
from typing import Any, NamedTuple
from urllib.parse import quote, urlencode

from django.core.exceptions import ImproperlyConfigured
from django.db import DatabaseError, connections
from django.db.backends.base.base import BaseDatabaseWrapper

VENDOR = "microsoft"
#: Where the tables are, unless `DIGI["SQL_SERVER"]["schema"]` says otherwise.
SCHEMA = "dbo"

#: name=value; pairs as ODBC writes them: a value in braces may hold anything, with its closing braces doubled.
_PAIR = re.compile(r"([^=;]+)=\s*(?:\{((?:[^}]|\}\})*)\}|([^;]*))")
_ENCRYPT = {
    "yes": "required",
    "mandatory": "required",
    "true": "required",
    "no": "off",
    "optional": "off",
    "false": "off",
    "strict": "strict",
}
#: What Django's driver would take from `extra_params`, and where Digi looks for it.
_ELSEWHERE = {
    "server": "HOST",
    "address": "HOST",
    "addr": "HOST",
    "uid": "USER",
    "pwd": "PASSWORD",
    "database": "NAME",
}


class StoreUrl(str):
    """A URL with a password in it. Tracebacks, debug pages and error mails show what `repr` gives, which is not it."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "<the URL of a store>"


class _WrongError(Exception):
    """What is wrong with an entry of `DATABASES`."""


def is_sql_server(alias: str) -> bool:
    """Whether a database of the project is one. Opens no connection."""
    return connections[alias].vendor == VENDOR


def store_url(alias: str, parameters: Mapping[str, str | int | bool]) -> StoreUrl:
    """The native store's URL for a database of the project; `parameters` come before what its entry says.

    Raises `ImproperlyConfigured`, naming the key.
    """
    try:
        return _url(connections[alias].settings_dict, parameters)
    except _WrongError as wrong:
        raise ImproperlyConfigured(f"DATABASES[{alias!r}]: Digi's store for SQL Server {wrong}") from None


def _url(entry: Mapping[str, Any], parameters: Mapping[str, str | int | bool]) -> StoreUrl:
    options: Mapping[str, Any] = entry.get("OPTIONS") or {}
    extra = _pairs(str(options.get("extra_params") or ""))
    if options.get("dsn"):
        raise _WrongError("knows no data sources (OPTIONS['dsn']): name the server in HOST and PORT")
    for name, key in _ELSEWHERE.items():
        if name in extra:
            raise _WrongError(f"looks for {name} in {key}, not in OPTIONS['extra_params']")
    user, password, name = (str(entry.get(key) or "") for key in ("USER", "PASSWORD", "NAME"))
    if not name:
        raise _WrongError("has to know the database: set NAME")
    _refuse_other_logins(entry, extra, user and password)
    address = _address(str(entry.get("HOST") or ""), str(entry.get("PORT") or ""))
    given = {key: _text(value) for key, value in parameters.items()}
    given = _encryption(extra, given) | given
    user, password, name = (quote(text, safe="") for text in (user, password, name))
    return StoreUrl(f"mssql://{user}:{password}@{address}/{name}?{urlencode(given, quote_via=quote)}")


def _pairs(text: str) -> dict[str, str]:
    # Of a name that comes twice, ODBC takes the first.
    pairs: dict[str, str] = {}
    for name, braced, plain in _PAIR.findall(text):
        pairs.setdefault(name.strip().lower(), braced.replace("}}", "}") or plain.strip())
    return pairs


def _refuse_other_logins(entry: Mapping[str, Any], extra: Mapping[str, str], login: str) -> None:
    if entry.get("TOKEN"):
        raise _WrongError("logs in with USER and PASSWORD, not with a TOKEN of Entra ID")
    authentication = extra.get("authentication", "")
    if authentication.lower() not in ("", "sqlpassword"):
        raise _WrongError(f"logs in with USER and PASSWORD, not with Authentication={authentication}")
    if not login or extra.get("trusted_connection", "no").lower() in ("yes", "true"):
        raise _WrongError("logs in with USER and PASSWORD, not as the process's Windows or Kerberos user: set both")
    if extra.get("applicationintent", "").lower() == "readonly":
        raise _WrongError("has to write, which ApplicationIntent=ReadOnly does not allow")


def _encryption(extra: Mapping[str, str], given: Mapping[str, str]) -> dict[str, str]:
    # As in Microsoft's driver 18: encrypted, and the certificate looked at, unless it is said otherwise.
    wanted = extra.get("encrypt", "yes")
    encrypt = given.get("encrypt", _ENCRYPT.get(wanted.lower()))
    if encrypt is None:
        raise _WrongError(f"knows Encrypt=yes, no and strict, not {wanted!r}")
    for name in ("hostnameincertificate", "servercertificate"):
        if name in extra:
            raise _WrongError(
                f"knows no {name}: name the server in HOST as in its certificate, and give the authority that signed "
                "it, if the system does not know it, in DIGI['SQL_SERVER']['trust_ca']"
            )
    if "trust_ca" in given:
        # More than Django's driver can do, which may have to be told to trust everybody.
        return {"encrypt": encrypt}
    trusts = extra.get("trustservercertificate", "no").lower() in ("yes", "true")
    # As in that driver: with strict encryption the certificate is always looked at, without any never.
    trusts = encrypt == "off" or (trusts and encrypt == "required")
    return {"encrypt": encrypt} | ({"trust_cert": "true"} if trusts else {})


def _address(host: str, port: str) -> str:
    """HOST as ODBC takes it: `host`, `host,port`, `tcp:host,port`, `host\\instance`."""
    protocol, colon, rest = host.partition(":")
    if colon and protocol.lower() in ("tcp", "np", "lpc", "admin"):
        if protocol.lower() != "tcp":
            raise _WrongError(f"connects over TCP only, not over {protocol}:")
        host = rest
    host, comma, behind = (part.strip() for part in host.partition(","))
    if comma and port and behind != port:
        raise _WrongError(f"finds two ports, {behind} in HOST and {port} in PORT")
    port = port or behind
    host, _, instance = host.partition("\\")
    if instance and not port:
        raise _WrongError(
            f"does not ask SQL Server Browser where the instance {instance} listens: give the instance a fixed port "
            "and name that in PORT"
        )
    if port and not (re.fullmatch("[0-9]{1,5}", port) and 0 < int(port) < 2**16):
        raise _WrongError(f"needs a number from 1 to 65535 in PORT, not {port!r}")
    return _host(host) + (f":{port}" if port else "")


def _host(host: str) -> str:
    if host.lower() in ("", ".", "(local)"):
        return "localhost"
    try:
        return f"[{IPv6Address(host.removeprefix('[').removesuffix(']'))}]"
    except AddressValueError:
        return quote(host, safe="")


def _text(value: str | int | bool) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def schema_of(parameters: Mapping[str, str | int | bool]) -> str:
    """The schema that Digi's tables are in."""
    return str(parameters.get("schema", SCHEMA))


def quoted(name: str) -> str:
    """A name as T-SQL takes it."""
    return f"[{name.replace(']', ']]')}]"


class Database(NamedTuple):
    """What a database says of itself."""

    name: str
    #: READ_COMMITTED_SNAPSHOT: who reads waits for nobody who writes.
    has_snapshots: bool
    #: It comes with a compatibility level of 130.
    has_openjson: bool
    #: Where names without a schema are looked for first.
    default_schema: str


def ask(connection: BaseDatabaseWrapper) -> Database:
    """Asks the database that a connection leads to."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT name, is_read_committed_snapshot_on, SCHEMA_NAME() FROM sys.databases WHERE name = DB_NAME()"
        )
        [(name, snapshots, schema)] = cursor.fetchall()
        try:
            cursor.execute("SELECT value FROM OPENJSON(N'[]')")
            has_openjson = not cursor.fetchall()
        except DatabaseError:
            has_openjson = False
    return Database(name, bool(snapshots), has_openjson, schema)
