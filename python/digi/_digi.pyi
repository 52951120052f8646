"""The Rust side of Digi: thin classes over digi-core. Import everything from `digi` instead."""

from collections.abc import Awaitable, Callable, Generator, Mapping, Sequence
from types import GenericAlias, TracebackType
from typing import Any, Generic, Literal, TypeAlias, TypeVar, final

from typing_extensions import Self

from digi.store import Store
from digi.types import Identity, Kind, Member, Role

__all__ = [
    "Applied",
    "Batch",
    "BatchId",
    "ChangeRow",
    "Changes",
    "Command",
    "Engine",
    "Handshake",
    "Head",
    "History",
    "MemberAnswer",
    "Message",
    "NewRoom",
    "Origins",
    "Outcome",
    "Pending",
    "Plan",
    "Planner",
    "RedisLink",
    "Server",
    "Session",
    "Subject",
    "TokenCipher",
    "__version__",
    "run_store_test",
    "schema",
    "serve",
    "store_suite_tests",
]

__version__: str

_T_co = TypeVar("_T_co", covariant=True)

@final
class Pending(Generic[_T_co]):
    """Something under way: `await` it, or call `result()` where no event loop runs.

    It has begun when you get it (`frames()` alone begins when it is waited for). Await it once. A cancelled await gives
    up waiting and nothing else: a message that was posted is stored all the same, frames stay for the next call, and a
    session that nobody got is closed. What is under way at the same time may be done in any order: where the order
    matters, await one before you call the next.

    It is an awaitable, not a coroutine: where asyncio asks for a task, `asyncio.ensure_future(pending)` makes one.
    """

    def __class_getitem__(cls, key: Any) -> GenericAlias: ...
    def __iter__(self) -> Generator[Any, None, _T_co]: ...
    def __await__(self) -> Generator[Any, None, _T_co]: ...
    def result(self, timeout: float | None = None) -> _T_co:
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

    `store` is `"memory:"`, `"sqlite:path"`, `"mssql://user:password@host/database"` (docs/sql-server.md) or an object
    that follows `digi.Store`. `limits` changes bounds by name: see `Engine.LIMITS` for the names and their defaults.
    `presence` tells the members of a room who comes and goes (docs/protocol.md).
    `strict` refuses frames that claim another user than the one logged in, instead of ignoring the claim. `bridge`
    leads to stock Django Channels workers (docs/bridge.md): `"pubsub"`, `"core"`, or a mapping with `format` and what
    they have in their `CONFIG`: `hosts` (URLs), `prefix`, `symmetric_encryption_keys`, `capacity`, `expiry`,
    `group_expiry`; and `group`, the name of a room's group (`"chat_{room}"`).

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
        bridge: Literal["pubsub", "core"] | Mapping[str, object] | None = None,
        presence: bool = False,
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

    @property
    def is_closed(self) -> bool:
        """Whether `close` was called. It cannot be opened again."""

    def connect(
        self,
        token: str,
        user: str,
        user_name: str | None = None,
        *,
        after: str | None = None,
        origin: str | None = None,
        remote: str | None = None,
        login: str | None = None,
    ) -> Pending[Session]:
        """Take a connection in: the room's token out of its URL, the user out of its login.

        `user` is the immutable key, `user_name` what others see (default: the key), `after` the client's cursor,
        `login` by what `end_login` knows this log-in again. Raises `ConnectionRefusedByDigi` with the close code for
        the client.
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
        """Make a room with its first members (key, name, role); gives its id.

        Raises `RoomExistsError`, `StoreError`.
        """

    def history(self, room: int, before: int | None = None, limit: int = 50) -> Pending[list[Message]]:
        """The newest messages placed before `before` (or the newest of all), oldest first, tombstones included."""

    def kick(self, user: str) -> None:
        """Close every session of a user with 4504."""

    def end_login(self, user: str, login: str) -> None:
        """Close the sessions that a user has by one log-in with 4503, here and where the layer reaches."""

    def logins(self) -> list[tuple[str, str]]:
        """User and log-in of the sessions of this process that have one, each once."""

    def observe(self, observer: Callable[[list[tuple[int, Outcome]]], object]) -> None:
        """Have `observer` called with what this engine stores from now on: rooms, and what was changed in each.

        It is called in a thread of its own, once for all that has gathered, a room's changes in their order. The engine
        doesn't wait for it: what comes while 100,000 changes wait is left out, and the log says so. `close` and the end
        of the process wait up to ten seconds until it has heard of everything. An engine has one observer: a second
        call does nothing.
        """

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

    @staticmethod
    def changed(kind: Literal["added", "edited", "deleted"], epoch: int, seq: int, message: Message) -> Outcome:
        """A message changed, with number `seq`; `message` is its state after that."""

    @staticmethod
    def member(kind: Literal["joined", "left"], epoch: int, seq: int, user: str) -> Outcome:
        """A membership changed, with number `seq`."""

    @staticmethod
    def duplicate(message_id: int, pos: int) -> Outcome:
        """An `add` whose `client_id` was used; names the first message."""

    @staticmethod
    def unchanged() -> Outcome:
        """The command asked for what was so already."""

    @staticmethod
    def refused(code: str) -> Outcome:
        """Not done, and no number was used; `code` is a name out of docs/errors.md."""

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
class RedisLink:
    """A connection to Redis for the channel layer, kept up by itself; `waits`: for commands that wait.

    With `rediss://` the certificate is checked against the system's authorities, or that in the file `ca`; `cert` and
    `key` are files for Redis to see. Raises `ValueError` for a wrong URL or file; what is asked of it,
    `ConnectionError`.
    """

    def __new__(
        cls, url: str, *, waits: bool = False, ca: str | None = None, cert: str | None = None, key: str | None = None
    ) -> Self: ...
    def run(self, commands: Sequence[Sequence[bytes]]) -> Pending[list[Any]]:
        """The answers to commands, done one after the other; texts are bytes."""

    def submit(
        self, commands: Sequence[Sequence[bytes]], done: Callable[[list[Any] | None, Exception | None], None]
    ) -> None:
        """The same without waiting: the event loop that runs here calls `done` with the answers, or what went wrong."""

    def subscribe(self, channels: Sequence[str], take: Callable[[], None]) -> Pending[None]:
        """Hear what is published there, also after the connection was made anew.

        The event loop that runs here calls `take` from now on when something has come.
        """

    def unsubscribe(self, channels: Sequence[str]) -> Pending[None]: ...
    def take(self) -> list[tuple[bytes, bytes]]:
        """Channel and payload of what came since the last time, or of the first of it."""

    def is_left(self) -> Pending[None]:
        """Waits until something has come that no event loop takes."""

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

def serve(
    engine: Engine,
    listen: str = "127.0.0.1:9001",
    *,
    authenticator: Callable[[Handshake], Identity | Awaitable[Identity]],
    route: str = "/ws/chat/",
    origins: Sequence[str] | None = None,
    reuse_port: bool = False,
) -> Pending[Server]:
    """Serve WebSockets on `<route><room token>/` from Rust: no Python runs for a message.

    `authenticator` says who a connection is: the user's key, `(key, name)`, `(key, name, login)` with what
    `Engine.end_login` ends, or None for nobody. An `async def` is
    run on the event loop that `serve` was called on, a plain function in a thread. One that raises or takes longer than
    five seconds closes that connection with 4001, and the log says why. `origins` lists the pages that may connect
    (default: those of the host that the request is for). `reuse_port`: several processes listen on one address.
    """

_CommandKind: TypeAlias = Literal["add", "edit", "delete", "add_member", "remove_member"]
_HeadRow: TypeAlias = tuple[int, int, int, int, int]
"""room, epoch, last_seq, floor, last_at"""

@final
class BatchId:
    """The name of a batch, unique over all processes and time. Both numbers lie below 2^64."""

    def __new__(cls, node: int, number: int) -> Self: ...
    @property
    def node(self) -> int:
        """A random number of the process."""

    @property
    def number(self) -> int:
        """Counts the process's batches."""

    def __hash__(self) -> int: ...
    def __eq__(self, other: object, /) -> bool: ...

