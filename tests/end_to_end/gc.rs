//! The cleaner on real daemons: what it finds, and what it leaves alone.

use std::collections::BTreeSet;
use std::path::PathBuf;

use calico_mesos::calico::{node_name, AddressRequest, Datastore, Family, Identity, Terms, Wanted};
use calico_mesos::mesos::messages::TaskState;
use calico_mesos::names::ContainerId;
use nix::sys::signal::{kill, Signal};
use nix::unistd::Pid;
use serde_json::{json, Value};

use crate::kit::wait::{eventually, next_second};
use crate::world::{app, calico, sh, with, Task, World};

pub fn signal(task: &Task<'_>, signal: Signal) {
    kill(Pid::from_raw(i32::try_from(task.launched.executor_pid).unwrap()), signal).unwrap();
}

/// Kills the executor, and waits until the agent has noticed.
pub async fn executor_dies(task: &Task<'_>) {
    signal(task, Signal::SIGKILL);
    task.ends().await;
}

pub fn record(task: &Task<'_>) -> PathBuf {
    task.world.config.paths.journal().join(format!("{}.json", task.launched.container_id))
}

/// `verdict kind`, in the plan's order.
fn verdicts(json: &Value) -> Vec<String> {
    let word = |item: &Value, key: &str| item[key].as_str().unwrap().to_owned();
    let items = json["items"].as_array().unwrap().iter();
    items.map(|item| format!("{} {}", word(item, "verdict"), word(item, "kind"))).collect()
}

/// What there is of tasks, but for what other worlds on this host have a part in (routes of the same addresses, the
/// table of forwarded ports), and for containers, which come and go by Docker's clock.
async fn traces(world: &World) -> BTreeSet<String> {
    let shared = |line: &String| {
        line.contains(" dev cali") || line.starts_with("forwarded ") || line.starts_with("container ")
    };
    world.leftovers().await.into_iter().filter(|line| !shared(line)).collect()
}

/// Nothing has come or gone.
async fn nothing_changed(world: &World, before: &BTreeSet<String>) {
    let now = traces(world).await;
    let differ: Vec<_> = now.symmetric_difference(before).collect();
    assert!(differ.is_empty(), "{differ:#?}");
}

/// Docker's own kill of a container that nobody watches.
async fn end_container(task: &Task<'_>) {
    let path = format!("/containers/{}/kill", task.container());
    task.world.stack.docker.request("POST", &path, b"").await.unwrap();
    eventually("the container ends", async || {
        let container = task.world.docker(&format!("/containers/{}/json", task.container())).await;
        container["State"]["Running"] == json!(false)
    })
    .await;
}

async fn put(world: &World, key: &str, value: &Value) {
    let mut client = etcd_client::Client::connect([&world.stack.etcd_endpoint], None).await.unwrap();
    client.put(key, value.to_string(), None).await.unwrap();
}

/// Endpoints and addresses of others on this node; what there is of them, with their revisions.
struct Foreign {
    keys: Vec<String>,
    before: Vec<String>,
}

