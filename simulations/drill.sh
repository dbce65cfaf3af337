#!/usr/bin/env bash
# The drill: every planted bug must be found within a minute. Builds the simulators with the feature `planted`, then runs
# `drill` with the options given here (`drill.sh --list`, `--only NAME,NAME`, `--jobs N`; for a bounded run `--within SECS
# --draw NUMBER`). While no bug is chosen these binaries do what those without the feature do.
set -euo pipefail
cd "$(dirname "$0")/.."
cargo build --quiet --profile sim --no-default-features --features planted --bin simulate --bin histories --bin drill
exec "${CARGO_TARGET_DIR:-target}/sim/drill" "$@"
