//! WorkloadEndpoints of every origin, as commands list and change them.
//!
//! Only what is shown of a record stays in memory, and what a filter excludes is not read where the key says so. Node,
//! orchestrator, workload and endpoint are those of the key, as Felix reads them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;
use serde::Deserialize;
use serde_json::Value;

use super::super::txn::ReadKey;
use super::super::{clock, keys, selector, CalicoError, Datastore, NamedPort};
use super::profiles::ProfileError;
use super::rules::labels_to_apply;
use super::{Damaged, Edit, Edited, Kind};

/// An endpoint as it is shown.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EndpointRecord {
    pub namespace: String,
    /// From the key.
    pub name: String,
    pub node: String,
    pub orchestrator: String,
    pub workload: String,
    pub endpoint: String,
    /// As they stand in the record: `10.65.0.1/32`.
    pub networks: Vec<String>,
    pub mac: String,
    pub interface: String,
    pub profiles: Vec<String>,
    pub container_id: String,
    /// As Mesos writes it; none on endpoints of others.
    pub task_id: Option<String>,
    /// As Marathon writes it.
    pub app: Option<String>,
    /// Its own, without those of its profiles.
    pub labels: BTreeMap<String, String>,
    /// Those that policies may name.
    pub ports: Vec<NamedPort>,
}

/// Which endpoints to read; what is absent excludes none.
#[derive(Debug, Clone, Default)]
pub struct EndpointFilter {
    pub host: Option<String>,
    pub orchestrator: Option<String>,
    /// A workload, the task id, or the app id.
    pub workload: Option<String>,
    pub endpoint: Option<String>,
    pub profile: Option<String>,
    /// In Calico's language, over the endpoint's labels and those of its profiles.
    pub selector: Option<String>,
}

/// The endpoints that a filter lets through, in the order of namespace and name.
#[derive(Debug, Clone, Default)]
pub struct EndpointRecords {
    pub found: Vec<EndpointRecord>,
    /// Records that cannot be read, and those that Felix does not use as they stand.
    pub damaged: Vec<Damaged>,
}

#[derive(Deserialize)]
struct Raw {
    #[serde(default)]
    metadata: Option<RawMetadata>,
    #[serde(default)]
    spec: Option<RawSpec>,
}

