//! What the agent passes through the environment: `MESOS_*` and `LIBPROCESS_*`, nothing else.
//!
//! A task's own variables are merged into ours and win, so these names are the only ones read, and
//! only before registration. Everything missing or malformed is reported in one error. What only
//! version 1 of the API needs is in [`HttpEnvironment`]: an executor of version 0 is not to fail for it.

mod http;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::net::IpAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

pub use self::http::{HttpEnvironment, Tls, Token};
use super::duration;
use super::libprocess::Upid;

/// The agent's own default.
const RECOVERY_TIMEOUT: Duration = Duration::from_secs(15 * 60);
const SHUTDOWN_GRACE: Duration = Duration::from_secs(5);

/// All problems of the environment together, separated by `; `.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the environment is not that of an executor that a Mesos agent starts: {0}")]
pub struct EnvironmentError(String);

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Environment {
    pub framework_id: String,
    pub executor_id: String,
    pub slave_id: String,
    /// The agent's actor, `slave(1)@10.0.0.7:5051`.
    pub slave_pid: Upid,
    /// The sandbox on this host.
    pub directory: PathBuf,
    /// Whether we outlive the agent's restarts.
    pub checkpoint: bool,
    /// How long to wait for an agent that has gone away.
    pub recovery_timeout: Duration,
    pub shutdown_grace: Duration,
    pub bind_ip: Option<IpAddr>,
    /// 0: any free port.
    pub bind_port: u16,
    /// Replace address and port in what the agent receives, not in what we bind.
    pub advertise_ip: Option<IpAddr>,
    pub advertise_port: Option<u16>,
}

impl Environment {
    /// Takes its own variables out of `variables`, usually `std::env::vars_os()`.
    pub fn from(variables: impl IntoIterator<Item = (OsString, OsString)>) -> Result<Self, EnvironmentError> {
        let mut reader = Reader::new(variables);
        let environment = Self::read(&mut reader);
        reader.done(environment)
    }

    fn read(reader: &mut Reader) -> Option<Self> {
        let slave_pid = reader.required::<Upid>("MESOS_SLAVE_PID");
        let framework_id = reader.required::<String>("MESOS_FRAMEWORK_ID");
        let executor_id = reader.required::<String>("MESOS_EXECUTOR_ID");
        let slave_id = reader.required::<String>("MESOS_SLAVE_ID");
        let directory = reader.required::<String>("MESOS_DIRECTORY").map(PathBuf::from);
        let checkpoint = reader.flag("MESOS_CHECKPOINT");
        let recovery_timeout = reader.duration("MESOS_RECOVERY_TIMEOUT").unwrap_or(RECOVERY_TIMEOUT);
        let shutdown_grace =
            reader.duration("MESOS_EXECUTOR_SHUTDOWN_GRACE_PERIOD").unwrap_or(SHUTDOWN_GRACE);
        let bind_ip = reader.optional("LIBPROCESS_IP");
        let bind_port = reader.optional("LIBPROCESS_PORT").unwrap_or(0);
        let advertise_ip = reader.optional("LIBPROCESS_ADVERTISE_IP");
        let advertise_port = reader.optional("LIBPROCESS_ADVERTISE_PORT");
        Some(Self {
            framework_id: framework_id?,
            executor_id: executor_id?,
            slave_id: slave_id?,
            slave_pid: slave_pid?,
            directory: directory?,
            checkpoint,
            recovery_timeout,
            shutdown_grace,
            bind_ip,
            bind_port,
            advertise_ip,
            advertise_port,
        })
    }
}

/// Looks variables up and remembers what was wrong with them.
struct Reader {
    variables: BTreeMap<String, OsString>,
    problems: Vec<String>,
}

