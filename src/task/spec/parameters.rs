//! `container.docker.parameters`: options of `docker run` by their long names, without the dashes.
//!
//! `TABLE` is the whole story: a key that has no row is refused as not supported yet, never dropped.
//! Options that may be given once take the last value, as on a command line; they are applied after
//! everything else that the TaskInfo says.

use std::collections::BTreeMap;
use std::net::IpAddr;

use super::{environment, Failure};
use crate::mesos::messages::Parameter;
use crate::task::request::shown;
use crate::workload::{ContainerSpec, Ulimit};

/// What a parameter is for a task that has a Calico address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum WithCalico {
    Same,
    /// It would take the task out of our hands, or off its network.
    Refused,
}
use WithCalico::{Refused, Same};

/// What a parameter does.
#[derive(Clone, Copy)]
enum Effect {
    /// Changes the container; the error says what is wrong with the value.
    Spec(fn(&mut ContainerSpec, &str) -> Result<(), String>),
    /// Changes the environment.
    Variable,
    /// Has been looked at by `network` already; here it is only counted.
    Network,
    Unsupported,
}
use Effect::{Network, Spec, Unsupported, Variable};

/// Every parameter that means something here.
#[rustfmt::skip]
const TABLE: &[(&str, Effect, WithCalico)] = &[
    // key            effect                                        with Calico
    ("label",         Spec(label),                                  Same),
    ("env",           Variable,                                     Same),
    ("volume",        Spec(volume),                                 Same),
    ("add-host",      Spec(add_host),                               Same),
    ("dns",           Spec(dns),                                    Same),
    ("dns-search",    Spec(|spec, v| push(&mut spec.dns_search, v)),  Same),
    ("dns-opt",       Spec(|spec, v| push(&mut spec.dns_options, v)), Same),
    ("dns-option",    Spec(|spec, v| push(&mut spec.dns_options, v)), Same),
    ("hostname",      Spec(hostname),                               Same),
    ("cap-add",       Spec(|spec, v| push(&mut spec.cap_add, v)),   Same),
    ("cap-drop",      Spec(|spec, v| push(&mut spec.cap_drop, v)),  Same),
    ("ulimit",        Spec(ulimit),                                 Same),
    ("network",       Network,                                      Refused),
    ("net",           Network,                                      Refused),
    ("runtime",       Unsupported,                                  Refused),
    ("ip",            Unsupported,                                  Refused),
    ("ip6",           Unsupported,                                  Refused),
    ("link",          Unsupported,                                  Refused),
    ("mac-address",   Unsupported,                                  Refused),
    ("userns",        Unsupported,                                  Refused),
    ("name",          Unsupported,                                  Refused),
    ("restart",       Unsupported,                                  Refused),
    ("rm",            Unsupported,                                  Refused),
];

/// Applies all parameters in their order.
pub(super) fn apply(
    parameters: &[Parameter],
    calico: bool,
    spec: &mut ContainerSpec,
    variables: &mut BTreeMap<String, String>,
) -> Result<(), Failure> {
    let mut networks = 0;
    for Parameter { key, value } in parameters {
        let row = TABLE.iter().find(|(name, ..)| name == key);
        let (_, effect, with_calico) = row.copied().unwrap_or(("", Unsupported, Same));
        if calico && with_calico == Refused {
            return Err(refused(key));
        }
        let lines = matches!(effect, Variable) || key == "label";
        let bad = |c: char| c == '\0' || (c.is_control() && !lines);
        if value.contains(bad) && !matches!(effect, Unsupported) {
            return Err(wrong(key, value, "contains control characters"));
        }
        match effect {
            Spec(change) => change(spec, value).map_err(|reason| wrong(key, value, &reason))?,
            Variable => variable(variables, value)?,
            Network if networks == 1 => return Err(wrong(key, value, "names a second network")),
            Network => networks += 1,
            Unsupported => return Err(super::unsupported(&format!("the parameter {}", shown(key)))),
        }
    }
    Ok(())
}