impl Foreign {
    async fn put(world: &World) -> Self {
        let node = node_name(&world.config).unwrap();
        let doubled = node.replace('-', "--");
        let folder = "/calico/resources/v3/projectcalico.org/workloadendpoints/default";
        let endpoint = |name: &str, spec: Value| {
            let metadata =
                json!({"name": name, "namespace": "default", "creationTimestamp": "2020-01-01T00:00:00Z"});
            (
                format!("{folder}/{name}"),
                json!({"kind": "WorkloadEndpoint", "metadata": metadata, "spec": spec}),
            )
        };
        let handle = |id: &str| {
            (format!("/calico/ipam/v2/handle/{id}"), json!({"block": {"10.250.0.0/26": 1}, "deleted": false}))
        };
        let things = [
            endpoint(
                &format!("{doubled}-libnetwork-libnetwork-abc"),
                json!({"orchestrator": "libnetwork", "node": node, "ipNetworks": ["10.250.0.4/32"]}),
            ),
            endpoint(
                &format!("{doubled}-mesos-legacy-eth0"),
                json!({"orchestrator": "mesos", "workload": "legacy", "node": node, "endpoint": "eth0"}),
            ),
            endpoint("elsewhere-mesos-x-eth0", json!({"orchestrator": "mesos", "node": "elsewhere"})),
            handle(&format!("vxlan-tunnel-addr-{node}")),
            handle("mesos.legacy"),
            (
                "/calico/ipam/v2/assignment/ipv4/block/10.250.0.0-26".to_owned(),
                block(
                    &node,
                    &[
                        json!({"handle_id": format!("vxlan-tunnel-addr-{node}"),
                        "secondary": {"node": node, "type": "vxlanTunnelAddress"}}),
                        json!({"handle_id": "mesos.legacy", "secondary": {"node": node}}),
                        json!({"handle_id": format!("mesos.{}", ContainerId::random()),
                        "secondary": {"mesos-app": "a", "mesos-task": "b", "node": "elsewhere"}}),
                    ],
                ),
            ),
            (
                format!("/calico/ipam/v2/host/{node}/ipv4/block/10.250.0.0-26"),
                json!({"state": "confirmed", "deleted": false}),
            ),
        ];
        for (key, value) in &things {
            put(world, key, value).await;
        }
        let mut foreign = Self { keys: things.map(|(key, _)| key).into(), before: Vec::new() };
        foreign.before = foreign.now(world).await;
        foreign
    }

    async fn now(&self, world: &World) -> Vec<String> {
        let mut client = etcd_client::Client::connect([&world.stack.etcd_endpoint], None).await.unwrap();
        let mut found = Vec::new();
        for key in &self.keys {
            let answer = client.get(key.as_str(), None).await.unwrap();
            let kv = answer.kvs().first().unwrap_or_else(|| panic!("{key} is gone"));
            found.push(format!("{key} {} {}", kv.mod_revision(), kv.value_str().unwrap()));
        }
        found
    }

    async fn are_untouched(self, world: &World) {
        assert_eq!(self.now(world).await, self.before);
        let mut client = etcd_client::Client::connect([&world.stack.etcd_endpoint], None).await.unwrap();
        for key in self.keys {
            client.delete(key, None).await.unwrap();
        }
    }
}

fn block(node: &str, attributes: &[Value]) -> Value {
    let allocations: Vec<_> = (0..64).map(|place| (place < attributes.len()).then_some(place)).collect();
    json!({
        "cidr": "10.250.0.0/26", "affinity": format!("host:{node}"), "allocations": allocations,
        "unallocated": (attributes.len()..64).collect::<Vec<_>>(), "attributes": attributes,
        "sequenceNumber": 1_787_393_472_345_678_901_u64, "sequenceNumberForAllocation": {}, "deleted": false
    })
}

/// How many items were worked on; each of them was there.
fn done(json: &Value) -> usize {
    let work = ["remove", "release", "stop"];
    let items = json["items"].as_array().unwrap().iter();
    let items: Vec<&Value> = items.filter(|item| work.contains(&item["verdict"].as_str().unwrap())).collect();
    assert!(items.iter().all(|item| item["done"] == true && item["gone"] == false), "{json:#}");
    items.len()
}

