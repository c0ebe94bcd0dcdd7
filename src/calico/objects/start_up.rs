//! What calico/node's start-up writes, for a node that is run without it.
//!
//! Only what is missing is made; a setting that is there stays, whatever it says. All that could refuse is looked at
//! first, so that a refusal leaves the datastore as it was.

use ipnet::IpNet;
use serde_json::{json, Value};

use super::fresh::{self, PoolMode, DEFAULT};
use super::{Damaged, Edit, Edited, Kind, NodeView, Object, TunnelMode};
use crate::calico::overlap::overlap;
use crate::calico::{CalicoError, Datastore};
use crate::names::is_resource_name;

/// What a node is to have.
#[derive(Debug, Clone, PartialEq)]
pub struct StartUp {
    pub node: String,
    /// With the lengths of their networks.
    pub address: Option<IpNet>,
    pub address6: Option<IpNet>,
    pub pool: Option<(IpNet, PoolMode)>,
}

/// One object that was looked at, with what has become of it.
#[derive(Debug, Clone, PartialEq)]
pub struct Made {
    /// Such as `Node agent-1`.
    pub object: String,
    /// Of the object.
    pub name: String,
    pub edited: Edited,
    /// What a person wants to know besides, such as an address that the object gets.
    pub detail: Option<String>,
}

impl Made {
    /// What became of an object of this kind and name.
    pub(super) fn of(kind: &str, name: &str, edited: Edited) -> Self {
        Self { object: format!("{kind} {name}"), name: name.to_owned(), edited, detail: None }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum StartUpError {
    #[error("'{0}' cannot be the name of a node in Calico: lower-case letters, digits, dashes and dots; set [node] name")]
    Name(String),
    #[error("the address {address} is that of the node {holder}; each node has its own")]
    AddressTaken { address: String, holder: String },
    #[error("the pool {cidr} overlaps the pool {other}")]
    PoolOverlaps { cidr: IpNet, other: String },
    #[error(
        "the pool {name} ({cidr}) is there, with the mode {there} instead of {wanted}; `pool add` changes it"
    )]
    OtherMode { name: String, cidr: IpNet, there: &'static str, wanted: &'static str },
    #[error("{0} cannot be an IP pool: {1}")]
    BadPool(IpNet, &'static str),
    #[error(transparent)]
    Calico(#[from] CalicoError),
}

impl From<Damaged> for StartUpError {
    fn from(damaged: Damaged) -> Self {
        Self::Calico(damaged.into())
    }
}

/// Whether Calico takes this as a pool of the mode.
fn check_pool(cidr: &IpNet, mode: PoolMode) -> Result<(), StartUpError> {
    let problem = |text| Err(StartUpError::BadPool(*cidr, text));
    let link_local: [IpNet; 2] = [
        IpNet::new_assert([169, 254, 0, 0].into(), 16),
        IpNet::new_assert(std::net::Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0).into(), 10),
    ];
    match cidr {
        _ if cidr.trunc() != *cidr => problem("it has bits set behind its length"),
        _ if link_local.iter().any(|net| overlap(net, cidr)) => problem("it overlaps link-local addresses"),
        IpNet::V6(_) if mode == PoolMode::Ipip => problem("IPIP carries IPv4 alone; use vxlan"),
        _ => Ok(()),
    }
}

impl Datastore {
    /// Whether a pool of exactly this range is there.
    pub async fn has_pool(&mut self, cidr: &IpNet) -> Result<bool, CalicoError> {
        let pools = self.objects(Kind::IpPool).await?;
        Ok(pools.found.iter().filter_map(Object::pool).any(|pool| pool.cidr == *cidr))
    }

