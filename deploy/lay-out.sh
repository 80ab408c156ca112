#!/bin/sh
# Builds all binaries as images have them, with their code laid out in the order in which it runs:
#
#   apt-get install bolt-19          # LLVM's BOLT; any version from 15 on, x86-64
#   deploy/lay-out.sh                # seven to fifteen minutes on two cores; into target/laid-out/
#
# A message that comes alone finds the caches cold, in three processes, and what runs for it are some
# blocks of each of a thousand functions. So a `tangelo` that counts them is played with, in small
# rooms and large, by every kind of client, and the binaries are written anew with those blocks side by
# side. What that brings is in docs/performance.md. Nothing else changes: same code, same libraries.
#
# One play serves all binaries: gate, connector and chat are the same crates, and functions are known
# by their names.
set -eu

cd "$(dirname "$0")/.."
[ "$(uname -m)" = x86_64 ] || { echo "lay-out.sh: BOLT counts on x86-64 only; target/dist serves as well" >&2; exit 1; }
bolt=${LLVM_BOLT:-}
for name in llvm-bolt llvm-bolt-19 llvm-bolt-18 llvm-bolt-17 llvm-bolt-16 llvm-bolt-15; do
    [ -n "$bolt" ] || bolt=$(command -v "$name" || true)
done
[ -n "$bolt" ] || { echo "lay-out.sh: there is no llvm-bolt: install it (Debian: bolt-19), or name it by LLVM_BOLT" >&2; exit 1; }
# BOLT looks for its libraries beside itself.
bolt=$(realpath "$bolt")

built=target/lay-out
out=target/laid-out
counts=$built/counts
# BOLT moves code by the linker's relocations, and finds functions by their symbols.
RUSTFLAGS="${RUSTFLAGS:-} -C link-arg=-Wl,--emit-relocs" CARGO_PROFILE_DIST_STRIP=none \
    cargo build --profile dist --locked --target-dir "$built" \
    --package tangelo --package gate --package connector --package chat
rm -rf "$counts" "$out"
mkdir -p "$counts" "$out"

"$bolt" "$built/dist/tangelo" -instrument -o "$counts/tangelo" \
    --instrumentation-file="$PWD/$counts/of" --instrumentation-file-append-pid >"$counts/log" 2>&1 ||
    { tail -n 5 "$counts/log" >&2; exit 1; }
play() {
    echo "plays: bench $*"
    "$counts/tangelo" bench --up "$@" >>"$counts/log" || { tail -n 30 "$counts/log" >&2; exit 1; }
}
play --clients 1000 --rooms 100 --rate 1000 --seconds 5
play --clients 1000 --rooms 10 --rate 200 --seconds 5
play --clients 1000 --rooms 10 --saturate 8 --seconds 2
play --clients 2000 --rooms 1 --rate 20 --seconds 3
play --clients 200 --rooms 20 --rate 200 --seconds 1 --warmup 1 --dialect all
"$(dirname "$bolt")/merge-fdata" "$counts"/of.* >"$counts/all" 2>>"$counts/log"

for name in tangelo tangelo-gate tangelo-connector tangelo-chat; do
    "$bolt" "$built/dist/$name" -o "$counts/$name" -data="$counts/all" \
        -reorder-functions=hfsort+ -reorder-blocks=ext-tsp \
        -split-functions -split-all-cold -split-eh -icf=1 -use-gnu-stack >"$counts/log" 2>&1 ||
        { tail -n 5 "$counts/log" >&2; exit 1; }
    strip -o "$out/$name" "$counts/$name"
    "$out/$name" --version
done
rm -rf "$counts"
echo "built $out/"
