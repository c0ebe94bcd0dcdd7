#!/bin/sh
# What calico-node.service does with calico/node, a container of Docker; installed as /usr/lib/calico-mesos/calico-node.
#
#   calico-node run     the container, in the foreground, until it ends
#   calico-node ready   waits until Felix in it is ready, and fails as soon as the container has ended
#   calico-node stop    ends it
#   calico-node clean   removes what a start that failed has left
#
# systemd has read the settings out of /etc/calico/calico.env, in Calico's own names (NODENAME, IP, ...) or in those of
# the unit in Calico's documentation (CALICO_NODENAME, CALICO_IP, ...). Each variable in the file reaches the container.
# CALICO_IMAGE names the image, which must be on this host: nothing is pulled.
# CALICO_LOG_FILE_SIZE (bytes) and CALICO_LOG_FILES bound the log of each of its parts below /var/log/calico.
set -eu

settings=/etc/calico/calico.env
name=calico-node
run=${RUNTIME_DIRECTORY:-/run/calico-node}
id=$run/id
# Starting again without a change of the settings is in vain: systemd leaves the unit failed.
in_vain=78

fail() {
    code=$1
    shift
    echo "calico-node: $*" >&2
    exit "$code"
}

check() {
    [ -e "$settings" ] || fail $in_vain "$settings is missing: write it with 'calico-mesos node start --ip=ADDRESS --image=IMAGE'"
    [ -n "${CALICO_IMAGE:-}" ] ||
        fail $in_vain "CALICO_IMAGE is not set in $settings: name the image of calico/node that is on this host"
    for number in "$log_size" "$log_files"; do
        case $number in
        '' | *[!0-9]*) fail $in_vain "'$number' is not a number: correct CALICO_LOG_FILE_SIZE or CALICO_LOG_FILES in $settings" ;;
        esac
    done
    # `image ls` and not `inspect` alone: a Docker that does not answer is worth another start.
    docker image ls --quiet >"$run/answer" 2>&1 || fail 1 "Docker does not answer: $(head -n 1 "$run/answer")"
    image=$(docker image inspect --format '{{.Id}}' "$CALICO_IMAGE" 2>/dev/null) ||
        fail $in_vain "the image $CALICO_IMAGE is not on this host, and this unit does not pull: run 'docker pull $CALICO_IMAGE' or 'docker load', then 'systemctl start calico-node'"
}

# Each variable of the settings file by its name alone: the docker command takes the values from its own environment,
# where systemd has put them without their quotes.
variables() {
    sed -n 's/^[[:space:]]*\([A-Za-z_][A-Za-z0-9_]*\)=.*/\1/p' "$settings" | sort -u |
        grep -vxE 'CALICO_(IMAGE|LOG_FILE_SIZE|LOG_FILES|NODENAME|IP|IP6|AS|NO_DEFAULT_POOLS)' || true
}

# variable NAME VALUE: unless the settings hold it.
default() {
    eval "[ -n \"\${$1+set}\" ]" || set_variables="$set_variables --env $1=$2"
}

# spelling NAME VALUE: of Calico's documentation, where the variable is not set under its own name.
spelling() {
    [ -z "$2" ] || eval "[ -n \"\${$1:-}\" ]" || {
        export "$1=$2"
        set_variables="$set_variables --env $1"
    }
}

# What svlogd was killed over, `.u`, it neither counts nor removes afterwards; `current` that may be executed it goes on with.
bound() {
    for file in "$1"/@*.u; do [ ! -e "$file" ] || mv "$file" "${file%u}s"; done
    [ ! -e "$1/current" ] || chmod u+x "$1/current"
}

run() {
    log_size=${CALICO_LOG_FILE_SIZE:-1000000} log_files=${CALICO_LOG_FILES:-10}
    check
    set_variables=
    for variable in $(variables); do set_variables="$set_variables --env $variable"; done
    spelling NODENAME "${CALICO_NODENAME:-}"
    spelling IP "${CALICO_IP:-}"
    spelling IP6 "${CALICO_IP6:-}"
    spelling AS "${CALICO_AS:-}"
    spelling NO_DEFAULT_POOLS "${CALICO_NO_DEFAULT_POOLS:-}"
    default DATASTORE_TYPE etcdv3
    default WAIT_FOR_DATASTORE true
    # Without Kubernetes what manages CNI's credentials ends every second.
    default CALICO_MANAGE_CNI false
    # What `ready` reads.
    default FELIX_HEALTHENABLED true

    # As whole files and not by their folder: that may be /etc.
    set --
    for file in "${ETCD_CA_CERT_FILE:-}" "${ETCD_CERT_FILE:-}" "${ETCD_KEY_FILE:-}"; do
        [ -z "$file" ] || [ ! -e "$file" ] || set -- "$@" --volume "$file:$file:ro"
    done
    # The run scripts of its logs append bounds of their own, which win, to svlogd's `config` at each start.
    printf 's%s\nn%s\n' "$log_size" "$log_files" >"$run/svlogd"
    for part in felix bird bird6 confd node-services; do
        bound "/var/log/calico/$part"
        set -- "$@" --volume "$run/svlogd:/var/log/calico/$part/config:ro"
    done
    if [ -d /lib/modules ]; then set -- "$@" --volume /lib/modules:/lib/modules:ro; fi
    # Docker would make a folder of it.
    : >>/run/xtables.lock
    mkdir -p /var/log/calico

    docker rm --force "$name" >/dev/null 2>&1 || true
    rm -f "$id"
    # What it writes goes to the journal too; Docker's own copy, for `docker logs`, is bounded.
    # shellcheck disable=SC2086 # Names without blanks.
    exec docker run --rm --pull=never --cidfile "$id" --name "$name" --net=host --privileged \
        --log-driver=json-file --log-opt max-size=1m --log-opt max-file=10 \
        $set_variables \
        --volume /var/lib/calico:/var/lib/calico --volume /var/run/calico:/var/run/calico \
        --volume /var/log/calico:/var/log/calico --volume /run/xtables.lock:/run/xtables.lock \
        "$@" "$image"
}

ready() {
    # By its id: a container of the start before would answer to the name.
    until [ -s "$id" ] && docker exec "$(cat "$id")" calico-node -felix-ready >/dev/null 2>&1; do
        [ -n "${MAINPID:-}" ] && kill -0 "$MAINPID" 2>/dev/null ||
            fail 1 "calico/node ended before its Felix was ready; the lines before say why"
        sleep 0.5
    done
}

clean() {
    [ ! -s "$id" ] || docker rm --force "$(cat "$id")" >/dev/null 2>&1 || true
    rm -f "$id"
}

case ${1:-} in
run) run ;;
ready) ready ;;
stop) docker stop --time 10 "$name" >/dev/null ;;
clean) clean ;;
*) fail 64 "usage: calico-node run|ready|stop|clean" ;;
esac
