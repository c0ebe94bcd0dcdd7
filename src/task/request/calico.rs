//! What a task requests of Calico, by four variables of its own environment.
//!
//! | variable | values | not set, with the other one set |
//! | --- | --- | --- |
//! | `CALICO_IP` | `auto` (IPv4), `auto6`, an address; a comma list with at most one of each family | `auto` |
//! | `CALICO_PROFILE` | a profile, or a comma list | `profile.default` of config.toml |
//! | `CALICO_POOL` | an IP pool by its name or CIDR, or a comma list | any pool that serves the node |
//! | `SERVICE_PORT` | `3000`; a comma list; a name in front becomes a tag: `80,https:443` | no port |
//!
//! No CALICO variable: no request, and SERVICE_PORT belongs to the app alone. Blanks around a value or an item are
//! ignored. A variable that is there but empty is an error and not "not set": an app whose template went wrong must not
//! end up on the host's network in silence. Everything here is pure.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};

use ipnet::IpNet;

pub use crate::calico::{AddressRequest, Family};
use crate::config::Config;
use crate::error::{Code, Failure};
use crate::names::{is_resource_name, LABEL_MAX};

pub const CALICO_IP: &str = "CALICO_IP";
pub const CALICO_PROFILE: &str = "CALICO_PROFILE";
pub const CALICO_POOL: &str = "CALICO_POOL";
pub const SERVICE_PORT: &str = "SERVICE_PORT";

/// More than any app publishes; keeps a Consul registration within reason.
const MAX_ITEMS: usize = 64;

/// How the profiles begin that Calico keeps for Kubernetes' namespaces and service accounts: who has one is selected
/// by `namespaceSelector` and `serviceAccountSelector` of its policies.
const OF_KUBERNETES: [&str; 2] = ["kns.", "ksa."];

/// A valid request. The order of addresses, profiles and ports is the app's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CalicoRequest {
    /// One or two, never two of one family.
    pub addresses: Vec<AddressRequest>,
    /// Empty: the default profile; see [`CalicoRequest::within`].
    pub profiles: Vec<String>,
    /// Names or CIDRs of the IP pools that all addresses come from; empty: any.
    pub pools: Vec<String>,
    pub ports: Vec<ServicePort>,
}

impl fmt::Display for CalicoRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let addresses: Vec<String> = self
            .addresses
            .iter()
            .map(|address| match address {
                AddressRequest::Auto(Family::V4) => "auto".to_owned(),
                AddressRequest::Auto(Family::V6) => "auto6".to_owned(),
                AddressRequest::Explicit(address) => address.to_string(),
            })
            .collect();
        write!(f, "{}", addresses.join(", "))?;
        match &self.profiles[..] {
            [] => write!(f, ", default profile"),
            [profile] => write!(f, ", profile {profile}"),
            profiles => write!(f, ", profiles {}", profiles.join(", ")),
        }?;
        match &self.pools[..] {
            [] => Ok(()),
            [pool] => write!(f, ", pool {pool}"),
            pools => write!(f, ", pools {}", pools.join(", ")),
        }
    }
}

/// A port of the task that others find in Consul.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServicePort {
    pub port: u16,
    pub name: Option<String>,
}

impl Default for CalicoRequest {
    /// What a task gets that only names the network `calico`.
    fn default() -> Self {
        let addresses = vec![AddressRequest::Auto(Family::V4)];
        Self { addresses, profiles: Vec::new(), pools: Vec::new(), ports: Vec::new() }
    }
}

