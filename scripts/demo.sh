#!/bin/bash
# Two tasks with addresses of their own, on this machine alone: `make demo`.
#
# Installs what is missing, builds, runs marathon-examples/testapp.json on private daemons, and proves
# that nothing of what it made is left. Ends by itself; exit code 0 when everything was seen to work.
set -eu
cd "$(dirname "${BASH_SOURCE[0]}")/.."

if [ -t 1 ]; then bold=$'\e[1m' plain=$'\e[0m'; else bold='' plain=''; fi
title() { printf '\n%s%s%s\n' "$bold" "$*" "$plain"; }
cargo=${CARGO:-cargo}

work=$(mktemp -d)
finish() {
    local job
    # Each has a process group of its own: the compilers go with it.
    for job in $(jobs -pr); do kill -- "-$job" 2>/dev/null || true; done
    rm -rf "$work"
}
trap finish EXIT
trap 'exit 130' INT TERM
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
    consul=found
    if scripts/consul.sh --find >/dev/null; then
        echo "Consul:      found"
    elif command -v go >/dev/null; then
        consul=built
        echo "Consul:      is built once with Go and kept in the cache, beside the programs"
    else
        consul=missing
        echo "Consul:      not found, and no Go to build it: the demo shows everything but DNS"
    fi
    if [ -x "$(program)" ]; then
        echo "Programs:    built before; brought up to date"
    elif [ $consul = built ]; then
        echo "Programs:    built for the demo, unoptimised: with Consul 5 to 9 minutes the first time"
    else
        echo "Programs:    built for the demo, unoptimised: 2 to 4 minutes the first time"
    fi
    echo "Then:        about 10 seconds"
}

# Where cargo puts them depends on the target that .cargo/config.toml names.
program() {
    ls -t target/*/demo/calico-mesos target/demo/calico-mesos 2>/dev/null | head -1
}

# job NAME COMMAND...: runs it beside the others, with its words in a file.
job() {
    local name=$1
    shift
    set -m
    "$@" </dev/null >"$work/$name" 2>&1 &
    set +m
}

# How far a job has come, in a few words.
told() {
    case $1 in
        fetch) echo "fetching crates: $(grep -c '^ *Downloaded ' "$work/fetch" || true)" ;;
        programs) echo "programs: $(grep -c '^ *Compiling ' "$work/programs" || true) of about 230 crates" ;;
        consul) echo "Consul: $(grep -o '[0-9]* of about [0-9]* packages' "$work/consul" | tail -1)" ;;
    esac
}

# wait_for NAME PID...: until the last of them has ended, with progress on a terminal; its exit code.
wait_for() {
    local pid=$1 at=$SECONDS status=0
    shift
    while kill -0 "$pid" 2>/dev/null; do
        if [ -t 1 ]; then
            local words='' name
            for name in "$@"; do words="$words   $(told "$name")"; done
            printf '\r\e[K%4d s%s' $((SECONDS - begin)) "$words"
        fi
        sleep 0.5
    done
    wait "$pid" || status=$?
    if [ -t 1 ]; then printf '\r\e[K'; fi
    echo "$1: $((SECONDS - at)) s"
    if [ $status != 0 ]; then
        cat "$work/$1" >&2
    fi
    return $status
}

# Consul by Go, crates by cargo and packages by apt wait for the network in turn, and for processors side by side.
get_ready() {
    local consul_pid='' fetch_pid
    if [ $consul = built ]; then
        job consul scripts/consul.sh
        consul_pid=$!
    fi
    job fetch $cargo fetch --locked --target "$(rustc -vV | sed -n 's/^host: //p')"
    fetch_pid=$!
    scripts/setup.sh --no-consul
    # What it could not fetch is what the build will name, if it is needed.
    wait_for "$fetch_pid" fetch ${consul_pid:+consul} || true
    echo "building calico-mesos, calico-executor and calico-runc (cargo build --profile demo) ..."
    job programs env CARGO_TERM_PROGRESS_WHEN=never CARGO_TERM_COLOR=never $cargo build --locked --profile demo --bins
    wait_for $! programs ${consul_pid:+consul}
    if [ -n "$consul_pid" ] && ! wait_for "$consul_pid" consul; then
        echo "Consul could not be built, see above: the demo shows everything but DNS"
    fi
    echo "ready after $((SECONDS - begin)) s"
}

prove() {
    title "Is anything left of what the demo made?"
    if [ ! -s "$work/made" ]; then
        echo "not known: the demo did not come to the point where it lists what it made"
        return 1
    fi
    if scripts/made.sh --left "$work/made" >"$work/left"; then
        echo "no: $(cut -d' ' -f1 "$work/made" | sort | uniq -c | awk '{ print $2 " " $1 }' | paste -sd ',' | sed 's/,/, /g'), all gone"
        return 0
    fi
    echo "yes, this is still there:"
    sed 's/^/  /' "$work/left"
    return 1
}

introduction
if [ "$(id -u)" != 0 ]; then
    echo "the demo needs root (network namespaces, a Docker daemon of its own): sudo make demo" >&2
    exit 1
fi
title "Getting ready"
get_ready

title "Launching two instances of testapp"
grep -E '"(image|CALICO_IP|CALICO_PROFILE|SERVICE_PORT|cmd)"' marathon-examples/testapp.json
echo
status=0
DEMO_MADE=$work/made "$(program)" run marathon-examples/testapp.json --dev --instances 2 \
    --then scripts/demo-steps.sh || status=$?

prove || status=1
if [ $status = 0 ]; then
    title "That was it. Next: $(program | sed "s|^$PWD/||") run --dev YOUR-APP.json"
else
    title "The demo failed, see above."
fi
exit $status
