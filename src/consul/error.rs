//! What can go wrong with Consul. A refused TLS connection is not taken for an agent that is away.

use std::path::PathBuf;

use crate::tls::{self, TlsFault};

/// Why a request to this host's Consul agent has failed.
#[derive(Debug, thiserror::Error)]
pub enum ConsulError {
    #[error("cannot set up the connection to Consul at {address}")]
    Tls {
        address: String,
        #[source]
        source: tls::TlsError,
    },
    #[error("cannot read Consul's token from {path}")]
    Token {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("cannot use the address or token for Consul at {address}")]
    Client {
        address: String,
        #[source]
        source: Box<reqwest::Error>,
    },
    #[error("{}", failed(what, address, source))]
    Request {
        what: String,
        address: String,
        #[source]
        source: Box<reqwest::Error>,
    },
    #[error("cannot {what}: the answer of Consul at {address} cannot be parsed")]
    Answer {
        what: String,
        address: String,
        #[source]
        source: serde_json::Error,
    },
    #[error("cannot {what}: Consul at {address} expects TLS ({status}); check address of [consul] in config.toml: it begins with https://")]
    Plain { what: String, address: String, status: u16 },
    #[error("Consul at {address} refused to {what}: {status} {answer}")]
    Refused { what: String, address: String, status: u16, answer: String },
}

impl ConsulError {
    /// True for the answer to the state of a check that Consul does not know. Older agents answer with 500
    /// and this text, later ones with 404.
    pub(super) fn is_of_unknown_check(&self) -> bool {
        match self {
            Self::Refused { status: 404, .. } => true,
            Self::Refused { answer, .. } => answer.contains("does not have associated TTL"),
            _ => false,
        }
    }

    /// Consul cannot have seen the request.
    pub fn never_arrived(&self) -> bool {
        match self {
            Self::Tls { .. } | Self::Token { .. } | Self::Client { .. } => true,
            Self::Request { source, .. } => source.is_connect(),
            Self::Plain { .. } => true,
            Self::Answer { .. } | Self::Refused { .. } => false,
        }
    }
}

/// With what to look at where TLS is the reason.
fn failed(what: &str, address: &str, source: &reqwest::Error) -> String {
    match tls::fault(source) {
        Some(TlsFault::Peer) => format!(
            "cannot {what}: Consul at {address} refuses the TLS connection (check cert_file and key_file of [consul] in config.toml, and the CA that Consul trusts)"
        ),
        Some(TlsFault::Here) => format!(
            "cannot {what}: the TLS connection to Consul at {address} fails on this side (check address and ca_file of [consul] in config.toml, and the names in Consul's certificate)"
        ),
        Some(TlsFault::Files | TlsFault::Plain) | None => format!("cannot {what} with Consul at {address}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The words with which agent/agent.go of older releases answers; `tests/consul.rs` has those of the Consul that it finds.
    #[test]
    fn a_check_that_an_older_consul_does_not_know_is_recognised() {
        let of_unknown = |status: u16, answer: &str| {
            let (what, address) = ("report".to_owned(), "127.0.0.1:8500".to_owned());
            ConsulError::Refused { what, address, status, answer: answer.to_owned() }.is_of_unknown_check()
        };
        assert!(of_unknown(500, "CheckID \"service:web\" does not have associated TTL"));
        assert!(!of_unknown(500, "any other failure"));
    }
}
