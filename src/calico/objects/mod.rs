//! Calico's resources as an operator reads and changes them: whole records, with every field that we do not know.
//!
//! A record is a JSON document ([`Object`]); a change is a read, a decision and a guarded write ([`Datastore::edit`]),
//! again when another writer was faster. A record that cannot be read is listed as [`Damaged`] beside the others: one
//! that was edited by hand must neither hide the rest nor be lost by a write.

mod address;
mod bgp;
mod check;
mod endpoints;
pub(super) mod fresh;
mod ledger;
mod nodes;
mod policies;
mod pools;
mod profiles;
mod retire;
mod rules;
mod start_up;
mod states;
mod tunnel;
pub(super) mod world;

use serde::de::DeserializeOwned;
use serde_json::{json, Map, Value};
use uuid::Uuid;

use super::model::to_json;
use super::pool::Pool;
use super::snapshot::Snapshot;
use super::txn::{Change, Guard, Range, ReadKey};
use super::{clock, keys, CalicoError, Datastore, NotReady, ATTEMPTS};

pub use address::{Assignment, IpamSettings};
pub use bgp::{parse_as_number, BgpError, BgpPeer, BgpSettings, PeerScope};
pub use check::{IpamProblem, IpamReport, ProblemKind};
pub use endpoints::{EndpointFilter, EndpointRecord, EndpointRecords, ListChange};
pub use fresh::PoolMode;
pub use ledger::{BlockClaim, BookedBlock, BookedHandle, HeldAddress, Ledger};
pub use nodes::{NodeView, Nodes, Seen, SeenBy, Tunnel, TunnelMode};
pub use policies::{PolicyRecord, PolicyTier};
pub use pools::{Encapsulation, IpamError, PoolRecord, PoolWish, RemovedPool};
pub use profiles::{ProfileError, ProfileList, RuleDirection, RulePlace};
pub use retire::NodeRest;
pub use rules::{classic as classic_rule, parse as parse_rule, Tags};
pub use start_up::{Made, StartUp, StartUpError};
pub use states::EndpointStates;

/// The kinds of resources that commands read or write.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    BgpConfiguration,
    BgpPeer,
    ClusterInformation,
    FelixConfiguration,
    GlobalNetworkPolicy,
    GlobalNetworkSet,
    HostEndpoint,
    IpPool,
    IpReservation,
    NetworkPolicy,
    NetworkSet,
    Node,
    Profile,
    Tier,
    WorkloadEndpoint,
}

impl Kind {
    /// As it stands in the records and in calicoctl's documents.
    pub fn word(self) -> &'static str {
        match self {
            Self::BgpConfiguration => "BGPConfiguration",
            Self::BgpPeer => "BGPPeer",
            Self::ClusterInformation => "ClusterInformation",
            Self::FelixConfiguration => "FelixConfiguration",
            Self::GlobalNetworkPolicy => "GlobalNetworkPolicy",
            Self::GlobalNetworkSet => "GlobalNetworkSet",
            Self::HostEndpoint => "HostEndpoint",
            Self::IpPool => "IPPool",
            Self::IpReservation => "IPReservation",
            Self::NetworkPolicy => "NetworkPolicy",
            Self::NetworkSet => "NetworkSet",
            Self::Node => "Node",
            Self::Profile => "Profile",
            Self::Tier => "Tier",
            Self::WorkloadEndpoint => "WorkloadEndpoint",
        }
    }

    fn plural(self) -> String {
        let word = self.word().to_lowercase();
        match word.strip_suffix('y') {
            Some(stem) => format!("{stem}ies"),
            None => format!("{word}s"),
        }
    }

    fn is_namespaced(self) -> bool {
        matches!(self, Self::NetworkPolicy | Self::NetworkSet | Self::WorkloadEndpoint)
    }

    /// Ends with a slash. Namespaced kinds are listed over all namespaces.
    fn prefix(self) -> String {
        keys::resources(&self.plural())
    }
}

/// One resource at one moment.
#[derive(Debug, Clone, PartialEq)]
pub struct Object {
    pub kind: Kind,
    /// From the key, as Felix reads it.
    pub name: String,
    pub namespace: Option<String>,
    /// The whole record.
    pub value: Value,
    key: String,
    /// 0: not in the datastore yet.
    revision: i64,
}

/// A record that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Damaged {
    pub key: String,
    /// What is wrong with it.
    pub reason: String,
}

impl std::fmt::Display for Damaged {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} is damaged: {}", self.key, self.reason)
    }
}

impl From<Damaged> for CalicoError {
    fn from(damaged: Damaged) -> Self {
        Self::Unreadable { key: damaged.key, reason: damaged.reason }
    }
}

/// All resources of a kind, in the order of their names.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Objects {
    pub found: Vec<Object>,
    pub damaged: Vec<Damaged>,
}

/// What a change comes to.
#[derive(Debug, Clone, PartialEq)]
pub enum Edit {
    /// It is as it should be already.
    Keep,
    Put(Object),
    Delete,
}

