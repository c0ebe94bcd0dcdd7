//! Host ports for tasks, out of what the agent offers.

use std::net::{Ipv4Addr, TcpListener, UdpSocket};
use std::ops::RangeInclusive;
use std::sync::atomic::{AtomicUsize, Ordering};

/// What an agent offers by default.
pub const OFFERED: RangeInclusive<u16> = 31000..=32000;

/// Where the agent itself listens by default.
const OWN: RangeInclusive<u16> = 15051..=16050;

/// A port for an agent; 0 when there is none left.
///
/// A process gives none out twice, and every process begins elsewhere: an agent that is away comes back to
/// its own port, which no other may have taken meanwhile.
pub fn own() -> u16 {
    static GIVEN: AtomicUsize = AtomicUsize::new(0);
    let ports: Vec<u16> = OWN.collect();
    let first = std::process::id() as usize;
    let next = || ports[(first + GIVEN.fetch_add(1, Ordering::Relaxed)) % ports.len()];
    (0..ports.len()).map(|_| next()).find(|port| is_free(*port)).unwrap_or(0)
}

/// The first `count` ports of the range on which nothing listens, neither by TCP nor by UDP, and that are not in
/// `taken`; fewer when there are no more.
pub fn free(range: RangeInclusive<u16>, count: usize, taken: &[u16]) -> Vec<u16> {
    range.filter(|port| !taken.contains(port) && is_free(*port)).take(count).collect()
}

fn is_free(port: u16) -> bool {
    let any = Ipv4Addr::UNSPECIFIED;
    TcpListener::bind((any, port)).is_ok() && UdpSocket::bind((any, port)).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_in_use_are_left_out() {
        let busy = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap();
        let port = busy.local_addr().unwrap().port();
        assert_eq!(free(port..=port, 1, &[]), Vec::<u16>::new());
        let busy = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = busy.local_addr().unwrap().port();
        assert_eq!(free(port..=port, 1, &[]), Vec::<u16>::new());
        assert_ne!(own(), own());
        assert!(!free(OFFERED, 2, &[31000]).contains(&31000));
    }
}
