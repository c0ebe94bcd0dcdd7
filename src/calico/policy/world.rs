//! What Felix decides with: endpoints, sets of networks, tiers and policies, profiles, hosts, pools.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;

use super::super::selector::Selector;
use super::flow::{TCP, UDP};
use super::rule::PolicyRule;

pub(in crate::calico) type PolicyLabels = BTreeMap<String, String>;

/// Everything at one moment.
#[derive(Debug, Clone, Default)]
pub struct PolicyWorld {
    pub workloads: Vec<PolicyEndpoint>,
    pub hosts: BTreeMap<String, PolicyHost>,
    /// NetworkSets and GlobalNetworkSets.
    pub(in crate::calico) sets: Vec<Labelled>,
    /// In Felix's order, with their policies in Felix's order.
    pub(in crate::calico) tiers: Vec<TierRules>,
    /// Those that Felix can read.
    pub(in crate::calico) profiles: BTreeMap<String, ProfileRules>,
    pub(in crate::calico) pools: Vec<PolicyPool>,
    /// Ports of hosts that lead to tasks, as far as they are known.
    pub forwards: Vec<HostForward>,
}

/// Addresses with labels: what the selector of a rule selects.
#[derive(Debug, Clone, Default, PartialEq)]
pub(in crate::calico) struct Labelled {
    /// Its own and those that its profiles apply.
    pub labels: PolicyLabels,
    pub nets: Vec<IpNet>,
    pub ports: Vec<LabelledPort>,
}

/// A port that rules can name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::calico) struct LabelledPort {
    pub name: String,
    pub protocol: u8,
    pub port: u16,
}

/// A workload endpoint.
#[derive(Debug, Clone, Default)]
pub struct PolicyEndpoint {
    /// The name of the record.
    pub name: String,
    pub node: String,
    pub workload: String,
    pub container_id: String,
    pub task_id: Option<String>,
    pub app: Option<String>,
    /// In the order in which Felix looks at them.
    pub profiles: Vec<String>,
    pub addresses: Vec<IpAddr>,
    /// Why Felix does not use the record, if so.
    pub ignored: Option<String>,
    pub(in crate::calico) member: Labelled,
}

/// A host of the cluster.
#[derive(Debug, Clone, Default)]
pub struct PolicyHost {
    /// All that are known, those of tunnels included.
    pub addresses: Vec<IpAddr>,
    /// Between hosts, with the length of the network.
    pub main: Vec<IpNet>,
    pub(in crate::calico) ipip: Option<IpAddr>,
    /// One a family.
    pub(in crate::calico) vxlan: Vec<IpAddr>,
    /// In the order of their names.
    pub(in crate::calico) endpoints: Vec<HostInterface>,
    pub(in crate::calico) settings: FelixSettings,
}

/// A HostEndpoint.
#[derive(Debug, Clone, Default)]
pub(in crate::calico) struct HostInterface {
    pub name: String,
    /// `*` is every interface; empty: that of the expected addresses.
    pub interface: String,
    pub profiles: Vec<String>,
    pub member: Labelled,
}

/// What Felix does with packets that a task sends to its own host, after the policies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::calico) enum ToHost {
    Drop,
    Return,
    Accept,
}

/// Felix's configuration for one host, as far as the datastore has it.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::calico) struct FelixSettings {
    /// None: not in the datastore, where Felix's own environment may say it.
    pub to_host: Option<ToHost>,
    pub failsafe_in: Vec<Failsafe>,
    pub failsafe_out: Vec<Failsafe>,
    pub vxlan_port: u16,
    pub vxlan_from_tasks: bool,
    pub ipip_from_tasks: bool,
    /// `natOutgoing` does not concern packets to hosts of the cluster.
    pub hosts_not_natted: bool,
}

/// A port that no policy of a host endpoint closes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::calico) struct Failsafe {
    pub protocol: u8,
    pub port: u16,
    pub net: Option<IpNet>,
}

