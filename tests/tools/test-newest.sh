#!/usr/bin/env bash
# What depends on Django, with the newest one and the newest Python that is here: on SQLite, and without what takes
# longest in the stores' suite. Since 3.13 Python warns of connections whose threads have ended, as those of asgiref do.
set -euo pipefail
cd "$(dirname "$0")/../../tests/django_store"
exec ../../.venv-newest/bin/pytest -W "ignore:unclosed database:ResourceWarning" \
  --servers-only-for "" -k "not reference and not mappings and not (store_suite and not own)" \
  test_admin.py test_checks.py test_commands.py test_consumer.py test_keys.py test_orm.py \
  test_posting.py test_project_keys.py test_project_tables.py test_sessions.py test_settings.py test_suite.py "$@"
