//! Which IP pools an address may come from: pure choice, no datastore.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;
use serde::Deserialize;

use super::block;
use super::model::{Metadata, PoolSpec, PoolStatus};
use super::overlap::overlap;
use super::{selector, CalicoError, Family};
use crate::config::Limits;

/// An IP pool with Calico's defaults filled in.
#[derive(Debug, Clone)]
pub(super) struct Pool {
    pub name: String,
    pub cidr: IpNet,
    /// Prefix length of the blocks it is cut into.
    pub block_length: u8,
    pub disabled: bool,
    spec: PoolSpec,
    /// Being deleted, or declared not allocatable by Calico's controller.
    blocked: bool,
}

#[derive(Deserialize)]
struct Record {
    #[serde(default)]
    metadata: Metadata,
    spec: PoolSpec,
    #[serde(default)]
    status: Option<PoolStatus>,
}

impl Pool {
    /// A record that cannot be parsed is not a pool, for Calico either.
    pub(super) fn parse(value: &[u8], name: &str) -> Option<Self> {
        let record: Record = serde_json::from_slice(value).ok()?;
        let cidr: IpNet = record.spec.cidr.parse().ok()?;
        let cidr = cidr.trunc();
        let default = if Family::of(cidr.addr()) == Family::V4 { 26 } else { 122 };
        let block_length = record.spec.block_size.filter(|size| *size > 0).unwrap_or(default);
        if block_length < cidr.prefix_len() || block_length > cidr.max_prefix_len() {
            return None;
        }
        let conditions = record.status.and_then(|status| status.conditions).unwrap_or_default();
        let refused =
            conditions.iter().any(|condition| condition.kind == "Allocatable" && condition.status == "False");
        Some(Self {
            name: name.to_owned(),
            cidr,
            block_length,
            disabled: record.spec.disabled,
            blocked: refused || record.metadata.deletion_timestamp.is_some(),
            spec: record.spec,
        })
    }

    pub(super) fn is_enabled(&self) -> bool {
        !self.disabled && !self.blocked
    }

    /// The block of this pool that contains an address of it.
    pub(super) fn block_of(&self, address: IpAddr) -> IpNet {
        // The length was checked against the family when the pool was read.
        IpNet::new(address, self.block_length).map_or(self.cidr, |net| net.trunc())
    }

    /// Does the pool serve hosts with these labels? The error says what was not understood.
    pub(super) fn selects(&self, node_labels: &BTreeMap<String, String>) -> Result<bool, String> {
        selector::selects(&self.spec.node_selector, node_labels)
    }

    /// Whether the ends of tunnels of a node with these labels get their addresses from it.
    pub(super) fn serves_tunnels(&self, node_labels: &BTreeMap<String, String>) -> bool {
        let uses = self.spec.allowed_uses.as_deref().unwrap_or_default();
        let allowed = uses.is_empty() || uses.iter().any(|word| word == "Tunnel");
        self.is_enabled() && allowed && self.selects(node_labels) == Ok(true)
    }

    /// Why the pool gives no addresses to tasks on a node with these labels, if so. One with assignmentMode Manual
    /// serves those alone that name it.
    fn objection(&self, node_labels: &BTreeMap<String, String>, is_named: bool) -> Option<String> {
        if self.disabled {
            return Some("disabled".into());
        }
        if self.blocked {
            return Some("not allocatable".into());
        }
        if !is_named && self.spec.assignment_mode.as_deref() == Some("Manual") {
            return Some("assignmentMode Manual".into());
        }
        let uses = self.spec.allowed_uses.as_deref().unwrap_or_default();
        if !uses.is_empty() && !uses.iter().any(|word| word == "Workload") {
            return Some("not for workloads".into());
        }
        // Namespaces do not exist without Kubernetes: only a selector that takes all can match.
        match selector::selects(&self.spec.namespace_selector, &BTreeMap::new()) {
            Ok(true) => {}
            Ok(false) => return Some("its namespaceSelector does not match".into()),
            Err(problem) => return Some(problem),
        }
        match self.selects(node_labels) {
            Ok(true) => None,
            Ok(false) => Some(format!("its nodeSelector '{}' does not match", self.spec.node_selector)),
            Err(problem) => Some(problem),
        }
    }

