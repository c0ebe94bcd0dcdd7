//! Blocks of different sizes that share addresses: pure arithmetic on networks and keys.
//!
//! Calico cuts a pool into blocks of one size, but a pool may be deleted and made again with another size while
//! blocks of the old size live, and pools may lie inside each other. A block is therefore looked for under every
//! size that Calico allows, not only under its pool's present one.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::ops::RangeInclusive;

use ipnet::IpNet;

use super::pool::Pool;
use super::{keys, Family};

/// The prefix lengths that blocks may have: those that Calico allows, and those of pools beyond them.
#[derive(Debug, Clone, Default)]
pub(super) struct Lengths {
    unusual: BTreeSet<(Family, u8)>,
}

/// The prefix lengths that Calico allows for blocks, the largest block first.
fn usual(family: Family) -> RangeInclusive<u8> {
    match family {
        Family::V4 => 20..=32,
        Family::V6 => 116..=128,
    }
}

impl Lengths {
    /// Those of a cluster with these pools.
    pub(super) fn of(pools: &[Pool]) -> Self {
        let lengths = pools.iter().map(|pool| (Family::of(pool.cidr.addr()), pool.block_length));
        Self { unusual: lengths.filter(|(family, length)| !usual(*family).contains(length)).collect() }
    }

    /// Every block that could contain an address, the largest first.
    pub(super) fn containing(&self, address: IpAddr) -> Vec<IpNet> {
        let family = Family::of(address);
        let unusual = self.unusual.iter().filter(|(of, _)| *of == family).map(|(_, length)| *length);
        let nets = unusual.chain(usual(family)).filter_map(|length| IpNet::new(address, length).ok());
        nets.map(|net| net.trunc()).collect()
    }

    /// Every larger block that could contain this one.
    pub(super) fn wider(&self, cidr: &IpNet) -> Vec<IpNet> {
        let mut nets = self.containing(cidr.network());
        nets.retain(|net| net.prefix_len() < cidr.prefix_len());
        nets
    }
}

/// Do the two share an address? Networks do so only when one contains the other.
pub(super) fn overlap(a: &IpNet, b: &IpNet) -> bool {
    a.contains(b) || b.contains(a)
}

/// Prefixes of keys below which all blocks inside a block stand. Others may stand there as well: an address's text
/// shows only its last number.
pub(super) fn prefixes_inside(cidr: &IpNet) -> Vec<String> {
    let blocks = keys::blocks(Family::of(cidr.addr()));
    match cidr {
        IpNet::V4(net) if net.prefix_len() >= 20 => {
            let first = u32::from(net.network());
            let count = 1_u32 << 24_u8.saturating_sub(net.prefix_len());
            let third = |step: u32| std::net::Ipv4Addr::from(first.wrapping_add(step << 8)).octets();
            (0..count).map(third).map(|[a, b, c, _]| format!("{blocks}{a}.{b}.{c}.")).collect()
        }
        IpNet::V6(net) if net.prefix_len() >= 112 => {
            // All but the first have another number than zero at the end, so that their zeros are abbreviated alike.
            let first = net.network();
            let second = std::net::Ipv6Addr::from(u128::from(first) | 1).to_string();
            let shared = second.rsplit_once(':').map_or("", |(front, _)| front);
            let shared = format!("{blocks}{shared}:");
            let alone = format!("{blocks}{first}-");
            match alone.starts_with(&shared) {
                true => vec![shared],
                false => vec![alone, shared],
            }
        }
        _ => vec![blocks],
    }
}

/// Prefixes of the keys of all blocks whose text differs from an address's in the last number alone.
pub(super) fn prefixes_beside(address: IpAddr) -> Vec<String> {
    let length = if address.is_ipv4() { 24 } else { 112 };
    IpNet::new(address, length).map(|net| prefixes_inside(&net.trunc())).unwrap_or_default()
}

/// Networks that are taken, for questions about many others.
pub(super) struct Occupied {
    /// In order and without overlaps.
    nets: Vec<IpNet>,
}

impl Occupied {
    /// Pairs of networks that may overlap.
    pub(super) fn new(nets: impl Iterator<Item = IpNet>) -> Self {
        Self { nets: IpNet::aggregate(&nets.collect()) }
    }

    /// Is an address of it taken?
    pub(super) fn touches(&self, cidr: &IpNet) -> bool {
        let behind = self.nets.partition_point(|net| net.network() <= cidr.broadcast());
        // Those in front of it end before it, or the last one of them reaches into it.
        self.nets[..behind].last().is_some_and(|net| net.broadcast() >= cidr.network())
    }

