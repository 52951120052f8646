"""`DIGI["BRIDGE"]`: the way to workers that run stock Channels, out of their `CHANNEL_LAYERS` (docs/bridge.md)."""

from __future__ import annotations

import ssl
from collections.abc import Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import parse_qsl, quote, urlencode

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured

Given = bool | str | Mapping[str, Any] | None

_FORMATS = {
    "channels_redis.core.RedisChannelLayer": "core",
    "channels_redis.pubsub.RedisPubSubChannelLayer": "pubsub",
}
#: Which speaks one of them, too.
_DIGIS = "digi.channels.DigiChannelLayer"
_KEYS = ("format", "group", "hosts", "prefix", "symmetric_encryption_keys", "capacity", "expiry", "group_expiry")
#: Files for TLS, by redis-py's names.
_FILES = {"ssl_ca_certs": "ca", "ssl_certfile": "cert", "ssl_keyfile": "key"}
#: What belongs to a stock process alone.
_NOT_NEEDED = ("channel_capacity", "on_disconnect", "on_reconnect")
#: What belongs to the format, and can't be chosen.
_FIXED = {"serializer_format": "msgpack", "random_prefix_length": 12}


def options(given: Given) -> dict[str, Any] | None:
    """What the engine is told. Raises `ImproperlyConfigured`."""
    if given is None or given is False:
        return None
    if isinstance(given, str):
        given = {"format": given}
    wanted = _stock() if given is True or "format" not in given else {}
    wanted |= {} if given is True else given
    for problem in _problems(wanted):
        raise ImproperlyConfigured(f"DIGI['BRIDGE']: {problem}")
    found = {key: wanted[key] for key in _KEYS if wanted.get(key) is not None}
    return found | ({"hosts": [_url(host) for host in found["hosts"]]} if "hosts" in found else {})


def problem(given: object) -> str | None:
    """What is wrong with the value, if anything."""
    if not (given is None or isinstance(given, (bool, str, dict))):
        return f'True, "pubsub", "core", or a dict, not {type(given).__name__}'
    try:
        options(given)
    except ImproperlyConfigured as error:
        return str(error).removeprefix("DIGI['BRIDGE']: ")
    return None


def _stock() -> dict[str, Any]:
    """The layer that the project's own consumers have."""
    layer = getattr(settings, "CHANNEL_LAYERS", {}).get("default", {})
    backend = layer.get("BACKEND")
    if backend == _DIGIS and layer.get("CONFIG", {}).get("hosts"):
        return dict(layer["CONFIG"])
    if backend not in _FORMATS:
        raise ImproperlyConfigured(
            f"DIGI['BRIDGE']: CHANNEL_LAYERS['default']['BACKEND'] is {backend!r}, and none of {', '.join(_FORMATS)}. "
            'Name the layer of the stock workers by a dict with "format" ("core" or "pubsub") and what their CONFIG has'
        )
    return {"format": _FORMATS[backend], **layer.get("CONFIG", {})}


def _problems(wanted: Mapping[str, Any]) -> Iterator[str]:
    for key, value in wanted.items():
        if key in _FIXED and value != _FIXED[key]:
            yield f"{key} is {_FIXED[key]!r} on the bridge, and has to be so in the stock workers"
        elif key not in (*_KEYS, *_NOT_NEEDED, *_FIXED):
            yield f"there is no {key!r}; there are {', '.join(_KEYS)}"
    if wanted["format"] not in _FORMATS.values():
        yield f'the format is "pubsub" or "core", not {wanted["format"]!r}'
    for key in ("hosts", "symmetric_encryption_keys"):
        if wanted.get(key) is not None and not isinstance(wanted[key], (list, tuple)):
            yield f"{key}: a list"
            return
    yield from _host_problems(wanted.get("hosts") or ())


def _host_problems(hosts: object) -> Iterator[str]:
    if not isinstance(hosts, (list, tuple)):
        yield "hosts: a list"
        return
    for number, host in enumerate(hosts, 1):
        fits = isinstance(host, str) or (isinstance(host, (list, tuple)) and len(host) == 2) or _is_known(host)
        if not fits:
            # Not shown: it may have a password in it.
            yield (
                f"host {number}: a URL (redis://… or rediss://…), a pair of host and port, or a dict with `address`, "
                "or with `host`, `port`, `db`, `username` and `password`; Sentinels are not spoken to"
            )
        elif (is_checked := _query(host).get("ssl_cert_reqs", "required")) not in ("required", ssl.CERT_REQUIRED):
            yield (
                f"host {number}: ssl_cert_reqs is {is_checked!r}, but the certificate is always checked. Name the "
                "authority that signed it by ssl_ca_certs, a file in PEM"
            )


def _is_known(host: object) -> bool:
    if not isinstance(host, dict):
        return False
    if "address" in host:
        return isinstance(host["address"], str) and host.keys() <= {"address", "ssl_cert_reqs", *_FILES}
    return "host" in host and host.keys() <= {"host", "port", "db", "username", "password"}


def _query(host: Any) -> dict[str, Any]:
    """What stands behind the ? of a URL, or beside the address in a dict."""
    if isinstance(host, str):
        return dict(parse_qsl(host.partition("?")[2], keep_blank_values=True))
    if not isinstance(host, dict) or "address" not in host:
        return {}
    # To redis-py, a file that is None is one that is not given.
    beside = {name: value for name, value in host.items() if name != "address" and (name not in _FILES or value)}
    return _query(host["address"]) | beside


def urls(hosts: Sequence[Any]) -> list[str]:
    """Redis servers as channels_redis takes them, as URLs. Raises `ImproperlyConfigured`."""
    for problem in _host_problems(hosts):
        raise ImproperlyConfigured(problem)
    return [_url(host) for host in hosts]


def _url(host: Any) -> str:
    """A host as channels_redis takes it, as a URL."""
    if isinstance(host, str) or (isinstance(host, dict) and "address" in host):
        address, given = host if isinstance(host, str) else str(host["address"]), _query(host)
        if given.keys().isdisjoint((*_FILES, "ssl_cert_reqs")):
            # As it is: what is wrong with it is said by who reads it, without what may be a password.
            return address
        files = {_FILES.get(name, name): value for name, value in given.items() if name != "ssl_cert_reqs"}
        return f"{address.partition('?')[0]}{'?' if files else ''}{urlencode(files, safe='/', quote_via=quote)}"
    if not isinstance(host, dict):
        host = {"host": host[0], "port": host[1]}
    name, port, db = str(host["host"]), host.get("port", 6379), host.get("db", 0)
    login = ""
    if host.get("password"):
        login = f"{quote(host.get('username') or '', safe='')}:{quote(host['password'], safe='')}@"
    return f"redis://{login}{f'[{name}]' if ':' in name else name}:{port}/{db}"
