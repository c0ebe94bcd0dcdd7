//! `dataplane = "local"`: tasks reach each other and the world, and the host is restored in every
//! letter, also after a crash. To be run in a private network namespace, as `make test` does.

mod kit;

use std::collections::BTreeSet;
use std::process::Command;

use calico_mesos::net::local::{abandon, disable, enable, Local};
use calico_mesos::net::{self, Namespace};
use kit::netlab::{addresses, run, Lab};
use kit::wait;
use serde_json::{json, Value};

/// All that `dataplane = "local"` may touch, without what counts packets or tells the time.
fn host_state() -> String {
    // Addresses that the kernel is still checking appear in the tables a moment later.
    let checked = || !run("ip", &["addr"]).contains("tentative");
    wait::blocking(wait::LIMIT, "the kernel has checked all addresses", checked);
    let mut state = String::new();
    for (command, args) in [
        ("nft", vec!["-s", "list", "ruleset"]),
        ("iptables-nft-save", vec![]),
        ("ip6tables-nft-save", vec![]),
        ("ip", vec!["-4", "route", "show", "table", "all"]),
        ("ip", vec!["-6", "route", "show", "table", "all"]),
        ("ip", vec!["link"]),
        ("ip", vec!["addr"]),
    ] {
        state.push_str(&format!("## {command} {args:?}\n"));
        let text = run(command, &args);
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        state.extend(lines.map(|line| format!("{}\n", line.split(" [").next().unwrap_or(line))));
    }
    if std::fs::read_to_string("/proc/self/net/ip_tables_names").is_ok_and(|names| names.contains("filter")) {
        let text = run("iptables-legacy-save", &[]);
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        state.extend(lines.map(|line| format!("{}\n", line.split(" [").next().unwrap_or(line))));
    }
    let settings =
        run("sh", &["-c", "grep -rs . /proc/sys/net/ipv4 /proc/sys/net/ipv6 | grep -v stat | sort"]);
    state + &settings
}

fn inside_ok(namespace: &Namespace, args: &[&str]) -> bool {
    let enter = format!("--net={}", namespace.path().display());
    let output = Command::new("nsenter").arg(enter).args(args).output().unwrap();
    output.status.success()
}

fn pings(from: &Namespace, to: &str) -> bool {
    inside_ok(from, &["busybox", "ping", "-c", "1", "-W", "2", to])
}

/// What these tests need besides.
trait Locally {
    async fn task(&self, link: &str, ips: &[&str]) -> (Namespace, Local);
    async fn world(&self) -> Namespace;
}

impl Locally for Lab {
    async fn task(&self, link: &str, ips: &[&str]) -> (Namespace, Local) {
        let (namespace, _) = self.container(link, None).await;
        net::assign(&namespace, "eth0", &addresses(ips)).await.unwrap();
        let local = Local {
            link: link.to_owned(),
            addresses: addresses(ips),
            pools: vec!["10.66.0.0/16".parse().unwrap(), "fd66::/64".parse().unwrap()],
            state_dir: self.path("local"),
        };
        (namespace, local)
    }

    /// Another machine on a wire of its own, which knows no way back to the pool.
    async fn world(&self) -> Namespace {
        let (world, _) = self.container("wire0", None).await;
        run("ip", &["addr", "add", "10.77.0.1/24", "dev", "wire0"]);
        run("ip", &["-6", "addr", "add", "fd77::1/64", "dev", "wire0", "nodad"]);
        assert!(inside_ok(&world, &["ip", "addr", "add", "10.77.0.2/24", "dev", "eth0"]));
        assert!(inside_ok(&world, &["ip", "-6", "addr", "add", "fd77::2/64", "dev", "eth0", "nodad"]));
        world
    }
}

/// A host that does not forward: a new namespace takes that from the machine, which may.
fn plain_host() -> Lab {
    let lab = Lab::new();
    std::fs::write("/proc/sys/net/ipv4/ip_forward", "0").unwrap();
    lab
}

