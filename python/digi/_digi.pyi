"""The Rust side of Digi: thin classes over digi-core. Import everything from `digi` instead."""

from collections.abc import Awaitable, Callable, Generator, Mapping, Sequence
from types import TracebackType
from typing import Any, Generic, Literal, TypeAlias, TypeVar, final

from typing_extensions import Self

from digi.store import Store

__version__: str

T = TypeVar("T", covariant=True)
Kind: TypeAlias = Literal["room", "message"]
Role: TypeAlias = Literal["member", "moderator"]
Member: TypeAlias = tuple[str, str, Role]

@final
class Pending(Generic[T]):
    """Something under way: `await` it, or call `result()` where no event loop runs.

    It has begun when you get it. Await it once. A cancelled await gives up waiting and nothing else: a message that
    was posted is stored all the same, frames stay for the next call, and a session that nobody got is closed.
    """

    def __await__(self) -> Generator[Any, None, T]: ...
    def result(self, timeout: float | None = None) -> T:
        """Wait for it in a plain thread, at most `timeout` seconds (forever when None).

        Raises `TimeoutError`; it goes on, and may be asked again. Raises `RuntimeError` in a thread whose event loop is
        running: there, await it.
        """

@final
class TokenCipher:
    """Seals ids into tokens and opens them again (AES-256-GCM; the same id gives the same token).

    `TokenCipher("a secret of at least thirty-two bytes")` is enough. `keys` with explicit ids are for rotation:
    `TokenCipher(keys={1: old, 2: new}, seal_with=2)`; `django` takes `[SECRET_KEY, *SECRET_KEY_FALLBACKS]`;
    `legacy_fernet` the keys of a classic app, whose tokens then open too (for `legacy_kinds`, default rooms only), and
    are sealed with `emit="fernet"`. Secrets below 32 bytes are refused with `ConfigError`.

    >>> import digi
    >>> cipher = digi.TokenCipher("a secret of at least thirty-two bytes")
    >>> cipher.open("room", cipher.seal("room", 42))
    42
    """

    def __new__(
        cls,
        secret: str | bytes | None = None,
        *,
        keys: Mapping[int, str | bytes] | None = None,
        seal_with: int | None = None,
        django: Sequence[str] = (),
        legacy_fernet: Sequence[str] = (),
        legacy_kinds: Sequence[Kind] | None = None,
        emit: Literal["v1", "fernet"] = "v1",
    ) -> Self: ...
    def seal(self, kind: Kind, id: int) -> str:
        """The token of an id."""

    def open(self, kind: Kind, token: str) -> int:
        """The id in a token. Raises `InputError` (`bad_token`) for whatever reason it does not open."""

