#!/bin/sh
# Gathers the profile that build.sh and images are built with, for the compiler that is here:
#
#   apt-get install llvm-22            # LLVM's llvm-profdata, of the LLVM that `rustc -vV` names
#   deploy/profile.sh                  # ten minutes on two cores
#
# A `tangelo` that counts what runs is played with, in small rooms and large, by every kind of client.
# One play serves all binaries: gate, connector and chat are the same crates. Where the system forbids
# io_uring, its code counts as code that does not run.
#
# To be run when the compiler, Cargo.lock (so also our own version) or the way of a message has
# changed; commit what it writes. LLVM_PROFDATA names another llvm-profdata, by its path.
set -eu

say() { echo "profile.sh: $*" >&2; }
fail() { say "$*"; exit 1; }

cd "$(dirname "$0")/.."
compiler=$(rustc -vV)
llvm=$(echo "$compiler" | sed -n 's/^LLVM version: \([0-9]*\).*/\1/p')
host=$(echo "$compiler" | sed -n 's/^host: //p')
merge=${LLVM_PROFDATA:-}
if [ -z "$merge" ]; then
    for name in "$(rustc --print sysroot)/lib/rustlib/$host/bin/llvm-profdata" \
        "llvm-profdata-$llvm" "/usr/lib/llvm-$llvm/bin/llvm-profdata"; do
        [ -n "$merge" ] || merge=$(command -v "$name" || true)
    done
    [ -n "$merge" ] || fail "there is no llvm-profdata: install it (Debian: llvm-$llvm; rustup: llvm-tools), or give its path as LLVM_PROFDATA"
fi
# Another one would say only after ten minutes that it cannot read what was counted.
"$merge" --version | grep -q "LLVM version $llvm\." || fail "$merge is not of LLVM $llvm, as rustc is"

built=target/profile
counts=$PWD/$built/counts
log=$built/log
out=deploy/tangelo.profdata
mkdir -p "$built"

# Names of functions depend on all settings of Cargo's profile, so these are those of images.
unset RUSTFLAGS CARGO_BUILD_TARGET
CARGO_ENCODED_RUSTFLAGS="-Cprofile-generate=$counts" cargo build --profile dist --locked \
    --target-dir "$built" --package tangelo
# What build scripts and macros have counted.
rm -rf "$counts"

# As many threads as in containers, and no setting of this shell.
unset LLVM_PROFILE_FILE TANGELO_IO_URING TANGELO_LOCAL_LINKS TANGELO_LOG
export TANGELO_THREADS=1
play() {
    say "playing: bench $*"
    "$built/dist/tangelo" bench --up "$@" >"$log" 2>&1 || { tail -n 30 "$log" >&2; fail "that was: bench $*"; }
}
play --clients 1000 --rooms 100 --rate 1000 --seconds 5
play --clients 1000 --rooms 10 --rate 200 --seconds 5
play --clients 1000 --rooms 10 --saturate 8 --seconds 2
play --clients 2000 --rooms 1 --rate 20 --seconds 3
play --clients 200 --rooms 20 --rate 200 --seconds 1 --warmup 1 --dialect all

# Functions that have not run are left out: the file is a third of what it would be.
"$merge" merge --sparse -o "$built/profdata" "$counts"/*.profraw
mv "$built/profdata" "$out"
printf '%s\nCargo.lock: %s\n' "$compiler" "$(cksum <Cargo.lock)" >"$out.txt"
say "wrote $out and $out.txt"
