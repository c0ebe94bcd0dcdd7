//! The captured steps of Calico's own IPAM plugin, done by us from the same state.
//!
//! Each step starts from what Calico 3.29 had left before it; what we leave is compared with what Calico
//! left: key for key, text for text. Left aside are what is of one run (times, numbers of new blocks),
//! what only we write (endpoint, profile, the names of task and app), and the settings that Calico creates
//! by reading them. A new block may be another one: it is renamed to Calico's before comparing.

use std::path::Path;

use calico_mesos::calico::{AddressRequest, Datastore, Family, Identity, Terms, Wanted};
use serde::Deserialize;
use serde_json::Value;

use crate::datastore::*;

#[derive(Deserialize)]
struct Step {
    name: String,
    op: Option<String>,
    #[serde(default)]
    container: String,
    #[serde(default)]
    node: String,
    ip: Option<String>,
    assign_ipv4: Option<Value>,
    assign_ipv6: Option<Value>,
    ipv4_pools: Option<Vec<String>>,
    exit: i32,
    #[serde(default)]
    ips: Vec<String>,
    /// State put there by hand instead of what the steps before left in IPAM.
    before: Option<Vec<(String, String)>>,
    #[serde(default)]
    writes: Vec<(String, Option<String>)>,
}

/// Steps that we do otherwise on purpose, with the reason.
const DIFFERENT: &[(&str, &str)] = &[
    (
        "s2a-basic/005-add3-host1-repeat",
        "the plugin takes a second address for the same container, we keep the first",
    ),
    ("s2b-dualstack/004-add-none", "a task always asks for an address"),
    ("s2b-dualstack/005-add-bool", "a matter of the plugin's configuration"),
    (
        "s2b-dualstack/010-add-dual-v6-fails",
        "the plugin leaves the IPv4 address behind, we take both or none",
    ),
    ("s2c-pools/009-add-pool-subset-cidr", "we limit pools by name"),
    (
        "s2c-pools/010-add-pool-selector-mismatch-named",
        "limits.pools narrows the choice, it does not override a nodeSelector",
    ),
    ("s2c-pools/017-del-9", "the address came from the step before, which we do otherwise"),
    ("s2g-limits/019-add13-config-empty-value", "an empty value is told as unreadable"),
    ("s2g-limits/023-add16-node-missing-explicit", "we refuse a host that Calico does not know"),
    (
        "s2h-crashstates/010-block-without-affinity-key",
        "the plugin adopts such a block when it meets it, we when no block is free",
    ),
    (
        "s2h-crashstates/018-block-not-json",
        "the plugin fails on a block that cannot be read, we leave it alone and take another",
    ),
    ("s2h-crashstates/019-unknown-fields", "the plugin loses fields that it does not know, we keep them"),
    (
        "s2h-crashstates/014-handle-leftover",
        "the plugin adds to a wrong count, we count what the blocks hold",
    ),
    ("s2h-crashstates/015-handle-leftover-del", "the plugin leaves the wrong count behind for ever"),
    ("s2h-crashstates/016-handle-without-block-del", "the plugin leaves the empty handle behind"),
    ("s2h-crashstates/017-block-without-handle-del", "the plugin frees nothing without a handle"),
];

/// Steps in which Calico writes the block once more, to fence off others, where one transaction of ours does:
/// the numbers differ by one.
const RENUMBERED: &[&str] =
    &["s2h-crashstates/003-pending-own-block", "s2h-crashstates/007-pendingdeletion-own-block"];

#[tokio::test]
async fn the_basic_capture_is_replayed_with_equal_records() {
    replay("s2a-basic").await;
}

#[tokio::test]
async fn the_dual_stack_capture_is_replayed_with_equal_records() {
    replay("s2b-dualstack").await;
}

#[tokio::test]
async fn the_capture_with_several_pools_is_replayed_with_equal_records() {
    replay("s2c-pools").await;
}

#[tokio::test]
async fn the_capture_of_an_exhausted_pool_is_replayed_with_equal_records() {
    replay("s2d-exhaust").await;
}

#[tokio::test]
async fn the_captures_of_borrowing_and_strict_affinity_are_replayed_with_equal_records() {
    replay("s2e-borrow-strict").await;
}

#[tokio::test]
async fn the_capture_with_reservations_is_replayed_with_equal_records() {
    replay("s2f-reservation").await;
}

#[tokio::test]
async fn the_capture_of_the_limits_is_replayed_with_equal_records() {
    replay("s2g-limits").await;
}

#[tokio::test]
async fn the_capture_of_states_after_crashes_is_replayed_with_equal_records() {
    replay("s2h-crashstates").await;
}

async fn replay(scenario: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/fixtures/calico/{scenario}.jsonl"));
    let text = std::fs::read_to_string(path).unwrap();
    let mut world = World::empty().await;
    let mut state = Dump::new();
    let mut done = 0;
    for line in text.lines() {
        let step: Step = serde_json::from_str(line).unwrap();
        let id = format!("{scenario}/{}", step.name);
        if let Some(before) = &step.before {
            state.retain(|key, _| !key.starts_with(IPAM));
            state.extend(before.iter().cloned());
        }
        let before = state.clone();
        for (key, value) in &step.writes {
            match value {
                Some(value) => state.insert(key.clone(), value.clone()),
                None => state.remove(key),
            };
        }
        if step.op.is_none() || DIFFERENT.iter().any(|(name, _)| *name == id) {
            continue;
        }
        world.clear().await;
        for (key, value) in &before {
            world.put(key, value).await;
        }
        check(&mut world, &step, &id, &before, &state).await;
        done += 1;
    }
    assert!(done > 3, "only {done} steps of {scenario} could be replayed");
}

