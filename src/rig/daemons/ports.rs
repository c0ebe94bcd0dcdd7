//! Ports for private daemons.
//!
//! They are taken below the kernel's ephemeral range (32768 and up), so that no outgoing connection
//! can sit on a port while its daemon is being started, or restarted in the middle of a test; and below the ports that
//! agents offer to tasks (31000 and up), so that no daemon takes one of those.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::net::{Ipv4Addr, TcpListener, UdpSocket};
use std::sync::atomic::{AtomicU16, Ordering::Relaxed};
use std::sync::LazyLock;

const LOWEST: u16 = 20_000;
const COUNT: u16 = 11_000;

/// Where the next search begins. At random in a new process, and then on from port to port: a daemon opens its ports
/// some time after it was given them, so that a port looks free to the next search as well.
static NEXT: LazyLock<AtomicU16> = LazyLock::new(|| {
    // The standard library's hash keys are random.
    let first = RandomState::new().hash_one(std::process::id()) % u64::from(COUNT);
    AtomicU16::new(first as u16)
});

/// A port of 127.0.0.1 that is not in use at the moment, for TCP and UDP alike, and that no earlier call returned.
pub fn free_port() -> Option<u16> {
    let next = |offset: u16| Some((offset + 1) % COUNT);
    (0..COUNT)
        .map(|_| LOWEST + NEXT.fetch_update(Relaxed, Relaxed, next).unwrap_or_else(|offset| offset))
        .find(|port| is_free(*port))
}

/// Nothing listens on this port of 127.0.0.1 or of all addresses.
pub(super) fn is_free(port: u16) -> bool {
    let at = (Ipv4Addr::LOCALHOST, port);
    TcpListener::bind(at).is_ok() && UdpSocket::bind(at).is_ok()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn no_port_is_returned_twice_before_all_were_looked_at() {
        let ports: Vec<u16> = (0..2000).map(|_| free_port().unwrap()).collect();
        assert_eq!(ports.iter().collect::<BTreeSet<_>>().len(), ports.len());
    }

    #[test]
    fn a_taken_port_is_not_free() {
        let port = free_port().unwrap();
        assert!((LOWEST..LOWEST + COUNT).contains(&port));
        let _held = UdpSocket::bind((Ipv4Addr::LOCALHOST, port)).unwrap();
        assert!(!is_free(port));
    }
}
