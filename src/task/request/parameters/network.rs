//! The parameters for networks, names and ports.

use std::net::IpAddr;

use super::values::{fields, integer, pair, ports, protocol};
use super::{push, Draft};
use crate::workload::{NetworkEndpoint, Published};

/// A network's name, or `name=mine,alias=db,ip=10.0.0.5` and its kind.
pub(in crate::task::request) fn attachment(text: &str) -> Result<NetworkEndpoint, String> {
    let mut end = NetworkEndpoint::default();
    if !text.contains('=') {
        text.clone_into(&mut end.network);
    } else {
        for field in fields(text)? {
            // The docker CLI lowers the case of the whole field.
            let field = field.to_lowercase();
            let (key, value) = field.split_once('=').ok_or("is not name=network,key=value")?;
            let value = value.trim();
            match key.trim() {
                "name" => value.clone_into(&mut end.network),
                "alias" => end.aliases.push(value.to_owned()),
                "ip" => end.ipv4 = Some(address(value, IpAddr::is_ipv4)?),
                "ip6" => end.ipv6 = Some(address(value, IpAddr::is_ipv6)?),
                "mac-address" => end.mac_address = Some(mac(value)?),
                "link-local-ip" => end.link_local.push(address(value, |_| true)?),
                "driver-opt" => end.driver_options.extend([pair(value)?]),
                "gw-priority" => end.gateway_priority = integer(value)?,
                _ => return Err("has a field that no network has".into()),
            }
        }
    }
    match end.network.trim() {
        "" => Err("names no network".into()),
        // Docker shows `default` as it is written, and Mesos finds no address under that name.
        "default" => Ok(NetworkEndpoint { network: "bridge".into(), ..end }),
        _ => Ok(end),
    }
}

/// The first has been applied with the TaskInfo's own network, whose place it takes.
pub(super) fn network(draft: &mut Draft<'_>, text: &str) -> Result<(), String> {
    draft.networks += 1;
    let end = attachment(text)?;
    let known = draft.spec.endpoints.iter().any(|other| other.network == end.network);
    match draft.networks {
        1 => Ok(()),
        _ if known => Err("names a network for the second time".into()),
        _ => {
            draft.spec.endpoints.push(end);
            Ok(())
        }
    }
}

/// Gives the first network what `ip`, `network-alias` and the like have said.
pub(super) fn finish(draft: &mut Draft<'_>) -> Result<(), String> {
    let spec = &mut *draft.spec;
    let defined = |network: &str| {
        !matches!(network, "" | "default" | "bridge" | "host" | "none") && !network.starts_with("container:")
    };
    let own = &mut draft.own;
    let addressed = own.ipv4.is_some() || own.ipv6.is_some();
    if !defined(&spec.network) && (addressed || !own.aliases.is_empty() || !own.link_local.is_empty()) {
        return Err(format!(
            "the parameters ip, ip6, link-local-ip and network-alias need a user-defined network; the task has '{}'",
            spec.network
        ));
    }
    if spec.endpoints.is_empty() {
        spec.endpoints.push(NetworkEndpoint { network: spec.network.clone(), ..NetworkEndpoint::default() });
    }
    if spec.endpoints.len() > 1 && spec.endpoints.iter().any(|end| !defined(&end.network)) {
        return Err("the task asks for several networks, of which each must be a user-defined one".into());
    }
    let Some(first) = spec.endpoints.first_mut() else { return Ok(()) };
    let twice = (first.ipv4.is_some() && own.ipv4.is_some())
        || (first.ipv6.is_some() && own.ipv6.is_some())
        || (first.mac_address.is_some() && own.mac_address.is_some())
        || (!first.aliases.is_empty() && !own.aliases.is_empty())
        || (!first.link_local.is_empty() && !own.link_local.is_empty());
    if twice {
        return Err(
            "the parameter network and another parameter contradict each other about the first network"
                .into(),
        );
    }
    first.aliases.append(&mut own.aliases);
    first.link_local.append(&mut own.link_local);
    first.ipv4 = first.ipv4.take().or(own.ipv4.take());
    first.ipv6 = first.ipv6.take().or(own.ipv6.take());
    first.mac_address = first.mac_address.take().or(own.mac_address.take());
    Ok(())
}

