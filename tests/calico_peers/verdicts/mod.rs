//! `policy explain` against a real Felix: generated policy sets, and real packets for each verdict.

mod cases;
mod senders;

use std::time::{Duration, Instant};

use calico_mesos::calico::{Datastore, Flow, PolicyVerdict, PolicyWorld};
use etcd_client::{Client, DeleteOptions, GetOptions, Txn, TxnOp};
use fastrand::Rng;
use serde_json::{json, Value};

use crate::kit::wait::{eventually, within};
use crate::lab::{shell, Lab, HOST, NODE, OUTSIDE};
use crate::world::{app, calico, Task};
use cases::{CaseRecord, Maker, Places, PORTS, PREFIX};
use senders::{Listeners, Sender};

const SETS: u64 = 200;
const SEED: u64 = 20_261_129;
/// Packets of each set.
const FLOWS: usize = 8;
/// How long Felix may take until a packet fares as it should.
const AGREES: Duration = Duration::from_secs(8);
const RESOURCES: &str = "/calico/resources/v3/projectcalico.org/";
const ROLES: [&str; 3] = ["web", "api", "db"];
/// Behind everything, and without a say: its comment tells which set Felix has programmed.
const MARKER: &str = "gen-zz";

/// The lab with tasks, and what sends and listens in it.
struct Range<'a> {
    lab: &'a Lab,
    client: Client,
    places: Places,
    /// Tasks, the machine outside, this host; with their addresses.
    senders: Vec<(String, Sender)>,
    _listeners: Listeners,
    /// Keys of the tasks' endpoints, and their first content.
    endpoints: Vec<(String, Value)>,
}

/// A packet: places of its ends among the senders, and what is sent.
#[derive(Debug, Clone, Copy)]
struct Shot {
    from: usize,
    to: usize,
    flow: Flow,
}

#[tokio::test]
async fn verdicts_are_those_of_felix() {
    let lab = Lab::new(&[]).await;
    let felix = lab.felix().await;
    let mut tasks = Vec::new();
    for role in ROLES {
        let mut app = app(&format!("/{role}"), "sleep 100000", calico());
        app["labels"] = json!({"role": role});
        tasks.push(lab.world.running(&app).await);
    }
    let (_, ways) = lab.outside(&format!("ip route replace default via {HOST}")).await;
    let mut range = Range::new(&lab, &tasks).await;
    let first: u64 = std::env::var("VERDICT_SEED").map_or(SEED, |seed| seed.parse().unwrap());
    let sets: u64 = std::env::var("VERDICT_SETS").map_or(SETS, |sets| sets.parse().unwrap());
    let (mut counts, mut wrong, begun) = ([0_usize; 3], Vec::new(), Instant::now());
    for seed in first..first + sets {
        let (judged, unlike) = range.try_set(seed).await;
        judged.iter().for_each(|verdict| counts[*verdict as usize] += 1);
        wrong.extend(unlike);
        assert!(wrong.len() < 5, "{ways}{}", wrong.join("\n\n"));
    }
    let [allowed, denied, unknown] = counts;
    eprintln!(
        "{sets} policy sets in {} s: {allowed} packets allowed, {denied} denied, {unknown} not judged, {} otherwise",
        begun.elapsed().as_secs(),
        wrong.len()
    );
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
    assert!(allowed > counts.iter().sum::<usize>() / 10 && denied > allowed / 10, "{counts:?}");
    range.restore().await;
    for task in &tasks {
        task.kill().await;
    }
    lab.nothing_left(&tasks.iter().collect::<Vec<_>>()).await;
    assert_eq!(felix.failures(), Vec::<String>::new());
}

