//! One rule of a policy or a profile: what it is, and whether a packet fits it.
//!
//! As Felix renders rules: a selector stands for the addresses of all that it selects; a named port for those endpoints
//! that have it; networks of the other family make a rule void; what another program would have to evaluate is unknown.

use std::net::IpAddr;
use std::ops::RangeInclusive;

use ipnet::IpNet;

use super::super::selector::Selector;
use super::flow::{Flow, CLIENTS, ICMP, ICMP6};
use super::world::{Labelled, PolicyWorld};

/// What a rule does with a packet that fits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::calico) enum RuleAction {
    Allow,
    Deny,
    /// On to the next tier.
    Pass,
    /// Written down, and on to the next rule.
    Log,
}

impl RuleAction {
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Allow => "allow",
            Self::Deny => "deny",
            Self::Pass => "pass",
            Self::Log => "log",
        }
    }
}

/// A rule that Felix can render.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::calico) struct PolicyRule {
    pub action: RuleAction,
    pub(super) version: Option<u8>,
    pub(super) protocol: Option<u8>,
    pub(super) not_protocol: Option<u8>,
    pub(super) icmp: Option<(u8, Option<u8>)>,
    pub(super) not_icmp: Option<(u8, Option<u8>)>,
    pub(super) source: RulePeer,
    pub(super) destination: RulePeer,
    /// Why calicoctl would not have written it; Felix renders it all the same.
    pub objection: Option<&'static str>,
    /// Fields that decide, but not here.
    pub(super) foreign: Vec<&'static str>,
}

/// What a rule asks of one end.
#[derive(Debug, Clone, Default, PartialEq)]
pub(in crate::calico) struct RulePeer {
    pub(super) nets: Vec<IpNet>,
    pub(super) not_nets: Vec<IpNet>,
    /// With those of namespaces and the negated one, where it is restricted to known endpoints anyhow.
    pub(super) selector: Option<Selector>,
    pub(super) not_selector: Option<Selector>,
    pub(super) ports: Vec<RulePort>,
    pub(super) not_ports: Vec<RulePort>,
}

/// A port of a rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::calico) enum RulePort {
    Numbers(RangeInclusive<u16>),
    Named(String),
}

/// The end of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::calico) enum PacketEnd {
    Source,
    Destination,
}

