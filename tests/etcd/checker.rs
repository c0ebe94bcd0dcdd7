//! The concurrency checker: hosts that launch and release at the same time while pools change under them, and what
//! must hold afterwards.
//!
//! Each run is one seed: which tasks ask for which address, and at which of their steps the pools change. The order in
//! which etcd sees the writes is left to chance, so a run that fails may pass when it is repeated.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::Arc;

use calico_mesos::calico::{AddressRequest, Committed, Datastore, Family, Identity, Terms, Wanted};
use calico_mesos::config::Config;
use calico_mesos::error::Code;
use ipnet::IpNet;
use tokio::task::JoinSet;

use crate::books::Books;
use crate::datastore::*;
use crate::kit::wait::eventually;

const HOSTS: [&str; 4] = ["a", "b", "c", "d"];
/// Launches of each host in a run, half of them ended again.
const STEPS: usize = 20;
/// Runs of each fault.
const SEEDS: u64 = 4;

/// What an operator does meanwhile.
#[derive(Debug, Clone, Copy)]
enum Fault {
    /// The pool is deleted and made again with blocks of this size.
    CutAnew(u8),
    /// A pool is made inside the other one, or around it.
    Nested(&'static str, u8),
}

/// A pool at the beginning, and what becomes of it.
struct Scene {
    cidr: &'static str,
    size: u8,
    fault: Fault,
}

#[tokio::test]
async fn pool_cut_anew_into_smaller_blocks() {
    check(Scene { cidr: "10.65.0.0/24", size: 26, fault: Fault::CutAnew(28) }).await;
    check(Scene { cidr: "fd00:65::/120", size: 122, fault: Fault::CutAnew(124) }).await;
}

#[tokio::test]
async fn pool_cut_anew_into_larger_blocks() {
    check(Scene { cidr: "10.65.0.0/24", size: 26, fault: Fault::CutAnew(24) }).await;
    check(Scene { cidr: "fd00:65::/120", size: 122, fault: Fault::CutAnew(120) }).await;
}

#[tokio::test]
async fn nested_pool() {
    check(Scene { cidr: "10.65.0.0/24", size: 26, fault: Fault::Nested("10.65.0.64/26", 29) }).await;
    check(Scene { cidr: "10.65.0.0/25", size: 28, fault: Fault::Nested("10.65.0.0/24", 25) }).await;
    check(Scene { cidr: "fd00:65::/120", size: 122, fault: Fault::Nested("fd00:65::40/122", 126) }).await;
}

async fn check(scene: Scene) {
    for seed in 1..=SEEDS {
        run(&scene, seed).await;
    }
}

/// One host's view of the run.
struct Host {
    config: Config,
    name: &'static str,
    cidr: IpNet,
    random: Random,
    /// Steps of all hosts so far.
    steps: Arc<AtomicUsize>,
}

async fn run(scene: &Scene, seed: u64) {
    let spec = format!(r#"{{"cidr":"{}","blockSize":{}}}"#, scene.cidr, scene.size);
    let mut world = World::new(&HOSTS, &[("m-pool", &spec)]).await;
    let steps = Arc::new(AtomicUsize::new(0));
    let mut set = JoinSet::new();
    for (number, name) in HOSTS.into_iter().enumerate() {
        let random = Random(seed * 97 + number as u64 + 1);
        let (config, cidr) = (world.config(name), scene.cidr.parse().unwrap());
        let host = Host { config, name, cidr, random, steps: steps.clone() };
        set.spawn(host.live());
    }
    let mut random = Random(seed);
    let when = 5 + random.below(HOSTS.len() * STEPS / 2);
    eventually("the hosts are at work", async || steps.load(Ordering::Relaxed) >= when).await;
    strike(&mut world, scene).await;
    let mut living: BTreeMap<String, IpAddr> = BTreeMap::new();
    for of_host in set.join_all().await {
        living.extend(of_host);
    }
    let dump = world.ipam().await;
    let books = Books::of(&dump);
    // Each address once in all blocks of all sizes, for the task that lives with it.
    let held: BTreeMap<String, IpAddr> =
        books.addresses().into_iter().map(|(address, handle)| (handle, address)).collect();
    assert_eq!(held, living, "{:?} with seed {seed}", scene.fault);
    books.assert_no_overlap();
    let handles: Vec<&str> =
        dump.keys().filter_map(|key| key.strip_prefix(&format!("{IPAM}/handle/"))).collect();
    assert_eq!(handles, living.keys().collect::<Vec<_>>(), "{:?} with seed {seed}", scene.fault);
}

async fn strike(world: &mut World, scene: &Scene) {
    let (name, cidr, size) = match scene.fault {
        Fault::CutAnew(size) => {
            world.delete(&format!("{RESOURCES}/ippools/m-pool")).await;
            ("m-pool", scene.cidr, size)
        }
        // A name in front of the other or behind it: the first one that has room is used.
        Fault::Nested(cidr, size) => (if size % 2 == 1 { "a-nested" } else { "z-nested" }, cidr, size),
    };
    world.pool(name, &format!(r#"{{"cidr":"{cidr}","blockSize":{size}}}"#)).await;
}

impl Host {
    /// Launches and ends tasks; yields what lives in the end.
    async fn live(mut self) -> Vec<(String, IpAddr)> {
        let mut living: Vec<(Identity, IpAddr)> = Vec::new();
        for _ in 0..STEPS {
            if let Some((identity, address)) = self.launch().await {
                living.push((identity, address));
            }
            if !living.is_empty() && self.random.below(2) == 0 {
                let (identity, address) = living.swap_remove(self.random.below(living.len()));
                let mut datastore = Datastore::connect(&self.config).await.unwrap();
                let released = datastore.release(&identity).await.unwrap();
                assert_eq!((released.addresses, released.endpoint), (vec![address], true));
            }
            self.steps.fetch_add(1, Ordering::Relaxed);
        }
        living.into_iter().map(|(identity, address)| (identity.handle, address)).collect()
    }

    /// One task: mostly with any address, else with one that others may have, or want as well.
    async fn launch(&mut self) -> Option<(Identity, IpAddr)> {
        let family = Family::of(self.cidr.addr());
        let wanted = match self.random.below(3) {
            0 => AddressRequest::Explicit(self.address()),
            _ => AddressRequest::Auto(family),
        };
        let identity = task(self.name);
        match self.attempt(&identity, &wants(&[wanted])).await {
            Ok(committed) => Some((identity, committed.addresses[0])),
            Err(error) => {
                // Taken by another task, or no pool at that moment: nothing else may go wrong.
                let code = error.failure().code;
                let expected = [Code::IpTaken, Code::NoPool, Code::IpOutside];
                assert!(expected.contains(&code), "{}: {error}", self.name);
                None
            }
        }
    }

    async fn attempt(
        &self,
        identity: &Identity,
        wanted: &Wanted,
    ) -> Result<Committed, calico_mesos::calico::CalicoError> {
        let mut datastore = Datastore::connect(&self.config).await?;
        let prepared = datastore.prepare(identity, wanted).await?;
        datastore.commit(prepared, MAC, Terms::default()).await
    }

    /// One of the first sixty of the pool.
    fn address(&mut self) -> IpAddr {
        let ordinal = self.random.below(60);
        self.cidr.hosts().nth(ordinal).unwrap()
    }
}

/// Xorshift: the same numbers for the same seed.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % limit as u64) as usize
    }
}