/// What was written, or would have been in a dry run. Both are the same when nothing had to change.
#[derive(Debug, Clone, PartialEq)]
pub struct Edited {
    pub before: Option<Value>,
    pub after: Option<Value>,
}

impl Edited {
    pub fn is_change(&self) -> bool {
        self.before != self.after
    }
}

impl Object {
    /// A new resource with the metadata that Calico's tools require.
    pub fn new(kind: Kind, name: &str, spec: Value) -> Self {
        let namespace = kind.is_namespaced().then(|| crate::names::NAMESPACE.to_owned());
        let mut metadata = Map::from_iter([("name".to_owned(), name.into())]);
        if let Some(namespace) = &namespace {
            metadata.insert("namespace".to_owned(), namespace.as_str().into());
        }
        metadata.insert("uid".to_owned(), Uuid::new_v4().to_string().into());
        metadata.insert("creationTimestamp".to_owned(), clock::rfc3339_now().into());
        let value = json!({
            "kind": kind.word(), "apiVersion": "projectcalico.org/v3", "metadata": metadata, "spec": spec,
        });
        let key = match &namespace {
            Some(namespace) => format!("{}{namespace}/{name}", kind.prefix()),
            None => format!("{}{name}", kind.prefix()),
        };
        Self { kind, name: name.to_owned(), namespace, value, key, revision: 0 }
    }

    fn read(kind: Kind, entry: &ReadKey) -> Result<Self, Damaged> {
        let damaged = |reason: String| Damaged { key: entry.key.clone(), reason };
        let value: Value = serde_json::from_slice(&entry.value)
            .map_err(|error| damaged(format!("it is not JSON ({error})")))?;
        if !value.is_object() {
            return Err(damaged("it is not a JSON object".to_owned()));
        }
        if !value.get("spec").is_none_or(Value::is_object) {
            return Err(damaged("its spec is not a JSON object".to_owned()));
        }
        let name = entry.key.strip_prefix(&kind.prefix()).unwrap_or_default();
        let (namespace, name) = match name.split_once('/') {
            Some((namespace, name)) => (Some(namespace.to_owned()), name),
            None => (None, name),
        };
        Ok(Self {
            kind,
            name: name.to_owned(),
            namespace,
            value,
            key: entry.key.clone(),
            revision: entry.revision,
        })
    }

    /// The key in etcd, for messages.
    pub fn key(&self) -> &str {
        &self.key
    }

    /// Whether it is in the datastore already.
    pub fn exists(&self) -> bool {
        self.revision != 0
    }

    /// The spec in a form of the caller's.
    pub fn spec<T: DeserializeOwned>(&self) -> Result<T, Damaged> {
        let spec = self.value.get("spec").cloned().unwrap_or_else(|| json!({}));
        serde_json::from_value(spec)
            .map_err(|error| Damaged { key: self.key.clone(), reason: format!("spec: {error}") })
    }

    /// The spec to change; an object, made where there is none.
    pub fn spec_mut(&mut self) -> &mut Map<String, Value> {
        field(self.value.as_object_mut(), "spec")
    }

    /// The metadata to change.
    pub fn metadata_mut(&mut self) -> &mut Map<String, Value> {
        field(self.value.as_object_mut(), "metadata")
    }

    /// The record as a pool for the choice of addresses; nothing where it is no usable pool.
    fn pool(&self) -> Option<Pool> {
        Pool::parse(self.value.to_string().as_bytes(), &self.name)
    }

    /// A label of the object.
    pub fn labels(&self) -> std::collections::BTreeMap<String, String> {
        let labels = self.value.pointer("/metadata/labels").and_then(Value::as_object);
        let text = |(key, value): (&String, &Value)| Some((key.clone(), value.as_str()?.to_owned()));
        labels.into_iter().flatten().filter_map(text).collect()
    }
}

fn field<'a>(parent: Option<&'a mut Map<String, Value>>, name: &str) -> &'a mut Map<String, Value> {
    let parent = parent.expect("an Object's value is a JSON object");
    let child = parent.entry(name).or_insert_with(|| json!({}));
    if !child.is_object() {
        *child = json!({});
    }
    child.as_object_mut().expect("made an object above")
}

impl Datastore {
    /// All resources of a kind, in pages: some ten thousand endpoints take less than a second.
    pub async fn objects(&mut self, kind: Kind) -> Result<Objects, CalicoError> {
        self.objects_below(kind, "").await
    }

    /// Those whose name begins with `start`; of a namespaced kind, `namespace/start`.
    pub async fn objects_below(&mut self, kind: Kind, start: &str) -> Result<Objects, CalicoError> {
        let mut objects = Objects::default();
        for entry in self.scan(&format!("{}{start}", kind.prefix())).await? {
            match Object::read(kind, &entry) {
                Ok(object) => objects.found.push(object),
                Err(damaged) => objects.damaged.push(damaged),
            }
        }
        Ok(objects)
    }

