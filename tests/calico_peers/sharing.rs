//! Our launches and Calico's own IPAM plugin share blocks: no address is given out twice.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::time::Duration;

use calico_mesos::mesos::messages::TaskState;
use ipnet::IpNet;
use nix::sys::signal::{kill, Signal};
use nix::unistd::Pid;
use serde_json::json;

use crate::kit::wait::eventually;
use crate::lab::{Lab, NODE};
use crate::world::{app, calico, with};

const NO_WAIT: [(&str, &str); 1] = [("policy.wait", "\"off\"")];
const CONTAINERS: usize = 6;

#[tokio::test]
async fn the_plugin_and_we_share_blocks() {
    let lab = Lab::new(&NO_WAIT).await;
    let mut tasks = Vec::new();
    let mut addresses = Vec::new();
    for index in 0..3 {
        let task = lab.world.running(&app("/ours", "sleep 1000", calico())).await;
        addresses.extend(task.addresses());
        tasks.push(task);
        addresses.push(add(&lab, &format!("0000000{index}-theirs")).await);
    }
    let block = IpNet::new(addresses[0].parse().unwrap(), 26).unwrap().trunc();
    let outside: Vec<_> = addresses.iter().filter(|a| !block.contains(&address(a))).collect();
    assert!(outside.is_empty(), "{outside:?} are not in {block}: somebody opened another block");
    assert_eq!(addresses.iter().collect::<BTreeSet<_>>().len(), addresses.len(), "{addresses:?}");
    lab.peers.check_ipam_without_endpoints(3).await;
    for index in 0..3 {
        lab.delete(&format!("0000000{index}-theirs")).await;
    }
    for task in &tasks {
        task.kill().await;
    }
    lab.nothing_left(&tasks.iter().collect::<Vec<_>>()).await;
    lab.peers.check_ipam().await;
}

#[tokio::test]
async fn the_plugin_and_we_assign_at_once_without_a_clash() {
    let lab = Lab::new(&NO_WAIT).await;
    let names: Vec<String> = (0..CONTAINERS).map(|index| format!("1000000{index}-theirs")).collect();
    let mut tasks = Vec::new();
    for index in 0..CONTAINERS {
        tasks.push(lab.world.launch(&app(&format!("/ours/{index}"), "sleep 1000", calico())).await);
    }
    let theirs = futures_util::future::join_all(names.iter().map(|name| add(&lab, name))).await;
    let mut all: BTreeSet<String> = theirs.into_iter().collect();
    for task in &tasks {
        task.reaches(TaskState::TaskRunning).await;
        all.extend(task.addresses());
    }
    assert_eq!(all.len(), 2 * CONTAINERS, "an address was given out twice: {all:?}");
    lab.peers.check_ipam_without_endpoints(CONTAINERS).await;
    // The ways back cross too.
    for task in &tasks {
        lab.world.agent.kill(&task.id, None).await.unwrap();
    }
    futures_util::future::join_all(names.iter().map(|name| lab.delete(name))).await;
    for task in &tasks {
        task.ends().await;
        task.executor_exit().await;
    }
    lab.nothing_left(&tasks.iter().collect::<Vec<_>>()).await;
    lab.peers.check_ipam().await;
}

/// Executors that die during a launch, whenever that is, leave what the cleaner finds.
#[tokio::test]
async fn launches_that_die_leave_no_address_behind() {
    let lab = Lab::new(&NO_WAIT).await;
    let mut tasks = Vec::new();
    for delay in [10, 20, 30, 40, 50, 60, 80, 100, 120, 150] {
        let task = lab.world.launch(&app("/early", "sleep 1000", calico())).await;
        tokio::time::sleep(Duration::from_millis(delay)).await;
        kill(Pid::from_raw(i32::try_from(task.launched.executor_pid).unwrap()), Signal::SIGKILL).unwrap();
        task.ends().await;
        tasks.push(task);
    }
    // What was under way in Docker when its asker died takes a moment.
    eventually("the cleaner succeeds", async || lab.world.gc().status.success()).await;
    lab.world.cleaned().await;
    lab.nothing_left(&tasks.iter().collect::<Vec<_>>()).await;
    lab.peers.check_ipam().await;
}

/// An address of another host's block: borrowed, unless the operator forbids that.
#[tokio::test]
async fn an_address_of_another_hosts_block_is_borrowed_unless_forbidden() {
    let lab = Lab::new(&NO_WAIT).await;
    lab.peers
        .apply(&json!({
            "apiVersion": "projectcalico.org/v3", "kind": "Node", "metadata": {"name": "agent-2"},
            "spec": {"bgp": {"ipv4Address": "10.99.1.3/24"}},
        }))
        .await;
    let theirs: Ipv4Addr = add_on(&lab, "agent-2", "20000000-theirs").await.parse().unwrap();
    let wanted = Ipv4Addr::from(u32::from(theirs) + 7).to_string();
    let explicit = with(calico(), "CALICO_IP", &wanted);
    let task = lab.world.running(&app("/borrows", "sleep 1000", explicit.clone())).await;
    assert_eq!(task.addresses(), std::slice::from_ref(&wanted));
    let borrowed = lab.peers.calicoctl("ipam show --show-borrowed").await;
    let row = borrowed.lines().find(|line| line.contains(&wanted)).unwrap_or_else(|| panic!("{borrowed}"));
    assert!(row.contains(NODE) && row.contains("agent-2"), "{borrowed}");
    eprintln!("{borrowed}");
    lab.peers.check_ipam_without_endpoints(1).await;
    task.kill().await;
    assert!(lab.peers.calicoctl(&format!("ipam show --ip={wanted}")).await.contains("not assigned"));

    lab.peers.calicoctl("ipam configure --strictaffinity=true").await;
    let strict = lab.world.launch(&app("/strict", "sleep 1000", explicit)).await;
    let message = strict.fails().await;
    assert!(message.contains(&wanted) && message.contains("agent-2"), "{message}");
    eprintln!("{message}");
    strict.executor_exit().await;
    lab.peers.ipam("DEL", "agent-2", "20000000-theirs", &lab.world.config.paths.ipam_lock).await;
    lab.nothing_left(&[&task, &strict]).await;
    lab.peers.check_ipam().await;
}

async fn add(lab: &Lab, container: &str) -> String {
    add_on(lab, NODE, container).await
}

async fn add_on(lab: &Lab, node: &str, container: &str) -> String {
    let answer = lab.peers.ipam("ADD", node, container, &lab.world.config.paths.ipam_lock).await;
    let address = answer["ips"][0]["address"].as_str().unwrap_or_else(|| panic!("{answer}"));
    address.split('/').next().unwrap().to_owned()
}

fn address(text: &str) -> std::net::IpAddr {
    text.parse().unwrap()
}

impl Lab {
    async fn delete(&self, container: &str) {
        self.peers.ipam("DEL", NODE, container, &self.world.config.paths.ipam_lock).await;
    }
}
