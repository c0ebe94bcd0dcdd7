#!/bin/bash
# One host of a lab (see lab.sh), whose folder is in the variable LAB.
#
#   host.sh in NAME CMD...   runs a command in it, as root, with this standard input and output
#   host.sh reboot NAME      an orderly reboot: returns when it has booted again
#   host.sh cut NAME         takes its power away; host.sh boot NAME starts it again
#   host.sh up NAME          makes it (lab.sh does this)
#   host.sh down NAME        an orderly halt; its disk is removed
#   host.sh agent NAME slave|agent PROGRAM   installs a Mesos agent, see agent.sh
#
# Its disk is the image with a folder of its own laid over it, $LAB/hosts/NAME/upper; its console is beside that.
set -eu

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
PATH=$PATH:/usr/sbin:/sbin
. "$here/common.sh"
[ $# -ge 2 ] || usage
lab=$(realpath -m "${LAB:?the folder of the lab}")
[ -e "$lab/prefix" ] || die "$lab is not a lab's folder"
prefix=$(cat "$lab/prefix")
name=$2
host=$lab/hosts/$name

inside() {
    local leader
    leader=$(cat "$host/leader" 2>/dev/null) || die "the host $name does not run"
    nsenter -t "$leader" -m -u -i -n -p -C -r -w -- \
        env -i PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root "$@"
}

# nspawn would make its cgroups at the root of the hierarchies, where two hosts meet.
make_cgroups() {
    local root file
    for root in $(hierarchies); do
        mkdir -p "$root/$prefix-$name"
        for file in cpuset.cpus cpuset.mems; do
            # A new cpuset is empty, and nothing can be moved into it.
            if [ -f "$root/cgroup.clone_children" ] && [ -f "$root/$file" ]; then
                cat "$root/$file" >"$root/$prefix-$name/$file"
            fi
        done
    done
}
enter_cgroups() {
    local root
    for root in $(hierarchies); do echo "$BASHPID" >"$root/$prefix-$name/cgroup.procs"; done
}

# API_VFS_WRITABLE=network: with 1, the host's systemd-sysctl would write the whole machine's fs.protected_*.
# add_key and keyctl are for runc. --keep-unit: there may be no systemd to make a scope with; nspawn then ends at a reboot.
nspawn='
    mount -t overlay overlay -o "lowerdir=$1,upperdir=$2/upper,workdir=$2/work" "$2/root" || exit 1
    export SYSTEMD_NSPAWN_API_VFS_WRITABLE=network
    exec systemd-nspawn --quiet -D "$2/root" -M "$3-$4" --hostname="$4" --uuid="$(cat "$2/uuid")" --resolv-conf=off \
        --boot --register=no --keep-unit --network-namespace-path="/run/netns/$4" --capability=all \
        --system-call-filter="add_key keyctl bpf" --bind="$2/docker:/var/lib/docker" \
        --bind-ro="$5:/usr/local/bin/consul" --console=pipe'

has_started() {
    local pid leader
    pid=$(child_of "$1") && leader=$(child_of "$pid") && [ "$(cat "/proc/$leader/comm")" = systemd ] || return 1
    echo "$pid" >"$host/pid"
    echo "$leader" >"$host/leader"
}
has_booted() {
    local state
    state=$(inside systemctl is-system-running || true)
    case $state in
        running) ;;
        degraded) echo "$name: failed: $(inside systemctl list-units --failed --plain --no-legend)" >&2 ;;
        *) return 1 ;;
    esac
}

boot() {
    local keeper pid
    keeper=$(namespace)
    make_cgroups
    (
        close_inherited
        enter_cgroups
        exec setsid nsenter -t "$keeper" -m -n -p -- unshare -m \
            sh -c "$nspawn" host "$(cat "$lab/image")" "$host" "$prefix" "$name" "$(cat "$lab/consul")" \
            </dev/null >>"$host/console" 2>&1
    ) &
    pid=$!
    wait_for 200 /dev/null has_started "$pid" || die "$name does not start, see $host/console"
    wait_for 1200 "$host/log" has_booted || die "$name has not booted within a minute, see $host/console"
}

stopped() {
    local pid
    pid=$(cat "$host/pid" 2>/dev/null) || return 0
    wait_for 600 /dev/null gone "$pid" || return 1
    rm -f "$host/pid" "$host/leader"
    remove_cgroups "$name"
}

# The machine that the host runs on has one server; the others join it.
configure_consul() {
    local address=10.77.0.1${name#h} role='"retry_join": ["10.77.0.11"]'
    [ "$name" != h1 ] || role='"server": true, "bootstrap_expect": 1'
    cat >"$host/upper/etc/consul.d/lab.json" <<-END
		{"node_name": "$name", "bind_addr": "$address", "client_addr": "127.0.0.1 ::1", "data_dir": "/var/lib/lab-consul", $role, "ui_config": {"enabled": false},
		 "disable_update_check": true, "retry_interval": "1s", "performance": {"raft_multiplier": 1}, "log_level": "warn"}
	END
}

up() {
    [ ! -e "$host" ] || die "$host is there already"
    mkdir -p "$host"/{docker,upper,work,root} "$host"/upper/{etc/consul.d,root/.ssh}
    chmod 755 "$host/upper" "$host/upper/etc"
    chmod 700 "$host/upper/root" "$host/upper/root/.ssh"
    cat /proc/sys/kernel/random/uuid >"$host/uuid"
    install -m 600 "$lab/key.pub" "$host/upper/root/.ssh/authorized_keys"
    configure_consul
    boot
}

case $1 in
    in)
        shift 2
        inside "$@"
        ;;
    up) up ;;
    boot) boot ;;
    reboot)
        inside systemctl reboot
        stopped || die "$name does not end for its reboot, see $host/console"
        boot
        ;;
    cut)
        # The first process in it as well: nothing else ends it with nspawn.
        kill -KILL "$(cat "$host/pid")" "$(cat "$host/leader")"
        stopped || die "$name does not end"
        ;;
    down)
        kill -TERM "$(cat "$host/pid")" 2>/dev/null || true
        stopped || die "$name does not halt, see $host/console"
        rm -rf --one-file-system "$host"
        ;;
    agent) LAB=$lab "$here/agent.sh" "${@:2}" ;;
    *) usage ;;
esac
