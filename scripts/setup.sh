#!/bin/bash
# Brings a Debian machine to the point where `make demo`, `make test` and `make bench` work.
#
#   scripts/setup.sh           installs what is missing, builds Consul when there is none
#   scripts/setup.sh --check   only prints what is missing (exit code 1 then)
#   scripts/setup.sh --no-consul            leaves Consul out: `make demo` builds it beside everything else
#   scripts/setup.sh --peers                also what Felix and `make test-peers` need
#   scripts/setup.sh --docker-engine        also builds a current Docker engine: `make test-docker`
#   scripts/setup.sh --cluster              also what hosts in systemd-nspawn need: `make test-cluster`
#   scripts/setup.sh --docker-py            also installs docker-py's own tests: `make test-docker-py`
#   scripts/setup.sh --openstack            also installs Ansible and openstacksdk: `make test-openstack`
#   scripts/setup.sh --neutron              also installs Neutron and Keystone: `make test-neutron`
#   scripts/setup.sh --package              only what `make deb` needs: debhelper, lintian
#   scripts/setup.sh --compose              also builds docker compose: `make test-compose`
#
# It installs programs that are missing and nothing else, removes nothing, starts no service and
# enables none. Root, cargo and (only when Consul must be built) go are needed beforehand.
set -eu

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
cache=${XDG_CACHE_HOME:-$HOME/.cache}/calico-mesos
PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin
only_check=false consul_needed=true engine_needed=false peers_needed=false docker_py_needed=false
cluster_needed=false openstack_needed= only_package=false compose_needed=false
case "${1:-}" in
    --check) only_check=true ;;
    --no-consul) consul_needed=false ;;
    --docker-engine) engine_needed=true ;;
    --peers) peers_needed=true ;;
    --cluster) cluster_needed=true ;;
    --package) only_package=true consul_needed=false ;;
    --docker-py) docker_py_needed=true consul_needed=false ;;
    --openstack) openstack_needed=--light consul_needed=false ;;
    --neutron) openstack_needed=--real consul_needed=false ;;
    --compose) compose_needed=true consul_needed=false ;;
esac

say() { echo "setup: $*" >&2; }
die() {
    say "$*"
    exit 1
}
have() { command -v "$1" >/dev/null; }

# Not linked against anything: it becomes the whole content of an image.
static_busybox() {
    local path
    for path in "$(command -v busybox || true)" "$cache/busybox"; do
        if [ -x "$path" ] && ! head -c 4096 "$path" | grep -qa '/ld-linux'; then return 0; fi
    done
    return 1
}

check_beforehand() {
    [ "$(id -u)" = 0 ] || die "needs root: network namespaces, dockerd. Run it as root (sudo make ...)"
    local wanted got
    wanted=$(sed -n 's/^rust-version = "\(.*\)"$/\1/p' "$here/../Cargo.toml")
    have cargo || die "needs cargo $wanted or later: install Rust with rustup, then try again"
    got=$(cargo --version | cut -d' ' -f2)
    [ "$(printf '%s\n' "$wanted" "$got" | sort -V | head -1)" = "$wanted" ] ||
        die "cargo is $got, but $wanted or later is needed: rustup update"
    ! $consul_needed || "$here/consul.sh" --find >/dev/null || have go ||
        die "needs Consul, or Go to build it with: install one of them, then try again"
    ! $compose_needed || have go || die "needs Go to build docker compose with: install it, then try again"
    ! $engine_needed || have go || die "needs Go to build a Docker engine with: install it, then try again"
}

# protoc's own files, which Debian only recommends beside it, are imported by etcd's messages.
protoc_is_complete() {
    local scratch result=0
    scratch=$(mktemp -d)
    echo 'syntax = "proto3"; import "google/protobuf/descriptor.proto";' >"$scratch/probe.proto"
    protoc -I "$scratch" -o /dev/null "$scratch/probe.proto" 2>/dev/null || result=1
    rm -rf "$scratch"
    return $result
}

# Debian packages of the programs that are missing, one a line.
missing_packages() {
    while read -r program package; do
        have "$program" || echo "$package"
    done <<-END
		etcd etcd-server
		protoc protobuf-compiler
		dig bind9-dnsutils
		ip iproute2
		iptables iptables
		nft nftables
		cc gcc
		make make
		tar tar
		openssl openssl
		curl curl
		pgrep procps
	END
    protoc_is_complete || echo libprotobuf-dev
    # Debian's docker.io conflicts with docker-ce, so any dockerd will do. runc and containerd come with it.
    have dockerd || echo docker.io
    # Static linking needs libc.a.
    [ -n "$(find /usr/lib /usr/lib64 -name libc.a 2>/dev/null | head -1)" ] || echo libc6-dev
    static_busybox || have busybox || echo busybox-static
    if $peers_needed; then
        have bird || echo bird
        have ipset || echo ipset
        have conntrack || echo conntrack
    fi
    if $cluster_needed; then
        have systemd-nspawn || echo systemd-container
        have mmdebstrap || echo mmdebstrap
        have dpkg-scanpackages || echo dpkg-dev
        have dh || echo debhelper
        have ssh || echo openssh-client
        have unshare || echo util-linux
    fi
    if { $docker_py_needed || $cluster_needed || [ -n "$openstack_needed" ]; } && ! python3 -c 'import ensurepip, venv' 2>/dev/null; then echo python3-venv; fi
    if $engine_needed; then
        have pkg-config || echo pkg-config
        [ -e /usr/include/seccomp.h ] || echo libseccomp-dev
    fi
}

