#!/usr/bin/env bash
# Try every operation of a deployment, in JSON and in XML, and say what is not well. --help says how.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/deploy/setup_venv.sh"

[ -x "$VENV/bin/heartguard" ] || setup_venv local
exec "$VENV/bin/heartguard" validate "$@"
