//! Where Docker listens: the forms that DOCKER_HOST, config.toml and `--docker_socket` come in.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::str::FromStr;

use crate::error::redacted;
use crate::limits::DOCKER_LISTENER;

/// The port that `tcp://host` means, as for the docker CLI.
const DEFAULT_PORT: u16 = 2375;

/// A Docker daemon's address. Displayed in the form in which an operator would write it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DockerHost {
    Unix(PathBuf),
    /// A name or an address without brackets; names are resolved by `resolve`, never by the C library.
    Tcp {
        host: String,
        port: u16,
    },
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{text}' is not a Docker address ({problem}; use unix:///path, tcp://host:port or host:port)")]
pub struct InvalidDockerHost {
    text: String,
    problem: &'static str,
}

impl DockerHost {
    /// What `docker` itself connects to when no address is configured.
    pub const DEFAULT: &'static str = "unix:///var/run/docker.sock";

    /// Whether a program listens at a socket or at a port of loopback; at once, since neither leaves this host.
    pub fn listens(&self) -> bool {
        match self {
            Self::Unix(path) => UnixStream::connect(path).is_ok(),
            Self::Tcp { host, port } => {
                let ip = host.parse().unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST));
                TcpStream::connect_timeout(&(ip, *port).into(), DOCKER_LISTENER).is_ok()
            }
        }
    }

    /// Accepts `unix:///path`, an absolute path, `tcp://host[:port]`, `http://host[:port]` and `host:port`.
    pub fn parse(text: &str) -> Result<Self, InvalidDockerHost> {
        let problem = |problem| InvalidDockerHost { text: redacted(text), problem };
        if text.chars().any(|c| c.is_control() || c.is_whitespace()) {
            return Err(problem("it contains blanks or control characters"));
        }
        if let Some(path) = text.strip_prefix("unix://").or(text.starts_with('/').then_some(text)) {
            return match path.starts_with('/') {
                true => Ok(Self::Unix(path.into())),
                false => Err(problem("the socket's path must be absolute")),
            };
        }
        let (rest, default_port) = match text.split_once("://") {
            Some(("tcp" | "http", rest)) => (rest, Some(DEFAULT_PORT)),
            Some(("https", _)) => return Err(problem("docker.ca_file in config.toml requires TLS")),
            Some(_) => return Err(problem("unknown scheme")),
            None => (text, None),
        };
        if rest.contains('@') {
            return Err(problem("a user and password are not supported"));
        }
        let (host, port) = split_port(rest.trim_end_matches('/')).map_err(problem)?;
        let port = port.or(default_port).ok_or_else(|| problem("it has no port"))?;
        Ok(Self::Tcp { host, port })
    }
}

/// `host`, `host:port`, `[v6]`, `[v6]:port`.
fn split_port(text: &str) -> Result<(String, Option<u16>), &'static str> {
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (host, rest) = rest.split_once(']').ok_or("a bracket is missing")?;
            match rest {
                "" => (host, None),
                _ => (host, Some(rest.strip_prefix(':').ok_or("there is text behind the bracket")?)),
            }
        }
        None => match text.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (text, None),
        },
    };
    if host.is_empty() || host.contains(['/', '?', '#', '[', ']']) {
        return Err("it has no valid host");
    }
    let port = match port {
        Some(port) => match port.parse::<u16>() {
            Ok(port) if port > 0 => Some(port),
            _ => return Err("the port is not between 1 and 65535"),
        },
        None => None,
    };
    Ok((host.to_owned(), port))
}

impl FromStr for DockerHost {
    type Err = InvalidDockerHost;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::parse(text)
    }
}

impl fmt::Display for DockerHost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix://{}", path.display()),
            Self::Tcp { host, port } if host.contains(':') => write!(f, "tcp://[{host}]:{port}"),
            Self::Tcp { host, port } => write!(f, "tcp://{host}:{port}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tcp(host: &str, port: u16) -> DockerHost {
        DockerHost::Tcp { host: host.into(), port }
    }

    #[test]
    fn every_usual_form_of_docker_host_is_read() {
        assert_eq!(DockerHost::parse("unix:///run/d.sock"), Ok(DockerHost::Unix("/run/d.sock".into())));
        assert_eq!(DockerHost::parse("/run/d.sock"), Ok(DockerHost::Unix("/run/d.sock".into())));
        assert_eq!(DockerHost::parse("tcp://agent-1:2377"), Ok(tcp("agent-1", 2377)));
        assert_eq!(DockerHost::parse("tcp://agent-1"), Ok(tcp("agent-1", 2375)));
        assert_eq!(DockerHost::parse("http://10.0.0.1:1/"), Ok(tcp("10.0.0.1", 1)));
        assert_eq!(DockerHost::parse("localhost:2377"), Ok(tcp("localhost", 2377)));
        assert_eq!(DockerHost::parse("[::1]:2377"), Ok(tcp("::1", 2377)));
        assert_eq!(DockerHost::parse("[::1]:2377").unwrap().to_string(), "tcp://[::1]:2377");
    }

    proptest::proptest! {
        #[test]
        fn an_address_of_docker_is_written_as_it_was_read(text in "(?s).{0,30}|(tcp://|http://|unix://)?[a-z0-9.:@\\[\\]/]{0,20}") {
            if let Ok(host) = DockerHost::parse(&text) {
                proptest::prop_assert_eq!(DockerHost::parse(&host.to_string()).unwrap(), host);
            }
        }
    }

    #[test]
    fn an_address_that_cannot_be_one_is_refused_with_its_reason() {
        for (text, reason) in [
            ("", "no valid host"),
            ("localhost", "no port"),
            ("unix://relative", "absolute"),
            ("tcp://h:0", "65535"),
            ("tcp://h:70000", "65535"),
            ("tcp://:2375", "no valid host"),
            ("tcp://::1:2375", "no valid host"),
            ("https://h:1", "TLS"),
            ("npipe://x", "scheme"),
            ("tcp://[::1", "bracket"),
            ("h:1\n", "control"),
            ("tcp://u:hunter2@h:1", "a user and password are not supported"),
        ] {
            let error = DockerHost::parse(text).unwrap_err().to_string();
            assert!(!error.contains("hunter2"), "{error}");
            assert!(error.contains(reason), "{text}: {error}");
        }
    }
}
