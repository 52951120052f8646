"""A Django project for mypy's plugin: it looks up the models of python/digi."""

SECRET_KEY = "for looking at, not for running"
INSTALLED_APPS = ["django.contrib.contenttypes", "django.contrib.auth", "django.contrib.sessions", "digi.django"]
DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}}
