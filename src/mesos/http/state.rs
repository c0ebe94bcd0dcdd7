//! What the protocol demands (pure): inputs in, effects out, no sockets and no clocks.

use std::collections::BTreeSet;

use bytes::Bytes;

use super::calls::{Calls, SubscriberIdentity};
use super::events;
use crate::mesos::driver::ledger::UpdateLedger;
use crate::mesos::driver::Event;
use crate::mesos::messages::TaskStatus;

/// What can happen.
#[derive(Debug, Clone)]
pub(super) enum HttpInput {
    /// The newest subscription (the fate of an older one is no news).
    Stream(News),
    /// The call under way was answered; an error is the reason why it was not.
    Answer(Result<CallAnswer, String>),
    Update(Box<TaskStatus>),
    /// Time to try again.
    Retry,
    RecoveryTimeout,
    /// Time to show that we live.
    HeartbeatDue,
    /// The agent's heartbeats have stopped.
    Silence,
}

#[derive(Debug, Clone)]
pub(super) enum News {
    Opened,
    Refused(CallAnswer),
    /// No answer, with the reason.
    Failed(String),
    Record(Bytes),
    Garbage(String),
    /// In good order, with HTTP's last chunk, or torn off.
    Ended {
        orderly: bool,
    },
}

/// An answer's status code and its text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct CallAnswer {
    pub status: u16,
    pub text: String,
}

/// What is to be done, in this order.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum HttpEffect {
    /// Over a connection of its own; an older subscription is dropped.
    Subscribe(Vec<u8>),
    /// One at a time, over the other connection.
    Call(Vec<u8>),
    RetryLater,
    StartRecovery,
    StopRecovery,
    /// The agent sends heartbeats: their absence means something from now on.
    ExpectHeartbeat,
    Emit(Event),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// SUBSCRIBE is under way.
    Asking,
    /// The next SUBSCRIBE comes with a retry.
    Waiting,
    /// Events come in; `heard` once the agent has sent SUBSCRIBED or SHUTDOWN.
    Open { heard: bool },
    /// There will be no events any more. Updates are sent all the same, and taken is as good as
    /// acknowledged.
    Leaving,
    /// The agent will not talk to us any more.
    Gone,
}

#[derive(Debug, PartialEq, Eq)]
enum Call {
    /// With the update's uuid.
    Update(Vec<u8>),
    Heartbeat,
}

#[derive(Debug)]
pub(super) struct HttpState {
    calls: Calls,
    checkpoint: bool,
    phase: Phase,
    registered: bool,
    shutdown: bool,
    recovering: bool,
    ledger: UpdateLedger,
    /// The updates that the SUBSCRIBE under way carries.
    told: BTreeSet<Vec<u8>>,
    /// The updates that the agent has taken and not acknowledged.
    taken: BTreeSet<Vec<u8>>,
    call: Option<Call>,
    /// Calls wait for a retry.
    paused: bool,
    /// Off for an agent without such a call.
    heartbeats: bool,
}

impl HttpState {
    pub fn new(identity: SubscriberIdentity, checkpoint: bool) -> Self {
        Self {
            calls: Calls(identity),
            checkpoint,
            phase: Phase::Waiting,
            registered: false,
            shutdown: false,
            recovering: false,
            ledger: UpdateLedger::default(),
            told: BTreeSet::new(),
            taken: BTreeSet::new(),
            call: None,
            paused: false,
            heartbeats: true,
        }
    }

    /// SUBSCRIBE with everything that is pending.
    pub fn subscribe(&mut self) -> Vec<HttpEffect> {
        self.phase = Phase::Asking;
        let updates = self.ledger.updates();
        self.told = updates.iter().filter_map(|status| status.uuid.clone()).collect();
        vec![HttpEffect::Subscribe(self.calls.subscribe(self.ledger.tasks(), updates))]
    }

