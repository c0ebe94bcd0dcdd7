#!/bin/bash
# Prints the folder of a host's file system (Debian 12 with systemd, Docker, sshd) on standard output; it reports what it
# does on standard error.
#
# Made once by mmdebstrap (2 to 3 minutes with the download) and kept in the cache under the hash of its recipe: this
# script and the folder image/. It is only ever the lower folder of overlays, so that every lab on the machine shares it.
# Packages that roles install (etcd) lie in it as a local repository, /srv/repo, its only source: nothing is fetched later.
# The cache lies outside the checkout and outlives it. Needs root and scripts/setup.sh --cluster.
set -eu

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
cache=${XDG_CACHE_HOME:-$HOME/.cache}/calico-mesos
PATH=$PATH:/usr/sbin:/sbin
. "$here/common.sh"
made=$cache/host-$(cd "$here" && cat image.sh image/* | sha256sum | head -c 8)
# No Consul: scripts/consul.sh has it, and host.sh binds it into each host.
packages=systemd,systemd-sysv,dbus,iproute2,python3,python3-apt,procps,kmod,ca-certificates,openssh-server
packages+=,docker.io,iptables,nftables,ipset,conntrack,bind9-dnsutils,curl,iputils-ping
at_hand="etcd-server etcd-client"
# Not for hosts: node-image.sh takes the programs of calico/node's log out of it.
at_hand+=" runit"

say() { echo "host image: $*" >&2; }
die() {
    say "$*"
    exit 1
}

# What a machine image must not share with its copies, and what systemd-nspawn gets in the way of.
adapt() {
    local root=$1
    # /etc/hostname and this machine-id would win over what nspawn is told; a resolv.conf without a server costs each look-up seconds.
    rm -f "$root/etc/hostname" "$root/etc/resolv.conf" "$root/var/lib/dbus/machine-id"
    : >"$root/etc/machine-id"
    {
        printf '127.0.0.1 localhost\n::1 localhost ip6-localhost\n'
        for i in 1 2 3 4 5 6 7 8 9; do echo "10.77.0.1$i h$i"; done
    } >"$root/etc/hosts"
    chroot "$root" dpkg-divert --quiet --local --rename --divert /usr/sbin/runc.distrib --add /usr/sbin/runc
    install -m 755 "$here/image/runc" "$root/usr/sbin/runc"
    install -m 644 "$here/image/lab-cgroups.service" "$here/image/consul.service" "$root/etc/systemd/system/"
    chroot "$root" systemctl --quiet enable lab-cgroups consul
    chroot "$root" systemctl --quiet mask apt-daily.timer apt-daily-upgrade.timer e2scrub_all.timer \
        e2scrub_reap.service fstrim.timer console-getty.service getty@.service getty.target
    # The journal outlives a reboot, and a test that fails shows it.
    mkdir -p "$root/var/log/journal" "$root/etc/consul.d" "$root/etc/systemd/journald.conf.d"
    printf '[Journal]\nRateLimitIntervalSec=0\nSystemMaxUse=64M\n' >"$root/etc/systemd/journald.conf.d/lab.conf"
    install -d -m 700 "$root/root/.ssh"
    printf 'UseDNS no\nMaxSessions 50\n' >"$root/etc/ssh/sshd_config.d/lab.conf"
}

# Turns what apt has downloaded into the only source of packages.
repository() {
    local root=$1
    mkdir -p "$root/srv/repo"
    mv "$root"/var/cache/apt/archives/*.deb "$root/srv/repo/"
    (cd "$root/srv/repo" && dpkg-scanpackages -m . >Packages 2>/dev/null)
    rm -rf "$root"/etc/apt/sources.list "$root"/etc/apt/sources.list.d/* "$root"/var/lib/apt/lists/*
    echo 'deb [trusted=yes] file:/srv/repo ./' >"$root/etc/apt/sources.list"
    chroot "$root" apt-get -qq update
}

build() {
    local scratch=$1 hook source
    source=$(mirror)
    # shellcheck disable=SC2016 # mmdebstrap's shell expands $1
    hook='chroot "$1" apt-get -qq -y --no-install-recommends --download-only install '"$at_hand && mkdir \"\$1/kept\" && "
    # shellcheck disable=SC2016
    hook+='mv "$1"/var/cache/apt/archives/*.deb "$1/kept/"'
    mmdebstrap --quiet --mode=root --variant=minbase --aptopt='Apt::Install-Recommends "false"' \
        --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/man/*' \
        --dpkgopt='path-exclude=/usr/share/locale/*' --include="$packages" --customize-hook="$hook" \
        bookworm "$scratch/root" ${source:+"$source"} >&2 9>&-
    mv "$scratch/root/kept/"*.deb "$scratch/root/var/cache/apt/archives/"
    rmdir "$scratch/root/kept"
    adapt "$scratch/root"
    repository "$scratch/root"
}

if [ ! -d "$made" ]; then
    [ "$(id -u)" = 0 ] || die "needs root to make it (sudo make ...)"
    command -v mmdebstrap >/dev/null || die "needs mmdebstrap: scripts/setup.sh --cluster"
    mkdir -p "$cache"
    # Several runs may get here at once: the first one makes it, the others wait and find it.
    exec 9>"$cache/host.lock"
    flock 9
fi
if [ ! -d "$made" ]; then
    say "installing Debian 12 with Docker into $made (2 to 3 minutes, once)"
    begin=$SECONDS
    scratch=$(mktemp -d "$made.XXXXXX")
    trap 'rm -rf --one-file-system "$scratch"' EXIT
    build "$scratch"
    chmod 755 "$scratch/root"
    mv -T "$scratch/root" "$made"
    say "made in $((SECONDS - begin)) s"
fi
echo "$made"
