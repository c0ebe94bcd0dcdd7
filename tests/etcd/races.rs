//! Many writers at once, and answers that never come.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use calico_mesos::calico::{CalicoError, Committed, Datastore, Identity, Pending, Settled, Terms};
use calico_mesos::error::Code;
use calico_mesos::names::ContainerId;
use calico_mesos::task::cleaner;
use calico_mesos::task::record::journal::{Journal, Record};
use calico_mesos::task::report::steps::Steps;
use calico_mesos::task::teardown::{self, Claim, Patience, Workload};
use serde_json::Value;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::datastore::*;
use crate::kit::faults::Freeze;
use crate::kit::wait::eventually;
use crate::proxy::Proxy;

const POOL: (&str, &str) = ("pool", r#"{"cidr":"10.65.0.0/25","blockSize":29}"#);

/// All tasks at once, each over a connection of its own.
async fn launch_all(world: &World, tasks: &[Identity]) -> Vec<Committed> {
    let mut set = JoinSet::new();
    for task in tasks.iter().cloned() {
        let config = world.config(&task.node);
        set.spawn(async move {
            let mut datastore = Datastore::connect(&config).await.unwrap();
            let prepared = datastore.prepare(&task, &auto()).await.unwrap();
            datastore.commit(prepared, MAC, Terms::default()).await.unwrap()
        });
    }
    set.join_all().await
}

/// An endpoint that names a profile which is not there would lose all its packets.
#[tokio::test]
async fn a_profile_that_goes_during_a_launch_is_made_again() {
    let mut world = World::new(&["a"], &[POOL]).await;
    let profile = format!("{RESOURCES}/profiles/dev");
    world.launch(&task("a"), &auto()).await.unwrap();
    let mut datastore = world.connect("a").await;
    let prepared = datastore.prepare(&task("a"), &auto()).await.unwrap();
    world.delete(&profile).await;
    let committed = datastore.commit(prepared, MAC, Terms::default()).await.unwrap();
    assert_eq!(committed.profiles_created, ["dev"]);
    assert!(world.dump().await.contains_key(&profile));
}

/// Addresses in use according to the blocks, with their handles; the books of every block are checked.
fn allocated(dump: &Dump) -> Vec<String> {
    let mut handles = Vec::new();
    for (key, value) in dump.iter().filter(|(key, _)| key.contains("/assignment/")) {
        let block: Value = serde_json::from_str(value).unwrap();
        let used: Vec<usize> = block["allocations"]
            .as_array()
            .unwrap()
            .iter()
            .filter_map(|n| Some(n.as_u64()? as usize))
            .collect();
        assert_eq!(used.len() + block["unallocated"].as_array().unwrap().len(), 8, "{key}");
        let attributes = block["attributes"].as_array().cloned().unwrap_or_default();
        assert_eq!(used.iter().collect::<BTreeSet<_>>().len(), attributes.len(), "{key}");
        handles.extend(used.iter().map(|n| attributes[*n]["handle_id"].as_str().unwrap().to_owned()));
    }
    handles.sort();
    handles
}

#[tokio::test]
async fn thirty_two_tasks_on_four_hosts_get_an_address_each() {
    let hosts = ["a", "b", "c", "d"];
    let mut world = World::new(&hosts, &[POOL]).await;
    let tasks: Vec<Identity> = (0..32).map(|n| task(hosts[n % 4])).collect();
    let committed = launch_all(&world, &tasks).await;
    let addresses: BTreeSet<IpAddr> = committed.iter().flat_map(|c| c.addresses.clone()).collect();
    assert_eq!(addresses.len(), 32);
    assert_eq!(committed.iter().filter(|c| !c.profiles_created.is_empty()).count(), 1);
    let dump = world.ipam().await;
    let mut handles: Vec<String> = tasks.iter().map(|task| task.handle.clone()).collect();
    handles.sort();
    assert_eq!(allocated(&dump), handles);
    assert_eq!(dump.keys().filter(|key| key.contains("/workloadendpoints/")).count(), 32);
    // Each host has one block of its own and borrowed nothing.
    assert_eq!(dump.keys().filter(|key| key.contains("/assignment/")).count(), 4);

    let mut set = JoinSet::new();
    for task in tasks {
        let config = world.config(&task.node);
        set.spawn(async move {
            let released = Datastore::connect(&config).await.unwrap().release(&task).await.unwrap();
            assert_eq!(released.addresses.len(), 1);
        });
    }
    set.join_all().await;
    let dump = world.ipam().await;
    assert!(allocated(&dump).is_empty());
    assert!(!dump.keys().any(|key| key.contains("/handle/") || key.contains("/workloadendpoints/")));
}

#[tokio::test]
async fn one_address_goes_to_one_of_two_tasks() {
    let mut world = World::new(&["a", "b"], &[POOL]).await;
    let (one, other) = (task("a"), task("b"));
    let wanted = explicit("10.65.0.9");
    let (mut left, mut right) = (world.connect("a").await, world.connect("b").await);
    let prepared = left.prepare(&one, &wanted).await.unwrap();
    let late = right.prepare(&other, &wanted).await.unwrap();
    left.commit(prepared, MAC, Terms::default()).await.unwrap();
    let error = right.commit(late, MAC, Terms::default()).await.unwrap_err();
    assert!(error.is_held() && error.failure().message.contains(&one.task_id), "{error}");
    assert_eq!(allocated(&world.ipam().await), [one.handle]);
}

#[tokio::test]
async fn what_a_choice_rests_on_is_watched_until_the_write() {
    let mut world = World::new(&["a"], &[POOL]).await;
    world.launch(&task("a"), &auto()).await.unwrap();
    let block = world.launch(&task("a"), &auto()).await.unwrap().addresses[0];
    let reserved = format!(r#"{{"metadata":{{}},"spec":{{"reservedCIDRs":["{block}/29"]}}}}"#);
    for (key, value, code) in [
        ("ipreservations/new", reserved.as_str(), None),
        (
            "ippools/pool",
            r#"{"metadata":{},"spec":{"cidr":"10.65.0.0/25","blockSize":29,"disabled":true}}"#,
            Some(Code::NoPool),
        ),
        ("nodes/a", "", Some(Code::NoNode)),
        (
            "clusterinformations/default",
            r#"{"metadata":{},"spec":{"datastoreReady":false}}"#,
            Some(Code::NotReady),
        ),
    ] {
        let identity = task("a");
        let mut datastore = world.connect("a").await;
        let prepared = datastore.prepare(&identity, &auto()).await.unwrap();
        let likely = prepared.addresses.clone();
        let key = format!("{RESOURCES}/{key}");
        let before = world.dump().await.get(&key).cloned();
        match value {
            "" => world.delete(&key).await,
            value => world.put(&key, value).await,
        }
        match (datastore.commit(prepared, MAC, Terms::default()).await, code) {
            (Ok(committed), None) => assert_ne!(committed.addresses, likely, "{key}"),
            (Err(error), Some(code)) => assert_eq!(error.failure().code, code, "{key}"),
            (result, _) => panic!("{key}: {result:?}"),
        }
        if let Some(before) = before {
            world.put(&key, &before).await;
        }
    }
}

#[tokio::test]
async fn a_lost_answer_is_looked_up() {
    let mut world = World::new(&["a"], &[POOL]).await;
    let proxy = Proxy::start(world.etcd.address()).await;
    let mut config = world.config("a");
    config.etcd.endpoints = vec![proxy.endpoint.clone()];
    let identity = task("a");
    let mut datastore = Datastore::connect(&config).await.unwrap();
    let prepared = datastore.prepare(&identity, &auto()).await.unwrap();
    proxy.mute();
    let commit = tokio::spawn(async move { datastore.commit(prepared, MAC, Terms::default()).await });
    eventually("etcd has carried the write out", async || !allocated(&world.ipam().await).is_empty()).await;
    proxy.cut();
    let committed = commit.await.unwrap().unwrap();
    assert_eq!(committed.addresses.len(), 1);
    assert_eq!(allocated(&world.ipam().await), vec![identity.handle.clone()]);

    // The same with the release: what the lost write has released is reported by the attempt that follows it.
    let mut datastore = Datastore::connect(&config).await.unwrap();
    proxy.lose_write();
    let released = datastore.release(&identity).await.unwrap();
    assert_eq!((released.addresses, released.endpoint, released.handle), (committed.addresses, true, true));
    // The second read is spared where the launch's look left a hint of its block.
    let requests = datastore.requests();
    assert!((3..=4).contains(&requests), "{requests}: reads, the write, and a look at what became of it");
    let dump = world.ipam().await;
    assert!(allocated(&dump).is_empty());
    let left: Vec<&String> = dump.keys().filter(|key| !key.contains("/ipv4/block/")).collect();
    assert!(left.is_empty(), "neither handle nor endpoint: {left:?}");
}

#[tokio::test]
async fn a_write_that_comes_late_is_fenced() {
    for claimed in [false, true] {
        let mut world = World::new(&["a"], &[POOL]).await;
        if claimed {
            world.launch(&task("a"), &auto()).await.unwrap();
        }
        let proxy = Proxy::start(world.etcd.address()).await;
        let mut config = world.config("a");
        config.etcd.endpoints = vec![proxy.endpoint.clone()];
        let identity = task("a");
        let mut datastore = Datastore::connect(&config).await.unwrap();
        let prepared = datastore.prepare(&identity, &auto()).await.unwrap();
        proxy.hold();
        let commit = tokio::spawn(async move { datastore.commit(prepared, MAC, Terms::default()).await });
        proxy.held().await;
        // The commit goes on over a new connection and succeeds; the held write then changes nothing.
        let committed = commit.await.unwrap().unwrap();
        let (before, answered) = (world.dump().await, world.transactions().await);
        proxy.deliver().await;
        assert_eq!(world.transactions().await, answered + 1, "the late write reached etcd");
        assert_eq!(world.dump().await, before);
        assert_eq!(allocated(&before).iter().filter(|handle| **handle == identity.handle).count(), 1);
        world.connect("a").await.release(&identity).await.unwrap();
        assert!(!allocated(&world.ipam().await).contains(&identity.handle), "{committed:?}");
    }
}

#[tokio::test]
async fn an_etcd_that_stops_answering_leaves_it_open_until_settled() {
    let mut world = World::new(&["a"], &[POOL]).await;
    let identity = task("a");
    let mut datastore = world.connect("a").await;
    let prepared = datastore.prepare(&identity, &auto()).await.unwrap();
    world.etcd.freeze();
    let error = datastore.commit(prepared, MAC, Terms::default()).await.unwrap_err();
    let CalicoError::Lost { pending, .. } = &error else { panic!("{error:?}") };
    assert_eq!(error.failure().code, Code::Etcd);
    let pending: Pending = serde_json::from_str(&serde_json::to_string(pending).unwrap()).unwrap();
    world.etcd.thaw();
    let mut datastore = world.connect("a").await;
    let settled = datastore.settle(&identity, &pending).await.unwrap();
    let handles = allocated(&world.ipam().await);
    match &settled {
        Settled::Committed(addresses) => {
            assert_eq!((addresses.len(), handles), (1, vec![identity.handle.clone()]))
        }
        Settled::Fenced => assert!(handles.is_empty()),
    }
    // Asked again it says the same.
    assert_eq!(datastore.settle(&identity, &pending).await.unwrap(), settled);
}

/// The record of a task whose container is none of Docker's.
fn record(identity: &Identity) -> Record {
    Record {
        framework: "fw-0".into(),
        ..Record::new(ContainerId::parse(&identity.container_id).unwrap(), identity.clone())
    }
}

#[tokio::test]
async fn a_teardown_rules_out_the_write_whose_answer_is_lost() {
    let mut world = World::new(&["a"], &[POOL]).await;
    let identity = task("a");
    let mut datastore = world.connect("a").await;
    let prepared = datastore.prepare(&identity, &auto()).await.unwrap();
    world.etcd.freeze();
    let error = datastore.commit(prepared, MAC, Terms::default()).await.unwrap_err();
    let CalicoError::Lost { pending, .. } = error else { panic!("{error:?}") };
    let mut config = world.config("a");
    config.paths.run = world.dir.path().join("run");
    let record = record(&identity);
    let claim = Claim::Lost(pending);
    let steps = Steps::begin(&config, &record.identity.task_id);
    let give_back = |claim: Claim| {
        teardown::give_back(&record, &config, Workload::Exited, claim, Patience::BEFORE_UPDATE, &steps)
    };
    let report = give_back(claim.clone()).await;
    assert!(!report.complete(), "the record must stay while nobody knows: {report:?}");
    world.etcd.thaw();
    let report = give_back(claim).await;
    assert!(report.complete(), "{report:?}");
    // Long enough for a late write to arrive, which must not.
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(allocated(&world.ipam().await), Vec::<String>::new());
}

/// As when a release takes longer than the executor waits for it.
#[tokio::test]
async fn an_address_whose_release_nobody_heard_of_is_told_once() {
    let world = World::new(&["a"], &[POOL]).await;
    let (config, identity) = (world.config("a"), task("a"));
    let journal = Journal::open(&config.paths.journal()).unwrap();
    let entry = journal.begin(record(&identity)).unwrap();
    let committed = world.launch(&identity, &auto()).await.unwrap();
    entry.given(&committed.addresses);
    entry.leave_word();
    world.connect("a").await.release(&identity).await.unwrap();
    drop(entry);
    for _ in 0..2 {
        cleaner::sweep(&config).await.unwrap();
    }
    assert!(journal.is_empty());
    let trail = std::fs::read_to_string(config.paths.log.join("audit/current")).unwrap();
    let [line] = trail.lines().collect::<Vec<_>>().try_into().unwrap();
    let line: Value = serde_json::from_str(line).unwrap();
    assert_eq!(line["address"], committed.addresses[0].to_string());
    assert_eq!((&line["event"], &line["task"]), (&"returned".into(), &identity.task_id.clone().into()));
}

#[tokio::test]
async fn a_write_that_commits_after_its_writer_died_is_ruled_out_by_the_cleaner() {
    let mut world = World::new(&["a"], &[POOL]).await;
    let proxy = Proxy::start(world.etcd.address()).await;
    let mut config = world.config("a");
    config.etcd.endpoints = vec![proxy.endpoint.clone()];
    let identity = task("a");
    let journal = Journal::open(&config.paths.journal()).unwrap();
    let entry = journal.begin(record(&identity)).unwrap();
    let mut datastore = Datastore::connect(&config).await.unwrap();
    let prepared = datastore.prepare(&identity, &auto()).await.unwrap();
    proxy.hold();
    let commit = tokio::spawn(async move {
        let terms = Terms { note: Box::new(|pending| entry.expect(pending)), ..Terms::default() };
        datastore.commit(prepared, MAC, terms).await
    });
    proxy.close();
    proxy.held().await;
    // With the writer goes the lock on its record.
    commit.abort();
    assert!(commit.await.unwrap_err().is_cancelled());
    assert_eq!(allocated(&world.ipam().await), Vec::<String>::new());

    let mut cleaner = world.config("a");
    cleaner.paths.run = world.dir.path().join("run");
    cleaner::sweep(&cleaner).await.unwrap();
    let answered = world.transactions().await;
    proxy.deliver().await;
    assert_eq!(world.transactions().await, answered + 1, "the late write reached etcd");
    assert_eq!(allocated(&world.ipam().await), Vec::<String>::new());
    assert!(journal.is_empty());
}

#[tokio::test]
async fn an_etcd_that_restarts_between_read_and_write_is_waited_for() {
    let mut world = World::new(&["a"], &[POOL]).await;
    let identity = task("a");
    let mut datastore = world.connect("a").await;
    let prepared = datastore.prepare(&identity, &auto()).await.unwrap();
    world.etcd.kill();
    let sent = Arc::new(Notify::new());
    let word = sent.clone();
    let commit = tokio::spawn(async move {
        let note = move |_: &Pending| {
            word.notify_one();
            Ok(())
        };
        let terms = Terms { patience: Duration::from_secs(60), note: Box::new(note), ..Terms::default() };
        datastore.commit(prepared, MAC, terms).await
    });
    sent.notified().await;
    world.etcd.restart().await.unwrap();
    assert_eq!(commit.await.unwrap().unwrap().addresses.len(), 1);
    assert_eq!(allocated(&world.ipam().await), vec![identity.handle.clone()]);
}

#[tokio::test]
async fn a_kill_ends_that_waiting() {
    let mut world = World::new(&["a"], &[POOL]).await;
    let mut datastore = world.connect("a").await;
    let prepared = datastore.prepare(&task("a"), &auto()).await.unwrap();
    world.etcd.kill();
    let (give_up, sent) = (CancellationToken::new(), Arc::new(Notify::new()));
    let word = sent.clone();
    let note = move |_: &Pending| {
        word.notify_one();
        Ok(())
    };
    let terms = Terms {
        patience: Duration::from_secs(3600),
        give_up: give_up.clone(),
        note: Box::new(note),
        ..Terms::default()
    };
    let commit = tokio::spawn(async move { datastore.commit(prepared, MAC, terms).await });
    sent.notified().await;
    assert!(!commit.is_finished());
    give_up.cancel();
    assert!(matches!(commit.await.unwrap(), Err(CalicoError::Lost { .. })));
}

#[tokio::test]
async fn what_cannot_be_noted_is_not_sent() {
    let mut world = World::new(&["a"], &[POOL]).await;
    let mut datastore = world.connect("a").await;
    let prepared = datastore.prepare(&task("a"), &auto()).await.unwrap();
    let full = |_: &Pending| Err(std::io::Error::from(std::io::ErrorKind::StorageFull));
    let error = datastore
        .commit(prepared, MAC, Terms { note: Box::new(full), ..Terms::default() })
        .await
        .unwrap_err();
    assert_eq!(error.failure().code, Code::Journal);
    assert!(error.failure().message.contains("no storage space"), "{}", error.failure().message);
    assert_eq!(allocated(&world.ipam().await), Vec::<String>::new());
}