#[tokio::test]
async fn a_dry_run_tells_what_a_dead_executor_left_and_why() {
    let world = World::with(|stack| stack.consul = true, |_| ()).await;
    let foreign = Foreign::put(&world).await;
    let living = world.running(&app("/living", "sleep 1000", calico())).await;
    let dead = world.running(&app("/cart", "sleep 1000", with(calico(), "SERVICE_PORT", "80"))).await;
    world.registered("cart-direct").await;
    executor_dies(&dead).await;
    let before = traces(&world).await;
    let output = world.gc_with(&["--dry-run"]);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    println!("{text}");
    assert_eq!(output.status.code(), Some(3), "{output:?}");
    let lines: Vec<Vec<&str>> = text.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(lines[0][1..], ["grace", "5m,", "1", "live", "task", "skipped"]);
    assert_eq!(lines[1], ["WOULD", "KIND", "NAME", "AGE", "WHY"]);
    let short = &dead.launched.container_id[..8];
    assert_eq!(lines[2][..4], ["remove", "consul", "cart-direct", &format!("({short})")]);
    let why = format!("executor pid {} dead, container", dead.launched.executor_pid);
    assert!(lines[2].join(" ").contains(&why), "{text}");
    let endpoint = format!("mesos/cart.{short}/eth0");
    assert!(lines.iter().any(|line| line.starts_with(&["remove", "endpoint", &endpoint])), "{text}");
    let address = dead.addresses()[0].clone();
    assert!(lines.iter().any(|line| line.starts_with(&["release", "address", &address])), "{text}");
    assert!(text.contains("Calico's own (vxlanTunnelAddress)"), "{text}");
    assert!(text.contains("mesos/legacy/eth0") && text.contains("never touched"), "{text}");
    assert!(text.contains("Nothing was changed"), "{text}");
    assert!(!text.contains(&living.launched.container_id[..8]), "{text}");
    nothing_changed(&world, &before).await;

    let (code, json) = world.gc_json(&[]);
    assert_eq!((code, &json["backlog"], &json["orphans"]), (0, &json!(0), &json!(0)));
    assert_eq!(json["executor_versions"][env!("CARGO_PKG_VERSION")], 1);
    assert_eq!(
        done(&json),
        lines
            .iter()
            .filter(|line| line.first().is_some_and(|word| ["remove", "release", "stop"].contains(word)))
            .count()
    );
    foreign.are_untouched(&world).await;
    assert_eq!(world.gc_json(&["--dry-run"]).0, 0);
    assert_eq!(living.kill().await.state(), TaskState::TaskKilled);
    world.nothing_left().await;
}

#[tokio::test]
async fn what_no_journal_names_is_removed_only_when_the_operator_wants_it() {
    let world = World::with(|stack| stack.consul = true, |_| ()).await;
    let foreign = Foreign::put(&world).await;
    world.configure("gc.grace", "\"1s\"");
    let living = world.running(&app("/living", "sleep 1000", calico())).await;
    let task = world.running(&app("/lost", "sleep 1000", with(calico(), "SERVICE_PORT", "80"))).await;
    for name in ["lost", "lost-direct"] {
        world.registered(name).await;
    }
    executor_dies(&task).await;
    std::fs::remove_file(record(&task)).unwrap();
    let before = traces(&world).await;
    let of_ours = |json: &Value, verdict: &str| {
        let items = json["items"].as_array().unwrap().iter();
        items.filter(|item| item["verdict"] == verdict && !item["container"].is_null()).count()
    };

    // Its container runs: somebody may need it.
    let (code, json) = world.gc_json(&[]);
    assert_eq!((code, &json["orphans"], of_ours(&json, "report")), (0, &json!(0), 0), "{json:#}");
    assert!(json.to_string().contains("in no journal, but its container runs"), "{json:#}");
    end_container(&task).await;
    // Its end has to be older than gc.grace.
    let json = eventually("the lost task is found", async || {
        let (code, json) = world.gc_json(&["--dry-run"]);
        assert_eq!(code, 0, "nothing to do, but something to report: {json:#}");
        if json["orphans"] == json!(1) {
            Ok(json)
        } else {
            Err(json)
        }
    })
    .await;
    assert_eq!(
        verdicts(&json)[..7],
        ["consul", "consul", "ports", "veth", "folder", "endpoint", "address"]
            .map(|kind| format!("report {kind}")),
        "{json:#}"
    );
    world.gc();
    nothing_changed(&world, &before).await;

    world.configure("gc.orphans", "\"remove\"");
    let (code, json) = world.gc_json(&["--grace", "1h"]);
    assert_eq!((code, &json["orphans"], of_ours(&json, "keep")), (0, &json!(0), 7), "{json:#}");
    assert!(json.to_string().contains("younger than grace"), "{json:#}");
    let (code, json) = world.gc_json(&[]);
    assert_eq!((code, of_ours(&json, "remove"), of_ours(&json, "release")), (0, 6, 1), "{json:#}");
    assert!(json["items"].as_array().unwrap().iter().all(|item| item["error"].is_null()), "{json:#}");
    assert_eq!(done(&json), 7);
    foreign.are_untouched(&world).await;
    assert_eq!(living.kill().await.state(), TaskState::TaskKilled);
    world.nothing_left().await;
}

