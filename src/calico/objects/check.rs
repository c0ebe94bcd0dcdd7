//! The check of Calico's IPAM: what `calicoctl ipam check` of 3.29 counts, and what it does not see.
//!
//! The first four kinds of problems are calicoctl's, counted as it counts them, with one difference: the IPv6 addresses
//! of tunnels are in use here as well. A record that Calico cannot read counts as absent there, and as a problem of
//! its own. Pure but for the reading: everything is read twice when there are problems, and only what both readings
//! show is one, since Calico's own programs write in several steps.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use ipnet::IpNet;
use serde_json::Value;

use super::ledger::{networks_of, parse_address, BookedBlock, Ledger};
use super::pools::PoolRecord;
use super::{Damaged, Kind, Object, Objects};
use crate::calico::overlap::overlap;
use crate::calico::{keys, CalicoError, Datastore};

/// Calico's handle for addresses of Windows, which are in use without an endpoint.
const WINDOWS: &str = "windows-reserved-ipam-handle";
/// The time between two readings: an assignment by Calico's CNI plugin takes some ten milliseconds.
const SETTLE: Duration = Duration::from_millis(300);

/// What kind a problem is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum ProblemKind {
    /// Allocated, and used by nothing.
    Leaked,
    /// Used, not allocated, and in no enabled pool.
    Foreign,
    /// Used and in an enabled pool, but not allocated.
    Unallocated,
    /// A handle without addresses.
    Orphan,
    /// A record that cannot be read.
    Damaged,
    /// A block that contradicts itself or its pool.
    Block,
    /// A handle that does not say what the blocks say.
    Handle,
    /// An address with two allocations or two users.
    Twice,
    /// An endpoint whose addresses cannot be right.
    Endpoint,
    /// A claim of a block that the block does not confirm, or a block without its claim.
    Affinity,
}

impl ProblemKind {
    /// All, in the order of the report.
    pub const ALL: [Self; 10] = [
        Self::Leaked,
        Self::Foreign,
        Self::Unallocated,
        Self::Orphan,
        Self::Damaged,
        Self::Block,
        Self::Handle,
        Self::Twice,
        Self::Endpoint,
        Self::Affinity,
    ];

    /// For programs.
    pub fn word(self) -> &'static str {
        match self {
            Self::Leaked => "leaked",
            Self::Foreign => "not-in-a-pool",
            Self::Unallocated => "not-allocated",
            Self::Orphan => "handle-without-addresses",
            Self::Damaged => "damaged",
            Self::Block => "block",
            Self::Handle => "handle",
            Self::Twice => "twice",
            Self::Endpoint => "endpoint",
            Self::Affinity => "affinity",
        }
    }
}

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct IpamProblem {
    pub kind: ProblemKind,
    /// An address, a handle, or a key in etcd.
    pub subject: String,
    pub text: String,
}

/// What the check found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct IpamReport {
    pub blocks: Vec<BookedBlock>,
    /// Enabled pools.
    pub pools: Vec<IpNet>,
    /// How many addresses nodes have for their tunnels.
    pub node_addresses: usize,
    pub workload_addresses: usize,
    /// Who uses each address.
    pub users: BTreeMap<IpAddr, Vec<String>>,
    /// How many addresses each node has, the most first.
    pub by_node: Vec<(String, usize)>,
    /// Handles with addresses.
    pub good_handles: usize,
    /// Handles that blocks name and that do not exist: `calicoctl` shows them without counting.
    pub missing_handles: usize,
    pub problems: Vec<IpamProblem>,
    pub damaged: Vec<Damaged>,
}

impl IpamReport {
    /// The problems of a kind.
    pub fn of(&self, kind: ProblemKind) -> impl Iterator<Item = &IpamProblem> {
        self.problems.iter().filter(move |problem| problem.kind == kind)
    }
}

/// Everything that the check reads.
struct Books {
    ledger: Ledger,
    pools: Vec<PoolRecord>,
    pools_damaged: Vec<Damaged>,
    nodes: Objects,
    endpoints: Objects,
}

impl Datastore {
    /// Checks IPAM.
    pub async fn check_ipam(&mut self) -> Result<IpamReport, CalicoError> {
        let report = self.read_books().await?.report();
        if report.problems.is_empty() {
            return Ok(report);
        }
        tokio::time::sleep(SETTLE).await;
        let mut second = self.read_books().await?.report();
        let first: BTreeSet<IpamProblem> = report.problems.into_iter().collect();
        second.problems.retain(|problem| first.contains(problem));
        Ok(second)
    }

    async fn read_books(&mut self) -> Result<Books, CalicoError> {
        let ledger = self.ledger().await?;
        let (pools, pools_damaged) = self.pool_records().await?;
        let nodes = self.objects(Kind::Node).await?;
        let endpoints = self.objects(Kind::WorkloadEndpoint).await?;
        Ok(Books { ledger, pools, pools_damaged, nodes, endpoints })
    }
}

