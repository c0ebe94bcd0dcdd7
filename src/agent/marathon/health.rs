//! Health checks that Mesos runs; Marathon's own (HTTP, TCP without MESOS_) stay with Marathon.

use super::fields::Fields;
use super::model::Port;
use super::AppError;
use crate::mesos::messages::{health_check, network_info, CommandInfo, HealthCheck};

/// The first one of a Mesos kind, as Marathon hands it on.
pub(super) fn read(top: Fields<'_>, ports: &[Port]) -> Result<Option<HealthCheck>, AppError> {
    let checks = top.objects("healthChecks", |check| one(check, ports))?;
    Ok(checks.into_iter().flatten().next())
}

fn one(check: Fields<'_>, ports: &[Port]) -> Result<Option<HealthCheck>, AppError> {
    let protocol = check.text("protocol")?.unwrap_or("HTTP");
    let mut health = HealthCheck {
        delay_seconds: Some(check.number("delaySeconds")?.unwrap_or(15.0)),
        interval_seconds: Some(check.number("intervalSeconds")?.unwrap_or(60.0)),
        timeout_seconds: Some(check.number("timeoutSeconds")?.unwrap_or(20.0)),
        consecutive_failures: Some(check.whole("maxConsecutiveFailures", u32::MAX)?.unwrap_or(3)),
        grace_period_seconds: Some(check.number("gracePeriodSeconds")?.unwrap_or(300.0)),
        ..HealthCheck::default()
    };
    match protocol {
        "COMMAND" => {
            let value = check
                .object("command", |command| Ok(command.required_text("value")?.to_owned()))?
                .ok_or_else(|| check.error("command", "is missing"))?;
            health.command = Some(CommandInfo { value: Some(value), ..CommandInfo::default() });
            health.r#type = Some(health_check::Type::Command.into());
        }
        "MESOS_TCP" => {
            health.tcp =
                Some(health_check::TcpCheckInfo { port: port(check, ports)?, protocol: ip_protocol(check)? });
            health.r#type = Some(health_check::Type::Tcp.into());
        }
        "MESOS_HTTP" | "MESOS_HTTPS" => {
            health.http = Some(health_check::HttpCheckInfo {
                port: port(check, ports)?,
                path: Some(check.text("path")?.unwrap_or("/").to_owned()),
                scheme: Some(if protocol == "MESOS_HTTP" { "http" } else { "https" }.into()),
                statuses: Vec::new(),
                protocol: ip_protocol(check)?,
            });
            health.r#type = Some(health_check::Type::Http.into());
        }
        "HTTP" | "HTTPS" | "TCP" => return Ok(None),
        other => return Err(check.error("protocol", format!("'{other}' is no kind of health check"))),
    }
    Ok(Some(health))
}

/// The port as the container sees it: the check runs in its network namespace.
fn port(check: Fields<'_>, ports: &[Port]) -> Result<u32, AppError> {
    if let Some(port) = check.port("port")? {
        return Ok(port.into());
    }
    let index = check.whole("portIndex", u16::MAX.into())?.unwrap_or(0);
    let declared = usize::try_from(index).ok().and_then(|index| ports.get(index));
    match declared.map(|port| port.container) {
        Some(Some(port)) if port != 0 => Ok(port.into()),
        Some(_) => {
            Err(check.error("port", "is missing: a port that is assigned later cannot be checked here"))
        }
        None => Err(check.error("portIndex", format!("{index} names no port of the app"))),
    }
}

fn ip_protocol(check: Fields<'_>) -> Result<Option<i32>, AppError> {
    match check.text("ipProtocol")? {
        None | Some("IPv4") => Ok(None),
        Some("IPv6") => Ok(Some(network_info::Protocol::IPv6.into())),
        Some(other) => Err(check.error("ipProtocol", format!("'{other}' is neither IPv4 nor IPv6"))),
    }
}
