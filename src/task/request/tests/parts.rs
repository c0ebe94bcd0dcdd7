//! One part of a task each: command, environment, resources, volumes, ports, DNS.

use super::*;
use crate::error::Code;
use crate::mesos::messages::container_info::docker_info::PortMapping;

#[test]
fn commands_become_dockers_entrypoint_and_command() {
    let words = |change: &dyn Fn(&mut CommandInfo)| {
        let mut task = plain();
        change(task.command.as_mut().unwrap());
        let spec = understood(&task).container().unwrap().clone();
        (spec.entrypoint, spec.command)
    };
    let list = |words: &[&str]| Some(words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>());
    let argv = |value: Option<&'static str>, arguments: &'static [&str]| {
        move |command: &mut CommandInfo| {
            command.shell = Some(false);
            command.value = value.map(str::to_owned);
            command.arguments = arguments.iter().map(|word| (*word).to_owned()).collect();
        }
    };
    assert_eq!(words(&argv(None, &[])), (None, None));
    assert_eq!(words(&argv(None, &["a", "b c"])), (None, list(&["a", "b c"])));
    assert_eq!(words(&argv(Some("run"), &["a"])), (None, list(&["run", "a"])));
    assert_eq!(words(&|command| command.value = Some(String::new())).1, list(&["-c", ""]));
    let mut task = plain();
    task.command.as_mut().unwrap().user = Some("nobody".into());
    task.command.as_mut().unwrap().arguments.push("x".into());
    assert_eq!(understood(&task).notes.len(), 2);
    task.command.as_mut().unwrap().value = None;
    assert!(refusal(&task).message.contains("names no command"));
}

