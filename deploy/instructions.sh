#!/bin/sh
# Counts the instructions that a message takes in user space, in each process of a cluster:
#
#   apt-get install valgrind
#   deploy/instructions.sh                             # three minutes; rooms of ten
#   deploy/instructions.sh --clients 200 --rooms 2     # other clients, rooms or dialects, as of bench
#
# Counts of two runs differ by a percent where times differ by a third, and another machine counts much
# the same. So this tells whether a change makes the program do less; not what that saves: most of a
# message's time is the kernel's, and a good part of the rest is waiting for memory.
#
# Valgrind runs all processes, some fifty times slower, and counts for twenty seconds when all clients
# are in: once with 45 messages/s, so that each still comes alone, and once with 5. The difference is
# what messages take, divided by how many they were. The C library is counted, the kernel is not; an
# instruction that repeats itself (`rep stosb`, by which memory is cleared) counts once for each byte.
#
# TANGELO names the binary, target/dist/tangelo if not told. What was counted is left in
# target/instructions for callgrind_annotate, which knows functions in a build with symbols.
set -eu

say() { echo "instructions.sh: $*" >&2; }
fail() { say "$*"; exit 1; }

cd "$(dirname "$0")/.."
tangelo=${TANGELO:-target/dist/tangelo}
out=$PWD/target/instructions
low=5 high=45 seconds=20
[ -x "$tangelo" ] || fail "there is no $tangelo: build it (deploy/build.sh), or give another as TANGELO"
command -v callgrind_control >/dev/null || fail "there is no callgrind_control: install valgrind"
[ $# -gt 0 ] || set -- --clients 100 --rooms 10
bench=
trap '[ -z "$bench" ] || kill "$bench"' EXIT

# Plays at a rate, and counts into files of this name, one for each process.
count() {
    name=$1 rate=$2
    shift 2
    say "playing: bench $*, $rate messages/s"
    rm -f "$out/$name".*
    # Clients have half a minute to start and to enter, and some seconds are left over at the end.
    TANGELO_THREADS=1 valgrind --quiet --tool=callgrind --trace-children=yes \
        --callgrind-out-file="$out/$name.%p" "$tangelo" bench --up --connectors 1 --chats 1 "$@" \
        --rate "$rate" --warmup 20 --seconds $((seconds + 20)) >"$out/$name.log" 2>&1 &
    bench=$!
    sleep 30
    callgrind_control --zero >>"$out/$name.log" 2>&1
    sleep "$seconds"
    callgrind_control --dump="$name" >>"$out/$name.log" 2>&1
    wait "$bench" || { bench=; tail -n 20 "$out/$name.log" >&2; fail "bench failed"; }
    bench=
}

# What the process of this kind ran while it was counted.
counted() {
    name=$1 kind=$2
    file=$(grep -l "^cmd: *[^ ]* $kind " "$out/$name".*.1) || fail "$kind was not counted"
    sed -n 's/^totals: //p' "$file"
}

mkdir -p "$out"
count low "$low" "$@"
count high "$high" "$@"
for kind in gate connector chat; do
    more=$(($(counted high $kind) - $(counted low $kind)))
    echo "$kind $((more / ((high - low) * seconds))) instructions a message"
done
