//! Veth pairs: one end in the container, the other with Calico's hardware address on the host.

use std::os::fd::AsRawFd;
use std::time::Duration;

use netlink_packet_route::link::{InfoData, InfoVeth, LinkAttribute};
use nix::errno::Errno;
use rtnetlink::{LinkUnspec, LinkVeth};

use super::link::{delete, failed, find, mac_text};
use super::netlink::{errno, Netlink};
use super::netns::Namespace;
use super::peer::delete_own;
use super::plan::HOST_MAC;
use super::{sysctl, NetError};

/// Bytes, with the final NUL: the longest alias of an interface that the kernel takes.
const ALIAS_LIMIT: usize = 255;
/// How often the kernel is asked to take a hardware address, and how long it is left alone between.
const MAC_ATTEMPTS: usize = 50;
const MAC_PAUSE: Duration = Duration::from_millis(100);

/// A veth pair that is up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Veth {
    pub host: String,
    pub container: String,
    /// The hardware address of the container end, read back from the kernel: Felix makes it a permanent neighbour, so a
    /// wrong one would cut the task off for good.
    pub mac: String,
    pub mtu: u32,
}

/// Makes the pair, `container` in the namespace and `host` here, both up. A link `host` from an
/// earlier attempt is replaced; one that may be another's is an error.
///
/// `purpose` says what the pair is for: the kernel keeps it as the host end's alias for as long as the link lives, and
/// `ip link` shows it. One that is too long for the kernel is left out.
pub async fn create_veth(
    namespace: &Namespace,
    host: &str,
    container: &str,
    mtu: Option<u32>,
    purpose: Option<&str>,
) -> Result<Veth, NetError> {
    let here = Netlink::here()?;
    let make = || make(&here, namespace, host, container, mtu);
    if let Err(source) = make().await {
        if errno(&source) != Some(Errno::EEXIST) {
            return Err(failed("make", host, source));
        }
        delete_own(&here, host, Some(namespace)).await?;
        make().await.map_err(|source| failed("make", host, source))?;
    }
    match complete(&here, namespace, host, container, purpose).await {
        Ok(veth) => Ok(veth),
        Err(error) => {
            // The first error is the one to report; a later attempt deletes the link as a stale one.
            let _ = delete(&here, host).await;
            Err(error)
        }
    }
}

async fn make(
    here: &Netlink,
    namespace: &Namespace,
    host: &str,
    container: &str,
    mtu: Option<u32>,
) -> Result<(), rtnetlink::Error> {
    let file = namespace.file();
    let mut inner = LinkUnspec::new_with_name(container);
    let mut outer = LinkVeth::new(host, container).address(HOST_MAC.to_vec());
    if let Some(mtu) = mtu {
        inner = inner.mtu(mtu);
        outer = outer.mtu(mtu);
    }
    let inner = inner.setns_by_fd(file.as_raw_fd()).build();
    let outer = outer.set_info_data(InfoData::Veth(InfoVeth::Peer(inner))).build();
    here.handle().link().add(outer).execute().await
}

/// The pair that an earlier workload of this namespace had, up again, with the hardware address that its end had at
/// first. An error when the workload has put another link in its place.
pub async fn existing_veth(
    namespace: &Namespace,
    host: &str,
    container: &str,
    mac: Option<&str>,
) -> Result<Veth, NetError> {
    let (here, inside) = (Netlink::here()?, Netlink::inside(namespace).await?);
    let missing = |name: &str| NetError::NoLink(name.to_owned());
    let outer = find(&here, host).await?.ok_or_else(|| missing(host))?;
    let inner = find(&inside, container).await?.ok_or_else(|| missing(container))?;
    if !inner.veth || inner.peer_index != Some(outer.index) {
        let why = format!("it is not the other end of {host}");
        return Err(NetError::LinkTaken { link: container.to_owned(), why });
    }
    if let Some(mac) = mac.filter(|mac| **mac != mac_text(&inner.mac)) {
        let bytes = mac.split(':').filter_map(|byte| u8::from_str_radix(byte, 16).ok()).collect();
        let set = LinkUnspec::new_with_index(inner.index).address(bytes).build();
        let failed = |source| failed("set the hardware address of", container, source);
        inside.handle().link().set(set).execute().await.map_err(failed)?;
    }
    complete(&here, namespace, host, container, None).await
}

