#!/bin/sh
# Counts the instructions that a message takes in user space, in each process of a cluster:
#
#   apt-get install valgrind
#   deploy/instructions.sh                             # four minutes; rooms of ten
#   deploy/instructions.sh --clients 200 --rooms 2     # other clients, rooms or dialects, as of bench
#
# Counts of two runs differ by up to four percent where times differ by a third. So this tells whether
# a change makes the program do less; not what that saves: most of a message's time is the kernel's,
# and a good part of the rest is waiting for memory.
#
# Valgrind runs all processes, some fifty times slower, and counts for forty seconds when all clients
# are in: once with 45 messages/s, so that each still comes alone, and once with 5. The difference is
# what messages take, divided by how many they were. The C library is counted, the kernel is not; an
# instruction that repeats itself (`rep stosb`, by which memory is cleared) counts once for each byte.
# Whatever else callgrind runs on this machine is started anew and dumped, too.
#
# TANGELO names the binary, target/dist/tangelo if not told. What was counted is left in
# target/instructions for callgrind_annotate, which knows functions in a build with symbols.
set -eu

say() { echo "instructions.sh: $*" >&2; }
fail() { say "$*"; exit 1; }

tangelo=$(realpath --canonicalize-missing "${TANGELO:-$(dirname "$0")/../target/dist/tangelo}")
cd "$(dirname "$0")/.."
out=$PWD/target/instructions
low=5 high=45 seconds=40
# Some hundreds of clients come in meanwhile, under valgrind; the rest is for those who count.
enter=30 rest=10
[ -x "$tangelo" ] || fail "there is no $tangelo: build it (deploy/build.sh), or give another as TANGELO"
command -v callgrind_control >/dev/null || fail "there is no callgrind_control: install valgrind"
[ $# -gt 0 ] || set -- --clients 100 --rooms 10

bench=
# It may have ended by itself.
trap '[ -z "$bench" ] || kill "$bench" 2>/dev/null || :' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# Sleeps so that a signal is heard at once.
pause() {
    sleep "$1" &
    wait "$!"
}

still_playing() {
    kill -0 "$bench" 2>/dev/null || failed "bench ended early"
}

# Has all that callgrind runs do something, and says why if that fails.
control() {
    still_playing
    callgrind_control "$@" >"$out/control.log" 2>&1 || failed "callgrind_control failed: $(tail -n 1 "$out/control.log")"
}

failed() {
    tail -n 20 "$log" >&2
    fail "$*"
}

# Plays at a rate, and counts into files of this name, one for each process.
count() {
    name=$1 rate=$2
    shift 2
    say "playing: bench $*, $rate messages/s"
    log=$out/$name.log
    rm -f "$out/$name".*
    TANGELO_THREADS=1 valgrind --quiet --tool=callgrind --trace-children=yes \
        --callgrind-out-file="$out/$name.%p" "$tangelo" bench --up --connectors 1 --chats 1 "$@" \
        --rate "$rate" --warmup "$enter" --seconds $((seconds + rest)) >"$log" 2>&1 &
    bench=$!
    # Of what it cannot do it says so at once, or nearly.
    pause 5
    still_playing
    pause $((enter - 5))
    control --zero
    pause "$seconds"
    control --dump="$name"
    wait "$bench" || failed "bench failed"
    bench=
}

# What the process of this kind ran while it was counted.
counted() {
    name=$1 kind=$2
    file=$(grep -l "^cmd:.* $kind --name " "$out/$name".*.1) || fail "$kind was not counted"
    sed -n 's/^totals: //p' "$file"
}

mkdir -p "$out"
count low "$low" "$@"
count high "$high" "$@"
for kind in gate connector chat; do
    few=$(counted low "$kind")
    many=$(counted high "$kind")
    echo "$kind $(((many - few) / ((high - low) * seconds))) instructions a message"
done
