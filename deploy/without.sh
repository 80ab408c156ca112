#!/bin/sh
# Builds a `tangelo` without what can be left out of a delivery, to hold against one with it:
#
#   deploy/without.sh
#   target/release/reference compare --rounds 7 --without epoll,coalesce,textbook \
#       --tangelo target/release/tangelo-without --tangelo target/release/tangelo -- \
#       --clients 1000 --rooms 10 --rate 200 --seconds 5
#
#   PROFILE=dist deploy/without.sh     # as images are built, to hold against target/dist/tangelo: a
#                                      # profile of its own is gathered for it (profile.sh), which takes
#                                      # 12 to 25 minutes in all. Two builds by one profile, or by none,
#                                      # differ by where the compiler puts code, too.
#                                      # To be fair gather that of target/dist/tangelo anew as well
#                                      # (profile.sh) if the way of a message has changed since
#
# `without.patch` takes it out of a copy of the last commit: nothing records metrics, no line of a log
# is compiled in, no rate and no queue of a client is bounded. No argument turns these off, and one
# that did would itself be what is paid for. What a message must be to be understood (its size, names,
# the order of a handshake) stays, and so do the dialects: they are told apart once for a connection,
# and a room is encoded for those that are in it only. If the patch no longer fits, this says so.
set -eu

cd "$(dirname "$0")/.."
profile=${PROFILE:-release}
copy=target/without
[ ! -e "$copy" ] || git worktree remove --force "$copy"
git worktree prune
git worktree add --detach --quiet "$copy" HEAD
trap 'git worktree remove --force "$copy"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
git -C "$copy" apply "$PWD/deploy/without.patch"
if [ "$profile" = dist ]; then
    "$copy/deploy/profile.sh"
fi
PROFILE=$profile "$copy/deploy/build.sh" --package tangelo --target-dir "$PWD/target/without-build"
mkdir -p "target/$profile"
cp "target/without-build/$profile/tangelo" "target/$profile/tangelo-without"
echo "built target/$profile/tangelo-without"
