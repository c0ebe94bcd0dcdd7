//! What an operator wants a pool to be, and what Calico's rules say against it. Pure.

use ipnet::IpNet;
use serde_json::{json, Map, Value};

use super::Encapsulation;
use crate::calico::overlap::overlap;
use crate::calico::{selector, Family};

/// What an operator wants a pool to be; what is absent stays as it is, or becomes Calico's default in a new pool.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PoolWish {
    pub ipip: Option<Encapsulation>,
    pub vxlan: Option<Encapsulation>,
    pub nat_outgoing: Option<bool>,
    pub block_length: Option<u8>,
    pub node_selector: Option<String>,
}

/// Networks that no container can have an address of.
const UNUSABLE: [(&str, &str); 7] = [
    ("169.254.0.0/16", "link-local"),
    ("fe80::/10", "link-local"),
    ("127.0.0.0/8", "loopback"),
    ("::1/128", "loopback"),
    ("224.0.0.0/4", "multicast"),
    ("ff00::/8", "multicast"),
    ("0.0.0.0/8", "unspecified"),
];

impl PoolWish {
    /// What Calico's rules say against a pool of this network with these properties; `block_length` is that of the
    /// pool that exists.
    pub(super) fn check(&self, cidr: &IpNet, text: &str, block_length: Option<u8>) -> Result<(), String> {
        if *cidr != cidr.trunc() {
            return Err(format!(
                "the pool {text} has bits set behind its prefix; its network is {}",
                cidr.trunc()
            ));
        }
        let lengths = if cidr.addr().is_ipv4() { 20..=32 } else { 116..=128 };
        for (net, what) in UNUSABLE {
            if net.parse().is_ok_and(|net| overlap(cidr, &net)) {
                return Err(format!(
                    "the pool {text} overlaps {net}, the {what} addresses: no task can have one"
                ));
            }
        }
        let length =
            self.block_length.or(block_length).unwrap_or(if cidr.addr().is_ipv4() { 26 } else { 122 });
        if self.block_length.is_some() && !lengths.contains(&length) {
            return Err(format!(
                "a block size of {length} is not possible: blocks of {} have a prefix of {} to {} bits",
                Family::of(cidr.addr()),
                lengths.start(),
                lengths.end()
            ));
        }
        if let Some(present) = block_length.filter(|present| *present != length) {
            return Err(format!(
                "the pool {text} has blocks of /{present}: Calico cannot change the block size of a pool; leave \
                 --block-size out"
            ));
        }
        if cidr.prefix_len() > length {
            return Err(format!(
                "the pool {text} is smaller than a block of /{length}; use a larger pool, or smaller blocks with \
                 --block-size {}",
                cidr.prefix_len()
            ));
        }
        if cidr.addr().is_ipv6() && self.ipip.is_some_and(|mode| mode != Encapsulation::Never) {
            return Err(format!("the pool {text} is of IPv6, for which Calico has no IPIP; use --vxlan"));
        }
        if let Some(text) = &self.node_selector {
            selector::selects(text, &Default::default()).map_err(|why| format!("--node-selector: {why}"))?;
        }
        Ok(())
    }

    /// Changes what is wished in a pool's spec, and nothing else.
    pub(super) fn apply(&self, spec: &mut Map<String, Value>) -> Result<(), String> {
        let mut set = |field: &str, value: Option<Value>| {
            if let Some(value) = value {
                spec.insert(field.to_owned(), value);
            }
        };
        set("vxlanMode", self.vxlan.map(|mode| mode.word().into()));
        set("ipipMode", self.ipip.map(|mode| mode.word().into()));
        set("natOutgoing", self.nat_outgoing.map(Value::from));
        set("nodeSelector", self.node_selector.clone().map(Value::from));
        let is_on = |field: &str| {
            let mode = spec.get(field).and_then(Value::as_str).unwrap_or_default();
            !matches!(mode, "" | "Never")
        };
        match is_on("ipipMode") && is_on("vxlanMode") {
            true => {
                Err("a pool cannot have both IPIP and VXLAN; switch the other one off with --ipip=never or \
                         --vxlan=never"
                    .to_owned())
            }
            false => Ok(()),
        }
    }

    /// The spec of a new pool, with the defaults that Calico's tools write.
    pub(super) fn spec(&self, cidr: &IpNet) -> Result<Value, String> {
        let default = if cidr.addr().is_ipv4() { 26 } else { 122 };
        let mut spec = json!({
            "cidr": cidr.to_string(), "vxlanMode": "Never", "ipipMode": "Never",
            "blockSize": self.block_length.unwrap_or(default), "nodeSelector": "all()",
            "allowedUses": ["Workload", "Tunnel"],
        });
        if let Some(spec) = spec.as_object_mut() {
            self.apply(spec)?;
        }
        Ok(spec)
    }
}
