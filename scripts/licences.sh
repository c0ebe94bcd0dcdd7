#!/bin/bash
# Checks the licences of what is built here: every crate, and every Go module of the Consul, the Docker
# engine and the docker compose that the tests use. One line for each that is not known to be open; exit code 1 then.
#
# Needs no network. Crates say their licence in their manifests. Of a Go module the licence files are
# read where Go has unpacked it; a peer whose modules were never fetched here is named and left out.
set -eu
cd "$(dirname "${BASH_SOURCE[0]}")/.."

# As SPDX writes them; one of them is enough where a crate offers a choice.
open='Apache-2.0|MIT|BSD-2-Clause|BSD-3-Clause|ISC|Zlib|0BSD|Unlicense|MIT-0|CC0-1.0|BSL-1.0|MPL-2.0'
# Asked for in addition to one of these, and open as well.
also='Unicode-3.0|CDLA-Permissive-2.0'
# Modules without any licence file that were looked at by hand: part of the Moby project, which is under Apache-2.0.
fileless='github.com/moby/extensions'
bad=0
refuse() {
    echo "licences: $*"
    bad=1
}

# "NAME LICENCE", a line for each crate that is built on this platform.
crates() {
    local host
    host=$(rustc -vV | sed -n 's/^host: //p')
    # Crates of other platforms are never fetched.
    ${CARGO:-cargo} metadata --locked --offline --filter-platform "$host" --format-version 1 | tr '{' '\n' |
        sed -n 's/^"name":"\([^"]*\)","version":"\([^"]*\)","id":.*,"license":\("[^"]*"\|null\),.*/\1-\2 \3/p' | tr -d '"'
}

check_crates() {
    local name expression count=0 part parts fine
    while read -r name expression; do
        count=$((count + 1))
        fine=true
        # Every part that "AND" joins must hold; of those that "OR" (or an old "/") joins, one.
        parts=$(sed 's# OR #|#g; s# */ *#|#g; s/[()]//g; s/ AND /\n/g; s/ WITH [A-Za-z-]*//g' <<<"$expression")
        while read -r part; do
            tr '|' '\n' <<<"$part" | grep -qxE "$open|$also" || fine=false
        done <<<"$parts"
        $fine || refuse "crate $name: $expression"
    done < <(crates)
    [ $count -gt 100 ] || refuse "cargo metadata named only $count crates"
    echo "licences: $count crates looked at"
}

# licence_of FILE: what a licence file says it is.
licence_of() {
    local text
    text=$(head -c 4000 "$1" | tr -s ' \n\t' ' ')
    case $text in
        *'Business Source License'* | *'Server Side Public License'* | *'Elastic License'* | *'Commons Clause'*) echo closed ;;
        *'Mozilla Public License'* | *'Apache License'* | *'Permission is hereby granted, free of charge'* | \
            *'Redistribution and use in source and binary forms'* | *'Permission to use, copy, modify, and'* | \
            *'apache.org/licenses/LICENSE-2.0'* | *'The MIT License'* | *'BSD 3-Clause'* | \
            *'This is free and unencumbered software'* | *'Creative Commons'*) echo open ;;
        *) echo unknown ;;
    esac
}

# check_modules FOLDER PACKAGE...: the modules that these packages really need.
check_modules() {
    local folder=$1 module dir file kinds kind count=0 list
    shift
    if ! list=$(cd "scripts/$folder" && GOPROXY=off GOFLAGS=-mod=readonly GOTOOLCHAIN=local CGO_ENABLED=0 go list -deps \
        -tags 'exclude_graphdriver_btrfs no_btrfs' -f '{{with .Module}}{{.Path}} {{.Dir}}{{end}}' "$@" 2>/dev/null); then
        echo "licences: $folder: not looked at, its modules were never fetched here"
        return
    fi
    while read -r module dir; do
        count=$((count + 1))
        kinds=''
        # Of a module without one at its top, those of its folders.
        while read -r file; do kinds="$kinds $(licence_of "$file")"; done < <(
            find "$dir" -maxdepth 1 -type f -iname 'licen[cs]e*' -o -maxdepth 1 -type f -iname 'copying*' | grep . ||
                find "$dir" -maxdepth 3 -type f -iname 'licen[cs]e*'
        )
        case $kinds in
            *closed*) refuse "$folder: module $module is not open source (see $dir)" ;;
            *open*) ;;
            '') if grep -qx "$module" <<<"$fileless"; then
                echo "licences: $folder: module $module has no licence file, as known"
            else
                refuse "$folder: module $module has no licence file (see $dir)"
            fi ;;
            *) refuse "$folder: module $module has a licence that is not known here (see $dir)" ;;
        esac
    done < <(sort -u <<<"$list" | grep .)
    echo "licences: $folder: $count modules looked at"
}

check_crates
if command -v go >/dev/null; then
    check_modules consul github.com/hashicorp/consul
    check_modules docker-engine github.com/moby/moby/v2/cmd/dockerd github.com/moby/moby/v2/cmd/docker-proxy \
        github.com/containerd/containerd/v2/cmd/containerd github.com/containerd/containerd/v2/cmd/containerd-shim-runc-v2 \
        github.com/opencontainers/runc
    check_modules compose github.com/docker/compose/v2/cmd
else
    echo "licences: Go modules are not looked at without Go"
fi
exit $bad
