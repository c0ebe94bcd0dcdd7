//! Everything that Felix decides with, out of the datastore: for `policy explain`.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;
use serde_json::{Map, Value};

use super::endpoints::{inherited, named_port};
use super::policies::{PolicyRecord, PolicyTier};
use super::rules::labels_to_apply;
use super::{Damaged, EndpointFilter, EndpointRecord, EndpointRecords, Kind, Object, RuleDirection};
use crate::calico::policy::read::{is_own_label, network, policy_selector, protocol, NAMESPACE};
use crate::calico::policy::world::{
    Failsafe, FelixSettings, HostInterface, Labelled, LabelledPort, PolicyLabels, PolicyPool, PolicyRules,
    ProfileRules, TierRules, ToHost, Wrapping,
};
use crate::calico::policy::{PolicyEndpoint, PolicyHost, PolicyRule, PolicyWorld};
use crate::calico::{CalicoError, Datastore, NamedPort};

/// How the reason begins for which Felix does not use an endpoint.
const IGNORED: &str = "Felix ignores it: ";
const DEFAULT_CONFIGURATION: &str = "default";
/// Besides tiers, policies and workloads.
const READ: [Kind; 7] = [
    Kind::Profile,
    Kind::NetworkSet,
    Kind::GlobalNetworkSet,
    Kind::Node,
    Kind::HostEndpoint,
    Kind::FelixConfiguration,
    Kind::IpPool,
];

type Applied = BTreeMap<String, PolicyLabels>;

/// What is read for a world.
#[derive(Default)]
pub(in crate::calico) struct WorldRecords {
    objects: BTreeMap<Kind, Vec<Object>>,
    tiers: Vec<PolicyTier>,
    endpoints: EndpointRecords,
    damaged: Vec<Damaged>,
}

impl Datastore {
    /// Reads it all. Records that Felix cannot use are left out, as Felix does, and come beside the rest.
    pub async fn policy_world(&mut self) -> Result<(PolicyWorld, Vec<Damaged>), CalicoError> {
        let mut records = WorldRecords::default();
        for kind in READ {
            let objects = self.objects(kind).await?;
            records.damaged.extend(objects.damaged);
            records.objects.insert(kind, objects.found);
        }
        let (tiers, damaged) = self.tiers().await?;
        records.tiers = tiers;
        records.damaged.extend(damaged);
        records.endpoints = self.endpoint_records(&EndpointFilter::default()).await?;
        Ok(records.world())
    }
}

impl WorldRecords {
    fn of(&mut self, kind: Kind) -> Vec<Object> {
        self.objects.remove(&kind).unwrap_or_default()
    }

    fn world(mut self) -> (PolicyWorld, Vec<Damaged>) {
        let mut world = PolicyWorld::default();
        let mut damaged = std::mem::take(&mut self.damaged);
        for profile in self.of(Kind::Profile) {
            match profile_rules(&profile) {
                Ok(mut rules) => {
                    if let Some(reason) = unlabelled(&rules) {
                        rules.labels.clear();
                        damaged.push(Damaged { key: profile.key().to_owned(), reason });
                    }
                    world.profiles.insert(profile.name.clone(), rules);
                }
                Err(problem) => damaged.push(problem),
            }
        }
        let applied: Applied =
            world.profiles.iter().map(|(name, profile)| (name.clone(), profile.labels.clone())).collect();
        world.tiers = self.tiers.iter().map(|tier| tier_rules(tier, &mut damaged)).collect();
        let endpoints = std::mem::take(&mut self.endpoints);
        let ignored = ignored(&endpoints.damaged);
        damaged.extend(endpoints.damaged);
        let found = endpoints.found.into_iter();
        world.workloads = found.map(|record| workload(record, &applied, &ignored)).collect();
        for kind in [Kind::NetworkSet, Kind::GlobalNetworkSet] {
            world.sets.extend(self.of(kind).iter().map(|set| network_set(set, &applied)));
        }
        world.hosts = self.of(Kind::Node).iter().map(|node| (node.name.clone(), host(node))).collect();
        for endpoint in self.of(Kind::HostEndpoint) {
            let node = text(&endpoint.value, "/spec/node").to_owned();
            let interface = host_interface(&endpoint, &applied);
            let host = world.hosts.entry(node).or_default();
            host.addresses.extend(interface.member.nets.iter().map(IpNet::addr));
            host.endpoints.push(interface);
        }
        let configurations = self.of(Kind::FelixConfiguration);
        let of = |name: &str| configurations.iter().find(|own| own.name == name);
        for (name, host) in &mut world.hosts {
            let own = [of(DEFAULT_CONFIGURATION), of(&format!("node.{name}"))];
            own.into_iter().flatten().for_each(|configuration| configure(&mut host.settings, configuration));
        }
        world.pools = self.of(Kind::IpPool).iter().filter_map(pool).collect();
        (world, damaged)
    }
}

