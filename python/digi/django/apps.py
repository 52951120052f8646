"""The Django application."""

from django.apps import AppConfig


class DigiConfig(AppConfig):
    """Tables, checks and commands of Digi."""

    name = "digi.django"
    label = "digi"
    verbose_name = "Digi"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        """Register the checks, and listen to who logs out."""
        from digi.django import checks, logins  # noqa: F401

        logins.listen()
