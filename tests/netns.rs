//! Namespaces, veth pairs and addresses on a real kernel, compared with what Calico's own CNI plugin
//! made there (`tests/fixtures/net`: `ip -j` after the plugin of Calico 3.29.7).
//!
//! To be run in a private network namespace: `unshare --net` with `lo` up, as `make test` does.

mod kit;

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use calico_mesos::net::{self, Namespace, NetError};
use kit::netlab::{addresses, ip, ip_inside, run, run_in, Lab};
use kit::wait::eventually;
use serde_json::{json, Value};

/// Only what has to be equal: names, indexes and random hardware addresses differ from run to run.
fn essence(value: &Value, link: &str, keys: &[&str]) -> BTreeSet<String> {
    let list = value.as_array().unwrap().iter();
    list.filter(|entry| entry.get("dev").or(entry.get("ifname")) == Some(&json!(link)))
        .flat_map(|entry| match entry.get("addr_info") {
            Some(addresses) => addresses.as_array().unwrap().clone(),
            None => vec![entry.clone()],
        })
        // The container's link-local address follows its random hardware address.
        .filter(|entry| !entry["local"].as_str().is_some_and(|ip| ip.starts_with("fe80") && link == "eth0"))
        .map(|entry| {
            let kept: serde_json::Map<String, Value> =
                keys.iter().filter_map(|key| Some(((*key).to_owned(), entry.get(*key)?.clone()))).collect();
            Value::Object(kept).to_string()
        })
        .collect()
}

const LINK: [&str; 6] = ["flags", "mtu", "qdisc", "operstate", "link_type", "broadcast"];
const ADDRESS: [&str; 6] = ["family", "local", "prefixlen", "scope", "label", "broadcast"];
const ROUTE: [&str; 6] = ["dst", "gateway", "scope", "protocol", "metric", "prefsrc"];

/// Everything that the CNI plugin left must be found after us, and nothing more.
async fn same_as_cni(fixture: &str, ips: &[&str], mtu: Option<u32>) {
    let lab = Lab::new();
    let text = std::fs::read_to_string(format!("tests/fixtures/net/{fixture}.net.json")).unwrap();
    let cni: Value = serde_json::from_str(&text).unwrap();
    let name = cni["host"]["interface"].as_str().unwrap();
    let (namespace, veth) = lab.container(name, mtu).await;
    net::assign(&namespace, "eth0", &addresses(ips)).await.unwrap();

    let link = ip_inside(&namespace, &["link", "show", "eth0"]);
    assert_eq!(essence(&link, "eth0", &LINK), essence(&cni["container"]["link"], "eth0", &LINK));
    assert_eq!(json!(veth.mac), link[0]["address"]);
    assert_eq!(json!(veth.mtu), link[0]["mtu"]);
    let seen = ip_inside(&namespace, &["addr", "show", "eth0"]);
    assert_eq!(essence(&seen, "eth0", &ADDRESS), essence(&cni["container"]["addr"], "eth0", &ADDRESS));
    for (key, family) in [("routes_v4", "-4"), ("routes_v6", "-6")] {
        let routes = ip_inside(&namespace, &[family, "route"]);
        assert_eq!(
            essence(&routes, "eth0", &ROUTE),
            essence(&cni["container"][key], "eth0", &ROUTE),
            "{key}"
        );
    }
    let host_link = ip(&["link", "show", name]);
    assert_eq!(essence(&host_link, name, &LINK), essence(&cni["host"]["link"], name, &LINK));
    assert_eq!(host_link[0]["address"], "ee:ee:ee:ee:ee:ee");
    let host = ip(&["addr", "show", name]);
    assert_eq!(essence(&host, name, &ADDRESS), essence(&cni["host"]["addr"], name, &ADDRESS));

    // Ours alone: permanent neighbours for the next hops.
    let neighbours = ip_inside(&namespace, &["neigh", "show", "nud", "permanent"]);
    let hops: BTreeSet<&str> =
        neighbours.as_array().unwrap().iter().map(|n| n["dst"].as_str().unwrap()).collect();
    let wanted: BTreeSet<&str> = ips
        .iter()
        .map(|ip| if ip.contains(':') { "fe80::ecee:eeff:feee:eeee" } else { "169.254.1.1" })
        .collect();
    assert_eq!(hops, wanted);
    assert!(neighbours.as_array().unwrap().iter().all(|n| n["lladdr"] == "ee:ee:ee:ee:ee:ee"));
    assert!(net::delete_link(name).await.unwrap());
}

