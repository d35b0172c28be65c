#!/usr/bin/env bash
# Compile the locked requirements: pinned, hashed, for every Python that the project supports, without any
# registry's address. Needs uv (in requirements/dev.txt).
#
#   requirements/compile.sh             keep what is pinned, add what is new
#   requirements/compile.sh --upgrade   take the newest of everything
set -euo pipefail
cd "$(dirname "$0")/.."

compile() {
    local out=$1
    shift
    lock "$out" pyproject.toml "$@"
    # The project itself is installed from the tree, never from a registry.
    sed -i '/^heartguard/d' "$out"
}

lock() {
    local out=$1
    shift
    uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
        --no-emit-find-links --no-annotate --custom-compile-command requirements/compile.sh \
        --output-file "$out" "$@"
}

compile requirements/dev.txt --extra dev "$@"
compile requirements/local.txt --extra local --constraint requirements/dev.txt
for service in audit auth gateway media organization timeseries user; do
    folder=$service
    [ "$service" = timeseries ] && folder=influx
    compile "services/$folder/requirements.txt" --extra "$service" --constraint requirements/dev.txt
done
# The gateways that the benchmarks compare with, each in an environment of its own.
for peer in envoy flask; do
    lock "benchmarks/peers/$peer.txt" "benchmarks/peers/$peer.in" "$@"
done
