//! For any content of the datastore: an answer, never a panic, and never an address that something else holds.

use std::collections::{BTreeMap, BTreeSet};
use std::time::UNIX_EPOCH;

use proptest::prelude::*;
use serde_json::{json, Value};

use super::block::Block;
use super::hint::Hint;
use super::plan::{make, PlanRequest, PlanStep};
use super::snapshot::{Question, SeenBlock};
use super::txn::{Change, ReadKey};
use super::*;
use crate::any_json::nested;
use crate::error::Code;
use crate::names::ContainerId;

const NODE: &str = "a";

/// Key and text of everything.
type Store = BTreeMap<String, Vec<u8>>;

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        prop::sample::select(vec![
            "",
            "10.65.0.0/29",
            "::/0",
            "0.0.0.0/0",
            "fd00::/128",
            "host:a",
            "all(",
            "-1"
        ])
        .prop_map(Value::from),
        "(?s).{0,8}".prop_map(Value::from),
    ];
    nested(leaf, "[a-z/0-9.]{1,9}")
}

/// Every place in the value.
fn places(value: &Value, at: &str, all: &mut Vec<String>) {
    all.push(at.to_owned());
    match value {
        Value::Array(items) => {
            items.iter().enumerate().for_each(|(index, item)| places(item, &format!("{at}/{index}"), all));
        }
        Value::Object(fields) => {
            fields.iter().for_each(|(name, item)| places(item, &format!("{at}/{name}"), all));
        }
        _ => {}
    }
}

/// The record as it should be, with something else somewhere in it, cut off, or nothing like it.
fn nearly(record: Value) -> impl Strategy<Value = Vec<u8>> {
    let mut all = Vec::new();
    places(&record, "", &mut all);
    let text = record.to_string().into_bytes();
    let whole = text.clone();
    let changed = (prop::sample::select(all), any_json()).prop_map(move |(place, other)| {
        let mut record = record.clone();
        if let Some(found) = record.pointer_mut(&place) {
            *found = other;
        }
        record.to_string().into_bytes()
    });
    prop_oneof![
        8 => Just(whole),
        6 => changed,
        1 => (0..text.len()).prop_map(move |end| text[..end].to_vec()),
        1 => prop::collection::vec(any::<u8>(), 0..40),
    ]
}

fn block(cidr: &str, affinity: &str) -> Value {
    json!({
        "cidr": cidr, "affinity": affinity, "allocations": [0, null, 1, null], "unallocated": [3, 1],
        "attributes": [{"handle_id": "other", "secondary": {"node": "b"}}, {"handle_id": "third"}],
        "sequenceNumber": 1_795_459_939_565_803_068_u64, "sequenceNumberForAllocation": {"0": 1}, "deleted": false,
    })
}

/// As of a pool that was cut otherwise: its first and its last address are in use.
fn block_of_another_size(cidr: &str, affinity: &str, size: usize) -> Value {
    let allocations: Vec<Option<usize>> = (0..size).map(|n| (n % (size - 1) == 0).then_some(0)).collect();
    json!({
        "cidr": cidr, "affinity": affinity, "allocations": allocations,
        "unallocated": (1..size - 1).collect::<Vec<_>>(), "attributes": [{"handle_id": "other"}],
        "sequenceNumber": 5, "sequenceNumberForAllocation": {}, "deleted": false,
    })
}

fn resource(name: &str, spec: Value) -> Value {
    json!({"kind": "X", "metadata": {"name": name, "labels": {"rack": "r1"}, "uid": "u"}, "spec": spec})
}