#[tokio::test]
async fn one_ipv4_address_as_cni_makes_it() {
    same_as_cni("004-add-v4", &["10.65.0.48"], None).await;
}

#[tokio::test]
async fn both_families_as_cni_makes_them() {
    same_as_cni("008-add-dual", &["10.65.0.49", "fd80:24e2:f998:72d6::e0"], Some(1430)).await;
}

#[tokio::test]
async fn one_ipv6_address_as_cni_makes_it() {
    same_as_cni("009-add-v6-only", &["fd80:24e2:f998:72d6::e1"], Some(1430)).await;
}

#[tokio::test]
async fn the_thread_of_the_runtime_stays_where_it_was() {
    let lab = Lab::new();
    let before = std::fs::read_link("/proc/thread-self/ns/net").unwrap();
    let (namespace, _) = lab.container("calistay", None).await;
    net::assign(&namespace, "eth0", &addresses(&["10.9.0.1"])).await.unwrap();
    assert_eq!(std::fs::read_link("/proc/thread-self/ns/net").unwrap(), before);
    assert!(net::delete_link("calistay").await.unwrap());
}

#[tokio::test]
async fn loopback_is_up_and_nothing_forwards_in_the_namespace() {
    let lab = Lab::new();
    let namespace = Namespace::create(&lab.path("ns")).await.unwrap();
    let lo = ip_inside(&namespace, &["link", "show", "lo"]);
    assert!(lo[0]["flags"].as_array().unwrap().contains(&json!("UP")));
    let forward = run_in(&namespace, &["cat", "/proc/sys/net/ipv4/ip_forward"]);
    assert_eq!(forward.trim(), "0");
}

#[tokio::test]
async fn a_stale_link_is_replaced() {
    let lab = Lab::new();
    let (first, veth) = lab.container("calistale", Some(1400)).await;
    assert_eq!((veth.mtu, veth.host.as_str()), (1400, "calistale"));
    let again = net::create_veth(&first, "calistale", "eth0", None, None).await.unwrap();
    assert_eq!(again.mtu, 1500);
    // Of an attempt that has made another namespace, in which nothing has ever run.
    let second = Namespace::create(&lab.path("second")).await.unwrap();
    let once_more = net::create_veth(&second, "calistale", "eth0", Some(1300), None).await.unwrap();
    assert_eq!(once_more.mtu, 1300);
    assert_eq!(ip_inside(&second, &["link", "show", "eth0"])[0]["mtu"], 1300);
    assert!(net::delete_veth("calistale", Some(&second)).await.unwrap());
    assert!(!net::delete_veth("calistale", Some(&second)).await.unwrap());
}

#[tokio::test]
async fn a_link_bears_its_purpose() {
    let lab = Lab::new();
    let namespace = Namespace::create(&lab.path("ns")).await.unwrap();
    let (fits, too_long) = ("x".repeat(254), "x".repeat(255));
    for (purpose, kept) in [(None, None), (Some(&fits), Some(&fits)), (Some(&too_long), None)] {
        let purpose = purpose.map(String::as_str);
        net::create_veth(&namespace, "calipurpose", "eth0", None, purpose).await.unwrap();
        let link = &ip(&["link", "show", "calipurpose"])[0];
        assert_eq!(link["ifalias"].as_str(), kept.map(String::as_str), "{link}");
        assert_eq!(net::purposes().await.unwrap()["calipurpose"].as_ref(), kept);
        assert!(link["flags"].as_array().unwrap().contains(&json!("UP")), "{link}");
    }
    assert!(net::delete_veth("calipurpose", Some(&namespace)).await.unwrap());
}

