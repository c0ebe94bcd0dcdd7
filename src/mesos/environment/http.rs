//! What an executor of version 1 needs besides: where to call, with which token, over which TLS.

use std::ffi::OsString;
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use super::{Environment, EnvironmentError, Reader};

/// The agent's own default.
const BACKOFF_MAX: Duration = Duration::from_secs(2);

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpEnvironment {
    pub common: Environment,
    /// Where the agent listens.
    pub endpoint: SocketAddr,
    /// Where it listens too, and then is called.
    pub domain_socket: Option<PathBuf>,
    pub token: Option<Token>,
    /// `None`: plain HTTP. It is set by the operator, not by the agent.
    pub tls: Option<Tls>,
    /// The longest wait between two subscriptions.
    pub backoff_max: Duration,
}

/// A secret that is never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(String);

impl Token {
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(..)")
    }
}

/// As libprocess takes it from `LIBPROCESS_SSL_*`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tls {
    /// Trusted roots; `None`: the system's.
    pub ca_file: Option<PathBuf>,
    /// Certificate and key, for an agent that asks who we are.
    pub identity: Option<(PathBuf, PathBuf)>,
    /// Off unless the operator turns it on: libprocess encrypts first and trusts later.
    pub verify_server: bool,
}

impl HttpEnvironment {
    /// Takes its own variables out of `variables`, usually `std::env::vars_os()`.
    pub fn from(variables: impl IntoIterator<Item = (OsString, OsString)>) -> Result<Self, EnvironmentError> {
        let mut reader = Reader::new(variables);
        let environment = Self::read(&mut reader);
        reader.done(environment)
    }

    fn read(reader: &mut Reader) -> Option<Self> {
        let common = Environment::read(reader);
        let endpoint = reader.optional::<SocketAddr>("MESOS_AGENT_ENDPOINT");
        let domain_socket = reader.text("MESOS_DOMAIN_SOCKET").map(PathBuf::from);
        let token = token(reader);
        let tls = tls(reader);
        let backoff_max = reader.duration("MESOS_SUBSCRIPTION_BACKOFF_MAX").unwrap_or(BACKOFF_MAX);
        let common = common?;
        // Both name the same place; agents before 0.28 set only the second.
        let endpoint = endpoint.unwrap_or(common.slave_pid.address);
        Some(Self { common, endpoint, domain_socket, token, tls, backoff_max })
    }
}

fn token(reader: &mut Reader) -> Option<Token> {
    let name = "MESOS_EXECUTOR_AUTHENTICATION_TOKEN";
    let text = reader.text(name)?;
    if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
        reader.problems.push(format!("{name} contains characters that a token cannot have"));
        return None;
    }
    Some(Token(text))
}

fn tls(reader: &mut Reader) -> Option<Tls> {
    // Before Mesos 1.0 the names began with SSL_. Those are everybody's, so they count only when
    // SSL_ENABLED is among them.
    let prefix = match reader.variables.contains_key("LIBPROCESS_SSL_ENABLED") {
        true => "LIBPROCESS_SSL",
        false => "SSL",
    };
    if !reader.truth(&format!("{prefix}_ENABLED"))? {
        return None;
    }
    let ca_file = reader.text(&format!("{prefix}_CA_FILE")).map(PathBuf::from);
    let certificate = reader.text(&format!("{prefix}_CERT_FILE")).map(PathBuf::from);
    let key = reader.text(&format!("{prefix}_KEY_FILE")).map(PathBuf::from);
    let identity = match (certificate, key) {
        (Some(certificate), Some(key)) => Some((certificate, key)),
        (None, None) => None,
        _ => {
            reader.problems.push(format!("set both {prefix}_CERT_FILE and {prefix}_KEY_FILE, or neither"));
            None
        }
    };
    let newer = reader.truth(&format!("{prefix}_VERIFY_SERVER_CERT"));
    let older = reader.truth(&format!("{prefix}_VERIFY_CERT"));
    let verify_server = newer.or(older).unwrap_or(false);
    if verify_server && ca_file.is_none() && reader.text(&format!("{prefix}_CA_DIR")).is_some() {
        reader.problems.push(format!("{prefix}_CA_DIR is not supported: set {prefix}_CA_FILE"));
    }
    Some(Tls { ca_file, identity, verify_server })
}

