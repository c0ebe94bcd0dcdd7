//! What an automatic address costs, beside the cheapest write that etcd can do: the third part of `make bench`.
//!
//! One private etcd, and one pool set of 1600 blocks, all of which belong to a host. Interleaved in one run, so that
//! whatever slows the machine down slows all of them alike; each figure is a launch's reads and its one write:
//!
//! | what | the host that launches |
//! | --- | --- |
//! | own block | has a block with room |
//! | borrowed | has no block, and every block of the pools belongs to other hosts |
//! | nearly full | has twenty blocks with two free addresses each, of which forty tasks in turn take all |
//! | raw put | one key of the size of a block |
//!
//! Needs etcd alone. Ends with one line a goal, and with exit code 1 when one is missed.

#[path = "../../tests/kit/datastore.rs"]
#[allow(dead_code, reason = "the tests need more of it")]
mod datastore;
#[path = "../launch/figures.rs"]
mod figures;

use std::process::ExitCode;
use std::time::Instant;

use calico_mesos::calico::{Identity, Terms};
use datastore::{auto, task, World, IPAM, MAC};
use figures::{header, Figure, Goal};

const ROUNDS: usize = 40;
const BLOCKS: usize = 1600;
/// Calico's limit where nothing else is configured.
const BLOCKS_PER_HOST: usize = 20;
/// Addresses that are left in each block of the host that is nearly full.
const LEFT: usize = 2;
/// 1024, 512 and 64 blocks.
const POOLS: [(&str, &str); 3] = [
    ("a", r#"{"cidr":"10.64.0.0/16"}"#),
    ("b", r#"{"cidr":"10.65.0.0/17"}"#),
    ("c", r#"{"cidr":"10.65.128.0/20"}"#),
];

fn main() -> ExitCode {
    // `cargo bench` hands over flags that only its own harness knows; `cargo test --benches` runs nothing here.
    if !std::env::args().any(|argument| argument == "--bench") {
        return ExitCode::SUCCESS;
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let begin = Instant::now();
    let [own, borrowed, nearly_full, raw] = runtime.block_on(measure());
    println!("{}", header());
    println!("{}", raw.row("one put of a block's size", "ms"));
    println!("{}", own.row("an address from an own block", "ms"));
    println!("{}", borrowed.row("from another host's block, none of 1600 being free", "ms"));
    println!("{}", nearly_full.row("from one of twenty own blocks that are nearly full", "ms"));
    println!("\nmeasured in {} s\n", begin.elapsed().as_secs());
    let ratio = |figure: &Figure| figure.mean() / own.mean();
    let goals = [
        Goal::new("borrowed-to-own-block-ratio", ratio(&borrowed), 2.5),
        Goal::new("nearly-full-to-own-block-ratio", ratio(&nearly_full), 1.2),
        Goal::new("own-block-to-raw-put-ratio", own.mean() / raw.mean(), 2.5),
    ];
    goals.iter().for_each(|goal| println!("{goal}"));
    if goals.iter().all(Goal::is_met) {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

async fn measure() -> [Figure; 4] {
    let mut world = World::new(&["own", "borrower", "full"], &POOLS).await;
    fill(&mut world).await;
    let [mut own, mut borrowed, mut full, mut raw] = std::array::from_fn(|_| Figure::default());
    let mut lives: Vec<Identity> = Vec::new();
    let block = vec![b'x'; 8 << 10];
    for _ in 0..ROUNDS {
        let begin = Instant::now();
        world.raw.put("/bench/raw", block.clone(), None).await.expect("etcd answers");
        raw.add(begin.elapsed());
        for (node, figure) in [("own", &mut own), ("borrower", &mut borrowed), ("full", &mut full)] {
            lives.push(launch(&world, node, figure).await);
        }
    }
    for identity in lives {
        world.connect(&identity.node).await.release(&identity).await.expect("etcd answers");
    }
    [own, borrowed, full, raw]
}

/// As an executor launches: over a connection that stands.
async fn launch(world: &World, node: &str, figure: &mut Figure) -> Identity {
    let identity = task(node);
    let mut datastore = world.connect(node).await;
    let begin = Instant::now();
    let prepared = datastore.prepare(&identity, &auto()).await.expect("there is an address");
    datastore.commit(prepared, MAC, Terms::default()).await.expect("the address is free");
    figure.add(begin.elapsed());
    identity
}

/// Gives every block of the pools to a host: one to `own`, twenty to `full`, the others to hosts that are not here.
async fn fill(world: &mut World) {
    for index in 0..BLOCKS {
        let first = u32::from(std::net::Ipv4Addr::new(10, 64, 0, 0)) + 64 * index as u32;
        let cidr = format!("{}/26", std::net::Ipv4Addr::from(first));
        // Far from where a host's search begins: no host finds one of its blocks at once.
        let (node, used) = match index {
            800 => ("own".to_owned(), 10),
            900..920 => ("full".to_owned(), 64 - LEFT),
            _ => (format!("other-{}", index / BLOCKS_PER_HOST), 10),
        };
        let key = cidr.replace('/', "-");
        world.put(&format!("{IPAM}/host/{node}/ipv4/block/{key}"), r#"{"state":"confirmed"}"#).await;
        world.put(&format!("{IPAM}/assignment/ipv4/block/{key}"), &block(&cidr, &node, used)).await;
    }
}

/// A block in which tasks of its host hold so many addresses.
fn block(cidr: &str, node: &str, used: usize) -> String {
    let allocations: Vec<Option<usize>> =
        (0..64).map(|ordinal| (ordinal < used).then_some(ordinal)).collect();
    let attribute = |ordinal: usize| {
        serde_json::json!({
            "handle_id": format!("mesos.{node}-{ordinal:032x}"),
            "secondary": {
                "mesos-app": "/prod/web",
                "mesos-task": format!("prod_web.instance-{ordinal:032x}._app.1"),
                "node": node,
                "timestamp": "2026-11-01 10:00:00 +0000 UTC",
            },
        })
    };
    let record = serde_json::json!({
        "cidr": cidr,
        "affinity": format!("host:{node}"),
        "allocations": allocations,
        "unallocated": (used..64).collect::<Vec<_>>(),
        "attributes": (0..used).map(attribute).collect::<Vec<_>>(),
        "sequenceNumber": 1_795_459_939_565_803_068_u64,
        "sequenceNumberForAllocation": {},
        "deleted": false,
    });
    record.to_string()
}
