//! What the protocol demands (pure): inputs in, effects out, no sockets and no clocks.
//!
//! Kept for a re-registration: every update without acknowledgement, in order, and every task of
//! which no update has been acknowledged yet.

use std::collections::BTreeSet;

use uuid::Uuid;

use super::{is_terminal, Event};
use crate::mesos::libprocess::{Incoming, Upid};
use crate::mesos::messages::{
    ExecutorId, ExecutorRegisteredMessage, ExecutorReregisteredMessage, FrameworkId,
    FrameworkToExecutorMessage, KillPolicy, KillTaskMessage, ReconnectExecutorMessage,
    RegisterExecutorMessage, ReregisterExecutorMessage, RunTaskMessage, ShutdownExecutorMessage, SlaveId,
    StatusUpdate, StatusUpdateAcknowledgementMessage, StatusUpdateMessage, TaskInfo, Wire,
};

/// Who we are to the agent.
#[derive(Debug, Clone)]
pub struct Identity {
    pub framework_id: FrameworkId,
    pub executor_id: ExecutorId,
    pub slave_id: SlaveId,
    pub pid: Upid,
}

/// What can happen.
#[derive(Debug, Clone)]
pub enum Input {
    Message(Incoming),
    /// The newest link has ended (the end of an older one is no news).
    LinkEnded,
    RecoveryTimeout,
    Update(Box<StatusUpdate>),
}

/// What is to be done, in this order.
#[derive(Debug, Clone, PartialEq)]
pub enum Effect {
    Send {
        name: &'static str,
        body: Vec<u8>,
    },
    /// A new connection, even if the old one seems alive; what is sent next goes there.
    Relink(Upid),
    StartTimer,
    StopTimer,
    Emit(Event),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Agent {
    Present,
    /// Its link has ended; it may come back.
    Waiting,
    /// It will not come back for us.
    Gone,
}

#[derive(Debug)]
pub struct State {
    identity: Identity,
    checkpoint: bool,
    agent: Agent,
    registered: bool,
    shutdown: bool,
    known: BTreeSet<String>,
    finished: BTreeSet<String>,
    tasks: Vec<TaskInfo>,
    updates: Vec<StatusUpdate>,
}

fn send<M: Wire>(message: &M) -> Effect {
    Effect::Send { name: M::NAME, body: message.encode_to_vec() }
}

impl State {
    pub fn new(identity: Identity, checkpoint: bool) -> Self {
        Self {
            identity,
            checkpoint,
            agent: Agent::Present,
            registered: false,
            shutdown: false,
            known: BTreeSet::new(),
            finished: BTreeSet::new(),
            tasks: Vec::new(),
            updates: Vec::new(),
        }
    }

    /// The first message of all.
    pub fn register(&self) -> Vec<Effect> {
        vec![send(&RegisterExecutorMessage {
            framework_id: self.identity.framework_id.clone(),
            executor_id: self.identity.executor_id.clone(),
        })]
    }

    /// Whether everything is acknowledged; `None` while that can still change.
    pub fn drained(&self) -> Option<bool> {
        match (self.updates.is_empty(), self.agent) {
            (true, _) => Some(true),
            (false, Agent::Gone) => Some(false),
            (false, _) => None,
        }
    }

    pub fn handle(&mut self, input: Input) -> Vec<Effect> {
        match input {
            Input::Message(message) => self.message(&message),
            Input::LinkEnded => self.link_ended(),
            Input::RecoveryTimeout if self.agent == Agent::Waiting => {
                self.agent = Agent::Gone;
                self.shut_down("the agent did not come back within its recovery timeout")
            }
            Input::RecoveryTimeout => Vec::new(),
            Input::Update(update) => self.update(*update),
        }
    }

    fn update(&mut self, update: StatusUpdate) -> Vec<Effect> {
        let task = &update.status.task_id.value;
        if self.finished.contains(task) {
            tracing::warn!(task, "an update behind the terminal one is not sent");
            return Vec::new();
        }
        if is_terminal(&update.status) {
            self.finished.insert(task.clone());
        }
        self.updates.push(update.clone());
        vec![send(&StatusUpdateMessage { update, pid: Some(self.identity.pid.to_string()) })]
    }

    fn link_ended(&mut self) -> Vec<Effect> {
        match self.agent {
            Agent::Gone => Vec::new(),
            // Between Reconnect and its answer: the timer of the first loss goes on.
            Agent::Waiting => Vec::new(),
            Agent::Present if self.checkpoint && self.registered => {
                self.agent = Agent::Waiting;
                vec![Effect::StartTimer]
            }
            Agent::Present => {
                self.agent = Agent::Gone;
                let why = if self.registered {
                    "the agent is gone and the framework does not checkpoint"
                } else {
                    "the agent is gone before it registered this executor"
                };
                self.shut_down(why)
            }
        }
    }

    fn shut_down(&mut self, reason: &str) -> Vec<Effect> {
        if std::mem::replace(&mut self.shutdown, true) {
            return Vec::new();
        }
        vec![Effect::Emit(Event::Shutdown { reason: reason.to_owned() })]
    }

