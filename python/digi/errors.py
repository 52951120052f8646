"""What Digi raises: one tree below `DigiError`, one code each out of the table in docs/errors.md."""

from __future__ import annotations


class DigiError(Exception):
    """Anything that Digi refuses or cannot do.

    `code` is the stable name and `number` the stable number out of the one table of error codes; `detail` says, for a
    person, what was wrong in this case and what to do.
    """

    code: str
    number: int
    detail: str

    def __init__(self, detail: str = "", *, code: str = "internal", number: int = 199) -> None:
        super().__init__(detail)
        self.code = code
        self.number = number
        self.detail = detail

    def __reduce__(self) -> tuple[object, ...]:
        return _restore, (type(self), self.detail, self.code, self.number)

    def __str__(self) -> str:
        return f"{self.code}: {self.detail}"


class InputError(DigiError):
    """A frame, text, token, cursor or client id that is not as it has to be."""


class RefusedError(DigiError):
    """Understood, but not allowed or not possible: no member, not the sender, no such room, deleted, full, busy."""


class StoreError(DigiError):
    """The store could not do it. A store of one's own raises the classes below to say which case it is."""


class StoreUnavailableError(StoreError):
    """Not done; later it may work."""

    def __init__(self, detail: str = "", *, code: str = "store_unavailable", number: int = 140) -> None:
        super().__init__(detail, code=code, number=number)


class StoreUnknownError(StoreUnavailableError):
    """Perhaps done: the answer to the commit was lost. Raised by a store of one's own, never by Digi."""


class StoreRejectedError(StoreError):
    """Not done, and repeating it does not help."""

    def __init__(self, detail: str = "", *, code: str = "store_rejected", number: int = 141) -> None:
        super().__init__(detail, code=code, number=number)


class StoreFullError(StoreError):
    """Not done: no space left."""

    def __init__(self, detail: str = "", *, code: str = "store_full", number: int = 142) -> None:
        super().__init__(detail, code=code, number=number)


class NoSuchRoomError(RefusedError):
    """There is no such room."""

    def __init__(self, detail: str = "", *, code: str = "no_such_room", number: int = 125) -> None:
        super().__init__(detail, code=code, number=number)


class RoomExistsError(RefusedError):
    """There is a room with that id already."""

    def __init__(self, detail: str = "", *, code: str = "room_exists", number: int = 128) -> None:
        super().__init__(detail, code=code, number=number)


class ClosedError(DigiError):
    """The engine or session is closed, not open yet, or was made before a fork."""


class ConfigError(DigiError):
    """A setting, key, URL, schema or file that Digi cannot work with; the detail names it."""


class ConnectionRefusedByDigi(DigiError):
    """A connection was not taken: `number` is the WebSocket close code, `code` its reason."""

    @property
    def may_reconnect(self) -> bool:
        """Whether a client may try again."""
        return 1000 < self.number < 4500


_BY_NUMBER: dict[int, type[DigiError]] = {
    125: NoSuchRoomError,
    128: RoomExistsError,
    140: StoreUnavailableError,
    141: StoreRejectedError,
    142: StoreFullError,
}


def _class_of(number: int) -> type[DigiError]:
    if number >= 1000:
        return ConnectionRefusedByDigi
    known = _BY_NUMBER.get(number)
    if known is not None:
        return known
    ranges = ((100, InputError), (120, RefusedError), (140, StoreError), (150, ClosedError), (160, ConfigError))
    found: type[DigiError] = DigiError
    for lowest, kind in ranges:
        if number >= lowest:
            found = kind
    return DigiError if number >= 199 else found


def _restore(kind: type[DigiError], detail: str, code: str, number: int) -> DigiError:
    return kind(detail, code=code, number=number)


def _make(number: int, code: str, detail: str) -> DigiError:
    """What the Rust side raises."""
    return _class_of(number)(detail, code=code, number=number)
