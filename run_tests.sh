#!/usr/bin/env bash
# Check and test HeartGuard. --help says how.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/deploy/setup_venv.sh"

usage() {
    cat <<'EOF'
Check and test HeartGuard, against a real PostgreSQL and Valkey. Does its own set-up; needs only Python >= 3.11.
The time series are tested on a real InfluxDB 2 as well where INFLUXD names its influxd or PATH holds one, or where
HEARTGUARD_TEST_INFLUX_URL, _TOKEN and _ORG say where a server is; else on an imitation (docs/development.md).

  ./run_tests.sh            formatting, lint, types, imports, published schemas, then all tests with coverage
  ./run_tests.sh ARGS …     only pytest, with these arguments

Examples:
  ./run_tests.sh
  ./run_tests.sh -k refresh
  ./run_tests.sh tests/unit -x
  INFLUXD=/path/to/influxd ./run_tests.sh tests/integration/timeseries
EOF
}

if [ "${1:-}" = "-h" ] || [ "${1:-}" = "--help" ]; then
    usage
    exit
fi

setup_venv dev
cd "$ROOT"
PATH="$VENV/bin:$PATH"
# The tests bring their own settings: those of whoever runs them must not matter.
while IFS= read -r name; do
    [ "$name" = INFLUXD ] || unset "$name" "${name}_FILE"  # a program, which the tests start themselves
done < <(sed -n 's/^#\{0,1\} \{0,1\}\([A-Z_]*\)=.*/\1/p' .env.example)

if [ "$#" -gt 0 ]; then
    exec pytest "$@"
fi

step() {
    say "== $1"
    shift
    "$@"
}
step "Lint" ruff check
step "Formatting" ruff format --check
step "Types" mypy
step "Imports" lint-imports
step "Published schemas" heartguard publish --check
step "Tests" pytest -n 2 --cov
