//! Everything that may pass between two ends: each protocol, and the ranges of ports that fare alike.

use std::collections::{BTreeMap, BTreeSet};

use super::flow::{protocol_name, Flow, ICMP, SCTP, TCP, UDP};
use super::journey::{Explanation, FlowEnd, FlowEndKind};
use super::rule::{is_icmp, PolicyRule, RulePort};
use super::walk::PolicyVerdict;
use super::world::{Labelled, PolicyLabels, PolicyWorld};

/// Stands for all protocols that no rule names: one for experiments.
const NAMELESS: [u8; 2] = [253, 254];

/// What passes between two ends, and what does not.
#[derive(Debug, Clone, PartialEq)]
pub struct FlowList {
    pub flows: Vec<AllowedFlow>,
    /// One of the explanations, for addresses and for what cannot be seen.
    pub sample: Explanation,
}

/// A protocol and ports that fare alike.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AllowedFlow {
    /// `tcp/80`, `udp/1-65535`, `icmp`, `other protocols`.
    pub what: String,
    pub verdict: PolicyVerdict,
    /// What decided at each side.
    pub by: Vec<String>,
}

impl PolicyWorld {
    /// Tries all that the rules distinguish.
    pub fn allowed(&self, from: &FlowEnd, to: &FlowEnd) -> FlowList {
        let rules = self.rules_between(from, to);
        let sample = self.explain(from, to, Flow::Port { protocol: TCP, port: 1 });
        let starts = self.starts(&rules, from, to);
        let mentioned: BTreeSet<u8> = rules.iter().flat_map(|rule| rule.protocols()).collect();
        let has_sctp = mentioned.contains(&SCTP);
        let mut flows = Vec::new();
        for protocol in [TCP, UDP].into_iter().chain(has_sctp.then_some(SCTP)) {
            flows.extend(self.ports(from, to, protocol, &starts));
        }
        flows.extend(self.icmp(from, to, &rules));
        let others =
            mentioned.iter().copied().filter(|own| ![TCP, UDP, SCTP].contains(own) && !is_icmp(*own));
        let nameless = NAMELESS.into_iter().find(|own| !mentioned.contains(own));
        for protocol in others.chain(nameless) {
            let what = match Some(protocol) == nameless {
                true => "other protocols".to_owned(),
                false => protocol_name(protocol),
            };
            flows.push(tried(what, &self.explain(from, to, Flow::Other(protocol))));
        }
        FlowList { flows, sample }
    }

    /// The rules that the two ends can meet.
    fn rules_between(&self, from: &FlowEnd, to: &FlowEnd) -> Vec<&PolicyRule> {
        let mut subjects: Vec<(&PolicyLabels, &[String])> = Vec::new();
        for end in [from, to] {
            match &end.kind {
                FlowEndKind::Workload(index) => {
                    let own = self.workloads.get(*index);
                    subjects.extend(own.map(|own| (&own.member.labels, &own.profiles[..])));
                }
                FlowEndKind::Host(name) => {
                    let own = self.hosts.get(name).into_iter().flat_map(|host| &host.endpoints);
                    subjects.extend(own.map(|own| (&own.member.labels, &own.profiles[..])));
                    // A port of the host may lead to any of its tasks.
                    let forwards = self.forwards.iter().filter(|forward| &forward.host == name);
                    let tasks = forwards.filter_map(|forward| {
                        self.workloads.iter().find(|own| own.container_id == forward.container_id)
                    });
                    subjects.extend(tasks.map(|own| (&own.member.labels, &own.profiles[..])));
                }
                FlowEndKind::Outside => {}
            }
        }
        let policies = self.tiers.iter().flat_map(|tier| &tier.policies);
        let selecting =
            policies.filter(|policy| subjects.iter().any(|(labels, _)| policy.selector.selects(labels)));
        let profiles = self
            .profiles
            .iter()
            .filter(|(name, _)| subjects.iter().any(|(_, profiles)| profiles.contains(name)));
        selecting
            .flat_map(|policy| policy.ingress.iter().chain(&policy.egress))
            .chain(profiles.flat_map(|(_, profile)| profile.ingress.iter().chain(&profile.egress)))
            .collect()
    }