/// Two tasks reach each other and the world; afterwards the host is as it was, in every letter.
async fn tasks_reach_everything(lab: &Lab) {
    let _world = lab.world().await;
    let before = host_state();
    let (one, first) = lab.task("calione", &["10.66.0.1", "fd66::1"]).await;
    let (two, second) = lab.task("calitwo", &["10.66.0.2", "fd66::2"]).await;
    assert!(!pings(&one, "10.66.0.2"));
    enable(&first).await.unwrap();
    enable(&second).await.unwrap();
    for target in ["10.66.0.2", "fd66::2", "10.77.0.2", "fd77::2", "10.77.0.1"] {
        assert!(pings(&one, target), "{target}");
    }
    assert!(pings(&two, "10.66.0.1"));
    assert!(net::has_host_route("calione", "10.66.0.1".parse().unwrap()).await.unwrap());
    assert!(net::has_host_route("calione", "fd66::1".parse().unwrap()).await.unwrap());
    // Repeated and out of order is fine.
    enable(&first).await.unwrap();
    disable(&first).await.unwrap();
    assert!(!net::has_host_route("calione", "10.66.0.1".parse().unwrap()).await.unwrap());
    assert!(pings(&two, "10.77.0.2"));
    net::delete_link("calione").await.unwrap();
    disable(&first).await.unwrap();
    net::delete_link("calitwo").await.unwrap();
    disable(&second).await.unwrap();
    disable(&second).await.unwrap();
    similar(&before, &host_state());
    net::delete_link("wire0").await.unwrap();
}

fn similar(before: &str, after: &str) {
    if before != after {
        let (old, new): (BTreeSet<&str>, BTreeSet<&str>) =
            (before.lines().collect(), after.lines().collect());
        panic!(
            "gone: {:#?}\nleft behind: {:#?}",
            old.difference(&new).collect::<Vec<_>>(),
            new.difference(&old).collect::<Vec<_>>()
        );
    }
}

#[tokio::test]
async fn local_on_a_plain_host() {
    let lab = plain_host();
    tasks_reach_everything(&lab).await;
}

#[tokio::test]
async fn local_where_docker_set_forward_to_drop() {
    let lab = plain_host();
    for program in ["iptables-nft", "ip6tables-nft"] {
        run(program, &["-P", "FORWARD", "DROP"]);
        run(program, &["-A", "FORWARD", "-i", "docker0", "-j", "ACCEPT"]);
    }
    tasks_reach_everything(&lab).await;
    run("nft", &["flush", "ruleset"]);
}

#[tokio::test]
async fn local_where_the_old_iptables_drop() {
    let lab = plain_host();
    for program in ["iptables-legacy", "ip6tables-legacy"] {
        run(program, &["-P", "FORWARD", "DROP"]);
    }
    tasks_reach_everything(&lab).await;
    for program in ["iptables-legacy", "ip6tables-legacy"] {
        run(program, &["-P", "FORWARD", "ACCEPT"]);
    }
}

#[tokio::test]
async fn local_where_the_operator_forwards_already() {
    let lab = plain_host();
    std::fs::write("/proc/sys/net/ipv4/ip_forward", "1").unwrap();
    run(
        "nft",
        &["add table inet own; add chain inet own f { type filter hook forward priority 5; policy drop; }"],
    );
    tasks_reach_everything(&lab).await;
    run("nft", &["flush", "ruleset"]);
    std::fs::write("/proc/sys/net/ipv4/ip_forward", "0").unwrap();
}

#[tokio::test]
async fn local_settings_of_single_interfaces_come_back() {
    let lab = plain_host();
    let _world = lab.world().await;
    // Odd on purpose: the switch would lose both.
    std::fs::write("/proc/sys/net/ipv4/conf/wire0/forwarding", "1").unwrap();
    std::fs::write("/proc/sys/net/ipv4/conf/all/accept_redirects", "0").unwrap();
    let before = host_state();
    let (_one, first) = lab.task("calione", &["10.66.0.1", "fd66::1"]).await;
    enable(&first).await.unwrap();
    net::delete_link("calione").await.unwrap();
    disable(&first).await.unwrap();
    similar(&before, &host_state());
    std::fs::write("/proc/sys/net/ipv4/conf/all/accept_redirects", "1").unwrap();
    net::delete_link("wire0").await.unwrap();
}

