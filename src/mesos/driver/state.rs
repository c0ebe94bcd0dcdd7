//! What the protocol demands (pure): inputs in, effects out, no sockets and no clocks.

use super::ledger::{self, UpdateLedger};
use super::Event;
use crate::mesos::libprocess::{Incoming, Upid};
use crate::mesos::messages::{
    ExecutorId, ExecutorRegisteredMessage, ExecutorReregisteredMessage, FrameworkId,
    FrameworkToExecutorMessage, KillTaskMessage, ReconnectExecutorMessage, RegisterExecutorMessage,
    ReregisterExecutorMessage, RunTaskMessage, ShutdownExecutorMessage, SlaveId, StatusUpdate,
    StatusUpdateAcknowledgementMessage, StatusUpdateMessage, TaskStatus, Wire,
};

/// Who we are to the agent.
#[derive(Debug, Clone)]
pub struct ActorIdentity {
    pub framework_id: FrameworkId,
    pub executor_id: ExecutorId,
    pub slave_id: SlaveId,
    pub pid: Upid,
}

/// What can happen.
#[derive(Debug, Clone)]
pub enum DriverInput {
    Message(Incoming),
    /// The newest link has ended (the end of an older one is no news).
    LinkEnded,
    RecoveryTimeout,
    Update(Box<TaskStatus>),
}

/// What is to be done, in this order.
#[derive(Debug, Clone, PartialEq)]
pub enum DriverEffect {
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
pub struct DriverState {
    identity: ActorIdentity,
    checkpoint: bool,
    agent: Agent,
    registered: bool,
    shutdown: bool,
    ledger: UpdateLedger,
}

fn send<M: Wire>(message: &M) -> DriverEffect {
    DriverEffect::Send { name: M::NAME, body: message.encode_to_vec() }
}

impl DriverState {
    pub fn new(identity: ActorIdentity, checkpoint: bool) -> Self {
        Self {
            identity,
            checkpoint,
            agent: Agent::Present,
            registered: false,
            shutdown: false,
            ledger: UpdateLedger::default(),
        }
    }

    /// The first message of all.
    pub fn register(&self) -> Vec<DriverEffect> {
        vec![send(&RegisterExecutorMessage {
            framework_id: self.identity.framework_id.clone(),
            executor_id: self.identity.executor_id.clone(),
        })]
    }

    /// Whether everything is acknowledged; `None` while that can still change.
    pub fn drained(&self) -> Option<bool> {
        match (self.ledger.updates().is_empty(), self.agent) {
            (true, _) => Some(true),
            (false, Agent::Gone) => Some(false),
            (false, _) => None,
        }
    }

    pub fn handle(&mut self, input: DriverInput) -> Vec<DriverEffect> {
        match input {
            DriverInput::Message(message) => self.message(&message),
            DriverInput::LinkEnded => self.link_ended(),
            DriverInput::RecoveryTimeout if self.agent == Agent::Waiting => {
                self.agent = Agent::Gone;
                self.shut_down("the agent did not come back within its recovery timeout")
            }
            DriverInput::RecoveryTimeout => Vec::new(),
            DriverInput::Update(update) => self.update(*update),
        }
    }

    fn update(&mut self, mut status: TaskStatus) -> Vec<DriverEffect> {
        status.slave_id = Some(self.identity.slave_id.clone());
        let update = self.wrapped(&status);
        if !self.ledger.update(status) {
            return Vec::new();
        }
        vec![send(&StatusUpdateMessage { update, pid: Some(self.identity.pid.to_string()) })]
    }

    /// A status with what version 0 writes around it.
    fn wrapped(&self, status: &TaskStatus) -> StatusUpdate {
        StatusUpdate {
            framework_id: self.identity.framework_id.clone(),
            executor_id: Some(self.identity.executor_id.clone()),
            slave_id: Some(self.identity.slave_id.clone()),
            status: status.clone(),
            timestamp: status.timestamp.unwrap_or_default(),
            uuid: status.uuid.clone(),
            latest_state: None,
        }
    }

