#!/bin/sh
# Builds all binaries as images have them, into target/dist/:
#
#   deploy/build.sh                    # four to eleven minutes on two cores
#   PROFILE=release deploy/build.sh    # into target/release/, sooner, and without what follows
#
# A message that comes alone finds the caches cold, in three processes, and what runs for it are some
# blocks of each of hundreds of functions. So the compiler is told which blocks those are: by
# rustc-VERSION.profdata, which is beside this script and was gathered by profile.sh. What that brings
# is in docs/performance.md. It is for one compiler, and for the profile `dist`, as functions have other
# names elsewhere. Code that has changed since is built as if there were no profile for it, and so is
# everything by another compiler.
#
# RUSTFLAGS are passed on, and arguments go to cargo.
set -eu

cd "$(dirname "$0")/.."
profile=${PROFILE:-dist}
counts=$PWD/deploy/rustc-$(rustc --version | cut -d' ' -f2).profdata
flags=${RUSTFLAGS:-}
if [ "$profile" != dist ]; then
    :
elif [ -f "$counts" ]; then
    flags="$flags -Cprofile-use=$counts"
else
    echo "build.sh: there is no $(basename "$counts"), so this builds without: slower binaries, the same otherwise. deploy/profile.sh gathers it" >&2
fi
unset CARGO_ENCODED_RUSTFLAGS
RUSTFLAGS=$flags exec cargo build --profile "$profile" --locked \
    --package tangelo --package gate --package connector --package chat "$@"
