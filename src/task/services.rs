//! The task's Consul entries: registered beside its life, never in its way.
//!
//! Consul absent or down never fails a task and never delays one. Registration is tried until it
//! succeeds or the task ends; what stands in the log is the first error and the success.

use std::time::Duration;

use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::config::Config;
use crate::consul::{Client, ConsulError, Service};
use crate::error::chain;

const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// What a task has in Consul.
pub struct Services {
    /// `<app>-direct` at the Calico addresses.
    pub direct: Vec<Service>,
    /// `<app>` at the host's address.
    pub host: Option<Service>,
}

impl Services {
    pub fn ids(&self) -> Vec<String> {
        self.direct.iter().chain(&self.host).map(|service| service.id.clone()).collect()
    }
}

/// Registers in the background until it is done or told to stop.
pub struct Registrar {
    stop: CancellationToken,
    work: JoinHandle<bool>,
}

impl Registrar {
    pub fn start(config: &Config, services: Services) -> Option<Self> {
        if !config.consul.enabled {
            return None;
        }
        let client = match Client::new(config) {
            Ok(client) => client,
            Err(error) => {
                tracing::warn!("the task is not registered in Consul: {}", chain(&error));
                return None;
            }
        };
        let stop = CancellationToken::new();
        let work = tokio::spawn(register_all(client, services, stop.clone()));
        Some(Self { stop, work })
    }

    /// Ends the work; a request under way is waited for, so that it cannot overtake the removal. Tells whether
    /// there is anything to remove.
    pub async fn stop(self) -> bool {
        self.stop.cancel();
        self.work.await.unwrap_or(true)
    }
}

/// True when anything may have been registered.
async fn register_all(client: Client, services: Services, stop: CancellationToken) -> bool {
    let mut registered = false;
    let Services { direct, host } = services;
    let direct = direct.into_iter().map(|service| (service, false));
    for (service, yields) in direct.chain(host.map(|service| (service, true))) {
        let mut pause = FIRST_PAUSE;
        let mut told = false;
        while !stop.is_cancelled() {
            match register(&client, &service, yields).await {
                Ok(Done::Registered) => {
                    registered = true;
                    tracing::info!("registered {} in Consul at {}", service.name, service.address);
                    break;
                }
                Ok(Done::LeftOut) => {
                    tracing::info!("{} is in Consul already, registered by another program", service.name);
                    break;
                }
                Err(error) => {
                    // An answer that never came may have been a success.
                    registered |= !error.never_arrived();
                    if !told {
                        tracing::warn!("cannot register {}: {}; trying on", service.name, chain(&error));
                    }
                    told = true;
                }
            }
            let _ = tokio::time::timeout(pause, stop.cancelled()).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }
    registered
}

enum Done {
    Registered,
    LeftOut,
}

/// `yields`: not when another program, such as mesos-consul, has registered the name already.
async fn register(client: &Client, service: &Service, yields: bool) -> Result<Done, ConsulError> {
    if yields && client.has_foreign_instance(&service.name).await? {
        return Ok(Done::LeftOut);
    }
    client.register(service).await?;
    Ok(Done::Registered)
}