# Runs a command while no package script may start a service, and undoes that whatever happens.
without_starting_services() {
    local guard=/usr/sbin/policy-rc.d
    local kept=$guard.calico-mesos-kept
    if [ -e "$guard" ]; then mv "$guard" "$kept"; fi
    restore_guard() {
        rm -f "$guard"
        if [ -e "$kept" ]; then mv "$kept" "$guard"; fi
    }
    trap restore_guard EXIT
    printf '#!/bin/sh\nexit 101\n' >"$guard"
    chmod 755 "$guard"
    "$@"
    restore_guard
    trap - EXIT
}

install_packages() {
    have apt-get || die "needs Debian's apt-get to install: $*. Install these programs by hand, then try again"
    say "installing with apt: $* (about a minute; no service is started or enabled)"
    local before after log unit
    before=$(mktemp) after=$(mktemp) log=$(mktemp)
    units >"$before"
    if ! { apt-get -qq update && without_starting_services env DEBIAN_FRONTEND=noninteractive \
        apt-get -qq -o Dpkg::Use-Pty=0 install --no-remove --no-install-recommends "$@"; } </dev/null >"$log" 2>&1; then
        cat "$log" >&2
        die "apt could not install: $*"
    fi
    units >"$after"
    # Packages enable their services for the next boot; those that were not here before are switched off again.
    comm -13 "$before" "$after" | while read -r unit; do
        # Enabled means: a link to it. systemctl may not be there, or not be running.
        find /etc/systemd/system -type l -lname "*/$unit" -delete
        if [ -e "/etc/init.d/${unit%.service}" ]; then
            update-rc.d "${unit%.service}" disable </dev/null >>"$log" 2>&1 || true
        fi
    done
    rm -f "$before" "$after" "$log"
}

units() {
    find /lib/systemd/system /usr/lib/systemd/system -maxdepth 1 \( -name '*.service' -o -name '*.socket' \) \
        -printf '%f\n' 2>/dev/null | sort -u
}

# busybox-static conflicts with Debian's dynamic busybox, which stays: only the program is taken out of it.
fetch_static_busybox() {
    say "taking a static busybox out of Debian's package into $cache"
    local scratch
    scratch=$(mktemp -d)
    mkdir -p "$cache"
    (cd "$scratch" && chmod 777 . && apt-get -qq download busybox-static && dpkg-deb -x busybox-static_*.deb root)
    install -m 755 "$(find "$scratch/root" -type f -path '*/bin/busybox')" "$cache/busybox"
    rm -rf "$scratch"
}

if $only_package; then
    packages=()
    have dh || packages+=(debhelper)
    have lintian || packages+=(lintian)
    if [ "${#packages[@]}" != 0 ]; then
        [ "$(id -u)" = 0 ] || die "needs root to install ${packages[*]}: run it as root (sudo make ...)"
        install_packages "${packages[@]}"
    fi
    exit 0
fi
check_beforehand
mapfile -t packages < <(missing_packages | sort -u)
if $only_check; then
    [ "${#packages[@]}" = 0 ] || die "missing Debian packages: ${packages[*]}"
    static_busybox || die "missing a static busybox"
    "$here/consul.sh" --find >/dev/null || die "missing Consul"
    exit 0
fi
if [ "${#packages[@]}" != 0 ]; then install_packages "${packages[@]}"; fi
static_busybox || fetch_static_busybox
if $consul_needed; then "$here/consul.sh" >/dev/null; fi
if $engine_needed; then "$here/docker-engine.sh" >/dev/null; fi
if $compose_needed; then "$here/compose.sh" >/dev/null; fi
if $docker_py_needed; then "$here/docker-py.sh" >/dev/null; fi
if [ -n "$openstack_needed" ]; then "$here/openstack.sh" "$openstack_needed" >/dev/null; fi
if $cluster_needed; then
    "$here/cluster/image.sh" >/dev/null
    "$here/cluster/ansible.sh" >/dev/null
fi
say "everything is there"
