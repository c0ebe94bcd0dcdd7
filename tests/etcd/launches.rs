//! What a launch and a release leave in the datastore.

use calico_mesos::calico::{AddressRequest, Family, NamedPort, Terms};
use calico_mesos::error::Code;
use serde_json::Value;

use crate::datastore::*;

const POOL: (&str, &str) = ("pool", r#"{"cidr":"10.65.0.0/24","blockSize":29}"#);

#[tokio::test]
async fn a_launch_is_one_read_and_one_write() {
    let mut world = World::new(&["agent-1"], &[POOL]).await;
    let before = world.ipam().await;
    let first = task("agent-1");
    world.launch(&first, &auto()).await.unwrap();

    let second = task("agent-1");
    let earlier = world.transactions().await;
    let mut datastore = world.connect("agent-1").await;
    let prepared = datastore.prepare(&second, &auto()).await.unwrap();
    assert_eq!(datastore.requests(), 1);
    let likely = prepared.addresses.clone();
    let committed = datastore.commit(prepared, MAC, Terms::default()).await.unwrap();
    assert_eq!(datastore.requests(), 2);
    assert_eq!(world.transactions().await, earlier + 2, "as etcd counts");
    assert_eq!(committed.addresses, likely);
    assert!(committed.profiles_created.is_empty());
    assert_eq!(committed.pools, ["10.65.0.0/24".parse().unwrap()]);

    let mut datastore = world.connect("agent-1").await;
    let released = datastore.release(&second).await.unwrap();
    assert_eq!(datastore.requests(), 2);
    assert_eq!((released.addresses, released.endpoint, released.handle), (likely, true, true));
    world.connect("agent-1").await.release(&first).await.unwrap();
    // What stays is what Calico leaves too: the host's empty block and its affinity.
    let after = world.ipam().await;
    let new: Vec<&String> = after.keys().filter(|key| !before.contains_key(*key)).collect();
    assert_eq!(new.len(), 2, "{new:?}");
    assert!(
        new[0].contains("/assignment/ipv4/block/10.65.0.") && new[1].contains("/host/agent-1/ipv4/block/")
    );
}

#[tokio::test]
async fn the_endpoint_is_complete() {
    let mut world = World::new(&["agent-1"], &[POOL]).await;
    let identity = task("agent-1");
    let mut wanted = auto();
    wanted.labels = [
        ("team/name".to_owned(), "a b".to_owned()),
        ("projectcalico.org/namespace".to_owned(), "evil".to_owned()),
    ]
    .into();
    wanted.ports = vec![NamedPort { name: "http".into(), protocol: "tcp".into(), port: 8080 }];
    let committed = world.launch(&identity, &wanted).await.unwrap();
    assert_eq!(committed.profiles_created, ["dev"]);
    let dump = world.dump().await;
    let name = format!("agent--1-mesos-{}-eth0", identity.workload.replace('-', "--"));
    let text = &dump[&format!("{RESOURCES}/workloadendpoints/default/{name}")];
    let value: Value = serde_json::from_str(text).unwrap();
    let created = value["metadata"]["creationTimestamp"].as_str().unwrap();
    let expected = format!(
        concat!(
            r#"{{"kind":"WorkloadEndpoint","apiVersion":"projectcalico.org/v3","metadata":{{"name":"{name}","namespace":"default","uid":"{uid}","#,
            r#""creationTimestamp":"{created}","labels":{{"projectcalico.org/namespace":"default","projectcalico.org/orchestrator":"mesos","team.name":"a-b"}},"#,
            r#""annotations":{{"mesos.apache.org/app-id":"/prod/web","mesos.apache.org/task-id":"{task}"}}}},"#,
            r#""spec":{{"orchestrator":"mesos","workload":"{workload}","node":"agent-1","containerID":"{container}","endpoint":"eth0","#,
            r#""ipNetworks":["{address}/32"],"profiles":["dev"],"interfaceName":"{interface}","mac":"{mac}","#,
            r#""ports":[{{"name":"http","protocol":"TCP","port":8080}}]}}}}"#
        ),
        name = name,
        uid = identity.uid,
        created = created,
        task = identity.task_id,
        workload = identity.workload,
        container = identity.container_id,
        address = committed.addresses[0],
        interface = identity.interface,
        mac = MAC,
    );
    assert_eq!(*text, expected);
    let mut datastore = world.connect("agent-1").await;
    let listed = datastore.list_endpoints("agent-1").await.unwrap();
    assert_eq!(listed.len(), 1);
    assert_eq!(
        (listed[0].uid.as_deref(), &listed[0].addresses),
        (Some(identity.uid.as_str()), &committed.addresses)
    );
    assert!(datastore.list_endpoints("agent").await.unwrap().is_empty());
}

#[tokio::test]
async fn both_families_or_none() {
    let six = ("six", r#"{"cidr":"fd00:65::/120","blockSize":126}"#);
    let mut world = World::new(&["a"], &[POOL, six]).await;
    let both = wants(&[AddressRequest::Auto(Family::V6), AddressRequest::Auto(Family::V4)]);
    let identity = task("a");
    let committed = world.launch(&identity, &both).await.unwrap();
    assert_eq!(committed.addresses.iter().map(|a| a.is_ipv6()).collect::<Vec<_>>(), [true, false]);
    let second = task("a");
    let mut datastore = world.connect("a").await;
    let prepared = datastore.prepare(&second, &both).await.unwrap();
    datastore.commit(prepared, MAC, Terms::default()).await.unwrap();
    assert_eq!(datastore.requests(), 2, "the hint covers both families");
    datastore.release(&second).await.unwrap();
    datastore.release(&identity).await.unwrap();

    world.pool("six", r#"{"cidr":"fd00:65::/120","blockSize":126,"disabled":true}"#).await;
    let before = world.dump().await;
    let error = world.launch(&task("a"), &both).await.unwrap_err();
    assert_eq!(error.failure().code, Code::NoPool);
    assert_eq!(world.dump().await, before);
}

#[tokio::test]
async fn the_same_task_again_keeps_its_address() {
    let mut world = World::new(&["a"], &[POOL]).await;
    let identity = task("a");
    let first = world.launch(&identity, &auto()).await.unwrap();
    let before = world.ipam().await;
    let again = world.launch(&identity, &auto()).await.unwrap();
    assert_eq!(first.addresses, again.addresses);
    assert_eq!(world.ipam().await, before);
    let foreign = calico_mesos::calico::Identity { uid: task("a").uid, ..identity.clone() };
    assert_eq!(world.launch(&foreign, &auto()).await.unwrap_err().failure().code, Code::Endpoint);
    // Another one's endpoint stays, whatever we release.
    let mut datastore = world.connect("a").await;
    assert!(!datastore.release(&foreign).await.unwrap().endpoint);
    assert!(world.ipam().await.keys().any(|key| key.contains("workloadendpoints")));
    assert!(datastore.release(&identity).await.unwrap().endpoint);
}

#[tokio::test]
async fn release_can_be_repeated_and_needs_no_handle() {
    let mut world = World::new(&["a"], &[POOL]).await;
    let identity = task("a");
    let address = world.launch(&identity, &auto()).await.unwrap().addresses;
    world.delete(&format!("{IPAM}/handle/{}", identity.handle)).await;
    world
        .delete(&format!(
            "{RESOURCES}/workloadendpoints/default/a-mesos-{}-eth0",
            identity.workload.replace('-', "--")
        ))
        .await;
    let mut datastore = world.connect("a").await;
    let released = datastore.release(&identity).await.unwrap();
    assert_eq!((released.addresses, released.endpoint, released.handle), (address, false, false));
    for _ in 0..2 {
        assert_eq!(datastore.release(&identity).await.unwrap(), Default::default());
    }
}

#[tokio::test]
async fn profiles_are_made_once_and_never_changed() {
    let mut world = World::new(&["a"], &[POOL]).await;
    let key = format!("{RESOURCES}/profiles/mine");
    world.put(&key, "whatever an operator wrote").await;
    let mut wanted = auto();
    wanted.profiles = ["mine", "new", "projectcalico-default-allow", "new"].map(String::from).into();
    let committed = world.launch(&task("a"), &wanted).await.unwrap();
    assert_eq!(committed.profiles_created, ["new"]);
    let dump = world.dump().await;
    assert_eq!(dump[&key], "whatever an operator wrote");
    assert!(!dump.contains_key(&format!("{RESOURCES}/profiles/projectcalico-default-allow")));
    assert!(
        dump[&format!("{RESOURCES}/profiles/new")].contains(r#""labelsToApply":{"mesos-profile/new":""}"#)
    );
}

#[tokio::test]
async fn a_local_cluster_is_made_only_where_nothing_is() {
    let mut world = World::empty().await;
    let mut datastore = world.connect("laptop").await;
    let pools = ["192.168.0.0/16".parse().unwrap(), "fd00::/64".parse().unwrap()];
    let made = datastore.initialise_local("laptop", &pools).await.unwrap();
    assert!(made.cluster && made.node);
    assert_eq!(made.pools, ["mesos-192-168-0-0-16", "mesos-fd00---64"]);
    let before = world.dump().await;
    let again = datastore.initialise_local("laptop", &["10.0.0.0/8".parse().unwrap()]).await.unwrap();
    assert_eq!(again.pools, Vec::<String>::new());
    assert_eq!(again.all_pools.len(), 2);
    assert_eq!(world.dump().await, before);
    let address = world.launch(&task("laptop"), &auto()).await.unwrap().addresses[0];
    assert!(address.to_string().starts_with("192.168."));
}

/// Every block of the pool belongs to another host: what was found out once is not looked for again.
#[tokio::test]
async fn a_host_that_borrows_needs_one_read_and_one_write() {
    let mut world = World::new(&["a", "b"], &[("small", r#"{"cidr":"10.65.0.0/26","blockSize":28}"#)]).await;
    // Sixteen addresses a block: the fifth of each four tasks claims the next one.
    let mut tasks = Vec::new();
    for _ in 0..49 {
        tasks.push(task("b"));
        world.launch(&tasks[tasks.len() - 1], &auto()).await.unwrap();
    }
    let requests = async |world: &World| {
        let mut datastore = world.connect("a").await;
        let prepared = datastore.prepare(&task("a"), &auto()).await.unwrap();
        let address = datastore.commit(prepared, MAC, Terms::default()).await.unwrap().addresses[0];
        (datastore.requests(), address)
    };
    let (first, _) = requests(&world).await;
    assert!(first > 2, "the names of all blocks, and the blocks, are read once");
    for _ in 0..5 {
        assert_eq!(requests(&world).await.0, 2);
    }
    // A block that becomes free is claimed, and no address is borrowed any longer.
    for identity in &tasks[..16] {
        world.connect("b").await.release(identity).await.unwrap();
    }
    let freed =
        world.dump().await.into_iter().find(|(key, value)| {
            key.starts_with(&format!("{IPAM}/assignment/")) && !value.contains("handle_id")
        });
    let (key, _) = freed.expect("sixteen tasks had a block of their own");
    let cidr = key.rsplit('/').next().unwrap().to_owned();
    world.delete(&key).await;
    world.delete(&format!("{IPAM}/host/b/ipv4/block/{cidr}")).await;
    let (_, address) = requests(&world).await;
    let claimed: ipnet::IpNet = cidr.replace('-', "/").parse().unwrap();
    assert!(claimed.contains(&address), "{address} is not in {claimed}");
    assert!(world.dump().await.contains_key(&format!("{IPAM}/host/a/ipv4/block/{cidr}")));
}

/// A full block is followed by one that is known to have room.
#[tokio::test]
async fn a_host_whose_blocks_are_nearly_full_reads_them_once() {
    let world = World::new(&["a"], &[("small", r#"{"cidr":"10.65.0.0/24","blockSize":29}"#)]).await;
    let mut tasks = Vec::new();
    for _ in 0..160 {
        tasks.push(task("a"));
        world.launch(&tasks[tasks.len() - 1], &auto()).await.unwrap();
    }
    // One address comes back in each of the twenty blocks.
    for identity in tasks.iter().step_by(8) {
        world.connect("a").await.release(identity).await.unwrap();
    }
    let mut requests = Vec::new();
    for _ in 0..20 {
        let mut datastore = world.connect("a").await;
        let prepared = datastore.prepare(&task("a"), &auto()).await.unwrap();
        datastore.commit(prepared, MAC, Terms::default()).await.unwrap();
        requests.push(datastore.requests());
    }
    let further: u64 = requests.iter().map(|count| count - 2).sum();
    assert!(further <= 1, "{requests:?}");
}
