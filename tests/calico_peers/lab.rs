//! A host of a Calico cluster: real executor and agent, objects applied with calicoctl, a way out.

use std::path::{Path, PathBuf};
use std::time::Duration;

use calico_mesos::mesos::messages::TaskState;
use calico_mesos::names::ContainerId;
use calico_mesos::net::Namespace;
use serde_json::json;
use tokio::process::Command;
use tokio::sync::{Mutex, MutexGuard};

use crate::felix::Felix;
use crate::kit::wait::within;
use crate::netlab;
use crate::programs::{self, Peers};
use crate::world::{none, Task, World};

pub const NODE: &str = "agent-1";
/// This host as other hosts see it.
pub const HOST: &str = "10.99.1.1";
/// A machine elsewhere, reached through the default route.
pub const OUTSIDE: &str = "10.99.1.2";
pub const HOST6: &str = "fd00:99:1::1";
pub const OUTSIDE6: &str = "fd00:99:1::2";

/// Links, routes and rules of the network namespace belong to one test at a time.
static NETWORK: Mutex<()> = Mutex::const_new(());

pub struct Lab {
    pub world: World,
    pub peers: Peers,
    outside: PathBuf,
    _network: MutexGuard<'static, ()>,
}

impl Lab {
    /// Without Felix; `config` overrides what the executor's configuration says.
    pub async fn new(config: &[(&str, &str)]) -> Self {
        Self::with_pools(config, &[]).await
    }

    pub async fn with_pools(config: &[(&str, &str)], pools: &[&str]) -> Self {
        programs::folder();
        let network = NETWORK.lock().await;
        netlab::require_private_network();
        let world = World::with(
            |stack| {
                stack.pools = pools.iter().map(|pool| pool.parse().unwrap()).collect();
                let own = [("node.dataplane", "\"felix\""), ("node.name", "\"agent-1\"")];
                for (name, value) in own.iter().chain(config) {
                    stack.config.insert((*name).to_owned(), (*value).to_owned());
                }
            },
            |_| (),
        )
        .await;
        let peers = Peers::new(&world.stack.etcd_endpoint);
        let outside = world.stack.dir.join("outside");
        let lab = Self { world, peers, outside, _network: network };
        std::fs::create_dir_all(lab.calico()).unwrap();
        lab.make_network().await;
        lab.make_objects().await;
        lab
    }

    /// What an operator applies before the first task: pool and node.
    async fn make_objects(&self) {
        for (index, pool) in self.world.stack.pools.iter().enumerate() {
            self.peers
                .apply(&json!({
                    "apiVersion": "projectcalico.org/v3", "kind": "IPPool",
                    "metadata": {"name": (["tasks", "tasks6"][index])},
                    "spec": {"cidr": pool.to_string(), "natOutgoing": true},
                }))
                .await;
        }
        self.peers
            .apply(&json!({
                "apiVersion": "projectcalico.org/v3", "kind": "Node", "metadata": {"name": NODE},
                "spec": {"bgp": {"ipv4Address": format!("{HOST}/24")}},
            }))
            .await;
        self.peers.prepare_check().await;
    }

    /// An uplink to a machine outside. What an earlier Felix left behind would drop its traffic.
    async fn make_network(&self) {
        Namespace::create(&self.outside).await.unwrap();
        let outside = self.outside.display();
        must(&format!(
            "nft flush ruleset; ipset destroy; ip link delete up0 2>/dev/null; set -e
             ip link add up0 type veth peer name out0
             ip link set out0 netns {outside}
             ip addr add {HOST}/24 dev up0
             ip addr add {HOST6}/64 dev up0 nodad
             ip link set up0 up
             nsenter --net={outside} ip addr add {OUTSIDE}/24 dev out0
             nsenter --net={outside} ip addr add {OUTSIDE6}/64 dev out0 nodad
             nsenter --net={outside} ip link set out0 up
             ip route replace default via {OUTSIDE}
             ip -6 route replace default via {OUTSIDE6}"
        ))
        .await;
    }

    /// In place of /var/run/calico and /var/lib/calico.
    pub fn calico(&self) -> PathBuf {
        self.world.stack.dir.join("calico")
    }

