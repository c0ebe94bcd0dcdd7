//! What one container's keeper does.
//!
//! A second question about the same start is one about the next: dockerd was killed meanwhile and starts the container
//! again, so the life before is over.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use tokio::sync::mpsc::{self, UnboundedReceiver, UnboundedSender};
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::{sleep_until, Instant};
use tokio_util::sync::CancellationToken;

use super::order::{self, ChosenPorts};
use super::{PrepareAnswer, Sight, Sights};
use crate::config::Config;
use crate::error::{chain, Code, Failure};
use crate::logging;
use crate::net::forward::Mapping;
use crate::proxy::bindings::{Binding, Bindings};
use crate::task::channel::{Cause, Ended, Kill, LifeChange, LifeChannel, Order, OthersWord, Outcome};
use crate::task::cleaner::adopted;
use crate::task::life::{self, HeldNetwork, LifeEnd};
use crate::task::record::journal::JournalEntry;

/// What a keeper is told.
pub(super) enum Message {
    /// calico-runc is about to make the container.
    Prepare(oneshot::Sender<PrepareAnswer>),
    /// A client is about to start it.
    Ahead,
    /// A client's start has failed.
    NotStarted,
    /// A client stops it.
    Unwanted,
    /// An asker has gone.
    GaveUp,
    /// The container is over, as calico-runc says.
    Ended,
    /// What Docker's own health check has come to.
    Health(bool),
    /// The container is gone.
    Forget,
}

/// What the container has at the moment.
pub(super) enum Stage {
    AtRest,
    Life(Box<Living>),
    /// For another start, until then.
    Held(Box<HeldNetwork>, Instant),
}

/// A life under way.
pub(super) struct Living {
    life: JoinHandle<LifeEnd>,
    kills: UnboundedSender<Kill>,
    over: CancellationToken,
    health: watch::Sender<Option<bool>>,
    changes: UnboundedReceiver<(String, LifeChange)>,
    ports: Vec<Mapping>,
    /// calico-runc has asked.
    asked: bool,
    prepared: bool,
    given_up: bool,
    /// It began with what another life had left.
    again: bool,
    askers: Vec<oneshot::Sender<PrepareAnswer>>,
}

impl Living {
    fn begin(live: impl FnOnce(LifeChannel) -> JoinHandle<LifeEnd>, ports: Vec<Mapping>) -> Self {
        let (kills, killed) = mpsc::unbounded_channel();
        let (told, changes) = mpsc::unbounded_channel();
        let (over, (health, seen)) = (CancellationToken::new(), watch::channel(None));
        let others = OthersWord { over: over.clone(), health: Some(seen) };
        let channel = LifeChannel { task_id: String::new(), kills: killed, others, changes: told };
        let life = live(channel);
        let askers = Vec::new();
        Self {
            life,
            kills,
            over,
            health,
            changes,
            ports,
            asked: false,
            prepared: false,
            given_up: false,
            again: false,
            askers,
        }
    }

    /// The rest of a life that another proxy began.
    pub fn on(entry: JournalEntry, order: Order, addresses: Vec<IpAddr>) -> Self {
        let ports = entry.record.ports.clone();
        let live = |channel| {
            logging::spawn(async move {
                match life::live_on(entry, order, addresses, channel).await {
                    Ok(ended) => ended,
                    Err(failure) => failed(failure),
                }
            })
        };
        Self { asked: true, prepared: true, ..Self::begin(live, ports) }
    }

    async fn next(&mut self) -> LifeNext {
        tokio::select! {
            biased;
            Some((_, change)) = self.changes.recv() => LifeNext::Change(change),
            ended = &mut self.life => LifeNext::Ended(Box::new(ended.unwrap_or_else(|error| {
                failed(Failure::new(Code::Internal, chain(&error)))
            }))),
        }
    }

    fn answer(&mut self, prepared: &PrepareAnswer) {
        for asker in self.askers.drain(..) {
            // It may have gone.
            let _ = asker.send(prepared.clone());
        }
    }

