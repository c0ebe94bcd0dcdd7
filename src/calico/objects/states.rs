//! Whether Felix has programmed an endpoint, as far as Felix says so.
//!
//! On this host Felix may write a file for each endpoint that it has programmed; into etcd it may write a report for
//! each endpoint of every host. Both are off by default in some versions: without a report the state is not known.

use std::collections::{HashMap, HashSet};

use serde_json::Value;

use super::super::{files, keys, CalicoError, Datastore};
use super::EndpointRecord;
use crate::config::Config;

/// Felix's reports at one moment.
#[derive(Debug, Clone, Default)]
pub struct EndpointStates {
    /// This host's name and the files of its Felix.
    here: Option<(String, HashSet<String>)>,
    /// By the end of the report's key.
    reported: HashMap<String, String>,
}

impl EndpointStates {
    /// `up` or `down`; none where Felix reports nothing.
    pub fn of(&self, endpoint: &EndpointRecord) -> Option<&str> {
        let workload = format!("{}/{}", endpoint.namespace, endpoint.workload);
        let file = || files::status_file_name(&endpoint.orchestrator, &workload, &endpoint.endpoint);
        let has_file = self.here.as_ref().is_some_and(|(node, files)| {
            *node == endpoint.node && !files.is_empty() && files.contains(&file())
        });
        if has_file {
            return Some("up");
        }
        if self.reported.is_empty() {
            return None;
        }
        let key = keys::felix_report(&endpoint.node, &endpoint.orchestrator, &workload, &endpoint.endpoint);
        self.reported.get(&key).map(String::as_str)
    }
}

impl Datastore {
    /// Felix's reports, of one host or of all.
    pub async fn endpoint_states(
        &mut self,
        config: &Config,
        host: Option<&str>,
    ) -> Result<EndpointStates, CalicoError> {
        let here = files::node_name(config).ok().filter(|node| host.is_none_or(|host| host == node));
        let here = here.map(|node| {
            let entries = std::fs::read_dir(&config.paths.endpoint_status);
            let names = entries.into_iter().flatten().flatten();
            (node, names.filter_map(|entry| entry.file_name().into_string().ok()).collect())
        });
        let mut states = EndpointStates { here, ..EndpointStates::default() };
        let all = keys::felix_reports();
        let prefix = host.map_or_else(|| all.clone(), keys::felix_reports_of);
        let reported = &mut states.reported;
        self.scan_each(&prefix, |entry| {
            // Behind the prefix comes the region.
            let end = entry.key.strip_prefix(&all).and_then(|rest| rest.split_once('/')).map(|(_, end)| end);
            let value: Option<Value> = serde_json::from_slice(&entry.value).ok();
            let status = value.as_ref().and_then(|value| value.get("status")?.as_str());
            if let Some((end, status)) = end.filter(|end| end.contains("/workload/")).zip(status) {
                reported.insert(end.to_owned(), status.to_owned());
            }
        })
        .await?;
        Ok(states)
    }
}
