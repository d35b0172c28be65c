# Sourced by start_services.sh and stop_services.sh: HeartGuard in containers.

docker_is_reachable() {
    command -v docker >/dev/null && timeout 15 docker info >/dev/null 2>&1 && docker compose version >/dev/null 2>&1
}

docker_is_running() { [ -n "$(compose ps --quiet 2>/dev/null)" ]; }

compose() { docker compose --project-directory "$ROOT" "$@"; }

start_with_docker() {
    make_secrets JWT_SECRET BOOTSTRAP_ADMIN_PASSWORD POSTGRES_PASSWORD VALKEY_PASSWORD INFLUX_PASSWORD INFLUX_TOKEN \
        AUTH_DB_PASSWORD ORG_DB_PASSWORD USER_DB_PASSWORD MEDIA_DB_PASSWORD TIMESERIES_DB_PASSWORD AUDIT_DB_PASSWORD \
        AUDIT_SIGNING_KEY
    compose up --detach --build --wait || die "Not everything became healthy; see: docker compose logs"
    say "HeartGuard is ready."
    say "  Address    http://127.0.0.1:$(setting GATEWAY_PORT 5000)"
    say "  Admin      $(setting BOOTSTRAP_ADMIN_EMAIL admin@heartguard.io)"
    say "  Password   in $ROOT/.env: BOOTSTRAP_ADMIN_PASSWORD"
}

stop_with_docker() {
    compose down
    say "HeartGuard is stopped; its data is kept in Docker's volumes."
}

# setting NAME DEFAULT: from the environment, else from .env.
setting() {
    local line="${!1:-}"
    [ -n "$line" ] || line="$(sed -n "s/^$1=//p" "$ROOT/.env" 2>/dev/null | tail -n 1)"
    printf '%s' "${line:-$2}"
}

# make_secrets NAME …: put those that are not set yet into .env, which only its owner may read.
make_secrets() {
    local name draft
    for name in "$@"; do
        [ -z "$(setting "$name" "")" ] || continue
        draft="$(mktemp "$ROOT/.env.XXXXXX")"
        [ ! -e "$ROOT/.env" ] || cat "$ROOT/.env" >"$draft"
        printf '%s=%s\n' "$name" "$(head -c 36 /dev/urandom | base64 | tr '+/' '-_')" >>"$draft"
        mv "$draft" "$ROOT/.env"
    done
}
