#!/bin/bash
# measure.sh AIRRUN MODEL RAM: what is predicted after one answer, and what comes of it. An empty memory of measurements each round.
B=$1; M=$2; R=$3
for round in 1 2 3; do
    export XDG_CACHE_HOME; XDG_CACHE_HOME=$(mktemp -d)
    echo "Tell me a long story about the sea." | $B run "$M" --ram "$R" -c 600 -n 60 --draft none 2>&1 >/dev/null | grep tokens/s
    $B plan "$M" --ram "$R" -c 600 --draft none 2>/dev/null | grep -E "each pass|^generation"
    for _ in 1 2 3; do
        $B bench "$M" --ram "$R" -c 600 --draft none -p 0 -n 24 -r 1 2>/dev/null | grep -E "^tg24 +[0-9]"
    done
    rm -r "$XDG_CACHE_HOME"
done
