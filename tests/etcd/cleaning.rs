//! What cleaners see of a node in the datastore, and what they may take away.

use std::time::{Duration, Instant};

use calico_mesos::calico::Identity;
use calico_mesos::config::{Config, Orphans};
use calico_mesos::names::ContainerId;
use calico_mesos::task::cleaner::{self, DecommissionError, DecommissionTerms, Fate, ItemKind, Verdict};
use calico_mesos::task::record::journal::{Journal, Owner};
use serde_json::{json, Value};

use crate::datastore::*;

const POOL: (&str, &str) = ("pool", r#"{"cidr":"10.65.0.0/24","blockSize":29}"#);

/// Of a host that has nothing but Calico: its own folders, no Docker, no Consul.
fn host(world: &World, node: &str) -> Config {
    let mut config = world.config(node);
    config.paths.run = world.dir.path().join(format!("run-{node}"));
    config.docker.host = Some(format!("unix://{}", world.dir.path().join("docker").display()));
    config.consul.enabled = false;
    config
}

/// Things of others in and around a task's block, as they stand in etcd.
async fn foreign(world: &mut World, node: &str) {
    let endpoint = |name: &str, spec: Value| {
        let value = json!({
            "kind": "WorkloadEndpoint", "apiVersion": "projectcalico.org/v3",
            "metadata": {"name": name, "namespace": "default", "creationTimestamp": "2020-01-01T00:00:00Z"},
            "spec": spec
        });
        (format!("{RESOURCES}/workloadendpoints/default/{name}"), value.to_string())
    };
    let others = [
        endpoint(
            &format!("{node}-libnetwork-libnetwork-abc"),
            json!({"orchestrator": "libnetwork", "node": node, "endpoint": "abc", "ipNetworks": ["10.66.0.250/32"]}),
        ),
        endpoint(
            &format!("{node}-mesos-legacy-eth0"),
            json!({"orchestrator": "mesos", "workload": "legacy", "node": node, "endpoint": "eth0",
                "containerID": "5f3cbe1e-77aa-4d1b-8b0e-0c1f2a3b4c5d", "ipNetworks": ["10.66.0.251/32"]}),
        ),
        endpoint(
            &format!("{node}--1-mesos-x-eth0"),
            json!({"orchestrator": "mesos", "node": format!("{node}-1")}),
        ),
    ];
    for (key, value) in others {
        world.put(&key, &value).await;
    }
    // Into the node's block: a tunnel's address, one of the hand-made endpoint, and one of another node.
    let dump = world.ipam().await;
    let affinity = format!("\"host:{node}\"");
    let its = dump.iter().filter(|(_, value)| value.contains(&affinity));
    let mut blocks = its.map(|(key, text)| (key, serde_json::from_str::<Value>(text).unwrap()));
    let (key, mut block) =
        blocks.find(|(_, block)| block["unallocated"].as_array().unwrap().len() > 2).unwrap();
    let held = [
        json!({"handle_id": format!("vxlan-tunnel-addr-{node}"), "secondary": {"node": node, "type": "vxlanTunnelAddress"}}),
        json!({"handle_id": "mesos.legacy", "secondary": {"node": node}}),
        json!({"handle_id": "mesos.5f3cbe1e-77aa-4d1b-8b0e-0c1f2a3b4c5d",
            "secondary": {"mesos-app": "a", "mesos-task": "b", "node": "elsewhere"}}),
    ];
    for attribute in held {
        let ordinal = block["unallocated"].as_array_mut().unwrap().pop().unwrap().as_u64().unwrap() as usize;
        let attributes = block["attributes"].as_array_mut().unwrap();
        attributes.push(attribute);
        block["allocations"][ordinal] = json!(attributes.len() - 1);
    }
    world.put(key, &block.to_string()).await;
}

/// What is left when ours is gone: the others' endpoints byte for byte, and their addresses.
async fn of_others(world: &mut World) -> Vec<String> {
    let mut left = Vec::new();
    for (key, value) in world.ipam().await {
        if key.contains("/workloadendpoints/") {
            left.push(format!("{key} = {value}"));
        } else if key.contains("/assignment/") {
            let block: Value = serde_json::from_str(&value).unwrap();
            for (ordinal, index) in block["allocations"].as_array().unwrap().iter().enumerate() {
                if let Some(index) = index.as_u64() {
                    left.push(format!("{key} {ordinal} {}", block["attributes"][index as usize]));
                }
            }
        }
    }
    left.retain(|line| !line.contains("prod"));
    left
}

fn keys_of<'a>(dump: &'a Dump, identity: &Identity) -> Vec<&'a String> {
    let its = |(key, value): &(&String, &String)| {
        key.contains(&identity.container_id.replace('-', "--"))
            || key.contains(&identity.handle)
            || value.contains(&identity.handle)
    };
    dump.iter().filter(its).map(|(key, _)| key).collect()
}

