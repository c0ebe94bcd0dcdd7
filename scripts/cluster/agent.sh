#!/bin/bash
# agent.sh NAME slave|agent PROGRAM: installs a Mesos agent on a host of the lab in LAB, enabled and started.
#
# `slave`: unit mesos-slave, flags in the files of /etc/mesos-slave/, each named as its flag, put on the command line by
# mesos-init-wrapper, as the packages of Mesos do. `agent`: unit mesos-agent, flags as variables in /etc/default/mesos-agent.
# PROGRAM is the agent: the test program of tests/cluster, which stands in for one under that name, or a real one.
set -eu

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
name=$1 kind=$2 program=$3
into() { "$here/host.sh" in "$name" "$@"; }

into sh -c 'cat >/usr/sbin/mesos-agent.new && chmod 755 /usr/sbin/mesos-agent.new && mv /usr/sbin/mesos-agent.new /usr/sbin/mesos-agent' <"$program"
into sh -s "$kind" <<'END'
set -eu
kind=$1
ln -sf mesos-agent /usr/sbin/mesos-slave
# Mesos' own programs, of which none is ever to be started here.
mkdir -p /usr/libexec/mesos /var/lib/mesos
for program in mesos-docker-executor mesos-executor mesos-containerizer mesos-fetcher; do
    printf '#!/bin/sh\necho "the stock %s was started" >&2\nexit 1\n' $program >/usr/libexec/mesos/$program
    chmod 755 /usr/libexec/mesos/$program
done
case $kind in
slave)
    mkdir -p /etc/mesos-slave
    echo /var/lib/mesos >/etc/mesos-slave/work_dir
    echo docker,mesos >/etc/mesos-slave/containerizers
    echo 10mins >/etc/mesos-slave/executor_registration_timeout
    echo rack:2 >/etc/mesos-slave/attributes
    cat >/usr/bin/mesos-init-wrapper <<'WRAPPER'
#!/bin/bash
# Each file of /etc/mesos-slave is a flag of that name.
words=()
for file in /etc/mesos-slave/*; do
    [ ! -f "$file" ] || words+=("--$(basename "$file")=$(cat "$file")")
done
exec /usr/sbin/mesos-slave "${words[@]}"
WRAPPER
    chmod 755 /usr/bin/mesos-init-wrapper
    start=/usr/bin/mesos-init-wrapper environment=
    ;;
agent)
    printf 'MESOS_WORK_DIR=/var/lib/mesos\nMESOS_CONTAINERIZERS=docker,mesos\n' >/etc/default/mesos-agent
    start=/usr/sbin/mesos-agent environment=EnvironmentFile=-/etc/default/mesos-agent
    ;;
esac
cat >/etc/systemd/system/mesos-$kind.service <<UNIT
[Unit]
Description=Mesos $kind
After=network.target docker.service
[Service]
$environment
ExecStart=$start
Restart=on-failure
RestartSec=1
KillMode=process
[Install]
WantedBy=multi-user.target
UNIT
systemctl daemon-reload
systemctl enable --quiet --now mesos-$kind
END
