//! What is refused, in which words, and that nothing is left behind.

use calico_mesos::calico::{AddressRequest, CalicoError, Datastore, Family, Terms, Wanted};
use calico_mesos::error::{Blame, Code};
use nix::fcntl::{Flock, FlockArg};
use tokio_util::sync::CancellationToken;

use crate::datastore::*;
use crate::kit::faults::Freeze;
use crate::kit::wait::LIMIT;
use crate::proxy::Proxy;

const POOL: (&str, &str) = ("pool", r#"{"cidr":"10.65.0.0/24","blockSize":29}"#);

/// The launch fails with this code, changes nothing, and its message has these parts.
async fn refused(
    world: &mut World,
    wanted: &calico_mesos::calico::Wanted,
    code: Code,
    parts: &[&str],
) -> CalicoError {
    let before = world.dump().await;
    let error = world.launch(&task("a"), wanted).await.unwrap_err();
    let failure = error.failure();
    assert_eq!(failure.code, code, "{}", failure.message);
    for part in parts {
        assert!(failure.message.contains(part), "{} lacks '{part}'", failure.message);
    }
    assert_eq!(world.dump().await, before);
    error
}

#[tokio::test]
async fn a_cluster_that_is_not_ready() {
    let mut world = World::new(&["a"], &[POOL]).await;
    let identity = task("a");
    world.launch(&identity, &auto()).await.unwrap();
    let key = format!("{RESOURCES}/clusterinformations/default");
    world.put(&key, r#"{"metadata":{},"spec":{"datastoreReady":false}}"#).await;
    refused(&mut world, &auto(), Code::NotReady, &["locked"]).await;
    let mut datastore = world.connect("a").await;
    let before = world.dump().await;
    let error = datastore.release(&identity).await.unwrap_err();
    assert_eq!(error.failure().code, Code::NotReady);
    assert!(datastore.initialise_local("a", &[]).await.is_err());
    assert_eq!(world.dump().await, before);
    world.put(&key, r#"{"metadata":{},"spec":{}}"#).await;
    refused(&mut world, &auto(), Code::NotReady, &["has no field datastoreReady"]).await;
    world.delete(&key).await;
    refused(&mut world, &auto(), Code::NotReady, &["ClusterInformation"]).await;
    assert!(datastore.release(&identity).await.unwrap().endpoint);
}

#[tokio::test]
async fn hosts_and_pools_that_are_missing() {
    let mut world = World::new(&["b"], &[POOL]).await;
    let error = refused(&mut world, &auto(), Code::NoNode, &["'a'", "NODENAME=a"]).await;
    assert_eq!(error.failure().blame(), Blame::Host);
    let mut world = World::new(&["a"], &[]).await;
    refused(&mut world, &auto(), Code::NoPool, &["IPv4", "there is no IP pool"]).await;
    world.pool("far", r#"{"cidr":"10.1.0.0/24","nodeSelector":"host == 'b'"}"#).await;
    world.pool("odd", r#"{"cidr":"10.2.0.0/24","nodeSelector":"host like 'b'"}"#).await;
    refused(&mut world, &auto(), Code::NoPool, &["far: its nodeSelector", "odd: selector 'host like 'b''"])
        .await;
    refused(&mut world, &wants(&[AddressRequest::Auto(Family::V6)]), Code::NoPool, &["IPv6"]).await;
}

/// Own blocks, new blocks and borrowed addresses: all of them in the named pools.
#[tokio::test]
async fn a_task_that_names_pools_gets_addresses_of_no_other() {
    let pools = [
        ("a", r#"{"cidr":"10.65.0.0/28","blockSize":29}"#),
        ("web", r#"{"cidr":"10.66.0.0/29","blockSize":30}"#),
        ("six", r#"{"cidr":"fd00::/124","blockSize":125}"#),
    ];
    let mut world = World::new(&["a", "b"], &pools).await;
    let in_web = |address: &std::net::IpAddr| address.to_string().starts_with("10.66.0.");
    let named = |pools: &[&str], wanted: Wanted| Wanted {
        pools: pools.iter().map(|pool| (*pool).to_owned()).collect(),
        ..wanted
    };
    let web = named(&["web"], auto());
    // Two blocks of four: the first one of each host, then the rest of the pool by borrowing.
    let first = world.launch(&task("b"), &web).await.unwrap().addresses;
    assert!(in_web(&first[0]), "{first:?}");
    assert!(!in_web(&world.launch(&task("a"), &auto()).await.unwrap().addresses[0]));
    for _ in 0..7 {
        let got = world.launch(&task("a"), &web).await.unwrap().addresses;
        assert!(in_web(&got[0]), "{got:?}");
    }
    let error =
        refused(&mut world, &web, Code::Exhausted, &["web (10.66.0.0/29)", "every block is full"]).await;
    assert!(!error.to_string().contains("10.65.0.0"), "{error}");
    world.launch(&task("a"), &auto()).await.unwrap();

    let both = named(
        &["10.65.0.0/28", "six"],
        wants(&[AddressRequest::Auto(Family::V4), AddressRequest::Auto(Family::V6)]),
    );
    let got = world.launch(&task("a"), &both).await.unwrap().addresses;
    assert!(got[0].to_string().starts_with("10.65.0.") && got[1].is_ipv6(), "{got:?}");

    let usable = "a (10.65.0.0/28), six (fd00::/124), web (10.66.0.0/29)";
    refused(&mut world, &named(&["nosuch"], auto()), Code::PoolInvalid, &["names nosuch, which", usable])
        .await;
    refused(&mut world, &named(&["six"], auto()), Code::PoolInvalid, &["no IPv4 addresses", "web"]).await;
    let outside = named(&["web"], explicit("10.65.0.9"));
    refused(&mut world, &outside, Code::IpOutside, &["10.65.0.9", "CALICO_POOL", "web (10.66.0.0/29)"]).await;
    world.pool("web", r#"{"cidr":"10.66.0.0/29","blockSize":30,"disabled":true}"#).await;
    refused(&mut world, &web, Code::PoolInvalid, &["web, which cannot serve it (disabled)", "a (10.65"])
        .await;
    // The limit of blocks counts within the named pools as anywhere.
    world.pool("web", r#"{"cidr":"10.66.0.0/28","blockSize":30}"#).await;
    let limit = r#"{"auto_allocate_blocks":true,"strict_affinity":true,"maxBlocksPerHost":1}"#;
    world.put(&format!("{IPAM}/config"), limit).await;
    refused(&mut world, &web, Code::Exhausted, &["web (10.66.0.0/28)", "block"]).await;
    let mut config = world.config("a");
    config.limits.allow_pools = vec!["a".into()];
    let mut datastore = calico_mesos::calico::Datastore::connect(&config).await.unwrap();
    let error = datastore.prepare(&task("a"), &web).await.err().unwrap().failure();
    assert_eq!(error.code, Code::NotAllowed);
    assert!(error.message.contains("limits.allow_pools"), "{}", error.message);
}

#[tokio::test]
async fn addresses_that_cannot_be_had() {
    let off = ("off", r#"{"cidr":"10.66.0.0/24","disabled":true}"#);
    let mut world = World::new(&["a", "b"], &[POOL, off]).await;
    let error =
        refused(&mut world, &explicit("10.9.9.9"), Code::IpOutside, &["10.9.9.9", "pool 10.65.0.0/24"]).await;
    assert_eq!(error.failure().blame(), Blame::App);
    refused(&mut world, &explicit("10.66.0.1"), Code::PoolDisabled, &["'off'"]).await;
    refused(&mut world, &explicit("fd00::1"), Code::IpOutside, &["fd00::1"]).await;

    let holder = task("b");
    world.launch(&holder, &explicit("10.65.0.7")).await.unwrap();
    let error =
        refused(&mut world, &explicit("10.65.0.7"), Code::IpTaken, &[&holder.task_id, "(/prod/web) on b"])
            .await;
    assert!(error.is_held());
    // Of two addresses one is taken: neither is written.
    let two = wants(&[AddressRequest::Explicit(ip("10.65.0.6")), AddressRequest::Explicit(ip("10.65.0.7"))]);
    refused(&mut world, &two, Code::IpTaken, &[]).await;
    // Borrowed from the other host's block, unless affinity is strict.
    world.put(&format!("{IPAM}/config"), r#"{"strict_affinity":true,"auto_allocate_blocks":true}"#).await;
    refused(&mut world, &explicit("10.65.0.6"), Code::IpStrict, &["10.65.0.0/29 of b"]).await;
    world.put(&format!("{IPAM}/config"), r#"{"auto_allocate_blocks":true}"#).await;
    let two = wants(&[AddressRequest::Auto(Family::V4), AddressRequest::Explicit(ip("10.65.0.6"))]);
    let got = world.launch(&task("a"), &two).await.unwrap().addresses;
    assert_eq!(got[1], ip("10.65.0.6"));
    assert_ne!(got[0], got[1]);
}

#[tokio::test]
async fn a_holder_that_left_no_name_is_looked_up() {
    let mut world = World::new(&["a", "b"], &[POOL]).await;
    let block = r#"{"cidr":"10.65.0.0/29","affinity":"host:b","allocations":[0,null,null,null,null,null,null,null],"unallocated":[1,2,3,4,5,6,7],"attributes":[{"handle_id":"mesosnet.1","secondary":{"node":"b"}}],"sequenceNumber":5,"sequenceNumberForAllocation":{},"deleted":false}"#;
    world.put(&format!("{IPAM}/assignment/ipv4/block/10.65.0.0-29"), block).await;
    refused(&mut world, &explicit("10.65.0.0"), Code::IpTaken, &["held by mesosnet.1 on b"]).await;
    let endpoint = r#"{"metadata":{"name":"b-cni-1-eth0"},"spec":{"node":"b","orchestrator":"cni","ipNetworks":["10.65.0.0/32"]}}"#;
    world.put(&format!("{RESOURCES}/workloadendpoints/default/b-cni-1-eth0"), endpoint).await;
    refused(&mut world, &explicit("10.65.0.0"), Code::IpTaken, &["held by b-cni-1-eth0 on b"]).await;
    let mut datastore = world.connect("a").await;
    assert_eq!(datastore.holder_of(ip("10.65.0.0")).await.unwrap().unwrap().node.as_deref(), Some("b"));
    assert_eq!(datastore.holder_of(ip("10.65.0.1")).await.unwrap(), None);
}

#[tokio::test]
async fn launches_beyond_the_operators_limits_are_refused() {
    let pools = [POOL, ("own", r#"{"cidr":"10.66.0.0/24"}"#), ("six", r#"{"cidr":"fd00::/112"}"#)];
    let mut world = World::new(&["a"], &pools).await;
    let mut config = world.config("a");
    config.limits.pools = vec!["own".into()];
    let mut datastore = Datastore::connect(&config).await.unwrap();
    let prepared = datastore.prepare(&task("a"), &auto()).await.unwrap();
    assert!(prepared.addresses[0].to_string().starts_with("10.66.0."));
    let error = datastore.prepare(&task("a"), &explicit("10.65.0.1")).await.err().unwrap();
    assert!(error.failure().message.contains("'pool' (limits.pools)"), "{error}");
    assert_eq!((error.failure().code, error.failure().blame()), (Code::NotAllowed, Blame::App));
    let error = datastore.prepare(&task("a"), &explicit("fd00::5")).await.err().unwrap();
    assert!(error.failure().message.contains("'six' (limits.pools)"), "{error}");
    let six = wants(&[AddressRequest::Auto(Family::V6)]);
    let failure = datastore.prepare(&task("a"), &six).await.err().unwrap().failure();
    assert!(failure.message.contains("six: not among limits.pools"), "{failure}");
    let mut wanted = auto();
    wanted.profiles = vec!["../x".into()];
    assert_eq!(
        datastore.prepare(&task("a"), &wanted).await.err().unwrap().failure().code,
        Code::ProfileInvalid
    );
    assert!(world.ipam().await.is_empty());
}

#[tokio::test]
async fn a_pool_with_no_address_left() {
    let mut world = World::new(&["a", "b"], &[("tiny", r#"{"cidr":"10.65.0.0/30","blockSize":31}"#)]).await;
    let mut got = Vec::new();
    for node in ["a", "a", "b", "a"] {
        got.extend(world.launch(&task(node), &auto()).await.unwrap().addresses);
    }
    got.sort();
    got.dedup();
    assert_eq!(got.len(), 4, "the last one is borrowed");
    let error =
        refused(&mut world, &auto(), Code::Exhausted, &["tiny (10.65.0.0/30)", "every block is full"]).await;
    assert_eq!(error.failure().blame(), Blame::Host);
}

#[tokio::test]
async fn strict_affinity_takes_an_old_empty_block_instead_of_borrowing() {
    let mut world = World::new(&["a", "b"], &[("tiny", r#"{"cidr":"10.65.0.0/30","blockSize":31}"#)]).await;
    world.put(&format!("{IPAM}/config"), r#"{"strict_affinity":true,"auto_allocate_blocks":true}"#).await;
    let block = |cidr: &str, time: &str| {
        format!(
            r#"{{"cidr":"{cidr}","affinity":"host:b",{time}"allocations":[null,null],"unallocated":[0,1],"attributes":[],"sequenceNumber":7,"sequenceNumberForAllocation":{{}},"deleted":false}}"#
        )
    };
    let young = format!(r#""affinity_claim_time":"{}","#, "2999-01-01T00:00:00Z");
    for (cidr, time) in [("10.65.0.0", ""), ("10.65.0.2", young.as_str())] {
        world
            .put(&format!("{IPAM}/assignment/ipv4/block/{cidr}-31"), &block(&format!("{cidr}/31"), time))
            .await;
        world
            .put(&format!("{IPAM}/host/b/ipv4/block/{cidr}-31"), r#"{"state":"confirmed","deleted":false}"#)
            .await;
    }
    let first = world.launch(&task("a"), &auto()).await.unwrap().addresses[0];
    assert_eq!(first, ip("10.65.0.0"));
    let dump = world.ipam().await;
    assert!(dump.contains_key(&format!("{IPAM}/host/a/ipv4/block/10.65.0.0-31")));
    assert!(!dump.contains_key(&format!("{IPAM}/host/b/ipv4/block/10.65.0.0-31")));
    world.launch(&task("a"), &auto()).await.unwrap();
    refused(&mut world, &auto(), Code::Exhausted, &["strict affinity"]).await;
}

#[tokio::test]
async fn an_etcd_that_is_away_is_named() {
    let world = World::new(&["a"], &[POOL]).await;
    let mut config = world.config("a");
    // Nobody listens on the first, nothing is routed to the second.
    config.etcd.endpoints = vec!["http://127.0.0.1:1".into(), "http://192.0.2.1:2379".into()];
    // Long before the kernel gives up.
    let connected = tokio::time::timeout(LIMIT, Datastore::connect(&config)).await;
    let error = connected.expect("the connection has no limit").err().unwrap();
    let failure = error.failure();
    assert_eq!((failure.code, failure.blame()), (Code::Etcd, Blame::Host));
    assert!(failure.message.contains("http://127.0.0.1:1, http://192.0.2.1:2379"), "{}", failure.message);
    // One live endpoint among dead ones is enough.
    config.etcd.endpoints.push(world.etcd.endpoint.clone());
    let mut datastore = Datastore::connect(&config).await.unwrap();
    datastore.prepare(&task("a"), &auto()).await.unwrap();
    // One that accepts connections and never answers.
    world.etcd.freeze();
    let identity = task("a");
    let prepared = tokio::time::timeout(LIMIT, datastore.prepare(&identity, &auto())).await;
    world.etcd.thaw();
    let error = prepared.expect("the request has no limit").err().unwrap();
    assert_eq!(error.failure().code, Code::Etcd);
}

/// A task that is killed meanwhile does not wait for etcd; what became of the write is for its teardown to find out.
#[tokio::test]
async fn a_write_without_an_answer_is_given_up_soon_after_a_kill() {
    let world = World::new(&["a"], &[POOL]).await;
    let proxy = Proxy::start(world.etcd.address()).await;
    let mut config = world.config("a");
    config.etcd.endpoints = vec![proxy.endpoint.clone()];
    let mut datastore = Datastore::connect(&config).await.unwrap();
    let prepared = datastore.prepare(&task("a"), &auto()).await.unwrap();
    proxy.silence();
    let give_up = CancellationToken::new();
    let terms = Terms { patience: 100 * LIMIT, give_up: give_up.clone(), ..Terms::default() };
    let killed = async {
        // The write is under way: the kill comes into the wait for its answer.
        proxy.swallowed().await;
        give_up.cancel();
    };
    let committed = tokio::time::timeout(LIMIT, datastore.commit(prepared, MAC, terms));
    let (result, ()) = tokio::join!(committed, killed);
    let result = result.expect("the kill is not heard");
    assert!(matches!(result, Err(CalicoError::Lost { .. })), "{result:?}");
}

/// Calico's lock is a courtesy: it stays held.
#[tokio::test]
async fn a_release_goes_on_without_calicos_lock() {
    let world = World::new(&["a"], &[POOL]).await;
    let identity = task("a");
    world.launch(&identity, &auto()).await.unwrap();
    let file = std::fs::File::open(world.config("a").paths.ipam_lock).unwrap();
    let _lock = Flock::lock(file, FlockArg::LockExclusiveNonblock).unwrap();
    let mut datastore = world.connect("a").await;
    assert_eq!(datastore.release(&identity).await.unwrap().addresses.len(), 1);
}