pub(super) fn address(text: &str, fits: fn(&IpAddr) -> bool) -> Result<String, String> {
    match text.trim().parse::<IpAddr>() {
        Ok(address) if fits(&address) => Ok(address.to_string()),
        Ok(_) => Err("is an address of the other family".into()),
        Err(_) => Err("is not an address".into()),
    }
}

/// Six bytes in hexadecimal; kept as it is written.
pub(super) fn mac(text: &str) -> Result<String, String> {
    let parts: Vec<&str> = text.split([':', '-']).collect();
    let byte = |part: &&str| part.len() == 2 && part.bytes().all(|byte| byte.is_ascii_hexdigit());
    match parts.len() == 6 && parts.iter().all(byte) {
        true => Ok(text.to_owned()),
        false => Err("is not a MAC address".into()),
    }
}

pub(super) fn add_host(draft: &mut Draft<'_>, text: &str) -> Result<(), String> {
    const WRONG: &str = "is not host:address";
    // The first colon only: an IPv6 address has colons of its own.
    let (host, address) = text.split_once('=').or_else(|| text.split_once(':')).ok_or(WRONG)?;
    let bare = address.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(address);
    let known = bare == "host-gateway" || bare.parse::<IpAddr>().is_ok();
    if host.trim().is_empty() || host.contains(':') || !known {
        return Err(WRONG.into());
    }
    push(&mut draft.spec.extra_hosts, &format!("{host}:{bare}"))
}

/// A domain; `.` means none.
pub(super) fn dns_search(draft: &mut Draft<'_>, text: &str) -> Result<(), String> {
    let domain = text.trim();
    let domain = if domain == "." { domain } else { domain.strip_suffix('.').unwrap_or(domain) };
    let label = |label: &str| {
        !label.is_empty()
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
    };
    let letter = domain.bytes().any(|byte| byte.is_ascii_alphabetic());
    if domain != "." && (!letter || domain.len() > 254 || !domain.split('.').all(label)) {
        return Err("is not a domain".into());
    }
    push(&mut draft.spec.dns_search, domain)
}

/// `80`, `8000-8010`, `53/udp`.
pub(super) fn expose(draft: &mut Draft<'_>, text: &str) -> Result<(), String> {
    let (range, protocol) = protocol(text)?;
    let (first, last) = ports(range)?;
    draft.spec.exposed.extend((first..=last).map(|port| format!("{port}/{protocol}")));
    Ok(())
}

/// `[[address:]host port:]container port[/protocol]` with ranges, or `published=8080,target=80,protocol=tcp`.
pub(super) fn publish(draft: &mut Draft<'_>, text: &str) -> Result<(), String> {
    let short = match text.contains('=') {
        true => long_form(text)?,
        false => text.to_owned(),
    };
    let (front, container) =
        short.rsplit_once(':').map_or((None, &*short), |(front, last)| (Some(front), last));
    let (ip, host) = front.map_or(("", ""), |front| front.rsplit_once(':').unwrap_or(("", front)));
    let bare = ip.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(ip);
    let host_ip = if bare.is_empty() { String::new() } else { address(bare, |_| true)? };
    let (range, protocol) = protocol(container)?;
    let (first, last) = ports(range)?;
    let host_range = if host.is_empty() { None } else { Some(ports(host)?) };
    for (step, port) in (first..=last).enumerate() {
        let host_port = match host_range {
            None => String::new(),
            // One port of the container takes whichever of the host's range is free.
            Some((from, to)) if first == last && from != to => format!("{from}-{to}"),
            Some((from, to)) if to - from == last - first => (usize::from(from) + step).to_string(),
            Some(_) => return Err("has ranges of different lengths".into()),
        };
        let container_port = format!("{port}/{protocol}");
        draft.spec.published.push(Published { host_ip: host_ip.clone(), host_port, container_port });
    }
    Ok(())
}

fn long_form(text: &str) -> Result<String, String> {
    let (mut published, mut target, mut protocol) = ("", "", "tcp");
    for field in text.split(',') {
        match field.split_once('=') {
            Some(("published", value)) => published = value,
            Some(("target", value)) => target = value,
            Some(("protocol", value)) => protocol = value,
            // `mode` means something to swarms only.
            Some((key, _)) if !key.is_empty() => {}
            _ => return Err("is not published=8080,target=80,protocol=tcp".into()),
        }
    }
    Ok(format!("{published}:{target}/{protocol}"))
}