#[tokio::test]
async fn a_node_is_seen_with_its_own_things_alone() {
    let mut world = World::new(&["a", "a-1"], &[POOL]).await;
    let (ours, theirs) = (task("a"), task("a-1"));
    let address = world.launch(&ours, &auto()).await.unwrap().addresses[0];
    world.launch(&theirs, &auto()).await.unwrap();
    foreign(&mut world, "a").await;
    let inventory = world.connect("a").await.inventory("a", &[]).await.unwrap();
    let containers = inventory.endpoints.iter().filter_map(|seen| seen.container.as_ref());
    let containers: Vec<_> = containers.map(|container| container.as_str()).collect();
    assert_eq!(containers, [ours.container_id.as_str()]);
    assert_eq!(inventory.endpoints.len(), 3, "ours, libnetwork's and the hand-made one: {inventory:#?}");
    assert_eq!(inventory.blocks.len(), 1);
    let of_tasks = inventory.allocations.iter().filter(|allocation| allocation.container().is_some());
    let of_tasks: Vec<_> =
        of_tasks.map(|allocation| (allocation.address, allocation.node.as_deref())).collect();
    assert_eq!(of_tasks.len(), 2, "{of_tasks:?}");
    assert!(of_tasks.contains(&(address, Some("a"))), "{of_tasks:?}");
    assert!(inventory.allocations.iter().any(|its| its.calicos_own() == Some("vxlanTunnelAddress")));
}

#[tokio::test]
async fn a_block_that_cannot_be_read_is_named_and_stays() {
    let mut world = World::new(&["a", "b"], &[POOL]).await;
    world.launch(&task("a"), &auto()).await.unwrap();
    let block = world.ipam().await.into_keys().find(|key| key.contains("/assignment/")).unwrap();
    world.put(&block, "{\"cidr\":").await;
    let cleaned = cleaner::clean(&host(&world, "a"), Duration::ZERO, false).await.unwrap().unwrap();
    let terms = DecommissionTerms { grace: Duration::ZERO, dead: true, dry_run: false };
    let done = cleaner::decommission(&host(&world, "b"), "a", terms).await.unwrap();
    for items in [&cleaned.items, &done.items] {
        let [(item, fate)] =
            &items.iter().filter(|(item, _)| item.kind == ItemKind::Block).collect::<Vec<_>>()[..]
        else {
            panic!("{items:#?}")
        };
        assert_eq!((item.verdict, fate), (Verdict::Keep, &Fate::Untouched));
        assert!(item.why.contains("its content cannot be read"), "{item:?}");
    }
    assert_eq!(world.ipam().await[&block], "{\"cidr\":");
}