#[tokio::test]
async fn after_the_journal_is_wiped_nothing_is_removed() {
    let world = World::new().await;
    world.configure("gc.grace", "\"0s\"");
    world.configure("gc.orphans", "\"remove\"");
    let living = world.running(&app("/living", "sleep 1000", calico())).await;
    let ended = world.running(&app("/ended", "sleep 1000", calico())).await;
    executor_dies(&ended).await;
    end_container(&ended).await;
    let journal = world.config.paths.journal();
    std::fs::remove_dir_all(&journal).unwrap();
    let before = traces(&world).await;
    for why in ["the journal itself is missing", "the journal is younger than the oldest living task"] {
        let (code, json) = world.gc_json(&[]);
        assert_eq!(code, 0, "{json:#}");
        assert!(json.to_string().contains(why), "{why}: {json:#}");
        assert!(verdicts(&json).iter().all(|verdict| verdict.starts_with("keep")), "{json:#}");
        nothing_changed(&world, &before).await;
        if !journal.exists() {
            // Docker reports its containers' times in whole seconds.
            next_second().await;
            std::fs::create_dir(&journal).unwrap();
        }
    }
    // Once what lived is over, nothing keeps the rest.
    assert_eq!(living.kill().await.state(), TaskState::TaskKilled);
    assert!(world.gc().status.success());
    world.nothing_left().await;
}

#[tokio::test]
async fn a_container_that_docker_made_after_its_askers_record_had_gone() {
    let world = World::new().await;
    let container = ContainerId::random();
    let create = async |name: &str, runtime: &str| {
        let body = json!({"Image": "busybox", "Cmd": ["true"], "HostConfig": {"NetworkMode": "none", "Runtime": runtime}});
        let path = format!("/containers/create?name={name}");
        let (status, text) =
            world.stack.docker.request("POST", &path, body.to_string().as_bytes()).await.unwrap();
        assert_eq!(status, 201, "{text}");
    };
    // The journal is older than what it does not name, by Docker's whole seconds.
    std::fs::create_dir_all(world.config.paths.journal()).unwrap();
    next_second().await;
    create(&format!("mesos-{container}"), "calico").await;
    // Not ours: by its runtime, by its name.
    create(&format!("mesos-{}", ContainerId::random()), "runc").await;
    create("somebodys", "calico").await;
    // A launch of another configuration may be about to start it.
    let (code, json) = world.gc_json(&["--dry-run"]);
    assert_eq!((code, verdicts(&json)), (0, vec!["keep container".to_owned()]), "{json:#}");
    let (code, json) = world.gc_json(&["--dry-run", "--grace", "0s"]);
    assert_eq!((code, verdicts(&json)), (3, vec!["remove container".to_owned()]), "{json:#}");
    assert!(world.gc_with(&["--grace", "0s"]).status.success());
    let names: Vec<_> = world.containers().await.iter().map(|its| its["Names"][0].to_string()).collect();
    assert_eq!(names.len(), 2, "{names:?}");
    assert!(!names.iter().any(|name| name.contains(container.as_str())), "{names:?}");
}

