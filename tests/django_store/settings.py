"""A Django project that is nothing but a chat. The databases' names are set by the fixtures."""

from contextlib import suppress
from importlib import import_module

SECRET_KEY = "tests only: a key of more than thirty-two bytes"
INSTALLED_APPS = [
    "django.contrib.contenttypes",
    "django.contrib.auth",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.admin",
    "digi.django",
    "django_store.project",
]
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
with suppress(ImportError):
    # The driver that needs no compiler; Django asks for the other one by name.
    import_module("pymysql").install_as_MySQLdb()

DATABASES = {
    "default": {"ENGINE": "django.db.backends.sqlite3", "NAME": "no such folder/set by a fixture"},
    "postgresql": {"ENGINE": "django.db.backends.postgresql", "NAME": "digi", "USER": "postgres"},
    "mariadb": {
        "ENGINE": "django.db.backends.mysql",
        "NAME": "digi",
        "USER": "root",
        "HOST": "localhost",
        "OPTIONS": {"charset": "utf8mb4"},
    },
    "sql_server": {"ENGINE": "mssql", "NAME": "set by a fixture"},
}
# Of connections to SQL Server: a database that one is kept of can't be dropped.
DATABASE_CONNECTION_POOLING = False
MIDDLEWARE = [
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
]
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ]
        },
    }
]
ROOT_URLCONF = "django_store.urls"
STATIC_URL = "static/"
# Django's own takes half a second for a password.
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
USE_TZ = True
