#!/bin/bash
# Prints the folder with the programs of Ansible (ansible-playbook, ansible-galaxy, ansible-lint) on standard output; it
# reports what it does on standard error. The folder must be in PATH.
#
# A Python environment with what ansible/requirements.txt pins, made once with pip. The cache lies outside the checkout and
# outlives it. Needs Python 3 with venv: scripts/setup.sh --cluster.
set -eu

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
cache=${XDG_CACHE_HOME:-$HOME/.cache}/calico-mesos
requirements=$here/ansible/requirements.txt
# For new pins a new folder is made. Its programs name it: it is made in place, and the file `complete` says that it is.
made=$cache/ansible-$(cat "$requirements" "${BASH_SOURCE[0]}" | sha256sum | head -c 8)

if [ ! -e "$made/complete" ]; then
    mkdir -p "$cache"
    # Several runs may get here at once: the first one installs, the others wait and find it.
    exec 9>"$cache/ansible.lock"
    flock 9
fi
if [ ! -e "$made/complete" ]; then
    echo "ansible: installing with pip into $made (about a minute, once)" >&2
    rm -rf "$made"
    python3 -m venv "$made"
    "$made/bin/python" -m pip --quiet --disable-pip-version-check install --requirement "$requirements" >&2 9>&-
    : >"$made/complete"
fi
echo "$made/bin"
