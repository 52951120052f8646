"""The types of what goes into and comes out of calls, for annotations."""

from __future__ import annotations

from typing import Literal, TypeAlias

#: What a token names.
Kind: TypeAlias = Literal["room", "message"]

#: What a member may do: a moderator also deletes the messages of others.
Role: TypeAlias = Literal["member", "moderator"]

#: A room's first member: the user's key, the name that others see, the role.
Member: TypeAlias = tuple[str, str, Role]

#: What an authenticator says of a connection: nobody, the user's key, the key and the name that others see, or both and
#: by what `Engine.end_login` knows the log-in again (the other processes are told of it: of a secret, give a hash).
Identity: TypeAlias = tuple[str, str, str] | tuple[str, str] | str | None