    /// The names of all resources of a kind, without their content; of a namespaced kind, with the namespace in front.
    pub async fn names(&mut self, kind: Kind) -> Result<Vec<String>, CalicoError> {
        let prefix = kind.prefix();
        let answer = self.read(&[Range::Names(prefix.clone())]).await?;
        let name = |entry: &ReadKey| entry.key.strip_prefix(&prefix).map(str::to_owned);
        Ok(answer.ranges.iter().flatten().filter_map(name).collect())
    }

    /// One resource; of a namespaced kind, in the namespace that we write to.
    pub async fn object(&mut self, kind: Kind, name: &str) -> Result<Option<Object>, CalicoError> {
        let key = Object::new(kind, name, Value::Null).key;
        let answer = self.read(&[Range::Key(key)]).await?;
        let entry = answer.ranges.first().and_then(|range| range.first());
        Ok(entry.map(|entry| Object::read(kind, entry)).transpose()?)
    }

    /// Reads a resource, lets the caller decide, and writes the result, unless another writer has changed it meanwhile: then
    /// once more. Refused while an operator has locked the datastore. With `dry_run` everything but the write.
    pub async fn edit<E: From<CalicoError>>(
        &mut self,
        kind: Kind,
        name: &str,
        dry_run: bool,
        change: impl FnMut(Option<Object>) -> Result<Edit, E>,
    ) -> Result<Edited, E> {
        self.edit_key(kind, Object::new(kind, name, Value::Null).key, dry_run, change).await
    }

    /// The same for a key of any namespace.
    async fn edit_key<E: From<CalicoError>>(
        &mut self,
        kind: Kind,
        key: String,
        dry_run: bool,
        mut change: impl FnMut(Option<Object>) -> Result<Edit, E>,
    ) -> Result<Edited, E> {
        let cluster = keys::cluster_information();
        let ranges = [Range::Key(cluster.clone()), Range::Key(key.clone())];
        for _ in 0..ATTEMPTS {
            let mut snapshot = Snapshot::default();
            self.look(&mut snapshot, &ranges).await?;
            if snapshot.readiness() == Err(NotReady::Locked) {
                return Err(CalicoError::NotReady(NotReady::Locked).into());
            }
            let entry = snapshot.entry(&key).cloned();
            let object = entry.as_ref().map(|entry| Object::read(kind, entry)).transpose();
            let object = object.map_err(CalicoError::from)?;
            let before = object.as_ref().map(|object| object.value.clone());
            let (changes, after) = match change(object)? {
                Edit::Keep => return Ok(Edited { after: before.clone(), before }),
                Edit::Put(object) if before.as_ref() == Some(&object.value) => {
                    return Ok(Edited { after: before.clone(), before })
                }
                Edit::Put(object) => {
                    let put = Change::Put { key: key.clone(), value: to_json(&object.value) };
                    (put, Some(object.value))
                }
                Edit::Delete if before.is_none() => return Ok(Edited { before: None, after: None }),
                Edit::Delete => (Change::Delete { key: key.clone() }, None),
            };
            if dry_run {
                return Ok(Edited { before, after });
            }
            let revision = entry.map_or(0, |entry| entry.revision);
            let guards = [
                Guard::Revision { key: key.clone(), revision },
                Guard::Revision { revision: snapshot.revision_of(&cluster), key: cluster.clone() },
            ];
            if self.written(&guards, &[changes]).await? {
                return Ok(Edited { before, after });
            }
        }
        Err(CalicoError::Contended(ATTEMPTS).into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_calicos() {
        let key = |kind, name| Object::new(kind, name, json!({})).key;
        let base = "/calico/resources/v3/projectcalico.org";
        assert_eq!(key(Kind::Profile, "dev"), keys::profile("dev"));
        assert_eq!(key(Kind::IpPool, "a"), format!("{base}/ippools/a"));
        assert_eq!(key(Kind::GlobalNetworkPolicy, "a"), format!("{base}/globalnetworkpolicies/a"));
        assert_eq!(key(Kind::BgpPeer, "a"), format!("{base}/bgppeers/a"));
        assert_eq!(key(Kind::WorkloadEndpoint, "a"), keys::endpoint("a"));
    }

    #[test]
    fn a_record_that_is_no_object_is_damaged() {
        let entry = |value: &str| ReadKey {
            key: keys::profile("dev"),
            value: value.as_bytes().to_vec(),
            revision: 3,
        };
        for bad in ["", "{", "[]", "7", "null", r#"{"spec":7}"#] {
            assert!(Object::read(Kind::Profile, &entry(bad)).is_err(), "{bad}");
        }
        let mut object = Object::read(Kind::Profile, &entry(r#"{"other":1}"#)).unwrap();
        assert_eq!((object.name.as_str(), object.exists()), ("dev", true));
        object.spec_mut().insert("a".into(), 1.into());
        assert_eq!(object.value, json!({"other": 1, "spec": {"a": 1}}));
    }
}
