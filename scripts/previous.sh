#!/bin/bash
# Prints a folder with the three programs of an earlier release on standard output; it reports what it does on
# standard error.
#
#   scripts/previous.sh             of the newest tag; where there is none, of the commit at which this branch
#                                   left main; on main itself, of the commit before
#   scripts/previous.sh REVISION    of that commit
#   scripts/previous.sh FOLDER      that folder, once it is seen to have all three
#
# They are built once, in a worktree of their own below target/, with the dependencies that are there already.
set -eu

cd "$(dirname "${BASH_SOURCE[0]}")/.."
programs="calico-executor calico-runc calico-mesos"

say() { echo "previous: $*" >&2; }

default_revision() {
    git describe --tags --abbrev=0 2>/dev/null && return
    local head main base
    head=$(git rev-parse HEAD)
    for main in origin/main main; do
        base=$(git merge-base HEAD "$main" 2>/dev/null) || continue
        if [ "$base" != "$head" ]; then echo "$base"; return; fi
    done
    echo HEAD~1
}

wanted=${1:-$(default_revision)}
if [ -d "$wanted" ]; then
    for name in $programs; do
        if [ ! -x "$wanted/$name" ]; then say "$wanted has no $name"; exit 1; fi
    done
    cd "$wanted" && pwd
    exit 0
fi
if ! commit=$(git rev-parse --verify --quiet "$wanted^{commit}"); then
    say "'$wanted' is neither a folder nor a revision"
    exit 1
fi
built=$PWD/target/previous/$commit
if [ -d "$built" ]; then
    echo "$built"
    exit 0
fi

say "building $(git log -1 --format='%h (%s)' "$commit")"
source=$PWD/target/previous/source
rm -rf "$source"
git worktree prune
git worktree add --force --detach "$source" "$commit" >&2
scratch=$(mktemp -d "$built.XXXXXX")
trap 'rm -rf "$scratch"; git worktree remove --force "$source"' EXIT
export CARGO_TARGET_DIR=$PWD/target
# Cargo reads the .cargo/config.toml of both folders, and flags given twice would build every dependency anew.
export RUSTFLAGS="-C target-feature=+crt-static"
(cd "$source" && ${CARGO:-cargo} build --locked --bins) >&2
host=$(rustc -vV | sed -n 's/^host: //p')
for name in $programs; do cp "$CARGO_TARGET_DIR/$host/debug/$name" "$scratch/"; done
mv -T "$scratch" "$built"
say "built into $built"
echo "$built"
