//! What `pool …` and `ipam …` write and count, as the real calicoctl sees it.

use std::process::Command;

use serde_json::Value;

use crate::datastore::{auto, task, World};
use crate::programs::Peers;

/// Runs our program against the world's etcd.
fn ours(world: &World, line: &str) -> (i32, String) {
    let config = world.dir.path().join("config.toml");
    let (endpoint, dir) = (&world.etcd.endpoint, world.dir.path().display());
    let text = format!(
        "[etcd]\nendpoints = [\"{endpoint}\"]\n[paths]\nlog = \"{dir}/log\"\nstate = \"{dir}/state\"\n"
    );
    std::fs::write(&config, text).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_calico-mesos"));
    command.env_clear().arg("--config").arg(&config).args(line.split(' '));
    let output = command.output().unwrap();
    (output.status.code().unwrap(), String::from_utf8(output.stdout).unwrap())
}

/// Calico reads, and writes again, what the pool verbs have made; both sides show the same.
#[tokio::test]
async fn pools_that_we_make_are_calicos() {
    let mut world = World::new(&["agent-1"], &[]).await;
    let peers = Peers::new(&world.etcd.endpoint);
    for line in [
        "pool add 10.80.0.0/16 --ipip --nat-outgoing",
        "pool add fd00:80::/64 --name six --vxlan=cross-subnet",
        "pool add 10.80.0.0/16 --ipip=cross-subnet",
        "pool disable six",
    ] {
        assert_eq!(ours(&world, line).0, 0, "{line}");
    }
    for name in ["10-80-0-0-16", "six"] {
        let pool = peers.get(&format!("ippool {name}")).await;
        peers.apply(&pool).await;
    }
    let six = peers.get("ippool six").await;
    assert_eq!(
        (six["spec"]["disabled"].as_bool(), &six["spec"]["vxlanMode"]),
        (Some(true), &"CrossSubnet".into())
    );
    let shown: Value = serde_json::from_str(&ours(&world, "pool show -o json").1).unwrap();
    assert_eq!((&shown[0]["ipip"], &shown[0]["natOutgoing"]), (&"CrossSubnet".into(), &true.into()));

    let holder = task("agent-1");
    let committed = world.launch(&holder, &auto()).await.unwrap();
    peers.prepare_check().await;
    peers.check_ipam().await;
    let cells = |text: &str| -> Vec<String> {
        let rows = text.lines().filter(|line| line.starts_with('|'));
        rows.map(|row| row.split_whitespace().collect::<Vec<_>>().join(" ")).collect()
    };
    for flag in ["--show-blocks", "--show-borrowed"] {
        let line = format!("ipam show {flag}");
        assert_eq!(cells(&ours(&world, &line).1), cells(&peers.calicoctl(&line).await), "{flag}");
    }
    assert_eq!(ours(&world, "pool remove 10.80.0.0/16").0, 1);
    let endpoints = world.dump().await.into_keys().filter(|key| key.contains("/workloadendpoints/"));
    for key in endpoints {
        world.delete(&key).await;
    }
    let line = format!("ipam release --ip {}", committed.addresses[0]);
    assert_eq!(ours(&world, &line).0, 0);
    peers.check_ipam().await;
    assert_eq!(ours(&world, "pool remove 10.80.0.0/16").0, 0);
    peers.check_ipam().await;
}
