#!/bin/sh
# Builds all binaries as images have them, with their code laid out in the order in which it runs:
#
#   apt-get install bolt-19          # LLVM's BOLT; 19 on x86-64 is what was tried
#   deploy/lay-out.sh                # eight minutes on two cores; into target/laid-out/
#
# A message that comes alone finds the caches cold, in three processes, and what runs for it are some
# blocks of each of hundreds of functions. So a `tangelo` that counts them is played with, in small
# rooms and large, by every kind of client, and the binaries are written anew with those blocks side by
# side. What that brings is in docs/performance.md. Nothing else changes: same code, same libraries.
#
# One play serves all binaries: gate, connector and chat are the same crates, and functions are known
# by their names. Where the system forbids io_uring, its code counts as code that does not run.
#
# LLVM_BOLT names another BOLT, by its path.
set -eu

say() { echo "lay-out.sh: $*" >&2; }
fail() { say "$*"; exit 1; }

[ "$(uname -m)" = x86_64 ] || fail "this was tried on x86-64 only; use target/dist, as images do"
found=
for name in ${LLVM_BOLT:-llvm-bolt llvm-bolt-21 llvm-bolt-20 llvm-bolt-19}; do
    [ -n "$found" ] || found=$(command -v "$name" || true)
done
[ -n "$found" ] || fail "there is no ${LLVM_BOLT:-llvm-bolt}: install it (Debian: bolt-19), or give its path as LLVM_BOLT"
# What belongs to it lies where it is, without a version in its name.
bolt=$(realpath "$found")
merge=$(dirname "$bolt")/merge-fdata
[ -x "$merge" ] || fail "there is no merge-fdata beside $bolt"
command -v strip >/dev/null || fail "there is no strip: install binutils"

cd "$(dirname "$0")/.."
built=target/lay-out
counts=$built/counts
made=$built/made
out=target/laid-out
log=$counts/log
rm -rf "$counts" "$made" "$out"
mkdir -p "$counts" "$made"
quietly() {
    "$@" >"$log" 2>&1 || { tail -n 30 "$log" >&2; fail "that was: $*"; }
}

# BOLT moves code by the linker's relocations, and finds functions by their symbols. Flags of this
# shell would make other binaries than images have.
unset CARGO_ENCODED_RUSTFLAGS CARGO_BUILD_TARGET
RUSTFLAGS="-C link-arg=-Wl,--emit-relocs" CARGO_PROFILE_DIST_STRIP=none \
    cargo build --profile dist --locked --target-dir "$built" \
    --package tangelo --package gate --package connector --package chat

quietly "$bolt" "$built/dist/tangelo" -instrument -o "$counts/tangelo" \
    --instrumentation-file="$PWD/$counts/of" --instrumentation-file-append-pid
# As many threads as in containers, and no setting of this shell.
unset TANGELO_IO_URING TANGELO_LOCAL_LINKS TANGELO_LOG
export TANGELO_THREADS=1
play() {
    say "playing: bench $*"
    quietly "$counts/tangelo" bench --up "$@"
}
play --clients 1000 --rooms 100 --rate 1000 --seconds 5
play --clients 1000 --rooms 10 --rate 200 --seconds 5
play --clients 1000 --rooms 10 --saturate 8 --seconds 2
play --clients 2000 --rooms 1 --rate 20 --seconds 3
play --clients 200 --rooms 20 --rate 200 --seconds 1 --warmup 1 --dialect all
quietly "$merge" -o "$counts/all" "$counts"/of.*

for name in tangelo tangelo-gate tangelo-connector tangelo-chat; do
    quietly "$bolt" "$built/dist/$name" -o "$counts/$name" -data="$counts/all" \
        -reorder-functions=cdsort -reorder-blocks=ext-tsp \
        -split-functions -split-all-cold -split-eh -icf=1 -use-gnu-stack
    strip -o "$made/$name" "$counts/$name"
    "$made/$name" --version
done
mv "$made" "$out"
rm -rf "$counts"
say "built $out/"
