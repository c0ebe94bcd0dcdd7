//! The health check of a TaskInfo: what to probe, when, and how often it may fail.

use std::collections::BTreeMap;
use std::time::Duration;

use super::{as_argument, environment, invalid, Work};
use crate::error::Failure;
use crate::mesos::messages::environment::variable::Type as VariableType;
use crate::mesos::messages::health_check::{HttpCheckInfo, TcpCheckInfo, Type};
use crate::mesos::messages::network_info::Protocol;
use crate::mesos::messages::{CommandInfo, HealthCheck, TaskInfo};
use crate::task::health::{Check, CheckFamily, CheckTiming, CommandLine, Probe, Scheme};
use crate::task::request::calico::shown;

/// Mesos counts nanoseconds in 64 bits, which is some 292 years: a value that means "never" stays below.
const LONGEST: f64 = 9.2e9;
/// The path is part of one line of a request.
const LONGEST_PATH: usize = 8 << 10;

pub(super) fn read(task: &TaskInfo, work: &Work, notes: &mut Vec<String>) -> Result<Option<Check>, Failure> {
    let Some(check) = &task.health_check else { return Ok(None) };
    Ok(Some(Check { timing: timing(check)?, probe: probe(check, work, notes)? }))
}

fn timing(check: &HealthCheck) -> Result<CheckTiming, Failure> {
    let timeout = seconds("timeout", check.timeout_seconds())?;
    Ok(CheckTiming {
        delay: seconds("delay", check.delay_seconds())?,
        interval: seconds("interval", check.interval_seconds())?,
        timeout: (!timeout.is_zero()).then_some(timeout),
        grace: seconds("grace period", check.grace_period_seconds())?,
        failures: check.consecutive_failures(),
    })
}

fn seconds(what: &str, value: f64) -> Result<Duration, Failure> {
    let duration = Duration::try_from_secs_f64(value).ok().filter(|_| value <= LONGEST);
    duration.ok_or_else(|| {
        invalid(format!("the health check's {what} of {value} seconds is not between 0 and 292 years"))
    })
}

/// Exactly one thing may be described, the one of the type. Marathon before 1.4 names no type.
fn probe(check: &HealthCheck, work: &Work, notes: &mut Vec<String>) -> Result<Probe, Failure> {
    let kind = match check.r#type.map(|number| (number, Type::try_from(number))) {
        None => None,
        Some((_, Ok(kind))) if kind != Type::Unknown => Some(kind),
        Some((number, _)) => {
            return Err(invalid(format!("the health check's type {number} is none of COMMAND, HTTP and TCP")))
        }
    };
    let (found, probe) = match (&check.command, &check.http, &check.tcp) {
        (Some(line), None, None) => (Type::Command, command(line, work, notes)?),
        (None, Some(request), None) => (Type::Http, http(request)?),
        (None, None, Some(connection)) => (Type::Tcp, tcp(connection)?),
        (None, None, None) => {
            return Err(invalid("the health check describes neither a command nor http nor tcp"))
        }
        _ => return Err(invalid("the health check describes more than one of command, http and tcp")),
    };
    match kind.filter(|kind| *kind != found) {
        Some(kind) => Err(invalid(format!(
            "the health check of type {} describes one of type {}",
            kind.as_str_name(),
            found.as_str_name()
        ))),
        None => Ok(probe),
    }
}

fn tcp(tcp: &TcpCheckInfo) -> Result<Probe, Failure> {
    Ok(Probe::Tcp { port: port(tcp.port)?, family: family(tcp.protocol)? })
}

fn http(http: &HttpCheckInfo) -> Result<Probe, Failure> {
    let scheme = match http.scheme.as_deref() {
        None | Some("http") => Scheme::Http,
        Some("https") => Scheme::Https,
        Some(other) => {
            return Err(invalid(format!(
                "the health check's scheme {} is neither http nor https",
                shown(other)
            )))
        }
    };
    Ok(Probe::Http {
        scheme,
        port: port(http.port)?,
        path: path(http.path.as_deref())?,
        family: family(http.protocol)?,
    })
}

