//! A task behind Felix: who reaches whom, when its first instruction runs, and what is left of it.

use std::time::{Duration, Instant};

use calico_mesos::mesos::messages::TaskState;
use serde_json::json;

use crate::felix::Felix;
use crate::lab::{interface, shell, Lab, HOST, HOST6, NODE, OUTSIDE, OUTSIDE6};
use crate::world::{app, calico, with};

const TESTAPP: &str = include_str!("../../marathon-examples/testapp.json");

#[tokio::test]
async fn the_testapp_lives_behind_felix() {
    let lab = Lab::new(&[]).await;
    let felix = lab.felix().await;
    let begun = Instant::now();
    let task = lab.world.running(&serde_json::from_str(TESTAPP).unwrap()).await;
    eprintln!("launch to RUNNING: {} ms", begun.elapsed().as_millis());
    eprintln!("{}", lab.timing(&task));
    let [address] = task.addresses().try_into().unwrap();
    let file = lab.status_file(&task).expect("RUNNING came before Felix's report");
    assert!(file.is_file());

    assert!(lab.reaches(&task, HOST).await, "the task does not reach its host");
    assert!(lab.reaches(&task, OUTSIDE).await, "the task's default route leads nowhere\n{}", task.log());
    assert!(shell(&format!("busybox ping -c 1 -W 1 {address}")).await.0, "the host does not reach its task");
    assert!(!lab.reached_from_outside(&address).await, "the profile lets strangers in");
    // What Felix found out for us, in the next task's interface.
    let mtu = std::fs::read_to_string(&lab.world.config.paths.mtu_file).unwrap();
    let link = shell(&format!("ip -o link show {}", interface(&task))).await.1;
    assert!(link.contains(&format!("mtu {}", mtu.trim())), "{mtu} {link}");

    assert_eq!(task.kill().await.state(), TaskState::TaskKilled, "{}", task.log());
    lab.nothing_left(&[&task]).await;
    assert_eq!(felix.failures(), Vec::<String>::new());
}

#[tokio::test]
async fn profiles_decide_who_reaches_whom() {
    let lab = Lab::new(&[]).await;
    let felix = lab.felix().await;
    let wanted = lab.world.stack.pools[0].hosts().nth(700).unwrap().to_string();
    let server = lab.world.running(&app("/server", "sleep 1000", with(calico(), "CALICO_IP", &wanted))).await;
    assert_eq!(server.addresses(), std::slice::from_ref(&wanted));
    let friend = lab.world.running(&app("/friend", "sleep 1000", calico())).await;
    let stranger =
        lab.world.running(&app("/stranger", "sleep 1000", with(calico(), "CALICO_PROFILE", "other"))).await;
    let both =
        lab.world.running(&app("/both", "sleep 1000", with(calico(), "CALICO_PROFILE", "dev,other"))).await;
    let [friends] = friend.addresses().try_into().unwrap();
    let [strangers] = stranger.addresses().try_into().unwrap();

    for (from, address, expected) in [
        (&server, &friends, true),
        (&friend, &wanted, true),
        (&both, &wanted, true),
        (&both, &strangers, true),
        (&stranger, &wanted, false),
        (&server, &strangers, false),
    ] {
        assert_eq!(lab.reaches(from, address).await, expected, "{} to {address}", from.id);
    }
    let all = [&server, &friend, &stranger, &both];
    for task in all {
        task.kill().await;
    }
    lab.nothing_left(&all).await;
    assert_eq!(felix.failures(), Vec::<String>::new());
}

#[tokio::test]
async fn a_task_has_both_families_behind_felix() {
    let lab = Lab::with_pools(&[], &["192.168.64.0/18", "fd00:65::/64"]).await;
    let extra = [("FELIX_IPV6SUPPORT", "true")];
    let felix = Felix::start(&lab.peers, NODE, &lab.calico(), &extra).await;
    let both = with(calico(), "CALICO_IP", "auto,auto6");
    let server = lab.world.running(&app("/server", "sleep 1000", both.clone())).await;
    let friend = lab.world.running(&app("/friend", "sleep 1000", both.clone())).await;
    let stranger =
        lab.world.running(&app("/stranger", "sleep 1000", with(both, "CALICO_PROFILE", "other"))).await;
    for address in server.addresses() {
        assert!(lab.reaches(&friend, &address).await, "{address} is out of reach");
        assert!(!lab.reaches(&stranger, &address).await, "{address} lets strangers in");
        assert!(shell(&format!("busybox ping -c 1 -W 1 {address}")).await.0, "the host does not reach it");
    }
    for address in [HOST, OUTSIDE, HOST6, OUTSIDE6] {
        assert!(lab.reaches(&server, address).await, "the task does not reach {address}");
    }
    for task in [&server, &friend, &stranger] {
        task.kill().await;
    }
    lab.nothing_left(&[&server, &friend, &stranger]).await;
    lab.peers.check_ipam().await;
    assert_eq!(felix.failures(), Vec::<String>::new());
}

