//! Links and what is on them, through rtnetlink. Units: MTU in bytes; MACs as `aa:bb:…` in lower case.
//!
//! The kernel's answers as seen with Calico's own CNI plugin are in `tests/fixtures/net`.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use futures_util::StreamExt;
use ipnet::IpNet;
use netlink_packet_route::address::{AddressAttribute, AddressHeaderFlags, AddressMessage};
use netlink_packet_route::link::{InfoKind, LinkAttribute, LinkInfo, LinkMessage};
use netlink_packet_route::route::{RouteAttribute, RouteFlags, RouteMessage, RouteProtocol, RouteScope};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use nix::errno::Errno;
use rtnetlink::RouteMessageBuilder;

use super::netlink::{errno, Netlink};
use super::netns::{self, Namespace};
use super::plan::{self, Route, HOST_MAC};
use super::{sysctl, NetError};
use crate::config::Config;

/// What interfaces of tasks are called, of ours and of every other orchestrator's with Calico.
pub(super) const INTERFACE_PREFIX: &str = "cali";
/// How the kernel answers for an address to which no route leads, or one that drops.
const NOWHERE: [Errno; 4] = [Errno::ENETUNREACH, Errno::EHOSTUNREACH, Errno::EINVAL, Errno::EACCES];

/// A link as the kernel shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct KernelLink {
    pub index: u32,
    pub mac: Vec<u8>,
    pub mtu: u32,
    pub veth: bool,
    /// The number of the namespace that its other end is in, where that is not this one.
    pub peer: Option<i32>,
    /// Of a veth: the other end's index there.
    pub peer_index: Option<u32>,
}

/// Gives the container exactly these addresses, and the routes and neighbours that go with them.
pub async fn assign(namespace: &Namespace, container: &str, addresses: &[IpAddr]) -> Result<(), NetError> {
    let inside = Netlink::inside(namespace).await?;
    let link = find(&inside, container).await?.ok_or_else(|| NetError::NoLink(container.to_owned()))?;
    if addresses.iter().any(IpAddr::is_ipv6) {
        let name = container.to_owned();
        // `default` is for what the task makes itself; `lo` for ::1.
        let switch_on = move || {
            ["default", "lo", &name].iter().try_for_each(|link| {
                sysctl::write(&format!("net/ipv6/conf/{link}/disable_ipv6"), "0").map(drop)
            })
        };
        netns::enter(namespace, switch_on).await??;
    }
    let plan = plan::container(&present(&inside, link.index).await?, addresses);
    let failed = |action| move |source| failed(action, container, source);
    for address in &plan.add {
        add_address(&inside, link.index, *address).await.map_err(failed("add an address to"))?;
    }
    for net in &plan.remove {
        let message = address_message(link.index, *net);
        match inside.handle().address().del(message).execute().await {
            Err(error) if errno(&error) != Some(Errno::EADDRNOTAVAIL) => {
                return Err(failed("remove an address from")(error))
            }
            _ => {}
        }
    }
    for next_hop in &plan.neighbours {
        let neighbours = inside.handle().neighbours();
        let add = neighbours.add(link.index, *next_hop).link_layer_address(&HOST_MAC).replace();
        add.execute().await.map_err(failed("add a neighbour to"))?;
    }
    for route in &plan.routes {
        add_route(&inside, link.index, route).await.map_err(failed("add a route through"))?;
    }
    for route in &plan.stale_routes {
        delete_route(&inside, link.index, route).await.map_err(failed("remove a route from"))?;
    }
    Ok(())
}

/// Deletes a link of this host, and with it its other end; `false` when it is gone already.
pub async fn delete_link(name: &str) -> Result<bool, NetError> {
    delete(&Netlink::here()?, name).await
}

/// Every link of this host, with what it is for where that is written down.
pub async fn purposes() -> Result<BTreeMap<String, Option<String>>, NetError> {
    let list = Netlink::here()?.dump("links", RouteNetlinkMessage::GetLink(LinkMessage::default())).await?;
    let named = list.into_iter().filter_map(|message| {
        let RouteNetlinkMessage::NewLink(link) = message else { return None };
        let (mut name, mut purpose) = (None, None);
        for attribute in link.attributes {
            match attribute {
                LinkAttribute::IfName(text) => name = Some(text),
                LinkAttribute::IfAlias(text) => purpose = Some(text),
                _ => {}
            }
        }
        Some((name?, purpose))
    });
    Ok(named.collect())
}

