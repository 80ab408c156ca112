#!/bin/sh
# Holds many sessions on this machine, in a network namespace of their own: `tangelo bench` starts a
# cluster and the processes that play clients, and prints what all of it cost.
#
#   deploy/million.sh [SESSIONS [FLAG OF BENCH]…]     as root; 1,000,000 in rooms of 100 if not told
#
# A namespace, since connection tracking would cost as much as the connections and holds fewer of
# them, and since the limits below are its own: the machine's stay as they are. What runs in it ends
# with it: after TIME_LIMIT seconds, or when this script does.
#
# A sign of life of every client each HEARTBEAT seconds (300 if not told) is what idle sessions cost:
# a million have 3,333 in a second, and as many answers.
set -eu

sessions=${1:-1000000}
[ $# -eq 0 ] || shift
tangelo=${TANGELO:-$(dirname "$0")/../target/release/tangelo}
files=$(ulimit -Hn)
[ "$files" != unlimited ] || files=1048576
# What a process keeps for itself, and for a share that is larger than others.
most=$((files - 300))
rooms=$(((sessions + 99) / 100))
processes=$(((sessions + most - 100) / (most - 99)))
# A connector may be given 5/4 of its share.
connectors=$(((sessions * 5 / 4 + most - 1) / most))
[ "$connectors" -ge 2 ] || connectors=2

heartbeat=${HEARTBEAT:-300}

export tangelo sessions rooms processes connectors heartbeat
exec timeout --kill-after=20 "${TIME_LIMIT:-3000}" \
    unshare --net --pid --fork --kill-child --mount-proc sh -eu -c '
    ip link set lo up
    # Above those of gate and connectors. Players choose their own.
    echo "30001 65535" > /proc/sys/net/ipv4/ip_local_port_range
    echo 65535 > /proc/sys/net/core/somaxconn
    echo 65535 > /proc/sys/net/ipv4/tcp_max_syn_backlog
    ulimit -n "$(ulimit -Hn)"
    # A node that does not get to its beats for 3 s counts as dead, whoever is to blame: what else
    # the machine does waits.
    exec nice -n -5 "$tangelo" bench --up --connectors "$connectors" --processes "$processes" \
        --clients "$sessions" --rooms "$rooms" --heartbeat "$heartbeat" --rate 200 --seconds 60 --warmup 10 \
        "$@"' million "$@"
