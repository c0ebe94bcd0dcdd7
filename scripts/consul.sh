#!/bin/bash
# Prints the path of a real Consul on standard output; it reports what it does on standard error.
#
#   scripts/consul.sh          from PATH, else from the cache, else built (once) and put into the cache
#   scripts/consul.sh --find   the same, but never builds: exit code 1 when there is none
#
# Debian packages no Consul any more, so it is built from its published Go module at the version
# that consul/go.mod pins: the newest one under the Mozilla Public License whose modules all have open
# licences too (1.16.2 and later are under the Business Source License). An installed Consul of any
# version is preferred. The cache lies outside the checkout and outlives it.
set -eu

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
version=$(sed -n 's|^[[:space:]]*github.com/hashicorp/consul v\([0-9.]*\)\( .*\)\{0,1\}$|\1|p' "$here/consul/go.mod")
cache=${XDG_CACHE_HOME:-$HOME/.cache}/calico-mesos
built=$cache/consul-$version

say() { echo "consul: $*" >&2; }

if command -v consul; then exit 0; fi
if [ -x "$built" ]; then
    echo "$built"
    exit 0
fi
if [ "${1:-}" = --find ]; then exit 1; fi
if ! command -v go >/dev/null; then
    say "not on PATH and not in $cache, and building it needs Go: install Go 1.24 or later (or Consul itself)"
    exit 1
fi

mkdir -p "$cache"
# Several runs may get here at once: the first one builds, the others wait and find it.
exec 9>"$cache/consul.lock"
if ! flock --nonblock 9; then
    say "another run is building it, waiting for that one"
    flock 9
fi
if [ ! -x "$built" ]; then
    say "building $version from its Go module (3 to 6 minutes on 2 cores with empty caches, once; kept in $cache)"
    begin=$SECONDS
    trap 'rm -f "$built.$$"' EXIT
    # The lock must not outlive this script in a child of the compiler: 9>&-.
    . "$here/go-progress.sh"
    (cd "$here/consul" && CGO_ENABLED=0 TOTAL=1450 go_build -trimpath -buildvcs=false -ldflags '-s -w' \
        -o "$built.$$" github.com/hashicorp/consul) >&2 9>&-
    "$built.$$" version | head -1 >&2
    mv "$built.$$" "$built"
    say "built in $((SECONDS - begin)) s"
fi
echo "$built"
