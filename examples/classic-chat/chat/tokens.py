"""Ids as they stand in links and frames: Fernet tokens, in base64 once more."""

import base64
from functools import cache

from cryptography.fernet import Fernet, InvalidToken
from django.conf import settings


# Each encryption gives another text. A page finds the message that an edit is about by its text, so it stays the same.
@cache
def encrypt_id(pk):
    token = Fernet(settings.FERNET_KEY).encrypt(str(pk).encode())
    return base64.urlsafe_b64encode(token).decode()


def decrypt_id(token):
    """The id in a token, or None."""
    try:
        return int(Fernet(settings.FERNET_KEY).decrypt(base64.urlsafe_b64decode(token)))
    except (InvalidToken, ValueError):
        return None