    /// Whether everything has arrived; `None` while that can still change.
    pub fn drained(&self) -> Option<bool> {
        match self.phase {
            _ if self.ledger.updates().is_empty() => Some(true),
            Phase::Gone => Some(false),
            Phase::Leaving if self.next_update().is_none() => Some(true),
            _ => None,
        }
    }

    pub fn handle(&mut self, input: HttpInput) -> Vec<HttpEffect> {
        let mut effects = match input {
            HttpInput::Stream(news) => self.news(news),
            HttpInput::Answer(answer) => self.answered(answer),
            HttpInput::Update(status) => {
                self.ledger.update(self.calls.complete(*status));
                Vec::new()
            }
            HttpInput::Retry => {
                self.paused = false;
                if self.phase == Phase::Waiting {
                    self.subscribe()
                } else {
                    Vec::new()
                }
            }
            HttpInput::RecoveryTimeout if self.recovering && self.phase != Phase::Gone => {
                self.give_up("the agent did not come back within its recovery timeout")
            }
            HttpInput::RecoveryTimeout => Vec::new(),
            HttpInput::HeartbeatDue => self.heartbeat(),
            // An agent that hangs does not report it: subscribe again.
            HttpInput::Silence if matches!(self.phase, Phase::Open { .. }) => self.lost(true),
            HttpInput::Silence => Vec::new(),
        };
        effects.extend(self.pump());
        effects
    }

    /// The next update that the agent has not taken yet, if nothing else is under way.
    fn pump(&mut self) -> Option<HttpEffect> {
        let may = matches!(self.phase, Phase::Open { heard: true } | Phase::Leaving);
        if !may || self.paused || self.call.is_some() {
            return None;
        }
        let status = self.next_update()?;
        let call = Call::Update(status.uuid.clone().unwrap_or_default());
        let effect = HttpEffect::Call(self.calls.update(status));
        self.call = Some(call);
        Some(effect)
    }

    fn next_update(&self) -> Option<&TaskStatus> {
        self.ledger
            .updates()
            .iter()
            .find(|status| status.uuid.as_ref().is_some_and(|uuid| !self.taken.contains(uuid)))
    }

    fn heartbeat(&mut self) -> Vec<HttpEffect> {
        if !self.heartbeats || self.call.is_some() || self.phase != (Phase::Open { heard: true }) {
            return Vec::new();
        }
        self.call = Some(Call::Heartbeat);
        vec![HttpEffect::Call(self.calls.heartbeat())]
    }

    fn news(&mut self, news: News) -> Vec<HttpEffect> {
        match news {
            News::Record(record) => self.record(&record),
            // Nothing is expected of it any more.
            _ if matches!(self.phase, Phase::Leaving | Phase::Gone) => Vec::new(),
            News::Opened => {
                self.phase = Phase::Open { heard: false };
                self.taken = std::mem::take(&mut self.told);
                Vec::new()
            }
            News::Refused(answer) => self.refused(&answer),
            News::Failed(why) => {
                tracing::debug!(why, "cannot subscribe");
                self.disconnected(false)
            }
            News::Garbage(what) => {
                let mut effects = vec![malformed(format!("the event stream is abandoned: {what}"))];
                effects.extend(self.lost(false));
                effects
            }
            // It has sent its last event.
            News::Ended { orderly: true } if self.shutdown => {
                self.phase = Phase::Leaving;
                Vec::new()
            }
            // At once in every case: what the agent sends meanwhile is lost.
            News::Ended { .. } => self.disconnected(matches!(self.phase, Phase::Open { heard: true })),
        }
    }

    /// The agent went away, as it seems.
    fn disconnected(&mut self, at_once: bool) -> Vec<HttpEffect> {
        if self.checkpoint {
            return self.lost(at_once);
        }
        if self.registered {
            // It may be there all the same, and then needs the ends of the tasks.
            self.phase = Phase::Leaving;
            return self.shut_down("the agent is gone and the framework does not checkpoint");
        }
        self.give_up("the agent is gone before it registered this executor")
    }

