//! A packet's way from one end to the other: which chains it meets, and with which addresses.
//!
//! ```text
//!  egress of FROM ── DNAT of a forwarded port ── natOutgoing or the tunnel's address ── ingress of TO
//!  a host to its own task: never filtered       a task to its own host: egress, then defaultEndpointToHostAction
//! ```

use std::net::IpAddr;

use super::flow::{Flow, ICMP6, IPIP, UDP};
use super::hint::{FlowName, FlowNames};
use super::rule::Packet;
use super::walk::{FlowWay, PolicyStep, PolicyVerdict, Walk};
use super::world::{FelixSettings, PolicyEndpoint, PolicyHost, PolicyWorld, ToHost, Wrapping};

/// Neighbour discovery and multicast listeners: Felix lets them to the host before any policy.
const ICMP6_OF_ROUTERS: [u8; 6] = [130, 131, 132, 133, 135, 136];

/// One end of a flow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FlowEnd {
    pub kind: FlowEndKind,
    /// Where one in particular is meant; of an address outside always.
    pub address: Option<IpAddr>,
}

/// What is at an end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FlowEndKind {
    /// Its place among the world's workloads.
    Workload(usize),
    /// A host of the cluster.
    Host(String),
    /// An address of neither.
    Outside,
}

/// What becomes of a flow, and why.
#[derive(Debug, Clone, PartialEq)]
pub struct Explanation {
    pub verdict: PolicyVerdict,
    /// As the packet has it at first.
    pub source: Option<IpAddr>,
    pub destination: Option<IpAddr>,
    /// The chains that it meets, in order.
    pub sides: Vec<PolicySide>,
    /// What happens on the way: addresses that are translated, chains that are not met.
    pub notes: Vec<String>,
    /// What has a say, and cannot be seen from the datastore.
    pub not_seen: Vec<String>,
}

/// The chain of one end.
#[derive(Debug, Clone, PartialEq)]
pub struct PolicySide {
    /// The end's short name.
    pub at: String,
    pub way: FlowWay,
    pub verdict: PolicyVerdict,
    pub steps: Vec<PolicyStep>,
}

impl PolicyWorld {
    /// Follows a packet from one end to the other.
    pub fn explain(&self, from: &FlowEnd, to: &FlowEnd, flow: Flow) -> Explanation {
        let Some((source, destination)) = self.addresses(from, to) else {
            return Explanation {
                verdict: PolicyVerdict::Unknown,
                source: None,
                destination: None,
                sides: Vec::new(),
                notes: vec!["the two ends have no addresses of the same family".to_owned()],
                not_seen: Vec::new(),
            };
        };
        let names = self.short_names(from, to);
        let journey =
            Journey { world: self, from, to, names, sides: vec![], notes: vec![], not_seen: vec![] };
        journey.run(source, destination, flow)
    }

    fn addresses(&self, from: &FlowEnd, to: &FlowEnd) -> Option<(IpAddr, IpAddr)> {
        let (sources, destinations) = (self.addresses_of(from), self.addresses_of(to));
        [true, false].into_iter().find_map(|v4| {
            let of_family = |list: &[IpAddr]| list.iter().find(|own| own.is_ipv4() == v4).copied();
            of_family(&sources).zip(of_family(&destinations))
        })
    }

    fn addresses_of(&self, end: &FlowEnd) -> Vec<IpAddr> {
        match (&end.kind, end.address) {
            (_, Some(address)) => vec![address],
            (FlowEndKind::Workload(index), None) => {
                self.workloads.get(*index).map(|own| own.addresses.clone()).unwrap_or_default()
            }
            (FlowEndKind::Host(name), None) => {
                let host = self.hosts.get(name);
                let main = |v4| host.and_then(|host: &PolicyHost| host.address(v4));
                main(true).into_iter().chain(main(false)).collect()
            }
            (FlowEndKind::Outside, None) => Vec::new(),
        }
    }

    /// The whole name of an end.
    pub fn name_of(&self, end: &FlowEnd) -> String {
        match &end.kind {
            FlowEndKind::Workload(index) => {
                self.workloads.get(*index).map(|own| own.shown().to_owned()).unwrap_or_default()
            }
            FlowEndKind::Host(name) => name.clone(),
            FlowEndKind::Outside => end.address.map(|address| address.to_string()).unwrap_or_default(),
        }
    }

