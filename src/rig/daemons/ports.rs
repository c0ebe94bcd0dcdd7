//! Ports for private daemons.
//!
//! They are taken below the kernel's ephemeral range (32768 and up), so that no outgoing connection
//! can sit on a port while its daemon is being started, or restarted in the middle of a test; and below the ports that
//! agents offer to tasks (31000 and up), so that no daemon takes one of those.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::net::{Ipv4Addr, TcpListener, UdpSocket};

const LOWEST: u16 = 20_000;
const COUNT: u16 = 11_000;

/// A port of 127.0.0.1 that nobody uses at the moment, for TCP and UDP alike.
pub fn free_port() -> Option<u16> {
    // The standard library's hash keys are random: a start of our own for each call.
    let begin = (RandomState::new().hash_one(std::process::id()) % u64::from(COUNT)) as u16;
    (0..COUNT).map(|step| LOWEST + (begin + step) % COUNT).find(|port| is_free(*port))
}

/// Nobody listens on this port of 127.0.0.1 or of all addresses.
pub(super) fn is_free(port: u16) -> bool {
    let at = (Ipv4Addr::LOCALHOST, port);
    TcpListener::bind(at).is_ok() && UdpSocket::bind(at).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_taken_port_is_not_free() {
        let port = free_port().unwrap();
        assert!((LOWEST..LOWEST + COUNT).contains(&port));
        let _held = UdpSocket::bind((Ipv4Addr::LOCALHOST, port)).unwrap();
        assert!(!is_free(port));
    }
}
