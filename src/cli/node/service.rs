//! `node start` and `node stop`: calico/node as a service of systemd.
//!
//! Calico's documentation gives the unit `calico-node.service`, which reads `/etc/calico/calico.env`. Only the settings
//! in that file are ours to write; the unit is the package's, which runs the image CALICO_IMAGE, or the operator's own.

use std::fs;
use std::io::{self, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;
use std::process::{Command, ExitCode};

use clap::Args;
use serde_json::{json, Value};

use crate::calico;
use crate::config::Config;
use crate::error::FileError;
use crate::host::{addresses, files};
use crate::task::cleaner::living_tasks;

use super::super::change::{ChangeFlags, ChangedObject};
use super::super::session::Session;
use super::super::Failed;

const UNIT: &str = "calico-node.service";
const FILE: &str = "/etc/calico/calico.env";

#[derive(Debug, Args)]
pub struct StartArguments {
    /// This node's IPv4 address
    #[arg(long, value_name = "IP")]
    ip: Ipv4Addr,
    /// This node's IPv6 address
    #[arg(long, value_name = "IP")]
    ip6: Option<Ipv6Addr>,
    /// This node's AS number; otherwise that of `default-node-as`
    #[arg(long = "as", value_name = "AS", value_parser = calico::parse_as_number)]
    as_number: Option<u32>,
    /// The image of calico/node, which must be on this host; read by the package's unit
    #[arg(long, value_name = "IMAGE")]
    image: Option<String>,
    #[command(flatten)]
    file: EnvFile,
    #[command(flatten)]
    flags: ChangeFlags,
}

#[derive(Debug, Args)]
pub struct StopArguments {
    /// Stop it although tasks live here: their policy is no longer kept up to date
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    flags: ChangeFlags,
}

#[derive(Debug, Args)]
pub struct EnvFile {
    /// The file of settings that the unit reads
    #[arg(long = "env-file", value_name = "FILE", default_value = FILE)]
    path: PathBuf,
}

#[derive(Debug, thiserror::Error)]
enum ServiceError {
    #[error(transparent)]
    File(#[from] FileError),
    #[error("cannot run systemctl {0} {UNIT}")]
    Systemctl(&'static str, #[source] io::Error),
    #[error("systemctl {0} {UNIT} failed: {1}")]
    Refused(&'static str, String),
    #[error("systemd has no unit {UNIT}: install the package of calico-mesos, or the unit as Calico's documentation describes (it reads {0}), then run this again")]
    NoUnit(PathBuf),
    #[error("systemd has no unit {UNIT}: stop calico/node in the way in which it was started")]
    NothingToStop,
    #[error("{} here and would lose the updates of their policy: {}; end them first, or use --force", super::super::output::count(.0.len(), "task") + if .0.len() == 1 { " lives" } else { " live" }, .0.join(", "))]
    TasksLive(Vec<String>),
}

pub(super) fn start(arguments: &StartArguments, session: &Session) -> Result<ExitCode, Failed> {
    for address in [Some(IpAddr::V4(arguments.ip)), arguments.ip6.map(IpAddr::V6)].into_iter().flatten() {
        addresses::required(address)?;
    }
    let path = &arguments.file.path;
    let before = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
        Err(source) => return Err(FileError::on("read", path)(source).into()),
    };
    let after = edited(&before, &wanted(arguments, &session.config)?);
    let (changed, flags) = (before != after, arguments.flags);
    if changed && !flags.dry_run {
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder).map_err(FileError::on("make", folder))?;
        }
        files::replace(path, |new| new.write_all(after.as_bytes())).map_err(FileError::on("write", path))?;
    }
    let text = |text: &str| (!text.is_empty()).then(|| json!(text));
    let mut looked_at =
        vec![ChangedObject::on_host(&path.display().to_string(), text(&before), text(&after))];
    let mut sentences = vec![match (changed, flags.dry_run) {
        (true, true) => format!("to write: {}", path.display()),
        (true, false) => format!("{} is written", path.display()),
        (false, _) => format!("{} is up to date", path.display()),
    }];
    if !is_installed() {
        session.report(flags, &looked_at, &sentences);
        return Err(ServiceError::NoUnit(path.clone()).into());
    }
    let runs = is_active();
    let verb = match (runs, changed) {
        (true, false) => None,
        (true, true) => Some("restart"),
        (false, _) => Some("start"),
    };
    let started = match verb {
        Some(verb) if !flags.dry_run => systemctl(verb),
        _ => Ok(()),
    };
    if let Err(error) = started {
        session.report(flags, &looked_at, &sentences);
        return Err(error.into());
    }
    sentences.push(match (verb, flags.dry_run) {
        (None, _) => format!("{UNIT} runs already"),
        (Some(verb), true) => format!("to run: systemctl {verb} {UNIT}"),
        (Some(verb), false) => format!("{UNIT} is {verb}ed"),
    });
    // A new start is a change, even where it ran before.
    let before = json!({ "active": runs, "settings_read": verb.is_none() });
    looked_at.push(ChangedObject::on_host(
        UNIT,
        Some(before),
        Some(json!({ "active": true, "settings_read": true })),
    ));
    Ok(session.report(flags, &looked_at, &sentences))
}

pub(super) fn stop(arguments: &StopArguments, session: &Session) -> Result<ExitCode, Failed> {
    let tasks = living_tasks(&session.config)?;
    if !tasks.is_empty() && !arguments.force {
        return Err(ServiceError::TasksLive(tasks).into());
    }
    if !is_installed() {
        return Err(ServiceError::NothingToStop.into());
    }
    let (runs, flags) = (is_active(), arguments.flags);
    if runs && !flags.dry_run {
        systemctl("stop")?;
    }
    let sentence = match (runs, flags.dry_run) {
        (false, _) => format!("{UNIT} does not run"),
        (true, true) => format!("to run: systemctl stop {UNIT}"),
        (true, false) => format!("{UNIT} is stopped"),
    };
    let changed = ChangedObject::on_host(UNIT, Some(state(runs)), Some(state(false)));
    Ok(session.report(flags, &[changed], &[sentence]))
}

fn state(runs: bool) -> Value {
    json!({ "active": runs })
}

/// The settings, in the names of the unit in Calico's documentation.
fn wanted(arguments: &StartArguments, config: &Config) -> Result<Vec<(&'static str, String)>, Failed> {
    let file = |file: &Option<PathBuf>| file.as_ref().map(|path| path.display().to_string());
    let always = [
        ("ETCD_ENDPOINTS", config.etcd.endpoints.join(",")),
        ("CALICO_NODENAME", calico::node_name(config)?),
        ("CALICO_IP", arguments.ip.to_string()),
    ];
    let given = [
        ("ETCD_CA_CERT_FILE", file(&config.etcd.ca_file)),
        ("ETCD_CERT_FILE", file(&config.etcd.cert_file)),
        ("ETCD_KEY_FILE", file(&config.etcd.key_file)),
        ("CALICO_IP6", arguments.ip6.map(|address| address.to_string())),
        ("CALICO_AS", arguments.as_number.map(|number| number.to_string())),
        ("CALICO_IMAGE", arguments.image.clone()),
    ];
    let given = given.into_iter().filter_map(|(name, value)| Some((name, value?)));
    Ok(always.into_iter().chain(given).collect())
}

/// Sets these variables and leaves every other line as it is. A new file gets those that the unit expects.
///
/// Without quotes, which `docker run --env-file` would take for a part of the value. No value has what systemd would
/// read in another way: a quote or a backslash.
fn edited(text: &str, wanted: &[(&str, String)]) -> String {
    const NEW: &str =
        "# Read by calico-node.service; `calico-mesos node start` sets addresses, name and datastore.\n\
                       CALICO_NETWORKING_BACKEND=bird\nCALICO_NO_DEFAULT_POOLS=\n";
    let text = if text.is_empty() { NEW } else { text };
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    for (name, value) in wanted {
        let line = format!("{name}={value}");
        let is_its = |line: &&mut String| {
            line.trim_start().strip_prefix(name).is_some_and(|rest| rest.starts_with('='))
        };
        let mut seen = false;
        for there in lines.iter_mut().filter(is_its) {
            seen = true;
            let quoted = there.split_once('=').is_some_and(|(_, rest)| rest.trim_matches('"') == *value);
            if !quoted {
                *there = line.clone();
            }
        }
        if !seen {
            lines.push(line);
        }
    }
    lines.join("\n") + "\n"
}

fn is_installed() -> bool {
    systemctl_succeeds(&["cat", UNIT])
}

fn is_active() -> bool {
    systemctl_succeeds(&["is-active", "--quiet", UNIT])
}

pub(super) fn systemctl_succeeds(arguments: &[&str]) -> bool {
    Command::new("systemctl").args(arguments).output().is_ok_and(|output| output.status.success())
}

fn systemctl(verb: &'static str) -> Result<(), ServiceError> {
    let output = Command::new("systemctl")
        .args([verb, UNIT])
        .output()
        .map_err(|source| ServiceError::Systemctl(verb, source))?;
    match output.status.success() {
        true => Ok(()),
        false => {
            let text =
                String::from_utf8_lossy(&output.stderr).split_whitespace().collect::<Vec<_>>().join(" ");
            Err(ServiceError::Refused(verb, text))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_changed_in_their_place_and_others_stay() {
        let wanted = |ip: &str| [("CALICO_IP", ip.to_owned()), ("CALICO_NODENAME", "agent-1".to_owned())];
        let text = "# ours\nCALICO_IP=10.0.0.9\nCALICO_IP6=\"fd00::1\"\nFELIX_LOGSEVERITYSCREEN=info\n";
        let after = edited(text, &wanted("10.0.0.1"));
        let expected = "# ours\nCALICO_IP=10.0.0.1\nCALICO_IP6=\"fd00::1\"\nFELIX_LOGSEVERITYSCREEN=info\n\
                        CALICO_NODENAME=agent-1\n";
        assert_eq!(after, expected);
        assert_eq!(edited(&after, &wanted("10.0.0.1")), after);
        // However it is quoted, the same value is no change.
        let quoted = after.replace("10.0.0.1", "\"10.0.0.1\"");
        assert_eq!(edited(&quoted, &wanted("10.0.0.1")), quoted);
        assert!(edited("", &wanted("10.0.0.1")).contains("CALICO_NETWORKING_BACKEND=bird\n"));
    }
}
