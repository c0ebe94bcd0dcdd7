//! What host, Calico and Consul show of one task at this moment.
//!
//! Every look is made on its own: one that fails carries its reason and hides none of the others. Of an ended task the
//! same looks show what is left of it.

use std::fs;
use std::future::Future;
use std::net::IpAddr;
use std::path::PathBuf;

use serde_json::Value;

use crate::calico::{self, Datastore, Identity, Kind};
use crate::config::{Config, Dataplane};
use crate::consul::{self, Service};
use crate::error::chain;
use crate::names::ENDPOINT;
use crate::net::forward::{self, Mapping};
use crate::net::show::{self, Inside, InterfaceFigures};
use crate::net::{self, Namespace};
use crate::task::network;
use crate::task::record::published::Told;

use super::Story;
use crate::limits::TASK_LOOK;

/// What a look found, or why it could not.
pub type Look<T> = Result<T, String>;

/// One task's share of the host and of the services.
#[derive(Debug, Clone, PartialEq)]
pub struct Facts {
    pub interface: String,
    /// Of the host end; none: there is no such interface.
    pub figures: Look<Option<InterfaceFigures>>,
    pub namespace: PathBuf,
    /// None: it is not bound there.
    pub bound: Look<Option<BoundNamespace>>,
    /// Whether the host routes each address to the interface.
    pub host_routes: Vec<(IpAddr, Look<bool>)>,
    pub endpoint: String,
    /// The endpoint's record; none: the datastore has none.
    pub record: Look<Option<Value>>,
    /// Felix's report of the endpoint.
    pub report: FelixReport,
    /// The host's ports that lead to it now.
    pub ports: Look<Vec<Mapping>>,
    /// What Consul holds of it; none where nothing is registered by configuration.
    pub registered: Look<Option<Vec<Service>>>,
    /// What its executor has registered.
    pub noted: Vec<Service>,
}

/// A namespace that is there.
#[derive(Debug, Clone, PartialEq)]
pub struct BoundNamespace {
    pub inode: u64,
    /// Those that live in it.
    pub processes: Vec<i32>,
    /// Its interface; none: it has none of that name.
    pub inside: Look<Option<Inside>>,
}

/// The file that Felix writes of an endpoint once its rules are in force.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FelixReport {
    /// Felix does not run here by configuration.
    NoFelix,
    /// Felix writes no such files on this host.
    NoFolder(PathBuf),
    Missing(PathBuf),
    /// With the time of the file.
    Written(PathBuf, String),
}

impl Facts {
    /// Looks at everything; nothing is changed.
    pub async fn look(config: &Config, story: &Story) -> Self {
        let identity = identity(config, story);
        let interface = story.container.interface();
        let namespace = network::namespace(config, &story.container);
        let (figures, bound, host_routes, record, ports, registered) = tokio::join!(
            figures(&interface),
            bound(&namespace),
            routes(&interface, &story.addresses),
            within("etcd", record(config, &identity)),
            ports(story),
            within("Consul", registered(config, story)),
        );
        let noted = Told::of(config, &story.container).read().map(|(services, _)| services);
        Self {
            report: report(config, &identity),
            endpoint: identity.endpoint_name(),
            noted: noted.unwrap_or_default(),
            interface,
            figures,
            namespace,
            bound,
            host_routes,
            record,
            ports,
            registered,
        }
    }
}

/// As the journal has it; of an ended task, as it follows from its container.
fn identity(config: &Config, story: &Story) -> Identity {
    if let Some(view) = &story.view {
        return view.record.identity.clone();
    }
    let node = story.life.as_ref().map(|life| life.node.clone()).filter(|node| !node.is_empty());
    let node = node.or_else(|| calico::node_name(config).ok()).unwrap_or_default();
    Identity::new(&node, &story.container, &story.app, &story.task)
}

async fn within<T>(service: &str, look: impl Future<Output = Look<T>>) -> Look<T> {
    let answer = tokio::time::timeout(TASK_LOOK, look).await;
    answer.unwrap_or_else(|_| Err(format!("{service} did not answer within {TASK_LOOK:?}")))
}

async fn figures(interface: &str) -> Look<Option<InterfaceFigures>> {
    let all = show::figures().await.map_err(|error| chain(&error))?;
    Ok(all.get(interface).copied())
}

async fn bound(path: &std::path::Path) -> Look<Option<BoundNamespace>> {
    if !path.exists() {
        return Ok(None);
    }
    let namespace = Namespace::open(path).map_err(|error| chain(&error))?;
    let inside = show::inside(&namespace, ENDPOINT).await.map_err(|error| chain(&error));
    Ok(Some(BoundNamespace { inode: namespace.inode(), processes: namespace.processes(), inside }))
}

async fn routes(interface: &str, addresses: &[IpAddr]) -> Vec<(IpAddr, Look<bool>)> {
    let mut routes = Vec::new();
    for address in addresses {
        let routed = net::has_host_route(interface, *address).await.map_err(|error| chain(&error));
        routes.push((*address, routed));
    }
    routes
}

async fn record(config: &Config, identity: &Identity) -> Look<Option<Value>> {
    let look = async {
        let mut datastore = Datastore::connect(config).await?;
        datastore.object(Kind::WorkloadEndpoint, &identity.endpoint_name()).await
    };
    let object = look.await.map_err(|error| chain(&error))?;
    Ok(object.map(|object| object.value))
}

async fn ports(story: &Story) -> Look<Vec<Mapping>> {
    let mut all = forward::all().await.map_err(|error| chain(&error))?;
    Ok(all.remove(&story.container).unwrap_or_default())
}

async fn registered(config: &Config, story: &Story) -> Look<Option<Vec<Service>>> {
    if !config.consul.enabled {
        return Ok(None);
    }
    let look = async { consul::Client::new(config)?.services().await };
    let services: Result<Vec<Service>, consul::ConsulError> = look.await;
    let services = services.map_err(|error| chain(&error))?;
    let its = services.into_iter().filter(|service| service.container().as_ref() == Some(&story.container));
    Ok(Some(its.collect()))
}

fn report(config: &Config, identity: &Identity) -> FelixReport {
    if config.node.dataplane != Dataplane::Felix {
        return FelixReport::NoFelix;
    }
    let file = calico::endpoint_status_file(config, identity);
    match fs::metadata(&file).and_then(|meta| meta.modified()) {
        Ok(time) => FelixReport::Written(file, humantime::format_rfc3339_seconds(time).to_string()),
        Err(_) if config.paths.endpoint_status.is_dir() => FelixReport::Missing(file),
        Err(_) => FelixReport::NoFolder(config.paths.endpoint_status.clone()),
    }
}