fn text<'a>(record: &'a Value, pointer: &str) -> &'a str {
    record.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

fn texts(record: &Value, pointer: &str) -> Vec<String> {
    let list = record.pointer(pointer).and_then(Value::as_array);
    list.into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
}

fn is_set(record: &Value, pointer: &str) -> bool {
    record.pointer(pointer).and_then(Value::as_bool) == Some(true)
}

/// All rules of a direction; the error says which of them Felix refuses, and with it the whole record.
fn rules(record: &Value, field: &str, namespace: Option<&str>) -> Result<Vec<PolicyRule>, String> {
    let list = record.pointer(&format!("/spec/{field}")).and_then(Value::as_array);
    let numbered = list.into_iter().flatten().enumerate();
    let read = |(index, rule): (usize, &Value)| {
        let number = index + 1;
        PolicyRule::read(rule, namespace)
            .map_err(|why| format!("Felix ignores it: its {field} rule {number}: {why}"))
    };
    numbered.map(read).collect()
}

fn profile_rules(profile: &Object) -> Result<ProfileRules, Damaged> {
    for direction in [RuleDirection::Inbound, RuleDirection::Outbound] {
        direction.rules(profile)?;
    }
    let labels = profile.value.pointer("/spec/labelsToApply").filter(|labels| !labels.is_null());
    let damaged = |reason: String| Damaged { key: profile.key().to_owned(), reason };
    if labels.is_some_and(|labels| !labels.is_object()) {
        return Err(damaged("spec.labelsToApply is not an object".to_owned()));
    }
    let of = |field| rules(&profile.value, field, None).map_err(damaged);
    Ok(ProfileRules { labels: labels_to_apply(profile), ingress: of("ingress")?, egress: of("egress")? })
}

/// Why Felix renders a profile's rules, and does not give its labels to its endpoints: it validates the two apart.
fn unlabelled(profile: &ProfileRules) -> Option<String> {
    let ways = [("ingress", &profile.ingress), ("egress", &profile.egress)];
    let mut rules =
        ways.into_iter().flat_map(|(way, rules)| rules.iter().enumerate().map(move |own| (way, own)));
    rules.find_map(|(way, (index, rule))| {
        Some(format!("Felix takes none of its labels: its {way} rule {}: {}", index + 1, rule.objection?))
    })
}

fn tier_rules(tier: &PolicyTier, damaged: &mut Vec<Damaged>) -> TierRules {
    let mut policies = Vec::new();
    for policy in &tier.policies {
        match policy_rules(policy) {
            Ok(rules) => policies.push(rules),
            Err(reason) => damaged.push(Damaged { key: policy.key.clone(), reason }),
        }
    }
    TierRules { name: tier.name.clone(), order: tier.order, passes: tier.default_action == "Pass", policies }
}