prop_compose! {
    fn any_store()(
        cluster in nearly(resource("default", json!({"datastoreReady": true}))),
        node in nearly(resource(NODE, json!({}))),
        pool in nearly(resource("p", json!({"cidr": "10.65.0.0/24", "blockSize": 30, "nodeSelector": "has(rack)"}))),
        second in nearly(resource("q", json!({"cidr": "fd00::/120", "blockSize": 126, "allowedUses": ["Workload"]}))),
        config in nearly(json!({"strict_affinity": false, "auto_allocate_blocks": true, "maxBlocksPerHost": 20})),
        reservation in nearly(resource("r", json!({"reservedCIDRs": ["10.65.0.1"]}))),
        affinity in nearly(json!({"state": "confirmed", "deleted": false})),
        own in nearly(block("10.65.0.0/30", "host:a")),
        others in nearly(block("10.65.0.4/30", "host:b")),
        around in nearly(block_of_another_size("10.65.0.0/29", "host:b", 8)),
        within in nearly(block_of_another_size("10.65.0.6/31", "host:a", 2)),
        six in nearly(block_of_another_size("fd00::/125", "host:b", 8)),
        handle in nearly(json!({"id": "mesos.x", "block": {"10.65.0.0/30": 1}, "deleted": false})),
        endpoint in nearly(json!({"metadata": {"name": "n", "uid": "u"}, "spec": {"node": "a", "ipNetworks": ["10.65.0.1/32"]}})),
        there in any::<[bool; 14]>(),
    ) -> (Store, bool) {
        let cidr = |text: &str| text.parse::<IpNet>().unwrap();
        let all = [
            (keys::cluster_information(), cluster),
            (keys::node(NODE), node),
            (keys::pool("p"), pool),
            (keys::ipam_config(), config),
            (keys::block(&cidr("10.65.0.0/30")), own),
            (keys::affinity(NODE, &cidr("10.65.0.0/30")), affinity),
            (keys::pool("q"), second),
            (format!("{}r", keys::reservations()), reservation),
            (keys::block(&cidr("10.65.0.4/30")), others),
            (keys::block(&cidr("10.65.0.0/29")), around),
            (keys::block(&cidr("10.65.0.6/31")), within),
            (keys::block(&cidr("fd00::/125")), six),
            (keys::handle("HANDLE"), handle),
            (keys::endpoint("ENDPOINT"), endpoint),
        ];
        let store = all.into_iter().zip(there).enumerate()
            // Without the first four nothing goes far.
            .filter(|(index, (_, there))| *index < 4 || *there)
            .map(|(_, (entry, _))| entry);
        (store.collect(), there[0])
    }
}

fn identity() -> Identity {
    let container = ContainerId::parse("5f3cbe1e-77aa-4d1b-8b0e-0c1f2a3b4c5d").unwrap();
    Identity { uid: "u".into(), ..Identity::new(NODE, &container, "/web", "web.1") }
}

fn answer(store: &Store, ranges: &[Range]) -> ReadAnswer {
    let entry =
        |(key, value): (&String, &Vec<u8>)| ReadKey { key: key.clone(), value: value.clone(), revision: 7 };
    let found = |range: &Range| match range {
        Range::Key(key) => store.get_key_value(key).map(entry).into_iter().collect(),
        Range::Prefix(prefix) | Range::Names(prefix) | Range::Count(prefix) => {
            store.iter().filter(|(key, _)| key.starts_with(prefix.as_str())).map(entry).collect()
        }
    };
    let ranges: Vec<Vec<ReadKey>> = ranges.iter().map(found).collect();
    let counts = ranges.iter().map(|found| found.len() as i64).collect();
    ReadAnswer { revision: 9, ranges, counts }
}

/// A launch and its release, as [`Datastore`] does them; `None` where it is refused.
fn planned(store: &Store, wanted: &Wanted, limits: &Limits) -> Option<Box<plan::LaunchPlan>> {
    let identity = identity();
    let request = PlanRequest {
        identity: &identity,
        wanted,
        limits,
        hint: &Hint::default(),
        excluded: &[],
        purpose: plan::Purpose::Task,
        now: UNIX_EPOCH,
    };
    let question = Question {
        node: NODE,
        endpoint: identity.endpoint_key(),
        handle: &identity.handle,
        profiles: &wanted.profiles,
        blocks: &[],
    };
    let mut view = Snapshot::default();
    let mut ranges = question.ranges();
    for _ in 0..50 {
        view.absorb(&ranges, answer(store, &ranges));
        match make(&request, &view) {
            Ok(PlanStep::More(more)) => ranges = more,
            Ok(PlanStep::Ready(plan)) => {
                let write = plan.transaction(&request, &view, &[], "02:42:0a:41:00:05");
                assert!(write.changes.iter().all(|change| match change {
                    Change::Put { key, value } => key.starts_with("/calico/") && is_json(value),
                    Change::Delete { key } => key.starts_with("/calico/"),
                }));
                return Some(plan);
            }
            Err(error) => {
                assert_ne!(error.failure().code, Code::Internal);
                return None;
            }
        }
    }
    panic!("it reads for ever");
}