    /// Makes what the node lacks; every object that was looked at, in order. A dry run names the addresses that the
    /// node's tunnels would get, or for a node or pool that it would only make the pools from which they would come.
    pub async fn start_up(&mut self, wanted: &StartUp, dry_run: bool) -> Result<Vec<Made>, StartUpError> {
        self.check_start_up(wanted).await?;
        let node = wanted.node.as_str();
        let mut made = Vec::new();
        let mut done = |kind: Kind, name: &str, edited| made.push(Made::of(kind.word(), name, edited));
        let cluster = self
            .edit(Kind::ClusterInformation, DEFAULT, dry_run, |object| {
                Ok::<_, StartUpError>(match object {
                    None => Edit::Put(fresh::cluster_information()),
                    Some(object) => ready(object),
                })
            })
            .await?;
        done(Kind::ClusterInformation, DEFAULT, cluster);
        done(Kind::Tier, DEFAULT, self.make(fresh::default_tier(), dry_run).await?);
        let mut new_pool = None;
        if let Some((cidr, mode)) = wanted.pool {
            if !self.has_pool(&cidr).await? {
                let name = fresh::pool_name(&cidr);
                let pool = fresh::pool(&name, &cidr, mode);
                done(Kind::IpPool, &name, self.make(pool.clone(), dry_run).await?);
                new_pool = Some(pool).filter(|_| dry_run);
            }
        }
        let edited = self
            .edit(Kind::Node, node, dry_run, |object| {
                let mut object = object.unwrap_or_else(|| fresh::node(node));
                add_addresses(&mut object, wanted);
                Ok::<_, StartUpError>(Edit::Put(object))
            })
            .await?;
        let is_there = edited.before.is_some() || !dry_run;
        done(Kind::Node, node, edited);
        let felix = self.make(fresh::felix_configuration(node), dry_run).await?;
        done(Kind::FelixConfiguration, &fresh::node_scoped(node), felix);
        let object = match self.object(Kind::Node, node).await? {
            Some(object) => object,
            None if dry_run => fresh::node(node),
            None => return Err(CalicoError::NoNode(node.into()).into()),
        };
        for (mode, pools) in self.tunnels_needed(&object, new_pool.as_ref()).await? {
            let is_planned = !is_there || new_pool.as_ref().is_some_and(|pool| pools == [pool.name.as_str()]);
            made.push(match is_planned && !NodeView::of(&object).has_tunnel(mode) {
                true => tunnel_to_come(node, mode, &pools),
                false => tunnel_made(node, mode, self.give_tunnel(node, mode, &pools, dry_run).await?),
            });
        }
        Ok(made)
    }

    /// Makes an object that is not there.
    async fn make(&mut self, new: Object, dry_run: bool) -> Result<Edited, StartUpError> {
        let (kind, name) = (new.kind, new.name.clone());
        self.edit(kind, &name, dry_run, |object| {
            Ok(if object.is_some() { Edit::Keep } else { Edit::Put(new.clone()) })
        })
        .await
    }

