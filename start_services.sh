#!/usr/bin/env bash
# Start HeartGuard and wait until it is ready. --help says how.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/deploy/setup_venv.sh"
source "$ROOT/deploy/docker.sh"

usage() {
    cat <<'EOF'
Start HeartGuard and wait until it is ready. Calling it again does no harm.

  ./start_services.sh            with Docker where an engine can be reached, else as --local
  ./start_services.sh --local    as processes on this machine, with embedded PostgreSQL and Valkey;
                                 needs only Python >= 3.11, neither root nor Docker

Settings come from the environment or from .env; .env.example lists them all. Missing secrets are made
on the first start and put into .env.

Examples:
  ./start_services.sh --local
  GATEWAY_PORT=8080 HEARTGUARD_DATA=/srv/heartguard ./start_services.sh --local
  PYTHON=/opt/python3.13/bin/python3 ./start_services.sh --local
EOF
}

local_only=false
for argument in "$@"; do
    case "$argument" in
        --local) local_only=true ;;
        -h | --help) usage; exit ;;
        *) usage >&2; die "Unknown argument: $argument" ;;
    esac
done

if ! $local_only && docker_is_reachable; then
    say "Starting HeartGuard with Docker (--local starts it without) …"
    start_with_docker
    exit
fi
setup_venv local
exec "$VENV/bin/heartguard" up