/// The tunnel addresses of a node, by the path of their field.
const TUNNELS: [&str; 5] = [
    "/spec/ipv4VXLANTunnelAddr",
    "/spec/ipv6VXLANTunnelAddr",
    "/spec/wireguard/interfaceIPv4Address",
    "/spec/wireguard/interfaceIPv6Address",
    "/spec/bgp/ipv4IPIPTunnelAddr",
];

impl Books {
    fn report(self) -> IpamReport {
        let mut report = IpamReport {
            pools: self.pools.iter().filter(|pool| !pool.disabled).map(|pool| pool.cidr).collect(),
            ..IpamReport::default()
        };
        report.damaged.extend(self.ledger.damaged.clone());
        report.damaged.extend(self.pools_damaged.clone());
        report.damaged.extend(self.nodes.damaged.iter().chain(&self.endpoints.damaged).cloned());
        self.nodes.found.iter().for_each(|node| report.read_node(node));
        self.endpoints.found.iter().for_each(|endpoint| report.read_endpoint(endpoint));
        report.use_addresses(&self.ledger);
        report.check_handles(&self.ledger);
        report.check_blocks(&self.ledger, &self.pools);
        report.check_claims(&self.ledger, &self.nodes);
        for record in report.damaged.clone() {
            report.problem(ProblemKind::Damaged, &record.key, record.reason);
        }
        report.blocks = self.ledger.blocks;
        report.problems.sort();
        report.problems.dedup();
        report
    }
}

impl IpamReport {
    fn problem(&mut self, kind: ProblemKind, subject: impl ToString, text: impl Into<String>) {
        self.problems.push(IpamProblem { kind, subject: subject.to_string(), text: text.into() });
    }

    fn read_node(&mut self, node: &Object) {
        for path in TUNNELS {
            let text = node.value.pointer(path).and_then(Value::as_str).unwrap_or_default();
            match parse_address(text) {
                Some((address, _)) => {
                    self.node_addresses += 1;
                    self.users.entry(address).or_default().push(format!("Node({})", node.name));
                }
                None if text.is_empty() => {}
                None => {
                    let reason = format!("its {} '{text}' is not an address", path.trim_start_matches('/'));
                    self.damaged.push(Damaged { key: node.key().to_owned(), reason });
                }
            }
        }
    }

    fn read_endpoint(&mut self, endpoint: &Object) {
        let networks = match networks_of(endpoint) {
            Ok(networks) => networks,
            Err(record) => return self.damaged.push(record),
        };
        let name =
            format!("Workload({}/{})", endpoint.namespace.as_deref().unwrap_or_default(), endpoint.name);
        for text in networks {
            let Some((address, length)) = parse_address(&text) else {
                self.problem(ProblemKind::Endpoint, endpoint.key(), format!("'{text}' is not an address"));
                continue;
            };
            if length.is_some_and(|length| length != IpNet::from(address).prefix_len()) {
                let text = format!("{text} is a network: Felix routes all of it to this one endpoint");
                self.problem(ProblemKind::Endpoint, endpoint.key(), text);
            }
            self.workload_addresses += 1;
            self.users.entry(address).or_default().push(name.clone());
        }
    }

    /// Compares what is used with what is allocated.
    fn use_addresses(&mut self, ledger: &Ledger) {
        let mut allocated: BTreeMap<IpAddr, Vec<(&BookedBlock, String)>> = BTreeMap::new();
        let mut by_node: BTreeMap<String, usize> = BTreeMap::new();
        for block in &ledger.blocks {
            for taken in &block.taken {
                if taken.handle.as_deref() == Some(WINDOWS) {
                    self.users.entry(taken.address).or_default().push("Reserved for Windows".to_owned());
                }
                allocated.entry(taken.address).or_default().push((block, taken.holder()));
                let node = taken.node().or(block.node()).unwrap_or_default();
                *by_node.entry(node.to_owned()).or_default() += 1;
            }
        }
        self.by_node = by_node.into_iter().collect();
        self.by_node.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
        for (address, holders) in &allocated {
            if !self.users.contains_key(address) {
                let holder = &holders[0].1;
                self.problem(ProblemKind::Leaked, address, format!("leaked; allocated to {holder}"));
            }
            if let [(first, _), .., (second, _)] = holders[..] {
                let text = format!("is allocated in the blocks {} and {}", first.cidr, second.cidr);
                self.problem(ProblemKind::Twice, address, text);
            }
        }
        for (address, users) in self.users.clone() {
            if users.len() > 1 {
                self.problem(ProblemKind::Twice, address, format!("is used by {}", users.join(" and ")));
            }
            if allocated.contains_key(&address) {
                continue;
            }
            let users = users.join(" and ");
            match self.pools.iter().any(|pool| pool.contains(&address)) {
                true => {
                    let text =
                        format!("in use by {users} and in active IPAM pool but has no IPAM allocation");
                    self.problem(ProblemKind::Unallocated, address, text);
                }
                false => {
                    let text = format!("in use by {users} is not in any active IP pool");
                    self.problem(ProblemKind::Foreign, address, text);
                }
            }
        }
    }

