//! Hosts as ends: what is never filtered, host endpoints, translated addresses and ports.

use serde_json::{json, Value};

use super::{says, Allowed, Cluster, Denied, Unknown};
use crate::calico::policy::HostForward;
use crate::calico::Kind;

fn pool(spec: Value) -> Value {
    let mut spec = spec;
    spec["cidr"] = json!("10.65.0.0/16");
    json!({"spec": spec})
}

fn from(source: Value) -> Value {
    json!({"action": "Allow", "source": source})
}

#[test]
fn a_host_reaches_its_own_tasks_always_and_itself() {
    let closed = Cluster::new();
    let explained = closed.clone().says("agent-2", "db", "tcp/1");
    assert_eq!((explained.verdict, explained.sides.len()), (Allowed, 0));
    assert!(explained.notes[0].contains("never filters"), "{explained:?}");
    assert_eq!(closed.clone().says("10.0.0.2", "db", "tcp/1").verdict, Allowed);
    assert_eq!(closed.clone().says("agent-1", "db", "tcp/1").verdict, Denied, "of another host");
    assert_eq!(closed.clone().says("db", "db", "tcp/1").verdict, Allowed);
    assert_eq!(closed.says("agent-1", "agent-1", "tcp/1").verdict, Allowed);
}

#[test]
fn a_task_reaches_its_own_host_as_felix_is_configured() {
    let configured = |name: &str, action: &str| {
        Cluster::open().add(
            Kind::FelixConfiguration,
            name,
            json!({"spec": {"defaultEndpointToHostAction": action}}),
        )
    };
    let is = |cluster: Cluster| cluster.says("web", "agent-1", "tcp/1").verdict;
    assert_eq!(is(Cluster::open()), Unknown);
    for (action, verdict) in [("Return", Allowed), ("ACCEPT", Allowed), ("Drop", Denied)] {
        assert_eq!(is(configured("default", action)), verdict, "{action}");
    }
    let own = configured("default", "Drop").add(
        Kind::FelixConfiguration,
        "node.agent-1",
        json!({"spec": {"defaultEndpointToHostAction": "Return"}}),
    );
    assert_eq!(is(own), Allowed);
    // After its egress, which a task without a profile does not pass.
    let closed = Cluster::new().add(
        Kind::FelixConfiguration,
        "default",
        json!({"spec": {"defaultEndpointToHostAction": "Return"}}),
    );
    assert_eq!(is(closed), Denied);
    assert_eq!(
        Cluster::open().says("web", "agent-2", "tcp/1").verdict,
        Allowed,
        "nothing filters another host"
    );
}

#[test]
fn sources_are_translated_by_nat_outgoing_and_by_tunnels() {
    let only = |net: &str| Cluster::open().db_rule(from(json!({"nets": [net]})));
    assert_eq!(only("10.0.0.1").says("agent-1", "db", "tcp/1").verdict, Allowed);
    let tunnelled = |mode: Value, node: Value| {
        only("10.65.0.0/26")
            .add(Kind::IpPool, "p", pool(mode))
            .node("agent-1", node)
            .says("agent-1", "db", "tcp/1")
    };
    let node = json!({"bgp": {"ipv4Address": "10.0.0.1/24", "ipv4IPIPTunnelAddr": "10.65.0.3"}, "ipv4VXLANTunnelAddr": "10.65.0.2"});
    for (mode, verdict) in [
        (json!({"vxlanMode": "Always"}), Allowed),
        (json!({"ipipMode": "Always"}), Allowed),
        (json!({"vxlanMode": "CrossSubnet"}), Denied),
        (json!({}), Denied),
    ] {
        assert_eq!(tunnelled(mode.clone(), node.clone()).verdict, verdict, "{mode}");
    }
    let apart = json!({"bgp": {"ipv4Address": "10.1.0.1/24"}, "ipv4VXLANTunnelAddr": "10.65.0.2"});
    assert_eq!(tunnelled(json!({"vxlanMode": "CrossSubnet"}), apart).verdict, Allowed);
    // Host endpoints of the other host see the host's address, as its own tasks do not.
    let natted = |nat: bool| {
        Cluster::open()
            .add(Kind::IpPool, "p", pool(json!({"natOutgoing": nat})))
            .add(Kind::HostEndpoint, "h", json!({"metadata": {"labels": {"host": "2"}}, "spec": {"node": "agent-2", "interfaceName": "*"}}))
            .policy("h", json!({"selector": "host == '2'", "types": ["Ingress"], "ingress": [from(json!({"nets": ["10.0.0.1/32"]}))]}))
    };
    assert_eq!(natted(true).says("web", "agent-2", "tcp/80").verdict, Allowed);
    assert_eq!(natted(false).says("web", "agent-2", "tcp/80").verdict, Denied);
    let sparing = natted(true).add(
        Kind::FelixConfiguration,
        "default",
        json!({"spec": {"natOutgoingExclusions": "IPPoolsAndHostIPs"}}),
    );
    assert_eq!(sparing.says("web", "agent-2", "tcp/80").verdict, Denied);
    let outside = Cluster::open().add(Kind::IpPool, "p", pool(json!({"natOutgoing": true}))).says(
        "web",
        "203.0.113.1",
        "tcp/80",
    );
    assert!(outside.notes[0].contains("with the address 10.0.0.1: natOutgoing of the pool p"), "{outside:?}");
}