    /// `web (10.65.0.0/16)`, for messages.
    pub(super) fn shown(&self) -> String {
        format!("{} ({})", self.name, self.cidr)
    }

    fn block_count(&self) -> u128 {
        1_u128.checked_shl(u32::from(self.block_length - self.cidr.prefix_len())).unwrap_or(u128::MAX)
    }

    /// All blocks of the pool once, beginning at a place that depends on the node: so that hosts which
    /// claim at the same time do not all want the same block.
    pub(super) fn walk(&self, node: &str) -> impl Iterator<Item = IpNet> + '_ {
        let count = self.block_count();
        let start = u128::from(fnv1(node)) % count;
        (0..count).map(move |step| self.block_at((start + step) % count))
    }

    fn block_at(&self, index: u128) -> IpNet {
        let shift = u32::from(self.cidr.max_prefix_len() - self.block_length);
        let offset = index.checked_shl(shift).unwrap_or(0);
        let first: IpAddr = match self.cidr.network() {
            IpAddr::V4(first) => {
                std::net::Ipv4Addr::from(u32::from(first).wrapping_add(offset as u32)).into()
            }
            IpAddr::V6(first) => std::net::Ipv6Addr::from(u128::from(first).wrapping_add(offset)).into(),
        };
        self.block_of(first)
    }
}

/// The pools of a family from which tasks of this node may get an address, by name, or why none.
pub(super) fn choose<'a>(
    pools: &'a [Pool],
    family: Family,
    node_labels: &BTreeMap<String, String>,
    allowed: &[String],
) -> Result<Vec<&'a Pool>, Vec<String>> {
    let mut chosen = Vec::new();
    let mut reasons = Vec::new();
    for pool in pools.iter().filter(|pool| Family::of(pool.cidr.addr()) == family) {
        let limited = !allowed.is_empty() && !allowed.contains(&pool.name);
        let objection = pool.objection(node_labels, false);
        match objection.or_else(|| limited.then(|| "not among limits.pools".to_owned())) {
            None => chosen.push(pool),
            Some(reason) => reasons.push(format!("{}: {reason}", pool.name)),
        }
    }
    chosen.sort_by(|a, b| a.name.cmp(&b.name));
    if chosen.is_empty() {
        return Err(reasons);
    }
    Ok(chosen)
}

/// The pools that a task names by name or CIDR; or that one of them is of no use to it, and which ones would be.
pub(super) fn named<'a>(
    pools: &'a [Pool],
    asked: &[String],
    node_labels: &BTreeMap<String, String>,
    limits: &Limits,
) -> Result<Vec<&'a Pool>, CalicoError> {
    let is_allowed = |pool: &Pool| {
        let among = |names: &[String]| names.is_empty() || names.contains(&pool.name);
        among(&limits.pools) && among(&limits.allow_pools)
    };
    let usable = || {
        let serves = |pool: &&Pool| is_allowed(pool) && pool.objection(node_labels, true).is_none();
        pools.iter().filter(serves).map(Pool::shown).collect::<Vec<String>>()
    };
    let mut chosen: Vec<&Pool> = Vec::new();
    for text in asked {
        let cidr = text.parse::<IpNet>().ok();
        let is_it = |pool: &&Pool| pool.name == *text || Some(pool.cidr) == cidr;
        let objection = match pools.iter().find(is_it) {
            None => "which is not an IP pool of this cluster".to_owned(),
            Some(pool) if !is_allowed(pool) => {
                let usable = usable();
                return Err(CalicoError::NotAllowed(format!(
                    "CALICO_POOL {text} is not allowed here (limits.allow_pools and limits.pools); pools that this task can use: {}",
                    if usable.is_empty() { "none".to_owned() } else { usable.join(", ") }
                )));
            }
            Some(pool) => match pool.objection(node_labels, true) {
                None => {
                    chosen.push(pool);
                    continue;
                }
                Some(objection) => format!("which cannot serve it ({objection})"),
            },
        };
        return Err(CalicoError::PoolUnusable { pool: text.clone(), why: objection, usable: usable() });
    }
    chosen.sort_by(|a, b| a.name.cmp(&b.name));
    chosen.dedup_by(|a, b| a.name == b.name);
    Ok(chosen)
}

