//! A world out of records, as tests write them.

use serde_json::Value;

use super::WorldRecords;
use crate::calico::objects::policies::{sorted, PolicyRecord, PolicyTier};
use crate::calico::objects::{Damaged, EndpointRecord, Kind, Object};
use crate::calico::policy::PolicyWorld;
use crate::calico::txn::ReadKey;

/// The world of these records, each with its kind, its name (with a namespace where it has one) and its
/// content.
pub(in crate::calico) fn world_of(records: Vec<(Kind, String, Value)>) -> (PolicyWorld, Vec<Damaged>) {
    let (mut own, mut tiers, mut policies) = (WorldRecords::default(), Vec::new(), Vec::new());
    for (kind, name, value) in records {
        let key = format!("{}{name}", kind.prefix());
        let entry = ReadKey { key, value: value.to_string().into_bytes(), revision: 1 };
        if kind == Kind::WorkloadEndpoint {
            let (record, problem) = EndpointRecord::read(&entry).unwrap();
            own.endpoints.found.push(record);
            own.endpoints.damaged.extend(problem);
            continue;
        }
        let object = Object::read(kind, &entry).unwrap();
        match kind {
            Kind::Tier => tiers.push(PolicyTier::read(&object).unwrap()),
            Kind::NetworkPolicy | Kind::GlobalNetworkPolicy => match PolicyRecord::read(object) {
                Ok(policy) => policies.push(policy),
                Err(problem) => own.damaged.push(problem),
            },
            kind => own.objects.entry(kind).or_default().push(object),
        }
    }
    own.tiers = sorted(tiers, policies);
    own.world()
}
