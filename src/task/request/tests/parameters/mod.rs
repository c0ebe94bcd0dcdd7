//! Parameters: what each kind of value becomes, and whose value wins.

mod refused;

use serde_json::json;

use super::super::parameters::keys;
use super::*;
use crate::error::Code;
use crate::workload::{
    Device, DeviceRequest, Mount, MountKind, NetworkEndpoint, Propagation, Published, Recursion, Throttle,
    Throttled, Ulimit,
};

fn with(mut task: TaskInfo, parameters: &[(&str, &str)]) -> TaskInfo {
    docker(&mut task).parameters = parameters.iter().map(|(key, value)| parameter(key, value)).collect();
    task
}

fn spec(parameters: &[(&str, &str)]) -> ContainerSpec {
    container_of(&understood(&with(plain(), parameters)))
}

/// On a network of the user's.
fn spec_on(network: &str, parameters: &[(&str, &str)]) -> ContainerSpec {
    spec(&[&[("network", network)], parameters].concat())
}

fn container_of(description: &Description) -> ContainerSpec {
    description.container().unwrap().clone()
}

fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

fn some(text: &str) -> Option<String> {
    Some(text.to_owned())
}

#[test]
fn texts_take_the_last_value_and_nothing_when_it_is_empty() {
    type Field = fn(&ContainerSpec) -> &Option<String>;
    let fields: &[(&str, Field, &str)] = &[
        ("hostname", |spec| &spec.hostname, "web"),
        ("domainname", |spec| &spec.domainname, "example"),
        ("user", |spec| &spec.user, "1000:1000"),
        ("workdir", |spec| &spec.working_dir, "/srv"),
        ("stop-signal", |spec| &spec.stop_signal, "SIGINT"),
        ("runtime", |spec| &spec.runtime, "runc"),
        ("platform", |spec| &spec.platform, "linux/arm64/v8"),
        ("health-cmd", |spec| &spec.health.command, "test -e /ok\n"),
        ("volume-driver", |spec| &spec.volume_driver, "local"),
        ("log-driver", |spec| &spec.log_driver, "syslog"),
        ("cpuset-cpus", |spec| &spec.cpuset_cpus, "0-1"),
        ("cpuset-mems", |spec| &spec.cpuset_mems, "0"),
        ("cgroup-parent", |spec| &spec.cgroup_parent, "/x"),
        ("pid", |spec| &spec.pid_mode, "container:x"),
        ("ipc", |spec| &spec.ipc_mode, "shareable"),
        ("uts", |spec| &spec.uts_mode, "host"),
        ("userns", |spec| &spec.userns_mode, "host"),
        ("cgroupns", |spec| &spec.cgroupns_mode, "private"),
    ];
    for (key, field, value) in fields {
        assert_eq!(field(&spec(&[(key, "host"), (key, value)])).as_deref(), Some(*value), "{key}");
        assert_eq!(*field(&spec(&[(key, value), (key, "")])), None, "{key}");
    }
    assert_eq!(spec(&[("entrypoint", "")]).entrypoint, Some(vec![String::new()]));
}

#[test]
fn numbers_sizes_and_times() {
    type Field = fn(&ContainerSpec) -> Option<i64>;
    let fields: &[(&str, &str, Field, i64)] = &[
        ("stop-timeout", "-1", |spec| spec.stop_timeout, -1),
        ("cpu-shares", "0x10", |spec| spec.cpu_shares, 16),
        ("cpu-period", "50000", |spec| spec.cpu_period, 50_000),
        ("cpu-quota", "25000", |spec| spec.cpu_quota, 25_000),
        ("cpu-rt-period", "1000", |spec| spec.cpu_realtime_period, 1000),
        ("cpu-rt-runtime", "900", |spec| spec.cpu_realtime_runtime, 900),
        ("cpus", "1.5", |spec| spec.nano_cpus, 1_500_000_000),
        ("memory", "512m", |spec| spec.memory, 512 << 20),
        ("memory-reservation", "1g", |spec| spec.memory_reservation, 1 << 30),
        ("memory-swap", "-1", |spec| spec.memory_swap, -1),
        ("memory-swappiness", "60", |spec| spec.memory_swappiness, 60),
        ("oom-score-adj", "-500", |spec| spec.oom_score_adj, -500),
        ("pids-limit", "100", |spec| spec.pids_limit, 100),
        ("shm-size", "1m", |spec| spec.shm_size, 1 << 20),
        ("health-interval", "1m30s", |spec| Some(spec.health.interval), 90_000_000_000),
        ("health-timeout", "1s", |spec| Some(spec.health.timeout), 1_000_000_000),
        ("health-start-period", "1ms", |spec| Some(spec.health.start_period), 1_000_000),
        ("health-start-interval", "2ms", |spec| Some(spec.health.start_interval), 2_000_000),
        ("health-retries", "3", |spec| Some(spec.health.retries), 3),
    ];
    for (key, value, field, expected) in fields {
        assert_eq!(field(&spec(&[(key, "0"), (key, value)])), Some(*expected), "{key}");
    }
}