    /// Compares each handle's own account with the blocks.
    fn check_handles(&mut self, ledger: &Ledger) {
        let mut held: BTreeMap<&str, BTreeMap<IpNet, u64>> = BTreeMap::new();
        for block in &ledger.blocks {
            for handle in block.taken.iter().filter_map(|taken| taken.handle.as_deref()) {
                *held.entry(handle).or_default().entry(block.cidr).or_default() += 1;
            }
        }
        let known: BTreeSet<&str> = ledger.handles.iter().map(|handle| handle.id.as_str()).collect();
        for handle in &ledger.handles {
            let Some(real) = held.get(handle.id.as_str()) else {
                let text = "doesn't have any active IPs";
                self.problem(ProblemKind::Orphan, &handle.id, text);
                continue;
            };
            self.good_handles += 1;
            let mut claimed: BTreeMap<IpNet, u64> = BTreeMap::new();
            for (text, number) in &handle.blocks {
                match text.parse::<IpNet>() {
                    Ok(cidr) => *claimed.entry(cidr).or_default() += number,
                    Err(_) => {
                        let text = format!("names '{text}', which is not a block such as 10.65.0.0/26");
                        self.problem(ProblemKind::Handle, &handle.key, text);
                    }
                }
            }
            let blocks: BTreeSet<&IpNet> = claimed.keys().chain(real.keys()).collect();
            for cidr in blocks {
                let count = |of: &BTreeMap<IpNet, u64>| of.get(cidr).copied().unwrap_or_default();
                let (says, has) = (count(&claimed), count(real));
                if says != has {
                    let text = format!("counts {says} in the block {cidr}, which has {has} of it");
                    self.problem(ProblemKind::Handle, &handle.key, text);
                }
            }
        }
        for handle in held.keys().filter(|handle| !known.contains(**handle) && **handle != WINDOWS) {
            self.missing_handles += 1;
            let text = "is in use in a block but doesn't exist: a release by it frees nothing";
            self.problem(ProblemKind::Handle, handle, text);
        }
    }

    fn check_blocks(&mut self, ledger: &Ledger, pools: &[PoolRecord]) {
        for block in &ledger.blocks {
            for fault in &block.faults {
                self.problem(ProblemKind::Block, &block.key, fault.clone());
            }
            let pool = pools.iter().find(|pool| overlap(&pool.cidr, &block.cidr));
            if let Some(pool) = pool.filter(|pool| pool.block_length != block.cidr.prefix_len()) {
                let text = format!(
                    "it is a /{} in the pool {}, whose blocks are /{}: Calico does not find its addresses by their pool",
                    block.cidr.prefix_len(),
                    pool.shown(),
                    pool.block_length
                );
                self.problem(ProblemKind::Block, &block.key, text);
            }
        }
    }

    fn check_claims(&mut self, ledger: &Ledger, nodes: &Objects) {
        let claimed: BTreeSet<(&str, IpNet)> =
            ledger.claims.iter().map(|claim| (claim.node.as_str(), claim.cidr)).collect();
        for block in &ledger.blocks {
            let Some(affinity) = &block.affinity else { continue };
            let text = match block.node() {
                None => format!("its affinity '{affinity}' does not begin with 'host:': no node owns it"),
                Some(node) if !claimed.contains(&(node, block.cidr)) => {
                    format!("it belongs to {node}, which has no affinity for it: BGP does not announce it")
                }
                Some(_) => continue,
            };
            self.problem(ProblemKind::Affinity, &block.key, text);
        }
        let blocks: BTreeMap<IpNet, &BookedBlock> =
            ledger.blocks.iter().map(|block| (block.cidr, block)).collect();
        let damaged: BTreeSet<&str> =
            ledger.damaged.iter().chain(&nodes.damaged).map(|record| record.key.as_str()).collect();
        let known: BTreeSet<&str> = nodes.found.iter().map(|node| node.name.as_str()).collect();
        let is_known = |node: &str| known.contains(node) || damaged.contains(keys::node(node).as_str());
        for claim in &ledger.claims {
            let owner = blocks.get(&claim.cidr).map(|block| block.node());
            let text = match owner {
                // What is in a block that cannot be read is not known.
                None if damaged.contains(keys::block(&claim.cidr).as_str()) => continue,
                None => "there is no such block".to_owned(),
                Some(None) => "the block belongs to no node".to_owned(),
                Some(Some(owner)) if owner != claim.node => format!("the block belongs to {owner}"),
                Some(_) if !matches!(claim.state.as_str(), "" | "confirmed") => {
                    format!("its state is '{}': BGP does not announce the block", claim.state)
                }
                Some(_) if !is_known(&claim.node) => format!("there is no node {}", claim.node),
                Some(_) => continue,
            };
            self.problem(ProblemKind::Affinity, &claim.key, text);
        }
    }
}