fn policy_rules(policy: &PolicyRecord) -> Result<PolicyRules, String> {
    let record = &policy.record;
    // Felix goes by what the record says of its namespace; calicoctl writes it as the key has it.
    let namespace = Some(text(record, "/metadata/namespace")).filter(|own| !own.is_empty());
    let governs = |way: &str| policy.types.iter().any(|own| own.eq_ignore_ascii_case(way));
    let spec = record.get("spec").cloned().unwrap_or_else(|| Value::Object(Map::new()));
    // A NetworkPolicy is one of workloads.
    let flag = |name: &str| policy.namespace.is_none() && is_set(record, &format!("/spec/{name}"));
    Ok(PolicyRules {
        name: policy.namespace.iter().map(|own| format!("{own}/")).collect::<String>() + &policy.name,
        order: policy.order,
        selector: policy_selector(&spec, namespace)?,
        governs_ingress: governs("ingress"),
        governs_egress: governs("egress"),
        is_early: flag("doNotTrack") || flag("preDNAT"),
        on_forward: flag("applyOnForward"),
        ingress: rules(record, "ingress", namespace)?,
        egress: rules(record, "egress", namespace)?,
    })
}

/// The keys of endpoints that Felix does not use, and why.
fn ignored(damaged: &[Damaged]) -> BTreeMap<String, String> {
    let reason = |own: &Damaged| Some((own.key.clone(), own.reason.strip_prefix(IGNORED)?.to_owned()));
    damaged.iter().filter_map(reason).collect()
}

fn workload(record: EndpointRecord, applied: &Applied, ignored: &BTreeMap<String, String>) -> PolicyEndpoint {
    let own = record.labels.iter().filter(|(key, _)| is_own_label(key));
    let own = own.map(|(key, value)| (key.clone(), value.clone())).collect();
    let nets: Vec<IpNet> = record.networks.iter().filter_map(|text| network(text)).collect();
    PolicyEndpoint {
        ignored: ignored.get(&record.key()).cloned(),
        addresses: nets.iter().map(IpNet::addr).collect(),
        member: Labelled {
            labels: inherited(own, &record.profiles, applied),
            nets,
            ports: record.ports.iter().filter_map(labelled_port).collect(),
        },
        name: record.name,
        node: record.node,
        workload: record.workload,
        container_id: record.container_id,
        task_id: record.task_id,
        app: record.app,
        profiles: record.profiles,
    }
}

fn labelled_port(port: &NamedPort) -> Option<LabelledPort> {
    let protocol = protocol(&Value::from(port.protocol.clone())).ok()?;
    Some(LabelledPort { name: port.name.clone(), protocol, port: port.port })
}

fn network_set(set: &Object, applied: &Applied) -> Labelled {
    let mut labels = set.labels();
    if set.kind == Kind::NetworkSet {
        let namespace = text(&set.value, "/metadata/namespace");
        labels.insert(NAMESPACE.to_owned(), namespace.to_owned());
        labels = inherited(labels, &[format!("kns.{namespace}")], applied);
    }
    let nets = texts(&set.value, "/spec/nets").iter().filter_map(|text| network(text)).collect();
    Labelled { labels, nets, ports: Vec::new() }
}

fn host(node: &Object) -> PolicyHost {
    let spec = |pointer: &str| text(&node.value, &format!("/spec{pointer}"));
    let net = |pointer: &str| {
        let text = spec(pointer);
        text.parse::<IpNet>().ok().or_else(|| Some(text.parse::<IpAddr>().ok()?.into()))
    };
    let address = |pointer: &str| net(pointer).map(|net| net.addr());
    let mut main: Vec<IpNet> = ["/bgp/ipv4Address", "/bgp/ipv6Address"].into_iter().filter_map(net).collect();
    let list = node.value.pointer("/spec/addresses").and_then(Value::as_array);
    let listed = list.into_iter().flatten().filter_map(|entry| {
        let text = entry.get("address")?.as_str()?;
        text.parse::<IpNet>().ok().or_else(|| Some(text.parse::<IpAddr>().ok()?.into()))
    });
    let listed: Vec<IpNet> = listed.collect();
    for net in &listed {
        // What BGP does not say, the list of addresses does.
        if !main.iter().any(|own| own.addr().is_ipv4() == net.addr().is_ipv4()) {
            main.push(*net);
        }
    }
    let ipip = address("/bgp/ipv4IPIPTunnelAddr");
    let vxlan: Vec<IpAddr> =
        ["/ipv4VXLANTunnelAddr", "/ipv6VXLANTunnelAddr"].into_iter().filter_map(address).collect();
    let wireguard = ["/wireguard/interfaceIPv4Address", "/wireguard/interfaceIPv6Address"];
    let others = listed.iter().map(IpNet::addr).chain(wireguard.into_iter().filter_map(address));
    let addresses =
        main.iter().map(IpNet::addr).chain(ipip).chain(vxlan.iter().copied()).chain(others).collect();
    PolicyHost { addresses, main, ipip, vxlan, ..PolicyHost::default() }
}