impl<'a> Range<'a> {
    async fn new(lab: &'a Lab, tasks: &[Task<'_>]) -> Self {
        let client = Client::connect([&lab.world.stack.etcd_endpoint], None).await.unwrap();
        let mut senders = Vec::new();
        for task in tasks {
            let path =
                lab.world.config.paths.run.join("tasks").join(&task.launched.container_id).join("netns");
            senders.push((task.addresses().remove(0), Sender::inside(&path)));
        }
        senders.push((OUTSIDE.to_owned(), Sender::inside(lab.outside_namespace())));
        senders.push((HOST.to_owned(), Sender::here()));
        let listeners = Listeners::start(senders.iter(), &PORTS).await;
        let addresses = senders.iter().take(tasks.len()).map(|(address, _)| address.clone()).collect();
        let places = Places { addresses, outside: OUTSIDE, host: HOST };
        let mut range = Self { lab, client, places, senders, _listeners: listeners, endpoints: vec![] };
        let key = format!("{RESOURCES}workloadendpoints/");
        for (key, value) in range.below(&key).await {
            range.endpoints.push((key, serde_json::from_str(&value).unwrap()));
        }
        assert_eq!(range.endpoints.len(), tasks.len());
        range
            .put("felixconfigurations/default", json!({"spec": {"defaultEndpointToHostAction": "Return"}}))
            .await;
        range.put(&format!("tiers/{MARKER}"), json!({"spec": {"order": 3e6, "defaultAction": "Pass"}})).await;
        range
    }

    async fn below(&mut self, key: &str) -> Vec<(String, String)> {
        let answer = self.client.get(key, Some(GetOptions::new().with_prefix())).await.unwrap();
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        answer.kvs().iter().map(|entry| (text(entry.key()), text(entry.value()))).collect()
    }

    async fn put(&mut self, path: &str, value: Value) {
        self.client.put(format!("{RESOURCES}{path}"), value.to_string(), None).await.unwrap();
    }

    /// Applies a set, and compares what Felix does with what is said of it.
    async fn try_set(&mut self, seed: u64) -> (Vec<PolicyVerdict>, Vec<String>) {
        let places = Places { addresses: self.places.addresses.clone(), ..self.places };
        let mut maker = Maker { dice: Rng::with_seed(seed), places: &places };
        let records = maker.records();
        let endpoints: Vec<CaseRecord> = self
            .endpoints
            .iter()
            .map(|(key, value)| {
                let mut value = value.clone();
                value["spec"]["profiles"] = maker.profiles();
                value["spec"]["ports"] = json!([{"name": "sql", "protocol": if maker.dice.bool() { "TCP" } else { "UDP" }, "port": 5432}]);
                (key.trim_start_matches(RESOURCES).to_owned(), value)
            })
            .collect();
        self.apply(seed, &records, &endpoints).await;
        self.programmed(seed).await;
        let world = self.world().await;
        let mut shots = Vec::new();
        while shots.len() < FLOWS {
            let (from, to) = (maker.dice.usize(..self.senders.len()), maker.dice.usize(..self.senders.len()));
            let port = PORTS[maker.dice.usize(..PORTS.len())];
            let protocol = if maker.dice.bool() { 6 } else { 17 };
            let flow = if maker.dice.u8(..6) == 0 { Flow::Icmp(None) } else { Flow::Port { protocol, port } };
            if from != to {
                shots.push(Shot { from, to, flow });
            }
        }
        let mut judged = Vec::new();
        let mut wrong = Vec::new();
        for (shot, passed) in shots.iter().zip(self.fire(&shots).await) {
            let explained = self.explain(&world, *shot);
            judged.push(explained.0);
            let expected = match explained.0 {
                PolicyVerdict::Allowed => true,
                PolicyVerdict::Denied => false,
                PolicyVerdict::Unknown => continue,
            };
            if passed != expected && !self.comes_to(*shot, expected).await {
                let (from, to) = (&self.senders[shot.from].0, &self.senders[shot.to].0);
                let sets: Vec<String> =
                    records.iter().chain(&endpoints).map(|(key, value)| format!("{key} {value}")).collect();
                wrong.push(format!(
                    "seed {seed}: {from} -> {to} {}: {:?}, but passed is {passed}\n{}\n{}",
                    shot.flow,
                    explained.0,
                    explained.1,
                    sets.join("\n")
                ));
            }
        }
        (judged, wrong)
    }

    /// In one transaction, in place of the set before.
    async fn apply(&mut self, seed: u64, records: &[CaseRecord], endpoints: &[CaseRecord]) {
        let new: Vec<String> = records.iter().map(|(path, _)| format!("{RESOURCES}{path}")).collect();
        let old = self.below(RESOURCES).await.into_iter().map(|(key, _)| key);
        let is_old = |key: &String| {
            let name = key.rsplit('/').next().unwrap();
            name.starts_with(PREFIX) && name != MARKER && !new.contains(key)
        };
        let mut operations: Vec<TxnOp> = old.filter(is_old).map(|key| TxnOp::delete(key, None)).collect();
        let rule =
            json!([{"action": "Pass", "metadata": {"annotations": {"generation": format!("n{seed}n")}}}]);
        let marker = json!({"metadata": {"name": MARKER}, "spec": {"tier": MARKER, "selector": "all()", "types": ["Ingress", "Egress"], "ingress": rule, "egress": rule}});
        let marker = (format!("globalnetworkpolicies/{MARKER}"), marker);
        for (path, value) in records.iter().chain(endpoints).chain([&marker]) {
            operations.push(TxnOp::put(format!("{RESOURCES}{path}"), value.to_string(), None));
        }
        self.client.txn(Txn::new().and_then(operations)).await.unwrap();
    }

    /// Felix shows the set's number, and changes nothing any more.
    async fn programmed(&self, seed: u64) {
        let dump = async || shell("iptables-nft-save; ipset save").await.1;
        let number = format!("n{seed}n");
        within(Duration::from_secs(20), format!("Felix has programmed the set {seed}"), async || {
            let text = dump().await;
            text.contains(&number).then_some(()).ok_or(format!("{} lines", text.lines().count()))
        })
        .await;
        let mut last = dump().await;
        eventually("Felix is at rest", async || {
            tokio::time::sleep(Duration::from_millis(100)).await;
            let now = dump().await;
            let strip =
                |text: &str| text.lines().filter(|line| !line.starts_with(['#', ':'])).collect::<String>();
            strip(&std::mem::replace(&mut last, now.clone())) == strip(&now)
        })
        .await;
    }

    async fn world(&self) -> PolicyWorld {
        let mut datastore = Datastore::connect(&self.lab.world.config).await.unwrap();
        let (world, damaged) = datastore.policy_world().await.unwrap();
        let labels_alone = damaged.iter().all(|own| own.reason.contains("takes none of its labels"));
        assert!(labels_alone, "{damaged:?}");
        assert!(world.hosts.contains_key(NODE));
        world
    }

    fn explain(&self, world: &PolicyWorld, shot: Shot) -> (PolicyVerdict, String) {
        let end = |place: usize| world.meant(&self.senders[place].0).unwrap().ends[0].clone();
        let explained = world.explain(&end(shot.from), &end(shot.to), shot.flow);
        (explained.verdict, format!("{explained:#?}"))
    }

    /// All at once; whether each was answered.
    async fn fire(&self, shots: &[Shot]) -> Vec<bool> {
        let fired = shots.iter().map(|shot| {
            let (_, sender) = &self.senders[shot.from];
            sender.reaches(self.senders[shot.to].0.clone(), shot.flow)
        });
        futures_util::future::join_all(fired).await
    }

    /// A slow machine may lose a packet, and Felix be late.
    async fn comes_to(&self, shot: Shot, expected: bool) -> bool {
        let begun = Instant::now();
        while begun.elapsed() < AGREES {
            if self.fire(&[shot]).await == [expected] {
                return true;
            }
        }
        false
    }

    /// As before the first set.
    async fn restore(&mut self) {
        for (key, _) in self.below(RESOURCES).await {
            if key.rsplit('/').next().unwrap().starts_with(PREFIX) {
                self.client.delete(key, Some(DeleteOptions::new())).await.unwrap();
            }
        }
        for (key, value) in self.endpoints.clone() {
            self.client.put(key, value.to_string(), None).await.unwrap();
        }
    }
}
