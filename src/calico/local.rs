//! What calico/node would have created, for hosts without it (`dataplane = "local"`).
//!
//! Only what is missing is made, each record in the shape in which calicoctl writes it, and nothing that
//! exists is changed: an operator's cluster stays as it is.

use ipnet::IpNet;

use super::model::to_json;
use super::objects::{fresh, Object, PoolMode};
use super::snapshot::Snapshot;
use super::store::StoreError;
use super::txn::{Change, Guard, Range, Written};
use super::{keys, CalicoError, Datastore, Family, NotReady, ATTEMPTS};

/// What was missing and has been made.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Initialised {
    pub cluster: bool,
    pub node: bool,
    /// Names of new pools.
    pub pools: Vec<String>,
    /// All enabled pools there are now.
    pub all_pools: Vec<IpNet>,
}

impl Datastore {
    /// Makes ClusterInformation, this node, and, for each family without a pool, the pools given.
    pub async fn initialise_local(
        &mut self,
        node: &str,
        pools: &[IpNet],
    ) -> Result<Initialised, CalicoError> {
        let ranges = [
            Range::Key(keys::cluster_information()),
            Range::Key(keys::node(node)),
            Range::Prefix(keys::pools()),
        ];
        let mut snapshot = Snapshot::default();
        self.look(&mut snapshot, &ranges).await?;
        for _ in 0..ATTEMPTS {
            let (guards, changes, made) = missing(&snapshot, node, pools)?;
            if changes.is_empty() {
                return Ok(made);
            }
            match self.store.write(&guards, &changes, &ranges).await {
                Ok(Written::Done) => return Ok(made),
                Ok(Written::Conflict(answer)) => snapshot.absorb(&ranges, answer),
                // Creating what is missing may be repeated without harm.
                Err(StoreError::Lost(source)) => {
                    self.store.move_on().await.map_err(|_| self.store_error(*source))?;
                    self.look(&mut snapshot, &ranges).await?;
                }
                Err(source) => return Err(self.store_error(source)),
            }
        }
        Err(CalicoError::Contended(ATTEMPTS))
    }
}

type Missing = (Vec<Guard>, Vec<Change>, Initialised);

fn missing(snapshot: &Snapshot, node: &str, pools: &[IpNet]) -> Result<Missing, CalicoError> {
    let (mut guards, mut changes, mut made) = (Vec::new(), Vec::new(), Initialised::default());
    let mut create = |object: Object| {
        let key = object.key().to_owned();
        guards.push(Guard::Revision { key: key.clone(), revision: 0 });
        changes.push(Change::Put { key, value: to_json(&object.value) });
    };
    match snapshot.readiness() {
        Err(NotReady::Missing) => {
            made.cluster = true;
            create(fresh::cluster_information());
        }
        Err(reason) => return Err(CalicoError::NotReady(reason)),
        Ok(()) => {}
    }
    if snapshot.node_labels(node)?.is_none() {
        made.node = true;
        create(fresh::node(node));
    }
    let there = snapshot.pools();
    made.all_pools = there.iter().filter(|pool| pool.is_enabled()).map(|pool| pool.cidr).collect();
    for cidr in pools {
        let family = Family::of(cidr.addr());
        if there.iter().any(|pool| Family::of(pool.cidr.addr()) == family) {
            continue;
        }
        let name = fresh::pool_name(cidr);
        create(fresh::pool(&name, cidr, PoolMode::Bgp));
        made.pools.push(name);
        made.all_pools.push(cidr.trunc());
    }
    if !made.pools.is_empty() {
        guards.push(Guard::NoneNewer { prefix: keys::pools(), revision: snapshot.revision });
    }
    Ok((guards, changes, made))
}
