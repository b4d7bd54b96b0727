#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Builds the plugin, tests it, holds it to Plywood's conformance suite and certifies it.
#
#   ./ci.sh                         the SDK from crates.io, plywood-conformance from PATH
#   PLYWOOD=/src/plywood ./ci.sh    the SDK and the suite of a checkout of Plywood
#
#   PLYWOOD_SDK=DIRECTORY           the SDK's sources, in place of either
#   PLYWOOD_CONFORMANCE=FILE        the suite's program, in place of either
#   PLYWOOD_SELFTEST=DIRECTORY      the report of a self-test that the same program made already
#   SCRATCH=loop:xfs,loop:btrfs     the file systems on which stores are made
#   KEY=FILE                        the key that signs; one that is thrown away when not given
#   REPORT=report                   where the report and the certificate go
set -euo pipefail
cd "$(dirname "$0")"

sdk=${PLYWOOD_SDK:-${PLYWOOD:+$PLYWOOD/plugin-sdk}}
suite=${PLYWOOD_CONFORMANCE:-}
report=${REPORT:-report}
plugin=${CARGO_TARGET_DIR:-target}/release/libplywood_driver_reflink.so

fail() {
    echo "ci.sh: $1" >&2
    exit 3
}

# An SDK that is not on crates.io (yet) takes the place of the one that is.
patch=()
if [ -n "$sdk" ]; then
    sdk=$(realpath "$sdk")
    patch=(--config "patch.crates-io.plywood-plugin-sdk.path=\"$sdk\"")
fi
if [ -z "$suite" ] && [ -n "${PLYWOOD:-}" ]; then
    (cd "$PLYWOOD" && CARGO_TARGET_DIR=target cargo build --quiet --package plywood-conformance)
    suite=$(realpath "$PLYWOOD")/target/debug/plywood-conformance
fi
suite=${suite:-plywood-conformance}
command -v "$suite" >/dev/null ||
    fail "$suite is missing: set PLYWOOD to a checkout of Plywood, or PLYWOOD_CONFORMANCE"

echo "== style"
cargo fmt --check
cargo clippy --quiet "${patch[@]}" --locked --all-targets -- -D warnings
echo "== tests"
cargo test --quiet "${patch[@]}" --locked
echo "== plugin"
cargo build --quiet "${patch[@]}" --locked --release

echo "== conformance"
[ "$(id -u)" = 0 ] || fail "the suite mounts layers: run this as root"
rm -rf "$report"
"$suite" run "$plugin" --scratch "${SCRATCH:-loop:xfs,loop:btrfs}" --out "$report"

echo "== certificate"
if [ -n "${PLYWOOD_SELFTEST:-}" ]; then
    cp "$PLYWOOD_SELFTEST/selftest.json" "$report/"
else
    "$suite" selftest --out "$report"
fi
keys=$(mktemp -d)
trap 'rm -rf "$keys"' EXIT
key=${KEY:-$keys/private.pem}
[ -n "${KEY:-}" ] || openssl genpkey -algorithm ed25519 -out "$key"
openssl pkey -in "$key" -pubout -out "$keys/public.pem"
"$suite" certify "$report" --key "$key"
"$suite" verify "$report/certificate.json" "$plugin" --key "$keys/public.pem" --report "$report"
