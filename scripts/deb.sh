#!/bin/bash
# Builds the Debian package and prints its path on standard output; what it does goes to standard error.
#
#   scripts/deb.sh      target/dist/calico-mesos_<version>_<architecture>.deb
#
#   DEB_PROFILE=debug   of the programs as `cargo build` makes them: for tries, in seconds
#   DEB_VERSION=...     another version than Cargo.toml's, to try upgrades with
#   DEB_DIST=folder     where to put it
#   DEB_PROGRAMS=folder with the three programs: nothing is built
#
# Needs debhelper (scripts/setup.sh --package). The same commit gives the same bytes: all times are the commit's.
set -eu
cd "$(dirname "${BASH_SOURCE[0]}")/.."
umask 022
export LC_ALL=C.UTF-8 TZ=UTC

profile=${DEB_PROFILE:-release}
version=${DEB_VERSION:-$(sed -n 's/^version = "\(.*\)"$/\1/p' Cargo.toml | head -1)}
dist=${DEB_DIST:-target/dist}
programs=${DEB_PROGRAMS:-}

say() { echo "deb: $*" >&2; }
die() {
    say "$*"
    exit 1
}

command -v dh >/dev/null || die "needs debhelper: scripts/setup.sh --package"
case $profile in
release) flags=--release compression="-Zxz" ;;
# Three quarters of the time otherwise go into compressing symbols that a test does not need.
debug) flags='' compression="-Zgzip -z1" ;;
*) die "DEB_PROFILE is release or debug, not '$profile'" ;;
esac
if [ -z "$programs" ]; then
    say "building the programs ($profile)"
    # shellcheck disable=SC2086
    ${CARGO:-cargo} build --locked --bins $flags >&2
    host=$(rustc -vV | sed -n 's/^host: //p')
    programs=${CARGO_TARGET_DIR:-target}/$host/$profile
fi
SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct)}
export SOURCE_DATE_EPOCH

# Everything that debhelper reads, in a folder of its own, as debian/install and its like name it.
mkdir -p target "$dist"
stage=$(mktemp -d "$PWD/target/deb.XXXXXX")
trap 'rm -rf "$stage"' EXIT
tree=$stage/calico-mesos
mkdir -p "$tree"/{bin,units,lib,completions,man,examples}
for name in calico-executor calico-runc calico-mesos; do
    [ -x "$programs/$name" ] || die "$programs has no $name"
    install -m 755 "$programs/$name" "$tree/bin/"
done
install -m 644 mesos/*.service mesos/*.timer mesos/*.socket "$tree/units/"
install -m 755 mesos/calico-node.sh "$tree/lib/calico-node"
"$programs/calico-mesos" completion bash >"$tree/completions/calico-mesos"
"$programs/calico-mesos" completion zsh >"$tree/completions/_calico-mesos"
"$programs/calico-mesos" completion fish >"$tree/completions/calico-mesos.fish"
"$programs/calico-mesos" man "$tree/man" >&2
install -m 644 mesos/debian/*.8 "$tree/man/"
install -m 644 mesos/config.toml mesos/agent-flags.env mesos/consul-policy.hcl "$tree/examples/"
install -m 755 mesos/etcd-role.sh "$tree/examples/"
cp -R marathon-examples "$tree/examples/"
install -m 644 README.md SECURITY.md CHANGELOG.md "$tree/"
cp -R mesos/debian "$tree/debian"
rm "$tree"/debian/*.8
cat >"$tree/debian/changelog" <<END
calico-mesos ($version) unstable; urgency=medium

  * See /usr/share/doc/calico-mesos/changelog.gz.

 -- $(sed -n 's/^Maintainer: //p' mesos/debian/control)  $(date -u -R -d "@$SOURCE_DATE_EPOCH")
END
# By commit time too, whatever the checkout's are.
find "$tree" -exec touch -h -d "@$SOURCE_DATE_EPOCH" {} +

say "packing"
if ! (cd "$tree" && DEB_RULES_REQUIRES_ROOT=no DEB_COMPRESSION=$compression debian/rules binary) >"$stage/log" 2>&1; then
    cat "$stage/log" >&2
    die "debhelper failed"
fi
package=$(cd "$stage" && ls calico-mesos_*.deb)
mv "$stage/$package" "$dist/$package"
echo "$(cd "$dist" && pwd)/$package"