#[test]
fn booleans_as_the_cli_reads_them() {
    type Field = fn(&ContainerSpec) -> bool;
    let fields: &[(&str, Field)] = &[
        ("init", |spec| spec.init == Some(true)),
        ("no-healthcheck", |spec| spec.health.disabled),
        ("read-only", |spec| spec.read_only),
        ("publish-all", |spec| spec.publish_all),
        ("oom-kill-disable", |spec| spec.oom_kill_disable == Some(true)),
        ("privileged", |spec| spec.privileged),
    ];
    for (key, field) in fields {
        for (value, expected) in [("1", true), ("T", true), ("True", true), ("0", false), ("FALSE", false)] {
            assert_eq!(field(&spec(&[(key, value)])), expected, "{key}={value}");
        }
        assert_eq!(refusal(&with(plain(), &[(key, "yes")])).code, Code::Parameter);
    }
    assert_eq!(spec(&[("init", "false")]).init, Some(false));
}

#[test]
fn parameters_with_lists_are_added_up() {
    type List = fn(&ContainerSpec) -> &Vec<String>;
    let lists: &[(&str, List, [&str; 2])] = &[
        ("cap-add", |spec| &spec.cap_add, ["NET_ADMIN", "ALL"]),
        ("cap-drop", |spec| &spec.cap_drop, ["NET_RAW", "CHOWN"]),
        ("group-add", |spec| &spec.group_add, ["audio", "100"]),
        ("security-opt", |spec| &spec.security_options, ["no-new-privileges", "seccomp={\"a\":1}"]),
        ("volumes-from", |spec| &spec.volumes_from, ["a", "b:ro"]),
        ("dns", |spec| &spec.dns, ["10.0.0.53", "fd00::53"]),
        ("dns-search", |spec| &spec.dns_search, ["svc.example", "."]),
        ("dns-opt", |spec| &spec.dns_options, ["ndots:2", "rotate"]),
        ("dns-option", |spec| &spec.dns_options, ["ndots:2", "rotate"]),
        ("add-host", |spec| &spec.extra_hosts, ["db:10.0.0.5", "db6:fd00::5"]),
        ("device-cgroup-rule", |spec| &spec.device_cgroup_rules, ["c 1:3 rwm", "a *:* r"]),
        ("expose", |spec| &spec.exposed, ["80/tcp", "53/udp"]),
    ];
    for (key, list, values) in lists {
        assert_eq!(*list(&spec(&values.map(|value| (*key, value)))), values, "{key}");
    }
    assert_eq!(
        spec(&[("add-host", "db=[fd00::5]"), ("add-host", "gw:host-gateway")]).extra_hosts,
        ["db:fd00::5", "gw:host-gateway"]
    );
    assert_eq!(spec(&[("expose", "8000-8002/UDP")]).exposed, ["8000/udp", "8001/udp", "8002/udp"]);
    assert!(spec(&[("security-opt", "systempaths=unconfined")]).unmask_system_paths);
    for (given, expected) in [
        ("seccomp=profile.json", "seccomp=/sandbox/profile.json"),
        ("seccomp:/etc/p.json", "seccomp:/etc/p.json"),
        ("seccomp=unconfined", "seccomp=unconfined"),
        ("apparmor=mine", "apparmor=mine"),
    ] {
        assert_eq!(spec(&[("security-opt", given)]).security_options, [expected]);
    }
}

