//! The Debian package, on hosts with a systemd and a Docker of their own: installed, replaced, removed, purged, and on
//! hosts that were installed by hand.
//!
//! Not part of the ordinary suite: `make test-package` installs what it needs (debhelper, lintian, the lab's image).

mod host;

use std::fs;
use std::process::Command;

use host::{build_package, packages, printed, LabHost};

/// A host without calico/node, whose tasks get addresses all the same.
const LOCAL: &str = r#"mkdir -p /etc/calico-mesos
printf '[node]\ndataplane = "local"\nlocal_pools = ["192.168.0.0/16"]\n' >/etc/calico-mesos/config.toml
apt-get -qq -y install etcd-server etcd-client >/dev/null 2>&1
mkdir -p /usr/libexec/mesos
for name in mesos-containerizer mesos-docker-executor mesos-fetcher; do install -m 755 /bin/true /usr/libexec/mesos/$name; done
"#;
const TWO_CONTAINERS: &str = r#"for name in web api; do
docker -H localhost:2377 run -d --name $name -e CALICO_IP=auto busybox sleep 1000000; done"#;
const LIVES: &str =
    "docker inspect -f '{{.Name}} {{.State.Pid}} {{.State.StartedAt}}' web api; pidof dockerd";
const PROXY: &str = "systemctl show -p MainPID --value calico-mesos-proxy";
/// All names of files, but for those that dpkg, apt and the lab's own services write.
const FILES: &str = r#"find / -xdev -not -path '/proc/*' | grep -vE '^/(root|tmp|srv|usr/libexec/mesos|usr/local)(/|$)|^/var/(log/(apt|dpkg|journal|alternatives)|lib/(dpkg|apt|docker|containerd|lab-consul|systemd/timers|etcd)|cache)|etcd|\.pyc$' | sort
find /run -name '*calico*' | sort; ip -br link | cut -d' ' -f1; nft list tables | grep calico || true; iptables-save | grep calico || true"#;

#[test]
fn a_package_is_the_same_each_time_and_lintian_finds_nothing() {
    let scratch = tempfile::tempdir().unwrap();
    let again = build_package("0.0.1", scratch.path());
    assert!(fs::read(&packages()[0]).unwrap() == fs::read(again).unwrap(), "two builds differ");
    let output = Command::new("lintian")
        .args(["--allow-root", "--fail-on", "error,warning"])
        .arg(&packages()[0])
        .output();
    assert_eq!(printed(&output.unwrap()), "");
}

#[test]
fn the_package_alone_changes_nothing_and_a_purge_leaves_nothing() {
    let host = LabHost::up();
    host.sh(LOCAL);
    host.sh("rm -r /etc/calico-mesos");
    let state =
        "ss -Hltn | sort; pidof dockerd; docker info -f '{{json .Runtimes}}'; ls /etc/docker; docker ps -qa";
    let (files, before) = (host.sh(FILES), host.sh(state));
    host.sh("apt-get -qq -y install /root/old.deb");
    assert_eq!(host.sh(state), before);
    let units = host.sh("systemctl list-unit-files --no-legend 'calico*' | awk '{print $1, $2}'");
    let wanted =
        "calico-mesos-gc.service static\ncalico-mesos-proxy.service disabled\ncalico-node.service disabled\n\
                  calico-mesos-proxy.socket disabled\ncalico-mesos-gc.timer enabled";
    assert_eq!(units, wanted);
    // The timer, and nothing that failed.
    let active = "systemctl list-units --no-legend --state=active,activating,failed 'calico*' | tr -d '●' | awk '{print $1, $3}'";
    assert_eq!(host.sh(active), "calico-mesos-gc.timer active");
    assert_eq!(host.sh("systemctl is-system-running"), "running");
    for file in ["bash-completion/completions/calico-mesos", "zsh/vendor-completions/_calico-mesos"] {
        host.sh(&format!("test -s /usr/share/{file}"));
    }
    assert_eq!(host.sh("dpkg-query -W -f '${Conffiles}' calico-mesos"), "");

    host.sh(LOCAL);
    host.sh("calico-mesos node install --reload && calico-mesos calicoctl install");
    host.sh("systemctl enable -q --now calico-mesos-proxy.socket calico-mesos-proxy.service");
    host.sh(TWO_CONTAINERS);
    let lives = host.sh(LIVES);
    let refused = host.fails("apt-get -y remove calico-mesos");
    assert!(
        refused.contains("containers still use the runtime 'calico': ") && refused.contains("web"),
        "{refused}"
    );
    assert_eq!(host.sh(LIVES), lives);
    assert_eq!(
        host.sh("systemctl is-active calico-mesos-proxy.socket calico-mesos-gc.timer"),
        "active\nactive"
    );

    let dockerd = host.sh("pidof dockerd");
    host.sh("docker rm -f web api");
    host.sh("apt-get -qq -y purge calico-mesos");
    assert_eq!(
        host.sh("pidof dockerd; docker info -f '{{json .Runtimes}}'"),
        format!("{dockerd}\n{{\"runc\":{{\"path\":\"runc\"}}}}")
    );
    assert_eq!(host.sh(FILES), files);
    let keys = host.sh("ETCDCTL_API=3 etcdctl get --prefix /calico/resources/v3/projectcalico.org/workloadendpoints --keys-only");
    assert_eq!(keys, "");
}