    async fn check_start_up(&mut self, wanted: &StartUp) -> Result<(), StartUpError> {
        if !is_resource_name(&wanted.node) {
            return Err(StartUpError::Name(wanted.node.clone()));
        }
        let nodes = self.objects(Kind::Node).await?;
        let holder = |address: &IpNet, of: fn(&NodeView) -> Option<&String>| {
            let others = nodes.found.iter().filter(|node| node.name != wanted.node);
            let has = |node: &NodeView| {
                let text = of(node)?;
                let there = text.parse::<IpNet>().map(|net| net.addr()).or_else(|_| text.parse()).ok()?;
                (there == address.addr()).then(|| node.name.clone())
            };
            others.map(NodeView::of).find_map(|node| has(&node))
        };
        let v4 = wanted.address.and_then(|net| Some((net, holder(&net, |node| node.address.as_ref())?)));
        let v6 = wanted.address6.and_then(|net| Some((net, holder(&net, |node| node.address6.as_ref())?)));
        if let Some((net, holder)) = v4.or(v6) {
            return Err(StartUpError::AddressTaken { address: net.addr().to_string(), holder });
        }
        let Some((cidr, mode)) = wanted.pool else { return Ok(()) };
        check_pool(&cidr, mode)?;
        for object in self.objects(Kind::IpPool).await?.found {
            let Some(pool) = object.pool().filter(|pool| overlap(&pool.cidr, &cidr)) else { continue };
            let there = fresh::pool_mode(&object.value["spec"]);
            if pool.cidr != cidr {
                return Err(StartUpError::PoolOverlaps { cidr, other: pool.shown() });
            }
            if there != mode {
                let (there, wanted) = (there.word(), mode.word());
                return Err(StartUpError::OtherMode { name: pool.name, cidr, there, wanted });
            }
        }
        Ok(())
    }
}

/// The tunnel's address, with what it is.
fn tunnel_made(node: &str, mode: TunnelMode, edited: Edited) -> Made {
    let tunnels = edited.after.as_ref().map(NodeView::tunnels_of).unwrap_or_default();
    let address = tunnels.into_iter().find(|tunnel| tunnel.mode == mode).map(|tunnel| tunnel.address);
    let object = format!("{} {node}, {} address", Kind::Node.word(), mode.word());
    Made { object, name: node.to_owned(), edited, detail: address }
}

/// The address that a dry run cannot choose yet, because its node or pool is not there.
fn tunnel_to_come(node: &str, mode: TunnelMode, pools: &[String]) -> Made {
    let detail = format!("one of the pool {}", pools.join(" or "));
    let edited = Edited { before: None, after: Some(json!(detail)) };
    Made { detail: Some(detail), ..tunnel_made(node, mode, edited) }
}

/// As Calico's own programs repair it: a missing `datastoreReady` becomes true. `false` is an operator's lock, and
/// [`Datastore::edit`] has refused it before.
fn ready(mut object: Object) -> Edit {
    match object.value.pointer("/spec/datastoreReady") {
        Some(Value::Bool(_)) => Edit::Keep,
        _ => {
            object.spec_mut().insert("datastoreReady".into(), true.into());
            Edit::Put(object)
        }
    }
}

/// Adds the addresses that are not set yet.
fn add_addresses(object: &mut Object, wanted: &StartUp) {
    let before = NodeView::of(object);
    let new = [
        ("ipv4Address", wanted.address.filter(|_| before.address.is_none())),
        ("ipv6Address", wanted.address6.filter(|_| before.address6.is_none())),
    ];
    for (field, net) in new {
        let Some(net) = net else { continue };
        let spec = object.spec_mut();
        let bgp = spec.entry("bgp").or_insert_with(|| json!({}));
        if let Some(bgp) = bgp.as_object_mut() {
            bgp.insert(field.to_owned(), net.to_string().into());
        }
        let entry = json!({ "address": net.to_string(), "type": "CalicoNodeIP" });
        if let Some(list) = spec.entry("addresses").or_insert_with(|| json!([])).as_array_mut() {
            if !list.contains(&entry) {
                list.push(entry);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(address: &str) -> StartUp {
        StartUp { node: "a".into(), address: address.parse().ok(), address6: None, pool: None }
    }

    #[test]
    fn addresses_are_added_and_never_replaced() {
        let mut node = fresh::node("a");
        add_addresses(&mut node, &wanted("10.0.0.1/24"));
        let spec = json!({
            "bgp": {"ipv4Address": "10.0.0.1/24"},
            "addresses": [{"address": "10.0.0.1/24", "type": "CalicoNodeIP"}]
        });
        assert_eq!(node.value["spec"], spec);
        add_addresses(&mut node, &wanted("10.0.0.2/24"));
        assert_eq!(node.value["spec"], spec);
    }

    #[test]
    fn pools_that_calico_would_refuse_are_refused() {
        let check = |cidr: &str, mode| check_pool(&cidr.parse().unwrap(), mode);
        for cidr in ["10.0.0.1/16", "169.254.0.0/17", "0.0.0.0/0", "fe80::/64"] {
            assert!(check(cidr, PoolMode::Vxlan).is_err(), "{cidr}");
        }
        assert!(check("fd00::/64", PoolMode::Ipip).is_err());
        for (cidr, mode) in [
            ("10.0.0.0/26", PoolMode::Ipip),
            ("fd00::/64", PoolMode::Vxlan),
            ("192.168.0.0/16", PoolMode::Bgp),
        ] {
            assert!(check(cidr, mode).is_ok(), "{cidr}");
        }
    }

    #[test]
    fn a_missing_readiness_is_added_and_a_lock_stays() {
        let object = |spec| Object::new(Kind::ClusterInformation, "default", spec);
        assert_eq!(ready(object(json!({"datastoreReady": false}))), Edit::Keep);
        let Edit::Put(repaired) = ready(object(json!({"clusterGUID": "x"}))) else { panic!("kept") };
        assert_eq!(repaired.value["spec"], json!({"clusterGUID": "x", "datastoreReady": true}));
    }
}
