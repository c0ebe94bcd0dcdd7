//! What was read from the datastore, kept by key, so that a plan can be made and made again.

use std::collections::{BTreeMap, BTreeSet};

use ipnet::IpNet;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::block::Block;
use super::model::{
    Affinity, ClusterInformationSpec, Handle, IpamConfig, Metadata, ReservationSpec, Resource,
};
use super::pool::Pool;
use super::txn::{Range, ReadAnswer, ReadKey};
use super::{keys, CalicoError, Family, NotReady};

/// A consistent-enough view: every entry carries its own revision, and `revision` is that of the last
/// read of the pools and all else that a choice rests on.
#[derive(Debug, Clone, Default)]
pub(super) struct Snapshot {
    pub revision: i64,
    entries: BTreeMap<String, ReadKey>,
    asked: BTreeSet<String>,
    names: BTreeMap<String, Names>,
    counts: BTreeMap<String, i64>,
}

/// The keys below a prefix: all that were created up to a revision.
#[derive(Debug, Clone)]
struct Names {
    revision: i64,
    keys: BTreeSet<String>,
}

/// A block as far as it is known.
#[derive(Debug, Clone)]
pub(super) enum SeenBlock {
    /// Not read yet.
    Unknown,
    Absent,
    /// Not usable; the text says why.
    Broken(String),
    There(Box<Block>, i64),
}

/// What every launch and release reads in its first trip.
pub(super) struct Question<'a> {
    pub node: &'a str,
    pub endpoint: String,
    pub handle: &'a str,
    pub profiles: &'a [String],
    pub blocks: &'a [IpNet],
}

impl Question<'_> {
    pub(super) fn ranges(&self) -> Vec<Range> {
        let mut ranges = vec![
            Range::Key(keys::cluster_information()),
            Range::Key(keys::node(self.node)),
            Range::Prefix(keys::pools()),
            Range::Key(keys::ipam_config()),
            Range::Prefix(keys::reservations()),
            Range::Prefix(keys::affinities(self.node, Family::V4)),
            Range::Prefix(keys::affinities(self.node, Family::V6)),
            Range::Key(self.endpoint.clone()),
            Range::Key(keys::handle(self.handle)),
        ];
        ranges.extend(self.profiles.iter().map(|name| Range::Key(keys::profile(name))));
        ranges.extend(self.blocks.iter().map(|cidr| Range::Key(keys::block(cidr))));
        ranges
    }
}

impl Snapshot {
    /// Takes in an answer; what it covers replaces what was known before.
    pub(super) fn absorb(&mut self, ranges: &[Range], answer: ReadAnswer) {
        let found = answer.ranges.into_iter().zip(answer.counts);
        for (range, (found, count)) in ranges.iter().zip(found) {
            match range {
                Range::Count(prefix) => {
                    self.counts.insert(prefix.clone(), count);
                    continue;
                }
                Range::Key(key) => {
                    self.entries.remove(key);
                    self.asked.insert(key.clone());
                    for (_, names) in self.names.iter_mut().filter(|(prefix, _)| key.starts_with(*prefix)) {
                        match found.is_empty() {
                            true => names.keys.remove(key),
                            false => names.keys.insert(key.clone()),
                        };
                    }
                }
                Range::Prefix(prefix) => {
                    if *prefix == keys::pools() {
                        self.revision = answer.revision;
                    }
                    self.entries.retain(|key, _| !key.starts_with(prefix.as_str()));
                }
                Range::Names(prefix) => {
                    self.absorb_names(
                        prefix,
                        answer.revision,
                        found.into_iter().map(|entry| entry.key).collect(),
                    );
                    continue;
                }
            }
            self.entries.extend(found.into_iter().map(|entry| (entry.key.clone(), entry)));
        }
    }

