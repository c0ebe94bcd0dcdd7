//! Figures of the pools, from what launches leave in a real etcd.

use calico_mesos::calico::PoolUsage;

use crate::datastore::*;

fn numbers(usage: &PoolUsage) -> [u128; 6] {
    let PoolUsage { allocated, reserved, free, affine_blocks, loose_blocks, free_blocks, .. } = *usage;
    [allocated, reserved, free, affine_blocks, loose_blocks, free_blocks]
}

#[tokio::test]
async fn addresses_and_blocks_of_every_pool_are_counted() {
    let pools = [
        ("a", r#"{"cidr":"10.65.0.0/26","blockSize":29}"#),
        ("six", r#"{"cidr":"fd00::/112"}"#),
        ("off", r#"{"cidr":"10.66.0.0/29","blockSize":29,"disabled":true}"#),
    ];
    let mut world = World::new(&["h1", "h2"], &pools).await;
    let reservation = r#"{"metadata":{"name":"r"},"spec":{"reservedCIDRs":["10.65.0.60/30","10.65.0.60"]}}"#;
    world.put(&format!("{RESOURCES}/ipreservations/r"), reservation).await;
    let tasks = [task("h1"), task("h1"), task("h2")];
    for task in &tasks {
        world.launch(task, &auto()).await.unwrap();
    }
    let mut datastore = world.connect("h1").await;
    let usage = datastore.usage().await.unwrap();
    // Pools, and a page of blocks of each family.
    assert_eq!(datastore.requests(), 3);
    let [a, off, six] = usage.try_into().unwrap();
    assert_eq!((a.name.as_str(), a.cidr.to_string().as_str(), a.enabled), ("a", "10.65.0.0/26", true));
    assert_eq!(numbers(&a), [3, 4, 57, 2, 0, 6]);
    assert_eq!(numbers(&six), [0, 0, 65_536, 0, 0, 1024]);
    assert_eq!((off.enabled, numbers(&off)), (false, [0, 0, 8, 0, 0, 1]));

    for task in &tasks {
        world.connect(&task.node).await.release(task).await.unwrap();
    }
    // The hosts keep their blocks.
    assert_eq!(numbers(&world.connect("h2").await.usage().await.unwrap()[0]), [0, 4, 60, 2, 0, 6]);
}
