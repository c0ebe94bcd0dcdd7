//! Ports of the host that lead to a task behind Felix: who gets through, and with which address he is seen.

use std::net::IpAddr;
use std::time::Duration;

use calico_mesos::rig::daemons::free_port;
use nix::sys::signal::{kill, Signal};
use nix::unistd::Pid;
use serde_json::{json, Value};

use crate::felix::Felix;
use crate::kit::wait::within;
use crate::lab::{shell, Lab, HOST, HOST6, NODE, OUTSIDE, OUTSIDE6};
use crate::world::{app, calico, with, Task};

const POOLS: [&str; 2] = ["192.168.64.0/18", "fd00:65::/64"];
/// `OUTSIDE` and `OUTSIDE6`, as an operator lets Marathon in.
const LET_IN: (&str, &str) = ("profile.allow_nets", "[\"10.99.1.2/32\", \"fd00:99:1::2/128\"]");
/// As Docker does on every host where it may.
const DOCKERS_POLICY: &str = "iptables-nft -P FORWARD DROP && ip6tables-nft -P FORWARD DROP";
const ENTRIES: &str = "nft list ruleset | grep -c calico-mesos-ports";

/// Tells everybody the address he is seen with, of both families.
fn server(id: &str) -> Value {
    let script = r#"cd /mnt/mesos/sandbox; mkdir cgi-bin; echo $PORT0 > port
        printf '#!/bin/sh\necho; echo sees $REMOTE_ADDR' > cgi-bin/who; chmod +x cgi-bin/who
        exec httpd -f -vv -p $PORT0"#;
    app(id, script, both())
}

fn both() -> Value {
    with(calico(), "CALICO_IP", "auto,auto6")
}

async fn host_port(task: &Task<'_>) -> String {
    task.file("port").await.trim().to_owned()
}

fn client(address: &str, port: &str) -> String {
    let host = if address.contains(':') { format!("[{address}]") } else { address.to_owned() };
    format!("curl -s -g -m 2 http://{host}:{port}/cgi-bin/who")
}

/// As whom the server has seen the client; nothing if nobody answered.
fn seen(answer: &str) -> Option<IpAddr> {
    let address = answer.trim().strip_prefix("sees ")?;
    let address: IpAddr = address.trim_matches(['[', ']']).parse().unwrap();
    Some(address.to_canonical())
}

/// Both ends' addresses of one family.
struct Family {
    host: &'static str,
    outside: &'static str,
    index: usize,
}

const FAMILIES: [Family; 2] =
    [Family { host: HOST, outside: OUTSIDE, index: 0 }, Family { host: HOST6, outside: OUTSIDE6, index: 1 }];

/// Every way to a port of the host, and what each one's address is at its end.
async fn every_way_in(lab: &Lab) {
    let task = lab.world.running(&server("/server")).await;
    let friend = lab.world.running(&app("/friend", "sleep 1000", both())).await;
    let other = with(both(), "CALICO_PROFILE", "other");
    let stranger = lab.world.running(&app("/stranger", "sleep 1000", other)).await;
    let port = host_port(&task).await;
    listens(lab, &port).await;
    for Family { host, outside, index } in FAMILIES {
        let client = client(host, &port);
        let friends = &friend.addresses()[index];
        let ways = [
            ("the machine outside", lab.outside(&client).await, Some(outside)),
            ("the host", shell(&client).await, Some(host)),
            ("a neighbour of its profile", lab.inside(&friend, &client).await, Some(friends)),
            ("a neighbour of another profile", lab.inside(&stranger, &client).await, None),
        ];
        for (who, (_, answer), expected) in ways {
            let expected = expected.map(|address| address.parse().unwrap());
            assert_eq!(seen(&answer), expected, "{who} at {host}: {answer}\n{}", task.log());
        }
        // It would throw away what comes from its own address.
        let (_, answer) = lab.inside(&task, &client).await;
        assert!(is_hosts(seen(&answer)).await, "the task itself at {host}: {answer}\n{}", task.log());
    }
    // Felix has set route_localnet; for ::1 there is no such thing.
    let (_, answer) = shell(&client("127.0.0.1", &port)).await;
    assert!(is_hosts(seen(&answer)).await, "loopback: {answer}");
    assert_eq!(shell(&client("::1", &port)).await, (false, String::new()));
    assert!(lab.reached_from_outside(&task.addresses()[0]).await, "at its own address nobody is let in");

    for task in [&task, &friend, &stranger] {
        task.kill().await;
    }
    lab.nothing_left(&[&task, &friend, &stranger]).await;
    assert_eq!(shell(ENTRIES).await.1.trim(), "0", "our tables go with their last entry");
}

/// Which of a host's addresses the kernel takes is its own choice.
async fn is_hosts(address: Option<IpAddr>) -> bool {
    let Some(address) = address.filter(|address| !address.is_loopback()) else { return false };
    shell("ip -o address").await.1.contains(&format!(" {address}/"))
}