/// More than what is taken from etcd in one answer.
#[tokio::test]
async fn blocks_of_the_largest_size() {
    let mut world = World::new(&["a", "b"], &[POOL]).await;
    for number in 0..80 {
        let name = format!("10.{number}.0.0-20");
        world.put(&format!("{IPAM}/assignment/ipv4/block/{name}"), &" ".repeat(1_000_000)).await;
        world.put(&format!("{IPAM}/host/a/ipv4/block/{name}"), "{}").await;
    }
    let mut datastore = world.connect("b").await;
    assert_eq!(datastore.inventory("a", &[]).await.unwrap().unreadable.len(), 80);
    assert_eq!(datastore.whole_inventory("a").await.unwrap().unreadable.len(), 80);
    datastore.usage().await.unwrap();
}

#[tokio::test]
async fn what_has_changed_since_it_was_seen_is_left_alone() {
    let mut world = World::new(&["a"], &[POOL]).await;
    let identity = task("a");
    world.launch(&identity, &auto()).await.unwrap();
    let mut datastore = world.connect("a").await;
    let seen = datastore.inventory("a", &[]).await.unwrap().endpoints.remove(0);
    let before = world.ipam().await;
    // An operator puts a label on it.
    let (key, text) = before.iter().find(|(key, _)| key.contains("/workloadendpoints/")).unwrap();
    world.put(key, &text.replacen("\"labels\":{", "\"labels\":{\"a\":\"b\",", 1)).await;
    let labelled = world.ipam().await;
    assert_eq!(datastore.release_as_seen(&identity, seen.revision, &[]).await.unwrap(), None);
    assert_eq!(datastore.release_as_seen(&identity, 0, &[]).await.unwrap(), None, "there is one");
    assert_eq!(world.ipam().await, labelled);
    let seen = datastore.inventory("a", &[]).await.unwrap().endpoints.remove(0);
    let released = datastore.release_as_seen(&identity, seen.revision, &[]).await.unwrap().unwrap();
    assert!(released.endpoint && released.handle && released.addresses.len() == 1, "{released:?}");
    // Gone already: nothing left to do, and nothing that has changed.
    assert_eq!(datastore.release_as_seen(&identity, 0, &[]).await.unwrap(), Some(Default::default()));
    assert_eq!(keys_of(&world.ipam().await, &identity), Vec::<&String>::new());
}

#[tokio::test]
async fn an_address_without_its_endpoint_is_given_back() {
    let mut world = World::new(&["a"], &[POOL]).await;
    let identity = task("a");
    let address = world.launch(&identity, &auto()).await.unwrap().addresses[0];
    foreign(&mut world, "a").await;
    let endpoint = world.ipam().await.into_keys().find(|key| key.contains("prod--web")).unwrap();
    world.delete(&endpoint).await;
    let mut datastore = world.connect("a").await;
    let released = datastore.release_as_seen(&identity, 0, &[]).await.unwrap().unwrap();
    assert_eq!((released.addresses, released.endpoint, released.handle), (vec![address], false, true));
}

/// A host whose cleaner can ask all that it has to.
fn without_docker(world: &World, node: &str) -> Config {
    let mut config = host(world, node);
    config.docker.host = None;
    Journal::open(&config.paths.journal()).unwrap();
    config
}

/// How many blocks, endpoints and profiles name the task.
async fn held(world: &mut World, identity: &Identity) -> usize {
    world.ipam().await.values().filter(|text| text.contains(&identity.handle)).count()
}