/// Neither by a launch nor by a teardown.
#[tokio::test]
async fn an_interface_that_may_be_anothers_is_not_taken_over() {
    let lab = Lab::new();
    let own = Namespace::create(&lab.path("own")).await.unwrap();
    let refused = async |name: &str, wanted: &str| {
        let before = ip(&["link", "show", name]);
        let launch = net::create_veth(&own, name, "eth0", None, None).await.unwrap_err().to_string();
        let teardown = net::delete_veth(name, Some(&own)).await.unwrap_err().to_string();
        for error in [launch, teardown] {
            assert!(error.contains(wanted) && error.contains(name), "{error}");
        }
        assert_eq!(ip(&["link", "show", name])[0]["ifindex"], before[0]["ifindex"]);
    };
    let mac = ["address", "ee:ee:ee:ee:ee:ee"];
    run("ip", &[&["link", "add", "caliother"], &mac[..], &["type", "bridge"]].concat());
    refused("caliother", "it is not a veth").await;
    run("ip", &["link", "delete", "caliother"]);

    run("ip", &[&["link", "add", "caliother"], &mac[..], &["type", "veth", "peer", "caliother2"]].concat());
    refused("caliother", "its other end is in this host's own namespace").await;
    run("ip", &["link", "delete", "caliother"]);

    let (theirs, _) = lab.container("caliother", None).await;
    run("ip", &["link", "set", "caliother", "address", "02:00:00:00:00:07"]);
    refused("caliother", "its hardware address is 02:00:00:00:00:07").await;
    run("ip", &["link", "set", "caliother", "address", "ee:ee:ee:ee:ee:ee"]);

    let enter = format!("--net={}", theirs.path().display());
    let mut child =
        Command::new("nsenter").args([&enter, "sleep", "600"]).stdin(Stdio::null()).spawn().unwrap();
    eventually("a process is in the namespace", async || !theirs.processes().is_empty()).await;
    refused("caliother", &format!("in the namespace of process {}", child.id())).await;
    // Its own task may, whatever lives there.
    assert!(net::delete_veth("caliother", Some(&theirs)).await.unwrap());
    child.kill().unwrap();
    child.wait().unwrap();
}

/// Sets IPv6 of this host's new interfaces and of its `lo`; `0` is on.
fn switch_ipv6(default: &str, lo: &str) {
    for (link, value) in [("default", default), ("lo", lo)] {
        std::fs::write(format!("/proc/sys/net/ipv6/conf/{link}/disable_ipv6"), value).unwrap();
    }
}

#[tokio::test]
async fn ipv6_stays_off_where_the_host_has_it_off_and_the_task_asks_for_ipv4() {
    let lab = Lab::new();
    for (lo, loopback) in [("0", json!("::1")), ("1", json!(null))] {
        switch_ipv6("1", lo);
        let (namespace, veth) = lab.container("caliv4only", None).await;
        net::assign(&namespace, "eth0", &addresses(&["10.9.0.1"])).await.unwrap();
        let host = ip(&["-6", "addr", "show", &veth.host]);
        let inside = ip_inside(&namespace, &["-6", "addr"]);
        let default = run_in(&namespace, &["cat", "/proc/sys/net/ipv6/conf/default/disable_ipv6"]);
        switch_ipv6("0", "0");
        assert_eq!(host, json!([]), "the host's end has an IPv6 address");
        let seen: Vec<&Value> = inside
            .as_array()
            .unwrap()
            .iter()
            .flat_map(|link| link["addr_info"].as_array().unwrap())
            .collect();
        assert_eq!(seen.len(), usize::from(!loopback.is_null()), "{inside:#}");
        assert_eq!(inside[0]["addr_info"][0]["local"], loopback);
        assert_eq!(default.trim(), "1");
        assert!(net::delete_veth("caliv4only", Some(&namespace)).await.unwrap());
    }
}

#[tokio::test]
async fn ipv6_works_where_the_host_has_it_off_and_the_task_asks_for_it() {
    let lab = Lab::new();
    switch_ipv6("1", "1");
    let (namespace, veth) = lab.container("caliv6asked", None).await;
    let on = net::enable_ipv6(&veth.host);
    let assigned = net::assign(&namespace, "eth0", &addresses(&["10.9.0.1", "fd00::9"])).await;
    switch_ipv6("0", "0");
    on.unwrap();
    assigned.unwrap();
    let host = ip(&["-6", "addr", "show", &veth.host]);
    assert_eq!(host[0]["addr_info"][0]["local"], "fe80::ecee:eeff:feee:eeee");
    let inside = ip_inside(&namespace, &["-6", "addr"]).to_string();
    assert!(inside.contains("\"::1\"") && inside.contains("fd00::9"), "{inside}");
    // The next hop answers, as from a packet of the task's own.
    run_in(
        &namespace,
        &["busybox", "ping6", "-c", "1", "-W", "2", "-I", "eth0", "fe80::ecee:eeff:feee:eeee"],
    );
    assert!(net::delete_veth("caliv6asked", Some(&namespace)).await.unwrap());
}

