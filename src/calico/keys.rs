//! Where Calico keeps its objects in etcd, and how an endpoint's name is built.
//!
//! The layout is libcalico-go's etcdv3 one: resources below `/calico/resources/v3/`, IPAM below
//! `/calico/ipam/v2/` with the slash of a block's CIDR written as a dash.

use std::net::IpAddr;

use ipnet::IpNet;

use crate::names::{ENDPOINT, NAMESPACE, ORCHESTRATOR};

use super::Family;

const RESOURCES: &str = "/calico/resources/v3/projectcalico.org";
const IPAM: &str = "/calico/ipam/v2";

/// The prefix of all resources of a kind, which comes in its plural form.
pub(super) fn resources(plural: &str) -> String {
    format!("{RESOURCES}/{plural}/")
}

pub(super) fn cluster_information() -> String {
    format!("{RESOURCES}/clusterinformations/default")
}

pub(super) fn node(name: &str) -> String {
    format!("{RESOURCES}/nodes/{name}")
}

pub(super) fn profile(name: &str) -> String {
    format!("{RESOURCES}/profiles/{name}")
}

pub(super) fn pool(name: &str) -> String {
    format!("{}{name}", pools())
}

pub(super) fn pools() -> String {
    format!("{RESOURCES}/ippools/")
}

pub(super) fn reservations() -> String {
    format!("{RESOURCES}/ipreservations/")
}

pub(super) fn endpoint(name: &str) -> String {
    format!("{}{name}", endpoints())
}

/// The prefix of all endpoints in our namespace.
pub(super) fn endpoints() -> String {
    format!("{RESOURCES}/workloadendpoints/{NAMESPACE}/")
}

/// The prefix of all endpoints of one node. What follows it with another dash belongs to a node with a
/// longer name: dashes inside a name are doubled, and no segment begins with one.
pub(super) fn endpoints_of(node: &str) -> String {
    format!("{}{}-", endpoints(), doubled(node))
}

/// The prefix of all of IPAM.
pub(super) fn ipam() -> String {
    format!("{IPAM}/")
}

/// The prefix of what IPAM has of each node.
pub(super) fn hosts() -> String {
    format!("{IPAM}/host/")
}

/// The prefix of the endpoints in all namespaces.
pub(super) fn all_endpoints() -> String {
    resources("workloadendpoints")
}

/// The beginning of an endpoint's name: its first segments.
pub(super) fn endpoint_name_start(segments: &[&str]) -> String {
    segments.iter().map(|segment| format!("{}-", doubled(segment))).collect()
}

/// Node, orchestrator, workload and endpoint, as Felix reads them out of an endpoint's name.
pub(super) fn endpoint_segments(name: &str) -> Option<[String; 4]> {
    // No name holds a zero.
    let marked = name.replace("--", "\0");
    let segments: Vec<String> = marked.split('-').map(|segment| segment.replace('\0', "-")).collect();
    segments
        .try_into()
        .ok()
        .filter(|segments: &[String; 4]| segments.iter().all(|segment| !segment.is_empty()))
}

/// What Felix reports of endpoints, where that is switched on.
pub(super) fn felix_reports() -> String {
    "/calico/felix/v2/".to_owned()
}

/// The same of one node's.
pub(super) fn felix_reports_of(node: &str) -> String {
    format!("/calico/felix/v2/no-region/host/{}/workload/", escaped(node))
}

/// The end of the key of Felix's report of an endpoint, behind the region.
pub(super) fn felix_report(node: &str, orchestrator: &str, workload: &str, endpoint: &str) -> String {
    let [node, orchestrator, workload, endpoint] = [node, orchestrator, workload, endpoint].map(escaped);
    format!("host/{node}/workload/{orchestrator}/{workload}/endpoint/{endpoint}")
}

fn escaped(segment: &str) -> String {
    segment.replace('%', "%25").replace('/', "%2f")
}

pub(super) fn ipam_config() -> String {
    format!("{IPAM}/config")
}

pub(super) fn handle(id: &str) -> String {
    format!("{IPAM}/handle/{id}")
}

pub(super) fn block(cidr: &IpNet) -> String {
    format!("{}{}", blocks(Family::of(cidr.addr())), dashed(cidr))
}

/// The prefix of all blocks of a family.
pub(super) fn blocks(family: Family) -> String {
    format!("{IPAM}/assignment/{}/block/", family.word())
}

pub(super) fn affinity(node: &str, cidr: &IpNet) -> String {
    format!("{}{}", affinities(node, Family::of(cidr.addr())), dashed(cidr))
}

/// The prefix of a node's affinities of one family.
pub(super) fn affinities(node: &str, family: Family) -> String {
    format!("{IPAM}/host/{node}/{}/block/", family.word())
}

/// The prefix of all nodes' affinities.
pub(super) fn all_affinities() -> String {
    format!("{IPAM}/host/")
}

