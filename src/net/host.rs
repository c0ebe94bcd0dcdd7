//! The host-wide part of `dataplane = "local"`: forwarding on, and the firewall, once for all tasks;
//! and exactly back to what was there before.
//!
//! Switching forwarding on is more than one setting: the kernel sets it for every interface, turns
//! `accept_redirects` off, and for IPv6 forgets default routes learnt from router advertisements
//! unless `accept_ra` is 2 (net/ipv4/devinet.c, net/ipv6/addrconf.c). So all of these are remembered.

use std::fs;

use ipnet::IpNet;

use super::marker::{LockedMarker, Marker, Saved};
use super::{firewall, sysctl, NetError};

/// One family's switch, and the settings per interface that it drags along.
struct Family {
    /// The folder with one folder an interface.
    folder: &'static str,
    switch: &'static str,
    settings: [&'static str; 2],
}

const IPV4: Family = Family {
    folder: "net/ipv4/conf",
    switch: "net/ipv4/conf/all/forwarding",
    settings: ["forwarding", "accept_redirects"],
};
const IPV6: Family = Family {
    folder: "net/ipv6/conf",
    switch: "net/ipv6/conf/all/forwarding",
    settings: ["forwarding", "accept_ra"],
};

/// Is everything there that a task of these families needs? Cheap: it runs on every launch.
pub(super) fn is_ready(marker: &Marker, wanted: &Marker) -> bool {
    let on = |family: &Family| matches!(sysctl::read(family.switch), Ok(None)) || is_on(family);
    marker.ready
        && wanted.pools.iter().all(|pool| marker.pools.contains(pool))
        && (!wanted.ipv4 || marker.ipv4 && on(&IPV4))
        && (!wanted.ipv6 || marker.ipv6 && on(&IPV6))
        && firewall::is_present(&active_pools(marker))
}

/// Brings the host there, from wherever it is: untouched, half done by a process that died, or done
/// for fewer pools.
pub(super) async fn prepare(held: &mut LockedMarker, wanted: &Marker) -> Result<(), NetError> {
    held.marker.ready = false;
    held.marker.ipv4 |= wanted.ipv4;
    held.marker.ipv6 |= wanted.ipv6;
    for pool in &wanted.pools {
        if !held.marker.pools.contains(pool) {
            held.marker.pools.push(*pool);
        }
    }
    let families: Vec<&Family> =
        [(held.marker.ipv4, &IPV4), (held.marker.ipv6, &IPV6)].iter().filter(|f| f.0).map(|f| f.1).collect();
    for family in &families {
        remember(&mut held.marker, family);
    }
    for chain in firewall::dropping_chains()? {
        if !held.marker.chains.contains(&chain) {
            held.marker.chains.push(chain);
        }
    }
    for program in firewall::dropping_legacy().await? {
        if !held.marker.legacy.contains(&program) {
            held.marker.legacy.push(program);
        }
    }
    held.save()?;
    firewall::apply(&active_pools(&held.marker), &held.marker.chains, &held.marker.legacy).await?;
    for family in &families {
        switch_on(family)?;
    }
    held.marker.ready = true;
    held.save()
}

/// Gives everything back. The marker stays until all of it has succeeded.
pub(super) async fn restore(held: &mut LockedMarker) -> Result<(), NetError> {
    if !held.marker.ipv4 && !held.marker.ipv6 {
        return held.clear();
    }
    held.marker.ready = false;
    held.save()?;
    // First the switches, which set every interface; then the interfaces one by one.
    let (switches, others): (Vec<&Saved>, Vec<&Saved>) = held
        .marker
        .sysctls
        .iter()
        .partition(|saved| [IPV4.switch, IPV6.switch].contains(&saved.key.as_str()));
    let mut result = Ok(());
    for saved in switches.into_iter().chain(others) {
        // An interface that is gone has no settings any more.
        if !matches!(sysctl::read(&saved.key), Ok(None)) {
            result = result.and(sysctl::write(&saved.key, &saved.value).map(|_| ()));
        }
    }
    result = result.and(firewall::remove(&held.marker.chains, &held.marker.legacy).await);
    result?;
    held.clear()
}

/// Notes what the switch will drag along, unless it is on already or was noted by an earlier attempt.
fn remember(marker: &mut Marker, family: &Family) {
    if is_on(family) || marker.sysctls.iter().any(|saved| saved.key == family.switch) {
        return;
    }
    for interface in interfaces(family) {
        for setting in family.settings {
            let key = format!("{}/{interface}/{setting}", family.folder);
            if let Ok(Some(value)) = sysctl::read(&key) {
                marker.sysctls.push(Saved { key, value });
            }
        }
    }
}

/// Pools of the families in use: a kernel without IPv6 needs no table for it.
fn active_pools(marker: &Marker) -> Vec<IpNet> {
    let active = |pool: &&IpNet| if pool.addr().is_ipv4() { marker.ipv4 } else { marker.ipv6 };
    marker.pools.iter().filter(active).copied().collect()
}

fn switch_on(family: &Family) -> Result<(), NetError> {
    if family.settings.contains(&"accept_ra") && !is_on(family) {
        for interface in interfaces(family).iter().filter(|name| *name != "all" && *name != "default") {
            let key = format!("{}/{interface}/accept_ra", family.folder);
            if matches!(sysctl::read(&key), Ok(Some(value)) if value == "1") {
                sysctl::write(&key, "2")?;
            }
        }
    }
    sysctl::write(family.switch, "1").map(|_| ())
}

fn is_on(family: &Family) -> bool {
    matches!(sysctl::read(family.switch), Ok(Some(value)) if value != "0")
}

fn interfaces(family: &Family) -> Vec<String> {
    let entries = fs::read_dir(format!("/proc/sys/{}", family.folder)).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().into_string().ok()).collect()
}