    /// There is no stream: the first time ever or again, a new one is asked for.
    fn lost(&mut self, at_once: bool) -> Vec<HttpEffect> {
        let mut effects = Vec::new();
        if !std::mem::replace(&mut self.recovering, true) {
            effects.push(HttpEffect::StartRecovery);
        }
        if at_once {
            effects.extend(self.subscribe());
        } else {
            self.phase = Phase::Waiting;
            effects.push(HttpEffect::RetryLater);
        }
        effects
    }

    fn refused(&mut self, answer: &CallAnswer) -> Vec<HttpEffect> {
        match answer.verdict() {
            Verdict::Again => self.lost(false),
            Verdict::Forgotten => {
                self.give_up(&format!("the agent no longer has this executor: {}", answer.text))
            }
            Verdict::Unsubscribed | Verdict::Forbidden | Verdict::Bad => {
                self.give_up(&format!("the agent refuses this executor: {answer}"))
            }
        }
    }

    fn answered(&mut self, answer: Result<CallAnswer, String>) -> Vec<HttpEffect> {
        let Some(call) = self.call.take() else { return Vec::new() };
        let taken = matches!(answer, Ok(CallAnswer { status: 200..=299, .. }));
        let uuid = match call {
            Call::Update(uuid) => uuid,
            Call::Heartbeat => {
                // A connection that broke says nothing about the agent's version.
                self.heartbeats = taken || answer.is_err();
                return Vec::new();
            }
        };
        // Acknowledged ahead of its answer: it is here no more.
        let pending = self.ledger.updates().iter().any(|status| status.uuid.as_ref() == Some(&uuid));
        let answer = match answer {
            _ if !pending => return Vec::new(),
            Ok(_) if taken => {
                self.taken.insert(uuid);
                return Vec::new();
            }
            Ok(answer) => answer,
            Err(_) if self.phase == Phase::Leaving => {
                self.phase = Phase::Gone;
                return Vec::new();
            }
            Err(why) => {
                tracing::debug!(why, "an update was not sent; it is sent later");
                return self.pause();
            }
        };
        match (answer.verdict(), self.phase) {
            (Verdict::Again, _) => self.pause(),
            // The next subscription carries it along.
            (Verdict::Unsubscribed, Phase::Open { .. }) => self.lost(true),
            (Verdict::Unsubscribed, Phase::Asking | Phase::Waiting) => self.pause(),
            (Verdict::Unsubscribed, _) => {
                self.phase = Phase::Gone;
                Vec::new()
            }
            (Verdict::Forgotten, _) => {
                self.give_up(&format!("the agent no longer has this executor: {}", answer.text))
            }
            (Verdict::Forbidden, _) => self.give_up(&format!("the agent refuses this executor: {answer}")),
            (Verdict::Bad, _) => {
                self.ledger.forget(&uuid);
                vec![malformed(format!("the agent did not accept an update: {answer}"))]
            }
        }
    }

    fn pause(&mut self) -> Vec<HttpEffect> {
        if self.phase == Phase::Gone {
            return Vec::new();
        }
        self.paused = true;
        vec![HttpEffect::RetryLater]
    }

    /// Nothing will come from this agent any more, and nothing is sent to it.
    fn give_up(&mut self, reason: &str) -> Vec<HttpEffect> {
        self.phase = Phase::Gone;
        self.shut_down(reason)
    }

    fn shut_down(&mut self, reason: &str) -> Vec<HttpEffect> {
        if std::mem::replace(&mut self.shutdown, true) {
            return Vec::new();
        }
        vec![HttpEffect::Emit(Event::Shutdown { reason: reason.to_owned() })]
    }

