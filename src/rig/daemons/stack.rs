//! etcd, dockerd and Consul together, with the `config.toml` that names them.
//!
//! ```text
//! <tmp>/cmdev-XXXXXX/       removed at the end; kept, and its path printed, when a test panics
//!   owner                   held locked as long as this lives, see `sweep`
//!   config.toml             everything below; also in dockerd's environment, for calico-runc
//!   e/ d/ c/                etcd, dockerd, Consul: data and `log`
//!   run/ state/ calico/     our volatile files, our journal, Calico's own files
//! ```

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};

use ipnet::IpNet;
use serde_json::{Map, Value};
use tempfile::TempDir;

use super::{
    free_pool, import_busybox, sweep, Consul, ConsulOptions, DevError, Dockerd, DockerdOptions, Etcd,
    EtcdOptions, Network,
};
use crate::config;
use crate::names::RUNTIME;

/// dockerd's part of the folder; one letter, since containerd puts sockets deep below it.
pub(super) const DOCKER: &str = "d";

#[derive(Debug, Clone)]
pub struct StackOptions {
    /// calico-runc, registered with dockerd as the runtime `calico`.
    pub runtime: Option<PathBuf>,
    /// Consul as well; one that is not installed is an error then.
    pub consul: bool,
    /// That Consul keeps its data over a restart.
    pub consul_persistent: bool,
    /// Consul's DNS always on a free port instead of 8600.
    pub any_dns_port: bool,
    /// Import the busybox image.
    pub busybox: bool,
    pub network: Network,
    /// dockerd on a free TCP port too.
    pub docker_tcp: bool,
    /// More keys of dockerd's `daemon.json`.
    pub docker_configuration: Map<String, Value>,
    /// The pool; by default one that overlaps nothing on this machine.
    pub pools: Vec<IpNet>,
    /// Overrides in `config.toml`: `("node.mtu", "1400")`, `("policy.wait", "\"off\"")`.
    pub config: BTreeMap<String, String>,
    /// Use this etcd instead of an own one: several hosts share a datastore.
    pub etcd_endpoint: Option<String>,
    pub etcd: EtcdOptions,
    /// Where the folder is made; default: the system's folder for temporary files.
    pub base: Option<PathBuf>,
}

impl Default for StackOptions {
    fn default() -> Self {
        Self {
            runtime: None,
            consul: false,
            consul_persistent: false,
            any_dns_port: false,
            busybox: true,
            network: Network::None,
            docker_tcp: false,
            docker_configuration: Map::new(),
            pools: Vec::new(),
            config: BTreeMap::new(),
            etcd_endpoint: None,
            etcd: EtcdOptions::default(),
            base: None,
        }
    }
}

/// See the module's documentation. Dropping it ends everything, [`Stack::stop`] does so gently.
pub struct Stack {
    pub dir: PathBuf,
    pub config: PathBuf,
    pub pools: Vec<IpNet>,
    pub etcd: Option<Etcd>,
    pub etcd_endpoint: String,
    pub docker: Dockerd,
    pub consul: Option<Consul>,
    folder: Option<TempDir>,
    /// Keeps sweeps away from the folder.
    _lock: File,
}

impl Stack {
    /// Everything ready; first removes the folders that killed processes left behind.
    pub async fn start(options: StackOptions) -> Result<Self, DevError> {
        let base = options.base.clone().unwrap_or_else(std::env::temp_dir);
        sweep::abandoned(&base);
        let folder = tempfile::Builder::new()
            .prefix(sweep::PREFIX)
            .tempdir_in(&base)
            .map_err(DevError::io(format!("make a folder in {}", base.display())))?;
        let dir = folder.path().to_owned();
        let lock = sweep::claim(&dir)
            .and_then(|lock| sweep::footprint::note(&dir).map(|()| lock))
            .map_err(DevError::io(format!("write into {}", dir.display())))?;
        let config = dir.join("config.toml");
        let pools = match options.pools.as_slice() {
            [] => vec![free_pool().ok_or_else(|| {
                DevError::Unusable("every range that could be a pool overlaps a route of this machine".into())
            })?],
            pools => pools.to_vec(),
        };

        // dockerd is the slowest of the three.
        let (docker, etcd, consul) = tokio::try_join!(
            docker(&dir, &config, &options),
            async {
                match options.etcd_endpoint {
                    Some(_) => Ok(None),
                    None => Etcd::start(&dir.join("e"), options.etcd.clone()).await.map(Some),
                }
            },
            async {
                let consul = ConsulOptions {
                    any_dns_port: options.any_dns_port,
                    persistent: options.consul_persistent,
                    ..Default::default()
                };
                match options.consul {
                    true => Consul::start(&dir.join("c"), consul).await.map(Some),
                    false => Ok(None),
                }
            }
        )?;
        let own = etcd.as_ref().map(|etcd| etcd.endpoint.clone());
        let etcd_endpoint = own.or(options.etcd_endpoint.clone()).unwrap_or_default();
        let text = configuration(&dir, &docker, &etcd_endpoint, consul.as_ref(), &pools, &options.config);
        std::fs::write(&config, text).map_err(DevError::io(format!("write {}", config.display())))?;
        Ok(Self {
            dir,
            config,
            pools,
            etcd,
            etcd_endpoint,
            docker,
            consul,
            folder: Some(folder),
            _lock: lock,
        })
    }

