"""Digi: a chat engine in Rust. Messages are stored before anybody sees them, in one order for everybody.

Begin with `Engine`; `digi.asgi` puts one behind an ASGI server, `digi.django` into a Django project.
"""

from digi._digi import (
    Engine,
    Handshake,
    Message,
    Origins,
    Outcome,
    Pending,
    Server,
    Session,
    TokenCipher,
    __version__,
    serve,
)
from digi.errors import (
    ClosedError,
    ConfigError,
    ConnectionRefusedByDigi,
    DigiError,
    InputError,
    NoSuchRoomError,
    RefusedError,
    RoomExistsError,
    StoreError,
    StoreFullError,
    StoreRejectedError,
    StoreUnavailableError,
    StoreUnknownError,
)
from digi.store import Store

__all__ = [
    "ClosedError",
    "ConfigError",
    "ConnectionRefusedByDigi",
    "DigiError",
    "Engine",
    "Handshake",
    "InputError",
    "Message",
    "NoSuchRoomError",
    "Origins",
    "Outcome",
    "Pending",
    "RefusedError",
    "RoomExistsError",
    "Server",
    "Session",
    "Store",
    "StoreError",
    "StoreFullError",
    "StoreRejectedError",
    "StoreUnavailableError",
    "StoreUnknownError",
    "TokenCipher",
    "__version__",
    "serve",
]