#[test]
fn environment_from_weak_to_strong() {
    let mut task = plain();
    for (name, value) in [("A", "task"), ("A", "last"), ("HOOK", "task"), ("MESOS_SANDBOX", "task")] {
        set(&mut task, name, value);
    }
    let secret =
        Variable { name: "S".into(), value: Some("x".into()), r#type: Some(2), ..Default::default() };
    task.command.as_mut().unwrap().environment.as_mut().unwrap().variables.push(secret);
    docker(&mut task).parameters =
        vec![parameter("env", "A=parameter=1\n2"), parameter("env", "NEW=1"), parameter("env", "HOOK")];
    let flags = with_flags(&[r#"--task_environment={"HOOK":"hook"}"#]);
    let description = describe(&task, &flags, None).unwrap();
    let environment = &description.container().unwrap().environment;
    for line in ["A=parameter=1\n2", "HOOK=hook", "MESOS_SANDBOX=/mnt/mesos/sandbox", "NEW=1", "S="] {
        assert!(environment.iter().any(|other| other == line), "{line} is missing in {environment:?}");
    }
    assert_eq!(description.notes.len(), 1);
    let failure = describe(&task, &with_flags(&["--task_environment=x"]), None).unwrap_err();
    assert_eq!((failure.code, failure.blame()), (Code::AgentFlags, Blame::Host));
}

#[test]
fn cpu_and_memory() {
    let limits = |change: &dyn Fn(&mut TaskInfo), cfs: &[&str]| {
        let mut task = plain();
        task.resources =
            vec![scalar("cpus", 0.5), scalar("cpus", 0.5), scalar("mem", 64.0), scalar("gpus", 1.0)];
        change(&mut task);
        let spec = describe(&task, &with_flags(cfs), Some(1 << 30)).unwrap().container().unwrap().clone();
        (spec.cpu_shares, spec.cpu_quota, spec.memory, spec.memory_reservation, spec.oom_score_adj)
    };
    let limit = |name: &'static str, value: f64| {
        move |task: &mut TaskInfo| {
            task.limits.insert(name.into(), value::Scalar { value });
        }
    };
    let mib = |mib: i64| Some(mib << 20);
    let cfs = ["--cgroups_enable_cfs=true"];
    assert_eq!(limits(&|_| (), &[]), (Some(1024), None, mib(64), None, None));
    assert_eq!(limits(&|_| (), &cfs).1, Some(100_000));
    assert_eq!(limits(&limit("cpus", 2.0), &[]).1, Some(200_000));
    assert_eq!(limits(&limit("cpus", 0.0), &[]).1, Some(1_000));
    assert_eq!(limits(&limit("cpus", f64::INFINITY), &cfs).1, None);
    let (_, _, memory, reservation, oom) = limits(&limit("mem", 128.0), &[]);
    assert_eq!((memory, reservation, oom), (mib(128), mib(64), Some(938)));
    let (_, _, memory, reservation, oom) = limits(&limit("mem", f64::INFINITY), &[]);
    assert_eq!((memory, reservation, oom), (None, mib(64), Some(938)));
    assert_eq!(limits(&|task| task.resources = vec![scalar("mem", 1.0)], &[]).2, mib(32));
    assert_eq!(limits(&|task| task.resources = vec![scalar("cpus", 0.0)], &[]).0, Some(2));
}

#[test]
fn volumes_of_every_kind() {
    use volume::source::{DockerVolume, Type};
    let volume = |container: &str, host: Option<&str>, mode: volume::Mode| Volume {
        container_path: container.into(),
        host_path: host.map(str::to_owned),
        mode: mode as i32,
        source: None,
    };
    let named = |driver: Option<&str>| Volume {
        source: Some(volume::Source {
            r#type: Some(Type::DockerVolume as i32),
            docker_volume: Some(DockerVolume {
                driver: driver.map(str::to_owned),
                name: "data".into(),
                driver_options: None,
            }),
            ..Default::default()
        }),
        ..volume("/data", None, volume::Mode::Rw)
    };
    let (ro, rw) = (volume::Mode::Ro, volume::Mode::Rw);
    let mut task = plain();
    container(&mut task).volumes =
        vec![volume("/a", Some("/host"), ro), volume("b", Some("/host"), rw), volume("/c", Some("rel"), rw)];
    docker(&mut task).parameters = vec![parameter("volume", "/x:/y:ro"), parameter("volume", "/z")];
    let spec = understood(&task).container().unwrap().clone();
    let expected = [
        "/host:/a:ro",
        "/host:/mnt/mesos/sandbox/b:rw",
        "/sandbox/rel:/c:rw",
        "/sandbox:/mnt/mesos/sandbox",
        "/x:/y:ro",
    ];
    assert_eq!(
        (spec.binds.as_slice(), spec.volumes.as_slice()),
        (&expected.map(str::to_owned)[..], &["/z".to_owned()][..])
    );
    container(&mut task).volumes = vec![named(Some("rexray"))];
    let spec = understood(&task).container().unwrap().clone();
    assert_eq!((spec.binds[0].as_str(), spec.volume_driver.as_deref()), ("data:/data:rw", Some("rexray")));
    docker(&mut task).volume_driver = Some("other".into());
    assert!(refusal(&task).message.contains("two drivers"));
    container(&mut task).volumes = vec![volume("/c", Some("rel"), rw)];
    assert_eq!(understood(&task).container().unwrap().binds[0], "rel:/c:rw");
    for (bad, reason) in [
        (volume("rel", Some("rel"), rw), "both be relative"),
        (volume("/a", None, rw), "neither"),
        (volume("/a:/b", Some("/x"), rw), "colon"),
        (volume("/a", Some("/x:ro"), rw), "colon"),
        (volume("", Some("/x"), rw), "empty"),
        (volume("/a\0", Some("/x"), rw), "control"),
        (volume(&"/a".repeat(4096), Some("/x"), rw), "longer"),
    ] {
        container(&mut task).volumes = vec![bad];
        let failure = refusal(&task);
        assert!(failure.code == Code::TaskInvalid && failure.message.contains(reason), "{failure}");
    }
}

#[test]
fn port_mappings() {
    let mapping = |host_port, container_port, protocol: Option<&str>| PortMapping {
        host_port,
        container_port,
        protocol: protocol.map(str::to_owned),
    };
    let mut task = plain();
    task.resources.push(ports(31000, 31005));
    docker(&mut task).network = Some(Network::Bridge as i32);
    docker(&mut task).port_mappings = vec![mapping(31000, 80, None), mapping(31005, 53, Some("UDP,tcp"))];
    let spec = understood(&task).container().unwrap().clone();
    let found: Vec<_> =
        spec.ports.iter().map(|port| (port.host_port, port.container_port, port.protocol.as_str())).collect();
    assert_eq!(found, [(31000, 80, "tcp"), (31005, 53, "udp"), (31005, 53, "tcp")]);
    set(&mut task, "CALICO_PROFILE", "dev");
    let description = understood(&task);
    assert_eq!(forwarded(&description), ["31000/tcp 80 -", "31005/tcp 53 -", "31005/udp 53 -"]);
    assert_eq!(description.container().unwrap().ports.len(), 0);
    docker(&mut task).port_mappings = vec![mapping(31000, 80, None), mapping(31000, 81, None)];
    assert!(refusal(&task).message.contains("31000 is mapped to two ports"));
    task.command.as_mut().unwrap().environment = None;
    for (bad, reason) in [
        (mapping(31006, 80, None), "31006 is not among"),
        (mapping(0, 80, None), "between 1"),
        (mapping(31000, 70000, None), "70000"),
        (mapping(31000, 80, Some("icmp")), "'icmp'"),
    ] {
        docker(&mut task).port_mappings = vec![bad];
        assert!(refusal(&task).message.contains(reason));
    }
    docker(&mut task).port_mappings = vec![mapping(31000, 80, None)];
    docker(&mut task).network = Some(Network::Host as i32);
    assert!(refusal(&task).message.contains("'host'"));
}

/// `host/protocol task name`
fn forwarded(description: &Description) -> Vec<String> {
    let shown = |port: &HostPort| {
        let (mapping, name) = (port.mapping, port.name.as_deref().unwrap_or("-"));
        format!("{}/{} {} {name}", mapping.host, mapping.protocol.name(), mapping.task)
    };
    description.task.calico().map_or(&[][..], |task| &task.host_ports).iter().map(shown).collect()
}

/// With HOST networking a task listens on $PORT0 and so on itself.
#[test]
fn a_calico_task_that_believes_to_be_on_the_hosts_network_keeps_its_ports() {
    let mut task = testapp();
    docker(&mut task).network = Some(Network::Host as i32);
    docker(&mut task).port_mappings.clear();
    assert_eq!(forwarded(&understood(&task)), [""; 0]);
    task.resources.extend([ports(31004, 31004), ports(31000, 31001)]);
    assert_eq!(
        forwarded(&understood(&task)),
        ["31000/tcp 31000 -", "31001/tcp 31001 -", "31004/tcp 31004 -"]
    );
    let declared = |number, protocol: &str, name: &str| Port {
        number,
        protocol: Some(protocol.into()),
        name: Some(name.into()),
        ..Default::default()
    };
    let discovery =
        vec![declared(31001, "udp", "dns"), declared(31001, "tcp", "dns"), declared(9, "tcp", "no")];
    task.discovery = Some(DiscoveryInfo { ports: Some(Ports { ports: discovery }), ..Default::default() });
    assert_eq!(
        forwarded(&understood(&task)),
        ["31000/tcp 31000 -", "31001/tcp 31001 dns", "31001/udp 31001 dns", "31004/tcp 31004 -"]
    );
    // Nonsense from a framework takes no time.
    task.resources = vec![ports(0, u64::MAX), ports(70000, 80000), ports(5, 4)];
    assert_eq!(
        understood(&task).task.calico().unwrap().host_ports.len(),
        65536,
        "one of them for two protocols"
    );
    task.resources.clear();
    assert_eq!(forwarded(&understood(&task)), [""; 0]);
}

#[test]
fn the_dns_of_the_task_wins_over_the_agents() {
    let json = r#"--default_container_dns={"docker":[
        {"network_mode":"BRIDGE","dns":{"nameservers":["10.0.0.1"]}},
        {"network_mode":"USER","dns":{"nameservers":["10.0.0.2"],"search":["any"]}},
        {"network_mode":"USER","network_name":"calico","dns":{"nameservers":["10.0.0.3"],"options":["ndots:2"]}}]}"#;
    let flags = with_flags(&[json]);
    let dns = |task: &TaskInfo| describe(task, &flags, None).unwrap().container().unwrap().dns.clone();
    let mut task = plain();
    assert!(dns(&task).is_empty());
    docker(&mut task).network = Some(Network::Bridge as i32);
    assert_eq!(dns(&task), ["10.0.0.1"]);
    user_network(&mut task, "mine");
    assert_eq!(dns(&task), ["10.0.0.2"]);
    assert_eq!(dns(&testapp()), ["10.0.0.3"]);
    let mut own = testapp();
    docker(&mut own).parameters.push(parameter("dns-search", "mine"));
    let spec = describe(&own, &flags, None).unwrap().container().unwrap().clone();
    assert_eq!((spec.dns.len(), spec.dns_search.as_slice()), (0, &["mine".to_owned()][..]));
    let mut config = Config::default();
    config.dns.servers = vec!["10.0.0.9".parse().unwrap()];
    assert_eq!(understood(&testapp()).within(&config).unwrap().container().unwrap().dns, ["10.0.0.9"]);
    assert!(understood(&own).within(&config).unwrap().container().unwrap().dns.is_empty());
    assert!(understood(&plain()).within(&config).unwrap().container().unwrap().dns.is_empty());
}