impl Default for FelixSettings {
    fn default() -> Self {
        let open = |ports: &[(u8, u16)]| {
            ports
                .iter()
                .map(|(protocol, port)| Failsafe { protocol: *protocol, port: *port, net: None })
                .collect()
        };
        let shared = [179, 2379, 2380, 5473, 6443, 6666, 6667].map(|port| (TCP, port));
        Self {
            to_host: None,
            failsafe_in: open(&[&[(TCP, 22), (UDP, 68)], &shared[..]].concat()),
            failsafe_out: open(&[&[(UDP, 53), (UDP, 67)], &shared[..]].concat()),
            vxlan_port: 4789,
            vxlan_from_tasks: false,
            ipip_from_tasks: false,
            hosts_not_natted: false,
        }
    }
}

/// A tier with what it has.
#[derive(Debug, Clone, Default)]
pub(in crate::calico) struct TierRules {
    pub name: String,
    pub order: Option<f64>,
    /// A packet that no policy of the tier decides about goes on to the next, instead of being dropped.
    pub passes: bool,
    pub policies: Vec<PolicyRules>,
}

/// A policy of a tier.
#[derive(Debug, Clone)]
pub(in crate::calico) struct PolicyRules {
    /// `NAMESPACE/NAME` of a NetworkPolicy.
    pub name: String,
    pub order: Option<f64>,
    /// Namespace and the selectors over what only Kubernetes has included.
    pub selector: Selector,
    pub governs_ingress: bool,
    pub governs_egress: bool,
    /// It has `doNotTrack` or `preDNAT`: of host endpoints alone, and before all others.
    pub is_early: bool,
    pub on_forward: bool,
    pub ingress: Vec<PolicyRule>,
    pub egress: Vec<PolicyRule>,
}

/// The rules of a profile.
#[derive(Debug, Clone, Default)]
pub(in crate::calico) struct ProfileRules {
    pub labels: PolicyLabels,
    pub ingress: Vec<PolicyRule>,
    pub egress: Vec<PolicyRule>,
}

/// A pool of addresses.
#[derive(Debug, Clone)]
pub(in crate::calico) struct PolicyPool {
    pub name: String,
    pub cidr: IpNet,
    pub nat_outgoing: bool,
    pub ipip: Wrapping,
    pub vxlan: Wrapping,
}

/// When packets between hosts are wrapped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::calico) enum Wrapping {
    Never,
    Always,
    CrossSubnet,
}

/// A port of a host that leads to a task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostForward {
    pub host: String,
    /// By number.
    pub protocol: u8,
    pub port: u16,
    /// The task's container.
    pub container_id: String,
    pub task_port: u16,
}

impl PolicyWorld {
    /// What has this address: endpoints, host endpoints and sets of networks.
    pub(super) fn members_at(&self, address: IpAddr) -> Vec<&Labelled> {
        let hosts = self.hosts.values().flat_map(|host| host.endpoints.iter().map(|own| &own.member));
        let workloads = self.workloads.iter().filter(|own| own.ignored.is_none()).map(|own| &own.member);
        let all = workloads.chain(hosts).chain(&self.sets);
        all.filter(|member| member.nets.iter().any(|net| net.contains(&address))).collect()
    }

    /// The pool of an address; the longest where several contain it.
    pub(super) fn pool_of(&self, address: IpAddr) -> Option<&PolicyPool> {
        let pools = self.pools.iter().filter(|pool| pool.cidr.contains(&address));
        pools.max_by_key(|pool| pool.cidr.prefix_len())
    }

    /// The host that has this address.
    pub fn host_at(&self, address: IpAddr) -> Option<&str> {
        let mut hosts = self.hosts.iter();
        hosts.find(|(_, host)| host.addresses.contains(&address)).map(|(name, _)| name.as_str())
    }
}

impl PolicyHost {
    /// The address between hosts.
    pub(super) fn address(&self, v4: bool) -> Option<IpAddr> {
        self.main.iter().map(IpNet::addr).find(|own| own.is_ipv4() == v4)
    }
}

impl PolicyEndpoint {
    /// The task id where it is ours, else the workload.
    pub fn shown(&self) -> &str {
        self.task_id.as_deref().unwrap_or(&self.workload)
    }

    /// Its names, any of which a person may type.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        let names = [self.name.as_str(), self.workload.as_str(), self.container_id.as_str()].into_iter();
        names.chain(self.task_id.as_deref()).filter(|name| !name.is_empty())
    }
}
