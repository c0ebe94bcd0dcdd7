//! Rules and selectors of records, as Calico's syncer hands them to Felix.
//!
//! What Felix's validation refuses is an error here: Felix then treats the whole policy or profile as missing.

use std::net::IpAddr;

use ipnet::IpNet;
use serde::Deserialize;
use serde_json::Value;

use super::super::selector::{self, LabelTest, Selector};
use super::flow::{protocol_of, SCTP, TCP, UDP};
use super::rule::{PolicyRule, RuleAction, RulePeer, RulePort};

pub(in crate::calico) const NAMESPACE: &str = "projectcalico.org/namespace";
const SERVICE_ACCOUNT: &str = "projectcalico.org/serviceaccount";
const OF_NAMESPACES: &str = "pcns.";
const OF_SERVICE_ACCOUNTS: &str = "pcsa.";

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawRule {
    action: Option<String>,
    ip_version: Option<u8>,
    protocol: Option<Value>,
    not_protocol: Option<Value>,
    icmp: Option<RawIcmp>,
    #[serde(rename = "notICMP")]
    not_icmp: Option<RawIcmp>,
    #[serde(default)]
    source: Option<RawPeer>,
    #[serde(default)]
    destination: Option<RawPeer>,
    http: Option<Value>,
}

#[derive(Deserialize)]
struct RawIcmp {
    #[serde(rename = "type")]
    kind: Option<u8>,
    code: Option<u8>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct RawPeer {
    nets: Option<Vec<String>>,
    not_nets: Option<Vec<String>>,
    selector: Option<String>,
    not_selector: Option<String>,
    namespace_selector: Option<String>,
    ports: Option<Vec<Value>>,
    not_ports: Option<Vec<Value>>,
    service_accounts: Option<Value>,
    services: Option<Value>,
}

impl PolicyRule {
    /// Reads a rule of a record; `namespace` is that of a NetworkPolicy. The error says why Felix refuses it.
    pub(in crate::calico) fn read(value: &Value, namespace: Option<&str>) -> Result<Self, String> {
        let raw: RawRule = serde_json::from_value(value.clone()).map_err(|error| error.to_string())?;
        let action = match raw.action.as_deref().unwrap_or_default() {
            "Allow" => RuleAction::Allow,
            "Deny" => RuleAction::Deny,
            "Pass" => RuleAction::Pass,
            "Log" => RuleAction::Log,
            other => return Err(format!("its action '{other}' is not Allow, Deny, Log or Pass")),
        };
        let objection = objection(&raw);
        let protocol = raw.protocol.as_ref().map(protocol).transpose()?;
        // Only the names say the family: 1 and 58 do not.
        let by_name = match raw.protocol.as_ref().and_then(Value::as_str).map(str::to_lowercase).as_deref() {
            Some("icmp") => Some(4),
            Some("icmpv6") => Some(6),
            _ => None,
        };
        let mut foreign = Vec::new();
        if raw.http.is_some() {
            foreign.push("http");
        }
        let icmp = |raw: Option<RawIcmp>| raw.and_then(|icmp| Some((icmp.kind?, icmp.code)));
        let mut peer = |raw: Option<RawPeer>| {
            let raw = raw.unwrap_or_default();
            for (name, field) in [("serviceAccounts", &raw.service_accounts), ("services", &raw.services)] {
                if field.is_some() && !foreign.contains(&name) {
                    foreign.push(name);
                }
            }
            RulePeer::read(raw, namespace)
        };
        let (source, destination) = (peer(raw.source)?, peer(raw.destination)?);
        let rule = Self {
            action,
            version: raw.ip_version.or(by_name),
            protocol,
            not_protocol: raw.not_protocol.as_ref().map(self::protocol).transpose()?,
            icmp: icmp(raw.icmp),
            not_icmp: icmp(raw.not_icmp),
            source,
            destination,
            foreign,
            objection,
        };
        rule.check()?;
        Ok(rule)
    }