impl Reader {
    /// A boolean as libprocess reads one.
    fn truth(&mut self, name: &str) -> Option<bool> {
        match self.text(name)?.as_str() {
            "1" | "true" => Some(true),
            "0" | "false" => Some(false),
            other => {
                self.problems.push(format!("{name}='{other}' is neither true nor false"));
                None
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(extra: &[(&str, &str)]) -> Result<HttpEnvironment, EnvironmentError> {
        let common = [
            ("MESOS_SLAVE_PID", "slave(1)@10.0.0.7:5051"),
            ("MESOS_FRAMEWORK_ID", "f"),
            ("MESOS_EXECUTOR_ID", "e"),
            ("MESOS_SLAVE_ID", "s"),
            ("MESOS_DIRECTORY", "/sandbox"),
        ];
        HttpEnvironment::from(common.iter().chain(extra).map(|(name, value)| (name.into(), value.into())))
    }

    #[test]
    fn variables_that_an_agent_leaves_out_have_defaults() {
        let environment = read(&[]).unwrap();
        assert_eq!(environment.endpoint.to_string(), "10.0.0.7:5051");
        assert_eq!(environment.backoff_max, BACKOFF_MAX);
        assert!(environment.domain_socket.is_none() && environment.token.is_none());
        assert!(environment.tls.is_none());
    }

    #[test]
    fn the_token_is_never_printed() {
        let environment = read(&[("MESOS_EXECUTOR_AUTHENTICATION_TOKEN", "a.b.c")]).unwrap();
        assert_eq!(environment.token.as_ref().unwrap().expose(), "a.b.c");
        assert!(!format!("{environment:?}").contains("a.b.c"));
        let error = read(&[("MESOS_EXECUTOR_AUTHENTICATION_TOKEN", "sec\nret")]).unwrap_err().to_string();
        assert!(error.contains("MESOS_EXECUTOR_AUTHENTICATION_TOKEN") && !error.contains("sec"), "{error}");
    }

    #[test]
    fn tls_is_configured_by_both_prefixes_of_variables() {
        let tls = |extra: &[(&str, &str)]| read(extra).unwrap().tls;
        assert!(tls(&[("LIBPROCESS_SSL_ENABLED", "0"), ("SSL_ENABLED", "1")]).is_none());
        // A task's own, which means something else to everybody else.
        assert!(tls(&[("SSL_CERT_FILE", "/ca.pem")]).is_none());
        let new = tls(&[
            ("LIBPROCESS_SSL_ENABLED", "true"),
            ("LIBPROCESS_SSL_CA_FILE", "/ca"),
            ("LIBPROCESS_SSL_CERT_FILE", "/cert"),
            ("LIBPROCESS_SSL_KEY_FILE", "/key"),
            ("LIBPROCESS_SSL_VERIFY_CERT", "true"),
            ("LIBPROCESS_SSL_VERIFY_SERVER_CERT", "false"),
        ]);
        let expected = Tls {
            ca_file: Some("/ca".into()),
            identity: Some(("/cert".into(), "/key".into())),
            verify_server: false,
        };
        assert_eq!(new, Some(expected));
        let old = tls(&[("SSL_ENABLED", "1"), ("SSL_VERIFY_CERT", "1")]).unwrap();
        assert!(old.verify_server && old.identity.is_none());
    }

    #[test]
    fn every_problem_is_reported_at_once() {
        let text = read(&[
            ("MESOS_SLAVE_ID", ""),
            ("MESOS_AGENT_ENDPOINT", "agent"),
            ("MESOS_SUBSCRIPTION_BACKOFF_MAX", "soon"),
            ("LIBPROCESS_SSL_ENABLED", "1"),
            ("LIBPROCESS_SSL_KEY_FILE", "/key"),
            ("LIBPROCESS_SSL_VERIFY_SERVER_CERT", "perhaps"),
        ])
        .unwrap_err()
        .to_string();
        for name in [
            "MESOS_SLAVE_ID is not set",
            "MESOS_AGENT_ENDPOINT='agent'",
            "MESOS_SUBSCRIPTION_BACKOFF_MAX",
            "LIBPROCESS_SSL_CERT_FILE and LIBPROCESS_SSL_KEY_FILE",
            "LIBPROCESS_SSL_VERIFY_SERVER_CERT='perhaps'",
        ] {
            assert!(text.contains(name), "{name}: {text}");
        }
    }

    #[test]
    fn version_0_does_not_fail_for_what_only_version_1_reads() {
        let common = [
            ("MESOS_SLAVE_PID", "slave(1)@10.0.0.7:5051"),
            ("MESOS_FRAMEWORK_ID", "f"),
            ("MESOS_EXECUTOR_ID", "e"),
            ("MESOS_SLAVE_ID", "s"),
            ("MESOS_DIRECTORY", "/sandbox"),
            ("MESOS_AGENT_ENDPOINT", "nonsense"),
            ("LIBPROCESS_SSL_ENABLED", "perhaps"),
        ];
        assert!(Environment::from(common.map(|(name, value)| (name.into(), value.into()))).is_ok());
    }
}
