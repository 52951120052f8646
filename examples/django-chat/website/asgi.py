"""What the server runs: pages by Django, WebSockets by Digi. `uvicorn website.asgi:application`"""

import os

from django.contrib.staticfiles.handlers import ASGIStaticFilesHandler
from django.core.asgi import get_asgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "website.settings")
# Without `collectstatic`: a busy site leaves its static files to the proxy.
pages = ASGIStaticFilesHandler(get_asgi_application())

from digi.django.asgi import get_application  # noqa: E402 (once Django is set up)

application = get_application(http=pages)