@final
class Command:
    """One change that somebody asks for. What its kind does not have is None."""

    def __new__(
        cls,
        kind: _CommandKind,
        room: int,
        user: str,
        user_name: str | None = None,
        *,
        is_host: bool = False,
        body: str | None = None,
        client_id: str | None = None,
        message_id: int | None = None,
        member: str | None = None,
        member_name: str | None = None,
        role: Role = "member",
    ) -> Self: ...
    @property
    def kind(self) -> _CommandKind: ...
    @property
    def room(self) -> int: ...
    @property
    def user(self) -> str:
        """The key of the acting user."""

    @property
    def user_name(self) -> str:
        """The name that is stored with an added message."""

    @property
    def is_host(self) -> bool:
        """Whether the host's rights count instead of the user's. Membership commands need them."""

    @property
    def body(self) -> str | None:
        """Of `add` and `edit`: the text."""

    @property
    def client_id(self) -> str | None:
        """Of `add`: what makes it idempotent per room and sender."""

    @property
    def message_id(self) -> int | None:
        """Of `edit` and `delete`."""

    @property
    def member(self) -> str | None:
        """Of `add_member` and `remove_member`: the user's key."""

    @property
    def member_name(self) -> str | None:
        """Of `add_member`."""

    @property
    def role(self) -> Role | None:
        """Of `add_member`."""

