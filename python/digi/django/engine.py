"""The engine of a process, out of the settings."""

from __future__ import annotations

import os
import threading
from typing import Any, cast

from django.conf import settings
from django.core.signals import setting_changed
from django.utils.encoding import force_str
from django.utils.module_loading import import_string

from digi._digi import Engine, TokenCipher
from digi.django import bridge, conf, mssql, signals
from digi.django.store import OrmStore
from digi.store import Store


class _Process:
    """What there is once per process."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.engine: Engine | None = None
        self.cipher: TokenCipher | None = None


_process = _Process()


def _begin_anew(**_: Any) -> None:
    global _process
    _process = _Process()


def _on_setting(*, setting: str, **_: Any) -> None:
    if setting in ("DIGI", "DATABASES", "CHANNEL_LAYERS", "SECRET_KEY", "SECRET_KEY_FALLBACKS"):
        _begin_anew()


# The parent's threads are not there in a child, and its lock may have been held.
os.register_at_fork(after_in_child=_begin_anew)
setting_changed.connect(_on_setting, dispatch_uid="digi")


def get_cipher() -> TokenCipher:
    """What seals and opens tokens. Raises `ImproperlyConfigured`, `ConfigError`."""
    process = _process
    if process.cipher is None:
        config = conf.get()
        legacy, emit = config.legacy_fernet, config.emit
        if config.keys is None:
            secrets = [force_str(secret) for secret in (settings.SECRET_KEY, *settings.SECRET_KEY_FALLBACKS)]
            process.cipher = TokenCipher(django=secrets, legacy_fernet=legacy, emit=emit)
        else:
            seal_with = next(iter(config.keys)) if config.seal_with is None else config.seal_with
            process.cipher = TokenCipher(keys=config.keys, seal_with=seal_with, legacy_fernet=legacy, emit=emit)
    return process.cipher


def make_engine() -> Engine:
    """A new engine, not open yet. Most want `get_engine`."""
    config = conf.get()
    store: str | Store = config.store
    if config.store == "orm" and mssql.is_sql_server(config.database):
        store = mssql.store_url(config.database, config.sql_server)
    elif config.store == "orm":
        store = OrmStore(config.database, conf.mapped(), others_show=config.bridge is not None)
    elif ":" not in config.store:
        store = cast("Store", import_string(config.store)())
    engine = Engine(
        get_cipher(),
        store,
        layer=config.layer,
        bridge=bridge.options(config.bridge),
        presence=config.presence,
        strict=config.strict,
        limits=config.limits,
    )
    if isinstance(store, str):
        signals.watch(engine)
    return engine


def get_engine() -> Engine:
    """The engine of this process; a forked child gets one of its own.

    It may not be open: `await engine.open()`, or `engine.open().result()` in a plain thread, does nothing where it is.
    """
    process = _process
    with process.lock:
        if process.engine is None or process.engine.is_closed:
            process.engine = make_engine()
        return process.engine