#[test]
fn a_host_installed_by_hand_moves_over_and_is_upgraded_under_living_containers() {
    let host = LabHost::up();
    host.sh(LOCAL);
    host.sh(
        r#"dpkg-deb -x /root/old.deb /root/old && cp /root/old/usr/bin/* /usr/local/bin/
        for unit in /root/old/lib/systemd/system/calico-mesos-proxy.*; do
            sed s#/usr/bin/#/usr/local/bin/# $unit >/etc/systemd/system/${unit##*/}; done
        /usr/local/bin/calico-mesos node install --reload
        /usr/local/bin/calico-mesos node install-timer && /usr/local/bin/calico-mesos calicoctl install
        systemctl daemon-reload
        systemctl enable -q --now calico-mesos-gc.timer calico-mesos-proxy.socket calico-mesos-proxy.service"#,
    );
    host.sh(TWO_CONTAINERS);
    let lives = host.sh(LIVES);
    // What the proxy has bound from within its unit is what pid 1 and Docker see.
    let bound = host
        .sh("for pid in $(docker inspect -f '{{.State.Pid}}' web); do stat -Lc %i /proc/$pid/ns/net; done");
    assert!(host.sh("stat -c %i /run/calico-mesos/tasks/*/netns").lines().any(|inode| inode == bound));

    let said = host.sh("apt-get -y install /root/old.deb 2>&1");
    assert!(said.contains("/usr/bin/calico-mesos node migrate"), "{said}");
    assert_eq!(host.sh("/usr/bin/calico-mesos node migrate --dry-run >/dev/null || echo $?"), "3");
    host.sh("/usr/bin/calico-mesos node migrate");
    assert_eq!(
        host.sh("/usr/bin/calico-mesos node migrate --dry-run && echo done").lines().last(),
        Some("done")
    );
    assert_eq!(host.sh(LIVES), lives);
    assert_eq!(host.sh("grep -rl /usr/local/bin/calico /etc /usr/lib/calico-mesos /lib/systemd || true"), "");
    assert_eq!(
        host.sh("find /usr/lib/calico-mesos/launcher /etc/systemd/system -lname '/usr/local/bin/*'"),
        ""
    );
    assert_eq!(host.sh(&format!("readlink /proc/$({PROXY})/exe")), "/usr/bin/calico-mesos");
    assert_eq!(host.sh("docker info -f '{{(index .Runtimes \"calico\").Path}}'"), "/usr/bin/calico-runc");
    let enabled =
        "systemctl is-enabled calico-mesos-gc.timer calico-mesos-proxy.socket calico-mesos-proxy.service";
    assert_eq!(host.sh(enabled), "enabled\nenabled\nenabled");

    for package in ["new", "old"] {
        let proxy = host.sh(PROXY);
        host.sh(&format!("dpkg -i /root/{package}.deb"));
        assert_ne!(host.sh(PROXY), proxy, "the proxy runs the program of before");
        assert_eq!(
            host.sh("systemctl is-active calico-mesos-proxy.socket calico-mesos-proxy"),
            "active\nactive"
        );
        assert_eq!(host.sh(LIVES), lives);
    }
    // One that the operator has stopped stays so.
    host.sh(
        "systemctl stop -q calico-mesos-proxy.socket calico-mesos-proxy.service && dpkg -i /root/new.deb",
    );
    assert_eq!(host.sh(PROXY), "0");

    let needed = host.fails("calico-mesos node migrate --drop-links");
    assert!(needed.contains("/usr/local/bin/calico-runc is still needed by"), "{needed}");
    host.sh("docker stop -t 1 web && docker rm web && docker rm -f api");
    assert_eq!(host.sh("docker ps -qa; pgrep -f containerd-shi[m] || true"), "");
    host.sh("calico-mesos node migrate --drop-links");
    assert_eq!(host.sh("ls /usr/local/bin"), "calicoctl\nconsul");
}

