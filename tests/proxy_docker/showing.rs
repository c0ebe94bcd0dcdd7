//! Does a client see what it would see of a container that is none of Calico's?

use std::collections::BTreeMap;
use std::net::IpAddr;

use calico_mesos::proxy::show::{self, Shown};

use super::*;

const ADDRESS: &str = "192.168.7.20";

/// What there is to compare in the daemon's words: everything but values that differ from container to container.
fn comparable(mut answer: Value) -> Value {
    const OF_ONE_CONTAINER: [&str; 11] = [
        "EndpointID",
        "Gateway",
        "IPAddress",
        "IPPrefixLen",
        "MacAddress",
        "SandboxID",
        "SandboxKey",
        "DNSNames",
        "GlobalIPv6Address",
        "GlobalIPv6PrefixLen",
        "IPv6Gateway",
    ];
    fn blank(value: &mut Value) {
        match value {
            Value::Object(map) => {
                map.iter_mut().for_each(|(key, value)| match OF_ONE_CONTAINER.contains(&&**key) {
                    true => *value = Value::Null,
                    false => blank(value),
                })
            }
            Value::Array(list) => {
                list.iter_mut().for_each(blank);
                // Daemons without IPv6 have no line for its addresses.
                list.retain(|item| item["HostIp"] != "::" && item["IP"] != "::");
                // Docker lists ports in no order.
                list.sort_by_key(ToString::to_string);
            }
            _ => (),
        }
    }
    blank(&mut answer);
    json!([answer["HostConfig"], answer["NetworkSettings"], answer["Ports"]])
}

/// As the daemon shows the container with these settings, and as the proxy would, running and stopped.
async fn compare(daemon: &Daemon, host: Value) {
    let (env, none) = (json!(["CALICO_IP=auto"]), json!(["A=b"]));
    let direct = daemon.create(&sleeper(&none, &host).to_string()).await;
    daemon.start_container(&direct).await;
    let running = (daemon.inspect(&direct).await, daemon.listed(&direct).await);
    let (status, _) = daemon.ask("POST", &format!("/containers/{direct}/kill"), "").await;
    assert_eq!(status, 204);
    daemon.ask("POST", &format!("/containers/{direct}/wait"), "").await;
    let stopped = (daemon.inspect(&direct).await, daemon.listed(&direct).await);
    daemon.remove(&direct).await;

    let creation = calico(&sleeper(&env, &host).to_string());
    let network = creation.bound.client.network.clone();
    // The runtime would refuse: there is no network prepared for it.
    let body =
        String::from_utf8(creation.body).unwrap().replace(r#""Runtime":"calico""#, r#""Runtime":"runc""#);
    let ours = daemon.create(&body).await;
    daemon.start_container(&ours).await;
    let (_, known) = daemon.ask("GET", &format!("/networks/{network}"), "").await;
    let ids = BTreeMap::from([(network, known["Id"].as_str().unwrap_or_default().to_owned())]);
    let addresses: [IpAddr; 1] = [ADDRESS.parse().unwrap()];
    let ports: Vec<(u16, String, u16)> = creation
        .bound
        .ports
        .iter()
        .map(|port| (port.container, port.protocol.name().to_owned(), port.host.unwrap()))
        .collect();
    let shown = |running| Shown {
        bound: &creation.bound,
        addresses: &addresses,
        ports: &ports,
        network_ids: &ids,
        running,
    };
    for (now, (inspected, listed)) in [(true, running), (false, stopped)] {
        let (mut inspect, mut entry) = (daemon.inspect(&ours).await, daemon.listed(&ours).await);
        show::inspect(&mut inspect, &shown(now));
        show::listed(&mut entry, &shown(now));
        assert_eq!(comparable(inspect), comparable(inspected), "{host}, running: {now}");
        assert_eq!(comparable(entry), comparable(listed), "{host}, running: {now}");
        if now {
            daemon.ask("POST", &format!("/containers/{ours}/kill"), "").await;
            daemon.ask("POST", &format!("/containers/{ours}/wait"), "").await;
        }
    }
    daemon.remove(&ours).await;
}

#[tokio::test]
async fn a_client_sees_what_docker_would_show() {
    let daemon = Daemon::start().await;
    let ports = json!({"80/tcp": [{"HostIp": "", "HostPort": "18080"}]});
    for host in [
        json!({"NetworkMode": "bridge", "PortBindings": ports}),
        json!({"NetworkMode": "default", "PortBindings": ports}),
        json!({}),
    ] {
        compare(&daemon, host).await;
    }
}
