//! Whose a service's name is: the ids of two apps may fold into one.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::{Client, ConsulError, Service, APP};

/// An entry of the catalogue, as far as it shows whose it is.
#[derive(Deserialize)]
struct Entry {
    #[serde(rename = "ServiceMeta", default)]
    meta: BTreeMap<String, String>,
}

impl Client {
    /// The id of another app that has entries of this service's name, anywhere in the cluster.
    pub async fn other_app(&self, service: &Service) -> Result<Option<String>, ConsulError> {
        let name = &service.name;
        // Any server's answer will do: no need to wait for the leader.
        let path = format!("/v1/catalog/service/{name}?stale");
        let entries: Vec<Entry> = self.list(&path, &format!("look up {name}")).await?;
        let mut apps = entries.into_iter().filter_map(|mut entry| entry.meta.remove(APP));
        Ok(apps.find(|app| Some(app) != service.meta.get(APP)))
    }
}
