"""System checks: `manage.py check` and every start say what is wrong with the setting `DIGI`."""

from __future__ import annotations

from typing import Any

from django.core.checks import CheckMessage, Error, register

from digi.django import conf
from digi.django.engine import get_cipher
from digi.errors import DigiError


@register("digi")
def check_settings(**_: Any) -> list[CheckMessage]:
    """Everything about `DIGI` that can be judged without opening a database."""
    found: list[CheckMessage] = [Error(problem, id="digi.E001") for problem in conf.problems()]
    if not found:
        try:
            get_cipher()
        except DigiError as error:
            hint = "Tokens are sealed with SECRET_KEY unless DIGI['KEYS'] is set."
            found.append(Error(f"DIGI: the keys cannot be used: {error.detail}", hint=hint, id="digi.E002"))
    return found
