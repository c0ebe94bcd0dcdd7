//! What clients, containers and accidents do to the proxy's containers at the worst moment.

use std::process::Command;

use crate::lab::Lab;
use crate::wait::eventually;
use crate::world::sh;

fn answers(address: &str) -> bool {
    sh(&format!("busybox ping -c 1 -W 2 {address}")).contains(" 0% packet loss")
}

/// With NET_ADMIN a container can do anything to its interface. Felix leads to the endpoint's hardware address.
#[tokio::test]
async fn a_container_that_changes_its_interface_has_a_working_one_at_its_next_start() {
    let lab = Lab::new().await;
    for breaks in [
        "ip link set eth0 down; ip link set eth0 address 02:00:00:00:00:01; ip link set eth0 up",
        "ip addr flush dev eth0; ip addr add 10.250.0.1/24 dev eth0",
    ] {
        lab.run(&["--name", "web", "--cap-add", "NET_ADMIN", "busybox", "sleep", "1000"]);
        let address = lab.runs("web").await;
        lab.ok(&["exec", "web", "sh", "-ec", breaks]);
        lab.ok(&["restart", "-t", "0", "web"]);
        assert_eq!(lab.runs("web").await, address, "{breaks}");
        let [endpoint] = lab.world.endpoints().await.try_into().unwrap();
        let link = lab.ok(&["exec", "web", "ip", "link", "show", "eth0"]);
        assert!(link.contains(endpoint["spec"]["mac"].as_str().unwrap()), "{breaks}: {endpoint}\n{link}");
        assert!(answers(&address), "{breaks}: {}", lab.log());
        lab.ok(&["rm", "-f", "web"]);
        lab.nothing_left().await;
    }
}

#[tokio::test]
async fn a_container_whose_binding_cannot_be_written_is_not_made() {
    let lab = Lab::new().await;
    let bindings = lab.world.config.paths.bindings();
    std::fs::remove_dir(&bindings).unwrap();
    std::fs::write(&bindings, "").unwrap();
    let refused = lab.fails(&["create", "-e", "CALICO_IP=auto", "-v", "/data", "busybox", "true"]);
    assert!(refused.contains("CM-JOURNAL"), "{refused}");
    assert_eq!(lab.ok(&["ps", "-aq"]), "");
    assert_eq!(lab.ok(&["volume", "ls", "-q"]), "");
}

/// Each takes another port of the range, also when all begin at once.
#[tokio::test]
async fn containers_that_start_at_once_share_a_range_of_ports() {
    let lab = Lab::new().await;
    // Where neither the daemons of other tests nor the kernel take ports from: those that follow a free one may be theirs.
    let publish = "61500-61503:80";
    let run = |name: usize| {
        let host = format!("unix://{}", lab.socket().display());
        let name = format!("web{name}");
        let mut command = Command::new("docker");
        command.args(["-H", &host, "run", "-d", "--name", &name, "-e", "CALICO_IP=auto", "-p", publish]);
        command.args(["busybox", "sleep", "1000"]).spawn().unwrap()
    };
    let runs: Vec<_> = (0..3).map(run).collect();
    for mut run in runs {
        assert!(run.wait().unwrap().success(), "{}", lab.log());
    }
    let mut ports: Vec<String> = (0..3).map(|name| lab.ok(&["port", &format!("web{name}"), "80"])).collect();
    ports.sort();
    ports.dedup();
    assert_eq!(ports.len(), 3, "{ports:?}");
    lab.ok(&["rm", "-f", "web0", "web1", "web2"]);
    lab.nothing_left().await;
}

#[tokio::test]
async fn clients_that_start_one_container_at_once_start_it_once() {
    let lab = Lab::new().await;
    let id = lab.ok(&["create", "--name", "web", "-e", "CALICO_IP=auto", "busybox", "sleep", "1000"]);
    let through = |container: &str| {
        let host = format!("unix://{}", lab.socket().display());
        let mut command = Command::new("docker");
        command.args(["-H", &host, "start", container]).spawn().unwrap()
    };
    for _ in 0..3 {
        let starts = [through("web"), lab.start_directly("web"), through(&id[..12]), lab.start_directly(&id)];
        for mut start in starts {
            assert!(start.wait().unwrap().success(), "{}", lab.log());
        }
        assert!(answers(&lab.runs("web").await));
        assert_eq!(lab.world.endpoints().await.len(), 1);
        lab.ok(&["stop", "-t", "0", &id[..12]]);
    }
    lab.ok(&["rm", &id[..12]]);
    lab.nothing_left().await;
}

#[tokio::test]
async fn many_containers_at_once_leave_neither_descriptors_nor_addresses() {
    let lab = Lab::new().await;
    let open = || std::fs::read_dir(format!("/proc/{}/fd", lab.proxy.pid())).unwrap().count();
    let host = format!("unix://{}", lab.socket().display());
    let before = open();
    for _ in 0..2 {
        let runs: Vec<_> = (0..15)
            .map(|name| {
                let mut command = Command::new("docker");
                command.args([
                    "-H",
                    &host,
                    "run",
                    "-d",
                    "--name",
                    &format!("web{name}"),
                    "-e",
                    "CALICO_IP=auto",
                ]);
                command.args(["-P", "--expose", "80", "busybox", "sleep", "1000"]).spawn().unwrap()
            })
            .collect();
        for mut run in runs {
            assert!(run.wait().unwrap().success(), "{}", lab.log());
        }
        assert_eq!(lab.world.endpoints().await.len(), 15);
        let all = lab.ok(&["ps", "-aq"]);
        lab.ok(&[&["rm", "-f"][..], &all.lines().collect::<Vec<_>>()].concat());
        lab.nothing_left().await;
    }
    eventually("the descriptors are closed", async || {
        let now = open();
        (now <= before + 2).then_some(()).ok_or(format!("{before} before, {now} now"))
    })
    .await;
}

/// What a container sets up in its namespace is gone at its next start, unless others share the namespace.
#[tokio::test]
async fn rules_of_a_container_do_not_outlive_it() {
    let lab = Lab::new().await;
    lab.run(&["--name", "web", "--cap-add", "NET_ADMIN", "busybox", "sleep", "1000"]);
    let address = lab.runs("web").await;
    let inside = |script: &str| {
        let pid = lab.inspect("web")["State"]["Pid"].to_string();
        sh(&format!("nsenter --net=/proc/{pid}/ns/net sh -c '{script}' 2>&1"))
    };
    let drops =
        "nft \"add table ip t; add chain ip t in { type filter hook input priority 0; policy drop; }\"";
    let queue = "tc qdisc add dev eth0 root tbf rate 1kbit burst 1500 latency 1s";
    let set = inside(&format!("{drops} && {queue} && ip rule add from all lookup 77"));
    assert_eq!(set, "");
    let seen = "nft list ruleset; tc qdisc show dev eth0 | grep tbf; ip rule | grep 77";
    assert!(inside(seen).contains("policy drop") && !answers(&address));
    lab.ok(&["restart", "-t", "0", "web"]);
    assert_eq!(lab.runs("web").await, address);
    assert!(answers(&address), "{}\n{}", inside("ip addr; ip route"), lab.log());
    assert_eq!(inside(seen), "");
    lab.ok(&["rm", "-f", "web"]);
    lab.nothing_left().await;
}
