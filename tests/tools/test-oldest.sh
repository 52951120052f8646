#!/usr/bin/env bash
# What depends on Django, with the oldest one that Digi works with: on SQLite, and on PostgreSQL and MariaDB what is
# particular about them. For that Django there is no SQL Server here. Of the stores' suite, most of which is about what
# Rust decides, what concerns Digi's own tables.
set -euo pipefail
cd "$(dirname "$0")/../../tests/django_store"
exec ../../.venv-oldest/bin/pytest --servers-only-for test_orm.py,test_posting.py \
  -k "not reference and not (mappings and Server) and not (store_suite and not own)" \
  test_admin.py test_checks.py test_commands.py test_consumer.py test_keys.py test_orm.py \
  test_posting.py test_project_tables.py test_sessions.py test_settings.py test_suite.py "$@"