#[tokio::test]
async fn local_mends_what_a_dead_one_left_half_done() {
    let lab = plain_host();
    run("iptables-nft", &["-P", "FORWARD", "DROP"]);
    let before = host_state();
    let (one, first) = lab.task("calione", &["10.66.0.1"]).await;
    let (_two, second) = lab.task("calitwo", &["10.66.0.2"]).await;
    enable(&first).await.unwrap();
    // As if it had died between the marker and the changes.
    let path = lab.path("local").join("host.json");
    let mut marker: Value = serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
    marker["ready"] = json!(false);
    std::fs::write(&path, marker.to_string()).unwrap();
    run("nft", &["delete", "table", "ip", "calico-mesos"]);
    std::fs::write("/proc/sys/net/ipv4/ip_forward", "0").unwrap();
    enable(&second).await.unwrap();
    assert!(pings(&one, "10.66.0.2"));
    // The first one's executor is dead for good: only its link's end counts.
    net::delete_link("calione").await.unwrap();
    net::delete_link("calitwo").await.unwrap();
    disable(&second).await.unwrap();
    similar(&before, &host_state());
    run("nft", &["flush", "ruleset"]);
}

/// All tasks and executors of one configuration were killed, as those of a private cluster are.
#[tokio::test]
async fn local_is_restored_in_place_of_the_dead() {
    let lab = plain_host();
    run("iptables-nft", &["-P", "FORWARD", "DROP"]);
    let before = host_state();
    let (_one, first) = lab.task("calione", &["10.66.0.1", "fd66::1"]).await;
    enable(&first).await.unwrap();
    net::delete_link("calione").await.unwrap();
    abandon(&first.state_dir, &[lab.path("none")]).await.unwrap();
    similar(&before, &host_state());
    assert!(!first.state_dir.join("host.json").exists() && !lab.path("none").exists());
    abandon(&first.state_dir, &[]).await.unwrap();
    similar(&before, &host_state());

    // Another configuration's tasks need the same settings: they restore them.
    let (_one, first) = lab.task("calione", &["10.66.0.1"]).await;
    let (two, second) = lab.task("calitwo", &["10.66.0.2"]).await;
    let second = Local { state_dir: lab.path("other"), ..second };
    enable(&first).await.unwrap();
    enable(&second).await.unwrap();
    net::delete_link("calione").await.unwrap();
    abandon(&first.state_dir, &[lab.path("none"), second.state_dir.clone()]).await.unwrap();
    assert_eq!(std::fs::read_to_string("/proc/sys/net/ipv4/ip_forward").unwrap(), "1\n");
    drop(two);
    net::delete_link("calitwo").await.unwrap();
    disable(&second).await.unwrap();
    similar(&before, &host_state());
    run("nft", &["flush", "ruleset"]);
}

/// After a boot, settings are what the host's administrator has made them.
#[tokio::test]
async fn settings_of_another_boot_are_not_restored() {
    let lab = plain_host();
    let (_one, first) = lab.task("calione", &["10.66.0.1"]).await;
    let path = first.state_dir.join("host.json");
    for boot in [json!("another"), json!("")] {
        enable(&first).await.unwrap();
        let written = std::fs::read_to_string(&path).unwrap();
        let mut marker: Value = serde_json::from_str(&written).unwrap();
        assert_eq!(marker["boot"].as_str().unwrap().len(), 36);
        marker["boot"] = boot;
        std::fs::write(&path, marker.to_string()).unwrap();
        let now = host_state();
        abandon(&first.state_dir, &[]).await.unwrap();
        assert_eq!(host_state(), now);
        assert!(!path.exists());
        std::fs::write(&path, written).unwrap();
        disable(&first).await.unwrap();
    }
    net::delete_link("calione").await.unwrap();
}