/// What of a packet does not fit a rule.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::calico) enum Misfit<'a> {
    Version(u8),
    Protocol(u8),
    NotProtocol,
    Icmp(u8, Option<u8>),
    NotIcmp,
    Nets(PacketEnd, &'a [IpNet]),
    NotNets(PacketEnd),
    /// Networks of the other family only, or all addresses excluded.
    Void,
    /// The selector does not come to this.
    Labels(PacketEnd, &'a Selector, bool),
    Ports(PacketEnd, &'a [RulePort]),
    NotPorts(PacketEnd),
}

/// Whether a packet fits a rule.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::calico) enum Fit<'a> {
    Yes,
    No(Vec<Misfit<'a>>),
    /// All fits but what is not evaluated here: its names.
    Unknown(Vec<&'static str>),
}

/// A packet, with what has its addresses.
#[derive(Debug, Clone)]
pub(in crate::calico) struct Packet<'a> {
    pub source: IpAddr,
    pub destination: IpAddr,
    pub flow: Flow,
    sources: Vec<&'a Labelled>,
    destinations: Vec<&'a Labelled>,
}

impl<'a> Packet<'a> {
    pub(super) fn new(world: &'a PolicyWorld, source: IpAddr, destination: IpAddr, flow: Flow) -> Self {
        let (sources, destinations) = (world.members_at(source), world.members_at(destination));
        Self { source, destination, flow, sources, destinations }
    }

    fn address(&self, end: PacketEnd) -> IpAddr {
        match end {
            PacketEnd::Source => self.source,
            PacketEnd::Destination => self.destination,
        }
    }

    /// What has the address of an end.
    pub(super) fn members(&self, end: PacketEnd) -> &[&'a Labelled] {
        match end {
            PacketEnd::Source => &self.sources,
            PacketEnd::Destination => &self.destinations,
        }
    }
}

impl PolicyRule {
    /// Whether a packet fits.
    pub(super) fn fit(&self, packet: &Packet<'_>) -> Fit<'_> {
        let mut misfits = Vec::new();
        let protocol = packet.flow.protocol(packet.source);
        let version = if packet.source.is_ipv4() { 4 } else { 6 };
        misfits.extend(self.version.filter(|wanted| *wanted != version).map(Misfit::Version));
        misfits.extend(self.protocol.filter(|wanted| *wanted != protocol).map(Misfit::Protocol));
        if self.not_protocol == Some(protocol) {
            misfits.push(Misfit::NotProtocol);
        }
        let icmp = packet.flow.icmp(packet.source);
        let is_of = |(kind, code): (u8, Option<u8>)| {
            icmp.is_some_and(|own| own.0 == kind && code.is_none_or(|code| own.1 == code))
        };
        if let Some((kind, code)) = self.icmp.filter(|wanted| !is_of(*wanted)) {
            misfits.push(Misfit::Icmp(kind, code));
        }
        if self.not_icmp.is_some_and(|unwanted| is_of(unwanted) || icmp.is_none()) {
            misfits.push(Misfit::NotIcmp);
        }
        let mut unknown = self.foreign.clone();
        for (end, peer) in [(PacketEnd::Source, &self.source), (PacketEnd::Destination, &self.destination)] {
            peer.addresses(end, packet, &mut misfits);
            peer.labels(end, packet, &mut misfits);
            if end == PacketEnd::Destination {
                peer.target_ports(self.protocol, packet, &mut misfits);
            } else if peer.client_ports(packet, &mut misfits) {
                unknown.push("source ports");
            }
        }
        match (misfits.is_empty(), unknown.is_empty()) {
            (false, _) => Fit::No(misfits),
            (true, true) => Fit::Yes,
            (true, false) => Fit::Unknown(unknown),
        }
    }

    /// Protocols that it names.
    pub(super) fn protocols(&self) -> impl Iterator<Item = u8> {
        self.protocol.into_iter().chain(self.not_protocol)
    }

    /// ICMP types that it names, with their codes.
    pub(super) fn icmp_types(&self) -> impl Iterator<Item = (u8, Option<u8>)> {
        self.icmp.into_iter().chain(self.not_icmp)
    }
}

impl RulePeer {
    fn addresses<'a>(&'a self, end: PacketEnd, packet: &Packet<'_>, misfits: &mut Vec<Misfit<'a>>) {
        let address = packet.address(end);
        let of_family = |net: &&IpNet| net.addr().is_ipv4() == address.is_ipv4();
        if !self.nets.is_empty() && !self.nets.iter().any(|net| net.contains(&address)) {
            misfits.push(match self.nets.iter().any(|net| of_family(&net)) {
                true => Misfit::Nets(end, &self.nets),
                false => Misfit::Void,
            });
        }
        let excluded: Vec<&IpNet> = self.not_nets.iter().filter(of_family).collect();
        if !self.not_nets.is_empty() {
            if excluded.is_empty() || excluded.iter().any(|net| net.prefix_len() == 0) {
                misfits.push(Misfit::Void);
            } else if excluded.iter().any(|net| net.contains(&address)) {
                misfits.push(Misfit::NotNets(end));
            }
        }
    }

    fn labels<'a>(&'a self, end: PacketEnd, packet: &Packet<'_>, misfits: &mut Vec<Misfit<'a>>) {
        let is_member =
            |selector: &Selector| packet.members(end).iter().any(|member| selector.selects(&member.labels));
        if let Some(selector) = self.selector.as_ref().filter(|selector| !is_member(selector)) {
            misfits.push(Misfit::Labels(end, selector, true));
        }
        if let Some(selector) = self.not_selector.as_ref().filter(|selector| is_member(selector)) {
            misfits.push(Misfit::Labels(end, selector, false));
        }
    }

    /// Whether the packet goes to one of these ports. A named port is that of an endpoint which the selector selects.
    fn is_target(&self, ports: &[RulePort], protocol: Option<u8>, packet: &Packet<'_>) -> bool {
        let Flow::Port { protocol: own, port } = packet.flow else { return false };
        let is_at = |name: &str| {
            packet.members(PacketEnd::Destination).iter().any(|member| {
                self.selector.as_ref().is_none_or(|selector| selector.selects(&member.labels))
                    && member.ports.iter().any(|named| {
                        named.name == name
                            && (named.protocol, named.port) == (own, port)
                            && protocol.is_none_or(|wanted| wanted == named.protocol)
                    })
            })
        };
        ports.iter().any(|own| match own {
            RulePort::Numbers(range) => range.contains(&port),
            RulePort::Named(name) => is_at(name),
        })
    }

    fn target_ports<'a>(&'a self, protocol: Option<u8>, packet: &Packet<'_>, misfits: &mut Vec<Misfit<'a>>) {
        if !self.ports.is_empty() && !self.is_target(&self.ports, protocol, packet) {
            misfits.push(Misfit::Ports(PacketEnd::Destination, &self.ports));
        }
        if !self.not_ports.is_empty() && self.is_target(&self.not_ports, protocol, packet) {
            misfits.push(Misfit::NotPorts(PacketEnd::Destination));
        }
    }

    /// A client's port is not known beforehand: whether that matters.
    fn client_ports<'a>(&'a self, packet: &Packet<'_>, misfits: &mut Vec<Misfit<'a>>) -> bool {
        let mut is_unknown = false;
        let covered = |ports: &[RulePort]| {
            if packet.flow.port().is_none() {
                return Some(false);
            }
            let range = |port: &RulePort| match port {
                RulePort::Numbers(range) => Some(range.clone()),
                RulePort::Named(_) => None,
            };
            let (first, last) = (CLIENTS.start(), CLIENTS.end());
            let ranges: Vec<RangeInclusive<u16>> = ports.iter().filter_map(range).collect();
            let touches = |range: &RangeInclusive<u16>| range.start() <= last && range.end() >= first;
            match ranges.iter().any(|range| range.contains(first) && range.contains(last)) {
                true => Some(true),
                // A named port is one of a server.
                false if !ranges.iter().any(touches) => Some(false),
                false => None,
            }
        };
        if !self.ports.is_empty() {
            match covered(&self.ports) {
                Some(true) => {}
                Some(false) => misfits.push(Misfit::Ports(PacketEnd::Source, &self.ports)),
                None => is_unknown = true,
            }
        }
        if !self.not_ports.is_empty() {
            match covered(&self.not_ports) {
                Some(true) => misfits.push(Misfit::NotPorts(PacketEnd::Source)),
                Some(false) => {}
                None => is_unknown = true,
            }
        }
        is_unknown
    }
}

impl std::fmt::Display for RulePort {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Numbers(range) if range.start() == range.end() => write!(f, "{}", range.start()),
            Self::Numbers(range) => write!(f, "{}-{}", range.start(), range.end()),
            Self::Named(name) => f.write_str(name),
        }
    }
}

/// Whether a protocol is ICMP of either family.
pub(super) fn is_icmp(protocol: u8) -> bool {
    [ICMP, ICMP6].contains(&protocol)
}