/// The node that an affinity's key names.
pub(super) fn node_of_affinity(key: &str) -> Option<&str> {
    let rest = key.strip_prefix(IPAM)?.strip_prefix("/host/")?;
    let (node, _) = rest.split_once("/ipv4/block/").or_else(|| rest.split_once("/ipv6/block/"))?;
    Some(node)
}

/// The node that an endpoint's key names: up to the first dash that is not doubled.
pub(super) fn node_of_endpoint(key: &str) -> Option<String> {
    let name = key.rsplit('/').next()?;
    let mut node = String::new();
    let mut rest = name.chars().peekable();
    while let Some(c) = rest.next() {
        match c {
            '-' if rest.next_if_eq(&'-').is_some() => node.push('-'),
            '-' => return (!node.is_empty()).then_some(node),
            c => node.push(c),
        }
    }
    None
}

/// The block's CIDR that a block's or an affinity's key ends with.
pub(super) fn cidr_of_key(key: &str) -> Option<IpNet> {
    let (address, length) = key.rsplit('/').next()?.rsplit_once('-')?;
    let net = IpNet::new(address.parse::<IpAddr>().ok()?, length.parse().ok()?).ok()?;
    (net.trunc() == net).then_some(net)
}

/// Leased: only there while the node's Felix lives and reports.
pub(super) fn felix_status(node: &str) -> String {
    format!("/calico/felix/v2/no-region/host/{node}/status")
}

/// The same without a lease: when it reported last.
pub(super) fn felix_last_status(node: &str) -> String {
    format!("/calico/felix/v2/no-region/host/{node}/last_reported_status")
}

fn dashed(cidr: &IpNet) -> String {
    cidr.trunc().to_string().replacen('/', "-", 1)
}

fn doubled(segment: &str) -> String {
    segment.replace('-', "--")
}

/// The name of an endpoint: its segments joined by single dashes, dashes inside them doubled.
pub(super) fn endpoint_name(node: &str, workload: &str) -> String {
    [node, ORCHESTRATOR, workload, ENDPOINT].map(doubled).join("-")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_have_the_form_that_calico_uses() {
        let v4: IpNet = "10.65.0.48/29".parse().unwrap();
        let v6: IpNet = "fd80:24e2:f998:72d6:0:0:0:e0/124".parse().unwrap();
        assert_eq!(block(&v4), "/calico/ipam/v2/assignment/ipv4/block/10.65.0.48-29");
        assert_eq!(affinity("a-1", &v6), "/calico/ipam/v2/host/a-1/ipv6/block/fd80:24e2:f998:72d6::e0-124");
        assert_eq!(cidr_of_key(&block(&v4)), Some(v4));
        assert_eq!(cidr_of_key(&affinity("a-1", &v6)), Some(v6));
        assert_eq!(cidr_of_key("/calico/ipam/v2/assignment/ipv4/block/10.65.0.1-29"), None);
    }

    #[test]
    fn dashes_of_segments_are_doubled() {
        assert_eq!(endpoint_name("agent-1", "web-3.5f3cbe1e"), "agent--1-mesos-web--3.5f3cbe1e-eth0");
        assert!(endpoint("x").starts_with(&endpoints()));
        assert!(endpoint(&endpoint_name("agent-1", "w")).starts_with(&endpoints_of("agent-1")));
    }

    #[test]
    fn the_node_is_read_back_from_a_key() {
        for node in ["a", "agent-1", "a.b--c"] {
            assert_eq!(node_of_endpoint(&endpoint(&endpoint_name(node, "web-1"))).as_deref(), Some(node));
            assert_eq!(node_of_affinity(&affinity(node, &"10.0.0.0/26".parse().unwrap())), Some(node));
        }
        for key in ["", "/", "x", "default/-mesos-", "default/a--b"] {
            assert_eq!(node_of_endpoint(key), None, "{key}");
        }
    }

    #[test]
    fn names_of_endpoints_are_read_as_felix_reads_them() {
        let segments = ["agent-1", "mesos", "web-3.5f3cbe1e", "eth0"];
        let name = endpoint_name(segments[0], segments[2]);
        assert_eq!(endpoint_segments(&name), Some(segments.map(str::to_owned)));
        assert!(name.starts_with(&endpoint_name_start(&segments[..2])));
        for bad in ["", "a", "a-b-c", "a-b-c-d-e", "a--b-c-d", "-a-b-c", "host1-mesos-web-1-eth0"] {
            assert_eq!(endpoint_segments(bad), None, "{bad}");
        }
        assert_eq!(
            felix_report("agent-1", "mesos", "default/web.1", "eth0"),
            "host/agent-1/workload/mesos/default%2fweb.1/endpoint/eth0"
        );
        assert!(format!("{}no-region/{}", felix_reports(), felix_report("a%", "m", "w", "e"))
            .starts_with(&felix_reports_of("a%")));
    }
}