/// Moves a link from one namespace to another: what was set up in the first one, filters, rules and queues among it, stays
/// behind. Its pair and its hardware address remain.
pub async fn move_link(from: &Namespace, link: &str, to: &Namespace) -> Result<(), NetError> {
    let inside = Netlink::inside(from).await?;
    let found = find(&inside, link).await?.ok_or_else(|| NetError::NoLink(link.to_owned()))?;
    let moved = LinkUnspec::new_with_index(found.index).setns_by_fd(to.file().as_raw_fd()).build();
    inside.handle().link().set(moved).execute().await.map_err(|source| failed("move", link, source))
}

/// The hardware address of a link in the namespace; none where there is no such link.
pub async fn hardware_address(namespace: &Namespace, link: &str) -> Result<Option<String>, NetError> {
    let found = find(&Netlink::inside(namespace).await?, link).await?;
    Ok(found.map(|link| mac_text(&link.mac)))
}

/// Deletes the pair whose one end is `host`; false when there is none. An error when that link leads to another
/// namespace, in which something lives.
pub async fn delete_veth(host: &str, namespace: Option<&Namespace>) -> Result<bool, NetError> {
    delete_own(&Netlink::here()?, host, namespace).await
}

/// Switches IPv6 on for the pair's end on this host, for a task that is to have an IPv6 address. Otherwise it is on or
/// off as for every new interface of this host: its own services may listen on all addresses.
///
/// The container's end, and `lo` there, follow with the address ([`super::assign`]).
pub fn enable_ipv6(host: &str) -> Result<(), NetError> {
    sysctl::write(&format!("net/ipv6/conf/{host}/disable_ipv6"), "0").map(drop)
}

/// Everything that needs the pair to be there already.
async fn complete(
    here: &Netlink,
    namespace: &Namespace,
    host: &str,
    container: &str,
    purpose: Option<&str>,
) -> Result<Veth, NetError> {
    let index = ensure_mac(here, host).await?;
    // Before the link is up: a tentative link-local address would be no next hop for a second.
    sysctl::write(&format!("net/ipv6/conf/{host}/accept_dad"), "0")?;
    sysctl::write(&format!("net/ipv6/conf/{host}/accept_ra"), "0")?;
    let mut up = LinkUnspec::new_with_index(index).up();
    if let Some(purpose) = purpose.filter(|purpose| purpose.len() < ALIAS_LIMIT) {
        up = up.append_extra_attribute(LinkAttribute::IfAlias(purpose.to_owned()));
    }
    here.handle().link().set(up.build()).execute().await.map_err(|source| failed("set up", host, source))?;
    let inside = Netlink::inside(namespace).await?;
    let link = find(&inside, container).await?.ok_or_else(|| NetError::NoLink(container.to_owned()))?;
    // A veth end cannot be made up: it has no peer yet at that moment.
    let up = LinkUnspec::new_with_index(link.index).up().build();
    inside.handle().link().set(up).execute().await.map_err(|source| failed("set up", container, source))?;
    Ok(Veth {
        host: host.to_owned(),
        container: container.to_owned(),
        mac: mac_text(&link.mac),
        mtu: link.mtu,
    })
}

/// The kernel sometimes ignores the address given at creation, and a network manager may change it:
/// so it is read back and set again. Returns the link's index.
async fn ensure_mac(here: &Netlink, name: &str) -> Result<u32, NetError> {
    let mut found = Vec::new();
    for attempt in 0..MAC_ATTEMPTS {
        let link = find(here, name).await?.ok_or_else(|| NetError::NoLink(name.to_owned()))?;
        if link.mac == HOST_MAC {
            return Ok(link.index);
        }
        found = link.mac;
        if attempt > 0 {
            tokio::time::sleep(MAC_PAUSE).await;
        }
        let set = LinkUnspec::new_with_index(link.index).address(HOST_MAC.to_vec()).build();
        // A refusal shows when the address is read back.
        let _ = here.handle().link().set(set).execute().await;
    }
    Err(NetError::HardwareAddress {
        link: name.to_owned(),
        wanted: mac_text(&HOST_MAC),
        found: mac_text(&found),
    })
}
