#!/bin/sh
# Builds all binaries as images have them, into target/dist/:
#
#   deploy/build.sh                    # seven to eleven minutes on two cores
#   PROFILE=release deploy/build.sh    # into target/release/, sooner, and without what follows
#
# A message that comes alone finds the caches cold, in three processes, and what runs for it are some
# blocks of each of hundreds of functions. So the compiler is told which blocks those are (PGO,
# profile-guided optimization): by tangelo.profdata, which is beside this script and was gathered by
# profile.sh. What that brings is in docs/performance.md.
#
# Functions are known by their names, in which the compiler, all dependencies and the settings of
# Cargo's profile `dist` have their part. So it is for one compiler, and what depends on a library that
# has another version now is built without it. tangelo.profdata.txt says what it was gathered for.
#
# RUSTFLAGS are passed on, and arguments go to cargo; `--package` among them builds that one only.
set -eu

say() { echo "build.sh: $*" >&2; }

# Flags as cargo takes them if there may be spaces in a path.
joined() { IFS=$(printf '\037'); printf '%s' "$*"; }

cd "$(dirname "$0")/.."
profile=${PROFILE:-dist}
counts=deploy/tangelo.profdata
compiler=$(rustc -vV)
gathered=$(cat "$counts.txt")

copy=
if [ "$profile" != dist ]; then
    :
elif [ "${gathered#"$compiler"}" = "$gathered" ]; then
    say "$counts is for another compiler ($(head -n 1 "$counts.txt")), so this builds without: slower binaries, the same otherwise. deploy/profile.sh gathers it anew"
else
    [ "$(tail -n 1 "$counts.txt")" = "Cargo.lock: $(cksum <Cargo.lock)" ] ||
        say "Cargo.lock has changed since $counts was gathered: some code is built without it, and a little slower. deploy/profile.sh gathers it anew"
    # Another path when it is another, or cargo would not see that.
    copy=$PWD/target/$(cksum <"$counts" | cut -d' ' -f1).profdata
    mkdir -p target
    cp "$counts" "$copy"
fi

# shellcheck disable=SC2086 # RUSTFLAGS are words
flags=$(joined ${RUSTFLAGS:-} ${copy:+"-Cprofile-use=$copy"})
unset RUSTFLAGS CARGO_ENCODED_RUSTFLAGS CARGO_BUILD_TARGET
if [ -n "$flags" ]; then
    export CARGO_ENCODED_RUSTFLAGS="$flags"
fi
case " $* " in
    *" --package "*) ;;
    *) set -- --package tangelo --package gate --package connector --package chat "$@" ;;
esac
exec cargo build --profile "$profile" --locked "$@"
