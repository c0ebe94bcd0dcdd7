//! The members of the etcd cluster, and the one to talk to.
//!
//! Errors are texts that name the endpoint: several of them end up in one sentence.

use std::io;
use std::net::SocketAddr;

use tokio::task::JoinSet;

use crate::dial::tcp;
use crate::limits::ETCD_CONNECT;

/// One configured endpoint with the addresses of its host.
#[derive(Debug, Clone)]
pub(super) struct Member {
    /// As configured.
    pub endpoint: String,
    pub https: bool,
    /// As configured: what the server's certificate has to name.
    pub host: String,
    addresses: Vec<SocketAddr>,
}

impl Member {
    /// Takes an endpoint apart and looks its host up, without the C library.
    pub(super) async fn resolve(endpoint: &str) -> Result<Self, String> {
        let (https, rest) = match endpoint.split_once("://") {
            Some(("http", rest)) => (false, rest),
            Some(("https", rest)) => (true, rest),
            _ => return Err(format!("{endpoint} begins neither with http:// nor with https://")),
        };
        let authority = rest.trim_end_matches('/');
        let (host, port) = match authority.rsplit_once(':') {
            Some((host, port)) if !port.ends_with(']') => (host, port),
            _ => (authority, "2379"),
        };
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let port: u16 =
            port.parse().map_err(|_| format!("the port of {endpoint} is not a number from 0 to 65535"))?;
        let found =
            crate::host::resolve::lookup(host).await.map_err(|error| format!("{endpoint}: {error}"))?;
        let addresses = found.into_iter().map(|ip| SocketAddr::new(ip, port)).collect();
        Ok(Self { endpoint: endpoint.to_owned(), https, host: host.to_owned(), addresses })
    }
}

/// The first endpoint, in time, that accepts a connection. A loopback or LAN address answers within a
/// millisecond; that a dead one never does must not cost its whole time limit.
pub(super) async fn first_open(
    targets: &[Member],
    mut problems: Vec<String>,
) -> Result<(usize, SocketAddr), String> {
    let mut attempts = JoinSet::new();
    for (index, target) in targets.iter().enumerate() {
        for address in target.addresses.clone() {
            attempts.spawn(async move {
                let opened = tcp(&[address], Some(ETCD_CONNECT)).await;
                let problem = opened.err().map(|error| format!("{address}: {}", io::Error::from(error)));
                (index, address, problem)
            });
        }
    }
    while let Some(attempt) = attempts.join_next().await {
        match attempt {
            Ok((index, address, None)) => return Ok((index, address)),
            Ok((_, _, Some(problem))) => problems.push(problem),
            Err(error) => problems.push(error.to_string()),
        }
    }
    Err(problems.join(", "))
}