@final
class Engine:
    """A chat engine. `async with Engine(...) as engine:` opens and closes it; so does `with`, in a plain thread.

    `store` is `"memory:"`, `"sqlite:path"` or an object that follows `digi.Store`. `limits` changes bounds by name:
    see `Engine.LIMITS` for the names and their defaults. `strict` refuses frames that claim another user than the one
    logged in, instead of ignoring the claim.

    Its methods may be called from several event loops and from plain threads. After a fork the child's calls raise
    `ClosedError` (`engine_forked`); make an engine there.

    >>> import asyncio, digi
    >>> async def main() -> None:
    ...     async with digi.Engine("a secret of at least thirty-two bytes") as engine:
    ...         room = await engine.create_room([("7", "alice", "member")])
    ...         token = engine.cipher.seal("room", room)
    ...         async with await engine.connect(token, "7", "alice") as session:
    ...             await session.receive('{"message": "hello"}')
    ...             async for frames in session:
    ...                 if any("hello" in frame for frame in frames):
    ...                     print("heard")
    ...                     break
    >>> asyncio.run(main())
    heard
    """

    LIMITS: Mapping[str, int]
    def __new__(
        cls,
        cipher: TokenCipher | str | bytes,
        store: str | Store = "memory:",
        *,
        layer: str = "local:",
        strict: bool = False,
        limits: Mapping[str, int] | None = None,
    ) -> Self: ...
    def open(self) -> Pending[Engine]:
        """Open the store, migrate it and start; does nothing on an open engine. Raises `ConfigError`, `StoreError`."""

    def close(self) -> Pending[None]:
        """End in good order: take nothing new in, store and hand out what is queued, close the sessions with 1012."""

    def __aenter__(self) -> Pending[Engine]: ...
    def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> Pending[None]: ...
    def __enter__(self) -> Engine: ...
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...
    @property
    def cipher(self) -> TokenCipher:
        """What seals the room tokens that you hand out."""

    @property
    def is_open(self) -> bool:
        """Whether it takes calls."""

    def connect(
        self,
        token: str,
        user: str,
        user_name: str | None = None,
        *,
        after: str | None = None,
        origin: str | None = None,
        remote: str | None = None,
    ) -> Pending[Session]:
        """Take a connection in: the room's token out of its URL, the user out of its login.

        `user` is the immutable key, `user_name` what others see (default: the key), `after` the client's cursor. Raises
        `ConnectionRefusedByDigi` with the close code for the client.
        """

    def post(
        self, room: int, user: str, user_name: str, text: str, *, client_id: str | None = None, as_host: bool = False
    ) -> Pending[Outcome]:
        """Add a message in somebody's name; `as_host` skips the check of the membership.

        Done when it is committed. Raises `InputError`, `RefusedError`, `StoreError`.
        """

    def edit(
        self, room: int, user: str, user_name: str, message_id: int, text: str, *, as_host: bool = False
    ) -> Pending[Outcome]:
        """Replace the text of a message. Raises as `post`."""

    def delete(
        self, room: int, user: str, user_name: str, message_id: int, *, as_host: bool = False
    ) -> Pending[Outcome]:
        """Delete a message, leaving a tombstone. Raises as `post`."""

    def add_member(self, room: int, user: str, user_name: str, role: Role = "member") -> Pending[Outcome]:
        """Make a user a member of a room, or change the role. Raises as `post`."""

    def remove_member(self, room: int, user: str) -> Pending[Outcome]:
        """End a membership, and with it the user's sessions in the room. Raises as `post`."""

    def create_room(
        self, members: Sequence[Member] = (), *, name: str = "", kind: str = "", id: int | None = None
    ) -> Pending[int]:
        """Make a room with its first members (key, name, role); gives its id. Raises `RoomExistsError`, `StoreError`."""

    def history(self, room: int, before: int | None = None, limit: int = 50) -> Pending[list[Message]]:
        """The newest messages placed before `before` (or the newest of all), oldest first, tombstones included."""

    def kick(self, user: str) -> None:
        """Close every session of a user with 4504."""

    def restored(self) -> Pending[None]:
        """To be called once after a backup was restored: see docs/deployment.md."""

    def stats(self) -> dict[str, int]:
        """What the engine has done and has to do, by name."""

@final
class Session:
    """One connection, made by `Engine.connect`. Dropping it takes it out of its room.

    `async for frames in session:` (or `for`, in a plain thread) gives lists of JSON texts, everything that waits at
    once, until the session is closed; then `close_code` says why. Frames are for one reader.
    """

    def receive(self, text: str) -> Pending[None]:
        """Take in a text frame of the client. Waits while the engine has too much to store already.

        Whatever is wrong with the frame, the client is told. Raises `ClosedError` when nothing can be received.
        """

    def receive_binary(self) -> None:
        """The client sent a binary frame: it gets an `error` frame."""

    def frames(self) -> Pending[list[str]]:
        """Everything that waits for the client, at least one frame; an empty list once the session is closed.

        A cancelled await loses no frame.
        """

    def __aiter__(self) -> Self: ...
    def __anext__(self) -> Awaitable[list[str]]: ...
    def __iter__(self) -> Self: ...
    def __next__(self) -> list[str]: ...
    def close(self, code: int = 1000) -> None:
        """Close the session with a code out of docs/errors.md; frames that wait are still handed out."""

    def __aenter__(self) -> Pending[Session]: ...
    def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> Pending[None]: ...
    def __enter__(self) -> Session: ...
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...
    @property
    def user(self) -> str:
        """The key of the user who is connected."""

    @property
    def close_code(self) -> int | None:
        """The code with which the session was closed, if it was."""

    @property
    def close_reason(self) -> str | None:
        """The name of the close code."""