#[tokio::test]
async fn addresses_change_and_repeat() {
    let lab = Lab::new();
    let (namespace, _) = lab.container("calichange", None).await;
    for wanted in
        [vec!["10.9.0.1"], vec!["10.9.0.1"], vec!["10.9.0.2", "fd80::2"], vec!["fd80::3"], vec!["10.9.0.4"]]
    {
        net::assign(&namespace, "eth0", &addresses(&wanted)).await.unwrap();
        let shown = ip_inside(&namespace, &["addr", "show", "eth0", "scope", "global"]);
        let mut found: Vec<&str> = shown
            .as_array()
            .unwrap()
            .iter()
            .filter_map(|link| link["addr_info"].as_array())
            .flatten()
            .filter_map(|a| a["local"].as_str())
            .collect();
        found.sort_unstable();
        assert_eq!(found, wanted);
        for (family, is_v6) in [("-4", false), ("-6", true)] {
            let routes = ip_inside(&namespace, &[family, "route", "show", "default"]);
            let expected = usize::from(wanted.iter().any(|a| a.contains(':') == is_v6));
            assert_eq!(routes.as_array().unwrap().len(), expected, "{wanted:?} {family}");
        }
    }
    assert!(net::delete_link("calichange").await.unwrap());
}

#[tokio::test]
async fn a_host_route_is_found_only_on_its_link() {
    let lab = Lab::new();
    let (_one, _) = lab.container("caliroute1", None).await;
    let (_two, _) = lab.container("caliroute2", None).await;
    let [v4, v6]: [IpAddr; 2] = ["10.9.1.1".parse().unwrap(), "fd80::9".parse().unwrap()];
    for address in [v4, v6] {
        assert!(!net::has_host_route("caliroute1", address).await.unwrap());
    }
    run("ip", &["route", "add", "10.9.1.1", "dev", "caliroute1"]);
    run("ip", &["-6", "route", "add", "fd80::9", "dev", "caliroute1", "metric", "1024"]);
    // A wider route through the other link must not count.
    run("ip", &["route", "add", "10.9.2.0/24", "dev", "caliroute2"]);
    for address in [v4, v6] {
        assert!(net::has_host_route("caliroute1", address).await.unwrap());
        assert!(!net::has_host_route("caliroute2", address).await.unwrap());
    }
    assert!(!net::has_host_route("caliroute2", "10.9.2.7".parse().unwrap()).await.unwrap());
    assert!(!net::has_host_route("calinone", v4).await.unwrap());
    assert!(net::delete_link("caliroute1").await.unwrap());
    assert!(net::delete_link("caliroute2").await.unwrap());
}

#[tokio::test]
async fn what_lives_in_the_namespace_is_killed() {
    let lab = Lab::new();
    let namespace = Namespace::create(&lab.path("ns")).await.unwrap();
    assert!(namespace.processes().is_empty());
    let enter = format!("--net={}", namespace.path().display());
    let mut children: Vec<_> = (0..3)
        .map(|_| Command::new("nsenter").args([&enter, "sleep", "600"]).stdin(Stdio::null()).spawn().unwrap())
        .collect();
    eventually("three processes are in the namespace", async || namespace.processes().len() >= 3).await;
    // Reaped only afterwards: a zombie lives in no namespace any more.
    assert_eq!(namespace.kill_processes(Duration::from_secs(10)).await.unwrap(), 3);
    assert!(namespace.processes().is_empty());
    for child in &mut children {
        child.wait().unwrap();
    }
}

#[tokio::test]
async fn the_hosts_own_namespace_is_never_emptied() {
    let _lab = Lab::new();
    let own = Namespace::open(Path::new("/proc/self/ns/net")).unwrap();
    let error = own.kill_processes(Duration::from_secs(1)).await.unwrap_err();
    assert!(matches!(error, NetError::HostNamespace(_)), "{error}");
}

#[tokio::test]
async fn only_a_network_namespace_is_one() {
    let lab = Lab::new();
    let plain = lab.path("plain");
    std::fs::write(&plain, "").unwrap();
    for path in [plain.as_path(), Path::new("/proc/self/ns/mnt")] {
        assert!(matches!(Namespace::open(path), Err(NetError::NotANamespace(_))), "{}", path.display());
    }
    let made = Namespace::create(&lab.path("ns")).await.unwrap();
    let opened = Namespace::open(&lab.path("ns")).unwrap();
    assert_eq!(made.inode(), opened.inode());
    assert!(Namespace::unbind(&lab.path("ns")).unwrap());
    assert!(!Namespace::unbind(&lab.path("ns")).unwrap());
}
