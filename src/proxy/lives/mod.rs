//! The lives of bound containers: each container has a keeper, which begins a life when the container is about to start.
//!
//! ```text
//!            prepare                    it runs, ends by itself
//!  at rest ──────────► a life ──────────────────────────────────► held ──linger──► at rest, all given back
//!     ▲                  │ it fails, or is given up   ▲              │
//!     └──────────────────┘                            └── prepare ───┘ the same address, set anew
//! ```
//!
//! Questions come from calico-runc by [`super::gate_socket`], and hints from clients' calls, which only prepare ahead.

mod keeper;
mod order;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::mpsc::{self, UnboundedSender};
use tokio::sync::oneshot;
use tracing::Instrument;

use super::bindings::{Binding, Bindings};
use crate::config::Config;
use crate::error::{Code, Failure};
use crate::logging;
use crate::net::forward::Mapping;
use crate::task::record::journal::JournalEntry;

use keeper::{ContainerKeeper, Living, Message, Stage};
use order::ChosenPorts;

/// The answer to a question: the namespace is there, or why not.
pub type PrepareAnswer = Result<(), Failure>;

/// What a running container has, for its clients' eyes.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Sight {
    pub addresses: Vec<IpAddr>,
    pub ports: Vec<Mapping>,
    /// Differs from that of every other life.
    pub run: u64,
}

impl Sight {
    fn new(addresses: Vec<IpAddr>, ports: Vec<Mapping>) -> Self {
        static RUNS: AtomicU64 = AtomicU64::new(0);
        Self { addresses, ports, run: RUNS.fetch_add(1, Ordering::Relaxed) }
    }
}

type Sights = Arc<Mutex<BTreeMap<String, Sight>>>;

/// The keepers of all containers that have been started.
pub struct Lives {
    config_path: PathBuf,
    linger: Duration,
    bindings: Arc<Bindings>,
    keepers: Mutex<BTreeMap<String, UnboundedSender<Message>>>,
    sights: Sights,
    ports: Arc<ChosenPorts>,
}

impl Lives {
    pub fn new(config_path: PathBuf, config: &Config, bindings: Arc<Bindings>) -> Self {
        let linger = config.proxy.linger;
        let (keepers, sights, ports) = Default::default();
        Self { config_path, linger, bindings, keepers, sights, ports }
    }

    /// Has the container's network made. An error is the sentence that its start fails with. Dropped before the
    /// answer, the question is given up.
    pub async fn prepare(&self, id: &str) -> PrepareAnswer {
        // What is not bound needs no keeper.
        self.bindings.require(id).inspect_err(|failure| tracing::warn!("{id} cannot start: {failure}"))?;
        let (answer, prepared) = oneshot::channel();
        self.tell(id, Message::Prepare(answer));
        let _gives_up = GivesUp { lives: self, id };
        prepared.await.unwrap_or_else(|_| Err(Failure::new(Code::Gate, "the proxy is ending")))
    }

    /// Begins for a start that has only been announced.
    pub fn prepare_ahead(&self, id: &str) {
        if self.bindings.get(id).is_some() {
            self.tell(id, Message::Ahead);
        }
    }

    /// What was announced has failed.
    pub fn not_started(&self, id: &str) {
        self.tell_known(id, Message::NotStarted);
    }

    /// A client wants no start.
    pub fn give_up_start(&self, id: &str) {
        self.tell_known(id, Message::Unwanted);
    }

    /// The container is over, as its runtime says.
    pub fn ended(&self, id: &str) {
        self.tell_known(id, Message::Ended);
    }

    /// What Docker's own health check has come to.
    pub fn health(&self, id: &str, healthy: bool) {
        self.tell_known(id, Message::Health(healthy));
    }

    /// The container is gone: nothing is held for another start.
    pub fn forget(&self, id: &str) {
        self.tell_known(id, Message::Forget);
        self.keepers().remove(id);
    }

    /// What the container has while it runs.
    pub fn sight(&self, id: &str) -> Option<Sight> {
        self.sights.lock().unwrap_or_else(PoisonError::into_inner).get(id).cloned()
    }

    /// How many containers run.
    pub fn running(&self) -> usize {
        self.sights.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// Goes on with a container that runs since before this proxy, with these addresses.
    pub fn go_on(
        &self,
        binding: &Binding,
        entry: JournalEntry,
        addresses: Vec<IpAddr>,
    ) -> Result<(), Failure> {
        let config = keeper::load(&self.config_path)?;
        let order = order::order(binding, &config, self.config_path.clone(), Vec::new())?;
        let sight = Sight::new(addresses.clone(), entry.record.ports.clone());
        let living = Living::on(entry, order, addresses);
        self.sights.lock().unwrap_or_else(PoisonError::into_inner).insert(binding.id.clone(), sight);
        let sender = self.keep(&binding.id, Stage::Life(Box::new(living)));
        self.keepers().insert(binding.id.clone(), sender);
        Ok(())
    }

    fn keepers(&self) -> MutexGuard<'_, BTreeMap<String, UnboundedSender<Message>>> {
        self.keepers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keepers live until their container is gone, so that a message is always heard.
    fn tell(&self, id: &str, message: Message) {
        let mut keepers = self.keepers();
        let keeper = keepers.entry(id.to_owned()).or_insert_with(|| self.keep(id, Stage::AtRest));
        let _ = keeper.send(message);
    }

    fn tell_known(&self, id: &str, message: Message) {
        if let Some(keeper) = self.keepers().get(id) {
            let _ = keeper.send(message);
        }
    }

    fn keep(&self, id: &str, stage: Stage) -> UnboundedSender<Message> {
        let (sender, messages) = mpsc::unbounded_channel();
        let keeper = ContainerKeeper {
            id: id.to_owned(),
            config_path: self.config_path.clone(),
            linger: self.linger,
            bindings: self.bindings.clone(),
            sights: self.sights.clone(),
            ports: self.ports.clone(),
            messages,
            stage,
        };
        let task = self.bindings.get(id).map(|binding| binding.bound.task_id.clone()).unwrap_or_default();
        tokio::spawn(keeper.keep().instrument(logging::task(&task)));
        sender
    }
}

/// Lets the keeper see that an asker has gone.
struct GivesUp<'a> {
    lives: &'a Lives,
    id: &'a str,
}

impl Drop for GivesUp<'_> {
    fn drop(&mut self) {
        self.lives.tell_known(self.id, Message::GaveUp);
    }
}