/// As calico/node's: its log's run script appends bounds of its own at each start.
const START: &str = "#!/bin/sh
mkdir -p /var/log/calico/felix
touch /var/log/calico/felix/config
echo s10000000 >>/var/log/calico/felix/config
echo n5 >>/var/log/calico/felix/config
env >/environment
touch /ready
exec sleep 1000000
";
const READY: &str = "#!/bin/sh\n[ \"$1\" = -felix-ready ] && [ -e /ready ]\n";

#[test]
fn calico_node_starts_with_its_settings_and_keeps_its_logs_bounded() {
    let host = LabHost::up();
    host.sh("apt-get -qq -y install /root/old.deb && mkdir -p /etc/calico");
    let journal = "journalctl -o cat -u calico-node --no-pager";
    for (settings, wanted) in [
        ("", "/etc/calico/calico.env is missing"),
        ("NODENAME=h1", "CALICO_IMAGE is not set"),
        (
            "CALICO_IMAGE=calico/node:v9",
            "the image calico/node:v9 is not on this host, and this unit does not pull",
        ),
        ("CALICO_IMAGE=calico/node:local\nCALICO_LOG_FILES=ten", "'ten' is not a number"),
    ] {
        if !settings.is_empty() {
            host.sh(&format!("printf '%s\\n' '{settings}' >/etc/calico/calico.env"));
        }
        host.fails("systemctl start calico-node");
        assert!(host.sh(journal).contains(wanted), "{}", host.sh(journal));
        assert_eq!(host.sh("systemctl is-active calico-node || true"), "failed", "no start helps");
    }

    host.import("calico/node:local", &[("start_runit", START), ("calico-node", READY)]);
    host.sh(r#"cat >/etc/calico/calico.env <<'END'
# both spellings, with quotes and without
CALICO_IMAGE=calico/node:local
CALICO_NODENAME="h one"
IP=10.77.0.11
CALICO_IP=10.77.0.99
ETCD_ENDPOINTS="http://10.77.0.11:2379"
END
systemctl enable -q --now calico-node"#);
    assert_eq!(host.sh("systemctl is-active calico"), "active");
    let environment = host.sh("docker exec calico-node cat /environment");
    for line in [
        "NODENAME=h one",
        "IP=10.77.0.11",
        "ETCD_ENDPOINTS=http://10.77.0.11:2379",
        "CALICO_MANAGE_CNI=false",
    ] {
        assert!(environment.lines().any(|there| there == line), "no {line} in {environment}");
    }
    for _ in 0..2 {
        host.sh("systemctl restart calico-node");
        let bounds = host.sh("docker exec calico-node cat /var/log/calico/felix/config");
        assert_eq!(bounds, "s1000000\nn10");
    }
    let log = host.sh("docker inspect -f '{{.HostConfig.LogConfig}}' calico-node");
    assert_eq!(log, "{json-file map[max-file:10 max-size:1m]}");
    // Upgrades leave it alone; an end of the container is an end of the service, which begins again.
    let pid = host.sh("docker inspect -f '{{.State.Pid}}' calico-node");
    host.sh("dpkg -i /root/new.deb");
    assert_eq!(host.sh("docker inspect -f '{{.State.Pid}}' calico-node"), pid);
    host.sh("docker kill calico-node; for i in $(seq 60); do [ \"$(systemctl show -p NRestarts --value calico-node)\" = 1 ] && break; sleep 0.5; done");
    host.sh("for i in $(seq 60); do systemctl is-active -q calico-node && exit; sleep 0.5; done; exit 1");
    host.sh("systemctl stop calico-node");
    assert_eq!(host.sh("systemctl show -p Result --value calico-node; docker ps -qa"), "success");
    host.sh("systemctl start calico-node && apt-get -qq -y purge calico-mesos");
    assert_eq!(host.sh("docker ps -qa; find /etc/systemd -name 'calico*'"), "");
}
