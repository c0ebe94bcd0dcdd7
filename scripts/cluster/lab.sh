#!/bin/bash
# Real systemd hosts on one switch, in systemd-nspawn, side by side with other labs.
#
#   lab.sh up N DIR        makes DIR and N hosts in it, h1 (10.77.0.11) to hN; returns when all of them have booted
#   lab.sh net DIR CMD...  runs a command at the switch (10.77.0.1), from where ssh reaches the hosts: ansible-playbook, curl
#   lab.sh down DIR        stops everything and removes DIR; also what a crash has left. Nothing is left then
#
#   LAB=DIR host.sh in h1 CMD...   runs a command in a host, as root (see host.sh: reboot, cut, boot, agent)
#
# DIR must lie on a real file system (ext4, xfs: overlays are made on it). In it: ansible.cfg and ssh.cfg (key, no host key
# checks), key, hosts/NAME/console. `ANSIBLE_CONFIG=DIR/ansible.cfg lab.sh net DIR ansible-playbook -i INVENTORY ...` works
# with `ansible_host` left to the names h1, h2: they are in DIR/ssh.cfg.
#
#   LAB_PREFIX  (lab)  the first word of the names of machines and cgroups; labs that run at once need one each
#   LAB_OWNER   ()     the pid of a process without which the lab must not live: when it ends, however, `down` follows
#
# One process keeps the lab: the first one of a pid namespace, with a network and a mount namespace of its own. Whatever
# ends it ends every host, and links, routes, mounts and named namespaces go with it. Only cgroups and DIR need `down`.
# Each host has Docker, sshd and a Consul agent (h1 is the server; DNS on 8600), and etcd's packages to install.
# Needs root and scripts/setup.sh --cluster.
set -eu

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
PATH=$PATH:/usr/sbin:/sbin
. "$here/common.sh"

# The switch, and a namespace with a link to it for each host.
keep='
    mount -t tmpfs -o mode=755 tmpfs /run && mkdir -p /run/netns /run/systemd/nspawn /run/lock || exit 1
    ip link set lo up && ip link add br0 type bridge && ip addr add 10.77.0.1/24 dev br0 && ip link set br0 up || exit 1
    for i in $(seq "$2"); do
        ip netns add h$i && ip -n h$i link set lo up &&
            ip link add p$i type veth peer name eth0 netns h$i && ip link set p$i master br0 up &&
            ip -n h$i addr add 10.77.0.1$i/24 dev eth0 && ip -n h$i link set eth0 up &&
            ip -n h$i route add default via 10.77.0.1 || exit 1
    done
    : >"$1/ready"
    sleep infinity & wait'

watch='while [ -d "/proc/$2" ] && [ -e "$1/keeper" ]; do sleep 1; done; [ ! -e "$1/keeper" ] || exec "$3" down "$1"'

configure() {
    ssh-keygen -q -t ed25519 -N '' -C lab -f "$lab/key"
    {
        for i in $(seq "$1"); do printf 'Host h%d\n    HostName 10.77.0.1%d\n' "$i" "$i"; done
        printf 'Host *\n    User root\n    IdentityFile %s/key\n    IdentitiesOnly yes\n    UserKnownHostsFile /dev/null\n' "$lab"
        printf '    StrictHostKeyChecking no\n    LogLevel ERROR\n    ControlMaster auto\n    ControlPersist 60s\n'
        # The path of a socket may have 107 characters.
        printf '    ControlPath %s/.%%C\n' "$lab"
    } >"$lab/ssh.cfg"
    {
        printf '[defaults]\nhost_key_checking = False\ninterpreter_python = /usr/bin/python3\nretry_files_enabled = False\n'
        printf 'local_tmp = %s/ansible\nforks = 10\n' "$lab"
        printf '[ssh_connection]\npipelining = True\nssh_args = -F %s/ssh.cfg\n' "$lab"
    } >"$lab/ansible.cfg"
}

up() {
    local count=$1 failed=false pids=()
    lab=$(realpath -m "$2")
    [ "$(id -u)" = 0 ] || die "needs root"
    [ "$count" -ge 1 ] && [ "$count" -le 9 ] || die "1 to 9 hosts, not $count"
    [ ! -e "$lab" ] || [ -z "$(ls -A "$lab")" ] || die "$lab is not empty: lab.sh down $lab"
    local image consul
    image=$("$here/image.sh")
    consul=$("$here/../consul.sh")
    mkdir -p "$lab/hosts"
    echo "$prefix" >"$lab/prefix"
    echo "$image" >"$lab/image"
    echo "$consul" >"$lab/consul"
    configure "$count"
    trap '"$here/lab.sh" down "$lab"' EXIT
    (
        close_inherited
        exec setsid unshare --mount --net --pid --fork --kill-child --mount-proc --propagation private \
            bash -c "$keep" lab-keeper "$lab" "$count" </dev/null >>"$lab/log" 2>&1
    ) &
    echo $! >"$lab/keeper"
    wait_for 100 "$lab/log" test -e "$lab/ready" || die "the switch could not be made: $(cat "$lab/log")"
    if [ -n "${LAB_OWNER:-}" ]; then
        (
            close_inherited
            exec setsid bash -c "$watch" lab-watch "$lab" "$LAB_OWNER" "$here/lab.sh" </dev/null >>"$lab/log" 2>&1
        ) &
        echo $! >"$lab/watch"
    fi
    for i in $(seq "$count"); do
        LAB=$lab "$here/host.sh" up "h$i" &
        pids+=($!)
    done
    for pid in "${pids[@]}"; do wait "$pid" || failed=true; done
    if $failed; then
        # What was to be seen is in the consoles, which `down` removes.
        tail -n 20 "$lab"/hosts/*/console >&2 || true
        die "a host did not boot"
    fi
    trap - EXIT
}

down() {
    lab=$(realpath -m "$1")
    [ -e "$lab" ] || return 0
    [ -e "$lab/prefix" ] || die "$lab is not a lab's folder"
    prefix=$(cat "$lab/prefix")
    local pid d
    # From its own watcher it is not to be ended half way.
    if pid=$(ours watch) && [ "$pid" != $$ ]; then kill "$pid" 2>/dev/null || true; fi
    if pid=$(ours keeper); then
        # The first process of its namespace goes last: all the others are dead then, and their mounts gone.
        kill -KILL "$(child_of "$pid")" 2>/dev/null || kill -KILL "$pid" 2>/dev/null || true
        wait_for 200 "$lab/log" gone "$pid" || die "the lab's processes do not end: pid $pid"
    fi
    for d in "$lab"/hosts/*/; do
        [ ! -d "$d" ] || remove_cgroups "$(basename "$d")"
    done
    # The masters of ssh connections end by themselves; their sockets are in the folder.
    for d in "$lab"/.*; do
        [ ! -S "$d" ] || ssh -o ControlPath="$d" -O exit lab 2>/dev/null || true
    done
    rm -rf --one-file-system "$lab"
}

net() {
    lab=$(realpath -m "$1")
    shift
    exec nsenter -t "$(namespace)" -n -- "$@"
}

case "${1:-}" in
    up) [ $# = 3 ] || usage; up "$2" "$3" ;;
    down) [ $# = 2 ] || usage; down "$2" ;;
    net) [ $# -ge 3 ] || usage; shift; net "$@" ;;
    *) usage ;;
esac
