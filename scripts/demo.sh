#!/bin/bash
# Two tasks with addresses of their own, on this machine alone: `make demo`.
#
# Installs what is missing, builds, runs marathon-examples/testapp.json on private daemons, and proves
# that the machine is as it was. Ends by itself; exit code 0 when everything was seen to work.
set -eu
cd "$(dirname "${BASH_SOURCE[0]}")/.."

if [ -t 1 ]; then bold=$'\e[1m' plain=$'\e[0m'; else bold='' plain=''; fi
title() { printf '\n%s%s%s\n' "$bold" "$*" "$plain"; }
cargo=${CARGO:-cargo}

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
begin=$SECONDS

introduction() {
    title "calico-mesos: a Marathon task gets its own IP address"
    cat <<-END
	This demo launches two instances of marathon-examples/testapp.json the way a Mesos agent
	launches a Docker task. Each gets an address from Calico, they talk to each other, and they
	have names in DNS. Then they are killed, and the demo looks for anything that was left.
	It uses its own etcd, Docker daemon and Consul in a temporary folder, never this machine's.

	END
    # Consul has a line of its own.
    local missing
    missing=$(scripts/setup.sh --check 2>&1 | sed -n 's/^setup: //p' | grep -v Consul | paste -sd ';') || true
    if [ -z "$missing" ]; then
        echo "To install:  nothing"
    else
        echo "To install:  $missing"
        echo "             (with apt, about a minute; no service is started or enabled, nothing is removed)"
    fi
    if scripts/consul.sh --find >/dev/null; then
        echo "Consul:      found"
    elif command -v go >/dev/null; then
        echo "Consul:      is built once with Go and kept in the cache: 3 to 6 minutes"
    else
        echo "Consul:      not found, and no Go to build it: the demo shows everything but DNS"
    fi
    if [ -x "$(program)" ]; then
        echo "Programs:    built before; brought up to date"
    else
        echo "Programs:    built in release mode: 3 to 6 minutes the first time"
    fi
    echo "Then:        about 10 seconds"
}

# Where cargo puts the release build depends on the target that .cargo/config.toml names.
program() {
    ls -t target/*/release/calico-mesos target/release/calico-mesos 2>/dev/null | head -1
}

prove() {
    title "Is the machine as it was?"
    scripts/snapshot.sh "$work/after"
    if scripts/snapshot.sh --compare "$work/before" "$work/after" >"$work/differences"; then
        echo "yes: $(ls "$work/before" | paste -sd ',' | sed 's/,/, /g')"
        return 0
    fi
    echo "no, this is different now:"
    sed 's/^/  /' "$work/differences"
    return 1
}

introduction
if [ "$(id -u)" != 0 ]; then
    echo "the demo needs root (network namespaces, a Docker daemon of its own): sudo make demo" >&2
    exit 1
fi
scripts/snapshot.sh "$work/before"

title "Getting ready"
scripts/setup.sh --consul-if-possible
echo "building calico-mesos, calico-executor and calico-runc (cargo build --release) ..."
CARGO_TERM_PROGRESS_WHEN=never $cargo build --locked --release --quiet
echo "ready after $((SECONDS - begin)) s"

title "Launching two instances of testapp"
grep -E '"(image|CALICO_IP|CALICO_PROFILE|SERVICE_PORT|cmd)"' marathon-examples/testapp.json
echo
status=0
"$(program)" run marathon-examples/testapp.json --dev --instances 2 --then scripts/demo-steps.sh || status=$?

prove || status=1
if [ $status = 0 ]; then
    title "That was it. Next: $(program | sed "s|^$PWD/||") run --dev YOUR-APP.json"
else
    title "The demo failed, see above."
fi
exit $status
