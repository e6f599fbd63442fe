#!/bin/bash
# predict.sh AIRRUN MODEL RAM GROUP ROUNDS: what is predicted before and after one answer of 120 tokens, and what comes of it, in a group of GROUP MiB.
B=$1; M=$2; R=$3; G=$4; N=${5:-2}
H=${HELDOUT:-heldout.txt}
C="python3 bench/cgroup.py $G"
plan() { $B plan "$M" --ram "$R" -c 700 --draft none --device cpu 2>/dev/null | grep -E "each pass|experts|^generation"; }
for round in $(seq $N); do
    export XDG_CACHE_HOME; XDG_CACHE_HOME=$(mktemp -d)
    echo "== round $round; before:"; plan
    sync; echo 3 > /proc/sys/vm/drop_caches
    echo "Tell me a long story about the sea." | $C $B run "$M" --ram "$R" -c 700 -n 120 --ignore-eos --draft none --device cpu 2>&1 >/dev/null | grep tokens/s
    echo "after:"; plan
    for _ in 1 2 3; do
        sync; echo 3 > /proc/sys/vm/drop_caches
        $C $B bench "$M" --ram "$R" -c 700 --draft none --device cpu -p 0 -n 120 -r 1 --text $H 2>/dev/null | grep -E "^tg|^disk|^ *test"
    done
    rm -r "$XDG_CACHE_HOME"
done
