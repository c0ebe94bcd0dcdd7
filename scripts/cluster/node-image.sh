#!/bin/bash
# Writes an image for `docker load`, without a Docker.
#
#   node-image.sh standin PROGRAM NAME OUT   calico/node's stand-in: its start and log scripts as the real ones work, with
#                                            PROGRAM (tests/cluster) as calico-node
#   node-image.sh calico FOLDER NAME OUT     the real calico/node, laid together out of FOLDER, which holds
#                                              calico-node   the program, static (CGO_ENABLED=0 go build ./node/cmd/calico-node)
#                                              filesystem/   node/filesystem of Calico's sources (etc/, sbin/)
#                                              confd/        confd/etc/calico/confd of Calico's sources (conf.d/, templates/)
#                                            What it needs besides comes from Debian (BIRD, runit, ipset; cached).
#                                            Never to be published.
#   node-image.sh busybox NAME OUT           what apps say `"image": "busybox"` for
set -eu

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
cache=${XDG_CACHE_HOME:-$HOME/.cache}/calico-mesos
PATH=$PATH:/usr/sbin:/sbin
. "$here/common.sh"
scratch=$(mktemp -d)
trap 'rm -rf --one-file-system "$scratch"' EXIT

die() {
    echo "node image: $*" >&2
    exit 1
}

static_busybox() {
    local path
    for path in "$(type -P busybox || true)" "$cache/busybox"; do
        if [ -x "$path" ] && ! head -c 4096 "$path" | grep -qa '/ld-linux'; then echo "$path" && return; fi
    done
    die "no static busybox: scripts/setup.sh"
}

with_busybox() {
    local root=$1 word
    mkdir -p "$root"/{bin,etc,tmp,root,usr/bin}
    install -m 755 "$(static_busybox)" "$root/bin/busybox"
    for word in $("$root/bin/busybox" --list); do
        [ -e "$root/bin/$word" ] || ln -s busybox "$root/bin/$word"
    done
    printf 'root:x:0:0:root:/root:/bin/sh\n' >"$root/etc/passwd"
    ln -s /bin/which "$root/usr/bin/which"
}

# Programs of the hosts' Debian with the libraries that they load.
with_programs() {
    local root=$1 debian=$2 program file
    shift 2
    for program; do
        install -D -m 755 "$debian$(chroot "$debian" readlink -f "$program")" "$root$program"
        for file in $(chroot "$debian" ldd "$program" | grep -o '/[^ ]*'); do
            [ -e "$root$file" ] || install -D -m 755 "$debian$file" "$root$file"
        done
    done
}

# One layer, in the form of `docker save`.
pack() {
    local root=$1 name=$2 out=$3 config=$4 id
    chmod 755 "$root"
    mkdir "$scratch/image"
    tar -C "$root" --sort=name --mtime=@0 --owner=0 --group=0 --numeric-owner -cf "$scratch/image/layer.tar" .
    id=$(sha256sum "$scratch/image/layer.tar" | cut -d' ' -f1)
    cat >"$scratch/image/config.json" <<-END
		{"architecture": "$(dpkg --print-architecture)", "os": "linux", "config": $config,
		 "rootfs": {"type": "layers", "diff_ids": ["sha256:$id"]}, "history": [{"created_by": "node-image.sh"}]}
	END
    echo "[{\"Config\": \"config.json\", \"RepoTags\": [\"$name\"], \"Layers\": [\"layer.tar\"]}]" >"$scratch/image/manifest.json"
    tar -C "$scratch/image" -cf "$out" .
}

node='{"Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "SVDIR=/etc/service/enabled"], "Cmd": ["start_runit"]}'

standin() {
    local program=$1 debian root=$scratch/root part
    debian=$("$here/image.sh")
    with_busybox "$root"
    rm -f "$root/bin/bash"
    with_programs "$root" "$debian" /bin/bash /usr/sbin/iptables
    mkdir -p "$root/usr/lib/x86_64-linux-gnu" "$scratch/runit"
    cp -a "$debian"/usr/lib/*-linux-gnu/xtables "$root/usr/lib/$(cd "$debian/usr/lib" && echo *-linux-gnu)/"
    dpkg-deb -x "$debian"/srv/repo/runit_*.deb "$scratch/runit"
    install -m 755 "$scratch"/runit/usr/bin/{runsv,runsvdir,svlogd,sv} "$root/usr/bin/"
    mkdir -p "$root"/etc/service/available "$root"/{var/lib/calico,var/run,var/log,run,sbin}
    install -m 755 "$program" "$root/bin/calico-node"
    install -m 755 "$here/standin/start_runit" "$root/sbin/start_runit"
    for part in felix bird bird6 confd node-services; do
        install -D -m 755 "$here/standin/run" "$root/etc/service/available/$part/run"
        install -D -m 755 "$here/standin/log-run" "$root/etc/service/available/$part/log/run"
        sed -i "s/@PART@/$part/" "$root/etc/service/available/$part/run" "$root/etc/service/available/$part/log/run"
    done
    pack "$root" "$2" "$3" "$node"
}

# Debian with what calico/node's scripts and Felix call; under the hash of this list.
node_base() {
    local packages=runit,bird,iptables,ipset,conntrack,iproute2,kmod,procps,net-tools,nftables,bash,ca-certificates made source
    made=$cache/node-base-$(echo "$packages" | sha256sum | head -c 8).tar
    if [ ! -e "$made" ]; then
        command -v mmdebstrap >/dev/null || die "needs mmdebstrap: scripts/setup.sh --cluster"
        source=$(mirror)
        echo "node image: installing Debian 12 with BIRD and runit (about a minute, once; kept in $made)" >&2
        mmdebstrap --quiet --mode=root --variant=minbase --aptopt='Apt::Install-Recommends "false"' \
            --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/man/*' \
            --dpkgopt='path-exclude=/usr/share/locale/*' --include="$packages" bookworm "$made.new.tar" \
            ${source:+"$source"} >&2
        mv "$made.new.tar" "$made"
    fi
    echo "$made"
}

calico() {
    local folder=$1 root=$scratch/root part base
    for part in calico-node filesystem/sbin/start_runit filesystem/etc/rc.local confd/conf.d confd/templates; do
        [ -e "$folder/$part" ] || die "$folder/$part is missing: see what the folder must hold in $0"
    done
    base=$(node_base)
    mkdir -p "$root"
    tar -C "$root" -xf "$base"
    # Debian's is a link, and Calico's a folder.
    rm -rf "$root/etc/service"
    # /sbin is a link in Debian.
    tar -C "$folder/filesystem" -c . | tar -C "$root" --no-same-owner --keep-directory-symlink -x
    mkdir -p "$root/etc/calico/confd/config"
    cp -a --no-preserve=ownership "$folder/confd/conf.d" "$folder/confd/templates" "$root/etc/calico/confd/"
    install -m 755 "$folder/calico-node" "$root/bin/calico-node"
    for part in birdc birdc6; do
        [ -e "$root/usr/sbin/${part/birdc/birdcl}" ] || ln -s $part "$root/usr/sbin/${part/birdc/birdcl}"
    done
    pack "$root" "$2" "$3" "$node"
}

busybox() {
    with_busybox "$scratch/root"
    pack "$scratch/root" "$1" "$2" '{"Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"], "Cmd": ["sh"]}'
}

case "${1:-}:$#" in
    standin:4 | calico:4 | busybox:3) "$@" ;;
    *) sed -n '2,/^set -eu/{/^#/s/^# \{0,1\}//p}' "$0" >&2 && exit 64 ;;
esac