/// The address in another host's block is all that is left of a task whose handle and endpoint were deleted.
#[tokio::test]
async fn an_address_in_another_hosts_block_is_no_leak() {
    let mut world = World::new(&["a", "b"], &[POOL]).await;
    let neighbour = task("a");
    world.launch(&neighbour, &auto()).await.unwrap();
    let block = world.connect("a").await.inventory("a", &[]).await.unwrap().blocks[0];
    let mut borrowed = block.hosts().skip(3).map(|address| address.to_string());
    let (lost, named) = (task("b"), task("b"));
    for identity in [&lost, &named] {
        world.launch(identity, &explicit(&borrowed.next().unwrap())).await.unwrap();
    }
    foreign(&mut world, "a").await;
    for key in world.ipam().await.into_keys() {
        let its = |identity: &Identity| key.contains(&identity.container_id.replace('-', "--"));
        if its(&lost) || its(&named) || key.ends_with(&lost.handle) {
            world.delete(&key).await;
        }
    }
    let theirs = of_others(&mut world).await;
    let (mut config, mut owner) = (without_docker(&world, "b"), without_docker(&world, "a"));
    let released = |cleaned: cleaner::Cleaned, fate: Fate| {
        let its = cleaned.items.iter().filter(|(item, is)| item.kind == ItemKind::Address && *is == fate);
        its.map(|(item, _)| (item.verdict, item.container.is_some())).collect::<Vec<_>>()
    };
    // Seen by the look at all blocks and, from then on, by each.
    for _ in 0..2 {
        let cleaned = cleaner::clean(&config, Duration::ZERO, false).await.unwrap().unwrap();
        assert!(cleaned.silent.is_empty(), "{:?}", cleaned.silent);
        assert_eq!(cleaned.figures.leaks, 2, "{:#?}", cleaned.items);
        assert_eq!(released(cleaned, Fate::Untouched), [(Verdict::Report, true), (Verdict::Report, true)]);
    }
    config.gc.orphans = Orphans::Remove;
    let young = cleaner::clean(&config, Duration::from_secs(300), false).await.unwrap().unwrap();
    assert_eq!(released(young, Fate::Untouched), [(Verdict::Keep, true), (Verdict::Keep, true)]);
    // The cleaner of the block's owner goes by the node as well.
    owner.gc.orphans = Orphans::Remove;
    cleaner::clean(&owner, Duration::ZERO, false).await.unwrap().unwrap();
    assert_eq!(held(&mut world, &neighbour).await, 0);
    assert!(held(&mut world, &lost).await == 1 && held(&mut world, &named).await == 1);

    let cleaned = cleaner::clean(&config, Duration::ZERO, false).await.unwrap().unwrap();
    assert_eq!(released(cleaned, Fate::Done), [(Verdict::Release, true), (Verdict::Release, true)]);
    assert!(held(&mut world, &lost).await == 0 && held(&mut world, &named).await == 0);
    assert_eq!(of_others(&mut world).await, theirs);
}

#[tokio::test]
async fn decommission_refuses_this_host_unknown_and_living_nodes() {
    let mut world = World::new(&["a", "b"], &[POOL]).await;
    world.launch(&task("b"), &auto()).await.unwrap();
    let before = world.dump().await;
    let config = host(&world, "a");
    let terms = DecommissionTerms { grace: Duration::from_secs(300), dead: false, dry_run: false };
    let refused = |node| cleaner::decommission(&config, node, terms);
    assert!(matches!(refused("a").await, Err(DecommissionError::ThisHost(_))));
    for unknown in ["B", "b-1", "", "../b"] {
        assert!(matches!(refused(unknown).await, Err(DecommissionError::Unknown(_))), "{unknown}");
    }
    let Err(DecommissionError::Alive { signs, .. }) = refused("b").await else { panic!("not alive") };
    assert!(signs[0].contains("an endpoint of it was made"), "{signs:?}");
    let dry =
        cleaner::decommission(&config, "b", DecommissionTerms { dry_run: true, ..terms }).await.unwrap();
    assert!(!dry.signs.is_empty() && dry.items.iter().any(|(item, _)| item.verdict == Verdict::Release));
    assert_eq!(world.dump().await, before);
    // Felix reports for as long as it lives.
    world.put("/calico/felix/v2/no-region/host/b/status", "{}").await;
    let Err(DecommissionError::Alive { signs, .. }) =
        cleaner::decommission(&config, "b", DecommissionTerms { grace: Duration::ZERO, ..terms }).await
    else {
        panic!("not alive")
    };
    assert!(signs[0].contains("Felix"), "{signs:?}");
}