/// The program in the task may need a moment after RUNNING.
async fn listens(lab: &Lab, port: &str) {
    within(Duration::from_secs(20), format!("port {port} answers"), async || {
        match seen(&shell(&client(HOST, port)).await.1) {
            Some(_) => Ok(()),
            None => Err(shell("nft list ruleset; ip route; ip -6 route").await.1),
        }
    })
    .await;
    assert_eq!(lab.world.agent.problems(), Vec::<String>::new());
}

async fn felix(lab: &Lab, extra: &[(&str, &str)]) -> Felix {
    let extra: Vec<_> = [("FELIX_IPV6SUPPORT", "true")].iter().chain(extra).copied().collect();
    Felix::start(&lab.peers, NODE, &lab.calico(), &extra).await
}

#[tokio::test]
async fn every_way_in_where_docker_set_forward_to_drop() {
    let lab = Lab::with_pools(&[LET_IN], &POOLS).await;
    assert!(shell(DOCKERS_POLICY).await.0);
    let felix = felix(&lab, &[]).await;
    every_way_in(&lab).await;
    assert_eq!(felix.failures(), Vec::<String>::new());
}

/// Felix's default: tasks reach nothing on their host, but what is forwarded is not on the host.
#[tokio::test]
async fn every_way_in_where_tasks_must_not_reach_their_host() {
    let lab = Lab::with_pools(&[LET_IN], &POOLS).await;
    let felix = felix(&lab, &[("FELIX_DEFAULTENDPOINTTOHOSTACTION", "Drop")]).await;
    every_way_in(&lab).await;
    assert_eq!(felix.failures(), Vec::<String>::new());
}

#[tokio::test]
async fn every_way_in_beside_nftables() {
    let lab = Lab::with_pools(&[LET_IN], &POOLS).await;
    let felix = felix(&lab, &[("FELIX_NFTABLESMODE", "Enabled")]).await;
    every_way_in(&lab).await;
    assert_eq!(felix.failures(), Vec::<String>::new());
}

/// Whom no profile and no policy lets in a forwarded port does not let in either; checks of Mesos come from
/// inside.
#[tokio::test]
async fn a_policy_guards_forwarded_ports_and_does_not_hinder_health_checks() {
    let lab = Lab::with_pools(&[], &POOLS).await;
    let felix = felix(&lab, &[]).await;
    let number = free_port().unwrap();
    let port = number.to_string();
    let mut app = server("/guarded");
    app["requirePorts"] = json!(true);
    app["portDefinitions"] = json!([{"port": number}]);
    app["healthChecks"] = json!([{"protocol": "MESOS_TCP", "port": number, "delaySeconds": 0,
        "intervalSeconds": 0.1, "timeoutSeconds": 5, "gracePeriodSeconds": 60}]);
    let task = lab.world.running(&app).await;
    listens(&lab, &port).await;
    task.update("a healthy update", |status| status.healthy == Some(true)).await;
    for Family { host, .. } in FAMILIES {
        assert_eq!(lab.outside(&client(host, &port)).await, (false, String::new()), "{host}");
    }
    // Policies are applied to what the host's port leads to.
    lab.peers
        .apply(&json!({
            "apiVersion": "projectcalico.org/v3", "kind": "GlobalNetworkPolicy",
            "metadata": {"name": "marathon-in"},
            "spec": {
                "selector": "all()", "types": ["Ingress"],
                "ingress": [
                    {"action": "Allow", "protocol": "TCP", "source": {"nets": ["10.99.1.2/32"]},
                     "destination": {"ports": [number]}},
                ],
            },
        }))
        .await;
    within(Duration::from_secs(20), "the policy lets the outside in", async || {
        seen(&lab.outside(&client(HOST, &port)).await.1) == Some(OUTSIDE.parse().unwrap())
    })
    .await;
    task.kill().await;
    lab.nothing_left(&[&task]).await;
    assert_eq!(felix.failures(), Vec::<String>::new());
}

/// Neither touches the other's rules: a Felix that starts anew, an executor that dies.
#[tokio::test]
async fn ports_outlive_felix_and_go_with_a_killed_executor() {
    let lab = Lab::with_pools(&[LET_IN], &POOLS).await;
    let mut first = felix(&lab, &[]).await;
    let task = lab.world.running(&server("/server")).await;
    let port = host_port(&task).await;
    listens(&lab, &port).await;
    let asked = client(HOST, &port);
    first.stop();
    assert_eq!(seen(&lab.outside(&asked).await.1), Some(OUTSIDE.parse().unwrap()), "without Felix");
    let second = felix(&lab, &[]).await;
    assert_eq!(seen(&lab.outside(&asked).await.1), Some(OUTSIDE.parse().unwrap()), "with a new Felix");

    kill(Pid::from_raw(i32::try_from(task.launched.executor_pid).unwrap()), Signal::SIGKILL).unwrap();
    task.ends().await;
    let gc = lab.world.gc();
    assert!(gc.status.success(), "{gc:?}");
    lab.nothing_left(&[&task]).await;
    assert_eq!(shell(ENTRIES).await.1.trim(), "0");
    assert_eq!(second.failures(), Vec::<String>::new());
}