    /// Ports need a protocol that has them.
    fn check(&self) -> Result<(), String> {
        let lists = [&self.source, &self.destination].map(|peer| [&peer.ports, &peer.not_ports]);
        let mut ports = lists.into_iter().flatten().flatten();
        match self.protocol {
            None if ports.any(|port| matches!(port, RulePort::Numbers(_))) => {
                Err("it has ports and no protocol".to_owned())
            }
            Some(protocol) if ![TCP, UDP, SCTP].contains(&protocol) && ports.next().is_some() => {
                Err("it has ports of a protocol that has none".to_owned())
            }
            _ => Ok(()),
        }
    }
}

impl RulePeer {
    fn read(raw: RawPeer, namespace: Option<&str>) -> Result<Self, String> {
        let given = |text: &Option<String>| text.as_deref().is_some_and(|text| !text.is_empty());
        let parsed = |text: &Option<String>| {
            let text = text.as_deref().filter(|text| !text.is_empty());
            text.map(selector::parse).transpose()
        };
        let (own, mut not_selector) = (parsed(&raw.selector)?, parsed(&raw.not_selector)?);
        let of_namespace = match (parsed(&raw.namespace_selector)?, namespace) {
            (Some(selector), _) => {
                let (all, global) = (has(NAMESPACE), Selector::Not(Box::new(has(NAMESPACE))));
                Some(selector.prefixed(OF_NAMESPACES).meaning(&all, Some(&global)))
            }
            (None, Some(namespace)) => Some(is_of_namespace(namespace)),
            (None, None) => None,
        };
        let restricts = own.is_some()
            || raw.service_accounts.is_some()
            || not_selector.is_some()
            || given(&raw.namespace_selector);
        let mut parts: Vec<Selector> = of_namespace.filter(|_| restricts).into_iter().chain(own).collect();
        // Of known endpoints alone, where the rule speaks of these; else of every address.
        if !parts.is_empty() {
            parts.extend(not_selector.take().map(|inner| Selector::Not(Box::new(inner))));
        }
        let selector = match parts.len() {
            0 => None,
            1 => parts.pop(),
            _ => Some(Selector::Every(parts)),
        };
        let nets = |list: Option<Vec<String>>| {
            list.into_iter().flatten().filter_map(|text| network(&text)).collect()
        };
        let ports =
            |list: Option<Vec<Value>>| list.into_iter().flatten().map(|port| read_port(&port)).collect();
        Ok(Self {
            nets: nets(raw.nets),
            not_nets: nets(raw.not_nets),
            selector,
            not_selector,
            ports: Result::<Vec<_>, String>::from_iter::<Vec<_>>(ports(raw.ports))?,
            not_ports: Result::<Vec<_>, String>::from_iter::<Vec<_>>(ports(raw.not_ports))?,
        })
    }
}

/// What calicoctl refuses of a rule and Felix still renders; of a profile with such a rule Felix takes no labels.
fn objection(raw: &RawRule) -> Option<&'static str> {
    let peers = || [&raw.source, &raw.destination].into_iter().flatten();
    let excluded = peers().filter_map(|peer| peer.not_nets.as_ref()).flatten();
    let all = peers().filter_map(|peer| peer.nets.as_ref()).flatten().chain(excluded.clone());
    let parsed = |text: &String| text.parse::<IpNet>().ok().filter(|net| *net == net.trunc());
    let Some(nets) = all.map(parsed).collect::<Option<Vec<IpNet>>>() else {
        return Some("it has a network that is not written as one, such as 10.0.0.0/8");
    };
    if excluded.filter_map(parsed).any(|net| net.prefix_len() == 0) {
        return Some("it excludes all addresses");
    }
    let has = |v4: bool| nets.iter().any(|net| net.addr().is_ipv4() == v4);
    let names = [&raw.protocol, &raw.not_protocol].map(|own| own.as_ref().and_then(Value::as_str));
    let is_named = |name: &str| names.iter().flatten().any(|own| own.eq_ignore_ascii_case(name));
    let is_mixed = match raw.ip_version {
        None => has(true) && has(false),
        Some(4) => has(false) || is_named("ICMPv6"),
        Some(_) => has(true) || is_named("ICMP"),
    };
    is_mixed.then_some("it speaks of both IPv4 and IPv6")
}

