//! libprocess, the transport of Mesos' v0 messages: one-way HTTP posts between named actors.
//!
//! ```text
//!  executor(1)@127.0.0.1:37195 ── link ──► POST /slave(1)/mesos.internal.RegisterExecutorMessage
//!                              ◄── link ── POST /executor(1)/mesos.internal.RunTaskMessage
//! ```
//!
//! Each side opens its own connection, keeps it for life and writes one request after the other.
//! The answers (202) mean only "handed to the actor"; neither side waits for them. A closed link is how one
//! side learns of the other's death. [`framing`] is the byte format (pure), [`link`] sends,
//! [`server`] receives.

pub mod framing;
pub mod link;
pub mod server;

use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;

use super::messages::Wire;

/// An actor's address, `slave(1)@10.0.0.7:5051`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Upid {
    pub actor: String,
    pub address: SocketAddr,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is not a libprocess address (such as slave(1)@10.0.0.7:5051)")]
pub struct InvalidUpid(String);

impl Upid {
    pub fn new(actor: impl Into<String>, address: SocketAddr) -> Self {
        Self { actor: actor.into(), address }
    }
}

impl FromStr for Upid {
    type Err = InvalidUpid;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let invalid = || InvalidUpid(text.to_owned());
        let (actor, address) = text.rsplit_once('@').ok_or_else(invalid)?;
        // It is written into request lines: nothing that could end one.
        if actor.is_empty() || !actor.chars().all(|c| c.is_ascii_graphic() && !"/?#%".contains(c)) {
            return Err(invalid());
        }
        let address = address.parse().map_err(|_| invalid())?;
        Ok(Self::new(actor, address))
    }
}

impl fmt::Display for Upid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.actor, self.address)
    }
}

/// A message that has arrived, its body not looked at yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Incoming {
    /// The sender as it calls itself; `None` when that is not an address.
    pub from: Option<Upid>,
    /// Full protobuf name, `mesos.internal.RunTaskMessage`.
    pub name: String,
    pub body: Vec<u8>,
}

impl Incoming {
    /// The body as `M` when the message has that name.
    pub fn decode<M: Wire>(&self) -> Option<Result<M, prost::DecodeError>> {
        (self.name == M::NAME).then(|| M::decode(self.body.as_slice()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_actors_are_read_and_written() {
        let upid: Upid = "executor(1)@127.0.0.1:37195".parse().unwrap();
        assert_eq!((upid.actor.as_str(), upid.address.port()), ("executor(1)", 37195));
        assert_eq!(upid.to_string(), "executor(1)@127.0.0.1:37195");
        assert!("slave(1)@[::1]:5051".parse::<Upid>().is_ok());
        for bad in
            ["", "slave(1)", "@127.0.0.1:1", "a b@127.0.0.1:1", "a\r\n@127.0.0.1:1", "a@host:1", "a@1.2.3.4"]
        {
            assert!(bad.parse::<Upid>().is_err(), "{bad}");
        }
    }
}
