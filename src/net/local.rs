//! `dataplane = "local"`: what Felix does elsewhere, for a laptop or the demo. No policy is enforced.
//!
//! Per task: host routes, and the link forwards and answers ARP for its neighbours. Host-wide, once:
//! forwarding, accept rules where a forward chain drops by policy, and masquerading from the pools
//! to anywhere else; kept for as long as any registered task's link exists, then restored exactly.
//!
//! ```text
//!  nothing ──enable──► marker written ──► host changed ──► ready ──last disable──► host restored ──► nothing
//!                          ▲                  │ (dies)                                  │ (dies)
//!                          └── next enable or disable repairs or undoes ◄─────────────────┘
//! ```

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use ipnet::IpNet;

use super::link::{add_route, delete_route, failed, find, task_with_route_at};
use super::marker::{LockedMarker, Marker};
use super::netlink::Netlink;
use super::{host, plan, sysctl, NetError};

/// One task's wishes.
#[derive(Debug, Clone, PartialEq)]
pub struct Local {
    /// The host end of its veth pair, which exists already.
    pub link: String,
    pub addresses: Vec<IpAddr>,
    /// All pools of the datastore: traffic between them is not masqueraded.
    pub pools: Vec<IpNet>,
    /// Where the marker and its lock lie: `<paths.run>/local`.
    pub state_dir: PathBuf,
}

/// Prepares the host for the task, where it is not prepared yet, before its addresses are certain: the rules of the
/// firewall take the longest. Whatever becomes of the task, [`disable`] takes its part away.
pub async fn begin(local: &Local) -> Result<(), NetError> {
    let mut held = LockedMarker::lock(&local.state_dir).await?;
    let wanted = wanted(local);
    if host::is_ready(&held.marker, &wanted) {
        return Ok(());
    }
    held.marker.tasks.insert(local.link.clone(), local.addresses.clone());
    host::prepare(&mut held, &wanted).await
}

/// What the task needs of the host.
fn wanted(local: &Local) -> Marker {
    Marker {
        pools: local.pools.clone(),
        ipv4: local.addresses.iter().any(IpAddr::is_ipv4),
        ipv6: local.addresses.iter().any(IpAddr::is_ipv6),
        ..Marker::default()
    }
}

/// Makes the task reachable; may be repeated, also with other addresses. A host route that leads to another task's
/// interface is an error: that task has the address, independent of the datastore.
pub async fn enable(local: &Local) -> Result<(), NetError> {
    let mut held = LockedMarker::lock(&local.state_dir).await?;
    let here = Netlink::here()?;
    let link = find(&here, &local.link).await?.ok_or_else(|| NetError::NoLink(local.link.clone()))?;
    for address in &local.addresses {
        // Tasks are set up one after the other here, so that none gets in between.
        let holder = task_with_route_at(&here, *address).await?;
        if let Some(other) = holder.filter(|other| *other != local.link) {
            return Err(NetError::RouteTaken { address: *address, link: other });
        }
    }
    let older = held.marker.tasks.insert(local.link.clone(), local.addresses.clone()).unwrap_or_default();
    let wanted = wanted(local);
    if host::is_ready(&held.marker, &wanted) {
        held.save()?;
    } else {
        host::prepare(&mut held, &wanted).await?;
    }
    set_link(&local.link, &wanted)?;
    for address in older.iter().filter(|address| !local.addresses.contains(address)) {
        let gone = delete_route(&here, link.index, &plan::host_route(*address)).await;
        gone.map_err(|source| failed("remove a route from", &local.link, source))?;
    }
    for address in &local.addresses {
        let added = add_route(&here, link.index, &plan::host_route(*address)).await;
        added.map_err(|source| failed("add a route through", &local.link, source))?;
    }
    Ok(())
}

/// Takes the task's part away, whether its link still exists or not; the last one restores the host.
pub async fn disable(local: &Local) -> Result<(), NetError> {
    let mut held = LockedMarker::lock(&local.state_dir).await?;
    let here = Netlink::here()?;
    let mut addresses = held.marker.tasks.remove(&local.link).unwrap_or_default();
    addresses.extend(&local.addresses);
    if let Some(link) = find(&here, &local.link).await? {
        for address in &addresses {
            let gone = delete_route(&here, link.index, &plan::host_route(*address)).await;
            gone.map_err(|source| failed("remove a route from", &local.link, source))?;
        }
    }
    forget_dead(&here, &mut held.marker).await?;
    if held.marker.tasks.is_empty() {
        host::restore(&mut held).await
    } else {
        held.save()
    }
}

/// Restores the host in place of users that are all dead, whose `state_dir` is about to be removed. Where tasks of one
/// of the `others` (their `state_dir`s) rely on the same settings, that one restores them when its own tasks are over.
pub async fn abandon(state_dir: &Path, others: &[PathBuf]) -> Result<(), NetError> {
    let Some(mut held) = LockedMarker::existing(state_dir).await? else { return Ok(()) };
    // Of another namespace, or of a boot that nothing is known of: the values are not this host's.
    if held.marker.boot.is_empty() || !(held.marker.ipv4 || held.marker.ipv6) {
        return held.clear();
    }
    for other in others {
        // One that cannot be read, or has just ended, needs nothing.
        let Ok(Some(mut heir)) = LockedMarker::existing(other).await else { continue };
        if heir.marker.is_used() {
            heir.marker.inherit(&held.marker);
            heir.save()?;
            return held.clear();
        }
    }
    host::restore(&mut held).await
}

/// Drops tasks from the marker whose links no longer exist, up to the first living one.
async fn forget_dead(here: &Netlink, marker: &mut Marker) -> Result<(), NetError> {
    while let Some(name) = marker.tasks.keys().next().cloned() {
        if find(here, &name).await?.is_some() {
            break;
        }
        marker.tasks.remove(&name);
    }
    Ok(())
}

fn set_link(link: &str, families: &Marker) -> Result<(), NetError> {
    let mut settings = Vec::new();
    if families.ipv4 {
        settings.push((format!("net/ipv4/conf/{link}/forwarding"), "1"));
        settings.push((format!("net/ipv4/conf/{link}/proxy_arp"), "1"));
        // Proxy ARP answers at once, not after a random part of 0.8 s.
        settings.push((format!("net/ipv4/neigh/{link}/proxy_delay"), "0"));
    }
    if families.ipv6 {
        settings.push((format!("net/ipv6/conf/{link}/forwarding"), "1"));
        settings.push((format!("net/ipv6/conf/{link}/proxy_ndp"), "1"));
    }
    for (key, value) in settings {
        sysctl::write(&key, value)?;
    }
    Ok(())
}
