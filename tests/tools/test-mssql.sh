#!/usr/bin/env bash
# The tests that need SQL Server, against the one that DIGI_MSSQL_URL names, or else against Microsoft's image, which is
# started for them on throw-away data and removed again (MSSQL_TAG: 2017-latest, 2019-latest; MSSQL_PORT).
set -euo pipefail
cd "$(dirname "$0")/../.."

if [[ -z ${DIGI_MSSQL_URL:-} ]]; then
  if ! docker compose version >/dev/null 2>&1; then
    echo "make test-mssql starts SQL Server with Docker, and there is no 'docker compose' here: install Docker with" \
      "Compose, or name a server of your own: DIGI_MSSQL_URL='mssql://user:password@host/database' make test-mssql" >&2
    exit 1
  fi
  MSSQL_SA_PASSWORD="Digi-$(python3 -c 'import secrets; print(secrets.token_hex(12))')"
  export MSSQL_SA_PASSWORD
  compose=(docker compose --project-name "digi-test-$$")
  trap '"${compose[@]}" down --volumes --timeout 0' EXIT
  "${compose[@]}" up --detach --wait sql-server
  address=$("${compose[@]}" port sql-server 1433)
  # Its certificate is one that the server has made itself.
  export DIGI_MSSQL_URL="mssql://sa:$MSSQL_SA_PASSWORD@$address/digi?encrypt=required&trust_cert=true"
fi

.venv/bin/python tests/sql_server.py
failed=0
cargo test -p digi-core --all-features --test mssql_server || failed=1
.venv/bin/pytest tests/test_sql_server.py tests/django_store/test_sql_server.py || failed=1
exit "$failed"