#[test]
fn maps_take_the_last_value_of_a_key() {
    type Map = fn(&ContainerSpec) -> &BTreeMap<String, String>;
    let maps: &[(&str, Map, &str)] = &[
        ("label", |spec| &spec.labels, "a"),
        ("annotation", |spec| &spec.annotations, "a"),
        ("log-opt", |spec| &spec.log_options, "a"),
        ("storage-opt", |spec| &spec.storage_options, "a"),
        ("sysctl", |spec| &spec.sysctls, "net.ipv4.ip_forward"),
    ];
    for (key, map_of, name) in maps {
        let values = [format!("{name}=1"), format!("{name}=b=c")];
        let found = spec(&[(key, &values[0]), (key, &values[1])]);
        assert_eq!(*map_of(&found), map(&[(name, "b=c")]), "{key}");
    }
    assert_eq!(spec(&[("label", "flag")]).labels, map(&[("flag", "")]));
    assert_eq!(
        spec(&[("tmpfs", "/a"), ("tmpfs", "/b:size=1m")]).tmpfs,
        map(&[("/a", ""), ("/b", "size=1m")])
    );
    let ulimit = |name: &str, soft, hard| Ulimit { name: name.into(), soft, hard };
    let found = spec(&[("ulimit", "nofile=1"), ("ulimit", "nofile=10:20"), ("ulimit", "core=-1")]);
    assert_eq!(found.ulimits, [ulimit("nofile", 10, 20), ulimit("core", -1, -1)]);
}

