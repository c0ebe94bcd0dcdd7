//! The damaged records of the whole datastore: each as the verb that shows it judges it.

use std::collections::BTreeSet;

use crate::calico::{CalicoError, Damaged, Datastore, EndpointFilter, Kind, Object};

/// The kinds whose records `status` needs itself; it judges these with what it has read.
pub(super) const READ: [Kind; 5] =
    [Kind::ClusterInformation, Kind::Node, Kind::IpPool, Kind::BgpConfiguration, Kind::FelixConfiguration];

/// The kinds that no verb of ours judges beyond whether they can be read.
const PLAIN: [Kind; 4] = [Kind::GlobalNetworkSet, Kind::HostEndpoint, Kind::IpReservation, Kind::NetworkSet];

/// The keys of all damaged records besides those of [`READ`]; what one kind holds is in memory at a time.
pub(super) async fn keys(datastore: &mut Datastore) -> Result<BTreeSet<String>, CalicoError> {
    let mut keys = BTreeSet::new();
    let mut add = |damaged: Vec<Damaged>| keys.extend(damaged.into_iter().map(|damaged| damaged.key));
    add(datastore.pool_records().await?.1);
    add(datastore.endpoint_records(&EndpointFilter::default()).await?.damaged);
    add(datastore.profiles().await?.damaged);
    add(datastore.policies().await?.1);
    add(datastore.bgp_peers().await?.1);
    add(datastore.ledger().await?.damaged);
    for kind in PLAIN {
        add(datastore.objects(kind).await?.damaged);
    }
    Ok(keys)
}

/// All records of a kind that `status` needs itself; the keys of the damaged ones go to `damaged`.
pub(super) async fn read(
    datastore: &mut Datastore,
    kind: Kind,
    damaged: &mut BTreeSet<String>,
) -> Result<Vec<Object>, CalicoError> {
    let objects = datastore.objects(kind).await?;
    damaged.extend(objects.damaged.into_iter().map(|damaged| damaged.key));
    Ok(objects.found)
}
