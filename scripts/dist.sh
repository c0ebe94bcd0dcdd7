#!/bin/bash
# Makes what is released, in target/dist: the Debian package, the programs as .tar.gz, SHA256SUMS.
#
# Everything is built twice, from the last commit, in two folders of different names, and compared: who builds the same
# commit with the same compiler gets the same bytes. That takes twice the time of `make build`.
#
#   DEB_PROFILE=debug   of unoptimised programs: to try this script
#
# Needs scripts/setup.sh --package. Uncommitted changes are left out, and named.
set -eu
cd "$(dirname "${BASH_SOURCE[0]}")/.."
umask 022
export LC_ALL=C.UTF-8 TZ=UTC

root=$PWD
profile=${DEB_PROFILE:-release}
version=$(sed -n 's/^version = "\(.*\)"$/\1/p' Cargo.toml | head -1)
host=$(rustc -vV | sed -n 's/^host: //p')
SOURCE_DATE_EPOCH=$(git log -1 --format=%ct)
export SOURCE_DATE_EPOCH

say() { echo "dist: $*" >&2; }
git diff --quiet HEAD || say "changes that are not committed are left out"

# Cargo reads neither of these out of a folder's .cargo/config.toml when RUSTFLAGS is set. Paths of this machine become
# names: they would stand in messages of panics and in debug information.
flags() {
    local cargo=${CARGO_HOME:-$HOME/.cargo}
    echo "-C target-feature=+crt-static --remap-path-prefix=$1/source=/calico-mesos --remap-path-prefix=$1/target=/target" \
        "--remap-path-prefix=$cargo=/cargo --remap-path-prefix=$(rustc --print sysroot)=/rust"
}

tarball() {
    local programs=$1 folder=$2 out=$3
    local name=calico-mesos-$version-$(uname -s | tr '[:upper:]' '[:lower:]')-$(uname -m)
    local tree=$folder/$name
    mkdir -p "$tree"/{bin,lib,units,examples,man}
    for program in calico-executor calico-runc calico-mesos; do install -m 755 "$programs/$program" "$tree/bin/"; done
    strip --strip-unneeded "$tree"/bin/*
    for shell in bash zsh fish; do
        "$programs/calico-mesos" completion $shell >"$tree/completion.$shell"
    done
    "$programs/calico-mesos" man "$tree/man" >&2
    (
        cd "$folder/source"
        install -m 644 README.md SECURITY.md CHANGELOG.md LICENSE "$tree/"
        install -m 644 mesos/*.service mesos/*.timer mesos/*.socket "$tree/units/"
        install -m 755 mesos/calico-node.sh "$tree/lib/calico-node"
        install -m 644 mesos/config.toml mesos/agent-flags.env mesos/consul-policy.hcl "$tree/examples/"
        install -m 755 mesos/etcd-role.sh "$tree/examples/"
        cp -R marathon-examples "$tree/examples/"
        install -m 644 mesos/debian/*.8 "$tree/man/"
    )
    tar -C "$folder" --sort=name --mtime="@$SOURCE_DATE_EPOCH" --owner=0 --group=0 --numeric-owner --mode=u+w,go-w \
        -c "$name" | gzip -9n >"$out/$name.tar.gz"
}

build() {
    local folder=$1
    mkdir -p "$folder/source" "$folder/out"
    git archive HEAD | tar -x -C "$folder/source"
    (
        cd "$folder/source"
        export CARGO_TARGET_DIR=$folder/target RUSTFLAGS
        RUSTFLAGS=$(flags "$folder")
        # shellcheck disable=SC2046
        ${CARGO:-cargo} build --locked --bins $([ "$profile" = debug ] || echo --release) >&2
        DEB_PROGRAMS=$folder/target/$host/$profile DEB_DIST=$folder/out DEB_PROFILE=$profile scripts/deb.sh >/dev/null
    )
    tarball "$folder/target/$host/$profile" "$folder" "$folder/out"
    (cd "$folder/out" && sha256sum -- * >SHA256SUMS)
}

scratch=$root/target/dist-build
rm -rf "$scratch"
# Names of different lengths, so that a path that is left in the bytes shows.
for round in first the-second; do
    say "building $version ($profile), the ${round#the-} time of two"
    begin=$SECONDS
    build "$scratch/$round"
    say "took $((SECONDS - begin)) s"
    # The programs stay for a look when they differ, the rest is some gigabytes.
    rm -rf "$scratch/$round/target/$host/$profile"/{deps,build,incremental} "$scratch/$round/target/$profile"
done
if ! cmp "$scratch/first/out/SHA256SUMS" "$scratch/the-second/out/SHA256SUMS"; then
    diff "$scratch/first/out/SHA256SUMS" "$scratch/the-second/out/SHA256SUMS" >&2 || true
    say "two builds of one commit differ: compare $scratch/first/out and $scratch/the-second/out"
    exit 1
fi
mkdir -p target/dist
rm -f target/dist/*
mv "$scratch/first/out/"* target/dist/
rm -rf "$scratch"
say "both builds are the same; in target/dist: $(cd target/dist && echo *)"