fn is_json(value: &[u8]) -> bool {
    serde_json::from_slice::<Value>(value).is_ok()
}

fn wishes() -> impl Strategy<Value = Vec<AddressRequest>> {
    let explicit = |text: &str| AddressRequest::Explicit(text.parse().unwrap());
    let wish = prop::sample::select(vec![
        AddressRequest::Auto(Family::V4),
        AddressRequest::Auto(Family::V6),
        explicit("10.65.0.0"),
        explicit("10.65.0.1"),
        explicit("10.65.0.5"),
        explicit("10.65.0.77"),
        explicit("fd00::7"),
        explicit("192.0.2.1"),
    ]);
    prop::collection::vec(wish, 1..3)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn any_datastore_content_gives_a_launch_a_plan_or_an_error((mut store, ours) in any_store(), addresses in wishes(), limited in any::<bool>(), by_name in any::<bool>()) {
        let identity = identity();
        for (from, to) in [("HANDLE", keys::handle(&identity.handle)), ("ENDPOINT", identity.endpoint_key())] {
            let key = if from == "HANDLE" { keys::handle(from) } else { keys::endpoint(from) };
            if let Some(value) = store.remove(&key).filter(|_| ours) {
                store.insert(to, value);
            }
        }
        let pools = if limited { vec!["p".to_owned()] } else { Vec::new() };
        // Whether the operator limits the pools or the task names one: the address comes from no other.
        let (limits, named) = match by_name {
            true => (Limits::default(), pools),
            false => (Limits { pools, ..Limits::default() }, Vec::new()),
        };
        let wanted = Wanted { addresses, profiles: vec!["dev".into()], pools: named, ..Wanted::default() };
        let Some(plan) = planned(&store, &wanted, &limits) else { return Ok(()) };
        prop_assert_eq!(plan.addresses.len(), wanted.addresses.len());
        prop_assert_eq!(plan.addresses.iter().collect::<BTreeSet<_>>().len(), plan.addresses.len());
        for (address, wish) in plan.addresses.iter().zip(&wanted.addresses) {
            match wish {
                AddressRequest::Explicit(wish) => prop_assert_eq!(wish, address),
                AddressRequest::Auto(family) => prop_assert_eq!(*family, Family::of(*address)),
            }
        }
        // No address is anybody else's in whatever block, and no new block overlaps another one.
        let blocks: Vec<(IpNet, Option<Block>)> = store.iter()
            .filter(|(key, _)| key.contains("/assignment/"))
            .filter_map(|(key, text)| Some((keys::cidr_of_key(key)?, text)))
            .map(|(cidr, text)| (cidr, Block::parse(text, &cidr).ok()))
            .collect();
        for address in &plan.addresses {
            for (cidr, block) in blocks.iter().filter(|(cidr, _)| cidr.contains(address)) {
                let held = plan.held.contains_key(cidr);
                let holder = block.as_ref().and_then(|block| block.holder(block::ordinal(cidr, *address)?));
                let ours = holder.is_some_and(|holder| holder.handle_id.as_deref() == Some(&identity.handle));
                prop_assert!(block.is_some() && (holder.is_none() || held && ours), "{} in {}", address, cidr);
            }
        }
        for (cidr, _) in plan.drafts.iter().filter(|(_, (_, revision))| *revision == 0) {
            prop_assert!(!blocks.iter().any(|(other, _)| overlap::overlap(other, cidr)), "{} is made over another", cidr);
        }
        for (cidr, (draft, revision)) in &plan.drafts {
            prop_assert!(draft.allocations.len() <= 1 << 16);
            let text = serde_json::to_vec(draft).unwrap();
            prop_assert_eq!(&Block::parse(&text, cidr).unwrap(), draft, "it is read back as it was written");
            // No task loses an address.
            let before = store.get(&keys::block(cidr)).filter(|_| *revision != 0);
            let Some(before) = before.and_then(|text| Block::parse(text, cidr).ok()) else { continue };
            for ordinal in 0..before.allocations.len() {
                if let Some(holder) = before.holder(ordinal) {
                    prop_assert_eq!(draft.holder(ordinal), Some(holder));
                }
            }
            if limited && plan.held.len() == plan.drafts.len() {
                let pools = view_of(&store).pools();
                let named = pools.iter().find(|pool| pool.name == "p");
                let within = |address: &&std::net::IpAddr| named.is_some_and(|pool| pool.cidr.contains(*address));
                let strays = plan.addresses.iter().find(|address| cidr.contains(*address) && !within(address));
                prop_assert!(strays.is_none(), "{:?} is in no allowed pool", strays);
            }
        }
    }

    #[test]
    fn any_record_is_read_or_refused_without_a_panic((store, _) in any_store(), address in any::<std::net::Ipv6Addr>()) {
        let view = view_of(&store);
        let _ = (view.readiness().is_ok(), view.node_labels(NODE).is_ok(), view.ipam_config().is_ok());
        let _ = (view.handle("HANDLE").is_ok(), view.endpoint(&keys::endpoint("ENDPOINT")).is_ok(), view.reserved());
        for value in store.values() {
            let _ = query::parse(value);
        }
        for pool in view.pools() {
            let _ = pool.selects(&BTreeMap::new());
            prop_assert!(pool.walk(NODE).take(3).all(|block| pool.cidr.contains(&block)));
            prop_assert!(pool.block_of(address.into()).prefix_len() >= pool.cidr.prefix_len());
        }
        for family in [Family::V4, Family::V6] {
            for (cidr, _) in view.affinities(NODE, family) {
                prop_assert_eq!(cidr, cidr.trunc());
                if let SeenBlock::There(block, _) = view.block(&cidr) {
                    let mut block = *block;
                    let before = block.held_by("other").len();
                    prop_assert_eq!(block.release("other").len(), before);
                }
            }
        }
    }

    #[test]
    fn only_a_blocks_key_is_read_as_a_block(key in "(?s).{0,60}", tail in "[0-9a-f.:/-]{0,30}") {
        let _ = keys::cidr_of_key(&key);
        if let Some(cidr) = keys::cidr_of_key(&format!("/calico/x/{tail}")) {
            prop_assert!(keys::block(&cidr).parse::<String>().is_ok());
            prop_assert_eq!(keys::cidr_of_key(&keys::block(&cidr)), Some(cidr));
        }
    }

    #[test]
    fn a_labels_text_stays_within_its_label(key in "(?s).{0,90}", value in "(?s).{0,90}") {
        let labels = labels::endpoint_labels(&BTreeMap::from([(key, value)]));
        prop_assert_eq!(labels.get("projectcalico.org/namespace").map(String::as_str), Some("default"));
        prop_assert_eq!(labels.get("projectcalico.org/orchestrator").map(String::as_str), Some("mesos"));
        let legal = |text: &str| text.len() <= 63 && text.chars().all(|c| c.is_ascii_alphanumeric() || "._-".contains(c));
        let own = labels.iter().filter(|(key, _)| !key.starts_with("projectcalico.org/"));
        for (key, value) in own {
            prop_assert!(!key.is_empty() && legal(key) && legal(value), "{}={}", key, value);
        }
    }
}

fn view_of(store: &Store) -> Snapshot {
    let mut view = Snapshot::default();
    let ranges = [Range::Prefix("/calico/".into())];
    view.absorb(&ranges, answer(store, &ranges));
    view.revision = 9;
    view
}

/// The generator is worth something only if launches succeed and fail on what it makes.
#[test]
fn the_generator_makes_usable_and_damaged_datastores() {
    use proptest::strategy::ValueTree;
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let wanted = Wanted { addresses: vec![AddressRequest::Auto(Family::V4)], ..Wanted::default() };
    let good = (0..500)
        .map(|_| any_store().new_tree(&mut runner).unwrap().current().0)
        .filter(|store| planned(store, &wanted, &Limits::default()).is_some())
        .count();
    assert!((25..475).contains(&good), "{good} of 500 are good");
}
