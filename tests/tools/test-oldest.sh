#!/usr/bin/env bash
# What depends on Django, with the oldest one that Digi works with. For that there is no SQL Server here, and what takes
# longest in the stores' suite is about what Rust decides.
set -euo pipefail
cd "$(dirname "$0")/../../tests/django_store"
exec ../../.venv-oldest/bin/pytest -k "not reference and not (mappings and Server)" \
  test_admin.py test_checks.py test_commands.py test_consumer.py test_keys.py test_orm.py test_posting.py test_project_tables.py \
  test_sessions.py test_settings.py test_suite.py "$@"