fn host_interface(endpoint: &Object, applied: &Applied) -> HostInterface {
    let profiles = texts(&endpoint.value, "/spec/profiles");
    let expected = texts(&endpoint.value, "/spec/expectedIPs");
    let ports = endpoint.value.pointer("/spec/ports").and_then(Value::as_array);
    let ports = ports.into_iter().flatten().filter_map(named_port);
    HostInterface {
        name: endpoint.name.clone(),
        interface: text(&endpoint.value, "/spec/interfaceName").to_owned(),
        member: Labelled {
            labels: inherited(endpoint.labels(), &profiles, applied),
            nets: expected.iter().filter_map(|text| Some(text.parse::<IpAddr>().ok()?.into())).collect(),
            ports: ports.filter_map(|port| labelled_port(&port)).collect(),
        },
        profiles,
    }
}

/// What a FelixConfiguration says; the rest stays.
fn configure(settings: &mut FelixSettings, configuration: &Object) {
    let spec =
        |field: &str| configuration.value.pointer(&format!("/spec/{field}")).filter(|own| !own.is_null());
    if let Some(action) = spec("defaultEndpointToHostAction").and_then(Value::as_str) {
        settings.to_host = match action.to_lowercase().as_str() {
            "return" => Some(ToHost::Return),
            "accept" => Some(ToHost::Accept),
            "drop" => Some(ToHost::Drop),
            _ => settings.to_host,
        };
    }
    let ports = |field: &str| Some(spec(field)?.as_array()?.iter().filter_map(failsafe).collect());
    if let Some(ports) = ports("failsafeInboundHostPorts") {
        settings.failsafe_in = ports;
    }
    if let Some(ports) = ports("failsafeOutboundHostPorts") {
        settings.failsafe_out = ports;
    }
    let port = spec("vxlanPort").and_then(Value::as_u64).and_then(|port| u16::try_from(port).ok());
    settings.vxlan_port = port.unwrap_or(settings.vxlan_port);
    let flag = |field: &str, now: bool| spec(field).and_then(Value::as_bool).unwrap_or(now);
    settings.vxlan_from_tasks = flag("allowVXLANPacketsFromWorkloads", settings.vxlan_from_tasks);
    settings.ipip_from_tasks = flag("allowIPIPPacketsFromWorkloads", settings.ipip_from_tasks);
    if let Some(exclusions) = spec("natOutgoingExclusions").and_then(Value::as_str) {
        settings.hosts_not_natted = exclusions == "IPPoolsAndHostIPs";
    }
}

fn failsafe(port: &Value) -> Option<Failsafe> {
    let net = port.get("net").and_then(Value::as_str).filter(|net| !net.is_empty());
    Some(Failsafe {
        protocol: protocol(port.get("protocol").unwrap_or(&Value::from("TCP"))).ok()?,
        port: port.get("port")?.as_u64()?.try_into().ok()?,
        net: net.and_then(network),
    })
}

fn pool(pool: &Object) -> Option<PolicyPool> {
    let mode = |field: &str| match text(&pool.value, &format!("/spec/{field}")) {
        "Always" => Wrapping::Always,
        "CrossSubnet" => Wrapping::CrossSubnet,
        _ => Wrapping::Never,
    };
    Some(PolicyPool {
        name: pool.name.clone(),
        cidr: network(text(&pool.value, "/spec/cidr"))?,
        nat_outgoing: is_set(&pool.value, "/spec/natOutgoing") || is_set(&pool.value, "/spec/nat-outgoing"),
        ipip: mode("ipipMode"),
        vxlan: mode("vxlanMode"),
    })
}

#[cfg(test)]
pub(in crate::calico) mod tests;
