//! Pools made again with another block size, pools inside each other, and blocks that overlap: no address goes to two
//! tasks, and no block is made over another one.

use calico_mesos::calico::{CalicoError, Datastore, Terms};
use calico_mesos::error::Code;
use serde_json::{json, Value};

use crate::books::Books;
use crate::datastore::*;

/// What a pool is made again as: its first and its second block size, and its network.
const CUTS: [(&str, u8, u8); 4] = [
    ("10.65.0.0/22", 26, 28),
    ("10.65.0.0/22", 26, 24),
    ("fd00:65::/118", 122, 124),
    ("fd00:65::/118", 122, 120),
];

/// Deletes the pool and makes it again, as an operator does with calicoctl.
async fn cut(world: &mut World, name: &str, cidr: &str, size: u8) {
    world.delete(&format!("{RESOURCES}/ippools/{name}")).await;
    world.pool(name, &format!(r#"{{"cidr":"{cidr}","blockSize":{size}}}"#)).await;
}

fn asked(cidr: &str) -> calico_mesos::calico::Wanted {
    if cidr.contains(':') {
        six()
    } else {
        auto()
    }
}

/// A block as another program makes it, with the first so many addresses in use.
async fn foreign(world: &mut World, cidr: &str, node: &str, used: usize) {
    let net: ipnet::IpNet = cidr.parse().unwrap();
    let size = 1_usize << (net.max_prefix_len() - net.prefix_len());
    let family = if net.addr().is_ipv4() { "ipv4" } else { "ipv6" };
    let allocations: Vec<Value> = (0..size).map(|n| if n < used { json!(0) } else { Value::Null }).collect();
    let attributes = json!([{"handle_id": format!("k8s.{node}"), "secondary": {"node": node}}]);
    let block = json!({
        "cidr": cidr, "affinity": format!("host:{node}"), "allocations": allocations,
        "unallocated": (used..size).collect::<Vec<_>>(), "attributes": if used > 0 { attributes } else { json!([]) },
        "sequenceNumber": 7, "sequenceNumberForAllocation": {}, "deleted": false
    });
    let dashed = cidr.replace('/', "-");
    world.put(&format!("{IPAM}/assignment/{family}/block/{dashed}"), &block.to_string()).await;
    let affinity = r#"{"state":"confirmed","deleted":false}"#;
    world.put(&format!("{IPAM}/host/{node}/{family}/block/{dashed}"), affinity).await;
}

#[tokio::test]
async fn a_pool_made_again_with_another_block_size_gives_no_address_twice() {
    for (cidr, before, after) in CUTS {
        let spec = format!(r#"{{"cidr":"{cidr}","blockSize":{before}}}"#);
        let mut world = World::new(&["a", "b", "c"], &[("pool", &spec)]).await;
        let wanted = asked(cidr);
        let mut held = Vec::new();
        for node in ["a", "a", "b"] {
            held.extend(world.launch(&task(node), &wanted).await.unwrap().addresses);
        }
        cut(&mut world, "pool", cidr, after).await;
        // Each address that a living task holds is refused everywhere, also on its own host.
        for (address, node) in held.iter().flat_map(|address| [(address, "a"), (address, "c")]) {
            let error = world.launch(&task(node), &explicit(&address.to_string())).await.unwrap_err();
            assert_eq!(error.failure().code, Code::IpTaken, "{cidr} {before}-{after}: {error}");
            let holder = world.connect("c").await.holder_of(*address).await.unwrap();
            assert_eq!(holder.unwrap().app.as_deref(), Some("/prod/web"));
        }
        let mut got = held.clone();
        for node in ["c", "b", "a"].into_iter().cycle().take(60) {
            got.extend(world.launch(&task(node), &wanted).await.unwrap().addresses);
        }
        let books = Books::of(&world.ipam().await);
        assert_eq!(books.addresses().len(), got.len(), "{cidr} {before}-{after}");
        books.assert_no_overlap();
    }
}

#[tokio::test]
async fn pools_inside_each_other_give_no_address_twice() {
    for inner_first in [false, true] {
        let outer = ("outer", r#"{"cidr":"10.65.0.0/24","blockSize":26}"#);
        let inner = ("inner", r#"{"cidr":"10.65.0.0/25","blockSize":29}"#);
        let (first, second) = if inner_first { (inner, outer) } else { (outer, inner) };
        let mut world = World::new(&["a", "b"], &[first]).await;
        world.launch(&task("a"), &explicit("10.65.0.5")).await.unwrap();
        world.pool(second.0, second.1).await;
        let refused = world.launch(&task("b"), &explicit("10.65.0.5")).await.unwrap_err();
        assert!(refused.is_held(), "{refused}");
        for node in ["b", "a"].into_iter().cycle().take(200) {
            world.launch(&task(node), &auto()).await.unwrap();
        }
        let books = Books::of(&world.ipam().await);
        assert_eq!(books.addresses().len(), 201);
        books.assert_no_overlap();
    }
}

/// Calico's own programs look for a block under its pool's present size alone, and make one over ours.
#[tokio::test]
async fn addresses_of_blocks_that_others_made_over_ours_are_left_out() {
    for (spec, foreign_blocks) in [
        (r#"{"cidr":"10.65.0.0/26","blockSize":28}"#, ["10.65.0.0/28", "10.65.0.16/28", "10.65.0.32/28"]),
        (r#"{"cidr":"10.65.0.0/24","blockSize":24}"#, ["10.65.0.0/24", "10.65.1.0/24", "10.65.2.0/24"]),
    ] {
        let mut world =
            World::new(&["a", "b"], &[("pool", r#"{"cidr":"10.65.0.0/26","blockSize":26}"#)]).await;
        let ours = task("a");
        world.launch(&ours, &explicit("10.65.0.1")).await.unwrap();
        world.pool("pool", spec).await;
        world.connect("a").await.release(&ours).await.unwrap();
        for cidr in foreign_blocks {
            foreign(&mut world, cidr, "b", 9).await;
        }
        let mut got = Vec::new();
        let error = loop {
            match world.launch(&task("a"), &auto()).await {
                Ok(committed) => got.extend(committed.addresses),
                Err(error) => break error,
            }
        };
        assert_eq!(error.failure().code, Code::Exhausted, "{error}");
        let books = Books::of(&world.ipam().await);
        assert!(got.len() > 20 && got.iter().all(|address| books.holders(*address).len() == 1), "{got:?}");
    }
}

/// A block that cannot be read may hold any of its addresses.
#[tokio::test]
async fn addresses_in_a_block_that_cannot_be_read_are_left_out() {
    let mut world = World::new(&["a"], &[("pool", r#"{"cidr":"10.65.0.0/29","blockSize":29}"#)]).await;
    world.launch(&task("a"), &explicit("10.65.0.7")).await.unwrap();
    world.put(&format!("{IPAM}/assignment/ipv4/block/10.65.0.0-30"), "{\"cidr\":").await;
    // The pools change, so that the host looks around its block again.
    world.pool("other", r#"{"cidr":"10.66.0.0/29","blockSize":29,"disabled":true}"#).await;
    for expected in ["10.65.0.4", "10.65.0.5", "10.65.0.6"] {
        assert_eq!(world.launch(&task("a"), &auto()).await.unwrap().addresses, [ip(expected)]);
    }
    assert_eq!(world.launch(&task("a"), &auto()).await.unwrap_err().failure().code, Code::Exhausted);
    let error = world.launch(&task("a"), &explicit("10.65.0.2")).await.unwrap_err();
    assert!(error.failure().message.contains("10.65.0.0-30"), "{error}");
}

/// As in the moment between read and write.
#[tokio::test]
async fn a_block_made_over_ours_before_the_write_is_noticed() {
    let pool = ("pool", r#"{"cidr":"10.65.0.0/24","blockSize":26}"#);
    for (claimed, wanted) in [(false, auto()), (false, explicit("10.65.0.3")), (true, explicit("10.65.0.3"))]
    {
        for made in ["10.65.0.0/24", "10.65.0.0/28"] {
            let mut world = World::new(&["a", "b"], &[pool]).await;
            if claimed {
                world.launch(&task("b"), &explicit("10.65.0.60")).await.unwrap();
            }
            let mut datastore = world.connect("a").await;
            let prepared = datastore.prepare(&task("a"), &wanted).await.unwrap();
            let address = prepared.addresses[0];
            let first = match (made, wanted == auto()) {
                // Where the automatic one would have its new block.
                ("10.65.0.0/28", true) => format!("{}/28", block_of(address, 28)),
                _ => made.to_owned(),
            };
            foreign(&mut world, &first, "b", if made.ends_with("24") { 256 } else { 16 }).await;
            let result = datastore.commit(prepared, MAC, Terms::default()).await;
            match (result, made.ends_with("24") || wanted != auto()) {
                (Err(error), true) => {
                    assert!(
                        [Code::IpTaken, Code::Exhausted].contains(&error.failure().code),
                        "{made}: {error}"
                    );
                }
                (Ok(committed), false) => assert_ne!(committed.addresses[0], address),
                (result, _) => panic!("{made}, {wanted:?}: {result:?}"),
            }
            let books = Books::of(&world.ipam().await);
            assert!(
                books.holders(address).iter().all(|holder| holder == "k8s.b"),
                "{:?}",
                books.holders(address)
            );
        }
    }
}

fn block_of(address: std::net::IpAddr, length: u8) -> std::net::IpAddr {
    ipnet::IpNet::new(address, length).unwrap().network()
}

/// What an ordinary launch costs stays: one read and one write. Blocks around the own one are looked for once after
/// the pools have changed.
#[tokio::test]
async fn overlaps_are_looked_for_once_after_pools_changed() {
    async fn requests(world: &World, wanted: &calico_mesos::calico::Wanted) -> u64 {
        let before = world.transactions().await;
        world.launch(&task("a"), wanted).await.unwrap();
        world.transactions().await - before
    }
    let mut world = World::new(&["a"], &[("pool", r#"{"cidr":"10.65.0.0/24","blockSize":28}"#)]).await;
    // All names of blocks are read for the first block, which is known to be alone from then on.
    assert_eq!(requests(&world, &auto()).await, 3);
    assert_eq!(requests(&world, &auto()).await, 2);
    for changed in [r#"{"cidr":"10.66.0.0/24","disabled":true}"#, r#"{"cidr":"10.66.0.0/24","blockSize":27}"#]
    {
        world.pool("zzz", changed).await;
        assert_eq!([requests(&world, &auto()).await, requests(&world, &auto()).await], [3, 2]);
    }
    world.delete(&format!("{RESOURCES}/ippools/zzz")).await;
    assert_eq!([requests(&world, &auto()).await, requests(&world, &auto()).await], [3, 2]);
    // Addresses that are given: all sizes are read at once, in a block that is there and in a new one.
    assert_eq!(requests(&world, &explicit("10.65.0.200")).await, 2);
    assert_eq!(requests(&world, &explicit("10.65.0.201")).await, 2);
    assert_eq!(requests(&world, &auto()).await, 2);
    // A host whose block is of an older size looks around it each time.
    cut(&mut world, "pool", "10.65.0.0/24", 26).await;
    assert_eq!([requests(&world, &auto()).await, requests(&world, &auto()).await], [3, 3]);
}

#[tokio::test]
async fn a_wrong_hint_does_no_harm() {
    let mut world = World::new(&["a", "b"], &[("pool", r#"{"cidr":"10.65.0.0/24","blockSize":26}"#)]).await;
    let committed = world.launch(&task("a"), &explicit("10.65.0.1")).await.unwrap();
    let path = world.dir.path().join("a/ipam-hint.json");
    let hint: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    assert_eq!(hint["a"]["blocks"], json!(["10.65.0.0/26"]), "{committed:?}");
    cut(&mut world, "pool", "10.65.0.0/24", 28).await;
    foreign(&mut world, "10.65.0.0/28", "b", 16).await;
    let everything = json!(["10.65.0.0/26", "10.65.0.0/28", "10.65.0.16/28", "10.65.0.0/24"]);
    let wrong = [
        "garbage".to_owned(),
        // As the release before writes it.
        json!({"a": everything}).to_string(),
        json!({"a": {"blocks": everything, "mark": hint["a"]["mark"], "revision": 1, "alone": everything}}).to_string(),
        json!({"a": {"blocks": everything, "mark": "", "revision": 0, "alone": everything}}).to_string(),
        json!({"a": {"blocks": everything, "mark": hint["a"]["mark"], "revision": i64::MAX, "alone": everything}}).to_string(),
    ];
    for text in wrong {
        std::fs::write(&path, &text).unwrap();
        let address = world.launch(&task("a"), &auto()).await.unwrap().addresses[0];
        assert_eq!(Books::of(&world.ipam().await).holders(address).len(), 1, "{text}");
    }
}

#[tokio::test]
async fn a_release_finds_the_address_in_a_block_of_another_size() {
    for (cidr, before, after) in CUTS {
        let spec = format!(r#"{{"cidr":"{cidr}","blockSize":{before}}}"#);
        let mut world = World::new(&["a", "b"], &[("pool", &spec)]).await;
        let owner = task("b");
        let near = world.launch(&owner, &asked(cidr)).await.unwrap().addresses[0];
        // In a block of another host, and nothing but the endpoint tells where.
        let mut borrowed = near;
        let identity = task("a");
        for address in
            ipnet::IpNet::new(near, before).unwrap().hosts().filter(|address| *address != near).take(1)
        {
            borrowed = world.launch(&identity, &explicit(&address.to_string())).await.unwrap().addresses[0];
        }
        world.delete(&format!("{IPAM}/handle/{}", identity.handle)).await;
        cut(&mut world, "pool", cidr, after).await;
        let mut datastore = world.connect("a").await;
        let released = datastore.release(&identity).await.unwrap();
        assert_eq!(
            (released.addresses, released.endpoint),
            (vec![borrowed], true),
            "{cidr} {before}-{after}"
        );
        let before_release = world.transactions().await;
        let released = world.connect("b").await.release(&owner).await.unwrap();
        assert_eq!((released.addresses, released.handle), (vec![near], true));
        assert_eq!(world.transactions().await, before_release + 2);
        assert!(Books::of(&world.ipam().await).addresses().is_empty());
    }
}

/// No block of the present size has room, but smaller ones beside those of the older size do.
#[tokio::test]
async fn what_older_blocks_leave_of_a_place_is_used() {
    let mut world = World::new(&["a", "b"], &[("pool", r#"{"cidr":"10.65.0.0/24","blockSize":26}"#)]).await;
    world.put(&format!("{IPAM}/config"), r#"{"strict_affinity":true,"auto_allocate_blocks":true}"#).await;
    world.launch(&task("b"), &auto()).await.unwrap();
    cut(&mut world, "pool", "10.65.0.0/24", 24).await;
    let taken = world.connect("b").await.inventory("b", &[]).await.unwrap().blocks[0];
    let address = world.launch(&task("a"), &auto()).await.unwrap().addresses[0];
    assert!(!taken.contains(&address));
    // The same around an address that is given.
    let mut free = (0..=255_u8).map(|last| ip(&format!("10.65.0.{last}")));
    let books = Books::of(&world.ipam().await);
    let given = free.rfind(|address| !books.blocks().iter().any(|block| block.contains(address))).unwrap();
    assert_eq!(world.launch(&task("a"), &explicit(&given.to_string())).await.unwrap().addresses, [given]);
    let books = Books::of(&world.ipam().await);
    books.assert_no_overlap();
    assert_eq!(books.addresses().len(), 3);
}

#[tokio::test]
async fn fencing_makes_no_block() {
    let mut world = World::new(&["a", "b"], &[("pool", r#"{"cidr":"10.65.0.0/24","blockSize":26}"#)]).await;
    let identity = task("a");
    let mut datastore = world.connect("a").await;
    let pending = lose(&mut datastore, &identity, &auto()).await;
    assert_eq!(datastore.settle(&identity, &pending).await.unwrap(), calico_mesos::calico::Settled::Fenced);
    let dump = world.ipam().await;
    assert!(Books::of(&dump).blocks().is_empty(), "{dump:#?}");
    assert!(dump.contains_key(&format!("{IPAM}/handle/{}", identity.handle)), "{dump:#?}");
    let affinities: Vec<_> = dump.iter().filter(|(key, _)| key.contains("/host/a/")).collect();
    assert_eq!(affinities.len(), 1);
    assert!(affinities[0].1.contains("pending"), "no host advertises it: {affinities:?}");
    datastore.release(&identity).await.unwrap();
    assert!(!world.ipam().await.keys().any(|key| key.contains("/handle/")));
    // The next launch claims that block; where another program was there first, in another size, it takes another one.
    let place = affinities[0].0.rsplit('/').next().unwrap().rsplit_once('-').unwrap().0.to_owned();
    foreign(&mut world, &format!("{place}/28"), "b", 16).await;
    let address = world.launch(&task("a"), &auto()).await.unwrap().addresses[0];
    let books = Books::of(&world.ipam().await);
    books.assert_no_overlap();
    assert_eq!(books.holders(address).len(), 1);
    assert!(!world.ipam().await.contains_key(affinities[0].0), "the affinity without a block is gone");
}

/// A write that is noted and never sent.
async fn lose(
    datastore: &mut Datastore,
    identity: &calico_mesos::calico::Identity,
    wanted: &calico_mesos::calico::Wanted,
) -> calico_mesos::calico::Pending {
    let noted = std::sync::Mutex::new(None);
    let note = |pending: &calico_mesos::calico::Pending| {
        *noted.lock().unwrap() = Some(pending.clone());
        Err(std::io::ErrorKind::Other.into())
    };
    let prepared = datastore.prepare(identity, wanted).await.unwrap();
    let terms = Terms { note: Box::new(note), ..Terms::default() };
    let error = datastore.commit(prepared, MAC, terms).await.unwrap_err();
    assert!(matches!(error, CalicoError::Unnoted(_)), "{error}");
    noted.into_inner().unwrap().unwrap()
}

#[tokio::test]
async fn usage_and_decommission_see_blocks_of_every_size() {
    let mut world =
        World::new(&["a", "b", "c"], &[("pool", r#"{"cidr":"10.65.0.0/24","blockSize":26}"#)]).await;
    let identity = task("b");
    world.launch(&identity, &explicit("10.65.0.1")).await.unwrap();
    cut(&mut world, "pool", "10.65.0.0/24", 28).await;
    foreign(&mut world, "10.65.0.0/28", "c", 3).await;
    let usage = world.connect("a").await.usage().await.unwrap();
    // .1 is in both.
    assert_eq!((usage[0].allocated, usage[0].free), (3, 253));
    assert_eq!((usage[0].affine_blocks, usage[0].free_blocks), (2, 12));
    // What the other host's block holds does not keep this one.
    world.connect("b").await.release(&identity).await.unwrap();
    let mut config = world.config("a");
    config.paths.run = world.dir.path().join("run");
    config.consul.enabled = false;
    let terms = calico_mesos::task::cleaner::DecommissionTerms {
        grace: std::time::Duration::ZERO,
        dead: true,
        dry_run: false,
    };
    calico_mesos::task::cleaner::decommission(&config, "b", terms).await.unwrap();
    let books = Books::of(&world.ipam().await);
    assert_eq!(books.blocks(), ["10.65.0.0/28".parse().unwrap()]);
    assert_eq!(books.addresses().len(), 3);
}
