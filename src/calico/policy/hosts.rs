//! Host endpoints: which of them a packet meets, and what is not evaluated of them.

use std::net::IpAddr;

use super::flow::Flow;
use super::journey::{host_name, FlowEndKind, Journey, PolicySide};
use super::rule::Packet;
use super::walk::{FlowWay, PolicyStep, PolicyVerdict, Walk};
use super::world::{HostInterface, PolicyHost, PolicyRules};

const ALL_INTERFACES: &str = "*";
const TUNNELS: [&str; 3] = ["vxlan.calico", "vxlan-v6.calico", "tunl0"];

impl Journey<'_> {
    pub(super) fn host_side(
        &mut self,
        name: &str,
        way: FlowWay,
        source: IpAddr,
        destination: IpAddr,
        flow: Flow,
    ) {
        let world = self.world;
        self.not_seen.push(format!("the firewall of {name}"));
        let Some(host) = world.hosts.get(name).filter(|host| !host.endpoints.is_empty()) else { return };
        let own = if way == FlowWay::Egress { source } else { destination };
        let packet = Packet::new(world, source, destination, flow);
        let settings = &host.settings;
        let (open, other) = match way {
            FlowWay::Ingress => (&settings.failsafe_in, source),
            FlowWay::Egress => (&settings.failsafe_out, destination),
        };
        let protocol = flow.protocol(source);
        let is_open = open.iter().any(|own| {
            (own.protocol, Some(own.port)) == (protocol, flow.port())
                && own.net.is_none_or(|net| net.contains(&other))
        });
        if is_open {
            let text = format!("{flow} is a failsafe port of host endpoints");
            let steps = vec![PolicyStep { text, outcome: "allow".to_owned(), ..PolicyStep::default() }];
            self.sides.push(PolicySide { at: name.to_owned(), way, verdict: PolicyVerdict::Allowed, steps });
            return;
        }
        let (candidates, or_none) =
            interfaces(host, own, way == FlowWay::Egress && world.pool_of(destination).is_some());
        let mut ends = Vec::new();
        for candidate in candidates {
            self.early(candidate);
            let (labels, profiles) = (&candidate.member.labels, &candidate.profiles[..]);
            let mut end = Walk { world, labels, profiles, way, packet: &packet, names: &self.names }.run();
            if let Some(step) = end.steps.first_mut() {
                step.text = format!("host endpoint {}: {}", candidate.name, step.text);
            }
            ends.push(end);
        }
        let Some(first) = ends.first().cloned() else { return };
        let is_sure = ends.iter().all(|end| end.verdict == first.verdict)
            && (!or_none || first.verdict == PolicyVerdict::Allowed);
        if !is_sure {
            self.not_seen
                .push(format!("which interface of {name} the packet uses, and so which host endpoint"));
        }
        let verdict = if is_sure { first.verdict } else { PolicyVerdict::Unknown };
        let steps = if is_sure { first.steps } else { ends.into_iter().flat_map(|end| end.steps).collect() };
        self.sides.push(PolicySide { at: name.to_owned(), way, verdict, steps });
    }

    /// Policies of a host endpoint that come before all others.
    fn early(&mut self, endpoint: &HostInterface) {
        let policies = self.world.tiers.iter().flat_map(|tier| &tier.policies);
        let early =
            policies.filter(|policy| policy.is_early && policy.selector.selects(&endpoint.member.labels));
        let names: Vec<&str> = early.map(|policy| policy.name.as_str()).collect();
        if !names.is_empty() {
            let text = format!(
                "policies of the host endpoint {} with doNotTrack or preDNAT: {}",
                endpoint.name,
                names.join(", ")
            );
            self.not_seen.push(text);
        }
    }

    /// What the hosts on the way may do with a packet that they forward.
    pub(super) fn forwarding(&mut self, target: &FlowEndKind, is_here: bool) {
        if is_here {
            return;
        }
        let ends =
            [&self.from.kind, target].into_iter().filter(|end| matches!(end, FlowEndKind::Workload(_)));
        let hosts: Vec<&str> = ends.filter_map(|end| host_name(self.world, end)).collect();
        for name in hosts {
            let Some(host) = self.world.hosts.get(name) else { continue };
            let policies = self.world.tiers.iter().flat_map(|tier| &tier.policies);
            let selects = |policy: &&PolicyRules| {
                host.endpoints.iter().any(|own| policy.selector.selects(&own.member.labels))
            };
            let forward = policies.filter(|policy| policy.on_forward || policy.is_early).filter(selects);
            let names: Vec<&str> = forward.map(|policy| policy.name.as_str()).collect();
            if !names.is_empty() {
                let names = names.join(", ");
                self.not_seen
                    .push(format!("policies of the host endpoints of {name} for what it forwards: {names}"));
            }
        }
    }
}

/// The host endpoints of which one concerns a packet with this address of the host; and whether none of them may.
fn interfaces(host: &PolicyHost, address: IpAddr, may_be_wrapped: bool) -> (Vec<&HostInterface>, bool) {
    let (all, own): (Vec<&HostInterface>, Vec<&HostInterface>) =
        host.endpoints.iter().partition(|endpoint| endpoint.interface == ALL_INTERFACES);
    let all = all.into_iter().next();
    let is_expected =
        |endpoint: &&&HostInterface| endpoint.member.nets.iter().any(|net| net.contains(&address));
    if let (Some(endpoint), false) = (own.iter().find(is_expected), may_be_wrapped) {
        return (vec![endpoint], false);
    }
    let named: Vec<&HostInterface> =
        own.into_iter().filter(|endpoint| !endpoint.interface.is_empty()).collect();
    let named: Vec<&HostInterface> = match may_be_wrapped {
        true => named.into_iter().filter(|endpoint| TUNNELS.contains(&endpoint.interface.as_str())).collect(),
        false => named,
    };
    let or_none = all.is_none();
    (named.into_iter().chain(all).collect(), or_none)
}