    /// Wider answers learn from narrower ones, and narrower ones are replaced by wider ones.
    fn absorb_names(&mut self, prefix: &str, revision: i64, keys: BTreeSet<String>) {
        self.names.retain(|other, _| !other.starts_with(prefix));
        for (_, names) in self.names.iter_mut().filter(|(other, _)| prefix.starts_with(*other)) {
            names.keys.retain(|key| !key.starts_with(prefix));
            names.keys.extend(keys.iter().cloned());
        }
        self.names.insert(prefix.to_owned(), Names { revision, keys });
    }

    /// The keys of all blocks of a family, when they were asked for.
    pub(super) fn blocks(&self, family: Family) -> Option<&BTreeSet<String>> {
        self.names.get(&keys::blocks(family)).map(|names| &names.keys)
    }

    /// How many blocks of a family there are, when that was asked for.
    pub(super) fn block_count(&self, family: Family) -> Option<i64> {
        self.counts.get(&keys::blocks(family)).copied()
    }

    /// The blocks of a family that have been read and can be understood, but those of a plan.
    pub(super) fn blocks_beside<T>(&self, family: Family, plan: &BTreeMap<IpNet, T>) -> Vec<(IpNet, Block)> {
        let prefix = keys::blocks(family);
        let blocks = self.below(&prefix).filter_map(|entry| {
            let cidr = keys::cidr_of_key(&entry.key).filter(|cidr| !plan.contains_key(cidr))?;
            Some((cidr, Block::parse(&entry.value, &cidr).ok()?))
        });
        blocks.collect()
    }

    /// The answer with the newest word on all keys below a prefix, if there is one.
    fn names_below(&self, prefix: &str) -> Option<&Names> {
        let covering = self.names.iter().filter(|(known, _)| prefix.starts_with(*known));
        covering.map(|(_, names)| names).max_by_key(|names| names.revision)
    }

    /// Up to which revision the keys below a prefix are known.
    pub(super) fn names_revision(&self, prefix: &str) -> Option<i64> {
        self.names_below(prefix).map(|names| names.revision)
    }

    /// The blocks that begin with one of these prefixes and lie inside a larger one; nothing where that is not known.
    pub(super) fn blocks_inside(&self, cidr: &IpNet, prefixes: &[String]) -> Option<BTreeSet<IpNet>> {
        let mut found = BTreeSet::new();
        for prefix in prefixes {
            let keys = self.names_below(prefix)?.keys.range(prefix.clone()..);
            let blocks =
                keys.take_while(|key| key.starts_with(prefix)).filter_map(|key| keys::cidr_of_key(key));
            found.extend(blocks.filter(|block| block != cidr && cidr.contains(block)));
        }
        Some(found)
    }

    /// What the pools are, and which of them serve a node: changes whenever one of them is made, changed or deleted,
    /// or the node's labels change. The same mark means the same pools, in one datastore.
    pub(super) fn pools_mark(&self, node_labels: &BTreeMap<String, String>) -> String {
        let prefix = keys::pools();
        let pools = self.below(&prefix).map(|entry| format!("{}@{}", entry.key, entry.revision));
        let labels = node_labels.iter().map(|(key, value)| format!("{key}={value}"));
        let lines = pools.chain(labels).flat_map(|line| (line + "\n").into_bytes());
        // FNV-1a, 64 bits.
        let hash = lines.fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
        format!("{hash:016x}")
    }

    pub(super) fn is_asked(&self, key: &str) -> bool {
        self.asked.contains(key)
    }

    pub(super) fn entry(&self, key: &str) -> Option<&ReadKey> {
        self.entries.get(key)
    }

    /// The revision of a key; 0 when it does not exist.
    pub(super) fn revision_of(&self, key: &str) -> i64 {
        self.entry(key).map_or(0, |entry| entry.revision)
    }

    fn below<'a>(&'a self, prefix: &'a str) -> impl Iterator<Item = &'a ReadKey> {
        let from = self.entries.range(prefix.to_owned()..);
        from.take_while(move |(key, _)| key.starts_with(prefix)).map(|(_, entry)| entry)
    }