    /// Its container is over, or never came to be.
    fn end(&mut self) {
        self.over.cancel();
        if !self.prepared {
            self.give_up();
        }
    }

    fn give_up(&mut self) {
        self.given_up = true;
        // The life may be over already.
        let _ = self.kills.send(Kill { grace: Duration::ZERO, announce: false, cause: Cause::Asked });
    }
}

/// One container's keeper.
pub(super) struct ContainerKeeper {
    pub id: String,
    pub config_path: PathBuf,
    pub linger: Duration,
    pub bindings: Arc<Bindings>,
    pub sights: Sights,
    pub ports: Arc<ChosenPorts>,
    pub messages: UnboundedReceiver<Message>,
    pub stage: Stage,
}

/// What a keeper hears of next.
enum Next {
    Message(Option<Message>),
    Life(LifeNext),
    LingerOver,
}

/// What a life comes to next.
enum LifeNext {
    Change(LifeChange),
    Ended(Box<LifeEnd>),
}

impl ContainerKeeper {
    /// Until the container is gone.
    pub async fn keep(mut self) {
        loop {
            match self.next().await {
                Next::Message(Some(Message::Forget) | None) => return self.forget().await,
                Next::Message(Some(message)) => self.hear(message).await,
                Next::Life(LifeNext::Change(change)) => self.change(change),
                Next::Life(LifeNext::Ended(ended)) => self.ended(*ended).await,
                Next::LingerOver => self.rest().await,
            }
        }
    }

    async fn next(&mut self) -> Next {
        match &mut self.stage {
            Stage::AtRest => Next::Message(self.messages.recv().await),
            Stage::Held(_, until) => tokio::select! {
                message = self.messages.recv() => Next::Message(message),
                () = sleep_until(*until) => Next::LingerOver,
            },
            Stage::Life(living) => tokio::select! {
                biased;
                next = living.next() => Next::Life(next),
                message = self.messages.recv() => Next::Message(message),
            },
        }
    }

    async fn hear(&mut self, message: Message) {
        match (message, &mut self.stage) {
            (Message::Prepare(asker), Stage::Life(living)) if living.asked || living.given_up => {
                // The container before is dead: its runtime makes no second one beside it.
                living.end();
                self.see_out().await;
                self.begin(Some(asker)).await;
            }
            (Message::Prepare(asker), Stage::Life(living)) => {
                living.asked = true;
                living.askers.push(asker);
                if living.prepared {
                    living.answer(&Ok(()));
                }
            }
            (Message::Prepare(asker), Stage::AtRest | Stage::Held(..)) => self.begin(Some(asker)).await,
            (Message::Ahead, Stage::AtRest | Stage::Held(..)) => self.begin(None).await,
            (Message::NotStarted, Stage::Life(living)) if !living.asked => living.give_up(),
            (Message::Unwanted, Stage::Life(living)) if !living.prepared => living.give_up(),
            (Message::GaveUp, Stage::Life(living)) => {
                let waited = !living.askers.is_empty();
                living.askers.retain(|asker| !asker.is_closed());
                if waited && living.askers.is_empty() && !living.prepared {
                    living.give_up();
                }
            }
            // Before the runtime has asked, it speaks of the container's start before this one.
            (Message::Ended, Stage::Life(living)) if living.asked => living.over.cancel(),
            (Message::Health(healthy), Stage::Life(living)) => {
                living.health.send_if_modified(|seen| seen.replace(healthy) != Some(healthy));
            }
            _ => {}
        }
    }

    /// The life that is under way comes to its end.
    async fn see_out(&mut self) {
        while let Stage::Life(living) = &mut self.stage {
            match living.next().await {
                LifeNext::Change(change) => self.change(change),
                LifeNext::Ended(ended) => self.ended(*ended).await,
            }
        }
    }