impl CalicoRequest {
    /// Reads the request out of the task's own variables; `None` when there is none. With
    /// `by_network` the task has asked already, by naming the network `calico`.
    pub fn read<'a>(
        variable: impl Fn(&str) -> Option<&'a str>,
        by_network: bool,
    ) -> Result<Option<Self>, Failure> {
        let (ip, profile, pool) = (variable(CALICO_IP), variable(CALICO_PROFILE), variable(CALICO_POOL));
        if ip.is_none() && profile.is_none() && pool.is_none() && !by_network {
            return Ok(None);
        }
        let default = Self::default();
        Ok(Some(Self {
            addresses: ip.map(addresses).transpose()?.unwrap_or(default.addresses),
            profiles: profile.map(profiles).transpose()?.unwrap_or_default(),
            pools: pool.map(pools).transpose()?.unwrap_or_default(),
            ports: variable(SERVICE_PORT).map(ports).transpose()?.unwrap_or_default(),
        }))
    }

    /// Is one of its addresses of IPv6?
    pub fn wants_ipv6(&self) -> bool {
        self.addresses.iter().any(|address| family(*address) == Family::V6)
    }

    /// The request within the operator's limits, with the default profile filled in.
    pub fn within(mut self, config: &Config) -> Result<Self, Failure> {
        for address in &self.addresses {
            if let (AddressRequest::Explicit(address), false) = (address, config.limits.explicit_addresses) {
                return Err(not_allowed(format!(
                    "CALICO_IP {address} is not allowed: this cluster gives out addresses by itself (limits.explicit_addresses); use CALICO_IP=auto"
                )));
            }
        }
        let allowed = &config.limits.profiles;
        for profile in &self.profiles {
            if allowed.contains(profile) || *profile == config.profile.default {
                continue;
            }
            if OF_KUBERNETES.iter().any(|prefix| profile.starts_with(prefix)) {
                return Err(not_allowed(format!(
                    "CALICO_PROFILE {profile} is not allowed: it stands for a namespace or service account of Kubernetes (limits.profiles can name it)"
                )));
            }
            if !allowed.is_empty() {
                return Err(not_allowed(format!(
                    "CALICO_PROFILE {profile} is not allowed here (limits.profiles); allowed are: {}",
                    allowed.join(", ")
                )));
            }
        }
        if self.profiles.is_empty() {
            self.profiles.push(config.profile.default.clone());
        }
        Ok(self)
    }
}

fn addresses(text: &str) -> Result<Vec<AddressRequest>, Failure> {
    let mut wanted: Vec<AddressRequest> = Vec::new();
    for item in items(text) {
        let address = address(item, text)?;
        if wanted.iter().any(|other| family(*other) == family(address)) {
            return Err(ip_failure(format!(
                "CALICO_IP {} asks for two {} addresses; a task gets at most one of each family",
                shown(text),
                family_name(family(address))
            )));
        }
        wanted.push(address);
    }
    Ok(wanted)
}

fn address(item: &str, text: &str) -> Result<AddressRequest, Failure> {
    let wrong = |why: &str| {
        Err(ip_failure(format!(
            "CALICO_IP {} {why}; use auto (IPv4), auto6, an address such as 192.168.1.5, or one of each family: auto,auto6",
            shown(text)
        )))
    };
    match item {
        "" => return wrong("is empty or has an empty item"),
        "auto" => return Ok(AddressRequest::Auto(Family::V4)),
        "auto6" => return Ok(AddressRequest::Auto(Family::V6)),
        _ => {}
    }
    if item.contains('/') {
        return wrong("has a prefix length; a task gets a single address");
    }
    let Ok(address) = item.parse::<IpAddr>() else {
        return wrong(&with_item(item, text, "is not an address"));
    };
    if !is_usable(address) {
        return wrong(&with_item(item, text, "cannot be the address of a container"));
    }
    Ok(AddressRequest::Explicit(address))
}

/// What is wrong with an item, which is named when it is not the whole value: the message shows that already.
fn with_item(item: &str, text: &str, wrong: &str) -> String {
    match item == text.trim() {
        true => wrong.to_owned(),
        false => format!("has the item {}, which {wrong}", shown(item)),
    }
}

fn not_allowed(message: String) -> Failure {
    Failure::new(Code::NotAllowed, message)
}

/// No loopback, multicast and so on; whether a pool has the address is for the datastore to say.
fn is_usable(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(ip) => {
            !(ip.is_unspecified()
                || ip.is_loopback()
                || ip.is_multicast()
                || ip.is_broadcast()
                || ip.is_link_local())
        }
        IpAddr::V6(ip) => {
            let link_local = ip.segments()[0] & 0xffc0 == 0xfe80;
            // An IPv4 address in IPv6 clothes would be looked for in the wrong pools.
            let mapped = ip.to_ipv4_mapped().is_some();
            !(ip.is_unspecified() || ip == Ipv6Addr::LOCALHOST || ip.is_multicast() || link_local || mapped)
        }
    }
}

fn family(request: AddressRequest) -> Family {
    match request {
        AddressRequest::Auto(family) => family,
        AddressRequest::Explicit(IpAddr::V4(_)) => Family::V4,
        AddressRequest::Explicit(IpAddr::V6(_)) => Family::V6,
    }
}

fn family_name(family: Family) -> &'static str {
    match family {
        Family::V4 => "IPv4",
        Family::V6 => "IPv6",
    }
}

