//! An IP pool for a machine that has none yet: a private range that nothing on the machine uses.
//!
//! Source of facts: `/proc/net/fib_trie`, which lists the IPv4 routes of all tables of this network
//! namespace, its own addresses among them.

use std::net::{IpAddr, Ipv4Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use crate::host::addresses;

/// Calico's own default first; the others are seldom chosen by routers, VPNs and container engines.
const CANDIDATES: [&str; 5] =
    ["192.168.0.0/16", "10.65.0.0/16", "10.165.0.0/16", "172.29.0.0/16", "10.216.0.0/16"];

const TRIE: &str = "/proc/thread-self/net/fib_trie";
/// The main table of IPv4, with the interfaces.
const ROUTES: &str = "/proc/thread-self/net/route";
const ROUTES6: &str = "/proc/thread-self/net/ipv6_route";

/// The first of our candidates that overlaps no address and no route (the default route aside).
pub fn free_pool() -> Option<IpNet> {
    choose(&routes(&std::fs::read_to_string(TRIE).unwrap_or_default()))
}

/// What of this machine's addresses and routes the pool would overlap. Those of Calico's own interfaces do not count:
/// they come and go with its pools.
pub fn overlapping(pool: IpNet) -> Vec<IpNet> {
    let text = |path| std::fs::read_to_string(path).unwrap_or_default();
    let calicos = addresses::of_interfaces(is_calicos).unwrap_or_default();
    let mut calicos: Vec<IpNet> = calicos.iter().flat_map(|net| [net.trunc(), net.addr().into()]).collect();
    let used: Vec<IpNet> = match pool {
        IpNet::V4(_) => {
            calicos.extend(routes_of_calico(&text(ROUTES)).into_iter().map(IpNet::V4));
            routes(&text(TRIE)).into_iter().map(IpNet::V4).collect()
        }
        IpNet::V6(_) => routes6(&text(ROUTES6)).into_iter().map(IpNet::V6).collect(),
    };
    let overlaps = |net: &IpNet| pool.contains(net) || net.contains(&pool);
    used.into_iter().filter(|net| overlaps(net) && !calicos.contains(net)).collect()
}

/// Whether Calico, or this program in its place, makes the interface: a task's or a tunnel's.
fn is_calicos(interface: &str) -> bool {
    let tunnels = ["tunl0", "vxlan.calico", "vxlan-v6.calico", "wireguard.cali", "wg-v6.cali"];
    interface.starts_with("cali") || tunnels.contains(&interface)
}

/// Lines like `cali12ab  0340A8C0  00000000  0005  0  0  0  FFFFFFFF …`: the bytes of addresses as they lie in memory.
fn routes_of_calico(table: &str) -> Vec<Ipv4Net> {
    let number =
        |text: &str| u32::from_str_radix(text, 16).ok().map(|number| Ipv4Addr::from(number.to_ne_bytes()));
    let net = |line: &str| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let (interface, destination, mask) = (words.first()?, words.get(1)?, words.get(7)?);
        is_calicos(interface).then(|| Ipv4Net::with_netmask(number(destination)?, number(mask)?).ok())?
    };
    table.lines().filter_map(net).collect()
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

/// Lines begin with a destination and its length, in hexadecimal digits. Default routes and those to loopback and to
/// multicast groups are left out, and those of Calico's interfaces, whose names end the lines.
fn routes6(text: &str) -> Vec<Ipv6Net> {
    let net = |line: &str| {
        let mut words = line.split_whitespace();
        let address = u128::from_str_radix(words.next()?, 16).ok()?;
        let length = u8::from_str_radix(words.next()?, 16).ok()?;
        let interface = words.last()?;
        (!is_calicos(interface)).then(|| Ipv6Net::new(address.into(), length).ok())?
    };
    let mut found: Vec<Ipv6Net> = text
        .lines()
        .filter_map(net)
        .filter(|net| net.prefix_len() > 0 && !net.addr().is_loopback() && !net.addr().is_multicast())
        .collect();
    found.sort();
    found.dedup();
    found
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
    fn routes_of_ipv6_without_those_that_every_host_has() {
        let line = |net: &str| {
            format!(
                "{net} {} 00 {} 00000100 00000001 00000000 00000001     lo",
                "0".repeat(32),
                "0".repeat(32)
            )
        };
        let text = [
            "fd000065000000000000000000000000 40",
            "00000000000000000000000000000001 80",
            "ff000000000000000000000000000000 08",
            "00000000000000000000000000000000 00",
        ];
        let text = text.map(line).join("\n");
        assert_eq!(routes6(&text), ["fd00:65::/64".parse::<Ipv6Net>().unwrap()]);
        assert!(routes6("nonsense\n12 zz\n").is_empty());
    }

    #[test]
    fn routes_of_calicos_interfaces_are_told_from_others() {
        let table = "Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\tMTU\tWindow\tIRTT\n\
            eth0\t00024D0A\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0\n\
            cali12ab\t05004D0A\t00000000\t0005\t0\t0\t0\tFFFFFFFF\t0\t0\t0\n\
            vxlan.calico\t00014D0A\t00014D0A\t0003\t0\t0\t0\tC0FFFFFF\t0\t0\t0\n";
        let text: Vec<String> = routes_of_calico(table).iter().map(ToString::to_string).collect();
        assert_eq!(text, ["10.77.0.5/32", "10.77.1.0/26"]);
    }

    #[test]
    fn the_first_range_that_overlaps_nothing() {
        let used = routes(EXAMPLE);
        let text: Vec<String> = used.iter().map(ToString::to_string).collect();
        assert_eq!(text, ["10.65.3.4/32", "192.168.1.0/24"]);
        assert_eq!(choose(&used), Some("10.165.0.0/16".parse().unwrap()));
        assert_eq!(choose(&[]), Some("192.168.0.0/16".parse().unwrap()));
    }
}
