//! Who is not concerned by the faults: tasks that run, and things of other people beside ours.

use std::time::Duration;

use calico_mesos::calico::node_name;
use serde_json::{json, Value};

use crate::census::{self, Things};
use crate::machine::{Given, Machine};
use crate::plan::{app_of, Way};
use crate::world::{addresses, sh, task_info, LIMIT};

/// The command line of the foreign container's process, which nothing else has.
const FOREIGN_LINE: &str = "sleep 77777";
const FOREIGN_HANDLE: &str = "k8s-pod-network.of-somebody-else";

pub struct Bystanders {
    tasks: Vec<Given>,
    pub addresses: Vec<String>,
    container: String,
    /// Other people's things.
    foreign: Things,
    /// Those, and what belongs to the tasks.
    all: Things,
    /// What earlier lives have left, and was told then.
    told: Things,
}

impl Bystanders {
    pub async fn settle_in(machine: &mut Machine) -> Self {
        let container = foreign_container(machine).await;
        sh("ip link add califoreign0 type veth peer name foreignpeer0; ip link set califoreign0 up");
        sh("nft 'table ip foreign { chain forward { type filter hook forward priority 0; accept; }; }'");
        let service = json!({"ID": "foreign:1", "Name": "foreign", "Address": "203.0.113.7", "Port": 80,
            "Meta": {"owner": "somebody-else"}});
        let url = machine.world.stack.consul.as_ref().unwrap().url();
        sh(&format!("curl -s -X PUT -d '{service}' {url}/v1/agent/service/register"));
        let mut own = Self {
            tasks: Vec::new(),
            addresses: Vec::new(),
            container,
            foreign: Things::new(),
            all: Things::new(),
            told: Things::new(),
        };
        // The first task fills an empty datastore.
        own.launch(machine).await;
        foreign_keys(machine, &own.addresses).await;
        own.leave(machine).await;
        own.foreign = own.look_twice(machine).await;
        own.launch(machine).await;
        own.all = own.look_twice(machine).await;
        own
    }

    /// Ends its tasks.
    pub async fn leave(&mut self, machine: &Machine) {
        for task in std::mem::take(&mut self.tasks) {
            machine.world.agent.kill(&task.id, Some(Duration::ZERO)).await.unwrap();
            machine.world.agent.wait_exit(&task.id, LIMIT).await.unwrap();
        }
    }

    /// One with Calico and one without; neither is in Docker, which dies in between.
    async fn launch(&mut self, machine: &Machine) {
        let env = json!({"CALICO_IP": "auto,auto6", "CALICO_PROFILE": "dev", "SERVICE_PORT": "80"});
        for (id, env) in [("/bystander", env), ("/plain", json!({}))] {
            let info = task_info(&app_of(id, Way::Command, "exec sleep 1000000", env));
            let task = machine.launch(info).await;
            let running = calico_mesos::mesos::messages::TaskState::TaskRunning;
            let status = machine.world.agent.wait_for(&task.id, running, LIMIT).await;
            let status = status.unwrap_or_else(|error| panic!("{error}\n{}", task.log()));
            if id == "/bystander" {
                self.addresses = addresses(&status);
            }
            self.tasks.push(task);
        }
    }

    /// A census when nothing moves any more.
    async fn look_twice(&self, machine: &Machine) -> Things {
        let mut last = self.look(machine).await;
        loop {
            // What does not move for a second has come to rest.
            tokio::time::sleep(Duration::from_secs(1)).await;
            let now = self.look(machine).await;
            if now == last {
                return now;
            }
            last = now;
        }
    }

    /// Without what the foreign container has while it runs, which is another after a restart.
    async fn look(&self, machine: &Machine) -> Things {
        let mut things = census::take(machine).await;
        things.retain(|thing| {
            let of_a_run = thing.starts_with("process ") || thing.starts_with("runtime state ");
            !of_a_run || !(thing.contains(&self.container) || thing.contains(FOREIGN_LINE))
        });
        things
    }

    /// What is there that nobody owns, and what is gone that somebody does. `booted`: the tasks died with the host.
    pub async fn compare(&self, machine: &Machine, booted: bool) -> (Vec<String>, Vec<String>) {
        let now = self.look(machine).await;
        let expected = if booted { &self.foreign } else { &self.all };
        let left = now.difference(expected).filter(|thing| !self.told.contains(*thing)).cloned().collect();
        let gone = expected.difference(&now).cloned().collect();
        (left, gone)
    }

    /// What is left now has been told.
    pub fn tell(&mut self, left: &[String]) {
        self.told.extend(left.iter().cloned());
    }

    /// What a fault does to other people's things they mend themselves.
    pub async fn heal(&self, machine: &Machine) {
        let path = format!("/containers/{}/start", self.container);
        let _ = machine.world.stack.docker.request("POST", &path, b"").await;
    }

    /// After a boot: how their tasks ended, and new ones.
    pub async fn return_after_boot(&mut self, machine: &Machine) {
        self.tasks.clear();
        self.launch(machine).await;
        self.all = self.look_twice(machine).await;
        self.all.retain(|thing| !self.told.contains(thing));
    }

