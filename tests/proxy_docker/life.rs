//! The lives of containers that clients make, start and stop.

use std::time::{Duration, Instant};

use crate::lab::{Lab, LINGER};
use crate::wait::{eventually, within};
use crate::world::sh;

fn answers(address: &str) -> bool {
    sh(&format!("busybox ping -c 1 -W 2 {address}")).contains(" 0% packet loss")
}

#[tokio::test]
async fn a_container_with_the_variables_has_an_address_until_it_is_removed() {
    let lab = Lab::new().await;
    let id = lab.run(&["--name", "web", "busybox", "sh", "-c", "ip -4 -o addr show eth0; exec sleep 1000"]);
    let address = lab.runs("web").await;
    assert!(answers(&address), "{address}");
    // Its first instruction has seen the address.
    assert!(lab.ok(&["logs", "web"]).contains(&address), "{}", lab.ok(&["logs", "web"]));
    assert!(lab.ok(&["exec", "web", "ip", "addr"]).contains(&address));
    assert!(lab.ok(&["exec", "web", "cat", "/etc/hosts"]).contains(&address));
    let [endpoint] = lab.world.endpoints().await.try_into().unwrap();
    assert_eq!(endpoint["spec"]["ipNetworks"][0], format!("{address}/32"));
    assert!(lab.world.config.paths.binding(&id).exists());
    lab.ok(&["rm", "-f", "web"]);
    lab.nothing_left().await;
}

#[tokio::test]
async fn a_container_without_the_variables_is_dockers_alone() {
    let lab = Lab::new().await;
    let id = lab.ok(&["run", "-d", "--network", "none", "busybox", "sleep", "1000"]);
    assert!(!lab.world.config.paths.binding(&id).exists());
    assert_eq!(lab.inspect(&id)["HostConfig"]["Runtime"], "runc");
    lab.ok(&["rm", "-f", &id]);
    lab.nothing_left().await;
}

#[tokio::test]
async fn a_start_within_the_linger_time_sets_the_same_address_anew() {
    let lab = Lab::new().await;
    lab.run(&["--name", "web", "busybox", "sleep", "1000"]);
    let address = lab.runs("web").await;
    lab.ok(&["restart", "-t", "0", "web"]);
    assert_eq!(lab.runs("web").await, address);
    assert!(answers(&address));
    lab.ok(&["stop", "-t", "0", "web"]);
    assert_eq!(lab.address("web"), "");
    // By Docker's own socket, too: its runtime asks.
    assert!(lab.docker_directly(&["start", "web"]).status.success(), "{}", lab.log());
    assert_eq!(lab.runs("web").await, address);
    assert!(answers(&address));
    lab.ok(&["rm", "-f", "web"]);
    lab.nothing_left().await;
}

#[tokio::test]
async fn after_the_linger_time_all_is_given_back_and_the_last_address_is_asked_for() {
    let lab = Lab::new().await;
    lab.run(&["--name", "web", "busybox", "sleep", "1000"]);
    let address = lab.runs("web").await;
    lab.ok(&["stop", "-t", "0", "web"]);
    let begun = Instant::now();
    lab.given_back().await;
    assert!(begun.elapsed() >= LINGER / 2, "it was not held");
    lab.ok(&["start", "web"]);
    assert_eq!(lab.runs("web").await, address);
    // Taken meanwhile, it is not waited for.
    lab.ok(&["stop", "-t", "0", "web"]);
    lab.given_back().await;
    let ip = format!("CALICO_IP={address}");
    lab.ok(&["run", "-d", "--name", "other", "-e", &ip, "busybox", "sleep", "1000"]);
    assert_eq!(lab.runs("other").await, address);
    lab.ok(&["start", "web"]);
    assert_ne!(lab.runs("web").await, address);
    lab.ok(&["rm", "-f", "web", "other"]);
    lab.nothing_left().await;
}

