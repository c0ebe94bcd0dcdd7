#!/bin/bash
# Prints the path of docker compose version 2 on standard output; it reports what it does on standard error.
#
# Debian packages none, so it is built from its published Go module at the version that compose/go.mod pins, once: the
# program lies in a cache outside the checkout. It runs by itself and is no plugin of the docker command.
set -eu

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
module=github.com/docker/compose/v2
version=$(sed -n "s|^[[:space:]]*$module v\([0-9.]*\)\( .*\)\{0,1\}$|\1|p" "$here/compose/go.mod")
cache=${XDG_CACHE_HOME:-$HOME/.cache}/calico-mesos
built=$cache/docker-compose-$version

say() { echo "compose: $*" >&2; }

if [ ! -x "$built" ]; then
    if ! command -v go >/dev/null; then
        say "not in $cache, and building it needs Go: install $(sed -n 's/^go /Go /p' "$here/compose/go.mod") or later"
        exit 1
    fi
    mkdir -p "$cache"
    # Several runs may get here at once: the first one builds, the others wait and find it.
    exec 9>"$cache/compose.lock"
    flock 9
fi
if [ ! -x "$built" ]; then
    say "building $version from its Go module (2 to 4 minutes on 2 cores with empty caches, once; kept in $cache)"
    trap 'rm -f "$built.$$"' EXIT
    # The lock must not outlive this script in a child of the compiler: 9>&-.
    (cd "$here/compose" && CGO_ENABLED=0 nice go build -trimpath -buildvcs=false \
        -ldflags "-s -w -X $module/internal.Version=$version" -o "$built.$$" $module/cmd) >&2 9>&-
    mv "$built.$$" "$built"
fi
echo "$built"
