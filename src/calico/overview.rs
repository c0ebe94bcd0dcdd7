//! What `run` shows before a launch: pools, the node, missing profiles.

use ipnet::IpNet;

use super::snapshot::Snapshot;
use super::txn::Range;
use super::{keys, CalicoError, Datastore};

/// The datastore at one moment, as far as a launch depends on it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Overview {
    /// Pools that addresses may come from.
    pub pools: Vec<IpNet>,
    /// This host is a node in Calico's datastore.
    pub node_known: bool,
    /// The requested profiles that a launch would create.
    pub missing_profiles: Vec<String>,
}

impl Datastore {
    /// One read.
    pub async fn overview(&mut self, node: &str, profiles: &[String]) -> Result<Overview, CalicoError> {
        let mut ranges = vec![Range::Prefix(keys::pools()), Range::Key(keys::node(node))];
        ranges.extend(profiles.iter().map(|profile| Range::Key(keys::profile(profile))));
        let answer = self.read(&ranges).await?;
        let is_there = |index: usize| answer.ranges.get(index).is_some_and(|range| !range.is_empty());
        let missing = profiles.iter().enumerate().filter(|(index, _)| !is_there(index + 2));
        let missing_profiles = missing.map(|(_, profile)| profile.clone()).collect();
        let node_known = is_there(1);
        let mut snapshot = Snapshot::default();
        snapshot.absorb(&ranges[..1], answer);
        let pools = snapshot.pools();
        let pools = pools.iter().filter(|pool| pool.is_enabled()).map(|pool| pool.cidr).collect();
        Ok(Overview { pools, node_known, missing_profiles })
    }
}