    /// The names that lines have: of a task its app's, where the two differ.
    fn short_names(&self, from: &FlowEnd, to: &FlowEnd) -> FlowNames<'_> {
        let short = |end: &FlowEnd| match end.kind {
            FlowEndKind::Workload(_) => {
                let name = self.name_of(end);
                name.split('.').next().filter(|short| !short.is_empty()).unwrap_or(&name).to_owned()
            }
            _ => self.name_of(end),
        };
        let (mut source, mut destination) = (short(from), short(to));
        if source == destination {
            (source, destination) = (self.name_of(from), self.name_of(to));
        }
        FlowNames { source: self.flow_name(from, source), destination: self.flow_name(to, destination) }
    }

    fn flow_name(&self, end: &FlowEnd, name: String) -> FlowName<'_> {
        let endpoint = match end.kind {
            FlowEndKind::Workload(index) => self.workloads.get(index),
            _ => None,
        };
        let labels = endpoint.map(|own| &own.member.labels);
        FlowName { name, labels, profiles: endpoint.map_or(&[], |own| &own.profiles) }
    }
}

pub(super) struct Journey<'a> {
    pub world: &'a PolicyWorld,
    pub from: &'a FlowEnd,
    pub to: &'a FlowEnd,
    pub names: FlowNames<'a>,
    pub sides: Vec<PolicySide>,
    pub notes: Vec<String>,
    pub not_seen: Vec<String>,
}

/// Where a forwarded port leads.
struct Forwarded<'a> {
    host: &'a str,
    workload: usize,
    address: IpAddr,
    flow: Flow,
}

impl<'a> Journey<'a> {
    fn run(mut self, source: IpAddr, destination: IpAddr, flow: Flow) -> Explanation {
        match self.decide(source, destination, flow) {
            Some(verdict) => self.end(verdict, source, destination),
            None => {
                let worst = |verdict| self.sides.iter().any(|side| side.verdict == verdict);
                let verdict =
                    [PolicyVerdict::Denied, PolicyVerdict::Unknown].into_iter().find(|own| worst(*own));
                self.end(verdict.unwrap_or(PolicyVerdict::Allowed), source, destination)
            }
        }
    }

    fn end(self, verdict: PolicyVerdict, source: IpAddr, destination: IpAddr) -> Explanation {
        let Self { sides, notes, not_seen, .. } = self;
        Explanation { verdict, source: Some(source), destination: Some(destination), sides, notes, not_seen }
    }

    /// A verdict that does not come of the sides.
    fn decide(&mut self, source: IpAddr, destination: IpAddr, flow: Flow) -> Option<PolicyVerdict> {
        use FlowEndKind::{Host, Outside, Workload};
        if (&self.from.kind, &self.to.kind) == (&Outside, &Outside) {
            self.notes.push("neither end is a task or a host of this cluster".to_owned());
            return Some(PolicyVerdict::Unknown);
        }
        if self.from.kind == self.to.kind {
            self.notes.push("it stays inside, where Felix does not see it".to_owned());
            return Some(PolicyVerdict::Allowed);
        }
        let forwarded = self.forwarded(destination, flow);
        let target = forwarded.as_ref().map_or(self.to.kind.clone(), |own| Workload(own.workload));
        let own_host = self.host_of(&self.from.kind);
        let is_here = own_host.is_some() && own_host == self.host_of(&target);
        // The port is translated where the packet arrives: at once on the same host.
        let leaving = match &forwarded {
            Some(own) if own_host == Some(own.host) => (own.address, own.flow),
            _ => (destination, flow),
        };
        match &self.from.kind {
            Workload(index) => {
                let to_own_host = is_here && matches!(target, Host(_));
                if to_own_host && leaving.1.icmp(source).is_some_and(|(kind, _)| is_of_router(source, kind)) {
                    self.notes
                        .push("Felix lets neighbour discovery to the host before any policy".to_owned());
                    return Some(PolicyVerdict::Allowed);
                }
                self.workload_side(*index, FlowWay::Egress, source, leaving.0, leaving.1);
            }
            Host(_) if is_here => {
                self.notes.push("Felix never filters what a host sends to its own tasks".to_owned());
                return Some(PolicyVerdict::Allowed);
            }
            Host(name) => self.host_side(name, FlowWay::Egress, source, leaving.0, leaving.1),
            Outside => {}
        }
        let (arriving, flow) = forwarded.as_ref().map_or((destination, flow), |own| (own.address, own.flow));
        let seen = self.seen_source(source, leaving.0, &target, is_here);
        match &target {
            Workload(index) => self.workload_side(*index, FlowWay::Ingress, seen, arriving, flow),
            Host(name) if is_here => self.at_own_host(name),
            Host(name) => self.host_side(name, FlowWay::Ingress, seen, arriving, flow),
            Outside => self.not_seen.push(format!("what {destination} itself lets in")),
        }
        self.forwarding(&target, is_here);
        None
    }

