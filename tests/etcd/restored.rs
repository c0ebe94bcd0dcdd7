//! A datastore that lost what launches wrote, or got back what was gone.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use calico_mesos::calico::{Committed, Holder, Identity, Kept, Lacking, Missing, Terms};
use calico_mesos::config::Config;
use calico_mesos::error::Code;
use calico_mesos::names::ContainerId;
use calico_mesos::task::cleaner::{self, Cleaned, Fate, Verdict};
use calico_mesos::task::record::journal::{Journal, JournalEntry, Record};
use calico_mesos::task::record::published;
use serde_json::Value;

use crate::datastore::*;
use crate::proxy::Proxy;

const POOL: (&str, &str) = ("pool", r#"{"cidr":"10.65.0.0/24","blockSize":29}"#);

/// A living task of a host: its record is locked, and what it committed is noted.
struct Living {
    identity: Identity,
    committed: Committed,
    entry: JournalEntry,
}

impl Living {
    async fn launch(world: &World, config: &Config) -> Self {
        let identity = task(&config.node.name.clone().unwrap());
        let committed = world.launch(&identity, &auto()).await.unwrap();
        let container = ContainerId::parse(&identity.container_id).unwrap();
        let journal = Journal::open(&config.paths.journal()).unwrap();
        let entry = journal.begin(Record::new(container.clone(), identity.clone())).unwrap();
        std::fs::create_dir_all(config.paths.task_run(&container)).unwrap();
        published::CommittedNote::of(config, &container).note(&committed.kept);
        Self { identity, committed, entry }
    }

    fn address(&self) -> IpAddr {
        self.committed.addresses[0]
    }

    fn kept(&self) -> &Kept {
        &self.committed.kept
    }
}

/// A host that has nothing but Calico: no Docker, no Consul.
fn host(world: &World, node: &str) -> Config {
    let mut config = world.config(node);
    config.paths.run = world.dir.path().join(format!("run-{node}"));
    config.consul.enabled = false;
    config
}

async fn lacking(world: &World, identity: &Identity, kept: &Kept) -> Lacking {
    world.connect(&identity.node).await.lacking(&[(identity, kept)]).await.unwrap().remove(0)
}

async fn write_again(world: &World, identity: &Identity, kept: &Kept) -> Lacking {
    world.connect(&identity.node).await.write_again(identity, kept).await.unwrap()
}

/// Without what every write moves on: a block's number and the times of its making, a profile's uid.
fn steady(dump: &Dump) -> Vec<(String, Value)> {
    let moving =
        ["sequenceNumber", "sequenceNumberForAllocation", "affinity_claim_time", "affinityClaimTime"];
    let steady = |(key, text): (&String, &String)| {
        let mut value: Value = serde_json::from_str(text).unwrap();
        for name in moving {
            value.as_object_mut().unwrap().remove(name);
        }
        if key.contains("/profiles/") {
            for name in ["uid", "creationTimestamp"] {
                value["metadata"].as_object_mut().unwrap().remove(name);
            }
        }
        (key.clone(), value)
    };
    dump.iter().map(steady).collect()
}

async fn lose(world: &mut World, part: &str) {
    let keys: Vec<String> = world.dump().await.into_keys().filter(|key| key.contains(part)).collect();
    assert!(!keys.is_empty(), "nothing to lose in {part}");
    for key in keys {
        world.delete(&key).await;
    }
}

fn shown(cleaned: &Cleaned) -> Vec<String> {
    let mut shown: Vec<String> = cleaned
        .items
        .iter()
        .map(|(item, fate)| {
            let fate = match fate {
                Fate::Untouched => "untouched",
                Fate::Done => "done",
                Fate::Gone => "gone",
                Fate::Left(_) => "left",
            };
            format!("{} {} {fate}", item.verdict.word(), item.kind.word())
        })
        .collect();
    shown.sort();
    shown
}

async fn clean(config: &Config, dry_run: bool) -> Cleaned {
    cleaner::clean(config, Duration::from_secs(300), dry_run).await.unwrap().unwrap()
}

#[tokio::test]
async fn each_record_that_is_lost_is_written_again() {
    let mut world = World::new(&["a"], &[POOL]).await;
    let living = Living::launch(&world, &host(&world, "a")).await;
    let (identity, kept, address) = (&living.identity, living.kept(), living.address());
    assert_eq!(lacking(&world, identity, kept).await, Lacking::default());
    let before = world.dump().await;
    let block = before.keys().find(|key| key.contains("/assignment/")).unwrap().clone();
    let cidr =
        serde_json::from_str::<Value>(&before[&block]).unwrap()["cidr"].as_str().unwrap().parse().unwrap();
    let cases = [
        (vec!["/workloadendpoints/"], vec![Missing::Endpoint]),
        (vec!["/handle/"], vec![Missing::Handle]),
        (vec!["/ipam/v2/host/"], vec![Missing::Affinity(cidr)]),
        (vec!["/assignment/"], vec![Missing::Address(address), Missing::Block(cidr)]),
        (vec!["/profiles/"], vec![Missing::Profile("dev".into())]),
        (
            vec!["/workloadendpoints/", "/ipam/v2/", "/profiles/"],
            vec![
                Missing::Endpoint,
                Missing::Address(address),
                Missing::Block(cidr),
                Missing::Affinity(cidr),
                Missing::Handle,
                Missing::Profile("dev".into()),
            ],
        ),
    ];
    for (parts, missing) in cases {
        for part in &parts {
            lose(&mut world, part).await;
        }
        let wanted = Lacking { missing, conflicts: Vec::new() };
        assert_eq!(lacking(&world, identity, kept).await, wanted, "{parts:?}");
        assert_eq!(write_again(&world, identity, kept).await, wanted, "{parts:?}");
        assert_eq!(steady(&world.dump().await), steady(&before), "{parts:?}");
        assert_eq!(lacking(&world, identity, kept).await, Lacking::default(), "{parts:?}");
    }
    // The block is there and has forgotten the address, as in a snapshot from before the launch.
    let mut empty: Value = serde_json::from_str(&before[&block]).unwrap();
    for ordinal in empty["allocations"].as_array_mut().unwrap() {
        *ordinal = Value::Null;
    }
    world.put(&block, &empty.to_string()).await;
    let lost = write_again(&world, identity, kept).await;
    assert_eq!(lost.missing, [Missing::Address(address)]);
    let released = world.connect("a").await.release(identity).await.unwrap();
    assert_eq!(released.addresses, [address], "what was written again is released like any other");
}

#[tokio::test]
async fn an_address_that_something_else_holds_stays_with_its_holder() {
    let mut world = World::new(&["a", "b"], &[POOL]).await;
    let config = host(&world, "a");
    let living = Living::launch(&world, &config).await;
    lose(&mut world, "/workloadendpoints/").await;
    lose(&mut world, "/ipam/v2/").await;
    let other = task("b");
    world.launch(&other, &explicit(&living.address().to_string())).await.unwrap();
    let before = world.dump().await;
    for lacking in [
        lacking(&world, &living.identity, living.kept()).await,
        write_again(&world, &living.identity, living.kept()).await,
    ] {
        let [conflict] = &lacking.conflicts[..] else { panic!("{lacking:?}") };
        assert_eq!((conflict.address, conflict.holder.node.as_deref()), (living.address(), Some("b")));
        assert_eq!(conflict.holder.name, other.task_id);
    }
    let told = clean(&config, true).await;
    assert_eq!((shown(&told), told.work()), (vec!["conflict address untouched".to_owned()], 1));
    for _ in 0..2 {
        let cleaned = clean(&config, false).await;
        assert_eq!(shown(&cleaned), ["conflict address left"]);
        assert!(!cleaned.complete());
        assert_eq!((cleaned.figures.lost, cleaned.figures.conflicts), (1, 1));
        let why = &cleaned.items[0].0.why;
        assert!(why.contains(&living.identity.task_id) && why.contains(&other.task_id), "{why}");
    }
    assert_eq!(world.dump().await, before, "nothing is written for a task whose address is gone");
    // Both are named, once: a cleaner comes by every half minute.
    for log in ["audit/current", "gc/current"] {
        let text = std::fs::read_to_string(config.paths.log.join(log)).unwrap();
        let lines: Vec<&str> = text.lines().filter(|line| line.to_lowercase().contains("conflict")).collect();
        let [line] = lines[..] else { panic!("{text}") };
        assert!(line.contains(&living.identity.task_id) && line.contains(&other.task_id), "{line}");
    }
    // The other one ends: the task has its address back.
    world.connect("b").await.release(&other).await.unwrap();
    let cleaned = clean(&config, false).await;
    assert!(cleaned.complete() && cleaned.figures.conflicts == 0, "{cleaned:?}");
    assert_eq!(lacking(&world, &living.identity, living.kept()).await, Lacking::default());
}

#[tokio::test]
async fn a_pool_that_is_cut_anew_gets_no_overlapping_block() {
    for (size, taken) in [(28, true), (30, false)] {
        let mut world = World::new(&["a"], &[POOL]).await;
        let living = Living::launch(&world, &host(&world, "a")).await;
        lose(&mut world, "/ipam/v2/").await;
        world.pool("pool", &format!(r#"{{"cidr":"10.65.0.0/24","blockSize":{size}}}"#)).await;
        // Into the block of the new size that has the address, or its neighbour in the old block.
        let IpAddr::V4(address) = living.address() else { panic!() };
        let neighbour = IpAddr::from(std::net::Ipv4Addr::from(u32::from(address) ^ 4));
        world.launch(&task("a"), &explicit(&neighbour.to_string())).await.unwrap();
        let lost = write_again(&world, &living.identity, living.kept()).await;
        assert_eq!(lost.conflicts.is_empty(), taken, "{lost:?}");
        let blocks = world.ipam().await.into_keys().filter(|key| key.contains("/assignment/")).count();
        assert_eq!(blocks, 1, "/{size}");
        let missing = lacking(&world, &living.identity, living.kept()).await.is_nothing();
        assert_eq!(missing, taken, "/{size}");
    }
}

#[tokio::test]
async fn a_cleaner_writes_again_what_living_tasks_have_lost() {
    let mut world = World::new(&["a"], &[POOL]).await;
    let config = host(&world, "a");
    let mut tasks = Vec::new();
    // More keys than one transaction takes, and more than one block.
    for _ in 0..60 {
        tasks.push(Living::launch(&world, &config).await);
    }
    let before = world.dump().await;
    assert_eq!(clean(&config, false).await.items, []);
    lose(&mut world, "/workloadendpoints/").await;
    lose(&mut world, "/ipam/v2/").await;
    let told = clean(&config, true).await;
    assert!(told.work() > 180 && told.items.iter().all(|(item, _)| item.verdict == Verdict::Restore));
    assert_eq!(told.figures.lost, 60);
    assert!(world.ipam().await.is_empty(), "a dry run changes nothing");
    let cleaned = clean(&config, false).await;
    assert!(cleaned.complete() && cleaned.items.iter().all(|(_, fate)| *fate == Fate::Done), "{cleaned:?}");
    let keys = |dump: &Dump| dump.keys().cloned().collect::<Vec<_>>();
    let now = world.dump().await;
    assert_eq!(keys(&now), keys(&before));
    assert_eq!(clean(&config, false).await.items, []);
    let audit = std::fs::read_to_string(config.paths.log.join("audit/current")).unwrap();
    assert_eq!(audit.lines().filter(|line| line.contains("\"restored\"")).count(), 60);
}

#[tokio::test]
async fn an_allocation_of_a_task_that_is_no_more_gives_way_to_a_living_one() {
    let mut world = World::new(&["a"], &[POOL]).await;
    let config = host(&world, "a");
    let living = Living::launch(&world, &config).await;
    lose(&mut world, "/workloadendpoints/").await;
    lose(&mut world, "/ipam/v2/").await;
    // As a snapshot has it from before its end.
    let ghost = task("a");
    world.launch(&ghost, &explicit(&living.address().to_string())).await.unwrap();
    let cleaned = clean(&config, false).await;
    assert!(cleaned.complete() && cleaned.figures.conflicts == 0, "{cleaned:?}");
    assert_eq!(lacking(&world, &living.identity, living.kept()).await, Lacking::default());
    let dump = world.ipam().await;
    let of_ghost = |(key, value): (&String, &String)| {
        key.contains(&ghost.handle)
            || key.contains("workload") && !value.contains(&living.identity.uid)
            || value.contains(&ghost.handle)
    };
    assert!(!dump.iter().any(of_ghost), "{dump:#?}");
    assert_eq!(clean(&config, false).await.items, []);
}

/// The task ends while the cleaner's write is on its way: record and note are gone when it arrives.
#[tokio::test]
async fn what_is_written_behind_the_end_of_a_task_is_taken_back() {
    let mut world = World::new(&["a"], &[POOL]).await;
    let config = host(&world, "a");
    let living = Living::launch(&world, &config).await;
    lose(&mut world, "/workloadendpoints/").await;
    lose(&mut world, "/ipam/v2/").await;
    let proxy = Proxy::start(world.etcd.address()).await;
    let mut through = config.clone();
    through.etcd.endpoints = vec![proxy.endpoint.clone()];
    proxy.lose_write();
    let cleaner = tokio::spawn(async move { clean(&through, false).await });
    proxy.held().await;
    // Committed, and the cleaner has yet to hear of it. The executor releases, finds nothing more to do, and goes.
    let container = ContainerId::parse(&living.identity.container_id).unwrap();
    published::CommittedNote::of(&config, &container).forget();
    living.entry.finish().unwrap();
    cleaner.await.unwrap();
    let left: Vec<String> = world
        .ipam()
        .await
        .into_iter()
        .filter(|(key, value)| {
            key.contains("/handle/") || key.contains("/workloadendpoints/") || value.contains("handle_id")
        })
        .map(|(key, _)| key)
        .collect();
    assert_eq!(left, Vec::<String>::new());
}

#[tokio::test]
async fn an_address_that_a_task_of_this_host_has_is_not_written() {
    let mut world = World::new(&["a"], &[POOL]).await;
    let mut datastore = world.connect("a").await;
    let first = datastore.prepare(&task("a"), &auto()).await.unwrap();
    let likely = first.addresses[0];
    let held = || {
        let holder = Holder { name: "web.1".into(), app: Some("/web".into()), ..Holder::default() };
        Terms {
            hold: Box::new(move |addresses| {
                let held = addresses.iter().filter(|address| **address <= likely).copied();
                let held = held.map(|address| (address, holder.clone())).collect();
                Box::pin(async move { Ok(held) })
            }),
            ..Terms::default()
        }
    };
    let committed = datastore.commit(first, MAC, held()).await.unwrap();
    assert!(committed.addresses[0] > likely, "auto takes the next one");
    let identity = task("a");
    let named = datastore.prepare(&identity, &explicit(&likely.to_string())).await.unwrap();
    let before = world.dump().await;
    let failure = datastore.commit(named, MAC, held()).await.unwrap_err().failure();
    assert_eq!(failure.code, Code::IpTaken);
    assert!(failure.message.contains("web.1 (/web)"), "{}", failure.message);
    let unwritable = Terms {
        hold: Box::new(|_| Box::pin(async { Err(std::io::ErrorKind::ReadOnlyFilesystem.into()) })),
        ..Terms::default()
    };
    let prepared = datastore.prepare(&identity, &auto()).await.unwrap();
    assert_eq!(datastore.commit(prepared, MAC, unwritable).await.unwrap_err().failure().code, Code::Host);
    assert_eq!(world.dump().await, before, "nothing is written for an address that cannot be taken");
    let hint: PathBuf = world.config("a").paths.state.join("ipam-hint.json");
    assert!(hint.exists());
}