/// Do all pools that reach into a block no longer serve nodes with these labels? Not where no pool does, nor in doubt.
pub(super) fn is_deselected(pools: &[Pool], cidr: &IpNet, node_labels: &BTreeMap<String, String>) -> bool {
    let mut near = pools.iter().filter(|pool| overlap(&pool.cidr, cidr)).peekable();
    near.peek().is_some() && near.all(|pool| pool.selects(node_labels) == Ok(false))
}

/// Is every address of the block reserved?
pub(super) fn is_reserved(cidr: &IpNet, reserved: &[IpNet]) -> bool {
    reserved.iter().any(|net| net.contains(cidr))
        || (block::size(cidr) <= 4096
            && (0..block::size(cidr)).all(|ordinal| {
                let address = block::address(cidr, ordinal);
                reserved.iter().any(|net| net.contains(&address))
            }))
}

/// FNV-1, 32 bits: spreads hosts; any number a host would do.
fn fnv1(text: &str) -> u32 {
    text.bytes().fold(0x811c_9dc5, |hash: u32, byte| hash.wrapping_mul(0x0100_0193) ^ u32::from(byte))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn pool(name: &str, spec: &str) -> Pool {
        Pool::parse(format!(r#"{{"metadata":{{"name":"{name}"}},"spec":{spec}}}"#).as_bytes(), name).unwrap()
    }

    fn names(pools: &[Pool], family: Family, allowed: &[String]) -> Result<Vec<String>, Vec<String>> {
        let labels = [("rack".to_owned(), "r1".to_owned())].into();
        choose(pools, family, &labels, allowed)
            .map(|pools| pools.iter().map(|pool| pool.name.clone()).collect())
    }

    #[test]
    fn a_pool_needs_nothing_but_a_cidr() {
        let v4 = pool("a", r#"{"cidr":"10.65.0.0/16"}"#);
        assert_eq!(v4.block_length, 26);
        assert_eq!(v4.block_of("10.65.1.70".parse().unwrap()).to_string(), "10.65.1.64/26");
        assert_eq!(pool("b", r#"{"cidr":"fd00::/48"}"#).block_length, 122);
        assert!(Pool::parse(br#"{"spec":{"cidr":"10.0.0.0/28","blockSize":26}}"#, "x").is_none());
        assert!(Pool::parse(br#"{"spec":{"cidr":"10.0.0.0"}}"#, "x").is_none());
    }

    #[test]
    fn only_pools_that_serve_this_node_are_chosen() {
        let pools = [
            pool("z", r#"{"cidr":"10.1.0.0/16","nodeSelector":"rack == 'r1'"}"#),
            pool("a", r#"{"cidr":"10.2.0.0/16"}"#),
            pool("other", r#"{"cidr":"10.3.0.0/16","nodeSelector":"rack == 'r2'"}"#),
            pool("off", r#"{"cidr":"10.4.0.0/16","disabled":true}"#),
            pool("tunnel", r#"{"cidr":"10.5.0.0/16","allowedUses":["Tunnel"]}"#),
            pool("manual", r#"{"cidr":"10.6.0.0/16","assignmentMode":"Manual"}"#),
            pool("odd", r#"{"cidr":"10.7.0.0/16","nodeSelector":"rack ~ 'r'"}"#),
            pool("six", r#"{"cidr":"fd00::/64"}"#),
        ];
        assert_eq!(names(&pools, Family::V4, &[]).unwrap(), ["a", "z"]);
        assert_eq!(names(&pools, Family::V4, &["z".into()]).unwrap(), ["z"]);
        assert_eq!(names(&pools, Family::V6, &[]).unwrap(), ["six"]);
        let reasons = names(&pools[2..7], Family::V4, &[]).unwrap_err().join("; ");
        for part in [
            "other: its nodeSelector",
            "off: disabled",
            "tunnel: not for",
            "manual: assignmentMode",
            "odd: selector",
        ] {
            assert!(reasons.contains(part), "{reasons}");
        }
    }

    #[test]
    fn a_task_may_name_pools() {
        let pools = [
            pool("web", r#"{"cidr":"10.1.0.0/16"}"#),
            pool("manual", r#"{"cidr":"10.2.0.0/16","assignmentMode":"Manual"}"#),
            pool("off", r#"{"cidr":"10.3.0.0/16","disabled":true}"#),
            pool("other", r#"{"cidr":"10.4.0.0/16","nodeSelector":"rack == 'r2'"}"#),
            pool("six", r#"{"cidr":"fd00::/48"}"#),
        ];
        let named = |asked: &[&str], limits: &Limits| {
            let asked: Vec<String> = asked.iter().map(|text| (*text).to_owned()).collect();
            let chosen = named(&pools, &asked, &BTreeMap::new(), limits);
            chosen.map(|pools| pools.iter().map(|pool| pool.name.clone()).collect::<Vec<_>>())
        };
        let free = Limits::default();
        assert_eq!(named(&["web", "10.1.0.0/16"], &free).unwrap(), ["web"]);
        assert_eq!(named(&["six", "manual"], &free).unwrap(), ["manual", "six"]);
        for (asked, why) in [
            ("nosuch", "not an IP pool"),
            ("10.1.0.0/24", "not an IP pool"),
            ("off", "disabled"),
            ("other", "nodeSelector"),
        ] {
            let error = named(&["web", asked], &free).unwrap_err().to_string();
            assert!(error.contains(&format!("names {asked}, which")) && error.contains(why), "{error}");
            assert!(error.ends_with("web (10.1.0.0/16), manual (10.2.0.0/16), six (fd00::/48)"), "{error}");
        }
        let limited = Limits { allow_pools: vec!["six".into()], ..Limits::default() };
        let error = named(&["web"], &limited).unwrap_err().to_string();
        assert!(error.contains("limits.allow_pools") && error.ends_with("use: six (fd00::/48)"), "{error}");
        assert!(named(&["six"], &Limits { pools: vec!["web".into()], ..limited }).is_err());
    }

    #[test]
    fn a_pool_that_calicos_controller_disabled_is_not_used() {
        let value = br#"{"spec":{"cidr":"10.0.0.0/16"},"status":{"conditions":[{"type":"Allocatable","status":"False"}]}}"#;
        assert!(!Pool::parse(value, "x").unwrap().is_enabled());
    }

    #[test]
    fn reservations_may_add_up_to_a_block() {
        let nets: Vec<IpNet> = ["10.0.0.0/31", "10.0.0.2/31"].map(|net| net.parse().unwrap()).into();
        assert!(is_reserved(&"10.0.0.0/30".parse().unwrap(), &nets));
        assert!(!is_reserved(&"10.0.0.0/29".parse().unwrap(), &nets));
    }

    proptest! {
        #[test]
        fn a_walk_over_a_pool_visits_every_block_once(node in "[a-z0-9.-]{1,20}", length in 24u8..=30) {
            let pool = pool("a", &format!(r#"{{"cidr":"10.65.0.0/24","blockSize":{length}}}"#));
            let blocks: Vec<IpNet> = pool.walk(&node).collect();
            let set: std::collections::BTreeSet<_> = blocks.iter().collect();
            prop_assert_eq!(set.len(), 1 << (length - 24));
            prop_assert_eq!(set.len(), blocks.len());
            prop_assert!(blocks.iter().all(|block| pool.cidr.contains(block)));
        }
    }
}