@final
class Batch:
    """What one transaction is to do."""

    def __new__(
        cls, id: BatchId, commands: Sequence[Command], *, now: int, known: Sequence[tuple[int, int, int]] = ()
    ) -> Self: ...
    @property
    def id(self) -> BatchId:
        """Makes repeating the batch after an unknown commit safe."""

    @property
    def commands(self) -> list[Command]:
        """In the order in which they take numbers."""

    @property
    def known(self) -> list[tuple[int, int, int]]:
        """Room, epoch and number: the highest that this process has seen of rooms that it has loaded."""

    @property
    def now(self) -> int:
        """The process's clock."""

    def __len__(self) -> int: ...

@final
class Applied:
    """What became of a batch whose transaction committed."""

    def __new__(cls, outcomes: Sequence[Outcome], heads: Sequence[tuple[int, int, int]]) -> Self: ...
    @property
    def outcomes(self) -> list[Outcome]:
        """One per command, in the batch's order."""

    @property
    def heads(self) -> list[tuple[int, int, int]]:
        """Room, epoch and last number after the transaction of every room of the batch, ascending."""

    def __eq__(self, other: object, /) -> bool: ...

@final
class Head:
    """The state of a room's numbering."""

    def __new__(cls, epoch: int, last_seq: int) -> Self: ...
    @property
    def epoch(self) -> int: ...
    @property
    def last_seq(self) -> int:
        """The number of the last change; 0 when there was none."""

    def __eq__(self, other: object, /) -> bool: ...

@final
class MemberAnswer:
    """A user's role, or None for no member, with the head that was read before it."""

    def __new__(cls, head: Head, role: Role | None = None) -> Self: ...
    @property
    def head(self) -> Head: ...
    @property
    def role(self) -> Role | None: ...

@final
class ChangeRow:
    """One row of `Changes`."""

    @staticmethod
    def changed(seq: int, message: Message) -> ChangeRow:
        """The present state of a message that changed; one row however often it did."""

    @staticmethod
    def adopted(seq: int, message: Message) -> ChangeRow:
        """The same of one that others had stored, and shown to whom they could, before it got its number.

        Pages that know the classic frames alone are not shown it again.
        """

    @staticmethod
    def member(seq: int, kind: Literal["joined", "left"], user: str) -> ChangeRow:
        """A membership change; each has its row."""

    @property
    def seq(self) -> int:
        """The number of the last of the changes that this row stands for."""

    @property
    def kind(self) -> Literal["message", "joined", "left"]: ...
    @property
    def message(self) -> Message | None: ...
    @property
    def user(self) -> str | None: ...

@final
class Changes:
    """A piece of a room's log: rows in ascending order of `seq`, covering every number up to `through`."""

    def __new__(cls, head: Head, floor: int, through: int, rows: Sequence[ChangeRow]) -> Self: ...
    @property
    def head(self) -> Head:
        """Read before the rows."""

    @property
    def floor(self) -> int:
        """Numbers up to this one can no longer be read."""

    @property
    def through(self) -> int: ...
    @property
    def rows(self) -> list[ChangeRow]: ...

@final
class History:
    """A page of a room's messages, oldest first, with the head that was read before them."""

    def __new__(cls, head: Head, messages: Sequence[Message]) -> Self: ...
    @property
    def head(self) -> Head: ...
    @property
    def messages(self) -> list[Message]: ...

@final
class NewRoom:
    """A room to be made."""

    def __new__(
        cls, members: Sequence[Member] = (), *, name: str = "", kind: str = "", id: int | None = None
    ) -> Self: ...
    @property
    def id(self) -> int | None:
        """None lets the store choose."""

    @property
    def name(self) -> str: ...
    @property
    def kind(self) -> str:
        """The host's own classification."""

    @property
    def members(self) -> list[Member]:
        """The first members: key, name, role."""