    fn host_of(&self, end: &'a FlowEndKind) -> Option<&'a str> {
        host_name(self.world, end)
    }

    fn workload(&self, index: usize) -> Option<&'a PolicyEndpoint> {
        self.world.workloads.get(index)
    }

    fn forwarded(&mut self, destination: IpAddr, flow: Flow) -> Option<Forwarded<'a>> {
        let (FlowEndKind::Host(host), Flow::Port { protocol, port }) = (&self.to.kind, flow) else {
            return None;
        };
        let is_it = |own: &&super::world::HostForward| {
            &own.host == host && (own.protocol, own.port) == (protocol, port)
        };
        let forward = self.world.forwards.iter().find(is_it)?;
        let is_task = |own: &PolicyEndpoint| own.container_id == forward.container_id;
        let workload = self.world.workloads.iter().position(is_task)?;
        let endpoint = self.workload(workload)?;
        let mut own = endpoint.addresses.iter();
        let address = *own.find(|address| address.is_ipv4() == destination.is_ipv4())?;
        let inner = Flow::Port { protocol, port: forward.task_port };
        self.notes.push(format!(
            "{host} forwards {flow} to {} ({address}) {inner}, before any policy of {host}",
            endpoint.shown()
        ));
        Some(Forwarded { host, workload, address, flow: inner })
    }

    /// The source address as the other end's chains see it.
    fn seen_source(
        &mut self,
        source: IpAddr,
        leaving_to: IpAddr,
        target: &FlowEndKind,
        is_here: bool,
    ) -> IpAddr {
        let world = self.world;
        let Some(host) = self.host_of(&self.from.kind) else { return source };
        let Some(record) = world.hosts.get(host) else { return source };
        let v4 = source.is_ipv4();
        match &self.from.kind {
            FlowEndKind::Workload(_) if !(is_here && matches!(target, FlowEndKind::Host(_))) => {
                let Some(pool) = world.pool_of(source).filter(|pool| pool.nat_outgoing) else {
                    return source;
                };
                let spared = record.settings.hosts_not_natted && world.host_at(leaving_to).is_some();
                if world.pool_of(leaving_to).is_some() || spared {
                    return source;
                }
                let Some(address) = record.address(v4) else {
                    self.not_seen.push(format!(
                        "the address of {host}, with which natOutgoing of the pool {} sends",
                        pool.name
                    ));
                    return source;
                };
                self.notes.push(format!(
                    "it leaves {host} with the address {address}: natOutgoing of the pool {}",
                    pool.name
                ));
                address
            }
            FlowEndKind::Host(_) if self.from.address.is_none() => {
                let Some(tunnel) = self.tunnel(record, target, leaving_to) else { return source };
                let Some(address) = tunnel else {
                    self.not_seen.push(format!("the address of the tunnel of {host}, with which it sends"));
                    return source;
                };
                self.notes.push(format!("it leaves {host} with the address {address}, that of its tunnel"));
                address
            }
            _ => source,
        }
    }

    /// Whether a host's own packets to a task elsewhere go through a tunnel, and with which address.
    fn tunnel(&self, from: &PolicyHost, target: &FlowEndKind, to: IpAddr) -> Option<Option<IpAddr>> {
        let FlowEndKind::Workload(_) = target else { return None };
        let pool = self.world.pool_of(to)?;
        let there = self.world.hosts.get(host_name(self.world, target)?)?;
        let crosses = |v4| {
            let net = |host: &PolicyHost| host.main.iter().find(|net| net.addr().is_ipv4() == v4).copied();
            match (net(from), net(there)) {
                (Some(one), Some(other)) => !one.contains(&other.addr()),
                _ => true,
            }
        };
        let wraps = |wrapping| match wrapping {
            Wrapping::Never => false,
            Wrapping::Always => true,
            Wrapping::CrossSubnet => crosses(to.is_ipv4()),
        };
        if wraps(pool.vxlan) {
            return Some(from.vxlan.iter().find(|own| own.is_ipv4() == to.is_ipv4()).copied());
        }
        wraps(pool.ipip).then_some(from.ipip)
    }

    fn workload_side(&mut self, index: usize, way: FlowWay, source: IpAddr, destination: IpAddr, flow: Flow) {
        let world = self.world;
        let Some(endpoint) = self.workload(index) else { return };
        let at = match way {
            FlowWay::Egress => self.names.source.name.clone(),
            FlowWay::Ingress if matches!(self.to.kind, FlowEndKind::Workload(_)) => {
                self.names.destination.name.clone()
            }
            FlowWay::Ingress => endpoint.shown().to_owned(),
        };
        let single = |text: String| (PolicyVerdict::Denied, vec![denied(text)]);
        let settings = world.hosts.get(&endpoint.node).map(|host| host.settings.clone()).unwrap_or_default();
        let (verdict, steps) = if let Some(why) = &endpoint.ignored {
            single(format!("Felix drops all of an endpoint that it does not use: {why}"))
        } else if let Some(text) = encapsulated(way, flow, &settings) {
            single(text)
        } else {
            let packet = Packet::new(world, source, destination, flow);
            let (labels, profiles) = (&endpoint.member.labels, &endpoint.profiles[..]);
            let names = &self.names;
            let end = Walk { world, labels, profiles, way, packet: &packet, names }.run();
            (end.verdict, end.steps)
        };
        self.sides.push(PolicySide { at, way, verdict, steps });
    }

    /// After the task's egress: whether the host takes it.
    fn at_own_host(&mut self, host: &str) {
        let settings = self.world.hosts.get(host).map(|host| host.settings.clone()).unwrap_or_default();
        let name = "defaultEndpointToHostAction";
        let (verdict, text, outcome) = match settings.to_host {
            Some(ToHost::Accept) => (PolicyVerdict::Allowed, format!("{name} is Accept"), "allow"),
            Some(ToHost::Return) => {
                self.not_seen.push(format!("the firewall of {host}"));
                (PolicyVerdict::Allowed, format!("{name} is Return: the firewall of {host} decides"), "allow")
            }
            Some(ToHost::Drop) => (PolicyVerdict::Denied, format!("{name} is Drop"), "deny"),
            None => {
                let text = format!("{name} is not in the datastore: Drop, unless the environment of Felix on {host} says otherwise");
                (PolicyVerdict::Unknown, text, "cannot tell")
            }
        };
        let step = PolicyStep { text, outcome: outcome.to_owned(), ..PolicyStep::default() };
        self.sides.push(PolicySide {
            at: host.to_owned(),
            way: FlowWay::Ingress,
            verdict,
            steps: vec![step],
        });
    }
}

