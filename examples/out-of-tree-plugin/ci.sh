#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Builds the plugin, tests it, and holds it to Plywood's conformance suite.
#
#   ./ci.sh                         the SDK from crates.io, plywood-conformance from PATH
#   PLYWOOD=/src/plywood ./ci.sh    the SDK and the suite of a checkout of Plywood
#
# PLYWOOD_SDK=DIRECTORY and PLYWOOD_CONFORMANCE=FILE replace one of them. SCRATCH is the suite's
# --scratch; by default stores are made on an xfs of the suite's own. REPORT is where reports go.
set -euo pipefail
cd "$(dirname "$0")"

sdk=${PLYWOOD_SDK:-${PLYWOOD:+$PLYWOOD/plugin-sdk}}
suite=${PLYWOOD_CONFORMANCE:-}
report=${REPORT:-report}
target=${CARGO_TARGET_DIR:-target}

# An SDK that is not on crates.io (yet) takes the place of the one that is.
patch=()
if [ -n "$sdk" ]; then
    sdk=$(realpath "$sdk")
    patch=(--config "patch.crates-io.plywood-plugin-sdk.path=\"$sdk\"")
fi

if [ -z "$suite" ] && [ -n "${PLYWOOD:-}" ]; then
    (cd "$PLYWOOD" && cargo build --quiet --package plywood-conformance)
    suite=$(realpath "$PLYWOOD")/target/debug/plywood-conformance
fi
suite=${suite:-plywood-conformance}
if ! command -v "$suite" >/dev/null; then
    echo "ci.sh: $suite is missing: set PLYWOOD to a checkout of Plywood, or PLYWOOD_CONFORMANCE" >&2
    exit 3
fi

echo "== style"
cargo fmt --check
cargo clippy --quiet "${patch[@]}" --locked --all-targets -- -D warnings
echo "== tests"
cargo test --quiet "${patch[@]}" --locked
echo "== plugin"
cargo build --quiet "${patch[@]}" --locked --release
plugin=$target/release/libplywood_driver_reflink.so

if [ "$(id -u)" != 0 ]; then
    echo "ci.sh: the suite mounts layers, which needs root" >&2
    exit 3
fi
echo "== conformance"
rm -rf "$report"
"$suite" run "$plugin" --scratch "${SCRATCH:-loop:xfs}" --out "$report"
"$suite" certify "$report"
"$suite" verify "$report/certificate.json" "$plugin"