@final
class Planner:
    """Takes the decisions of `Store.apply`, so that a store over a database only reads and writes rows.

    It belongs to one store object and remembers what it needs for the next batch. Per batch, in one transaction:

    1. `begin` with the batch; lock the heads of the rooms that it names, in that order.
    2. `lock` with the heads; for every gap read what `note` takes.
    3. `note` with that; read the roles and messages that it names.
    4. `decide` with those; write what the plan says and commit.
    5. `committed`, or at any point `rolled_back`.

    A call out of this order raises `RuntimeError`. Roles are 0 (member) and 1 (moderator).
    """

    def __new__(cls) -> Self: ...
    def begin(self, batch: Batch) -> list[int]:
        """The rooms whose heads to lock, ascending. A batch before it that was not ended counts as rolled back."""

    def lock(self, heads: Sequence[_HeadRow]) -> list[tuple[int, int, int]]:
        """The gaps: room, after, through. Rooms without a head do not exist."""

    def note(
        self, adds: Sequence[tuple[int, int, str, str]], members: Sequence[tuple[int, str]]
    ) -> tuple[list[tuple[int, str]], list[int]]:
        """Takes the messages in the gaps that have a client id (room, pos, sender_key, client_id), and the users whose
        membership changed there (room, user_key). Gives whose roles to read (room, user_key), and which messages by id.
        """

    def decide(
        self,
        roles: Sequence[tuple[int, str, int]],
        messages: Sequence[tuple[int, str, str, str | None, int, int | None, int | None, str | None]],
    ) -> Plan:
        """Takes the roles of those who are members (room, user_key, role), and the messages that exist (id, sender_key,
        sender_name, client_id, created_at, edited_at, deleted_at, body). Message ids are `room * 2**32 + pos`.
        """

    def committed(self) -> None: ...
    def rolled_back(self) -> None:
        """Not committed, or perhaps not."""

    @staticmethod
    def replay(batch: Batch, record: str) -> Applied:
        """What became of a batch that was committed before, out of `Plan.record`.

        Raises `ValueError` when that is another batch's.
        """

    @staticmethod
    def raised(stored: _HeadRow, seen: tuple[int, int], now: int) -> _HeadRow:
        """The head after `seen` (epoch, number) was seen: raised if it lies below, otherwise as it is."""

@final
class Plan:
    """What a transaction has to write. No row is in one list twice."""

    @property
    def applied(self) -> Applied:
        """What `Store.apply` returns once it is committed."""

    @property
    def record(self) -> str:
        """The outcomes in short, to be stored under the batch's id for `Planner.replay`."""

    @property
    def heads(self) -> list[_HeadRow]:
        """Heads that changed."""

    @property
    def inserted(
        self,
    ) -> list[tuple[int, int, int, str, str, str | None, int, int | None, int | None, str | None]]:
        """New messages: id, room, pos, sender_key, sender_name, client_id, created_at, edited_at, deleted_at, body."""

    @property
    def updated(self) -> list[tuple[int, str | None, int | None, int | None]]:
        """Messages that changed: id, body, edited_at, deleted_at."""

    @property
    def log(self) -> list[tuple[int, int, int, int | None, str | None, int]]:
        """New rows of the log: room, seq, kind (1 edited, 2 deleted, 3 joined, 4 left), message_id, user_key, at."""

    @property
    def left(self) -> list[tuple[int, str]]:
        """Memberships to be deleted, before `joined` is written: room, user_key."""

    @property
    def joined(self) -> list[tuple[int, str, str, int, int, bool]]:
        """Memberships to be written: room, user_key, user_name, role, at, and whether there is no row to change."""

def schema(backend: Literal["mssql", "sqlite"]) -> list[tuple[int, str]]:
    """The scripts that make the tables of a backend: version and SQL, in order.

    On SQL Server `{schema}` in them stands for the schema's name in brackets, and the first one, of version 0, makes
    the table that holds the version.
    """

@final
class Subject:
    """A store under test, empty and migrated, and what can be done to it. Import it from `digi.testing`.

    `second` opens another handle on the same data, as another process would have it; `reopen` the same data again after
    the store was dropped; `offender` is a text that the store answers with `StoreRejectedError`; `bounded` says that
    the store holds a few MiB, so that a test can fill it; `remembers_batches` that it knows a batch again by its id.
    Tests of what cannot be done do not apply.
    """

    def __new__(
        cls,
        store: Store,
        *,
        second: Callable[[], Store] | None = None,
        reopen: Callable[[], Store] | None = None,
        offender: str | None = None,
        bounded: bool = False,
        remembers_batches: bool = False,
    ) -> Self: ...

def store_suite_tests() -> list[str]:
    """The names of the tests. Import it from `digi.testing`."""

def run_store_test(name: str, factory: Callable[[], Subject]) -> list[str]:
    """Run one test on a store of its own. Raises `AssertionError` when the store is wrong.

    Gives the sentences that say which parts did not apply. Import it from `digi.testing`.
    """