type Texts = Option<BTreeMap<String, Option<String>>>;

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct RawMetadata {
    name: Option<String>,
    creation_timestamp: Option<String>,
    labels: Texts,
    annotations: Texts,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct RawSpec {
    orchestrator: Option<String>,
    workload: Option<String>,
    node: Option<String>,
    endpoint: Option<String>,
    #[serde(rename = "containerID")]
    container_id: Option<String>,
    ip_networks: Option<Vec<String>>,
    profiles: Option<Vec<String>>,
    interface_name: Option<String>,
    mac: Option<String>,
    ports: Option<Vec<Value>>,
}

impl EndpointRecord {
    /// Reads a record; with it, why Felix ignores the endpoint or Calico's tools cannot edit it.
    pub(super) fn read(entry: &ReadKey) -> Result<(Self, Option<Damaged>), Damaged> {
        let damaged = |reason: String| Damaged { key: entry.key.clone(), reason };
        let raw: Raw = serde_json::from_slice(&entry.value).map_err(|error| damaged(error.to_string()))?;
        let (metadata, spec) = (raw.metadata.unwrap_or_default(), raw.spec.unwrap_or_default());
        if let Some(time) = metadata.creation_timestamp.filter(|time| !clock::is_rfc3339(time)) {
            return Err(damaged(format!("its creationTimestamp '{time}' is not a time")));
        }
        let rest = entry.key.strip_prefix(&keys::all_endpoints()).unwrap_or_default();
        let (namespace, name) = rest.split_once('/').unwrap_or(("", rest));
        let segments = keys::endpoint_segments(name);
        let text = |text: Option<String>| text.unwrap_or_default();
        let is_named = segments.is_some();
        let [node, orchestrator, workload, endpoint] = segments.unwrap_or_else(|| {
            [text(spec.node), text(spec.orchestrator), text(spec.workload), text(spec.endpoint)]
        });
        let mut annotations = texts(metadata.annotations);
        let record = Self {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            node,
            orchestrator,
            workload,
            endpoint,
            networks: spec.ip_networks.unwrap_or_default(),
            mac: text(spec.mac),
            interface: text(spec.interface_name),
            profiles: spec.profiles.unwrap_or_default(),
            container_id: text(spec.container_id),
            task_id: annotations.remove("mesos.apache.org/task-id"),
            app: annotations.remove("mesos.apache.org/app-id"),
            labels: texts(metadata.labels),
            ports: spec.ports.into_iter().flatten().filter_map(|port| named_port(&port)).collect(),
        };
        let stored = text(metadata.name);
        let problem = match () {
            () if !is_named => {
                Some("Felix ignores it: its name is not NODE-ORCHESTRATOR-WORKLOAD-ENDPOINT with inner dashes doubled".to_owned())
            }
            () if !stored.is_empty() && stored != name => {
                Some(format!("calicoctl cannot edit it: its metadata.name is '{stored}'"))
            }
            () => record.problem(),
        };
        Ok((record, problem.map(damaged)))
    }

    /// Why Felix ignores the endpoint, or does other than is meant.
    fn problem(&self) -> Option<String> {
        if self.networks.is_empty() {
            return Some("Felix ignores it: it has no ipNetworks".to_owned());
        }
        for text in &self.networks {
            let net = text.parse::<IpNet>().ok().or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from));
            match net {
                None => {
                    return Some(format!("Felix ignores it: '{text}' in its ipNetworks is not an address"))
                }
                Some(net) if net.prefix_len() != net.max_prefix_len() => {
                    return Some(format!(
                        "Felix routes all of {text} to it: an ipNetwork has to be one address"
                    ))
                }
                Some(_) => {}
            }
        }
        if self.interface.is_empty() {
            return Some("Felix ignores it: it has no interfaceName".to_owned());
        }
        let is_mac = |mac: &str| {
            let parts: Vec<&str> = mac.split([':', '-']).collect();
            parts.len() == 6
                && parts.iter().all(|part| part.len() == 2 && u8::from_str_radix(part, 16).is_ok())
        };
        (!self.mac.is_empty() && !is_mac(&self.mac))
            .then(|| format!("Felix ignores it: its mac '{}' is not a MAC address", self.mac))
    }

    /// The key in etcd.
    pub fn key(&self) -> String {
        format!("{}{}/{}", keys::all_endpoints(), self.namespace, self.name)
    }

    /// Its names, any of which a person may type.
    fn names(&self) -> impl Iterator<Item = &str> {
        let optional = [self.task_id.as_deref(), Some(self.container_id.as_str())];
        let names = [self.name.as_str(), self.workload.as_str()].into_iter();
        names.chain(optional.into_iter().flatten()).filter(|name| !name.is_empty())
    }

    fn has_address(&self, address: IpAddr) -> bool {
        let networks = self.networks.iter().filter_map(|text| text.split('/').next()?.parse::<IpAddr>().ok());
        networks.into_iter().any(|own| own == address)
    }

    /// The task id where it is ours, else the workload: as messages name it.
    pub fn shown(&self) -> &str {
        self.task_id.as_deref().unwrap_or(&self.workload)
    }

    /// Its own labels and those that its profiles apply; its own win.
    pub(super) fn all_labels(
        &self,
        applied: &BTreeMap<String, BTreeMap<String, String>>,
    ) -> BTreeMap<String, String> {
        inherited(self.labels.clone(), &self.profiles, applied)
    }
}

