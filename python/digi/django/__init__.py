"""Digi in a Django project: add `"digi.django"` to INSTALLED_APPS; the setting `DIGI` is optional (see `conf`).

Rooms are made and listed by `digi.django.rooms`, served by `digi.django.asgi`, stored by `digi.django.store`.
"""
