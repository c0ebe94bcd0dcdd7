//! `policy.wait`: with a slow Felix, a dead one, and one that reports nothing.

use std::time::{Duration, Instant};

use calico_mesos::mesos::messages::TaskState;
use nix::sys::signal::Signal;
use serde_json::json;

use crate::felix::Felix;
use crate::kit::wait::{eventually, within};
use crate::lab::{shell, Lab, NODE, OUTSIDE};
use crate::world::{app, calico};

const PATIENT: [(&str, &str); 1] = [("policy.timeout", "\"20s\"")];
const REQUIRED: [(&str, &str); 3] = [
    ("policy.wait", "\"required\""),
    ("policy.timeout", "\"1s\""),
    // How long a Felix that starts at the same time may take to make its folder.
    ("launch.retry_for", "\"2s\""),
];
const BEST_EFFORT: [(&str, &str); 2] = [("policy.wait", "\"best-effort\""), ("policy.timeout", "\"1s\"")];

#[tokio::test]
async fn the_gate_stays_shut_until_felix_is_done() {
    let lab = Lab::new(&PATIENT).await;
    let felix = lab.felix().await;
    felix.signal(Signal::SIGSTOP);
    let cmd = format!("touch /mnt/mesos/sandbox/first; ping -c 1 -W 1 {OUTSIDE} && sleep 1000");
    let task = lab.world.launch(&app("/patient", &cmd, calico())).await;
    // How long Felix is stopped, during which nothing may run.
    tokio::time::sleep(Duration::from_secs(2)).await;
    let first = task.sandbox().join("first");
    assert!(!first.exists(), "it ran without Felix\n{}", task.log());
    assert_eq!(task.states(), [TaskState::TaskStarting]);
    assert_eq!(lab.world.endpoints().await.len(), 1, "the endpoint is not what is waited for");

    felix.signal(Signal::SIGCONT);
    let continued = Instant::now();
    task.reaches(TaskState::TaskRunning).await;
    eprintln!("SIGCONT to RUNNING: {} ms", continued.elapsed().as_millis());
    let file = lab.status_file(&task).expect("RUNNING came before Felix's report");
    let made = |path: &std::path::Path| std::fs::metadata(path).unwrap().modified().unwrap();
    eventually("the workload has begun", async || first.exists()).await;
    let lead = made(&first).duration_since(made(&file)).expect("it ran before Felix's report");
    eprintln!("status file to first instruction: {} ms", lead.as_millis());
    task.kill().await;
    lab.nothing_left(&[&task]).await;
}

/// Whether or not a Felix has ever run on the host.
#[tokio::test]
async fn required_fails_without_felix() {
    let lab = Lab::new(&REQUIRED).await;
    for had_felix in [false, true] {
        if had_felix {
            lab.felix().await.stop();
        }
        let task = lab.world.launch(&app("/strict", "touch /mnt/mesos/sandbox/first", calico())).await;
        let message = task.fails().await;
        assert!(
            message.contains("CM-POLICY") && message.contains("FELIX_ENDPOINTSTATUSPATHPREFIX"),
            "{message}"
        );
        assert!(!task.sandbox().join("first").exists());
        task.executor_exit().await;
        lab.nothing_left(&[&task]).await;
    }
}

#[tokio::test]
async fn best_effort_starts_without_felix() {
    let lab = Lab::new(&BEST_EFFORT).await;
    for had_felix in [false, true] {
        if had_felix {
            lab.felix().await.stop();
        }
        let begun = Instant::now();
        let task = lab.world.running(&app("/loose", "sleep 1000", calico())).await;
        let took = begun.elapsed();
        assert!(took >= Duration::from_secs(1), "{took:?}");
        assert!(task.log().contains("did not program"), "{}", task.log());
        // Felix, when it comes, takes the task over.
        let mut felix = lab.felix().await;
        within(Duration::from_secs(15), "Felix takes it over", async || lab.reaches(&task, OUTSIDE).await)
            .await;
        task.kill().await;
        lab.nothing_left(&[&task]).await;
        felix.stop();
    }
}

