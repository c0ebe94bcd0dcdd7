#!/bin/bash
# Prints the folder of a current Docker engine on standard output; it reports what it does on standard error.
#
#   scripts/docker-engine.sh          from the cache, else built (once) and put into the cache
#   scripts/docker-engine.sh --find   the same, but never builds: exit code 1 when there is none
#
# In that folder: dockerd, docker-proxy, containerd, containerd-shim-runc-v2, runc. With the folder in
# front of PATH every private daemon is this engine, for dockerd looks for all the others there too.
#
# Debian's Docker is years behind, so this one is built from its published Go modules at the versions
# that docker-engine/go.mod pins. Needs Go, a C compiler, pkg-config and libseccomp's headers (runc
# without seccomp could run no container with Docker's own profile): scripts/setup.sh --docker-engine.
# The cache lies outside the checkout and outlives it.
set -eu

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
cache=${XDG_CACHE_HOME:-$HOME/.cache}/calico-mesos

# pinned MODULE: its version in go.mod.
pinned() { sed -n "s|^[[:space:]]*$1 v\([^ ]*\).*|\1|p" "$here/docker-engine/go.mod"; }
moby=github.com/moby/moby/v2 containerd=github.com/containerd/containerd/v2 runc=github.com/opencontainers/runc
version=$(pinned $moby)
# Of a new pin of any part a new engine is built.
built=$cache/docker-$version-$(cat "$here/docker-engine/go.mod" "${BASH_SOURCE[0]}" | sha256sum | head -c 8)

say() { echo "docker-engine: $*" >&2; }

if [ -d "$built" ]; then
    echo "$built"
    exit 0
fi
if [ "${1:-}" = --find ]; then exit 1; fi
if ! command -v go >/dev/null; then
    say "not in $cache, and building it needs Go: install $(sed -n 's/^go /Go /p' "$here/docker-engine/go.mod") or later"
    exit 1
fi

mkdir -p "$cache"
# Several runs may get here at once: the first one builds, the others wait and find it.
exec 9>"$cache/docker-engine.lock"
if ! flock --nonblock 9; then
    say "another run is building it, waiting for that one"
    flock 9
fi
if [ -d "$built" ]; then
    echo "$built"
    exit 0
fi

# build CGO ARGUMENTS...: the lock must not outlive this script in a child of the compiler: 9>&-.
build() {
    (cd "$here/docker-engine" &&
        CGO_ENABLED=$1 nice go build -trimpath -buildvcs=false -o "$scratch/" "${@:2}") >&2 9>&-
}

say "building $version from its Go modules (6 to 10 minutes on 2 cores with empty caches, once; kept in $cache)"
begin=$SECONDS
scratch=$(mktemp -d "$built.XXXXXX")
trap 'rm -rf "$scratch"' EXIT
chmod 755 "$scratch"
build 0 -ldflags "-s -w -X $moby/dockerversion.Version=$version" -tags 'exclude_graphdriver_btrfs no_btrfs' \
    $moby/cmd/dockerd $moby/cmd/docker-proxy $containerd/cmd/containerd $containerd/cmd/containerd-shim-runc-v2
build 1 -ldflags "-s -w -X main.version=$(pinned $runc)" -tags seccomp $runc
"$scratch/dockerd" --version >&2
"$scratch/containerd" --version >&2
"$scratch/runc" --version | head -1 >&2
mv -T "$scratch" "$built"
trap - EXIT
say "built in $((SECONDS - begin)) s"
echo "$built"