    /// Tasks whose terminal updates have to be counted.
    pub fn tasks(&self) -> Vec<Given> {
        self.tasks.clone()
    }

    /// Can the task still be reached?
    pub fn unreached(&self) -> Vec<String> {
        let unreached = |address: &&String| {
            let program = if address.contains(':') { "ping6" } else { "ping" };
            !sh(&format!("busybox {program} -c 1 -W 3 {address}")).contains(" 0% packet loss")
        };
        self.addresses.iter().filter(unreached).map(|address| format!("nobody at {address}")).collect()
    }
}

/// Named as the stock executor names one, of a task that is not ours.
async fn foreign_container(machine: &Machine) -> String {
    let docker = &machine.world.stack.docker;
    let body = json!({"Image": "busybox", "Cmd": ["sleep", "77777"], "HostConfig": {"NetworkMode": "none"}});
    let mut ids = Vec::new();
    for name in [format!("mesos-{}", uuid::Uuid::new_v4()), "never-started".to_owned()] {
        let path = format!("/containers/create?name={name}");
        let (_, text) = docker.request("POST", &path, body.to_string().as_bytes()).await.unwrap();
        let answer: Value = serde_json::from_str(&text).unwrap();
        ids.push(answer["Id"].as_str().unwrap().to_owned());
    }
    docker.request("POST", &format!("/containers/{}/start", ids[0]), b"").await.unwrap();
    ids.swap_remove(0)
}

/// Endpoints, handles and addresses of another orchestrator on this node, and of another node.
async fn foreign_keys(machine: &Machine, addresses: &[String]) {
    let node = node_name(&machine.world.config).unwrap();
    let mut client = etcd_client::Client::connect([&machine.world.stack.etcd_endpoint], None).await.unwrap();
    let endpoints = "/calico/resources/v3/projectcalico.org/workloadendpoints/default/";
    let doubled = node.replace('-', "--");
    for (key, node, orchestrator, workload) in [
        (format!("{doubled}-k8s-nginx-eth0"), node.clone(), "k8s", "nginx"),
        (format!("{doubled}-mesos-legacy--3-eth0"), node.clone(), "mesos", "legacy-3"),
        ("other-mesos-web.1-eth0".to_owned(), "other".to_owned(), "mesos", "web.1"),
    ] {
        let endpoint = json!({"kind": "WorkloadEndpoint", "apiVersion": "projectcalico.org/v3",
            "metadata": {"name": key, "namespace": "default", "uid": uuid::Uuid::new_v4().to_string()},
            "spec": {"orchestrator": orchestrator, "workload": workload, "node": node, "endpoint": "eth0",
                "ipNetworks": ["10.165.77.1/32"], "interfaceName": "califoreign0"}});
        client.put(format!("{endpoints}{key}"), endpoint.to_string(), None).await.unwrap();
    }
    let blocks = "/calico/ipam/v2/assignment/";
    let prefix = etcd_client::GetOptions::new().with_prefix();
    let answer = client.get(blocks, Some(prefix)).await.unwrap();
    let own = answer.kvs().iter().find(|kv| {
        let text = kv.key_str().unwrap();
        text.contains("/ipv4/")
            && addresses.iter().any(|address| text.contains(&address[..address.rfind('.').unwrap_or(0)]))
    });
    let own = own.expect("the task's block");
    let mut block: Value = serde_json::from_slice(own.value()).unwrap();
    let attributes = block["attributes"].as_array_mut().unwrap();
    attributes.push(json!({"handle_id": FOREIGN_HANDLE, "secondary": {"node": node, "pod": "nginx"}}));
    attributes.push(json!({"handle_id": "vxlan-tunnel-addr-x",
        "secondary": {"node": node, "type": "vxlanTunnelAddress"}}));
    let index = attributes.len() - 2;
    for (ordinal, index) in [(60, index), (61, index + 1)] {
        block["allocations"][ordinal] = json!(index);
        block["unallocated"].as_array_mut().unwrap().retain(|free| free != &json!(ordinal));
    }
    let cidr = block["cidr"].clone();
    client.put(own.key(), block.to_string(), None).await.unwrap();
    let handle = json!({"block": {cidr.as_str().unwrap(): 1}, "id": FOREIGN_HANDLE});
    client.put(format!("/calico/ipam/v2/handle/{FOREIGN_HANDLE}"), handle.to_string(), None).await.unwrap();
    // Another node's block is of the same make.
    let mut other = block.clone();
    other["cidr"] = json!("10.165.200.0/26");
    other["affinity"] = json!("host:other");
    // With addresses of its own: one of this node's dead tasks would rightly be released there too.
    for attribute in other["attributes"].as_array_mut().unwrap() {
        if let Some(handle) = attribute["handle_id"].as_str() {
            attribute["handle_id"] = json!(format!("{handle}-other"));
        }
        attribute["secondary"]["node"] = json!("other");
    }
    client.put(format!("{blocks}ipv4/block/10.165.200.0-26"), other.to_string(), None).await.unwrap();
    let affinity = json!({"state": "confirmed"}).to_string();
    client.put("/calico/ipam/v2/host/other/ipv4/block/10.165.200.0-26", affinity, None).await.unwrap();
}