fn path(path: Option<&str>) -> Result<String, Failure> {
    // Without one the server's root is asked for, as by curl.
    let path = path.filter(|path| !path.is_empty()).unwrap_or("/");
    let problem = match path {
        _ if !path.starts_with('/') => "does not begin with '/'",
        _ if path.contains(char::is_control) => "contains control characters",
        _ if path.len() > LONGEST_PATH => "is longer than 8 KiB",
        _ => return Ok(path.to_owned()),
    };
    Err(invalid(format!("the health check's path {} {problem}", shown(path))))
}

fn port(port: u32) -> Result<u16, Failure> {
    let usable = u16::try_from(port).ok().filter(|port| *port != 0);
    usable.ok_or_else(|| invalid(format!("the health check's port {port} is not between 1 and 65535")))
}

fn family(protocol: Option<i32>) -> Result<CheckFamily, Failure> {
    match protocol.map(Protocol::try_from) {
        None | Some(Ok(Protocol::IPv4)) => Ok(CheckFamily::V4),
        Some(Ok(Protocol::IPv6)) => Ok(CheckFamily::V6),
        Some(Err(_)) => Err(invalid(format!(
            "the health check's protocol {} is neither IPv4 nor IPv6",
            protocol.unwrap_or_default()
        ))),
    }
}

fn command(command: &CommandInfo, work: &Work, notes: &mut Vec<String>) -> Result<Probe, Failure> {
    let value = command.value.as_deref().filter(|value| !value.is_empty());
    for text in value.into_iter().chain(command.arguments.iter().map(String::as_str)) {
        as_argument("the health check's command", text)?;
    }
    let (program, arguments) = match (command.shell(), value) {
        (true, Some(_)) if !command.arguments.is_empty() => {
            return Err(invalid(
                "the health check's command has arguments, but wants a shell, which takes none of them",
            ))
        }
        (true, Some(line)) => ("sh".to_owned(), vec!["sh".into(), "-c".into(), line.into()]),
        (true, None) => {
            return Err(invalid("the health check wants a shell but names no command"));
        }
        (false, value) => words(value, &command.arguments, work)?,
    };
    if command.user.is_some() {
        notes.push("the user of the health check's command has no effect: it runs as the task does".into());
    }
    Ok(Probe::Command(CommandLine { program, arguments, environment: variables(command, notes)? }))
}

/// The program and its whole argv.
///
/// For a container the arguments follow the value, as in the stock executor's `docker exec`; but Marathon names the
/// program twice, and then it is not passed to itself. For a command they are argv, as everywhere else in Mesos.
fn words(value: Option<&str>, arguments: &[String], work: &Work) -> Result<(String, Vec<String>), Failure> {
    let first = arguments.first().map(String::as_str);
    let complete = first.is_some()
        && (matches!(work, Work::Command(_)) || value.is_none_or(|value| Some(value) == first));
    let program = value.or(first).filter(|program| !program.is_empty());
    let Some(program) = program else {
        return Err(invalid("the health check's command names no program"));
    };
    let before = (!complete).then(|| program.to_owned());
    Ok((program.to_owned(), before.into_iter().chain(arguments.iter().cloned()).collect()))
}

fn variables(command: &CommandInfo, notes: &mut Vec<String>) -> Result<BTreeMap<String, String>, Failure> {
    let mut variables = BTreeMap::new();
    for variable in command.environment.iter().flat_map(|environment| &environment.variables) {
        if variable.r#type() == VariableType::Secret {
            notes.push(format!(
                "the health check's variable {} is left out: secrets are not read here",
                shown(&variable.name)
            ));
            continue;
        }
        environment::insert(&mut variables, &variable.name, variable.value.as_deref().unwrap_or_default())?;
    }
    Ok(variables)
}