    fn parse<T: DeserializeOwned>(&self, key: &str) -> Result<Option<T>, CalicoError> {
        let Some(entry) = self.entry(key) else { return Ok(None) };
        let parsed = serde_json::from_slice(&entry.value);
        parsed
            .map(Some)
            .map_err(|error| CalicoError::Unreadable { key: key.to_owned(), reason: error.to_string() })
    }

    /// Whether Calico's programs may work on the datastore.
    pub(super) fn readiness(&self) -> Result<(), NotReady> {
        let cluster = self.parse::<Resource<ClusterInformationSpec>>(&keys::cluster_information());
        match cluster {
            Ok(None) => Err(NotReady::Missing),
            Ok(Some(cluster)) => match cluster.spec.datastore_ready {
                Some(true) => Ok(()),
                Some(false) => Err(NotReady::Locked),
                None => Err(NotReady::Unset),
            },
            Err(_) => Err(NotReady::Unset),
        }
    }

    /// The labels of a node, or none when the datastore does not have it.
    pub(super) fn node_labels(&self, name: &str) -> Result<Option<BTreeMap<String, String>>, CalicoError> {
        #[derive(serde::Deserialize)]
        struct Node {
            #[serde(default)]
            metadata: Metadata,
        }
        let node = self.parse::<Node>(&keys::node(name))?;
        Ok(node.map(|node| node.metadata.labels.unwrap_or_default()))
    }

    /// All pools that can be understood.
    pub(super) fn pools(&self) -> Vec<Pool> {
        let prefix = keys::pools();
        let parsed = self
            .below(&prefix)
            .filter_map(|entry| Pool::parse(&entry.value, entry.key.strip_prefix(&prefix)?));
        parsed.collect()
    }

    /// Addresses that are not given out automatically.
    pub(super) fn reserved(&self) -> Vec<IpNet> {
        let prefix = keys::reservations();
        let specs = self.below(&prefix).filter_map(|entry| {
            serde_json::from_slice::<Resource<ReservationSpec>>(&entry.value).ok()?.spec.reserved_cidrs
        });
        let net = |text: String| {
            text.parse::<IpNet>().ok().or_else(|| Some(text.parse::<std::net::IpAddr>().ok()?.into()))
        };
        specs.flatten().filter_map(net).collect()
    }

    pub(super) fn ipam_config(&self) -> Result<IpamConfig, CalicoError> {
        let missing = IpamConfig { auto_allocate_blocks: true, ..IpamConfig::default() };
        Ok(self.parse(&keys::ipam_config())?.unwrap_or(missing))
    }

    pub(super) fn handle(&self, id: &str) -> Result<Option<Handle>, CalicoError> {
        self.parse(&keys::handle(id))
    }

    pub(super) fn endpoint(&self, key: &str) -> Result<Option<Resource<Value>>, CalicoError> {
        self.parse(key)
    }

    /// A node's affinities of one family in the order of their keys.
    pub(super) fn affinities(&self, node: &str, family: Family) -> Vec<(IpNet, Affinity)> {
        let prefix = keys::affinities(node, family);
        let parsed = self.below(&prefix).filter_map(|entry| {
            let affinity = match entry.value.is_empty() {
                true => Affinity::default(),
                false => serde_json::from_slice(&entry.value).ok()?,
            };
            Some((keys::cidr_of_key(&entry.key)?, affinity))
        });
        parsed.collect()
    }

    pub(super) fn block(&self, cidr: &IpNet) -> SeenBlock {
        let key = keys::block(cidr);
        match self.entry(&key) {
            Some(entry) => match Block::parse(&entry.value, cidr) {
                Ok(block) => SeenBlock::There(Box::new(block), entry.revision),
                Err(reason) => SeenBlock::Broken(reason),
            },
            None if self.is_asked(&key) => SeenBlock::Absent,
            None => SeenBlock::Unknown,
        }
    }
}