async fn check(world: &mut World, step: &Step, id: &str, before: &Dump, golden: &Dump) {
    let identity = identity(step);
    let mut config = world.config(&format!("{}-{}", step.node, step.name));
    config.limits.pools = step.ipv4_pools.iter().flatten().map(|name| pool_name(before, name)).collect();
    let mut datastore = Datastore::connect(&config).await.unwrap();
    if step.op.as_deref() == Some("del") {
        datastore.release(&identity).await.unwrap_or_else(|error| panic!("{id}: {error}"));
    } else {
        let result = add(&mut datastore, &identity, step).await;
        assert_eq!(result.is_ok(), step.exit == 0, "{id}: {result:?}");
    }
    let ours = world.dump().await;
    let renames = renames(before, &ours, golden);
    let nothing = Dump::new();
    let numbered = if RENUMBERED.contains(&id) { &nothing } else { before };
    let mut ours = comparable(&ours, numbered, &renames);
    let mut golden = comparable(golden, numbered, &[]);
    // We begin the search for a block to borrow from elsewhere: only keys and affinities are compared.
    if step.op.as_deref() == Some("add") && step.name.contains("borrow") {
        for dump in [&mut ours, &mut golden] {
            dump.retain(|key, _| !key.contains("/assignment/"));
            dump.iter_mut().filter(|(key, _)| key.contains("/handle/")).for_each(|(_, value)| value.clear());
        }
    }
    for key in ours.keys().chain(golden.keys()) {
        assert_eq!(ours.get(key), golden.get(key), "{id}: {key}\n before: {:?}", before.get(key));
    }
}

async fn add(
    datastore: &mut Datastore,
    identity: &Identity,
    step: &Step,
) -> Result<(), calico_mesos::calico::CalicoError> {
    let mut wanted = Wanted::default();
    match &step.ip {
        Some(address) => wanted.addresses.push(AddressRequest::Explicit(address.parse().unwrap())),
        None => {
            if step.assign_ipv4 != Some("false".into()) {
                wanted.addresses.push(AddressRequest::Auto(Family::V4));
            }
            if step.assign_ipv6 == Some("true".into()) {
                wanted.addresses.push(AddressRequest::Auto(Family::V6));
            }
        }
    }
    let prepared = datastore.prepare(identity, &wanted).await?;
    let committed = datastore.commit(prepared, MAC, Terms::default()).await?;
    assert_eq!(committed.addresses.len(), step.ips.len().max(1));
    Ok(())
}

fn identity(step: &Step) -> Identity {
    Identity {
        node: step.node.clone(),
        workload: format!("replayed.{}", step.container),
        handle: format!("mesosnet.{}", step.container),
        uid: step.container.clone(),
        interface: "cali0".into(),
        container_id: step.container.clone(),
        app: String::new(),
        task_id: String::new(),
    }
}

/// The plugin also takes pools by CIDR.
fn pool_name(state: &Dump, name: &str) -> String {
    let prefix = format!("{RESOURCES}/ippools/");
    let by_cidr = state
        .iter()
        .find(|(key, value)| key.starts_with(&prefix) && value.contains(&format!(r#""cidr":"{name}""#)));
    by_cidr.map_or(name, |(key, _)| key.strip_prefix(&prefix).unwrap()).to_owned()
}

/// New blocks: ours with Calico's in its place, in the spelling of keys and of values.
fn renames(before: &Dump, ours: &Dump, golden: &Dump) -> Vec<(String, String)> {
    let new = |dump: &Dump| -> Vec<String> {
        let blocks = dump.keys().filter(|key| key.contains("/assignment/") && !before.contains_key(*key));
        blocks.map(|key| key.rsplit('/').next().unwrap().to_owned()).collect()
    };
    let pairs = new(ours).into_iter().zip(new(golden));
    pairs.flat_map(|(from, to)| [(from.replace('-', "/"), to.replace('-', "/")), (from, to)]).collect()
}

fn comparable(dump: &Dump, before: &Dump, renames: &[(String, String)]) -> Dump {
    let skipped = |key: &str| {
        key.ends_with("/ipam/v2/config") || key.contains("/workloadendpoints/") || key.contains("/profiles/")
    };
    let mut result = Dump::new();
    for (key, value) in dump.iter().filter(|(key, _)| !skipped(key)) {
        let rename =
            |text: &str| renames.iter().fold(text.to_owned(), |text, (from, to)| text.replace(from, to));
        let is_new = !before.contains_key(key)
            || !before.get(key).is_some_and(|value| value.contains("sequenceNumber"));
        let value = match key.contains("/assignment/") {
            true => block(value, is_new),
            false => value.clone(),
        };
        result.insert(rename(key), rename(&value));
    }
    result
}

/// A block without what is of one run.
fn block(text: &str, is_new: bool) -> String {
    let Ok(mut value) = serde_json::from_str::<Value>(text) else { return text.to_owned() };
    let object = value.as_object_mut().unwrap();
    object.shift_remove("affinity_claim_time");
    if is_new {
        object.insert("sequenceNumber".into(), Value::Null);
        for number in object["sequenceNumberForAllocation"].as_object_mut().unwrap().values_mut() {
            *number = Value::Null;
        }
    }
    for attribute in object["attributes"].as_array_mut().into_iter().flatten() {
        if let Some(secondary) = attribute.get_mut("secondary").and_then(Value::as_object_mut) {
            for key in ["mesos-app", "mesos-task", "timestamp"] {
                secondary.shift_remove(key);
            }
        }
    }
    value.to_string()
}
