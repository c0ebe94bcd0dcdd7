//! An IP pool for a machine that has none yet: a private range that nothing on the machine uses.
//!
//! Source of facts: `/proc/net/fib_trie`, which lists the IPv4 routes of all tables of this network
//! namespace, its own addresses among them.

use std::net::{IpAddr, Ipv4Addr};

use ipnet::{IpNet, Ipv4Net};

/// Calico's own default first; the others are seldom chosen by routers, VPNs and container engines.
const CANDIDATES: [&str; 5] =
    ["192.168.0.0/16", "10.65.0.0/16", "10.165.0.0/16", "172.29.0.0/16", "10.216.0.0/16"];

const TRIE: &str = "/proc/thread-self/net/fib_trie";

/// The first of our candidates that overlaps no address and no route (the default route aside).
pub fn free_pool() -> Option<IpNet> {
    choose(&routes(&std::fs::read_to_string(TRIE).unwrap_or_default()))
}

/// What of this machine's addresses and routes the pool would overlap.
pub fn overlapping(pool: IpNet) -> Vec<IpNet> {
    let IpNet::V4(pool) = pool else { return Vec::new() };
    let used = routes(&std::fs::read_to_string(TRIE).unwrap_or_default());
    used.into_iter().filter(|net| overlap(pool, *net)).map(IpNet::V4).collect()
}

pub(super) fn has_default_route() -> bool {
    std::fs::read_to_string(TRIE).unwrap_or_default().contains("/0 universe UNICAST")
}

fn choose(used: &[Ipv4Net]) -> Option<IpNet> {
    CANDIDATES
        .iter()
        .filter_map(|text| text.parse().ok())
        .find(|candidate| !used.iter().any(|net| overlap(*candidate, *net)))
        .map(IpNet::V4)
}

fn overlap(a: Ipv4Net, b: Ipv4Net) -> bool {
    a.contains(&b) || b.contains(&a)
}

/// Leaves look like `|-- 10.1.2.0` with one line `/24 link UNICAST` for each prefix length below.
fn routes(trie: &str) -> Vec<Ipv4Net> {
    let mut leaf = Ipv4Addr::UNSPECIFIED;
    let mut found = Vec::new();
    for line in trie.lines().map(str::trim) {
        if let Some(address) = line.strip_prefix("|-- ") {
            leaf = address.parse().unwrap_or(Ipv4Addr::UNSPECIFIED);
        } else if let Some(length) = line.strip_prefix('/').and_then(|rest| rest.split(' ').next()) {
            let net = length.parse().ok().and_then(|length| Ipv4Net::new(leaf, length).ok());
            found.extend(net.filter(|net| net.prefix_len() > 0 && !IpAddr::V4(net.addr()).is_loopback()));
        }
    }
    found.sort();
    found.dedup();
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXAMPLE: &str = "\
Main:
  +-- 0.0.0.0/0 3 0 5
     |-- 0.0.0.0
        /0 universe UNICAST
     +-- 192.168.1.0/24 2 0 2
        |-- 192.168.1.0
           /24 link UNICAST
Local:
  +-- 0.0.0.0/0 2 0 2
     +-- 127.0.0.0/8 2 0 2
        |-- 127.0.0.1
           /32 host LOCAL
     |-- 10.65.3.4
        /32 host LOCAL
";

    #[test]
    fn the_first_range_that_overlaps_nothing() {
        let used = routes(EXAMPLE);
        let text: Vec<String> = used.iter().map(ToString::to_string).collect();
        assert_eq!(text, ["10.65.3.4/32", "192.168.1.0/24"]);
        assert_eq!(choose(&used), Some("10.165.0.0/16".parse().unwrap()));
        assert_eq!(choose(&[]), Some("192.168.0.0/16".parse().unwrap()));
    }
}
