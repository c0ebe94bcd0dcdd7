# To be sourced: a Python environment in the cache, made once with pip.
# shellcheck shell=bash
#
#   python_environment NAME REQUIREMENTS SCRIPT [PIP OPTIONS...]   prints its folder; NAME is for messages
#
# It is made in place, since its programs' first lines name their folder; the file `complete` says that it is whole. For new
# pins, a new SCRIPT, another place of the cache or another Python a new one is made. The cache lies outside the checkout
# and outlives it. Needs Python 3 with venv.
python_environment() (
    set -eu
    name=$1 requirements=$2 script=$3
    shift 3
    cache=${XDG_CACHE_HOME:-$HOME/.cache}/calico-mesos
    made=$cache/$name-$({ cat "$requirements" "$script" "${BASH_SOURCE[0]}" && echo "$cache" && python3 --version; } |
        sha256sum | head -c 8)
    if [ ! -e "$made/complete" ]; then
        mkdir -p "$cache"
        # Several runs may get here at once: the first one installs, the others wait and find it.
        exec 9>"$cache/$name.lock"
        flock 9
    fi
    if [ ! -e "$made/complete" ]; then
        echo "$name: installing $(grep -c == "$requirements") Python packages with pip (about a minute, once; kept in $cache)" >&2
        rm -rf "$made"
        trap '[ -e "$made/complete" ] || rm -rf "$made"' EXIT
        python3 -m venv "$made"
        "$made/bin/python" -m pip --quiet --disable-pip-version-check install "$@" --requirement "$requirements" >&2 9>&-
        touch "$made/complete"
    fi
    echo "$made"
)
