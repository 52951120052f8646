"""Which pages may open a WebSocket of the chat: those that Django's own settings trust."""

from __future__ import annotations

from urllib.parse import urlsplit

from django.conf import settings
from django.http.request import validate_host
from django.utils.http import is_same_domain

from digi._digi import Origins
from digi.django import conf

#: As Django has it, for a project that is being developed.
_LOCAL = [".localhost", "127.0.0.1", "[::1]"]


def allow(origin: str | None, host: str | None) -> bool:
    """Whether a page of this origin may connect to this host.

    Those in `DIGI["ORIGINS"]`, if that is set; otherwise those of the host itself, of ALLOWED_HOSTS, and of
    CSRF_TRUSTED_ORIGINS. Whoever gives no origin is no browser.
    """
    listed = conf.get().origins
    if listed is not None:
        return Origins(listed).allow(origin, host)
    return Origins().allow(origin, host) or (origin is not None and _is_trusted(origin))


def _is_trusted(origin: str) -> bool:
    parts = urlsplit(origin)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        return False
    # "*" means that any name may lead here, not that any page is trusted.
    allowed = [name for name in settings.ALLOWED_HOSTS if name != "*"] or (_LOCAL if settings.DEBUG else [])
    hostname = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    return validate_host(hostname, allowed) or any(
        _fits(parts.scheme, parts.netloc, entry) for entry in settings.CSRF_TRUSTED_ORIGINS
    )


def _fits(scheme: str, netloc: str, entry: str) -> bool:
    trusted = urlsplit(entry)
    return trusted.scheme == scheme and is_same_domain(netloc, trusted.netloc.removeprefix("*"))