    /// The largest network inside one that is taken in part, of which nothing is taken.
    pub(super) fn gap(&self, cidr: &IpNet) -> Option<IpNet> {
        let behind = self.nets.partition_point(|net| net.network() <= cidr.network());
        if self.nets[..behind].last().is_some_and(|net| net.contains(cidr)) {
            return None;
        }
        let lengths = cidr.prefix_len() + 1..=cidr.max_prefix_len();
        lengths.flat_map(|length| cidr.subnets(length).into_iter().flatten()).find(|net| !self.touches(net))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn net(text: &str) -> IpNet {
        text.parse().unwrap()
    }

    #[test]
    fn a_block_is_looked_for_under_every_size() {
        let lengths = Lengths::default();
        let four = lengths.containing("10.65.3.77".parse().unwrap());
        assert_eq!((four.len(), four[0], four[12]), (13, net("10.65.0.0/20"), net("10.65.3.77/32")));
        let six = lengths.containing("fd00::1:4d".parse().unwrap());
        assert_eq!((six.len(), six[0], six[12]), (13, net("fd00::1:0/116"), net("fd00::1:4d/128")));
        assert_eq!(lengths.wider(&net("10.65.3.64/26")).last(), Some(&net("10.65.3.0/25")));
        let pool = Pool::parse(br#"{"spec":{"cidr":"10.0.0.0/8","blockSize":18}}"#, "p").unwrap();
        assert_eq!(Lengths::of(&[pool]).wider(&net("10.65.0.0/20")), [net("10.65.0.0/18")]);
    }

    #[test]
    fn addresses_of_overlapping_blocks_are_taken_and_the_rest_is_free() {
        let taken =
            ["10.0.0.64/28", "10.0.0.0/28", "10.0.0.16/28", "10.0.0.0/30", "10.0.1.0/24", "fd00::/122"];
        let taken = Occupied::new(taken.into_iter().map(net));
        for (cidr, touched) in [
            ("10.0.0.0/26", true),
            ("10.0.0.32/27", false),
            ("10.0.0.72/30", true),
            ("10.0.0.80/28", false),
            ("10.0.0.0/8", true),
            ("10.0.2.0/24", false),
            ("fd00::3f/128", true),
            ("fd00::40/122", false),
            ("9.0.0.0/8", false),
        ] {
            assert_eq!(taken.touches(&net(cidr)), touched, "{cidr}");
        }
        assert_eq!(taken.gap(&net("10.0.0.0/26")), Some(net("10.0.0.32/27")));
        assert_eq!(taken.gap(&net("10.0.0.64/27")), Some(net("10.0.0.80/28")));
        assert_eq!(taken.gap(&net("10.0.1.128/26")), None);
        assert_eq!(taken.gap(&net("10.0.0.0/27")), None);
        assert_eq!(taken.gap(&net("fd00::/121")), Some(net("fd00::40/122")));
    }

    /// Addresses with zeros in all places: where they are abbreviated decides about a key's text.
    fn any_v6() -> impl Strategy<Value = IpAddr> {
        prop::collection::vec(prop::sample::select(vec![0_u16, 0, 1, 0xffff]), 8).prop_map(|words| {
            let words: [u16; 8] = words.try_into().unwrap();
            IpAddr::from(words)
        })
    }

    proptest! {
        #[test]
        fn no_block_inside_is_missed(
            address in prop_oneof![any::<[u8; 4]>().prop_map(IpAddr::from), any_v6(), any::<[u16; 8]>().prop_map(IpAddr::from)],
            outer in 0_u8..=12, inner in 0_u8..=12, host in any::<u16>(),
        ) {
            let least = *usual(Family::of(address)).start();
            let outer = IpNet::new(address, least + outer.min(inner)).unwrap().trunc();
            let step = usize::from(host) % super::super::block::size(&outer);
            let within = super::super::block::address(&outer, step);
            let inner = IpNet::new(within, (least + inner).max(outer.prefix_len())).unwrap().trunc();
            let key = keys::block(&inner);
            let prefixes = prefixes_inside(&outer);
            prop_assert!(prefixes.len() <= 16);
            prop_assert!(prefixes.iter().any(|prefix| key.starts_with(prefix.as_str())), "{} in {:?}", key, prefixes);
            prop_assert!(overlap(&inner, &outer) && overlap(&outer, &inner));
            let beside = prefixes_beside(within);
            prop_assert!(outer.max_prefix_len() - outer.prefix_len() > 8 || prefixes.iter().all(|prefix| beside.contains(prefix)));
        }

        #[test]
        fn networks_overlap_exactly_when_they_share_an_address(nets in prop::collection::vec((any::<u8>(), 24_u8..=32), 0..12), other in (any::<u8>(), 24_u8..=32)) {
            let net = |(last, length): (u8, u8)| IpNet::new(IpAddr::from([10, 0, 0, last]), length).unwrap().trunc();
            let nets: Vec<IpNet> = nets.into_iter().map(net).collect();
            let other = net(other);
            let taken = Occupied::new(nets.iter().copied());
            prop_assert_eq!(taken.touches(&other), nets.iter().any(|net| overlap(net, &other)));
            if let Some(gap) = taken.gap(&other) {
                prop_assert!(other.contains(&gap) && !nets.iter().any(|net| overlap(net, &gap)));
            }
        }
    }
}