/// The selector of a policy, with its namespace and those over what only Kubernetes has.
pub(in crate::calico) fn policy_selector(spec: &Value, namespace: Option<&str>) -> Result<Selector, String> {
    let given = |field: &str| {
        let text = spec.get(field).and_then(Value::as_str).filter(|text| !text.is_empty());
        text.map(selector::parse).transpose()
    };
    let mut parts: Vec<Selector> = given("selector")?.into_iter().collect();
    parts.extend(namespace.map(is_of_namespace));
    let both = |parts: Vec<Selector>| match <[Selector; 1]>::try_from(parts) {
        Ok([one]) => one,
        Err(parts) if parts.is_empty() => Selector::All,
        Err(parts) => Selector::Every(parts),
    };
    // Of a GlobalNetworkPolicy, Felix takes `all()` for all that has a namespace then, in its own selector too.
    if let (Some(selector), None) = (given("namespaceSelector")?, namespace) {
        parts.push(selector.prefixed(OF_NAMESPACES));
        parts = vec![both(parts).meaning(&has(NAMESPACE), None)];
    }
    if let Some(selector) = given("serviceAccountSelector")? {
        parts.push(selector.prefixed(OF_SERVICE_ACCOUNTS));
        if namespace.is_none() {
            parts = vec![both(parts).meaning(&has(SERVICE_ACCOUNT), None)];
        }
    }
    Ok(both(parts))
}

/// Whether Felix takes a label of this key from an endpoint's own record.
pub(in crate::calico) fn is_own_label(key: &str) -> bool {
    !key.starts_with(OF_NAMESPACES) && !key.starts_with(OF_SERVICE_ACCOUNTS)
}

fn has(key: &str) -> Selector {
    Selector::Label(key.to_owned(), LabelTest::Present)
}

fn is_of_namespace(namespace: &str) -> Selector {
    Selector::Label(NAMESPACE.to_owned(), LabelTest::Is(namespace.to_owned()))
}

/// A network, or an address alone; what is neither is left out, as Felix does.
pub(in crate::calico) fn network(text: &str) -> Option<IpNet> {
    text.parse::<IpNet>().ok().or_else(|| Some(text.parse::<IpAddr>().ok()?.into())).map(|net| net.trunc())
}

pub(in crate::calico) fn protocol(value: &Value) -> Result<u8, String> {
    let number = match value {
        Value::Number(number) => number.as_u64().and_then(|number| u8::try_from(number).ok()),
        Value::String(name) => protocol_of(name),
        _ => None,
    };
    number.ok_or_else(|| format!("its protocol {value} is not one that Calico knows"))
}

fn read_port(value: &Value) -> Result<RulePort, String> {
    let refused = || format!("its port {value} is not a number, a range or a name");
    let number = |text: &str| text.parse::<u16>().map_err(|_| refused());
    match value {
        Value::Number(own) => {
            let port = own.as_u64().and_then(|port| u16::try_from(port).ok()).ok_or_else(refused)?;
            Ok(RulePort::Numbers(port..=port))
        }
        Value::String(text) if !text.is_empty() && text.bytes().all(|c| c.is_ascii_digit()) => {
            number(text).map(|port| RulePort::Numbers(port..=port))
        }
        Value::String(text) => match text.split_once(':') {
            Some((first, last)) => {
                let (first, last) = (number(first)?, number(last)?);
                if first > last {
                    Err(refused())
                } else {
                    Ok(RulePort::Numbers(first..=last))
                }
            }
            None if text.is_empty() => Err(refused()),
            None => Ok(RulePort::Named(text.clone())),
        },
        _ => Err(refused()),
    }
}
