#!/usr/bin/env bash
# Makes stand-ins for the base images of deploy/Dockerfile, under the same tags, on a machine
# whose Docker engine cannot reach an image registry. With a registry in reach you do not need
# this: `docker compose build` pulls the official images by itself.
#
#   deploy/base-images.sh            make the images that are missing
#   deploy/base-images.sh --force    make both anew
#   deploy/base-images.sh --remove   remove stand-ins made by this script (never official images)
#
# Needs: root, a Debian or Ubuntu host with debootstrap, a running Docker engine, and, for the
# second image, a Rust toolchain on the host.
#
#   debian:bookworm-slim   debootstrap's smallest Debian 12, documentation left out (about 40 s)
#   rust:1.95.0-bookworm   the same with a C compiler, the host's toolchain (`rustc --print
#                          sysroot`), the host's CA bundle and cargo registry settings (about 60 s)
#
# Packages come from the mirror that this host's apt uses, or from $DEBIAN_MIRROR. Tokens and
# other credentials are not copied. The stand-ins stay on this machine: do not publish them.

set -euo pipefail

readonly RUNTIME_IMAGE="${RUNTIME_IMAGE:-debian:bookworm-slim}"
readonly BUILD_IMAGE="${BUILD_IMAGE:-rust:1.95.0-bookworm}"
readonly SUITE=bookworm
readonly LABEL=tangelo.stand-in

say() { printf 'base-images: %s\n' "$*" >&2; }
die() { say "error: $*"; exit 1; }

exists() { docker image inspect "$1" >/dev/null 2>&1; }
is_stand_in() {
    [ "$(docker image inspect --format "{{index .Config.Labels \"$LABEL\"}}" "$1" 2>/dev/null)" = true ]
}

# The archive that this host's apt reads the suite from, so that a mirror is honoured.
mirror() {
    if [ -n "${DEBIAN_MIRROR:-}" ]; then
        printf '%s\n' "$DEBIAN_MIRROR"
        return
    fi
    local found
    found=$(apt-get indextargets --format '$(REPO_URI) $(RELEASE)' 'Created-By: Packages' 2>/dev/null |
        awk -v suite="$SUITE" '$2 == suite && $1 ~ /^http/ { print $1; exit }') || true
    printf '%s\n' "${found:-http://deb.debian.org/debian}"
}

# Packs the directory as an image. Further arguments are Dockerfile instructions for it.
import() {
    local root=$1 tag=$2
    shift 2
    local changes=()
    local change
    for change in "LABEL $LABEL=true" "$@"; do
        changes+=(--change "$change")
    done
    tar -C "$root" --numeric-owner --one-file-system \
        --exclude='./usr/share/doc/*' --exclude='./usr/share/man/*' --exclude='./usr/share/info/*' \
        --exclude='./usr/share/locale/*' --exclude='./var/cache/apt/*' --exclude='./var/lib/apt/lists/*' \
        --exclude='./dev/*' --exclude='./proc/*' --exclude='./sys/*' -cf - . |
        docker import "${changes[@]}" - "$tag" >/dev/null
    say "made $tag ($(docker image inspect --format '{{.Size}}' "$tag" | awk '{ printf "%d MB", $1 / 1e6 }'))"
}

bootstrap() {
    local root=$1 from
    command -v debootstrap >/dev/null || die "debootstrap is missing: apt-get install debootstrap"
    from=$(mirror)
    say "debootstrap $SUITE (minbase) from this host's Debian mirror"
    debootstrap --variant=minbase "$SUITE" "$root" "$from" >"$root.log" 2>&1 ||
        { tail -n 20 "$root.log" >&2; die "debootstrap failed; its last lines are above"; }
}

# Adds what compiling Rust needs: a linker and C headers, the toolchain, and the host's way to
# the crate registry.
add_toolchain() {
    local root=$1 sysroot cargo_home
    command -v rustc >/dev/null || die "rustc is missing on this host; install Rust $BUILD_IMAGE stands for"
    sysroot=$(rustc --print sysroot)
    say "adding gcc and $(rustc --version)"
    cp /etc/resolv.conf "$root/etc/resolv.conf"
    if [ -e /etc/ssl/certs/ca-certificates.crt ]; then
        mkdir -p "$root/etc/ssl/certs"
        cp /etc/ssl/certs/ca-certificates.crt "$root/etc/ssl/certs/"
    fi
    { chroot "$root" apt-get update &&
        DEBIAN_FRONTEND=noninteractive chroot "$root" apt-get install -y --no-install-recommends gcc libc6-dev; } \
        >"$root.log" 2>&1 ||
        { tail -n 20 "$root.log" >&2; die "installing gcc failed; its last lines are above"; }
    : >"$root/etc/resolv.conf"
    mkdir -p "$root/usr/local/cargo" "$root/usr/local/rust"
    tar -C "$sysroot" --exclude=./share/doc --exclude=./share/man -cf - . | tar -C "$root/usr/local/rust" -xf -
    cargo_home=${CARGO_HOME:-$HOME/.cargo}
    local config
    for config in config.toml config; do
        [ -e "$cargo_home/$config" ] && cp "$cargo_home/$config" "$root/usr/local/cargo/$config"
    done
    return 0
}

# The host's cargo settings that are given by environment, as ENV instructions, without secrets.
cargo_settings() {
    env | grep -E '^CARGO_(REGISTRIES|REGISTRY|SOURCE|HTTP|NET)_' | grep -vE '^[^=]*(TOKEN|CREDENTIAL|SECRET)' |
        while IFS='=' read -r name value; do
            case $name in
            CARGO_HTTP_CAINFO) value=/etc/ssl/certs/ca-certificates.crt ;;
            esac
            printf 'ENV %s="%s"\n' "$name" "$value"
        done || true
}

make_images() {
    local force=$1 want_runtime=false want_build=false
    { $force || ! exists "$RUNTIME_IMAGE"; } && want_runtime=true
    { $force || ! exists "$BUILD_IMAGE"; } && want_build=true
    $want_runtime || say "$RUNTIME_IMAGE is here already"
    $want_build || say "$BUILD_IMAGE is here already"
    $want_runtime || $want_build || return 0

    [ "$(id -u)" = 0 ] || die "debootstrap needs root: run this with sudo"
    scratch=$(mktemp -d)
    # A mount that debootstrap left behind after a failure must not be emptied.
    trap 'rm -rf --one-file-system "$scratch"' EXIT
    bootstrap "$scratch/root"
    if $want_runtime; then
        import "$scratch/root" "$RUNTIME_IMAGE" 'CMD ["bash"]'
    fi
    if $want_build; then
        add_toolchain "$scratch/root"
        local settings
        mapfile -t settings < <(cargo_settings)
        import "$scratch/root" "$BUILD_IMAGE" \
            'ENV CARGO_HOME=/usr/local/cargo' \
            'ENV PATH=/usr/local/rust/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin' \
            'ENV SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt' \
            'CMD ["bash"]' "${settings[@]}"
    fi
}

remove_images() {
    local image
    for image in "$BUILD_IMAGE" "$RUNTIME_IMAGE"; do
        if is_stand_in "$image"; then
            docker image rm "$image" >/dev/null && say "removed $image"
        else
            say "left $image alone: not a stand-in, or not here"
        fi
    done
}

docker version >/dev/null 2>&1 || die "no Docker engine answers; start it first (dockerd)"
case ${1:-} in
'') make_images false ;;
--force) make_images true ;;
--remove) remove_images ;;
*) die "unknown argument '$1'; see the head of this file" ;;
esac
