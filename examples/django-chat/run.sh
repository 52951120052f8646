#!/usr/bin/env bash
# Brings the database up to date, makes the two users, and serves the site until Ctrl-C.
# DIGI_LISTEN: another address than 127.0.0.1:8000.  DIGI_DATA: another folder than ./data for database and secret.
set -euo pipefail
cd "$(dirname "$0")"
listen=${DIGI_LISTEN:-127.0.0.1:8000}
port=${listen##*:}

python manage.py migrate --verbosity 0
python manage.py digi demo --force >/dev/null
cat <<TEXT

  alice   http://127.0.0.1:$port/   password digi-demo
  bob     http://localhost:$port/   password digi-demo

Two names for one server, so that one browser can hold both log-ins. Ctrl-C stops it.

TEXT
exec uvicorn website.asgi:application --host "${listen%:*}" --port "$port" --ws websockets-sansio --no-access-log
