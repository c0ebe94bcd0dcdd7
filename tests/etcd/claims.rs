//! How many blocks a host may have, and which ones it gives up.

use calico_mesos::calico::Datastore;
use calico_mesos::error::Code;

use crate::books::Books;
use crate::datastore::*;

fn spec(cidr: &str, rest: &str) -> String {
    format!(r#"{{"cidr":"{cidr}","blockSize":30{rest}}}"#)
}

/// The blocks of a host by its affinities, in order.
fn affinities(dump: &Dump, node: &str) -> Vec<String> {
    let prefix = format!("{IPAM}/host/{node}/ipv4/block/");
    dump.keys().filter_map(|key| key.strip_prefix(&prefix)).map(str::to_owned).collect()
}

#[tokio::test]
async fn blocks_of_pools_that_the_request_may_not_use_do_not_count() {
    let (old, new) = (spec("10.65.0.0/29", ""), spec("10.66.0.0/29", ""));
    let mut world = World::new(&["a"], &[("old", &old)]).await;
    let config = r#"{"auto_allocate_blocks":true,"maxBlocksPerHost":1}"#;
    world.put(&format!("{IPAM}/config"), config).await;
    for _ in 0..4 {
        world.launch(&task("a"), &auto()).await.unwrap();
    }
    let full = world.launch(&task("a"), &auto()).await.unwrap_err().failure();
    assert_eq!(full.code, Code::Exhausted);
    assert!(full.message.contains("all 1 blocks of this host are full"), "{}", full.message);
    // A pool that is switched off, with tasks of ours in it.
    world.pool("old", &spec("10.65.0.0/29", r#","disabled":true"#)).await;
    world.pool("new", &new).await;
    for _ in 0..4 {
        let address = world.launch(&task("a"), &auto()).await.unwrap().addresses[0];
        assert!(address.to_string().starts_with("10.66.0."), "{address}");
    }
    assert_eq!(world.launch(&task("a"), &auto()).await.unwrap_err().failure().code, Code::Exhausted);
    // A pool that limits.pools leaves out.
    world.pool("third", &spec("10.67.0.0/29", "")).await;
    let mut config = world.config("a");
    config.limits.pools = vec!["third".into()];
    let mut datastore = Datastore::connect(&config).await.unwrap();
    let prepared = datastore.prepare(&task("a"), &auto()).await.unwrap();
    assert!(prepared.addresses[0].to_string().starts_with("10.67.0."), "{:?}", prepared.addresses);
}

#[tokio::test]
async fn an_empty_block_of_a_pool_that_no_longer_selects_the_host_is_given_up() {
    let (here, other) = (spec("10.65.0.0/28", ""), spec("10.66.0.0/28", ""));
    let mut world = World::new(&["a", "b"], &[("here", &here), ("other", &other)]).await;
    // Two blocks there, one of them with a task, and one in the other pool.
    let tasks: Vec<_> = (0..5).map(|_| task("a")).collect();
    for task in &tasks {
        world.launch(task, &auto()).await.unwrap();
    }
    world.launch(&task("a"), &explicit("10.66.0.1")).await.unwrap();
    world.connect("a").await.release(&tasks[4]).await.unwrap();
    let before = affinities(&world.ipam().await, "a");
    assert_eq!(before.len(), 3, "{before:?}");
    world.pool("here", &spec("10.65.0.0/28", r#","nodeSelector":"host == 'b'""#)).await;
    let mut datastore = world.connect("a").await;
    let prepared = datastore.prepare(&task("a"), &auto()).await.unwrap();
    assert_eq!(datastore.requests(), 2, "one read more, once");
    let committed = datastore.commit(prepared, MAC, Default::default()).await.unwrap();
    assert!(committed.addresses[0].to_string().starts_with("10.66.0."));
    let dump = world.ipam().await;
    let after = affinities(&dump, "a");
    assert_eq!(after.len(), 2, "{after:?}");
    let blocks = Books::of(&dump);
    assert_eq!(blocks.blocks().len(), 2, "the block went with its affinity: {:?}", blocks.blocks());
    assert_eq!(blocks.addresses().len(), 6, "no task lost its address");
    // From then on a launch is one read and one write again, with the other block still there.
    let requests = world.transactions().await;
    world.launch(&task("a"), &auto()).await.unwrap();
    assert_eq!(world.transactions().await, requests + 2);
    // What the other block holds comes back one by one, and the block goes with the last one.
    for task in &tasks[..4] {
        world.connect("a").await.release(task).await.unwrap();
    }
    assert_eq!(affinities(&world.ipam().await, "a").len(), 1);
    // The host which the pool serves has all of it.
    for _ in 0..16 {
        let address = world.launch(&task("b"), &auto()).await.unwrap().addresses[0];
        assert!(address.to_string().starts_with("10.65.0."), "{address}");
    }
}

/// A label of the node, not the pool, has changed.
#[tokio::test]
async fn a_node_that_loses_its_label_gives_its_blocks_up() {
    let labelled = spec("10.65.0.0/28", r#","nodeSelector":"host == 'a'""#);
    let mut world = World::new(&["a"], &[("labelled", &labelled), ("rest", &spec("10.66.0.0/28", ""))]).await;
    let identity = task("a");
    world.launch(&identity, &auto()).await.unwrap();
    world.connect("a").await.release(&identity).await.unwrap();
    assert_eq!(affinities(&world.ipam().await, "a").len(), 1);
    world.put(&format!("{RESOURCES}/nodes/a"), r#"{"metadata":{"name":"a","labels":{}},"spec":{}}"#).await;
    world.launch(&task("a"), &auto()).await.unwrap();
    let left = affinities(&world.ipam().await, "a");
    assert!(left.len() == 1 && left[0].starts_with("10.66.0."), "{left:?}");
}