/// Does a link of this name exist on this host?
pub async fn exists(link: &str) -> Result<bool, NetError> {
    Ok(find(&Netlink::here()?, link).await?.is_some())
}

/// Does this host reach the address through the link by a route of its own (/32, /128)?
///
/// One lookup in place of a listing: a host with BGP may have very many routes.
pub async fn has_host_route(link: &str, address: IpAddr) -> Result<bool, NetError> {
    let here = Netlink::here()?;
    let Some(found) = find(&here, link).await? else { return Ok(false) };
    let route = host_route(&here, address).await;
    Ok(route.map_err(|error| failed("look up a route through", link, error))? == Some(found.index))
}

/// The interface of a task to which a host route of this address leads, by its name. Whatever has made the route
/// (this release, the one before, Felix), as long as it is there the task has the address.
pub async fn task_with_route(address: IpAddr) -> Result<Option<String>, NetError> {
    task_with_route_at(&Netlink::here()?, address).await
}

pub(super) async fn task_with_route_at(here: &Netlink, address: IpAddr) -> Result<Option<String>, NetError> {
    let failed = |source| NetError::Route { address, source: Box::new(source) };
    let Some(index) = host_route(here, address).await.map_err(failed)? else { return Ok(None) };
    let mut answers = here.handle().link().get().match_index(index).execute();
    match answers.next().await {
        Some(Ok(link)) => Ok(link.attributes.into_iter().find_map(|attribute| match attribute {
            LinkAttribute::IfName(name) if name.starts_with(INTERFACE_PREFIX) => Some(name),
            _ => None,
        })),
        // Gone with its route meanwhile.
        Some(Err(error)) if errno(&error) == Some(Errno::ENODEV) => Ok(None),
        Some(Err(error)) => Err(failed(error)),
        None => Ok(None),
    }
}

/// The link to which the address's own route (/32, /128) leads without a gateway.
async fn host_route(here: &Netlink, address: IpAddr) -> Result<Option<u32>, rtnetlink::Error> {
    let mut message = route_message(None, &plan::host_route(address));
    message.header.flags = RouteFlags::FibMatch;
    message.header.scope = RouteScope::Universe;
    let mut answers = here.handle().route().get(message).execute();
    let route = match answers.next().await {
        Some(Ok(route)) => route,
        // No route, or one that leads nowhere: Calico's own for a block with free addresses is a black hole.
        Some(Err(error)) if errno(&error).is_some_and(|errno| NOWHERE.contains(&errno)) => return Ok(None),
        Some(Err(error)) => return Err(error),
        None => return Ok(None),
    };
    let gateway = route.attributes.iter().any(|it| matches!(it, RouteAttribute::Gateway(_)));
    let own = route.header.destination_prefix_length == IpNet::from(address).max_prefix_len();
    let index = route.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Oif(index) => Some(*index),
        _ => None,
    });
    Ok(index.filter(|_| own && !gateway))
}

/// The MTU of both ends: configured, else what Felix found right for this host, else the kernel's.
pub fn mtu(config: &Config) -> Option<u32> {
    let from_felix = || std::fs::read_to_string(&config.paths.mtu_file).ok()?.trim().parse().ok();
    config.node.mtu.or_else(from_felix)
}

pub(super) async fn find(netlink: &Netlink, name: &str) -> Result<Option<KernelLink>, NetError> {
    let mut answers = netlink.handle().link().get().match_name(name).execute();
    match answers.next().await {
        Some(Ok(message)) => Ok(Some(as_link(&message))),
        Some(Err(error)) if errno(&error) == Some(Errno::ENODEV) => Ok(None),
        Some(Err(error)) => Err(failed("find", name, error)),
        None => Ok(None),
    }
}

pub(super) async fn add_route(netlink: &Netlink, index: u32, route: &Route) -> Result<(), rtnetlink::Error> {
    let message = route_message(Some(index), route);
    netlink.handle().route().add(message).replace().execute().await
}

pub(super) async fn delete_route(
    netlink: &Netlink,
    index: u32,
    route: &Route,
) -> Result<(), rtnetlink::Error> {
    match netlink.handle().route().del(route_message(Some(index), route)).execute().await {
        Err(error) if matches!(errno(&error), Some(Errno::ESRCH | Errno::ENODEV)) => Ok(()),
        result => result,
    }
}

