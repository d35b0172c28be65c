#!/usr/bin/env bash
# Stop HeartGuard, keeping its data. --help says how.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/deploy/setup_venv.sh"
source "$ROOT/deploy/docker.sh"

usage() {
    cat <<'EOF'
Stop HeartGuard, however it was started. Its data is kept for the next start.

Examples:
  ./stop_services.sh
  HEARTGUARD_DATA=/srv/heartguard ./stop_services.sh    the stack whose data is there
EOF
}

case "${1:-}" in
    "") ;;
    -h | --help) usage; exit ;;
    *) usage >&2; die "Unknown argument: $1" ;;
esac

if docker_is_reachable && docker_is_running; then
    stop_with_docker
    exit
fi
if [ -x "$VENV/bin/heartguard" ]; then
    exec "$VENV/bin/heartguard" down
fi
say "HeartGuard is not running."