#[tokio::test]
async fn a_consul_that_was_rebuilt_is_told_again() {
    let world = World::with(|stack| stack.consul = true, |_| ()).await;
    let task =
        world.running(&app("/web", "sleep 1000", with(calico(), "SERVICE_PORT", "80,https:443"))).await;
    let services = async || world.consul("/v1/agent/services").await;
    eventually("it is registered", async || services().await.as_object().unwrap().len() == 3).await;
    let before = services().await;
    eventually("what Consul has is noted", async || {
        let noted =
            world.config.paths.run.join("tasks").join(&task.launched.container_id).join("consul.json");
        std::fs::read_to_string(noted).is_ok_and(|text| text.matches("\"ID\"").count() == 3)
    })
    .await;
    let consul = world.stack.consul.as_ref().unwrap().url();
    for id in before.as_object().unwrap().keys() {
        sh(&format!("curl -s -X PUT {consul}/v1/agent/service/deregister/{id}"));
    }
    assert_eq!(services().await, json!({}));
    let (code, json) = world.gc_json(&["--dry-run"]);
    assert_eq!((code, verdicts(&json)), (3, vec!["register consul".to_owned(); 3]), "{json:#}");
    let (code, json) = world.gc_json(&[]);
    assert_eq!(code, 0, "{json:#}");
    assert_eq!(services().await, before);
    assert_eq!(world.gc_json(&["--dry-run"]).0, 0);
    assert_eq!(task.kill().await.state(), TaskState::TaskKilled);
    world.nothing_left().await;
}

#[tokio::test]
async fn nothing_goes_while_docker_cannot_be_asked() {
    let mut world = World::new().await;
    world.configure("gc.grace", "\"0s\"");
    world.configure("gc.orphans", "\"remove\"");
    let task = world.running(&app("/lost", "sleep 1000", calico())).await;
    executor_dies(&task).await;
    end_container(&task).await;
    std::fs::remove_file(record(&task)).unwrap();
    let keys = world.task_keys().await;
    world.stack.docker.kill();
    let output = world.gc();
    let text = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(text.contains("cannot query Docker") && text.contains("in what could be read"), "{text}");
    assert_eq!(world.task_keys().await, keys);
    world.stack.docker.restart().await.unwrap();
    assert!(world.gc().status.success());
    world.nothing_left().await;
}

#[tokio::test]
async fn a_host_that_is_gone_for_good() {
    let world = World::new().await;
    let foreign = Foreign::put(&world).await;
    let here = world.running(&app("/here", "sleep 1000", calico())).await;
    let mut datastore = Datastore::connect(&world.config).await.unwrap();
    datastore.initialise_local("gone-1", &world.stack.pools).await.unwrap();
    let container = ContainerId::random();
    let identity = Identity::new("gone-1", &container, "/web", "web.1");
    let wanted = Wanted { addresses: vec![AddressRequest::Auto(Family::V4)], ..Wanted::default() };
    let prepared = datastore.prepare(&identity, &wanted).await.unwrap();
    datastore.commit(prepared, "02:42:0a:41:00:05", Terms::default()).await.unwrap();
    let before = world.task_keys().await;

    let node = node_name(&world.config).unwrap();
    for (name, told) in [(node.as_str(), "is this host"), ("gone", "no node"), ("gone-1", "signs of life")] {
        let output = world.gc_with(&["--node", name, "--decommission"]);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        assert!(stderr.contains(told) && stderr.lines().count() == 1, "{stderr}");
    }
    let gone = ["--node", "gone-1", "--decommission"];
    let output = world.gc_with(&[&gone[..], &["--dry-run"]].concat());
    assert_eq!(output.status.code(), Some(3), "{output:?}");
    let text = String::from_utf8_lossy(&output.stdout);
    println!("{text}");
    assert!(text.contains("sign of life") && text.contains("3 to remove"), "{text}");
    assert_eq!(world.task_keys().await, before);

    let (code, json) = world.gc_json(&[&gone[..], &["--yes"]].concat());
    assert_eq!(code, 0, "{json:#}");
    assert_eq!(verdicts(&json), ["remove endpoint", "release address", "remove block"], "{json:#}");
    let left = world.task_keys().await.join("\n");
    assert!(!left.contains(&identity.handle) && left.contains(&here.launched.container_id), "{left}");
    foreign.are_untouched(&world).await;
    assert_eq!(here.kill().await.state(), TaskState::TaskKilled);
    world.nothing_left().await;
}
