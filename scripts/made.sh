#!/bin/bash
# What a private cluster of `calico-mesos run --dev` has made on a machine.
#
#   scripts/made.sh FOLDER ADDRESS...    lists it, one thing a line, for the cluster in FOLDER and its tasks
#   scripts/made.sh --left LIST          of such a list, what is still there; exit code 1 when there is something
#
# Only what bears a mark of the cluster is listed, and only what is listed is looked for later: what others
# change on the machine meanwhile is theirs. A mark is the folder's path, a task's address or link, the
# environment of the daemons' start (see src/rig/daemons/members.rs), and what the cluster itself notes before it
# changes it: `footprint` (fixed places that dockerd makes) and `host.json` (settings of the host with their
# values before, and the pools that rules of the firewall name).
set -eu
PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin

have() { command -v "$1" >/dev/null; }

processes() {
    local dir pid
    for dir in /proc/[0-9]*; do
        pid=${dir#/proc/}
        if tr '\0' '\n' 2>/dev/null <"$dir/environ" |
            grep -qE "^(CALICO_MESOS_PRIVATE|MESOS_DIRECTORY|MESOS_SANDBOX)=$1/" ||
            grep -q "/cm${1//[^a-zA-Z0-9]/-}-d/" "$dir/cgroup" 2>/dev/null; then
            echo "process $pid $(started "$pid") $(cat "$dir/comm" 2>/dev/null)"
        fi
    done
}

# The time of its start, which makes a pid unique; 0 when it is gone.
started() { sed 's/.*) //' 2>/dev/null <"/proc/$1/stat" | cut -d' ' -f20 | grep . || echo 0; }

list() {
    local folder=$1 address link place key before now
    shift
    echo "folder $folder"
    processes "$folder"
    awk -v folder="$folder/" 'index($5, folder) == 1 { print "mount", $5 }' /proc/self/mountinfo
    find /sys/fs/cgroup -maxdepth 2 -type d -name "cm${folder//[^a-zA-Z0-9]/-}-d" -printf 'cgroup %p\n' 2>/dev/null || true
    for address in "$@"; do
        link=$(ip -o route show "$address" 2>/dev/null | sed -n 's/.* dev \([^ ]*\).*/\1/p' | head -1)
        [ -n "$link" ] || continue
        echo "link $link"
        echo "route $address $link"
    done
    if [ -s "$folder/run/local/host.json" ]; then
        sed -n 's/.*"pools": *\[\([^]]*\)\].*/\1/p' "$folder/run/local/host.json" | tr -d '" ' | tr ',' '\n' |
            awk '{ print "rules", $0 }'
        tr '{' '\n' <"$folder/run/local/host.json" |
            sed -n 's/.*"key": *"\([^"]*\)", *"value": *"\([^"]*\)".*/\1 \2/p' |
            while read -r key before; do
                now=$(cat "/proc/sys/$key" 2>/dev/null) || continue
                if [ "$now" != "$before" ]; then echo "setting $key $before $now"; fi
            done
    fi
    if [ -s "$folder/footprint" ]; then
        while read -r place || [ -n "$place" ]; do
            if [ -e "$place" ]; then echo "place $place ${folder%/*}"; fi
        done <"$folder/footprint"
    fi
}

# Whether one line of a list is still true.
is_left() {
    local kind=$1 what=$2 more=${3:-} now=${4:-}
    case $kind in
        folder | cgroup) [ -e "$what" ] ;;
        process) [ "$(started "$what")" = "$more" ] && ! grep -q ') Z ' "/proc/$what/stat" ;;
        mount) awk -v at="$what" '$5 == at { found = 1 } END { exit !found }' /proc/self/mountinfo ;;
        link) [ -e "/proc/sys/net/ipv4/conf/$what" ] ;;
        route) ip -o route show "$what" 2>/dev/null | grep -q " dev $more " ;;
        rules) have nft && nft --stateless list ruleset 2>/dev/null | grep -qF "$what" ;;
        # Only our own value is ours: another one was set by something else.
        setting) [ "$more" != "$now" ] && [ "$(cat "/proc/sys/$what" 2>/dev/null)" = "$now" ] ;;
        # The last private cluster that noted it removes it, and what others put there keeps it.
        place) ! grep -qsxF "$what" "$more"/cmdev-*/footprint && { [ -f "$what" ] || { [ -d "$what" ] && [ -z "$(ls -A "$what")" ]; }; } ;;
    esac
}

left() {
    local line found=false
    while IFS= read -r line; do
        # shellcheck disable=SC2086 # The words of a line are its parts.
        if is_left $line; then
            found=true
            echo "$line"
        fi
    done <"$1"
    $found && return 1 || return 0
}

case ${1:-} in
    --left) left "$2" ;;
    '' | -*)
        echo "usage: made.sh FOLDER ADDRESS... | made.sh --left LIST" >&2
        exit 64
        ;;
    *) list "$@" ;;
esac
