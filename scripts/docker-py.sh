#!/bin/bash
# Prints the folder of docker-py's own integration tests on standard output; it reports what it does on standard error.
#
# In that folder: `venv`, a Python environment with what the tests import, at the versions that docker-py/requirements.txt
# pins, and `docker`, the source distribution with `tests/integration`. Made once with pip. The cache lies outside the
# checkout and outlives it. Needs Python 3 with venv: scripts/setup.sh --docker-py.
set -eu

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
cache=${XDG_CACHE_HOME:-$HOME/.cache}/calico-mesos
requirements=$here/docker-py/requirements.txt
version=$(sed -n 's/^docker==//p' "$requirements")
# For new pins a new folder is made.
made=$cache/docker-py-$version-$(cat "$requirements" "${BASH_SOURCE[0]}" | sha256sum | head -c 8)

say() { echo "docker-py: $*" >&2; }

if [ ! -d "$made" ]; then
    mkdir -p "$cache"
    # Several runs may get here at once: the first one installs, the others wait and find it.
    exec 9>"$cache/docker-py.lock"
    flock 9
fi
if [ ! -d "$made" ]; then
    say "installing docker-py $version and its tests with pip (about a minute, once; kept in $cache)"
    scratch=$(mktemp -d "$made.XXXXXX")
    trap 'rm -rf "$scratch"' EXIT
    # Its scripts would name the scratch folder: they are never called, only `venv/bin/python -m`.
    python3 -m venv "$scratch/venv"
    pip() { "$scratch/venv/bin/python" -m pip --quiet --disable-pip-version-check "$@" >&2 9>&-; }
    pip install --no-deps --requirement "$requirements"
    # The package that pip installs has no tests. Nothing is built, but pip asks the source's set-up for its name.
    pip download --no-deps --no-build-isolation --no-binary docker --dest "$scratch" "docker==$version"
    mkdir "$scratch/docker"
    tar -C "$scratch/docker" --strip-components 1 -xf "$scratch"/docker-"$version".tar.gz
    [ -d "$scratch/docker/tests/integration" ] || {
        say "the source distribution of docker-py $version has no tests/integration"
        exit 1
    }
    chmod 755 "$scratch"
    mv -T "$scratch" "$made"
    trap - EXIT
fi
echo "$made"