#[test]
fn host_endpoints_decide_about_hosts() {
    let endpoint = |name: &str, interface: &str, expected: Value| {
        (
            name.to_owned(),
            json!({"metadata": {"labels": {"name": name}}, "spec": {"node": "agent-2", "interfaceName": interface, "expectedIPs": expected}}),
        )
    };
    let with = |endpoints: &[(String, Value)]| {
        let rule = json!({"action": "Allow", "protocol": "TCP", "destination": {"ports": [80]}});
        let spec = json!({"selector": "name == 'open'", "types": ["Ingress"], "ingress": [rule]});
        let cluster = Cluster::open().policy("open", spec);
        endpoints
            .iter()
            .fold(cluster, |cluster, (name, value)| cluster.add(Kind::HostEndpoint, name, value.clone()))
    };
    let is = |cluster: Cluster, flow: &str| cluster.says("203.0.113.1", "agent-2", flow).verdict;
    let open = endpoint("open", "*", json!([]));
    let shut = endpoint("shut", "eth0", json!([]));
    let own = endpoint("open", "", json!(["10.0.0.2"]));
    assert_eq!(is(with(&[]), "tcp/81"), Allowed, "no host endpoint, no filter");
    assert_eq!(
        (is(with(std::slice::from_ref(&open)), "tcp/80"), is(with(std::slice::from_ref(&open)), "tcp/81")),
        (Allowed, Denied)
    );
    assert_eq!(
        (is(with(std::slice::from_ref(&shut)), "tcp/22"), is(with(std::slice::from_ref(&shut)), "tcp/80")),
        (Allowed, Unknown)
    );
    assert_eq!(is(with(&[own.clone(), shut.clone()]), "tcp/80"), Allowed);
    assert_eq!(is(with(&[open, shut]), "tcp/80"), Unknown);
    let safe = json!({"spec": {"failsafeInboundHostPorts": [{"protocol": "TCP", "port": 81, "net": "203.0.113.0/24"}]}});
    let cluster = with(&[own]).add(Kind::FelixConfiguration, "default", safe);
    assert_eq!((is(cluster.clone(), "tcp/81"), is(cluster.clone(), "tcp/22")), (Allowed, Denied));
    let early = json!({"selector": "name == 'open'", "preDNAT": true, "applyOnForward": true, "ingress": [{"action": "Deny"}]});
    let explained = cluster.policy("early", early).says("203.0.113.1", "agent-2", "tcp/80");
    assert!(explained.not_seen.iter().any(|text| text.contains("preDNAT: early")), "{explained:?}");
}

#[test]
fn a_forwarded_port_is_translated_first() {
    let mut world = Cluster::open()
        .db_rule(json!({"action": "Allow", "protocol": "TCP", "destination": {"ports": [5432]}}))
        .world();
    let db = world.workloads.iter_mut().find(|own| own.task_id.as_deref() == Some("db.1")).unwrap();
    db.container_id = "c".to_owned();
    world.forwards.push(HostForward {
        host: "agent-2".into(),
        protocol: 6,
        port: 31000,
        container_id: "c".into(),
        task_port: 5432,
    });
    world.forwards.push(HostForward {
        host: "agent-2".into(),
        protocol: 6,
        port: 31001,
        container_id: "c".into(),
        task_port: 1,
    });
    for from in ["web", "203.0.113.1", "agent-1"] {
        assert_eq!(says(&world, from, "agent-2", "tcp/31000").verdict, Allowed, "{from}");
        assert_eq!(says(&world, from, "agent-2", "tcp/31001").verdict, Denied, "{from}");
    }
    assert_eq!(says(&world, "agent-2", "agent-2", "tcp/31001").verdict, Allowed);
    let note = &says(&world, "web", "agent-2", "tcp/31000").notes[0];
    assert!(note.contains("agent-2 forwards tcp/31000 to db.1 (10.65.0.65) tcp/5432"), "{note}");
    let end = |word: &str| world.meant(word).unwrap().ends[0].clone();
    let list = world.allowed(&end("203.0.113.1"), &end("agent-2"));
    let denied: Vec<&str> =
        list.flows.iter().filter(|flow| flow.verdict == Denied).map(|flow| flow.what.as_str()).collect();
    assert_eq!(denied, ["tcp/31001"]);
}

#[test]
fn tunnels_of_tasks_are_dropped_and_strangers_are_not_judged() {
    assert_eq!((Cluster::open().is("udp/4789"), Cluster::open().is("4")), (Denied, Denied));
    let moved = json!({"spec": {"vxlanPort": 4000, "allowIPIPPacketsFromWorkloads": true}});
    let moved = Cluster::open().add(Kind::FelixConfiguration, "default", moved);
    assert_eq!(
        (moved.clone().is("udp/4789"), moved.clone().is("udp/4000"), moved.is("4")),
        (Allowed, Denied, Allowed)
    );
    assert_eq!(Cluster::open().says("203.0.113.1", "203.0.113.2", "tcp/1").verdict, Unknown);
    assert_eq!(Cluster::open().says("web", "fd00::1", "tcp/1").verdict, Unknown, "it has no IPv6 address");
    let record = json!({"metadata": {}, "spec": {"ipNetworks": ["10.65.0.9/32"]}});
    let (world, _) =
        Cluster::open().add(Kind::WorkloadEndpoint, "default/agent--1-mesos-odd-eth0", record).read();
    let explained = says(&world, "web", "odd", "tcp/1");
    assert_eq!(explained.verdict, Denied);
    assert!(explained.sides[1].steps[0].text.contains("it has no interfaceName"), "{explained:?}");
}
