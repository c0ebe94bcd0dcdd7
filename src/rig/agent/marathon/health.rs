//! Health checks that Mesos runs; Marathon's own (HTTP, TCP without MESOS_) stay with Marathon.

use super::fields::Fields;
use super::model::{AppHostPort, AppPort};
use super::AppError;
use crate::mesos::messages::{health_check, network_info, CommandInfo, HealthCheck};

/// What a check may speak, as Marathon writes it.
const PROTOCOLS: [&str; 7] = ["HTTP", "HTTPS", "TCP", "COMMAND", "MESOS_TCP", "MESOS_HTTP", "MESOS_HTTPS"];

/// A check of Mesos', complete but for its port, which may be assigned with the instance.
#[derive(Debug, Clone, PartialEq)]
pub struct AppCheck {
    check: HealthCheck,
    port: CheckedPort,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum CheckedPort {
    /// It is a command.
    None,
    Number(u16),
    /// The app's port with this index.
    Index(usize),
}

/// The first one of a Mesos kind, as Marathon hands it on; a note for each that nothing here runs.
pub(super) fn read(
    top: Fields<'_>,
    ports: &[AppPort],
    notes: &mut Vec<String>,
) -> Result<Option<AppCheck>, AppError> {
    let mut first = None;
    let mut index = 0;
    top.objects("healthChecks", |check| {
        let at = format!("healthChecks[{index}]");
        index += 1;
        match (one(check, ports)?, &first) {
            (Checker::Marathon(protocol), _) => notes.push(format!(
                "{at} is left out: Marathon itself makes {protocol} checks; MESOS_{protocol} is what the executor makes"
            )),
            (Checker::Executor(check), None) => first = Some(*check),
            (Checker::Executor(_), Some(_)) => notes.push(format!("{at} is left out: a task has one health check of Mesos'")),
        }
        Ok(())
    })?;
    Ok(first)
}

/// Who makes a check.
enum Checker {
    Executor(Box<AppCheck>),
    /// By this protocol, which only Marathon speaks.
    Marathon(&'static str),
}

fn one(check: Fields<'_>, ports: &[AppPort]) -> Result<Checker, AppError> {
    let protocol = check.word("protocol", &PROTOCOLS)?.unwrap_or("HTTP");
    let mut health = HealthCheck {
        delay_seconds: Some(check.number("delaySeconds")?.unwrap_or(15.0)),
        interval_seconds: Some(check.number("intervalSeconds")?.unwrap_or(60.0)),
        timeout_seconds: Some(check.number("timeoutSeconds")?.unwrap_or(20.0)),
        consecutive_failures: Some(check.whole("maxConsecutiveFailures", u32::MAX)?.unwrap_or(3)),
        grace_period_seconds: Some(check.number("gracePeriodSeconds")?.unwrap_or(300.0)),
        ..HealthCheck::default()
    };
    let port = match protocol {
        "COMMAND" => {
            let value = check
                .object("command", |command| Ok(command.required_text("value")?.to_owned()))?
                .ok_or_else(|| check.error("command", "is missing"))?;
            health.command = Some(CommandInfo { value: Some(value), ..CommandInfo::default() });
            health.r#type = Some(health_check::Type::Command.into());
            CheckedPort::None
        }
        "MESOS_TCP" => {
            health.tcp = Some(health_check::TcpCheckInfo { port: 0, protocol: ip_protocol(check)? });
            health.r#type = Some(health_check::Type::Tcp.into());
            port(check, ports)?
        }
        "MESOS_HTTP" | "MESOS_HTTPS" => {
            health.http = Some(health_check::HttpCheckInfo {
                port: 0,
                path: Some(check.text("path")?.unwrap_or("/").to_owned()),
                scheme: Some(if protocol == "MESOS_HTTP" { "http" } else { "https" }.into()),
                statuses: Vec::new(),
                protocol: ip_protocol(check)?,
            });
            health.r#type = Some(health_check::Type::Http.into());
            port(check, ports)?
        }
        marathons => return Ok(Checker::Marathon(marathons)),
    };
    Ok(Checker::Executor(Box::new(AppCheck { check: health, port })))
}

/// The check runs in the task's network namespace: the container's port is looked for there, or the host's where
/// the two are one.
fn port(check: Fields<'_>, ports: &[AppPort]) -> Result<CheckedPort, AppError> {
    if let Some(port) = check.port("port")? {
        return Ok(CheckedPort::Number(port));
    }
    let index = check.whole("portIndex", u16::MAX.into())?.unwrap_or(0);
    let found = usize::try_from(index).ok().and_then(|index| Some((index, ports.get(index)?)));
    match found {
        Some((_, AppPort { container: Some(0), host: AppHostPort::None, .. })) => Err(check.error(
            "port",
            "is missing: the app's port of that index has no number, neither in the container nor on the host",
        )),
        Some((index, _)) => Ok(CheckedPort::Index(index)),
        None => Err(check.error("portIndex", format!("{index} is not the index of a port of the app"))),
    }
}

fn ip_protocol(check: Fields<'_>) -> Result<Option<i32>, AppError> {
    let protocol = check.word("ipProtocol", &["IPv4", "IPv6"])?;
    Ok((protocol == Some("IPv6")).then(|| network_info::Protocol::IPv6.into()))
}

impl AppCheck {
    /// The check of an instance whose host ports are known.
    pub(super) fn with_port(&self, ports: &[AppPort], assigned: &[Option<u16>]) -> HealthCheck {
        let mut check = self.check.clone();
        let number = match self.port {
            CheckedPort::None => return check,
            CheckedPort::Number(number) => number,
            CheckedPort::Index(index) => {
                let container = ports.get(index).and_then(|port| port.container).filter(|port| *port != 0);
                container.or(assigned.get(index).copied().flatten()).unwrap_or_default()
            }
        };
        check.http.iter_mut().for_each(|http| http.port = number.into());
        check.tcp.iter_mut().for_each(|tcp| tcp.port = number.into());
        check
    }
}