/// Felix's other way to write its rules.
#[tokio::test]
async fn a_task_lives_behind_felix_with_nftables() {
    let lab = Lab::new(&[]).await;
    let extra = [("FELIX_NFTABLESMODE", "Enabled")];
    let felix = Felix::start(&lab.peers, NODE, &lab.calico(), &extra).await;
    let server = lab.world.running(&app("/server", "sleep 1000", calico())).await;
    let friend = lab.world.running(&app("/friend", "sleep 1000", calico())).await;
    let stranger =
        lab.world.running(&app("/stranger", "sleep 1000", with(calico(), "CALICO_PROFILE", "other"))).await;
    let [address] = server.addresses().try_into().unwrap();
    assert!(lab.reaches(&friend, &address).await);
    assert!(!lab.reaches(&stranger, &address).await);
    assert!(lab.reaches(&server, OUTSIDE).await);
    for task in [&server, &friend, &stranger] {
        task.kill().await;
    }
    lab.nothing_left(&[&server, &friend, &stranger]).await;
    assert_eq!(felix.failures(), Vec::<String>::new());
}

/// The cleaner of a dead executor's task, with Felix watching.
#[tokio::test]
async fn gc_after_a_killed_executor() {
    let lab = Lab::new(&[]).await;
    let felix = lab.felix().await;
    let task = lab.world.running(&app("/dead", "sleep 1000", calico())).await;
    let pid = nix::unistd::Pid::from_raw(i32::try_from(task.launched.executor_pid).unwrap());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).unwrap();
    assert_eq!(task.ends().await.state(), TaskState::TaskFailed);
    let gc = lab.world.gc();
    assert!(gc.status.success(), "{gc:?}");
    lab.nothing_left(&[&task]).await;
    lab.peers.check_ipam().await;
    assert_eq!(felix.failures(), Vec::<String>::new());
}

/// A shell's very first command has the whole network: nobody has to wait or try again.
#[tokio::test]
async fn the_first_instruction_passes_the_policy() {
    let lab = Lab::new(&[]).await;
    let _felix = lab.felix().await;
    let server = lab.world.running(&app("/server", "sleep 1000", calico())).await;
    let [address] = server.addresses().try_into().unwrap();
    let mut timings = Vec::new();
    for _ in 0..10 {
        let cmd = format!("ping -c 1 -W 1 {address} && ping -c 1 -W 1 {OUTSIDE}");
        let client = lab.world.launch(&app("/client", &cmd, calico())).await;
        assert_eq!(client.ends().await.state(), TaskState::TaskFinished, "{}", client.log());
        timings.push(lab.timing(&client));
        client.executor_exit().await;
        // Felix applies ten times a second at most: a launch alone is what counts.
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    eprintln!("{}", timings.join("\n"));
    server.kill().await;
    lab.nothing_left(&[&server]).await;
}

#[tokio::test]
async fn a_policy_of_the_operator_selects_tasks_by_their_labels() {
    let lab = Lab::new(&[]).await;
    let _felix = lab.felix().await;
    lab.peers
        .apply(&json!({
            "apiVersion": "projectcalico.org/v3", "kind": "GlobalNetworkPolicy",
            "metadata": {"name": "web-in"},
            "spec": {
                "selector": "role == 'web'", "types": ["Ingress"],
                "ingress": [{"action": "Allow", "source": {"selector": "role == 'client'"}}],
            },
        }))
        .await;
    let labelled = |id: &str, role: &str| {
        let mut app = app(id, "sleep 1000", calico());
        app["labels"] = json!({"role": role});
        app
    };
    let web = lab.world.running(&labelled("/web", "web")).await;
    let client = lab.world.running(&labelled("/client", "client")).await;
    let other = lab.world.running(&labelled("/other", "other")).await;
    let [address] = web.addresses().try_into().unwrap();
    assert!(lab.reaches(&client, &address).await, "the policy's client is kept out");
    assert!(!lab.reaches(&other, &address).await, "the policy lets everybody in");
    for task in [&web, &client, &other] {
        task.kill().await;
    }
    lab.nothing_left(&[&web, &client, &other]).await;
}
