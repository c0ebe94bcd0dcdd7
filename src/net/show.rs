//! What the kernel shows of tasks' interfaces: for people, and read only.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use netlink_packet_route::link::{LinkAttribute, LinkFlags, LinkMessage};
use netlink_packet_route::route::{RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteType};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use super::link::{find, mac_text, present, INTERFACE_PREFIX};
use super::netlink::Netlink;
use super::netns::Namespace;
use super::plan::Route;
use super::NetError;

/// The host end of a task's veth pair.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct InterfaceFigures {
    /// Bytes.
    pub mtu: u32,
    pub up: bool,
    /// What the task has received.
    pub received: Traffic,
    /// What the task has sent.
    pub sent: Traffic,
}

/// Counted since the interface was made.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Traffic {
    pub bytes: u64,
    pub packets: u64,
}

/// A task's interface as it is inside its namespace.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Inside {
    /// `aa:bb:…` in lower case.
    pub mac: String,
    /// Bytes.
    pub mtu: u32,
    pub addresses: Vec<IpNet>,
    /// Those of the main table that lead through it.
    pub routes: Vec<Route>,
}

/// The host ends of all tasks, of ours and of every other orchestrator's with Calico, by name.
pub async fn figures() -> Result<BTreeMap<String, InterfaceFigures>, NetError> {
    let list = Netlink::here()?.dump("links", RouteNetlinkMessage::GetLink(LinkMessage::default())).await?;
    let links = list.into_iter().filter_map(|message| match message {
        RouteNetlinkMessage::NewLink(link) => as_figures(&link),
        _ => None,
    });
    Ok(links.filter(|(name, _)| name.starts_with(INTERFACE_PREFIX)).collect())
}

/// An interface inside a namespace; none when it has no interface of that name.
pub async fn inside(namespace: &Namespace, name: &str) -> Result<Option<Inside>, NetError> {
    let inside = Netlink::inside(namespace).await?;
    let Some(link) = find(&inside, name).await? else { return Ok(None) };
    let addresses = present(&inside, link.index).await?;
    let list = inside.dump("routes", RouteNetlinkMessage::GetRoute(RouteMessage::default())).await?;
    let routes = list.into_iter().filter_map(|message| match message {
        RouteNetlinkMessage::NewRoute(route) => through(&route, link.index),
        _ => None,
    });
    Ok(Some(Inside { mac: mac_text(&link.mac), mtu: link.mtu, addresses, routes: routes.collect() }))
}

fn as_figures(link: &LinkMessage) -> Option<(String, InterfaceFigures)> {
    let (mut name, mut figures) = (None, InterfaceFigures::default());
    figures.up = link.header.flags.contains(LinkFlags::Up);
    for attribute in &link.attributes {
        match attribute {
            LinkAttribute::IfName(text) => name = Some(text.clone()),
            LinkAttribute::Mtu(mtu) => figures.mtu = *mtu,
            // What the host's end receives is what the task has sent.
            LinkAttribute::Stats64(stats) => {
                figures.sent = Traffic { bytes: stats.rx_bytes, packets: stats.rx_packets };
                figures.received = Traffic { bytes: stats.tx_bytes, packets: stats.tx_packets };
            }
            _ => {}
        }
    }
    Some((name?, figures))
}

/// A route of the main table that leads through this link.
fn through(message: &RouteMessage, index: u32) -> Option<Route> {
    let (mut destination, mut gateway, mut leads) = (None, None, false);
    let mut table = u32::from(message.header.table);
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Destination(address) => destination = as_ip(address),
            RouteAttribute::Gateway(address) => gateway = as_ip(address),
            RouteAttribute::Oif(oif) => leads = *oif == index,
            RouteAttribute::Table(number) => table = *number,
            _ => {}
        }
    }
    let is_main = table == u32::from(RouteHeader::RT_TABLE_MAIN) && message.header.kind == RouteType::Unicast;
    let everywhere = match message.header.address_family {
        AddressFamily::Inet => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        AddressFamily::Inet6 => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        _ => return None,
    };
    let destination =
        IpNet::new(destination.unwrap_or(everywhere), message.header.destination_prefix_length).ok()?;
    (leads && is_main).then_some(Route { destination, gateway })
}

fn as_ip(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(address) => Some((*address).into()),
        RouteAddress::Inet6(address) => Some((*address).into()),
        _ => None,
    }
}
