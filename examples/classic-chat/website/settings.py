"""A chat on stock Django Channels.

* `CHAT_DATA`: the folder of the database and the keys, default `data` beside `manage.py`
* `CHAT_REDIS`: where Redis is, default `redis://127.0.0.1:6379`
"""

import os
from pathlib import Path

from cryptography.fernet import Fernet
from django.core.management.utils import get_random_secret_key

BASE_DIR = Path(__file__).resolve().parent.parent
DATA = Path(os.environ.get("CHAT_DATA") or BASE_DIR / "data")
REDIS = os.environ.get("CHAT_REDIS", "redis://127.0.0.1:6379")
DATA.mkdir(mode=0o700, parents=True, exist_ok=True)


def kept(name, make):
    """A secret that is made at the first start."""
    path = DATA / name
    if not path.exists():
        path.touch(mode=0o600)
        path.write_text(make())
    return path.read_text()


SECRET_KEY = kept("secret_key", get_random_secret_key)
# What the ids in links and frames are encrypted with.
FERNET_KEY = kept("fernet_key", lambda: Fernet.generate_key().decode())
DEBUG = True
ALLOWED_HOSTS = ["localhost", "127.0.0.1"]

INSTALLED_APPS = [
    "daphne",
    "chat",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.staticfiles",
]
MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
]
ROOT_URLCONF = "website.urls"
ASGI_APPLICATION = "website.asgi.application"
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
            ]
        },
    }
]
DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": DATA / "site.db",
        "OPTIONS": {
            "timeout": 20,
            "transaction_mode": "IMMEDIATE",
            "init_command": "PRAGMA journal_mode = WAL",
        },
    }
}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

CHANNEL_LAYERS = {
    "default": {
        "BACKEND": "channels_redis.core.RedisChannelLayer",
        "CONFIG": {"hosts": [REDIS]},
    }
}

LOGIN_REDIRECT_URL = "index"
LOGOUT_REDIRECT_URL = "login"
STATIC_URL = "static/"
USE_TZ = True
