//! The addresses of this host's interfaces, in this network namespace.

use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};

use ipnet::IpNet;
use nix::sys::socket::SockaddrStorage;

/// Somewhere else, where nothing is sent to (RFC 5737, RFC 3849): only the route to it is looked up.
const ELSEWHERE: [&str; 2] = ["192.0.2.1:9", "[2001:db8::1]:9"];

/// All addresses with the length of their network.
pub fn own() -> io::Result<Vec<IpNet>> {
    of_interfaces(|_| true)
}

/// Those of the interfaces with such a name.
pub fn of_interfaces(is_wanted: impl Fn(&str) -> bool) -> io::Result<Vec<IpNet>> {
    let address = |storage: &SockaddrStorage| {
        let v4 = storage.as_sockaddr_in().map(|address| IpAddr::V4(address.ip()));
        v4.or_else(|| storage.as_sockaddr_in6().map(|address| IpAddr::V6(address.ip())))
    };
    let net = |entry: nix::ifaddrs::InterfaceAddress| {
        if !is_wanted(&entry.interface_name) {
            return None;
        }
        let (ip, mask) = (address(entry.address.as_ref()?)?, address(entry.netmask.as_ref()?)?);
        IpNet::with_netmask(ip, mask).ok()
    };
    Ok(nix::ifaddrs::getifaddrs()?.filter_map(net).collect())
}

/// Why an address is not one of this host's.
#[derive(Debug, thiserror::Error)]
pub enum AddressError {
    #[error("{0} belongs to no interface of this host; name one of {1}")]
    NotHere(IpAddr, String),
    #[error("cannot list the addresses of this host")]
    List(#[from] io::Error),
}

/// This address of the host with the length of its network.
pub fn required(ip: IpAddr) -> Result<IpNet, AddressError> {
    let own = own()?;
    let found = own.iter().find(|net| net.addr() == ip).copied();
    found.ok_or_else(|| AddressError::NotHere(ip, listed(&own, ip.is_ipv4())))
}

/// The addresses of a family without those of loopback, for messages.
pub fn listed(own: &[IpNet], is_v4: bool) -> String {
    let of_family = own.iter().map(IpNet::addr).filter(|ip| ip.is_ipv4() == is_v4 && !ip.is_loopback());
    let names: Vec<String> = of_family.map(|ip| ip.to_string()).collect();
    match names.is_empty() {
        true => "none".to_owned(),
        false => names.join(", "),
    }
}

/// The address from which this host speaks to `peer`, or to machines elsewhere: the one of its default route.
pub fn towards(peer: Option<SocketAddr>, is_v4: bool) -> Option<IpAddr> {
    let elsewhere = || ELSEWHERE[usize::from(!is_v4)].parse().ok();
    let peer = peer.filter(|peer| peer.is_ipv4() == is_v4).or_else(elsewhere)?;
    let any = if is_v4 { "0.0.0.0:0" } else { "[::]:0" };
    let socket = UdpSocket::bind(any).ok()?;
    socket.connect(peer).ok()?;
    Some(socket.local_addr().ok()?.ip()).filter(|ip| !ip.is_unspecified())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_is_ours() {
        let own = own().unwrap();
        assert!(own.contains(&"127.0.0.1/8".parse().unwrap()), "{own:?}");
        assert_eq!(towards(Some("127.0.0.1:2379".parse().unwrap()), true), "127.0.0.1".parse().ok());
    }
}