/// An endpoint's own labels and those that its profiles apply: its own win, then those of the first profile.
pub(super) fn inherited(
    own: BTreeMap<String, String>,
    profiles: &[String],
    applied: &BTreeMap<String, BTreeMap<String, String>>,
) -> BTreeMap<String, String> {
    let mut labels = own;
    for (key, value) in profiles.iter().filter_map(|profile| applied.get(profile)).flatten() {
        labels.entry(key.clone()).or_insert_with(|| value.clone());
    }
    labels
}

/// A port of a record; none where it has no name, or is not one that Felix uses.
pub(super) fn named_port(port: &Value) -> Option<NamedPort> {
    let name = port.get("name")?.as_str().filter(|name| !name.is_empty())?;
    let protocol = match port.get("protocol")? {
        Value::String(name) => name.clone(),
        number => number.to_string(),
    };
    Some(NamedPort { name: name.to_owned(), protocol, port: port.get("port")?.as_u64()?.try_into().ok()? })
}

fn texts(map: Texts) -> BTreeMap<String, String> {
    map.unwrap_or_default().into_iter().map(|(key, value)| (key, value.unwrap_or_default())).collect()
}

impl EndpointFilter {
    fn passes(&self, record: &EndpointRecord) -> bool {
        let is = |wanted: &Option<String>, own: &str| wanted.as_deref().is_none_or(|wanted| wanted == own);
        let workloads = [Some(&record.workload), record.task_id.as_ref(), record.app.as_ref()];
        is(&self.host, &record.node)
            && is(&self.orchestrator, &record.orchestrator)
            && is(&self.endpoint, &record.endpoint)
            && self.profile.as_ref().is_none_or(|profile| record.profiles.contains(profile))
            && self.workload.as_ref().is_none_or(|wanted| workloads.contains(&Some(wanted)))
    }
}

/// What an operator does to the list of an endpoint's profiles.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ListChange {
    Append,
    Set,
    Remove,
}

impl ListChange {
    fn apply(self, old: &[String], names: &[String]) -> Vec<String> {
        let kept = || old.iter().filter(|name| self != Self::Remove || !names.contains(name));
        let mut seen = BTreeSet::new();
        let all: Vec<&String> = match self {
            Self::Append => kept().chain(names).collect(),
            Self::Set => names.iter().collect(),
            Self::Remove => kept().collect(),
        };
        all.into_iter().filter(|name| seen.insert(*name)).cloned().collect()
    }
}

impl Datastore {
    /// The endpoints that the filter lets through.
    pub async fn endpoint_records(
        &mut self,
        filter: &EndpointFilter,
    ) -> Result<EndpointRecords, CalicoError> {
        let applied = match &filter.selector {
            Some(_) => self.applied_labels().await?,
            None => BTreeMap::new(),
        };
        // Parsed once for ten thousand endpoints; a command line's was checked as it was read.
        let selector = filter.selector.as_deref().map(selector::parse);
        let mut list = EndpointRecords::default();
        for prefix in self.endpoint_prefixes(filter).await? {
            let visit = |entry: ReadKey| match EndpointRecord::read(&entry) {
                Err(damaged) => list.damaged.push(damaged),
                Ok((record, problem)) => {
                    let selected = || match &selector {
                        None => true,
                        Some(selector) => {
                            selector.as_ref().is_ok_and(|own| own.selects(&record.all_labels(&applied)))
                        }
                    };
                    if filter.passes(&record) && selected() {
                        list.damaged.extend(problem);
                        list.found.push(record);
                    }
                }
            };
            self.scan_each(&prefix, visit).await?;
        }
        Ok(list)
    }

    /// The labels that each profile applies.
    pub(super) async fn applied_labels(
        &mut self,
    ) -> Result<BTreeMap<String, BTreeMap<String, String>>, CalicoError> {
        let profiles = self.objects(Kind::Profile).await?;
        Ok(profiles.found.iter().map(|profile| (profile.name.clone(), labels_to_apply(profile))).collect())
    }

