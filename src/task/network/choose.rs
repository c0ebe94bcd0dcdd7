//! The reads of a launch: what the datastore has, and which addresses are chosen. Nothing is written yet.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use tokio_util::task::AbortOnDropHandle;

use crate::calico::{self, CalicoError, Datastore, Identity, Wanted};
use crate::config::{Config, Dataplane};
use crate::error::Failure;
use crate::logging;

use super::{felix, ports};
use crate::task::record::journal::Record;
use crate::task::report::steps::{Step, Steps};
use crate::task::retry::host_faults;

/// The reads are done, and addresses are chosen; nothing is written yet.
pub(in crate::task) struct Choice {
    pub(super) datastore: Datastore,
    pub(super) claim: calico::Prepared,
    pub(super) took: Duration,
}

/// What can be slow or refused before anything is claimed. An address that is still held is waited for so long. Only
/// reads: it may be dropped at any time.
pub(in crate::task) async fn choose(
    config: &Config,
    record: &Record,
    wanted: &Wanted,
    early: Option<EarlyLogin>,
    steps: &Steps,
    ip_wait: Duration,
) -> Result<Box<Choice>, Failure> {
    let choice = async {
        felix::can_report(config).await?;
        let choice = read(config, &record.identity, wanted, early, ip_wait).await?;
        steps.pass(Step::Chosen).await;
        Ok(choice)
    };
    let (choice, ()) = tokio::try_join!(choice, ports::available(config, record))?;
    Ok(choice)
}

/// A connection to the datastore that was begun before anything was known of the task but that it needs one: a login
/// with a password takes etcd some 75 ms.
pub(in crate::task) struct EarlyLogin(AbortOnDropHandle<Result<Datastore, CalicoError>>);

impl EarlyLogin {
    /// Connects in the background, until it is dropped.
    pub(in crate::task) fn begin(config: &Config) -> Self {
        let config = config.clone();
        Self(AbortOnDropHandle::new(logging::spawn(async move { Datastore::connect(&config).await })))
    }

    /// The connection, or why there is none.
    pub(in crate::task) async fn datastore(self) -> Result<Datastore, CalicoError> {
        match self.0.await {
            Ok(connected) => connected,
            Err(error) => match error.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                // The runtime is at its end, and this wait with it.
                Err(_) => std::future::pending().await,
            },
        }
    }
}

/// What the reads of the datastore lead to.
enum Read {
    Chosen(Box<Choice>),
    /// Another task still has the address.
    Held(CalicoError),
}

/// The datastore's reads and the choice, retried; an address that is still held is waited for.
async fn read(
    config: &Config,
    identity: &Identity,
    wanted: &Wanted,
    early: Option<EarlyLogin>,
    ip_wait: Duration,
) -> Result<Box<Choice>, Failure> {
    let waiting_since = Instant::now();
    let early = Mutex::new(early);
    loop {
        let result = host_faults(config.launch.retry_for, || async {
            let started = Instant::now();
            let first = early.lock().ok().and_then(|mut early| early.take());
            let connected = match first {
                Some(early) => early.datastore().await,
                None => Datastore::connect(config).await,
            };
            let mut datastore = connected.map_err(|error| error.failure())?;
            let mut result = datastore.prepare(identity, wanted).await;
            if config.node.dataplane == Dataplane::Local
                && result.as_ref().is_err_and(CalicoError::is_uninitialised)
            {
                // calico/node does this on other hosts.
                datastore
                    .initialise_local(&identity.node, &config.node.local_pools)
                    .await
                    .map_err(|error| error.failure())?;
                result = datastore.prepare(identity, wanted).await;
            }
            match result {
                Ok(claim) => Ok(Read::Chosen(Box::new(Choice { datastore, claim, took: started.elapsed() }))),
                Err(error) if error.is_held() => Ok(Read::Held(error)),
                Err(error) => Err(error.failure()),
            }
        })
        .await?;
        let held = match result {
            Read::Chosen(choice) => return Ok(choice),
            Read::Held(held) => held,
        };
        let waited = waiting_since.elapsed();
        if waited >= ip_wait {
            return Err(held.failure_after(waited));
        }
        tracing::info!("{}; waiting for it", held.failure().message);
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}
