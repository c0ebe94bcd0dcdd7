//! `calico-mesos task` beside Calico's own programs: what it shows is what they show.

use std::process::Command;

use nix::sys::signal::Signal;
use serde_json::{json, Value};

use crate::lab::{Lab, OUTSIDE};
use crate::world::{app, calico, CLI};

fn run(lab: &Lab, arguments: &[&str]) -> String {
    let config = lab.world.stack.config.to_str().unwrap();
    let output = Command::new(CLI).args(["--config", config, "task"]).args(arguments).output().unwrap();
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

fn shown(lab: &Lab, task: &str) -> Value {
    serde_json::from_str(&run(lab, &["show", task, "-o", "json"])).unwrap()
}

#[tokio::test]
async fn a_tasks_story_agrees_with_felix_and_calicoctl() {
    let lab = Lab::new(&[("policy.timeout", "\"2s\"")]).await;
    let felix = lab.felix().await;
    let task = lab.world.running(&app("/web", "sleep 1000", calico())).await;
    let story = shown(&lab, &task.id);
    let file = lab.status_file(&task).expect("Felix has written its report");
    assert_eq!((&story["felix"]["report"], &story["felix"]["file"]), (&json!("written"), &json!(file)));
    assert!(story["felix"]["since"].is_string(), "{story}");
    assert_eq!(story["addresses"][0]["host_route"], json!(true));

    let name = story["endpoint"]["name"].as_str().unwrap();
    let theirs = lab.peers.get(&format!("workloadendpoint {name}")).await;
    for field in ["ipNetworks", "profiles", "interfaceName", "mac", "workload"] {
        assert_eq!(story["endpoint"]["record"]["spec"][field], theirs["spec"][field], "{field}");
    }
    let address = story["addresses"][0]["address"].as_str().unwrap();
    let theirs = lab.peers.calicoctl(&format!("ipam show --ip={address}")).await;
    assert!(theirs.contains("is in use"), "{theirs}");
    let pinged = run(&lab, &["exec", &task.id, "--", "busybox", "ping", "-c", "1", "-W", "1", OUTSIDE]);
    assert!(pinged.contains(" 0% packet loss"), "{pinged}");

    // A Felix that is stopped: the task starts after `policy.timeout`, and its story does not hide it.
    felix.signal(Signal::SIGSTOP);
    let other = lab.world.running(&app("/other", "sleep 1000", calico())).await;
    let story = shown(&lab, &other.id);
    assert_eq!(story["felix"]["report"], json!("missing"));
    assert_eq!(story["addresses"][0]["host_route"], json!(false));
    assert!(run(&lab, &["show", "/other"]).contains("NO host route leads here"));
    felix.signal(Signal::SIGCONT);
    task.kill().await;
    other.kill().await;
    lab.nothing_left(&[&task, &other]).await;
}