/// Before 3.30 Felix writes no status files unless it is told to: then its route is waited for.
#[tokio::test]
async fn a_felix_without_status_files_opens_the_gate_by_its_route() {
    let lab = Lab::new(&PATIENT).await;
    let extra = [("FELIX_ENDPOINTSTATUSPATHPREFIX", "none")];
    let felix = Felix::start(&lab.peers, NODE, &lab.calico(), &extra).await;
    assert!(!lab.world.config.paths.endpoint_status.exists(), "it writes status files all the same");
    felix.signal(Signal::SIGSTOP);
    let task = lab.world.launch(&app("/routed", "sleep 1000", calico())).await;
    // How long Felix is stopped, during which nothing may run.
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(task.states(), [TaskState::TaskStarting]);
    felix.signal(Signal::SIGCONT);
    task.reaches(TaskState::TaskRunning).await;
    let [address] = task.addresses().try_into().unwrap();
    let routes = shell("ip route").await.1;
    assert!(routes.lines().any(|line| line.starts_with(&address)), "{routes}");
    // Routes come before rules are complete: the first instruction must not notice.
    for _ in 0..5 {
        let cmd = format!("ping -c 1 -W 1 {address} && ping -c 1 -W 1 {OUTSIDE}");
        // A slow Felix, or Docker would be the slower one and hide the difference.
        felix.signal(Signal::SIGSTOP);
        let client = lab.world.launch(&app("/client", &cmd, calico())).await;
        tokio::time::sleep(Duration::from_millis(400)).await;
        felix.signal(Signal::SIGCONT);
        assert_eq!(client.ends().await.state(), TaskState::TaskFinished, "{}", client.log());
        eprintln!("{}", lab.timing(&client));
        client.executor_exit().await;
        // Felix applies ten times a second at most: a launch alone is what counts.
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    task.kill().await;
    lab.nothing_left(&[&task]).await;
}

/// After a roll-back the older Felix finds the folder of the newer one, and writes nothing into it.
#[tokio::test]
async fn an_older_felix_after_a_roll_back_opens_the_gate_by_its_route() {
    let lab = Lab::new(&PATIENT).await;
    lab.felix().await.stop();
    assert!(lab.world.config.paths.endpoint_status.exists());
    let extra = [("FELIX_ENDPOINTSTATUSPATHPREFIX", "none")];
    let _felix = Felix::start(&lab.peers, NODE, &lab.calico(), &extra).await;
    let task = lab.world.running(&app("/routed", "sleep 1000", calico())).await;
    assert_eq!(lab.status_file(&task), None);
    assert!(lab.reaches(&task, OUTSIDE).await);
    task.kill().await;
    lab.nothing_left(&[&task]).await;
}

/// A changed setting makes Felix exit with 129 and start anew: launches meanwhile wait, tasks go on.
#[tokio::test]
async fn a_launch_waits_while_felix_restarts_itself() {
    let lab = Lab::new(&PATIENT).await;
    let felix = lab.felix().await;
    let old = lab.world.running(&app("/old", "sleep 1000", calico())).await;
    lab.peers
        .apply(&json!({
            "apiVersion": "projectcalico.org/v3", "kind": "FelixConfiguration",
            "metadata": {"name": "default"}, "spec": {"endpointReportingEnabled": true},
        }))
        .await;
    within(Duration::from_secs(20), "Felix starts anew", async || felix.restarts() > 0).await;
    let new = lab.world.running(&app("/new", "sleep 1000", calico())).await;
    eprintln!("{}", lab.timing(&new));
    let [address] = new.addresses().try_into().unwrap();
    assert!(lab.reaches(&old, &address).await && lab.reaches(&new, OUTSIDE).await);
    old.kill().await;
    new.kill().await;
    lab.nothing_left(&[&old, &new]).await;
    assert_eq!(felix.failures(), Vec::<String>::new());
}

/// A killed Felix changes nothing for tasks that run; those that end meanwhile leave nothing either.
#[tokio::test]
async fn a_task_ends_while_felix_is_away() {
    let lab = Lab::new(&[]).await;
    let mut felix = lab.felix().await;
    let stays = lab.world.running(&app("/stays", "sleep 1000", calico())).await;
    let ends = lab.world.running(&app("/ends", "sleep 1000", calico())).await;
    felix.stop();
    assert!(lab.reaches(&stays, OUTSIDE).await, "traffic stops with Felix");
    ends.kill().await;
    let _felix = lab.felix().await;
    assert!(lab.reaches(&stays, OUTSIDE).await);
    stays.kill().await;
    lab.nothing_left(&[&stays, &ends]).await;
}

/// More tasks than Felix programs within `policy.timeout`: the wait of each goes on while Felix programs others.
#[tokio::test]
async fn a_burst_of_tasks_that_require_their_policy() {
    const BURST: usize = 150;
    let lab = Lab::new(&[("policy.wait", "\"required\"")]).await;
    let _felix = lab.felix().await;
    let begun = Instant::now();
    let mut tasks = Vec::new();
    for number in 0..BURST {
        let cmd = format!("ping -c 1 -W 1 {OUTSIDE} > /mnt/mesos/sandbox/first; sleep 1000");
        tasks.push(lab.world.launch(&app(&format!("/burst-{number}"), &cmd, calico())).await);
    }
    for task in &tasks {
        task.reaches(TaskState::TaskRunning).await;
        assert!(lab.status_file(task).is_some(), "it runs without Felix's report\n{}", task.log());
    }
    eprintln!("{BURST} tasks, launched at once, all ran after {} ms", begun.elapsed().as_millis());
    for task in &tasks {
        task.kill().await;
    }
    lab.nothing_left(&tasks.iter().collect::<Vec<_>>()).await;
}