fn wrong(key: &str, value: &str, reason: &str) -> Failure {
    Failure::app("CM-PARAMETER", format!("the parameter {key}={} {reason}", shown(value)))
}

fn refused(key: &str) -> Failure {
    Failure::app(
        "CM-PARAMETER",
        format!("the parameter {key} cannot be used together with Calico; remove it, or {} and {} and the network {}",
            crate::task::request::CALICO_IP, crate::task::request::CALICO_PROFILE, super::NETWORK),
    )
}

/// `NAME=value`; a name alone means the value that the task has already.
fn variable(variables: &mut BTreeMap<String, String>, text: &str) -> Result<(), Failure> {
    match text.split_once('=') {
        Some((name, value)) => environment::insert(variables, name, value),
        None if text.is_empty() => Err(wrong("env", text, "has no name")),
        None => Ok(()),
    }
}

fn push(list: &mut Vec<String>, value: &str) -> Result<(), String> {
    if value.trim().is_empty() {
        return Err("is empty".into());
    }
    list.push(value.to_owned());
    Ok(())
}

fn label(spec: &mut ContainerSpec, text: &str) -> Result<(), String> {
    let (key, value) = text.split_once('=').unwrap_or((text, ""));
    if key.is_empty() {
        return Err("has no key".into());
    }
    spec.labels.insert(key.to_owned(), value.to_owned());
    Ok(())
}

/// `source:target[:options]`, or a target alone, which gets a volume without a name.
fn volume(spec: &mut ContainerSpec, text: &str) -> Result<(), String> {
    let list = if text.contains(':') { &mut spec.binds } else { &mut spec.volumes };
    push(list, text)
}

fn add_host(spec: &mut ContainerSpec, text: &str) -> Result<(), String> {
    // The first of both: an IPv6 address has colons of its own.
    let (host, address) = text.split_once([':', '=']).ok_or("is not host:address")?;
    let bare = address.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(address);
    if host.trim().is_empty() || (bare != "host-gateway" && bare.parse::<IpAddr>().is_err()) {
        return Err("is not host:address".into());
    }
    push(&mut spec.extra_hosts, &format!("{host}:{bare}"))
}

fn dns(spec: &mut ContainerSpec, text: &str) -> Result<(), String> {
    match text.trim().parse::<IpAddr>() {
        Ok(address) => push(&mut spec.dns, &address.to_string()),
        Err(_) => Err("is no address".into()),
    }
}

fn hostname(spec: &mut ContainerSpec, text: &str) -> Result<(), String> {
    if spec.network == "host" {
        return Err("cannot be given to a task on the host's network".into());
    }
    spec.hostname = Some(text.to_owned()).filter(|text| !text.is_empty());
    Ok(())
}

/// The kernel's names, as Docker knows them.
const ULIMITS: &[&str] = &[
    "core",
    "cpu",
    "data",
    "fsize",
    "locks",
    "memlock",
    "msgqueue",
    "nice",
    "nofile",
    "nproc",
    "rss",
    "rtprio",
    "rttime",
    "sigpending",
    "stack",
];

/// `name=soft[:hard]`; `-1` is unlimited.
fn ulimit(spec: &mut ContainerSpec, text: &str) -> Result<(), String> {
    let (name, limits) = text.split_once('=').ok_or("is not name=soft[:hard]")?;
    if !ULIMITS.contains(&name) {
        return Err(format!("names none of the limits {}", ULIMITS.join(", ")));
    }
    let (soft, hard) = limits.split_once(':').unwrap_or((limits, limits));
    let number = |text: &str| match text.parse::<i64>() {
        Ok(number) if number >= -1 => Ok(number),
        _ => Err("is not name=soft[:hard]".to_owned()),
    };
    let (soft, hard) = (number(soft)?, number(hard)?);
    if hard >= 0 && (soft > hard || soft < 0) {
        return Err("has a soft limit above the hard one".into());
    }
    spec.ulimits.retain(|other| other.name != name);
    spec.ulimits.push(Ulimit { name: name.to_owned(), soft, hard });
    Ok(())
}