#[tokio::test]
async fn local_comes_back_after_the_hosts_firewall_was_reloaded() {
    let lab = plain_host();
    let _world = lab.world().await;
    let before = host_state();
    let (one, first) = lab.task("calione", &["10.66.0.1", "fd66::1"]).await;
    enable(&first).await.unwrap();
    assert!(pings(&one, "10.77.0.2") && pings(&one, "fd77::2"));
    run("nft", &["flush", "ruleset"]);
    run(
        "nft",
        &["add table inet own; add chain inet own f { type filter hook forward priority 0; policy drop; }"],
    );
    assert!(!pings(&one, "10.77.0.2"));
    enable(&first).await.unwrap();
    assert!(pings(&one, "10.77.0.2") && pings(&one, "fd77::2"));
    net::delete_link("calione").await.unwrap();
    disable(&first).await.unwrap();
    run("nft", &["delete", "table", "inet", "own"]);
    similar(&before, &host_state());
    net::delete_link("wire0").await.unwrap();
}

#[tokio::test]
async fn local_never_replaces_the_host_route_of_another_task() {
    let lab = Lab::new();
    let (_one, local) = lab.task("cali0000000001", &["10.66.0.1", "fd66::1"]).await;
    enable(&local).await.unwrap();
    let (_other, second) = lab.task("cali0000000002", &["10.66.0.2", "fd66::1"]).await;
    let error = enable(&second).await.unwrap_err().to_string();
    assert!(error.contains("fd66::1") && error.contains("cali0000000001"), "{error}");
    for address in addresses(&["10.66.0.1", "fd66::1"]) {
        assert_eq!(net::task_with_route(address).await.unwrap().as_deref(), Some("cali0000000001"));
    }
    assert!(!run("ip", &["route"]).contains("cali0000000002"));
    // Calico's own route for a block, and a borrowed address that another host announces, lead to no task here.
    run("ip", &["route", "add", "blackhole", "10.66.1.0/26"]);
    run("ip", &["route", "add", "blackhole", "10.66.1.70/32"]);
    run("ip", &["link", "add", "uplink0", "type", "veth", "peer", "name", "uplink1"]);
    run("ip", &["link", "set", "uplink1", "up"]);
    run("ip", &["addr", "add", "10.78.0.1/24", "dev", "uplink0"]);
    run("ip", &["link", "set", "uplink0", "up"]);
    run("ip", &["route", "add", "10.66.1.80/32", "via", "10.78.0.2"]);
    for free in addresses(&["10.66.1.1", "10.66.1.70", "10.66.1.80", "10.66.2.1", "fd66::2"]) {
        assert_eq!(net::task_with_route(free).await.unwrap(), None, "{free}");
    }
    for rest in ["blackhole 10.66.1.0/26", "blackhole 10.66.1.70/32"] {
        run("sh", &["-c", &format!("ip route del {rest}")]);
    }
    run("ip", &["link", "del", "uplink0"]);
    for task in [&local, &second] {
        disable(task).await.unwrap();
        net::delete_link(&task.link).await.unwrap();
    }
}

#[tokio::test]
async fn two_local_clusters_run_at_once() {
    let lab = plain_host();
    let before = host_state();
    let (one, first) = lab.task("calione", &["10.66.0.1"]).await;
    let (_two, second) = lab.task("calitwo", &["10.66.0.2"]).await;
    for _ in 0..5 {
        let (a, b) = tokio::join!(enable(&first), enable(&second));
        a.and(b).unwrap();
        assert!(pings(&one, "10.66.0.2"));
        let (a, b) = tokio::join!(disable(&first), disable(&second));
        a.and(b).unwrap();
    }
    net::delete_link("calione").await.unwrap();
    net::delete_link("calitwo").await.unwrap();
    similar(&before, &host_state());
}

#[tokio::test]
async fn local_prepares_the_host_once() {
    let lab = plain_host();
    let (_one, first) = lab.task("calione", &["10.66.0.1"]).await;
    let (_two, second) = lab.task("calitwo", &["10.66.0.2"]).await;
    enable(&first).await.unwrap();
    // The table is replaced whenever the host is prepared, and gets another handle then.
    let prepared = || run("nft", &["--handle", "list", "tables"]);
    let once = prepared();
    assert!(once.contains("calico-mesos"), "{once}");
    for _ in 0..3 {
        enable(&second).await.unwrap();
        assert_eq!(prepared(), once);
        disable(&second).await.unwrap();
        assert_eq!(prepared(), once);
    }
    net::delete_link("calione").await.unwrap();
    net::delete_link("calitwo").await.unwrap();
    disable(&first).await.unwrap();
}
