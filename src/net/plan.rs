//! Which addresses, routes and neighbours a container gets: pure, nothing is touched here.
//!
//! The shape is Calico's: every address stands alone (/32, /128), the next hop is a made-up address
//! on the host end of the veth pair. IPv4 asks for it with proxy ARP elsewhere; we add permanent
//! neighbours, because a host without a default route would not answer.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

/// The hardware address of every host end, as Calico has it.
pub const HOST_MAC: [u8; 6] = [0xee; 6];
/// The IPv4 next hop of every container; no interface carries it.
pub const NEXT_HOP_V4: Ipv4Addr = Ipv4Addr::new(169, 254, 1, 1);
/// The IPv6 next hop: the link-local address that the kernel forms from [`HOST_MAC`].
pub const NEXT_HOP_V6: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0xecee, 0xeeff, 0xfeee, 0xeeee);

/// One route through the interface at hand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    pub destination: IpNet,
    /// `None`: directly on the link.
    pub gateway: Option<IpAddr>,
}

/// What has to be done to a container's interface, in this order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct InterfacePlan {
    /// New addresses come first: the kernel drops all IPv4 routes with the last IPv4 address.
    pub add: Vec<IpAddr>,
    pub remove: Vec<IpNet>,
    pub neighbours: Vec<IpAddr>,
    /// Each one only after those before it.
    pub routes: Vec<Route>,
    /// Next hops of a family that the container no longer has.
    pub stale_routes: Vec<Route>,
}

/// From the addresses that an interface has to those that it is to have.
pub fn container(present: &[IpNet], wanted: &[IpAddr]) -> InterfacePlan {
    let mut plan = InterfacePlan::default();
    let ours: Vec<IpNet> = present.iter().copied().filter(|net| !is_link_local(net.addr())).collect();
    for address in wanted {
        if !ours.contains(&IpNet::from(*address)) && !plan.add.contains(address) {
            plan.add.push(*address);
        }
    }
    plan.remove =
        ours.iter().copied().filter(|net| !wanted.iter().any(|w| IpNet::from(*w) == *net)).collect();
    for is_v4 in [true, false] {
        let routes = next_hop_routes(is_v4);
        if wanted.iter().any(|address| address.is_ipv4() == is_v4) {
            plan.neighbours.push(next_hop(is_v4));
            plan.routes.extend(routes);
        } else if ours.iter().any(|net| net.addr().is_ipv4() == is_v4) {
            plan.stale_routes.extend(routes.into_iter().rev());
        }
    }
    plan
}

/// The host's route to one address of a container.
pub fn host_route(address: IpAddr) -> Route {
    Route { destination: IpNet::from(address), gateway: None }
}

fn next_hop(is_v4: bool) -> IpAddr {
    if is_v4 {
        NEXT_HOP_V4.into()
    } else {
        NEXT_HOP_V6.into()
    }
}

fn next_hop_routes(is_v4: bool) -> Vec<Route> {
    let gateway = next_hop(is_v4);
    let everywhere = if is_v4 { Ipv4Addr::UNSPECIFIED.into() } else { IpAddr::from(Ipv6Addr::UNSPECIFIED) };
    let default = Route {
        // A prefix of zero fits every family.
        destination: IpNet::new_assert(everywhere, 0),
        gateway: Some(gateway),
    };
    if is_v4 {
        vec![host_route(gateway), default]
    } else {
        // fe80::/64 is on every IPv6 link already.
        vec![default]
    }
}

fn is_link_local(address: IpAddr) -> bool {
    matches!(address, IpAddr::V6(v6) if v6.is_unicast_link_local())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn net(text: &str) -> IpNet {
        text.parse().unwrap()
    }

    #[test]
    fn dual_stack_from_nothing() {
        let plan = container(&[net("fe80::1/64")], &[ip("10.65.0.49"), ip("fd80::e0")]);
        assert_eq!(plan.add, [ip("10.65.0.49"), ip("fd80::e0")]);
        assert!(plan.remove.is_empty() && plan.stale_routes.is_empty());
        let hop4 = ip("169.254.1.1");
        let hop6 = ip("fe80::ecee:eeff:feee:eeee");
        assert_eq!(
            plan.routes,
            [
                Route { destination: net("169.254.1.1/32"), gateway: None },
                Route { destination: net("0.0.0.0/0"), gateway: Some(hop4) },
                Route { destination: net("::/0"), gateway: Some(hop6) },
            ]
        );
        assert_eq!(plan.neighbours, [hop4, hop6]);
    }

    #[test]
    fn a_changed_address_is_replaced() {
        let plan = container(&[net("10.65.0.1/32")], &[ip("10.65.0.2")]);
        assert_eq!((plan.add, plan.remove), (vec![ip("10.65.0.2")], vec![net("10.65.0.1/32")]));
    }

    #[test]
    fn a_family_given_up_loses_its_next_hop() {
        let plan = container(&[net("10.65.0.1/32"), net("fd80::1/128")], &[ip("10.65.0.1")]);
        assert_eq!(plan.remove, [net("fd80::1/128")]);
        assert_eq!(
            plan.stale_routes,
            [Route { destination: net("::/0"), gateway: Some(NEXT_HOP_V6.into()) }]
        );
    }

    proptest! {
        #[test]
        fn applying_a_plan_leads_to_what_was_wanted(
            present in prop::collection::hash_set(any::<IpAddr>(), 0..4),
            wanted in prop::collection::hash_set(any::<IpAddr>(), 0..4),
        ) {
            let link_local = |a: &IpAddr| is_link_local(*a);
            let present: Vec<IpNet> = present.into_iter().map(IpNet::from).collect();
            let wanted: Vec<IpAddr> = wanted.into_iter().filter(|a| !link_local(a)).collect();
            let plan = container(&present, &wanted);
            let mut after: Vec<IpNet> = present.iter().copied().filter(|n| !plan.remove.contains(n)).collect();
            after.extend(plan.add.iter().map(|a| IpNet::from(*a)));
            after.retain(|n| !is_link_local(n.addr()));
            after.sort();
            let mut goal: Vec<IpNet> = wanted.iter().map(|a| IpNet::from(*a)).collect();
            goal.sort();
            prop_assert_eq!(&after, &goal);
            let again = container(&after, &wanted);
            prop_assert!(again.add.is_empty() && again.remove.is_empty() && again.stale_routes.is_empty());
        }
    }
}