    fn record(&mut self, record: &Bytes) -> Vec<HttpEffect> {
        let said = match events::read(record) {
            Ok(said) => said,
            Err(what) => return vec![malformed(what)],
        };
        self.said(said).unwrap_or_else(|what| vec![malformed(what)])
    }

    fn said(&mut self, said: events::Said) -> Result<Vec<HttpEffect>, String> {
        use events::Said;
        let first = !self.registered;
        match said {
            Said::Subscribed(registered) => self.subscribed(*registered),
            Said::Launch(task) if first => Err(format!("task '{}' before the registration", task.task_id)),
            Said::Launch(task) => Ok(vec![HttpEffect::Emit(self.ledger.launch(*task)?)]),
            Said::LaunchGroup(_) if first => Err("a group of tasks before the registration".to_owned()),
            Said::LaunchGroup(tasks) => Ok(vec![HttpEffect::Emit(self.ledger.launch_group(tasks)?)]),
            Said::Acknowledged(task_id, uuid) => {
                self.taken.remove(&uuid);
                let event = self.ledger.acknowledge(&task_id, &uuid)?;
                Ok(event.map(HttpEffect::Emit).into_iter().collect())
            }
            Said::Shutdown => {
                if self.phase == (Phase::Open { heard: false }) {
                    // In place of SUBSCRIBED: what our SUBSCRIBE carried was not looked at.
                    self.taken.clear();
                    self.phase = Phase::Open { heard: true };
                }
                Ok(self.shut_down("the agent asked for it"))
            }
            Said::Heartbeat => Ok(vec![HttpEffect::ExpectHeartbeat]),
            Said::Error(message) => {
                tracing::warn!("the agent reports an error: {message}");
                Ok(Vec::new())
            }
            Said::Other(event) => Ok(vec![HttpEffect::Emit(event)]),
        }
    }

    fn subscribed(&mut self, registered: Event) -> Result<Vec<HttpEffect>, String> {
        match self.phase {
            Phase::Open { heard: false } => {}
            // A shutdown before the subscription was confirmed.
            Phase::Open { heard: true } if self.shutdown => {}
            _ => return Err("a second SUBSCRIBED".to_owned()),
        }
        self.phase = Phase::Open { heard: true };
        let mut effects = Vec::new();
        if std::mem::take(&mut self.recovering) {
            effects.push(HttpEffect::StopRecovery);
        }
        let again = std::mem::replace(&mut self.registered, true);
        effects.push(HttpEffect::Emit(if again { Event::Reregistered } else { registered }));
        Ok(effects)
    }
}

fn malformed(what: String) -> HttpEffect {
    HttpEffect::Emit(Event::Malformed { what })
}

/// What an answer other than success means.
enum Verdict {
    /// Not yet.
    Again,
    /// To be asked for a subscription first.
    Unsubscribed,
    /// The agent has no such framework or executor.
    Forgotten,
    /// The agent has this executor, and does not trust it.
    Forbidden,
    /// Our own fault.
    Bad,
}

/// How an agent's answer 400 ends for a framework or an executor that it does not know: "Executor cannot be found".
/// Other answers 400 are about the call.
const UNKNOWN: &str = "cannot be found";
/// How an agent's answer 403 ends for an executor without a subscription: "Executor is not subscribed". Other answers
/// 403 are about its token.
const UNSUBSCRIBED: &str = "not subscribed";

impl CallAnswer {
    fn verdict(&self) -> Verdict {
        match self.status {
            // The route is not there yet in an agent's first moments.
            404 | 500 | 502..=599 => Verdict::Again,
            400 if self.text.contains(UNKNOWN) => Verdict::Forgotten,
            403 if self.text.contains(UNSUBSCRIBED) => Verdict::Unsubscribed,
            401 | 403 => Verdict::Forbidden,
            _ => Verdict::Bad,
        }
    }
}

impl std::fmt::Display for CallAnswer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.status, self.text)
    }
}

#[cfg(test)]
mod tests;