    /// Begins a life: the next one with what is held, or one from nothing.
    async fn begin(&mut self, asker: Option<oneshot::Sender<PrepareAnswer>>) {
        let mut living = match std::mem::replace(&mut self.stage, Stage::AtRest) {
            Stage::Held(held, _) => {
                let ports = held.ports().to_vec();
                let live = |channel| logging::spawn(life::live_again(*held, channel));
                Living { again: true, ..Living::begin(live, ports) }
            }
            _ => match self.order().await {
                Ok((order, ports)) => {
                    Living::begin(|channel| logging::spawn(life::live_adopted(order, channel)), ports)
                }
                Err(failure) => {
                    tracing::warn!("the container cannot start: {failure}");
                    if let Some(asker) = asker {
                        let _ = asker.send(Err(failure));
                    }
                    return;
                }
            },
        };
        living.asked = asker.is_some();
        living.askers.extend(asker);
        self.stage = Stage::Life(Box::new(living));
    }

    /// What is to be lived, with ports that are free at this moment.
    async fn order(&self) -> Result<(Order, Vec<Mapping>), Failure> {
        let binding = self.bindings.require(&self.id)?;
        let config = load(&self.config_path)?;
        adopted::finish(&config, &binding.container).await?;
        let ports = self.ports.choose(&binding).await?;
        let order = order::order(&binding, &config, self.config_path.clone(), ports.clone())?;
        Ok((order, ports))
    }

    fn change(&mut self, change: LifeChange) {
        let Stage::Life(living) = &mut self.stage else { return };
        match change {
            LifeChange::Prepared => {
                living.prepared = true;
                living.answer(&Ok(()));
            }
            LifeChange::Running { addresses, .. } => {
                let sight = Sight::new(addresses.clone(), living.ports.clone());
                self.sights.lock().unwrap_or_else(PoisonError::into_inner).insert(self.id.clone(), sight);
                self.bindings.strike(&self.id);
                self.note_run(addresses);
            }
            LifeChange::Health { .. } | LifeChange::Killing => {}
        }
    }

    /// The next start asks for these addresses.
    fn note_run(&self, addresses: Vec<IpAddr>) {
        let Some(binding) = self.bindings.get(&self.id) else { return };
        if binding.ran && binding.last == addresses {
            return;
        }
        if let Err(error) = self.bindings.put(Binding { last: addresses, ran: true, ..(*binding).clone() }) {
            tracing::warn!("{}; the container's next start may get another address", chain(&error));
        }
    }

    async fn ended(&mut self, end: LifeEnd) {
        self.sights.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.id);
        let LifeEnd { ended: Ended { outcome, afterwards }, held } = end;
        let stage = match held {
            Some(held) => Stage::Held(held, Instant::now() + self.linger),
            None => Stage::AtRest,
        };
        let Stage::Life(mut living) = std::mem::replace(&mut self.stage, stage) else { return };
        afterwards.await;
        let failure = match outcome {
            Outcome::Failed(failure) => failure,
            _ => Failure::new(Code::Gate, "the start was given up before the container's network was ready"),
        };
        // What the life before had left may be broken, as when the container could change its interface.
        if living.again && !living.prepared && failure.code == Code::Net {
            tracing::warn!("{failure}; a new network is made");
            Box::pin(self.begin(None)).await;
            if let Stage::Life(next) = &mut self.stage {
                (next.asked, next.askers) = (living.asked, living.askers);
                return;
            }
        } else if !living.prepared {
            tracing::warn!("the container cannot start: {failure}");
        }
        if let Stage::AtRest = self.stage {
            self.ports.give_back(&self.id).await;
        }
        living.answer(&Err(failure));
    }

    /// Nothing is held any more.
    async fn rest(&mut self) {
        if let Stage::Held(held, _) = std::mem::replace(&mut self.stage, Stage::AtRest) {
            held.give_back().await;
            self.ports.give_back(&self.id).await;
        }
    }

    async fn forget(mut self) {
        if let Stage::Life(living) = &mut self.stage {
            // Docker removes no container that runs.
            living.end();
            self.see_out().await;
        }
        self.rest().await;
    }
}

fn failed(failure: Failure) -> LifeEnd {
    Ended::from(Outcome::Failed(failure)).into()
}

pub(super) fn load(path: &Path) -> Result<Config, Failure> {
    Config::load(path).map_err(|error| Failure::new(Code::Config, chain(&error)))
}
