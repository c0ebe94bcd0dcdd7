#!/bin/bash
# Prints the bin folder of a Python environment for the tests in tests/openstack on standard output; it reports what it
# does on standard error.
#
#   scripts/openstack.sh [--light]   with ansible-core and openstacksdk: `make test-openstack` (about 15 s, once; 110 MB)
#   scripts/openstack.sh --real      with Neutron and Keystone too: `make test-neutron` (1 to 4 minutes, once; 410 MB)
#
# Made with pip from the versions in scripts/openstack/. The cache lies outside the checkout and outlives it. Needs
# Python 3 with venv: scripts/setup.sh --openstack.
set -eu

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
cache=${XDG_CACHE_HOME:-$HOME/.cache}/calico-mesos
name=openstack requirements=$here/openstack/requirements.txt
if [ "${1:-}" = --real ]; then name=neutron requirements=$here/openstack/requirements-real.txt; fi
# For new pins, another place of the cache or another Python a new folder is made: programs of an environment name all.
made=$cache/$name-$({ cat "$requirements" "${BASH_SOURCE[0]}" && echo "$cache" && python3 --version; } | sha256sum | head -c 8)

say() { echo "openstack: $*" >&2; }

if [ ! -e "$made/complete" ]; then
    mkdir -p "$cache"
    # Several runs may get here at once: the first one installs, the others wait and find it.
    exec 9>"$cache/$name.lock"
    flock 9
fi
if [ ! -e "$made/complete" ]; then
    say "installing $(grep -c == "$requirements") Python packages with pip (once; kept in $cache)"
    rm -rf "$made"
    # Not in a scratch folder that is renamed: the programs' first lines name the folder.
    trap '[ -e "$made/complete" ] || rm -rf "$made"' EXIT
    python3 -m venv "$made"
    "$made/bin/python" -m pip --quiet --disable-pip-version-check install --no-deps --requirement "$requirements" >&2 9>&-
    touch "$made/complete"
fi
echo "$made/bin"