    pub async fn felix(&self) -> Felix {
        Felix::start(&self.peers, NODE, &self.calico(), &[]).await
    }

    /// The network namespace of the machine outside.
    pub fn outside_namespace(&self) -> &Path {
        &self.outside
    }

    /// The file in which Felix reports this task's endpoint as programmed.
    pub fn status_file(&self, task: &Task<'_>) -> Option<PathBuf> {
        let entries = std::fs::read_dir(&self.world.config.paths.endpoint_status).ok()?;
        let mut paths = entries.flatten().map(|entry| entry.path());
        paths.find(|path| path.to_string_lossy().contains(&task.launched.container_id))
    }

    /// What the executor's log says about how long things took.
    pub fn timing(&self, task: &Task<'_>) -> String {
        let log = task.log();
        let of = |word: &str| {
            let line = log.lines().find(|line| line.contains(word)).unwrap_or_default();
            line.split_once("] ").map_or(line, |(_, text)| text).to_owned()
        };
        format!("{} | {}", of("Felix was done"), of("running after"))
    }

    /// Runs a script in the task's network namespace; whether it succeeded, and what it said.
    pub async fn inside(&self, task: &Task<'_>, script: &str) -> (bool, String) {
        let folder = self.world.config.paths.run.join("tasks").join(&task.launched.container_id);
        shell(&format!("nsenter --net={}/netns {script}", folder.display())).await
    }

    pub async fn reaches(&self, task: &Task<'_>, address: &str) -> bool {
        self.inside(task, &format!("busybox ping -c 1 -W 1 {address}")).await.0
    }

    /// The same from the machine outside, after it has been told the way.
    pub async fn reached_from_outside(&self, address: &str) -> bool {
        let outside = format!("nsenter --net={}", self.outside.display());
        must(&format!("{outside} ip route replace default via {HOST}")).await;
        self.outside(&format!("busybox ping -c 1 -W 1 {address}")).await.0
    }

    /// Runs a command on the machine outside; whether it succeeded, and what it said.
    pub async fn outside(&self, command: &str) -> (bool, String) {
        shell(&format!("nsenter --net={} {command}", self.outside.display())).await
    }

    /// Nothing anywhere, Felix's chains, sets and status files included; Felix takes a moment for them.
    pub async fn nothing_left(&self, tasks: &[&Task<'_>]) {
        self.world.nothing_left().await;
        within(Duration::from_secs(10), "Felix has nothing of the tasks", async || {
            let rules =
                shell("iptables-nft-save; ip6tables-nft-save; nft list ruleset; ipset save; ip neigh")
                    .await
                    .1;
            let mut left: Vec<String> = Vec::new();
            for task in tasks {
                let mut names = vec![interface(task)];
                if task.states().contains(&TaskState::TaskRunning) {
                    names.extend(task.addresses());
                }
                left.extend(
                    rules
                        .lines()
                        .filter(|line| names.iter().any(|name| names_it(line, name)))
                        .map(Into::into),
                );
                left.extend(self.status_file(task).map(|path| path.display().to_string()));
            }
            none(&left)
        })
        .await;
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        let _ = Namespace::unbind(&self.outside);
    }
}

/// As a whole word: 192.168.3.1 is not in 192.168.3.17.
fn names_it(line: &str, name: &str) -> bool {
    line.split(|c: char| !c.is_alphanumeric() && c != '.' && c != ':').any(|word| word == name)
}

pub fn interface(task: &Task<'_>) -> String {
    ContainerId::parse(&task.launched.container_id).unwrap().interface()
}

/// Whether it succeeded, and what it printed. Never blocks the agent, which lives on the same thread.
pub async fn shell(script: &str) -> (bool, String) {
    let output = Command::new("sh").args(["-c", script]).kill_on_drop(true).output().await.unwrap();
    (output.status.success(), String::from_utf8_lossy(&output.stdout).into_owned())
}

async fn must(script: &str) {
    let output = Command::new("sh").args(["-c", script]).output().await.unwrap();
    assert!(output.status.success(), "{script}: {}", String::from_utf8_lossy(&output.stderr));
}