    /// Prefixes of the keys that a filter leaves: the name begins with node and orchestrator, in each namespace.
    async fn endpoint_prefixes(&mut self, filter: &EndpointFilter) -> Result<Vec<String>, CalicoError> {
        let all = keys::all_endpoints();
        let Some(host) = &filter.host else { return Ok(vec![all]) };
        let start = match &filter.orchestrator {
            Some(orchestrator) => keys::endpoint_name_start(&[host, orchestrator]),
            None => keys::endpoint_name_start(&[host]),
        };
        let (mut prefixes, mut from) = (Vec::new(), all.clone());
        loop {
            let key = self.store.first_key(&from, &all).await;
            let key = key.map_err(|source| self.store_error(source))?;
            let Some(key) = key else { return Ok(prefixes) };
            let namespace =
                key.strip_prefix(&all).and_then(|rest| rest.split('/').next()).unwrap_or_default();
            prefixes.push(format!("{all}{namespace}/{start}"));
            // What follows a slash in order: the first key behind the namespace.
            from = format!("{all}{namespace}0");
        }
    }

    /// The endpoint of this name, workload, task, container or address, or whose name begins like that and no other's.
    pub async fn find_endpoint(&mut self, text: &str) -> Result<EndpointRecord, ProfileError> {
        let all = self.endpoint_records(&EndpointFilter::default()).await?.found;
        let address = text.parse::<IpAddr>().ok();
        let is_exact = |record: &EndpointRecord| {
            record.names().any(|name| name == text)
                || address.is_some_and(|address| record.has_address(address))
        };
        let begins = |record: &EndpointRecord| record.names().any(|name| name.starts_with(text));
        let mut found: Vec<&EndpointRecord> = all.iter().filter(|record| is_exact(record)).collect();
        if found.is_empty() && !text.is_empty() {
            found = all.iter().filter(|record| begins(record)).collect();
        }
        match found.as_slice() {
            [one] => Ok((*one).clone()),
            [] => Err(ProfileError::NoEndpoint {
                text: text.to_owned(),
                nearest: super::profiles::nearest(text, all.iter().flat_map(EndpointRecord::names)),
            }),
            several => Err(ProfileError::Ambiguous {
                text: text.to_owned(),
                endpoints: several.iter().map(|record| record.name.clone()).collect(),
            }),
        }
    }

    /// Changes the list of an endpoint's profiles. Refused when one of them does not exist, or is not in the list it
    /// is to be removed from.
    pub async fn change_profiles(
        &mut self,
        endpoint: &EndpointRecord,
        change: ListChange,
        names: &[String],
        dry_run: bool,
    ) -> Result<Edited, ProfileError> {
        if change != ListChange::Remove {
            self.require_profiles(names).await?;
        }
        let key = endpoint.key();
        self.edit_key(Kind::WorkloadEndpoint, key.clone(), dry_run, |object| {
            let mut object = object
                .ok_or_else(|| ProfileError::NoEndpoint { text: endpoint.name.clone(), nearest: None })?;
            let old: Option<Vec<String>> = match object.value.pointer("/spec/profiles").cloned() {
                None | Some(Value::Null) => None,
                Some(list) => Some(serde_json::from_value(list).map_err(|error| {
                    CalicoError::Unreadable { key: key.clone(), reason: format!("spec.profiles: {error}") }
                })?),
            };
            let old = old.unwrap_or_default();
            if change == ListChange::Remove {
                let lacking: Vec<&String> = names.iter().filter(|name| !old.contains(name)).collect();
                if let Some(name) = lacking.first() {
                    return Err(ProfileError::NotThere {
                        name: (*name).clone(),
                        endpoint: endpoint.shown().to_owned(),
                        profiles: old,
                    });
                }
            }
            let new = change.apply(&old, names);
            if new == old {
                return Ok(Edit::Keep);
            }
            match new.is_empty() {
                true => object.spec_mut().shift_remove("profiles"),
                false => object.spec_mut().insert("profiles".to_owned(), new.into()),
            };
            Ok(Edit::Put(object))
        })
        .await
    }
}