    fn link_ended(&mut self) -> Vec<DriverEffect> {
        match self.agent {
            Agent::Gone => Vec::new(),
            // Between Reconnect and its answer: the timer of the first loss goes on.
            Agent::Waiting => Vec::new(),
            Agent::Present if self.checkpoint && self.registered => {
                self.agent = Agent::Waiting;
                vec![DriverEffect::StartTimer]
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

    fn shut_down(&mut self, reason: &str) -> Vec<DriverEffect> {
        if std::mem::replace(&mut self.shutdown, true) {
            return Vec::new();
        }
        vec![DriverEffect::Emit(Event::Shutdown { reason: reason.to_owned() })]
    }

    fn message(&mut self, message: &Incoming) -> Vec<DriverEffect> {
        let handled = match message.name.as_str() {
            ExecutorRegisteredMessage::NAME => decode(message).and_then(|body| self.registered(body)),
            ExecutorReregisteredMessage::NAME => {
                decode(message).map(|_: ExecutorReregisteredMessage| self.reregistered())
            }
            ReconnectExecutorMessage::NAME => {
                decode(message).and_then(|_: ReconnectExecutorMessage| self.reconnect(message.from.as_ref()))
            }
            RunTaskMessage::NAME => decode(message).and_then(|body| self.run_task(body)),
            KillTaskMessage::NAME => decode(message)
                .and_then(|body: KillTaskMessage| ledger::kill(body.task_id, body.kill_policy.as_ref()))
                .map(|event| vec![DriverEffect::Emit(event)]),
            StatusUpdateAcknowledgementMessage::NAME => {
                decode(message).and_then(|body| self.acknowledged(&body))
            }
            ShutdownExecutorMessage::NAME => {
                decode(message).map(|_: ShutdownExecutorMessage| self.shut_down("the agent asked for it"))
            }
            FrameworkToExecutorMessage::NAME => decode(message)
                .map(|body: FrameworkToExecutorMessage| vec![DriverEffect::Emit(Event::Message(body.data))]),
            other => Err(format!("unknown message '{other}'")),
        };
        handled.unwrap_or_else(|what| vec![DriverEffect::Emit(Event::Malformed { what })])
    }

    fn registered(&mut self, message: ExecutorRegisteredMessage) -> Result<Vec<DriverEffect>, String> {
        if std::mem::replace(&mut self.registered, true) {
            return Err("a second registration".to_owned());
        }
        Ok(vec![DriverEffect::Emit(Event::Registered {
            executor: Box::new(message.executor_info),
            framework: Box::new(message.framework_info),
            agent: Box::new(message.slave_info),
            container: None,
        })])
    }

    fn reregistered(&mut self) -> Vec<DriverEffect> {
        if self.agent == Agent::Gone {
            return Vec::new();
        }
        self.registered = true;
        self.agent = Agent::Present;
        vec![DriverEffect::StopTimer, DriverEffect::Emit(Event::Reregistered)]
    }

    fn reconnect(&mut self, from: Option<&Upid>) -> Result<Vec<DriverEffect>, String> {
        let agent = from.ok_or("a ReconnectExecutorMessage without a sender")?.clone();
        if self.agent == Agent::Gone {
            return Ok(Vec::new());
        }
        let mut effects = Vec::new();
        // An agent that came back before we saw it go: from here on its silence must end.
        if self.agent == Agent::Present {
            self.agent = Agent::Waiting;
            effects.push(DriverEffect::StartTimer);
        }
        effects.push(DriverEffect::Relink(agent));
        effects.push(send(&ReregisterExecutorMessage {
            executor_id: self.identity.executor_id.clone(),
            framework_id: self.identity.framework_id.clone(),
            tasks: self.ledger.tasks().to_vec(),
            updates: self.ledger.updates().iter().map(|status| self.wrapped(status)).collect(),
        }));
        Ok(effects)
    }

    fn run_task(&mut self, message: RunTaskMessage) -> Result<Vec<DriverEffect>, String> {
        let task = message.task;
        if !self.registered {
            return Err(format!("task '{}' before the registration", task.task_id));
        }
        Ok(vec![DriverEffect::Emit(self.ledger.launch(task)?)])
    }

    /// Taken at any time: an acknowledgement that arrives ahead of the ExecutorReregisteredMessage
    /// is as good as one behind it.
    fn acknowledged(
        &mut self,
        message: &StatusUpdateAcknowledgementMessage,
    ) -> Result<Vec<DriverEffect>, String> {
        let event = self.ledger.acknowledge(&message.task_id, &message.uuid)?;
        Ok(event.map(DriverEffect::Emit).into_iter().collect())
    }
}

fn decode<M: Wire>(message: &Incoming) -> Result<M, String> {
    M::decode(message.body.as_slice()).map_err(|error| format!("a {} that does not parse: {error}", M::NAME))
}

#[cfg(test)]
mod tests;