impl Reader {
    fn new(variables: impl IntoIterator<Item = (OsString, OsString)>) -> Self {
        let ours = |name: &str| ["MESOS_", "LIBPROCESS_", "SSL_"].iter().any(|start| name.starts_with(start));
        let variables = variables
            .into_iter()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value)))
            .filter(|(name, _)| ours(name))
            .collect();
        Self { variables, problems: Vec::new() }
    }

    /// The value, unless anything was wrong on the way to it.
    fn done<T>(self, value: Option<T>) -> Result<T, EnvironmentError> {
        value.filter(|_| self.problems.is_empty()).ok_or_else(|| EnvironmentError(self.problems.join("; ")))
    }

    fn text(&mut self, name: &str) -> Option<String> {
        match self.variables.remove(name)?.into_string() {
            Ok(text) if text.is_empty() => None,
            Ok(text) => Some(text),
            Err(_) => {
                self.problems.push(format!("{name} is not valid UTF-8"));
                None
            }
        }
    }

    fn required<T: FromStr>(&mut self, name: &str) -> Option<T>
    where
        T::Err: std::fmt::Display,
    {
        let before = self.problems.len();
        let value = self.optional(name);
        if value.is_none() && self.problems.len() == before {
            self.problems.push(format!("{name} is not set"));
        }
        value
    }

    fn optional<T: FromStr>(&mut self, name: &str) -> Option<T>
    where
        T::Err: std::fmt::Display,
    {
        let text = self.text(name)?;
        match text.parse() {
            Ok(value) => Some(value),
            Err(error) => {
                self.problems.push(format!("{name}='{text}': {error}"));
                None
            }
        }
    }

    fn duration(&mut self, name: &str) -> Option<Duration> {
        let text = self.text(name)?;
        match duration::parse(&text) {
            Ok(value) => Some(value),
            Err(error) => {
                self.problems.push(format!("{name}: {error}"));
                None
            }
        }
    }

    fn flag(&mut self, name: &str) -> bool {
        match self.text(name).as_deref() {
            None | Some("0") => false,
            Some("1") => true,
            Some(other) => {
                self.problems.push(format!("{name}='{other}' is neither 0 nor 1"));
                false
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(variables: &[(&str, &str)]) -> Result<Environment, EnvironmentError> {
        Environment::from(variables.iter().map(|(name, value)| (name.into(), value.into())))
    }

    const COMPLETE: [(&str, &str); 12] = [
        ("LIBPROCESS_IP", "127.0.0.1"),
        ("LIBPROCESS_PORT", "0"),
        ("MESOS_AGENT_ENDPOINT", "127.0.0.1:5051"),
        ("MESOS_CHECKPOINT", "1"),
        ("MESOS_DIRECTORY", "/var/lib/mesos/slaves/x"),
        ("MESOS_EXECUTOR_ID", "b1"),
        ("MESOS_EXECUTOR_SHUTDOWN_GRACE_PERIOD", "9secs"),
        ("MESOS_FRAMEWORK_ID", "f-0002"),
        ("MESOS_SLAVE_ID", "s-S0"),
        ("MESOS_SLAVE_PID", "slave(1)@127.0.0.1:5051"),
        ("MESOS_RECOVERY_TIMEOUT", "10mins"),
        ("PATH", "/bin"),
    ];

    #[test]
    fn a_complete_environment_is_read() {
        let environment = read(&COMPLETE).unwrap();
        assert_eq!(environment.recovery_timeout, Duration::from_secs(600));
        assert_eq!(environment.shutdown_grace, Duration::from_secs(9));
        assert!(environment.checkpoint);
        assert_eq!(environment.slave_pid.to_string(), "slave(1)@127.0.0.1:5051");
    }

    #[test]
    fn defaults_without_a_checkpoint() {
        let few: Vec<_> =
            COMPLETE[3..10].iter().copied().filter(|(name, _)| *name != "MESOS_CHECKPOINT").collect();
        let environment = read(&few).unwrap();
        assert!(!environment.checkpoint && environment.bind_ip.is_none());
        assert_eq!(environment.recovery_timeout, RECOVERY_TIMEOUT);
    }

    #[test]
    fn every_problem_is_reported_at_once() {
        let text = read(&[
            ("MESOS_SLAVE_PID", "nonsense"),
            ("MESOS_EXECUTOR_ID", "x"),
            ("MESOS_RECOVERY_TIMEOUT", "soon"),
            ("LIBPROCESS_PORT", "70000"),
            ("MESOS_CHECKPOINT", "yes"),
        ])
        .unwrap_err()
        .to_string();
        for name in [
            "MESOS_SLAVE_PID",
            "MESOS_FRAMEWORK_ID is not set",
            "MESOS_SLAVE_ID is not set",
            "MESOS_DIRECTORY is not set",
            "MESOS_RECOVERY_TIMEOUT",
            "LIBPROCESS_PORT",
            "MESOS_CHECKPOINT",
        ] {
            assert!(text.contains(name), "{name}: {text}");
        }
        assert!(!text.contains("MESOS_SLAVE_PID is not set"), "{text}");
    }
}
