#!/bin/bash
# What the demo shows while its two tasks run. Called by `calico-mesos run --then`, which passes in CM_*
# what there is; see src/cli/run/hook.rs.
set -eu

read -r first second <<<"$CM_CONTAINERS"
read -r here there <<<"$CM_ADDRESSES"
read -r short _ <<<"$CM_SHORT_IDS"

if [ -t 1 ]; then bold=$'\e[1m' plain=$'\e[0m'; else bold='' plain=''; fi
step() { printf '\n%s%s%s\n' "$bold" "$*" "$plain"; }
show() {
    echo "\$ $*"
    "$@" 2>&1 | sed 's/^/    /'
    return "${PIPESTATUS[0]}"
}
# A Docker client is not part of every package of the daemon; the namespace is the same.
inside() {
    local container=$1
    shift
    if command -v docker >/dev/null; then
        show docker exec "$container" "$@"
    else
        show nsenter --net="$CM_FOLDER/run/tasks/${container#mesos-}/netns" busybox "$@"
    fi
}

# For the end, when exactly these things have to be gone; $CM_ADDRESSES is a list.
# shellcheck disable=SC2086
"$(dirname "${BASH_SOURCE[0]}")/made.sh" "$CM_FOLDER" $CM_ADDRESSES >"${DEMO_MADE:-/dev/null}"

step "The first task ($short) has an interface of its own:"
inside "$first" ip -4 addr show eth0

step "It reaches the second one ($there), without NAT and without port mappings:"
inside "$first" ping -c 3 "$there"

if [ -z "${CM_DNS_NAME:-}" ]; then
    step "No Consul here, so there are no names to look up."
    exit 0
fi

# A new entry reaches Consul's DNS within a moment.
for _ in $(seq 50); do
    answer=$(dig +short "@$CM_DNS_SERVER" -p "$CM_DNS_PORT" A "$CM_DNS_NAME")
    if grep -qx "$here" <<<"$answer" && grep -qx "$there" <<<"$answer"; then break; fi
    sleep 0.1
done

step "Consul knows both addresses by the app's name..."
show dig +noall +answer "@$CM_DNS_SERVER" -p "$CM_DNS_PORT" A "$CM_DNS_NAME"
grep -qx "$here" <<<"$answer" && grep -qx "$there" <<<"$answer" || {
    echo "the addresses $here and $there are not both in the answer" >&2
    exit 1
}

step "...and the port as well:"
show dig +noall +answer "@$CM_DNS_SERVER" -p "$CM_DNS_PORT" SRV "$CM_DNS_NAME"
dig +short "@$CM_DNS_SERVER" -p "$CM_DNS_PORT" SRV "$CM_DNS_NAME" | grep -q " ${CM_PORTS%% *} " || {
    echo "port ${CM_PORTS%% *} is not in the answer" >&2
    exit 1
}
if [ "$CM_DNS_PORT" != 8600 ]; then
    echo "(port 8600 is taken on this machine, so this Consul answers on $CM_DNS_PORT)"
fi

step "Now both are killed, and everything is taken away again."