/// Docker's own pauses between restarts grow to a minute, so that most of the starts are a supervisor's.
#[tokio::test]
async fn a_crash_loop_of_twenty_starts_has_one_address_and_leaves_nothing() {
    let lab = Lab::new().await;
    let script = "ip -4 -o addr show eth0; exit 1";
    lab.run(&["--name", "loop", "--restart", "on-failure:4", "busybox", "sh", "-c", script]);
    let crashed = async |times: usize| {
        within(Duration::from_secs(120), format!("it has crashed {times} times"), async || {
            let seen = lab.inspect("loop");
            let starts = lab.ok(&["logs", "loop"]).lines().count();
            match starts == times && seen["State"]["Status"] == "exited" {
                true => Ok(()),
                false => Err(format!("{starts}: {}\n{}", seen["State"], lab.log())),
            }
        })
        .await;
    };
    crashed(5).await;
    lab.ok(&["update", "--restart", "no", "loop"]);
    for times in 6..=20 {
        assert!(lab.start_directly("loop").wait().unwrap().success(), "{}", lab.log());
        crashed(times).await;
    }
    let logs = lab.ok(&["logs", "loop"]);
    let mut addresses: Vec<&str> = logs.lines().map(|line| line.split_whitespace().nth(3).unwrap()).collect();
    addresses.dedup();
    assert_eq!(addresses.len(), 1, "{logs}");
    lab.ok(&["rm", "loop"]);
    lab.nothing_left().await;
}

/// A fixed address is the container's at each of its starts, or the start waits for it and fails.
#[tokio::test]
async fn a_fixed_address_is_taken_again_at_every_start() {
    let lab = Lab::new().await;
    lab.run(&["--name", "first", "busybox", "sleep", "1000"]);
    let address = lab.runs("first").await;
    lab.ok(&["rm", "-f", "first"]);
    lab.given_back().await;
    let ip = format!("CALICO_IP={address}");
    let fixed = |name| lab.docker(&["run", "-d", "--name", name, "-e", &ip, "busybox", "sleep", "1000"]);
    assert!(fixed("web").status.success(), "{}", lab.log());
    for call in ["restart", "stop"] {
        assert_eq!(lab.runs("web").await, address);
        lab.ok(&[call, "-t", "0", "web"]);
    }
    lab.given_back().await;
    lab.ok(&["start", "web"]);
    assert_eq!(lab.runs("web").await, address);
    lab.ok(&["stop", "-t", "0", "web"]);
    lab.given_back().await;
    // Meanwhile it is another's.
    assert!(fixed("other").status.success(), "{}", lab.log());
    let refused = lab.fails(&["start", "web"]);
    assert!(refused.contains("CM-IP-TAKEN") && refused.contains(&address), "{refused}");
    lab.world.configure("launch.ip_wait", "\"30s\"");
    let mut start = lab.start_directly("web");
    lab.ok(&["rm", "-f", "other"]);
    assert!(start.wait().unwrap().success(), "it was not waited for: {}", lab.log());
    assert_eq!(lab.runs("web").await, address);
    lab.ok(&["rm", "-f", "web"]);
    lab.nothing_left().await;
}

/// A container of another client that was put into ours keeps running, and the address is free for others.
#[tokio::test]
async fn a_container_in_the_same_namespace_loses_the_interface_and_lives_on() {
    let lab = Lab::new().await;
    lab.run(&["--name", "web", "busybox", "sleep", "1000"]);
    let address = lab.runs("web").await;
    lab.ok(&["run", "-d", "--name", "beside", "--network", "container:web", "busybox", "sleep", "1000"]);
    assert!(lab.ok(&["exec", "beside", "ip", "addr"]).contains(&address));
    // A restart within the linger time keeps the interface for both.
    lab.ok(&["restart", "-t", "0", "web"]);
    assert_eq!(lab.runs("web").await, address);
    assert!(lab.ok(&["exec", "beside", "ip", "addr"]).contains(&address));
    lab.ok(&["stop", "-t", "0", "web"]);
    lab.given_back().await;
    assert!(!lab.ok(&["exec", "beside", "ip", "addr"]).contains("eth0"));
    assert_eq!(lab.inspect("beside")["State"]["Running"], true);
    lab.ok(&["rm", "-f", "web", "beside"]);
    lab.nothing_left().await;
}