    fn message(&mut self, message: &Incoming) -> Vec<Effect> {
        let handled = match message.name.as_str() {
            ExecutorRegisteredMessage::NAME => decode(message).and_then(|body| self.registered(body)),
            ExecutorReregisteredMessage::NAME => {
                decode(message).map(|_: ExecutorReregisteredMessage| self.reregistered())
            }
            ReconnectExecutorMessage::NAME => {
                decode(message).and_then(|_: ReconnectExecutorMessage| self.reconnect(message.from.as_ref()))
            }
            RunTaskMessage::NAME => decode(message).and_then(|body| self.run_task(body)),
            KillTaskMessage::NAME => decode(message).and_then(kill),
            StatusUpdateAcknowledgementMessage::NAME => {
                decode(message).and_then(|body| self.acknowledged(&body))
            }
            ShutdownExecutorMessage::NAME => {
                decode(message).map(|_: ShutdownExecutorMessage| self.shut_down("the agent asked for it"))
            }
            FrameworkToExecutorMessage::NAME => decode(message)
                .map(|body: FrameworkToExecutorMessage| vec![Effect::Emit(Event::Message(body.data))]),
            other => Err(format!("unknown message '{other}'")),
        };
        handled.unwrap_or_else(|what| vec![Effect::Emit(Event::Malformed { what })])
    }

    fn registered(&mut self, message: ExecutorRegisteredMessage) -> Result<Vec<Effect>, String> {
        if std::mem::replace(&mut self.registered, true) {
            return Err("a second registration".to_owned());
        }
        Ok(vec![Effect::Emit(Event::Registered {
            executor: Box::new(message.executor_info),
            framework: Box::new(message.framework_info),
            agent: Box::new(message.slave_info),
            container: None,
        })])
    }

    fn reregistered(&mut self) -> Vec<Effect> {
        if self.agent == Agent::Gone {
            return Vec::new();
        }
        self.registered = true;
        self.agent = Agent::Present;
        vec![Effect::StopTimer, Effect::Emit(Event::Reregistered)]
    }

    fn reconnect(&mut self, from: Option<&Upid>) -> Result<Vec<Effect>, String> {
        let agent = from.ok_or("a ReconnectExecutorMessage without a sender")?.clone();
        if self.agent == Agent::Gone {
            return Ok(Vec::new());
        }
        let mut effects = Vec::new();
        // An agent that came back before we saw it go: from here on its silence must end.
        if self.agent == Agent::Present {
            self.agent = Agent::Waiting;
            effects.push(Effect::StartTimer);
        }
        effects.push(Effect::Relink(agent));
        effects.push(send(&ReregisterExecutorMessage {
            executor_id: self.identity.executor_id.clone(),
            framework_id: self.identity.framework_id.clone(),
            tasks: self.tasks.clone(),
            updates: self.updates.clone(),
        }));
        Ok(effects)
    }

    fn run_task(&mut self, message: RunTaskMessage) -> Result<Vec<Effect>, String> {
        let task = message.task;
        if !self.registered {
            return Err(format!("task '{}' before the registration", task.task_id));
        }
        if task.task_id.value.is_empty() {
            return Err("a RunTaskMessage without a task id".to_owned());
        }
        if !self.known.insert(task.task_id.value.clone()) {
            return Err(format!("task '{}' for the second time", task.task_id));
        }
        self.tasks.push(task.clone());
        Ok(vec![Effect::Emit(Event::Launch(Box::new(task)))])
    }

    /// Taken at any time: an acknowledgement that arrives ahead of the ExecutorReregisteredMessage
    /// is as good as one behind it.
    fn acknowledged(&mut self, message: &StatusUpdateAcknowledgementMessage) -> Result<Vec<Effect>, String> {
        let uuid = Uuid::from_slice(&message.uuid)
            .map_err(|_| format!("an acknowledgement for task '{}' without a valid uuid", message.task_id))?;
        let before = self.updates.len();
        self.updates.retain(|update| update.uuid.as_deref() != Some(message.uuid.as_slice()));
        if self.updates.len() == before {
            return Ok(Vec::new());
        }
        self.tasks.retain(|task| task.task_id != message.task_id);
        let task_id = message.task_id.value.clone();
        Ok(vec![Effect::Emit(Event::Acknowledged { task_id, uuid })])
    }
}

fn kill(message: KillTaskMessage) -> Result<Vec<Effect>, String> {
    if message.task_id.value.is_empty() {
        return Err("a KillTaskMessage without a task id".to_owned());
    }
    let grace = message.kill_policy.as_ref().and_then(KillPolicy::grace);
    Ok(vec![Effect::Emit(Event::Kill { task_id: message.task_id.value, grace })])
}

fn decode<M: Wire>(message: &Incoming) -> Result<M, String> {
    M::decode(message.body.as_slice()).map_err(|error| format!("a {} that does not parse: {error}", M::NAME))
}

#[cfg(test)]
mod tests;
