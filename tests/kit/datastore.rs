//! A private etcd a test, raw access to it, and tasks to launch.

use std::collections::BTreeMap;
use std::net::IpAddr;

use calico_mesos::calico::{
    AddressRequest, CalicoError, Committed, Datastore, Family, Identity, Terms, Wanted,
};
use calico_mesos::config::Config;
use calico_mesos::names::ContainerId;
use calico_mesos::rig::daemons::{Etcd, EtcdOptions};
use etcd_client::{Client, DeleteOptions, GetOptions};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

pub const RESOURCES: &str = "/calico/resources/v3/projectcalico.org";
pub const IPAM: &str = "/calico/ipam/v2";
pub const MAC: &str = "02:42:0a:41:00:05";

/// Key and value of everything below /calico/.
pub type Dump = BTreeMap<String, String>;

pub struct World {
    pub etcd: Etcd,
    pub raw: Client,
    pub dir: tempfile::TempDir,
}

impl World {
    /// An empty etcd.
    pub async fn empty() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let etcd = Etcd::start(&dir.path().join("etcd"), EtcdOptions::default()).await.unwrap();
        let raw = Client::connect([&etcd.endpoint], None).await.unwrap();
        Self { etcd, raw, dir }
    }

    /// A cluster with these nodes and pools (name, spec).
    pub async fn new(nodes: &[&str], pools: &[(&str, &str)]) -> Self {
        let mut world = Self::empty().await;
        world
            .put(
                &format!("{RESOURCES}/clusterinformations/default"),
                r#"{"metadata":{"name":"default"},"spec":{"datastoreReady":true}}"#,
            )
            .await;
        for node in nodes {
            let value =
                format!(r#"{{"metadata":{{"name":"{node}","labels":{{"host":"{node}"}}}},"spec":{{}}}}"#);
            world.put(&format!("{RESOURCES}/nodes/{node}"), &value).await;
        }
        for (name, spec) in pools {
            world.pool(name, spec).await;
        }
        world
    }

    pub async fn pool(&mut self, name: &str, spec: &str) {
        let value = format!(r#"{{"metadata":{{"name":"{name}"}},"spec":{spec}}}"#);
        self.put(&format!("{RESOURCES}/ippools/{name}"), &value).await;
    }

    pub async fn put(&mut self, key: &str, value: &str) {
        self.raw.put(key, value, None).await.unwrap();
    }

    pub async fn delete(&mut self, key: &str) {
        self.raw.delete(key, None).await.unwrap();
    }

    pub async fn clear(&mut self) {
        self.raw.delete("/calico/", Some(DeleteOptions::new().with_prefix())).await.unwrap();
    }

    pub async fn dump(&mut self) -> Dump {
        let found = self.raw.get("/calico/", Some(GetOptions::new().with_prefix())).await.unwrap();
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        found.kvs().iter().map(|entry| (text(entry.key()), text(entry.value()))).collect()
    }

    /// How many transactions etcd has answered, as it counts itself.
    pub async fn transactions(&self) -> u64 {
        self.counter("grpc_server_handled_total", r#"grpc_method="Txn""#).await
    }

    /// How many bytes etcd has sent to clients, as it counts itself.
    pub async fn bytes_sent(&self) -> u64 {
        self.counter("etcd_network_client_grpc_sent_bytes_total", "").await
    }

    async fn counter(&self, name: &str, label: &str) -> u64 {
        let mut stream = tokio::net::TcpStream::connect(self.etcd.address()).await.unwrap();
        stream.write_all(b"GET /metrics HTTP/1.0\r\n\r\n").await.unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).await.unwrap();
        let counters = text.lines().filter(|line| line.starts_with(name) && line.contains(label));
        counters.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum::<f64>() as u64
    }

    /// All that belongs to addresses and endpoints.
    pub async fn ipam(&mut self) -> Dump {
        let mut dump = self.dump().await;
        dump.retain(|key, _| key.starts_with(IPAM) || key.contains("/workloadendpoints/"));
        dump
    }

    /// A host's configuration; every host has folders of its own.
    pub fn config(&self, host: &str) -> Config {
        let mut config = Config::default();
        config.etcd.endpoints = vec![self.etcd.endpoint.clone()];
        config.node.name = Some(host.into());
        let state = self.dir.path().join(host);
        std::fs::create_dir_all(&state).unwrap();
        config.paths.ipam_lock = state.join("ipam.lock");
        config.paths.log = state.join("log");
        config.paths.state = state;
        config
    }

    pub async fn connect(&self, host: &str) -> Datastore {
        Datastore::connect(&self.config(host)).await.unwrap()
    }

    /// Looks and writes.
    pub async fn launch(&self, identity: &Identity, wanted: &Wanted) -> Result<Committed, CalicoError> {
        let mut datastore = self.connect(&identity.node).await;
        let prepared = datastore.prepare(identity, wanted).await?;
        datastore.commit(prepared, MAC, Terms::default()).await
    }
}

pub fn task(node: &str) -> Identity {
    let container = ContainerId::random();
    Identity::new(node, &container, "/prod/web", &format!("prod_web.instance-{container}._app.1"))
}

pub fn auto() -> Wanted {
    wants(&[AddressRequest::Auto(Family::V4)])
}

pub fn six() -> Wanted {
    wants(&[AddressRequest::Auto(Family::V6)])
}

pub fn wants(addresses: &[AddressRequest]) -> Wanted {
    Wanted { addresses: addresses.to_vec(), profiles: vec!["dev".into()], ..Wanted::default() }
}

pub fn explicit(address: &str) -> Wanted {
    wants(&[AddressRequest::Explicit(address.parse().unwrap())])
}

pub fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}