#[tokio::test]
async fn a_container_is_paused_renamed_and_changed_as_any_other() {
    let lab = Lab::new().await;
    let id = lab.run(&["--name", "web", "busybox", "sleep", "1000"]);
    let address = lab.runs("web").await;
    for call in [&["pause", "web"][..], &["unpause", "web"], &["rename", "web", "shop"]] {
        lab.ok(call);
    }
    lab.ok(&["update", "--restart", "always", "shop"]);
    lab.ok(&["commit", "shop", "shop:now"]);
    assert!(answers(&address));
    let refused = lab.fails(&["checkpoint", "create", "shop", "one"]);
    assert!(refused.contains("CM-PARAMETER") || refused.contains("experimental"), "{refused}");
    for call in ["connect", "disconnect"] {
        let refused = lab.fails(&["network", call, "host", "shop"]);
        assert!(refused.contains("CM-UNSUPPORTED") && refused.contains("its only one"), "{refused}");
    }
    // The image carries the variables; a container of it asks for nothing.
    let of_image = lab.ok(&["run", "-d", "--network", "none", "shop:now", "sleep", "1000"]);
    assert!(!lab.world.config.paths.binding(&of_image).exists());
    assert!(lab.world.config.paths.binding(&id).exists());
    lab.ok(&["rm", "-f", "shop", &of_image]);
    lab.ok(&["rmi", "shop:now"]);
    lab.nothing_left().await;
}

#[tokio::test]
async fn a_container_is_in_consul_while_it_runs_and_follows_its_own_health_check() {
    let lab = Lab::with(|stack| stack.consul = true).await;
    let command = "test -e /tmp/well";
    lab.run(&[
        "--name",
        "web",
        "-e",
        "CALICO_SERVICE=shop",
        "-e",
        "SERVICE_PORT=80",
        "--health-cmd",
        command,
        "--health-interval",
        "1s",
        "--health-retries",
        "1",
        "busybox",
        "sleep",
        "1000",
    ]);
    let address = lab.runs("web").await;
    lab.world.registered("shop-direct").await;
    let state = async |wanted: &str| {
        let what = format!("shop-direct is {wanted}");
        eventually(what, async || {
            let seen = lab.world.consul("/v1/health/service/shop-direct").await;
            assert_eq!(seen[0]["Service"]["Address"], address.as_str());
            let checks = seen[0]["Checks"].as_array().cloned().unwrap_or_default();
            match checks.iter().any(|check| check["ServiceName"] != "" && check["Status"] == wanted) {
                true => Ok(()),
                false => Err(seen.to_string()),
            }
        })
        .await;
    };
    state("critical").await;
    lab.ok(&["exec", "web", "touch", "/tmp/well"]);
    state("passing").await;
    lab.ok(&["exec", "web", "rm", "/tmp/well"]);
    state("critical").await;
    lab.ok(&["stop", "-t", "0", "web"]);
    eventually("Consul has forgotten it", async || {
        let seen = lab.world.consul("/v1/catalog/service/shop-direct").await;
        (seen == serde_json::json!([])).then_some(()).ok_or(seen.to_string())
    })
    .await;
    lab.ok(&["rm", "web"]);
    lab.nothing_left().await;
}

#[tokio::test]
async fn a_container_that_removes_itself_leaves_nothing() {
    let lab = Lab::new().await;
    lab.run(&["--rm", "busybox", "true"]);
    lab.nothing_left().await;
}

#[tokio::test]
async fn what_cannot_be_had_is_refused_with_a_code_and_a_sentence() {
    let lab = Lab::new().await;
    let refused = lab.fails(&["run", "-d", "-e", "CALICO_IP=10.9", "busybox", "true"]);
    assert!(refused.contains("Error response from daemon: CM-IP-INVALID: CALICO_IP '10.9'"), "{refused}");
    assert_eq!(lab.ok(&["ps", "-aq"]), "");
    let refused = lab.fails(&["run", "-d", "-e", "CALICO_IP=203.0.113.7", "busybox", "true"]);
    assert!(refused.contains("CM-IP-") && refused.contains("203.0.113.7"), "{refused}");
    lab.ok(&["rm", &lab.ok(&["ps", "-aq"])]);
    lab.nothing_left().await;
}
