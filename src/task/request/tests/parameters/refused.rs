//! What is refused, with Calico and without, and values that mean nothing.

use super::*;
use crate::error::Code;

/// Values that change nothing pass; each of the others gets a sentence that says what to do.
#[test]
fn parameters_that_would_break_supervision_are_refused() {
    let refused = |key: &str, value: &str| {
        for task in [plain(), testapp()] {
            let failure = refusal(&with(task, &[(key, value)]));
            assert_eq!(failure.code, Code::Parameter, "{key}={value}");
            assert!(failure.message.contains(key), "{failure}");
        }
    };
    for (key, harmless, harmful) in [
        ("rm", "false", "true"),
        ("detach", "false", "1"),
        ("tty", "0", "true"),
        ("interactive", "F", "t"),
        ("restart", "no", "always"),
        ("restart", "", "on-failure:3"),
        ("attach", "STDERR", "stdin"),
        ("disable-content-trust", "true", "false"),
        ("sig-proxy", "false", "x"),
        ("quiet", "true", ""),
    ] {
        assert_eq!(spec(&[(key, harmless)]), spec(&[]), "{key}={harmless}");
        understood(&with(testapp(), &[(key, harmless)]));
        refused(key, harmful);
    }
    for key in [
        "cidfile",
        "name",
        "env-file",
        "label-file",
        "link",
        "blkio-weight",
        "blkio-weight-device",
        "kernel-memory",
        "isolation",
        "cpu-count",
        "cpu-percent",
        "io-maxbandwidth",
        "io-maxiops",
        "use-api-socket",
    ] {
        refused(key, "x");
    }
    for unknown in ["nonsense", "Label", "help"] {
        refused(unknown, "true");
    }
    let failure = refusal(&with(plain(), &[("", "x")]));
    assert!(failure.message.contains("not a supported option of docker run"), "{failure}");
}

#[test]
fn parameters_that_calico_rules_out_are_refused() {
    let allowed = |key: &str, value: &str| describe(&with(testapp(), &[(key, value)]), &flags(), None);
    let refused = [
        ("runtime", "runc"),
        ("network", "mine"),
        ("net", "host"),
        ("network", "container:x"),
        ("ip", "10.0.0.5"),
        ("ip6", "fd00::5"),
        ("link-local-ip", "169.254.7.7"),
        ("mac-address", "02:42:ac:11:00:02"),
        ("network-alias", "x"),
        ("net-alias", "x"),
        ("link", "x"),
        ("userns", "host"),
        ("publish", "80"),
        ("publish-all", "true"),
        ("volumes-from", "x"),
    ];
    for (key, value) in refused {
        let failure = allowed(key, value).unwrap_err();
        assert!(failure.code == Code::Parameter && failure.message.contains("with Calico: "), "{failure}");
    }
    for (key, value) in [
        ("pid", "host"),
        ("ipc", "host"),
        ("uts", "host"),
        ("cgroupns", "host"),
        ("privileged", "true"),
        ("cap-add", "NET_ADMIN"),
        ("device", "/dev/net/tun"),
        ("sysctl", "net.ipv4.ip_unprivileged_port_start=0"),
        ("expose", "80"),
        ("hostname", "web"),
        ("dns", "10.0.0.1"),
        ("add-host", "a:10.0.0.1"),
        ("tmpfs", "/run"),
        ("mount", "type=tmpfs,target=/x"),
        ("security-opt", "no-new-privileges"),
        ("init", "true"),
        ("annotation", "a=b"),
    ] {
        let description = allowed(key, value).unwrap();
        assert_eq!(container_of(&description).runtime.as_deref(), Some(RUNTIME), "{key}");
    }
    for (key, value) in [
        ("volume", "/etc/calico-mesos:/x"),
        ("mount", "type=bind,source=/etc,target=/x,readonly"),
        (
            "mount",
            r#"target=/x,volume-opt=type=none,"volume-opt=o=bind,ro",volume-opt=device=/etc/calico-mesos"#,
        ),
    ] {
        let failure = allowed(key, value).unwrap().within(&Config::default()).unwrap_err();
        assert_eq!(failure.code, Code::Volume, "{key}={value}");
    }
}

#[test]
fn values_without_a_meaning_are_refused() {
    for (key, value) in [
        ("label", "=x"),
        ("label", "a b=c"),
        ("env", ""),
        ("env", "=x"),
        ("env", "a\0"),
        ("volume", " "),
        ("volume", "a::b"),
        ("volume", "/a:/b:ro:x"),
        ("add-host", "db"),
        ("add-host", ":10.0.0.1"),
        ("add-host", "db:nowhere"),
        ("dns", "ns.example"),
        ("dns-search", "a_b"),
        ("dns-search", "1"),
        ("hostname", "a\n"),
        ("ulimit", "nofile"),
        ("ulimit", "files=1"),
        ("ulimit", "nofile=2:1"),
        ("ulimit", "nofile=-1:1"),
        ("ulimit", "nofile=-2"),
        ("ulimit", "nofile=1:2:3"),
        ("cap-add", ""),
        ("cap-add", "A\nB"),
        ("memory", "x"),
        ("memory", "-1m"),
        ("cpus", "-1"),
        ("cpu-shares", "1.5"),
        ("memory-swappiness", "101"),
        ("pids-limit", ""),
        ("health-interval", "-1s"),
        ("health-retries", "-1"),
        ("health-timeout", "5"),
        ("stop-timeout", "1s"),
        ("mount", "type=bind"),
        ("mount", "target"),
        ("mount", "type=disk,target=/x"),
        ("mount", "type=bind,target=/x,volume-nocopy"),
        ("mount", ""),
        ("mount", "type=bind,target=/x,bind-recursive=readonly,readonly"),
        ("mount", "target=/x,nonsense=1"),
        ("mount", "type=tmpfs,target=/x,tmpfs-mode=9"),
        ("tmpfs", "run"),
        ("device", "x"),
        ("device", ""),
        ("device", "/dev/a:/dev/b:x"),
        ("device", "/a:/b:r:w"),
        ("device-cgroup-rule", "c 1 rwm"),
        ("device-cgroup-rule", "d 1:1 r"),
        ("device-read-bps", "sda:1m"),
        ("device-read-iops", "/dev/a:1m"),
        ("gpus", "many"),
        ("gpus", "count=1,count=2"),
        ("gpus", "speed=1"),
        ("sysctl", "vm.swappiness=1"),
        ("sysctl", "net.x"),
        ("storage-opt", "size"),
        ("security-opt", "seccomp"),
        ("log-opt", "=x"),
        ("pid", "x"),
        ("pid", "container:"),
        ("uts", "private"),
        ("cgroupns", "container:x"),
        ("pull", "often"),
        ("platform", "linux arm"),
        ("publish", ""),
        ("publish", "80:icmp"),
        ("publish", "80/icmp"),
        ("publish", "80-81:80-82"),
        ("publish", "x:80:80"),
        ("publish", "protocol"),
        ("publish", "target=80,x"),
        ("expose", "0-70000"),
        ("expose", "9-8"),
        ("volumes-from", " "),
        ("privileged", "on"),
    ] {
        let failure = refusal(&with(plain(), &[(key, value)]));
        assert_eq!(failure.code, Code::Parameter, "{key}={value:?}");
        assert!(!failure.message.contains(char::is_control), "{failure}");
    }
    for contradiction in
        [[("no-healthcheck", "true"), ("health-cmd", "true")], [("log-driver", "none"), ("log-opt", "a=b")]]
    {
        assert_eq!(refusal(&with(plain(), &contradiction)).code, Code::Parameter);
    }
}