#[tokio::test]
async fn a_host_that_was_renamed_does_not_give_up_its_own_tasks() {
    let world = World::new(&["a", "b"], &[POOL]).await;
    let identity = task("b");
    world.launch(&identity, &auto()).await.unwrap();
    let config = host(&world, "a");
    let container = ContainerId::parse(&identity.container_id).unwrap();
    let journal = Journal::open(&config.paths.journal()).unwrap();
    let record = json!({
        "format": 1, "container": container, "container_name": "", "docker": null, "framework": "",
        "identity": identity, "services": [], "local": false, "owner": Owner::current(), "written": ""
    });
    let _owned = journal.begin(serde_json::from_value(record).unwrap()).unwrap();
    let terms = DecommissionTerms { grace: Duration::ZERO, dead: false, dry_run: false };
    let Err(DecommissionError::Alive { signs, .. }) = cleaner::decommission(&config, "b", terms).await else {
        panic!("not alive")
    };
    assert!(signs[0].contains("lives on this host"), "{signs:?}");
}

#[tokio::test]
async fn a_dead_node_gives_back_all_that_is_ours() {
    let mut world = World::new(&["a", "b"], &[POOL]).await;
    let kept = task("a");
    world.launch(&kept, &auto()).await.unwrap();
    let gone: Vec<Identity> = (0..10).map(|_| task("b")).collect();
    for identity in &gone {
        world.launch(identity, &auto()).await.unwrap();
    }
    // In a block of the other node.
    let borrower = task("b");
    let others = world.connect("a").await.inventory("a", &[]).await.unwrap().blocks[0];
    let address = others.hosts().nth(3).unwrap().to_string();
    world.launch(&borrower, &explicit(&address)).await.unwrap();
    foreign(&mut world, "b").await;
    let theirs = of_others(&mut world).await;
    assert!(theirs.len() >= 6, "{theirs:#?}");

    let terms = DecommissionTerms { grace: Duration::ZERO, dead: false, dry_run: false };
    let done = cleaner::decommission(&host(&world, "a"), "b", terms).await.unwrap();
    let left: Vec<_> = done.items.iter().filter(|(_, fate)| matches!(fate, Fate::Left(_))).collect();
    assert!(left.is_empty(), "{left:#?}");
    let dump = world.ipam().await;
    for identity in gone.iter().chain([&borrower]) {
        assert_eq!(keys_of(&dump, identity), Vec::<&String>::new(), "{identity:?}");
    }
    let trail = host(&world, "a").paths.log.join("audit/current");
    let trail = std::fs::read_to_string(trail).unwrap();
    let told = trail.lines().filter(|line| line.contains("returned") && line.contains(r#""by":"gc""#));
    assert_eq!(told.count(), gone.len() + 1, "{trail}");
    assert_eq!(of_others(&mut world).await, theirs);
    assert!(!keys_of(&dump, &kept).is_empty());
    // Ten addresses were two blocks: the one with others' addresses in it stays the node's.
    let blocks = |node: &str| dump.keys().filter(|key| key.contains(&format!("/host/{node}/"))).count();
    assert_eq!((blocks("a"), blocks("b")), (1, 1), "{dump:#?}");
    let again = cleaner::decommission(&host(&world, "a"), "b", terms).await.unwrap();
    assert!(!again.items.iter().any(|(item, _)| item.verdict.is_work()), "{again:#?}");
}

/// Prints how long it takes; so many are seen and told within moments, and go one transaction a task.
#[tokio::test]
async fn ten_thousand_orphaned_endpoints_are_planned_and_removed() {
    let mut world = World::new(&["a", "b"], &[("pool", r#"{"cidr":"10.64.0.0/16","blockSize":26}"#)]).await;
    let template = task("a");
    world.launch(&template, &auto()).await.unwrap();
    populate(&mut world, &template, 10_000).await;
    let mut config = host(&world, "a");
    config.gc.orphans = Orphans::Remove;
    let begun = Instant::now();
    let cleaned = cleaner::clean(&config, Duration::ZERO, true).await.unwrap().unwrap();
    println!("10,000 endpoints: surveyed and planned in {:?}", begun.elapsed());
    let endpoints = cleaned.items.iter().filter(|(item, _)| item.kind == ItemKind::Endpoint).count();
    let addresses = cleaned.items.iter().filter(|(item, _)| item.kind == ItemKind::Address).count();
    assert_eq!((endpoints, addresses), (10_000, 10_000));
    // The Docker of this host does not answer.
    assert!(cleaned.items.iter().all(|(item, _)| item.verdict == Verdict::Keep));

    let begun = Instant::now();
    let terms = DecommissionTerms { grace: Duration::ZERO, dead: true, dry_run: true };
    let done = cleaner::decommission(&host(&world, "b"), "a", terms).await.unwrap();
    println!("10,000 endpoints: a node's end planned in {:?}", begun.elapsed());
    assert_eq!(done.items.iter().filter(|(item, _)| item.verdict.is_work()).count(), 20_157);
}

/// As many tasks as `count`, all like one that was launched, 64 a block.
async fn populate(world: &mut World, template: &Identity, count: usize) {
    let dump = world.ipam().await;
    let endpoint = dump.iter().find(|(key, _)| key.contains("/workloadendpoints/")).unwrap();
    let block = dump.iter().find(|(key, _)| key.contains("/assignment/")).unwrap();
    for key in dump.keys() {
        if key.contains(&template.handle) || key == endpoint.0 || key == block.0 || key.contains("/host/") {
            world.delete(key).await;
        }
    }
    let block: Value = serde_json::from_str(block.1).unwrap();
    let attribute = block["attributes"][0].clone();
    let mut puts = Vec::new();
    for number in 0..count.div_ceil(64) {
        let cidr = format!("10.64.{}.{}/26", number / 4, number % 4 * 64);
        let mut block = block.clone();
        let mut attributes = Vec::new();
        for ordinal in 0..64.min(count - number * 64) {
            let identity = task(&template.node);
            let address = format!("10.64.{}.{}", number / 4, number % 4 * 64 + ordinal);
            let renamed = |text: &str| {
                text.replace(
                    &template.container_id.replace('-', "--"),
                    &identity.container_id.replace('-', "--"),
                )
                .replace(&template.container_id, &identity.container_id)
                .replace(&template.interface, &identity.interface)
            };
            let mut value: Value = serde_json::from_str(&renamed(endpoint.1)).unwrap();
            value["spec"]["ipNetworks"] = json!([format!("{address}/32")]);
            puts.push((renamed(endpoint.0), value.to_string()));
            attributes.push(serde_json::from_str::<Value>(&renamed(&attribute.to_string())).unwrap());
            let handle = json!({"block": {cidr.as_str(): 1}, "deleted": false}).to_string();
            puts.push((format!("{IPAM}/handle/{}", identity.handle), handle));
        }
        let used = attributes.len();
        block["cidr"] = json!(cidr);
        block["allocations"] =
            (0..64).map(|ordinal| (ordinal < used).then_some(ordinal)).collect::<Vec<_>>().into();
        block["unallocated"] = (used..64).collect::<Vec<_>>().into();
        block["attributes"] = attributes.into();
        let dashed = cidr.replace('/', "-");
        puts.push((format!("{IPAM}/assignment/ipv4/block/{dashed}"), block.to_string()));
        let affinity = json!({"state": "confirmed", "deleted": false}).to_string();
        puts.push((format!("{IPAM}/host/{}/ipv4/block/{dashed}", template.node), affinity));
    }
    for batch in puts.chunks(100) {
        let put =
            |(key, value): &(String, String)| etcd_client::TxnOp::put(key.as_str(), value.as_str(), None);
        let txn = etcd_client::Txn::new().and_then(batch.iter().map(put).collect::<Vec<_>>());
        world.raw.txn(txn).await.unwrap();
    }
}
