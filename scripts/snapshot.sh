#!/bin/bash
# What calico-mesos could change on a machine, written down, to prove that it did not.
#
#   scripts/snapshot.sh DIR              one file a subject into DIR
#   scripts/snapshot.sh --compare A B    the differences, one a line; exit code 1 when there are some
#
# Counters, life times and ages are left out: they change by themselves. A subject whose program is
# missing is left out as well, and compared only when both snapshots have it. Private daemons of
# other runs (below a folder cmdev-*) do not count.
set -eu
PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin

have() { command -v "$1" >/dev/null; }

network() {
    # fib_trie holds the IPv4 addresses and routes of all tables; both work without any program.
    # The inner nodes of the trie only say how the kernel arranges them.
    sed -E '/\+--/d; s/^[[:space:]]+//' /proc/net/fib_trie >"$1/addresses and routes"
    if [ -r /proc/net/if_inet6 ]; then
        sort /proc/net/if_inet6 >"$1/IPv6 addresses"
        awk '{ print $1 "/" $2, "via", $5, "metric", $6, $10 }' /proc/net/ipv6_route | sort >"$1/IPv6 routes"
    fi
    # Not /sys/class/net, which shows the namespace that /sys was mounted in.
    sed -nE 's/^ *([^ :]+):.*/\1/p' /proc/net/dev | sort >"$1/links"
    if have ip; then
        { ip -4 rule && ip -6 rule; } >"$1/rules" 2>/dev/null || rm -f "$1/rules"
        ip -o link | sed -E 's/ (qdisc|state|mode|group|qlen) [^ ]+//g; s/^[0-9]+: //' | sort >"$1/link settings"
    fi
}

firewall() {
    if have nft; then nft --stateless list ruleset >"$1/nft rules" 2>/dev/null || rm -f "$1/nft rules"; fi
    for save in iptables-save ip6tables-save; do
        if have $save; then
            $save 2>/dev/null | sed -E '/^#/d; s/\[[0-9]+:[0-9]+\]$//' >"$1/$save"
        fi
    done
}

# Everything below conf/ for all, default and the links that are not ours, and what forwarding sets.
sysctls() {
    # Secrets may not be read, and stay where they are; some names are for writing only.
    grep -sH '' /proc/sys/net/ipv4/ip_forward /proc/sys/net/ipv[46]/{conf,neigh}/*/* |
        sed '/\/cali/d; s|^/proc/sys/||; s|:| = |' | sort >"$1/sysctls" || true
}

files() {
    for place in /run/calico-mesos /var/lib/calico-mesos /run/calico /var/lib/calico /run/docker/netns /run/netns; do
        if [ -e "$place" ]; then find "$place" ! -name '*.lock' -printf '%p %y\n'; fi
    done | sort >"$1/files"
    for file in /etc/docker/daemon.json /etc/calico-mesos/config.toml; do
        if [ -e "$file" ]; then sha256sum "$file"; else echo "no $file"; fi
    done >"$1/configuration"
    # Those in temporary folders are other runs' and tests' own.
    awk '{ for (i = 1; i <= NF; i++) if ($i == "-" && $(i + 1) == "nsfs") print $5 }' /proc/self/mountinfo |
        { grep -E '^/(run|var/run|var/lib)/' || true; } | sort >"$1/bound namespaces"
    # What starts with the machine.
    find /etc/systemd/system /etc/rc[2-5].d \( -path '*.wants/*' -o -name 'S*' \) 2>/dev/null | sort >"$1/services"
}

# The daemons of this network namespace that a demo might have left or started.
daemons() {
    local own
    own=$(readlink /proc/self/ns/net)
    for dir in /proc/[0-9]*; do
        read -r name 2>/dev/null <"$dir/comm" || continue
        case $name in
            dockerd | containerd | containerd-shim* | etcd | consul | calico-*)
                if [ "$(readlink "$dir/ns/net" 2>/dev/null)" = "$own" ]; then
                    echo "${dir#/proc/} $(tr '\0' ' ' 2>/dev/null <"$dir/cmdline" || true)"
                fi
                ;;
        esac
    done | { grep -v '/cmdev-' || true; } | sort >"$1/daemons"
}

compare() {
    local same=true subject
    for file in "$1"/*; do
        subject=$(basename "$file")
        [ -e "$2/$subject" ] || continue
        if ! diff "$file" "$2/$subject" >/dev/null; then
            same=false
            diff "$file" "$2/$subject" | sed -nE "s/^< /$subject: gone: /p; s/^> /$subject: new: /p" || true
        fi
    done
    $same
}

case ${1:-} in
    --compare) compare "$2" "$3" ;;
    '' | -*)
        echo "usage: snapshot.sh DIR | snapshot.sh --compare DIR DIR" >&2
        exit 64
        ;;
    *)
        mkdir -p "$1"
        network "$1"
        firewall "$1"
        sysctls "$1"
        files "$1"
        daemons "$1"
        ;;
esac