    /// Ends all three and removes the folder.
    pub async fn stop(mut self) -> Result<(), DevError> {
        self.docker.stop().await;
        if let Some(consul) = &mut self.consul {
            consul.stop().await;
        }
        if let Some(etcd) = &mut self.etcd {
            etcd.stop().await;
        }
        self.remove()
    }

    /// Ends all three and leaves logs and data where they are, for people; no sweep removes them.
    pub async fn stop_and_keep(mut self) -> PathBuf {
        self.docker.stop().await;
        if let Some(consul) = &mut self.consul {
            consul.stop().await;
        }
        if let Some(etcd) = &mut self.etcd {
            etcd.stop().await;
        }
        sweep::rest(&self.dir);
        sweep::unmount_below(&self.dir);
        sweep::disclaim(&self.dir);
        if let Some(folder) = self.folder.take() {
            let _ = folder.keep();
        }
        self.dir.clone()
    }

    fn remove(&mut self) -> Result<(), DevError> {
        let Some(folder) = self.folder.take() else { return Ok(()) };
        sweep::rest(folder.path());
        sweep::unmount_below(folder.path());
        sweep::footprint::remove(folder.path());
        let text = format!("remove {}", folder.path().display());
        folder.close().map_err(DevError::io(text))
    }
}

impl Drop for Stack {
    fn drop(&mut self) {
        // Before the folder goes, or they would write into it again.
        self.docker.end();
        if let Some(consul) = &mut self.consul {
            consul.kill();
        }
        if let Some(etcd) = &mut self.etcd {
            etcd.kill();
        }
        match self.folder.take() {
            Some(folder) if std::thread::panicking() => {
                let kept = folder.keep();
                // Files are kept; executors, and namespaces bound among the files, are not.
                sweep::rest(&kept);
                sweep::unmount_below(&kept);
                sweep::footprint::remove(&kept);
                sweep::disclaim(&kept);
                eprintln!("logs and data kept in {}", kept.display());
            }
            folder => {
                self.folder = folder;
                // There is no caller to report to; the next start sweeps what could not be removed.
                let _ = self.remove();
            }
        }
    }
}

async fn docker(dir: &Path, config: &Path, options: &StackOptions) -> Result<Dockerd, DevError> {
    let runtimes = options.runtime.iter().map(|path| (RUNTIME.to_owned(), path.clone())).collect();
    let config = config.to_string_lossy().into_owned();
    let environment = BTreeMap::from([(config::VARIABLE.to_owned(), config)]);
    let (network, tcp) = (options.network, options.docker_tcp);
    let configuration = options.docker_configuration.clone();
    let wanted = DockerdOptions { network, runtimes, environment, tcp, configuration, ..Default::default() };
    let docker = Dockerd::start(&dir.join(DOCKER), wanted).await?;
    if options.busybox {
        import_busybox(&docker).await?;
    }
    Ok(docker)
}

/// One line a setting; text values are written as JSON strings, which TOML reads the same way.
fn configuration(
    dir: &Path,
    docker: &Dockerd,
    etcd: &str,
    consul: Option<&Consul>,
    pools: &[IpNet],
    overrides: &BTreeMap<String, String>,
) -> String {
    let quoted = |text: &str| serde_json::Value::from(text).to_string();
    let path = |name: &str| quoted(&dir.join(name).to_string_lossy());
    let pools: Vec<String> = pools.iter().map(|pool| quoted(&pool.to_string())).collect();
    let mut settings: BTreeMap<String, String> = [
        ("etcd.endpoints", format!("[{}]", quoted(etcd))),
        ("consul.enabled", consul.is_some().to_string()),
        ("docker.host", quoted(&docker.host())),
        ("node.dataplane", quoted("local")),
        ("node.local_pools", format!("[{}]", pools.join(", "))),
        ("paths.run", path("run")),
        ("paths.state", path("state")),
        ("paths.ipam_lock", path("calico/ipam.lock")),
        ("paths.mtu_file", path("calico/mtu")),
        ("paths.nodename_file", path("calico/nodename")),
        ("paths.endpoint_status", path("calico/endpoint-status")),
        ("paths.log", path("log")),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .into();
    if let Some(consul) = consul {
        settings.insert("consul.address".into(), quoted(&consul.url()));
    }
    settings.extend(overrides.clone());
    settings.iter().map(|(name, value)| format!("{name} = {value}\n")).collect()
}
