"""The Django application."""

from django.apps import AppConfig


class DigiConfig(AppConfig):
    """Tables, checks and commands of Digi."""

    name = "digi.django"
    label = "digi"
    verbose_name = "Digi"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        """Register the checks."""
        from digi.django import checks  # noqa: F401
