#!/usr/bin/env bash
# Determinism across builds: the same seeds in a build with and in one without optimisation and debug assertions, and twice
# in each, must give the same traces. Arguments: number of seeds (200), first seed (1), steps (60), scenario (swarm).
# Exit codes: 0 equal, 1 different (the first seed that differs is named), others are those of `simulate`.
set -euo pipefail
cd "$(dirname "$0")/.."
count=${1:-200} first=${2:-1} steps=${3:-60} scenario=${4:-swarm}
target=${CARGO_TARGET_DIR:-target}
build=(cargo build --quiet --no-default-features --features simulation --bin simulate)
"${build[@]}"
"${build[@]}" --release
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
run=(--scenario "$scenario" --first "$first" --count "$count" --steps "$steps" --jobs 2 --json)
# A line of a run holds its seed and trace; marks count in one build only, and the last line is the sum.
traces() { sed -nE 's/^\{"seed":([0-9]+),"trace":"([0-9a-f]+)".*/\1 \2/p' | sort -n; }
"$target/release/simulate" "${run[@]}" --twice | traces >"$work/release"
"$target/debug/simulate" "${run[@]}" | traces >"$work/debug"
[ "$(wc -l <"$work/release")" -eq "$count" ] || { echo "only $(wc -l <"$work/release") of $count seeds ran"; exit 1; }
if ! cmp -s "$work/release" "$work/debug"; then
    echo "debug and release differ; seed, trace:"
    diff "$work/debug" "$work/release" | head -4
    exit 1
fi
echo "$count seeds of $scenario from $first: equal traces, twice in release and once in debug"
