"""The settings of the Django example, with another database."""

import json
import os

from website.settings import *  # noqa: F403

DATABASES = {"default": json.loads(os.environ["DIGI_TEST_DATABASE"])}
# A database that a connection is kept of can't be dropped.
DATABASE_CONNECTION_POOLING = False