pub(super) fn host_name<'a>(world: &'a PolicyWorld, end: &'a FlowEndKind) -> Option<&'a str> {
    match end {
        FlowEndKind::Workload(index) => world.workloads.get(*index).map(|own| own.node.as_str()),
        FlowEndKind::Host(name) => Some(name),
        FlowEndKind::Outside => None,
    }
}

fn is_of_router(source: IpAddr, kind: u8) -> bool {
    Flow::Icmp(None).protocol(source) == ICMP6 && ICMP6_OF_ROUTERS.contains(&kind)
}

fn denied(text: String) -> PolicyStep {
    PolicyStep { text, outcome: "deny".to_owned(), ..PolicyStep::default() }
}

/// Tunnels that a task opens itself would get around its egress policies.
fn encapsulated(way: FlowWay, flow: Flow, settings: &FelixSettings) -> Option<String> {
    let is_vxlan = flow == Flow::Port { protocol: UDP, port: settings.vxlan_port };
    match way {
        FlowWay::Ingress => None,
        FlowWay::Egress if is_vxlan && !settings.vxlan_from_tasks => {
            Some(format!("Felix drops VXLAN (udp/{}) from tasks", settings.vxlan_port))
        }
        FlowWay::Egress if flow == Flow::Other(IPIP) && !settings.ipip_from_tasks => {
            Some("Felix drops IPIP from tasks".to_owned())
        }
        FlowWay::Egress => None,
    }
}
