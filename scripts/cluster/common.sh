# What the scripts of this folder share. To be sourced; `lab` is the lab's folder.
# shellcheck shell=bash
prefix=${LAB_PREFIX:-lab}
cgroups=/sys/fs/cgroup

die() {
    echo "$(basename "$0"): $*" >&2
    exit 1
}
usage() {
    sed -n '2,/^set -eu/{/^#/s/^# \{0,1\}//p}' "$0" >&2
    exit 64
}

# Runs a command every 50 ms until it succeeds, at most this many times.
wait_for() {
    local times=$1 log=$2
    shift 2
    for _ in $(seq "$times"); do
        if "$@" 2>>"$log"; then return 0; fi
        sleep 0.05
    done
    return 1
}
gone() { ! kill -0 "$1"; }

# A lock or a pipe of the caller must not live as long as the lab.
close_inherited() {
    local fd
    for fd in "/proc/$BASHPID/fd/"*; do
        fd=${fd##*/}
        [ "$fd" -le 2 ] || eval "exec $fd>&-"
    done
}

# The pid in a file of the lab, if that process lives and is the lab's (numbers are used again).
ours() {
    local pid
    pid=$(cat "$lab/$1" 2>/dev/null) && tr '\0' '\n' <"/proc/$pid/cmdline" 2>/dev/null | grep -qxF "$lab" && echo "$pid"
}

# The first child of a process.
child_of() {
    local child=
    # There is no end of line in that file, which `read` calls an error.
    read -r child _ <"/proc/$1/task/$1/children" || [ -n "$child" ] || return 1
    echo "$child"
}

# A process in the lab's namespaces, by its pid here.
namespace() {
    local pid
    pid=$(ours keeper) && child_of "$pid" || die "no lab runs in $lab"
}

# The roots of the cgroup hierarchies: one folder for each controller, or a single one.
hierarchies() {
    local dir
    if [ -e $cgroups/cgroup.controllers ]; then
        echo $cgroups
    else
        for dir in $cgroups/*/; do [ ! -f "$dir/cgroup.procs" ] || echo "${dir%/}"; done
    fi
}

remove_cgroups() {
    local root dir
    for root in $(hierarchies); do
        dir=$root/$prefix-$1
        [ ! -d "$dir" ] || wait_for 100 /dev/null empty "$dir" || die "the cgroup $dir is still in use"
    done
}
# Removes a cgroup and those below it; processes that have just been killed may still be in it.
empty() {
    [ ! -d "$1" ] || find "$1" -depth -type d -exec rmdir {} + 2>/dev/null
    [ ! -d "$1" ]
}

# The mirror of Debian that this machine itself installs from; nothing where it does not say: mmdebstrap has one of its own.
mirror() {
    local found
    found=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 'Codename: bookworm' | head -1)
    # Before the first `apt-get update` it names none.
    [ -n "$found" ] || found=$(sed -n 's/^URIs: *\([^ ]*\).*/\1/p; s/^deb \(\[[^]]*\] \)\{0,1\}\([^ ]*\) .*/\2/p' \
        /etc/apt/sources.list.d/*.sources /etc/apt/sources.list /etc/apt/sources.list.d/*.list 2>/dev/null | head -1)
    echo "$found"
}
