//! What is sent between two ends: a protocol, and its port or its ICMP type.

use std::fmt;
use std::net::IpAddr;
use std::ops::RangeInclusive;

pub(super) const TCP: u8 = 6;
pub(super) const UDP: u8 = 17;
pub(super) const SCTP: u8 = 132;
pub(super) const ICMP: u8 = 1;
pub(super) const ICMP6: u8 = 58;
pub(super) const IPIP: u8 = 4;
/// Ports that Linux gives to clients: what rules about source ports are held against.
pub(super) const CLIENTS: RangeInclusive<u16> = 32768..=60999;
const ECHO: u8 = 8;
const ECHO6: u8 = 128;
/// As Calico spells them, in lower case.
const PROTOCOLS: [(&str, u8); 6] =
    [("tcp", TCP), ("udp", UDP), ("icmp", ICMP), ("icmpv6", ICMP6), ("sctp", SCTP), ("udplite", 136)];

/// The first packet of what is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flow {
    Port {
        /// TCP, UDP or SCTP, by number.
        protocol: u8,
        port: u16,
    },
    /// None: an echo request. The protocol is that of the addresses' family.
    Icmp(Option<(u8, u8)>),
    /// Another protocol, by number.
    Other(u8),
}

impl Flow {
    /// Reads `tcp/5432`, `icmp`, `icmp/3/4`, `47`.
    pub fn parse(text: &str) -> Result<Self, String> {
        let lower = text.trim().to_lowercase();
        let mut parts = lower.split('/');
        let name = parts.next().unwrap_or_default();
        let numbers: Vec<&str> = parts.collect();
        let protocol = protocol_of(name).ok_or_else(|| {
            format!("'{name}' is not a protocol: give tcp/PORT, udp/PORT, sctp/PORT, icmp or a number")
        })?;
        match (protocol, numbers.as_slice()) {
            (TCP | UDP | SCTP, [port]) => match port.parse() {
                Ok(port) if port > 0 => Ok(Self::Port { protocol, port }),
                _ => Err(format!("'{port}' is not a port: give a number from 1 to 65535")),
            },
            (TCP | UDP | SCTP, _) => Err(format!("the port is missing: {name}/PORT")),
            (ICMP | ICMP6, []) => Ok(Self::Icmp(None)),
            (ICMP | ICMP6, [kind, rest @ ..]) if rest.len() < 2 => {
                let number = |text: &str| {
                    text.parse::<u8>().map_err(|_| {
                        format!("'{text}' is not an ICMP type or code: give a number from 0 to 255")
                    })
                };
                let code = rest.first().map_or(Ok(0), |code| number(code))?;
                Ok(Self::Icmp(Some((number(kind)?, code))))
            }
            (protocol, []) => Ok(Self::Other(protocol)),
            _ => Err(format!("'{text}' says more than a protocol: only tcp, udp and sctp have ports")),
        }
    }

    /// The protocol between addresses of this family.
    pub(super) fn protocol(self, of: IpAddr) -> u8 {
        match self {
            Self::Port { protocol, .. } | Self::Other(protocol) => protocol,
            Self::Icmp(_) if of.is_ipv4() => ICMP,
            Self::Icmp(_) => ICMP6,
        }
    }

    /// Type and code of an ICMP packet.
    pub(super) fn icmp(self, of: IpAddr) -> Option<(u8, u8)> {
        match self {
            Self::Icmp(given) => Some(given.unwrap_or((if of.is_ipv4() { ECHO } else { ECHO6 }, 0))),
            _ => None,
        }
    }

    pub(super) fn port(self) -> Option<u16> {
        match self {
            Self::Port { port, .. } => Some(port),
            _ => None,
        }
    }
}

/// A protocol's number, by its name or its number.
pub(super) fn protocol_of(name: &str) -> Option<u8> {
    let lower = name.to_lowercase();
    PROTOCOLS.iter().find(|(own, _)| *own == lower).map(|(_, number)| *number).or_else(|| lower.parse().ok())
}

/// A protocol as people write it.
pub(super) fn protocol_name(number: u8) -> String {
    let named = PROTOCOLS.iter().find(|(_, own)| *own == number);
    named.map_or_else(|| format!("protocol {number}"), |(name, _)| (*name).to_owned())
}

impl fmt::Display for Flow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Port { protocol, port } => write!(f, "{}/{port}", protocol_name(*protocol)),
            Self::Icmp(None) => f.write_str("icmp echo"),
            Self::Icmp(Some((kind, code))) => write!(f, "icmp/{kind}/{code}"),
            Self::Other(protocol) => f.write_str(&protocol_name(*protocol)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flow_is_read_as_it_is_written() {
        for (text, flow, shown) in [
            ("tcp/5432", Flow::Port { protocol: TCP, port: 5432 }, "tcp/5432"),
            ("UDP/53", Flow::Port { protocol: UDP, port: 53 }, "udp/53"),
            ("6/80", Flow::Port { protocol: TCP, port: 80 }, "tcp/80"),
            ("icmp", Flow::Icmp(None), "icmp echo"),
            ("icmp/3/4", Flow::Icmp(Some((3, 4))), "icmp/3/4"),
            ("icmpv6/128", Flow::Icmp(Some((128, 0))), "icmp/128/0"),
            ("47", Flow::Other(47), "protocol 47"),
        ] {
            assert_eq!(Flow::parse(text), Ok(flow), "{text}");
            assert_eq!(flow.to_string(), shown);
        }
        for text in
            ["", "tcp", "tcp/", "tcp/0", "tcp/65536", "tcp/80/1", "icmp/256", "icmp/1/2/3", "47/1", "http"]
        {
            assert!(Flow::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn icmp_is_of_the_family_of_the_addresses() {
        let (v4, v6): (IpAddr, IpAddr) = ("10.0.0.1".parse().unwrap(), "fd00::1".parse().unwrap());
        let echo = Flow::Icmp(None);
        assert_eq!((echo.protocol(v4), echo.icmp(v4)), (ICMP, Some((8, 0))));
        assert_eq!((echo.protocol(v6), echo.icmp(v6)), (ICMP6, Some((128, 0))));
    }
}