#[test]
fn volumes_and_mounts() {
    let found = spec(&[("volume", "/x:/y:ro"), ("volume", "./data:/d"), ("volume", "/z"), ("volume", "/z")]);
    assert_eq!(found.binds[1..], ["/x:/y:ro", "/sandbox/data:/d"]);
    assert_eq!(found.volumes, ["/z"]);
    let mount = |text: &str| spec(&[("mount", text)]).mounts.remove(0);
    let target = |target: &str| Mount { target: target.into(), ..Mount::default() };
    assert_eq!(
        mount("type=bind,src=../x,dst=/t,ro,bind-propagation=RSlave,bind-recursive=writable"),
        Mount {
            kind: MountKind::Bind,
            source: "/x".into(),
            read_only: true,
            propagation: Some(Propagation::RSlave),
            recursion: Recursion::Writable,
            ..target("/t")
        }
    );
    assert_eq!(
        mount(r#"source=v,target=/t,volume-nocopy,volume-label=a=b,volume-driver=local,"volume-opt=o=a,b""#),
        Mount {
            source: "v".into(),
            no_copy: true,
            labels: map(&[("a", "b")]),
            driver: some("local"),
            driver_options: map(&[("o", "a,b")]),
            ..target("/t")
        }
    );
    assert_eq!(
        mount("type=tmpfs,destination=/t,tmpfs-size=1m,tmpfs-mode=1777,readonly=false"),
        Mount { kind: MountKind::Tmpfs, tmpfs_size: Some(1 << 20), tmpfs_mode: Some(0o1777), ..target("/t") }
    );
    let image = mount("type=image,src=busybox,dst=/t,image-subpath=bin");
    assert_eq!((image.kind, image.subpath.as_deref()), (MountKind::Image, Some("bin")));
}

#[test]
fn devices_and_their_limits() {
    let device = |host: &str, container: &str, permissions: &str| Device {
        host: host.into(),
        container: container.into(),
        permissions: permissions.into(),
    };
    let found = spec(&[
        ("device", "/dev/fuse"),
        ("device", "/dev/a:rm"),
        ("device", "/dev/a:/dev/b"),
        ("device", "/dev/a:/dev/b:w"),
        ("device", "vendor.com/gpu=0"),
        ("device", "vendor.com/gpu=1"),
        ("device-read-bps", "/dev/sda:1mb"),
        ("device-write-iops", "/dev/sda:100"),
    ]);
    assert_eq!(
        found.devices,
        [
            device("/dev/fuse", "/dev/fuse", "rwm"),
            device("/dev/a", "/dev/a", "rm"),
            device("/dev/a", "/dev/b", "rwm"),
            device("/dev/a", "/dev/b", "w"),
        ]
    );
    let ids = vec!["vendor.com/gpu=0".to_owned(), "vendor.com/gpu=1".to_owned()];
    assert_eq!(found.device_requests, [DeviceRequest { driver: "cdi".into(), ids, ..Default::default() }]);
    let throttle = |what, rate| Throttle { what, path: "/dev/sda".into(), rate };
    assert_eq!(
        found.throttles,
        [throttle(Throttled::ReadBytes, 1 << 20), throttle(Throttled::WriteOperations, 100)]
    );
    let gpus = |text: &str| spec(&[("gpus", text)]).device_requests.remove(0);
    let list = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
    let gpu = |count| DeviceRequest { count, capabilities: list(&["gpu"]), ..Default::default() };
    assert_eq!(gpus("all"), gpu(-1));
    assert_eq!(gpus("2"), gpu(2));
    assert_eq!(gpus(r#""device=0,1""#), DeviceRequest { ids: list(&["0", "1"]), ..gpu(0) });
    let capabilities = list(&["compute", "utility", "gpu"]);
    let driver = "nvidia".to_owned();
    assert_eq!(
        gpus(r#"driver=nvidia,"capabilities=compute,utility",options=a=b"#),
        DeviceRequest { driver, capabilities, options: map(&[("a", "b")]), ..gpu(1) }
    );
}

#[test]
fn networks_and_the_place_in_them() {
    assert_eq!(spec_on("default", &[]).network, "bridge");
    let found = spec_on(
        "mine",
        &[
            ("ip", "10.0.0.5"),
            ("ip6", "FD00::5"),
            ("network-alias", "a"),
            ("net-alias", "b"),
            ("link-local-ip", "169.254.7.7"),
            ("mac-address", "02:42:ac:11:00:02"),
        ],
    );
    let end = NetworkEndpoint {
        network: "mine".into(),
        aliases: vec!["a".into(), "b".into()],
        ipv4: some("10.0.0.5"),
        ipv6: some("fd00::5"),
        link_local: vec!["169.254.7.7".into()],
        mac_address: some("02:42:ac:11:00:02"),
        ..NetworkEndpoint::default()
    };
    assert_eq!((found.network.as_str(), &found.endpoints[..]), ("mine", &[end][..]));
    let found =
        spec(&[("net", "name=mine,alias=a,ip=10.0.0.5,driver-opt=x=y,gw-priority=2"), ("network", "other")]);
    let [first, second] = &found.endpoints[..] else { panic!("{:?}", found.endpoints) };
    assert_eq!((found.network.as_str(), second.network.as_str()), ("mine", "other"));
    assert_eq!((first.driver_options.clone(), first.gateway_priority), (map(&[("x", "y")]), 2));
    let mut own = with(plain(), &[("ip", "10.0.0.5")]);
    user_network(&mut own, "mine");
    assert_eq!(container_of(&understood(&own)).endpoints[0].ipv4, some("10.0.0.5"));
    for (parameters, reason) in [
        (vec![("ip", "10.0.0.5")], "user-defined network; the task has 'host'"),
        (vec![("network", "bridge"), ("network-alias", "x")], "'bridge'"),
        (vec![("network", "a"), ("network", "a")], "second time"),
        (vec![("network", "a"), ("network", "host")], "several networks"),
        (vec![("network", "name=a,ip=10.0.0.5"), ("ip", "10.0.0.6")], "contradict each other"),
        (vec![("network", "a"), ("ip", "fd00::1")], "other family"),
        (vec![("network", "alias=x")], "names no network"),
    ] {
        let failure = refusal(&with(plain(), &parameters));
        assert!(failure.message.contains(reason), "{failure}");
    }
}

#[test]
fn published_ports() {
    let published = |text: &str| {
        let ports = spec(&[("publish", text)]).published.into_iter();
        ports
            .map(|Published { host_ip, host_port, container_port }| {
                format!("{host_ip}|{host_port}|{container_port}")
            })
            .collect::<Vec<_>>()
    };
    assert_eq!(published("80"), ["||80/tcp"]);
    assert_eq!(published("8080:80"), ["|8080|80/tcp"]);
    assert_eq!(published("127.0.0.1::53/udp"), ["127.0.0.1||53/udp"]);
    assert_eq!(published("[::1]:8080:80"), ["::1|8080|80/tcp"]);
    assert_eq!(published("8000-8001:80-81"), ["|8000|80/tcp", "|8001|81/tcp"]);
    assert_eq!(published("8000-8010:80"), ["|8000-8010|80/tcp"]);
    assert_eq!(published("published=8080,target=80,protocol=udp"), ["|8080|80/udp"]);
}

#[test]
fn the_users_value_wins_over_the_tasks() {
    let mut task = with(
        plain(),
        &[
            ("memory", "64m"),
            ("cpu-shares", "7"),
            ("cpus", "2"),
            ("oom-score-adj", "1"),
            ("entrypoint", "/bin/other"),
            ("hostname", "mine"),
            ("privileged", "false"),
            ("volume-driver", "mine"),
            ("env", "A=mine"),
            ("env", "NEW"),
        ],
    );
    docker(&mut task).privileged = Some(true);
    docker(&mut task).volume_driver = Some("its".into());
    docker(&mut task).network = Some(Network::Bridge as i32);
    container(&mut task).hostname = Some("its".into());
    task.limits.insert("cpus".into(), value::Scalar { value: 1.0 });
    set(&mut task, "A", "its");
    let spec = container_of(&understood(&task));
    assert_eq!((spec.memory, spec.cpu_shares, spec.oom_score_adj), (Some(64 << 20), Some(7), Some(1)));
    assert_eq!((spec.nano_cpus, spec.cpu_quota), (Some(2_000_000_000), None));
    assert_eq!(spec.entrypoint.unwrap(), ["/bin/other"]);
    assert_eq!(spec.command.unwrap(), ["-c", "sleep 10"]);
    assert_eq!((spec.hostname.as_deref(), spec.volume_driver.as_deref()), (Some("mine"), Some("mine")));
    assert!(!spec.privileged);
    assert!(spec.environment.contains(&"A=mine".to_owned()) && spec.environment.contains(&"NEW".to_owned()));
    let mut host = with(plain(), &[("hostname", "web")]);
    docker(&mut host).network = Some(Network::Host as i32);
    assert_eq!(container_of(&understood(&host)).hostname.as_deref(), Some("web"));
}

/// Also for a task without Calico, which needs no more of the configuration.
#[test]
fn whose_credentials_a_pull_uses() {
    let dir = tempfile::tempdir().unwrap();
    let auths = |host: &str| json!({"auths": {host: {"username": "u", "password": "p"}}}).to_string();
    let client = dir.path().join("client.json");
    std::fs::write(&client, auths("r.example")).unwrap();
    let config = dir.path().join("config.toml");
    let text = format!("[docker]\nconfig_file = \"{}\"\n[nonsense]\na = 1", client.display());
    std::fs::write(&config, text).unwrap();
    let sandbox = format!("--sandbox_directory={}", dir.path().display());
    let found = |image: &str| {
        let mut task = plain();
        docker(&mut task).image = image.into();
        let (flags, choose) = (with_flags(&[&sandbox]), || docker_host::choose(None, false, &config, None));
        let context = Context::of_agent(&flags, None, &choose).unwrap();
        let description = crate::task::request::describe(&task, &context).unwrap();
        let Work::Docker(task) = description.task.work() else { panic!("not a container: {description:?}") };
        task.credentials().is_some()
    };
    assert!(found("r.example/app") && !found("s.example/app"));
    std::fs::create_dir(dir.path().join(".docker")).unwrap();
    std::fs::write(dir.path().join(".docker/config.json"), auths("s.example")).unwrap();
    assert!(!found("r.example/app") && found("s.example/app"));
}

#[test]
fn when_the_image_is_pulled() {
    let pull = |values: &[&str]| {
        let parameters: Vec<_> = values.iter().map(|value| ("pull", *value)).collect();
        let description = understood(&with(plain(), &parameters));
        (matches!(description.task.work(), Work::Docker(task) if task.force_pull), description.notes.len())
    };
    assert_eq!(pull(&["always"]), (true, 0));
    assert_eq!(pull(&["always", "missing"]), (false, 0));
    assert_eq!(pull(&["never"]), (false, 1));
}

#[test]
fn every_key_stands_in_the_table_once() {
    let mut keys: Vec<&str> = keys().collect();
    keys.sort_unstable();
    let all = keys.len();
    keys.dedup();
    assert_eq!((keys.len(), json!(keys).to_string().contains("--")), (all, false));
    assert!(all > 100, "{all}");
}

proptest::proptest! {
    /// Whatever is given: a container or one sentence.
    #[test]
    fn any_parameter_is_accepted_or_refused_without_a_panic(
        key in proptest::sample::select(keys().collect::<Vec<_>>()),
        value in "(?s).{0,20}|[-a-z0-9=:,/.\"]{0,20}|type=[a-z]{4,6},target=/x,[a-z-]{2,20}=?[a-z0-9]{0,5}",
        calico: bool,
    ) {
        let task = with(if calico { testapp() } else { plain() }, &[(key, &value)]);
        match describe(&task, &flags(), None) {
            Ok(description) => {
                let spec = container_of(&description);
                proptest::prop_assert_eq!(spec.runtime.as_deref() == Some(RUNTIME), calico || value == RUNTIME);
                proptest::prop_assert!(!calico || spec.network == "none");
            }
            Err(failure) => {
                proptest::prop_assert!(matches!(failure.code, Code::Parameter | Code::TaskInvalid), "{}", failure);
                proptest::prop_assert!(!failure.message.contains(char::is_control) && failure.message.len() < 1000);
            }
        }
    }
}
