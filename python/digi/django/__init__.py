"""Digi in a Django project: add `"digi.django"` to INSTALLED_APPS; the setting `DIGI` is optional (see `conf`).

Rooms are made and listed by `digi.django.rooms`, served by `digi.django.asgi`, stored by `digi.django.store`. For views
and tasks there are `post`, `announce`, `edit`, `delete` and `kick`, for coroutines `apost` and so on (see `posting`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from digi.django.posting import (
        aannounce,
        adelete,
        aedit,
        akick,
        announce,
        apost,
        delete,
        edit,
        kick,
        post,
    )

__all__ = ["aannounce", "adelete", "aedit", "akick", "announce", "apost", "delete", "edit", "kick", "post"]


def __getattr__(name: str) -> Any:
    # Django imports this before there are models.
    if name in __all__:
        from digi.django import posting

        return getattr(posting, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