@final
class Message:
    """A message in its present state. Times are milliseconds since 1970-01-01T00:00:00Z."""

    def __new__(
        cls,
        *,
        id: int,
        room: int,
        pos: int,
        sender: str,
        sender_name: str,
        body: str | None,
        client_id: str | None,
        created_at: int,
        edited_at: int | None,
        deleted_at: int | None,
    ) -> Self: ...
    @property
    def id(self) -> int: ...
    @property
    def room(self) -> int: ...
    @property
    def pos(self) -> int:
        """Its place: the number of the change that added it."""

    @property
    def sender(self) -> str: ...
    @property
    def sender_name(self) -> str: ...
    @property
    def body(self) -> str | None:
        """The text; None when deleted."""

    @property
    def client_id(self) -> str | None: ...
    @property
    def created_at(self) -> int: ...
    @property
    def edited_at(self) -> int | None: ...
    @property
    def deleted_at(self) -> int | None: ...

@final
class Outcome:
    """What became of one command."""

    @property
    def kind(
        self,
    ) -> Literal["added", "edited", "deleted", "joined", "left", "duplicate", "unchanged", "refused"]: ...
    @property
    def seq(self) -> int | None:
        """The change's number in its room; None where nothing changed."""

    @property
    def epoch(self) -> int | None: ...
    @property
    def message_id(self) -> int | None:
        """Of the message that changed, or of the first one for a duplicate."""

    @property
    def pos(self) -> int | None: ...
    @property
    def message(self) -> Message | None:
        """The message after the change."""

    @property
    def user(self) -> str | None:
        """Whose membership changed."""

    @property
    def code(self) -> str | None:
        """Why it was refused."""

@final
class Handshake:
    """What an authenticator is asked about: the request that opens a WebSocket."""

    @property
    def path(self) -> str: ...
    @property
    def query(self) -> str: ...
    @property
    def headers(self) -> list[tuple[str, str]]:
        """Names in lower case, in the request's order; values as Latin-1."""

    @property
    def remote(self) -> str:
        """The socket's peer as `address:port`: behind a proxy, the proxy."""

    def header(self, name: str) -> str | None:
        """The first header with that name."""

    def cookies(self) -> dict[str, str]: ...

@final
class Origins:
    """Which web pages may open a connection; without the check a foreign page could use a visitor's cookie.

    `Origins()` lets in pages of the host that the request is for, `Origins([...])` those listed, as browsers write them
    (`https://chat.example`); `"*"` every page, which is safe only where no cookie logs anybody in.

    >>> import digi
    >>> digi.Origins().allow("https://chat.example", "chat.example")
    True
    >>> digi.Origins(["https://app.example"]).allow("https://evil.example", "chat.example")
    False
    """

    def __new__(cls, origins: Sequence[str] | None = None) -> Self: ...
    def allow(self, origin: str | None, host: str | None) -> bool:
        """Whether a request with these two headers may connect. No origin: no browser, and let through."""

@final
class Server:
    """A running WebSocket server, made by `serve`. `async with` (or `with`) shuts it down at the end."""

    @property
    def address(self) -> str:
        """Where it listens: `host:port`."""

    def shutdown(self) -> Pending[None]:
        """Close the engine and then the server: commit what is queued, close every session with 1012."""

    def __aenter__(self) -> Pending[Server]: ...
    def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> Pending[None]: ...
    def __enter__(self) -> Server: ...
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

Answer: TypeAlias = "tuple[str, str] | str | None"

def serve(
    engine: Engine,
    listen: str = "127.0.0.1:9001",
    *,
    authenticator: Callable[[Handshake], Answer | Awaitable[Answer]],
    route: str = "/ws/chat/",
    origins: Sequence[str] | None = None,
) -> Pending[Server]:
    """Serve WebSockets on `<route><room token>/` from Rust: no Python runs for a message.

    `authenticator` says who a connection is: the user's key, or `(key, name)`, or None for nobody. An `async def` is
    run on the event loop that `serve` was called on, a plain function in a thread. One that raises or takes longer than
    five seconds closes that connection with 4001, and the log says why. `origins` lists the pages that may connect
    (default: those of the host that the request is for).
    """
