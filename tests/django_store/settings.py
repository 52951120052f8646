"""A Django project that is nothing but a chat. The databases' names are set by the fixtures."""

SECRET_KEY = "tests only: a key of more than thirty-two bytes"
INSTALLED_APPS = ["django.contrib.contenttypes", "django.contrib.auth", "digi.django"]
DATABASES = {
    "default": {"ENGINE": "django.db.backends.sqlite3", "NAME": "set by a fixture"},
    "postgresql": {"ENGINE": "django.db.backends.postgresql", "NAME": "digi", "USER": "postgres"},
}
TEMPLATES = [{"BACKEND": "django.template.backends.django.DjangoTemplates", "APP_DIRS": True}]
USE_TZ = True