    /// Ports from which on something may be different.
    fn starts(&self, rules: &[&PolicyRule], from: &FlowEnd, to: &FlowEnd) -> BTreeSet<u16> {
        let mut starts = BTreeSet::from([1]);
        let mut range = |first: u16, last: u16| {
            starts.insert(first.max(1));
            starts.extend(last.checked_add(1));
        };
        let mut named = false;
        for port in
            rules.iter().flat_map(|rule| rule.destination.ports.iter().chain(&rule.destination.not_ports))
        {
            match port {
                RulePort::Numbers(numbers) => range(*numbers.start(), *numbers.end()),
                RulePort::Named(_) => named = true,
            }
        }
        if named {
            let hosts = self.hosts.values().flat_map(|host| host.endpoints.iter().map(|own| &own.member));
            let members = self.workloads.iter().map(|own| &own.member).chain(hosts);
            let destination = self.explain(from, to, Flow::Icmp(None)).destination;
            let has_it = |member: &&Labelled| {
                destination.is_some_and(|it| member.nets.iter().any(|net| net.contains(&it)))
            };
            members
                .filter(has_it)
                .flat_map(|member| &member.ports)
                .for_each(|port| range(port.port, port.port));
        }
        for end in [from, to] {
            let node = match &end.kind {
                FlowEndKind::Workload(index) => self.workloads.get(*index).map(|own| &own.node),
                FlowEndKind::Host(name) => Some(name),
                FlowEndKind::Outside => None,
            };
            let Some((node, host)) = node.and_then(|node| Some((node, self.hosts.get(node)?))) else {
                continue;
            };
            range(host.settings.vxlan_port, host.settings.vxlan_port);
            if matches!(end.kind, FlowEndKind::Host(_)) {
                let open = host.settings.failsafe_in.iter().chain(&host.settings.failsafe_out);
                open.for_each(|own| range(own.port, own.port));
                let forwards = self.forwards.iter().filter(|own| &own.host == node);
                forwards.for_each(|own| range(own.port, own.port));
            }
        }
        starts
    }

    /// Neighbouring ports that fare alike are one.
    fn ports(&self, from: &FlowEnd, to: &FlowEnd, protocol: u8, starts: &BTreeSet<u16>) -> Vec<AllowedFlow> {
        let mut found: Vec<(u16, u16, AllowedFlow)> = Vec::new();
        let starts: Vec<u16> = starts.iter().copied().collect();
        for (index, first) in starts.iter().enumerate() {
            let last = starts.get(index + 1).map_or(u16::MAX, |next| next - 1);
            let flow = tried(String::new(), &self.explain(from, to, Flow::Port { protocol, port: *first }));
            match found.last_mut().filter(|(.., before)| *before == flow) {
                Some((_, end, _)) => *end = last,
                None => found.push((*first, last, flow)),
            }
        }
        let name = protocol_name(protocol);
        let shown = |(first, last, flow): (u16, u16, AllowedFlow)| {
            let what = match (first, last) {
                (1, u16::MAX) => name.clone(),
                (first, last) if first == last => format!("{name}/{first}"),
                (first, last) => format!("{name}/{first}-{last}"),
            };
            AllowedFlow { what, ..flow }
        };
        found.into_iter().map(shown).collect()
    }

    /// Each type and code that a rule names, and what is left.
    fn icmp(&self, from: &FlowEnd, to: &FlowEnd, rules: &[&PolicyRule]) -> Vec<AllowedFlow> {
        let mut types: BTreeMap<u8, BTreeSet<u8>> = BTreeMap::new();
        for (kind, code) in rules.iter().flat_map(|rule| rule.icmp_types()) {
            types.entry(kind).or_default().extend(code);
        }
        let mut found = Vec::new();
        let mut add = |what: String, kind: u8, code: u8| {
            found.push(tried(what, &self.explain(from, to, Flow::Icmp(Some((kind, code))))));
        };
        for (kind, codes) in &types {
            codes.iter().for_each(|code| add(format!("icmp/{kind}/{code}"), *kind, *code));
            if let Some(code) = (0..=u8::MAX).find(|code| !codes.contains(code)) {
                add(format!("{}icmp/{kind}", if codes.is_empty() { "" } else { "other " }), *kind, code);
            }
        }
        if let Some(kind) = (0..=u8::MAX).rev().find(|kind| !types.contains_key(kind)) {
            add(if types.is_empty() { protocol_name(ICMP) } else { "other icmp".to_owned() }, kind, 0);
        }
        found
    }
}

fn tried(what: String, explanation: &Explanation) -> AllowedFlow {
    let side = |side: &super::journey::PolicySide| {
        let last = side.steps.last()?;
        let outcome = if last.rule.is_some() { String::new() } else { format!(": {}", last.outcome) };
        Some((side.verdict, format!("{} {}: {}{outcome}", side.at, side.way.word(), last.text)))
    };
    let sides: Vec<(PolicyVerdict, String)> = explanation.sides.iter().filter_map(side).collect();
    // Of a packet that is stopped, what has stopped it.
    let counts = |verdict: PolicyVerdict| {
        explanation.verdict == PolicyVerdict::Allowed || verdict == explanation.verdict
    };
    let mut by: Vec<String> =
        sides.into_iter().filter(|(own, _)| counts(*own)).map(|(_, text)| text).collect();
    if by.is_empty() {
        by.clone_from(&explanation.notes);
    }
    AllowedFlow { what, verdict: explanation.verdict, by }
}