pub(super) fn failed(action: &'static str, link: &str, source: rtnetlink::Error) -> NetError {
    NetError::Link { action, link: link.to_owned(), source: Box::new(source) }
}

pub(super) async fn delete(netlink: &Netlink, name: &str) -> Result<bool, NetError> {
    let Some(link) = find(netlink, name).await? else { return Ok(false) };
    match netlink.handle().link().del(link.index).execute().await {
        Ok(()) => Ok(true),
        Err(error) if errno(&error) == Some(Errno::ENODEV) => Ok(false),
        Err(error) => Err(failed("delete", name, error)),
    }
}

/// The addresses on a link, with their prefixes.
pub(super) async fn present(netlink: &Netlink, index: u32) -> Result<Vec<IpNet>, NetError> {
    let list = netlink.dump("addresses", RouteNetlinkMessage::GetAddress(AddressMessage::default())).await?;
    let nets = list.into_iter().filter_map(|message| match message {
        RouteNetlinkMessage::NewAddress(message) if message.header.index == index => {
            // IPv4 has its own address in `Local`, IPv6 usually has only `Address`.
            let local = message.attributes.iter().find_map(|a| match a {
                AddressAttribute::Local(ip) => Some(*ip),
                _ => None,
            });
            let plain = message.attributes.iter().find_map(|a| match a {
                AddressAttribute::Address(ip) => Some(*ip),
                _ => None,
            });
            IpNet::new(local.or(plain)?, message.header.prefix_len).ok()
        }
        _ => None,
    });
    Ok(nets.collect())
}

async fn add_address(netlink: &Netlink, index: u32, address: IpAddr) -> Result<(), rtnetlink::Error> {
    let net = IpNet::from(address);
    let mut add = netlink.handle().address().add(index, address, net.prefix_len()).replace();
    // The IPAM hands out each address once, so no other interface on the link can have it.
    add.message_mut().header.flags |= AddressHeaderFlags::Nodad;
    add.execute().await
}

fn address_message(index: u32, net: IpNet) -> AddressMessage {
    let mut message = AddressMessage::default();
    message.header.index = index;
    message.header.family = family(net.addr());
    message.header.prefix_len = net.prefix_len();
    message.attributes.push(AddressAttribute::Local(net.addr()));
    message.attributes.push(AddressAttribute::Address(net.addr()));
    message
}

/// Routes carry the protocol "boot", as those of Calico's CNI plugin and of Felix do.
fn route_message(index: Option<u32>, route: &Route) -> RouteMessage {
    let prefix = route.destination.prefix_len();
    let mut message = match route.destination.addr() {
        IpAddr::V4(address) => {
            RouteMessageBuilder::<Ipv4Addr>::new().destination_prefix(address, prefix).build()
        }
        IpAddr::V6(address) => {
            RouteMessageBuilder::<Ipv6Addr>::new().destination_prefix(address, prefix).build()
        }
    };
    if prefix == 0 {
        message.attributes.retain(|a| !matches!(a, RouteAttribute::Destination(_)));
    }
    message.header.protocol = RouteProtocol::Boot;
    match route.gateway {
        Some(gateway) => message.attributes.push(RouteAttribute::Gateway(gateway.into())),
        None if route.destination.addr().is_ipv4() => message.header.scope = RouteScope::Link,
        None => {}
    }
    message.attributes.extend(index.map(RouteAttribute::Oif));
    message
}

fn family(address: IpAddr) -> AddressFamily {
    match address {
        IpAddr::V4(_) => AddressFamily::Inet,
        IpAddr::V6(_) => AddressFamily::Inet6,
    }
}

fn as_link(message: &LinkMessage) -> KernelLink {
    let index = message.header.index;
    let mut link = KernelLink { index, mac: Vec::new(), mtu: 0, veth: false, peer: None, peer_index: None };
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::Address(mac) => link.mac = mac.clone(),
            LinkAttribute::Mtu(mtu) => link.mtu = *mtu,
            LinkAttribute::Link(index) => link.peer_index = Some(*index),
            LinkAttribute::LinkNetNsId(number) => link.peer = Some(*number),
            LinkAttribute::LinkInfo(info) => link.veth = info.contains(&LinkInfo::Kind(InfoKind::Veth)),
            _ => {}
        }
    }
    link
}

pub(super) fn mac_text(mac: &[u8]) -> String {
    mac.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(":")
}