fn profiles(text: &str) -> Result<Vec<String>, Failure> {
    let wrong = |why: String| {
        Failure::new(
            Code::ProfileInvalid,
            format!("CALICO_PROFILE {} {why}; a profile is named by lower-case letters, digits, inner dashes and dots, several are separated by commas", shown(text)),
        )
    };
    let mut wanted: Vec<String> = Vec::new();
    for item in items(text) {
        if item.is_empty() {
            return Err(wrong("is empty or has an empty item".into()));
        }
        if !is_resource_name(item) {
            return Err(wrong(with_item(item, text, "is not a profile name")));
        }
        // Named twice means no more than named once.
        if !wanted.iter().any(|other| other == item) {
            wanted.push(item.to_owned());
        }
    }
    match wanted.len() {
        0..=MAX_ITEMS => Ok(wanted),
        _ => Err(wrong(format!("names more than {MAX_ITEMS} profiles"))),
    }
}

fn pools(text: &str) -> Result<Vec<String>, Failure> {
    let wrong = |why: String| {
        Failure::new(
            Code::PoolInvalid,
            format!("CALICO_POOL {} {why}; name IP pools of the cluster, or write their CIDRs, several separated by commas", shown(text)),
        )
    };
    let mut wanted: Vec<String> = Vec::new();
    for item in items(text) {
        if item.is_empty() {
            return Err(wrong("is empty or has an empty item".into()));
        }
        let pool = match (item.parse::<IpNet>(), is_resource_name(item)) {
            (Ok(cidr), _) if cidr.trunc() == cidr => cidr.to_string(),
            (Ok(cidr), _) => {
                let bits = format!("is not a CIDR: the network of that length is {}", cidr.trunc());
                return Err(wrong(with_item(item, text, &bits)));
            }
            (Err(_), true) => item.to_owned(),
            (Err(_), false) => {
                return Err(wrong(with_item(item, text, "is neither the name of a pool nor a CIDR")))
            }
        };
        if !wanted.contains(&pool) {
            wanted.push(pool);
        }
    }
    match wanted.len() {
        0..=MAX_ITEMS => Ok(wanted),
        _ => Err(wrong(format!("names more than {MAX_ITEMS} pools"))),
    }
}

fn ports(text: &str) -> Result<Vec<ServicePort>, Failure> {
    let wrong = |why: String| {
        Failure::new(
            Code::PortInvalid,
            format!("SERVICE_PORT {} {why}; use a port such as 3000, or a list in which names may stand in front: 80,https:443", shown(text)),
        )
    };
    let mut wanted: Vec<ServicePort> = Vec::new();
    for item in items(text) {
        if item.is_empty() {
            return Err(wrong("is empty or has an empty item".into()));
        }
        let (name, number) = match item.split_once(':') {
            Some((name, number)) => (Some(name.trim()), number.trim()),
            None => (None, item),
        };
        if let Some(name) = name.filter(|name| !is_port_name(name)) {
            return Err(wrong(format!("has an invalid name: {}", shown(name))));
        }
        // `+80` and `0080` parse in Rust, but they are not meant as a port.
        let plain = number.bytes().all(|byte| byte.is_ascii_digit()) && !number.starts_with('0');
        let Some(port) = number.parse().ok().filter(|port: &u16| plain && *port > 0) else {
            return Err(wrong(with_item(number, text, "is not a port between 1 and 65535")));
        };
        let name = name.map(str::to_owned);
        if wanted.iter().any(|other| other.port == port || (name.is_some() && other.name == name)) {
            return Err(wrong("names a port twice".into()));
        }
        wanted.push(ServicePort { port, name });
    }
    match wanted.len() {
        0..=MAX_ITEMS => Ok(wanted),
        _ => Err(wrong(format!("has more than {MAX_ITEMS} ports"))),
    }
}

fn is_port_name(name: &str) -> bool {
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    (1..=LABEL_MAX).contains(&name.len())
        && name.bytes().all(legal)
        && name.starts_with(|c: char| c.is_ascii_alphanumeric())
}

/// The items of a comma list; a list without a comma has one, an empty text an empty one.
fn items(text: &str) -> impl Iterator<Item = &str> {
    text.split(',').map(str::trim)
}

fn ip_failure(message: String) -> Failure {
    Failure::new(Code::IpInvalid, message)
}

/// A user's text in a message: quoted, on one line, not longer than a line.
pub fn shown(text: &str) -> String {
    const MAX: usize = 80;
    let mut shown: String = text.chars().take(MAX).flat_map(char::escape_debug).collect();
    if text.chars().nth(MAX).is_some() {
        shown.push('…');
    }
    format!("'{shown}'")
}
