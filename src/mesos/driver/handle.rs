//! What an executor holds of its connection to the agent; the same for both versions of the protocol.

use std::time::{Duration, SystemTime};

use tokio::sync::{mpsc, oneshot};
use uuid::Uuid;

use crate::mesos::libprocess::Upid;
use crate::mesos::messages::{TaskState, TaskStatus};

/// The handle: cheap to clone; the connection ends when the last one is dropped.
#[derive(Debug, Clone)]
pub struct Driver {
    commands: mpsc::UnboundedSender<DriverCommand>,
    pid: Option<Upid>,
}

/// What a handle asks of the task behind it.
pub(in crate::mesos) enum DriverCommand {
    /// With uuid and time; the rest is the protocol's.
    Update(Box<TaskStatus>),
    /// Answered as soon as it is known whether everything was acknowledged.
    Drained(oneshot::Sender<bool>),
}

impl Driver {
    pub(in crate::mesos) fn new(commands: mpsc::UnboundedSender<DriverCommand>, pid: Option<Upid>) -> Self {
        Self { commands, pid }
    }

    /// A driver without an agent, which acknowledges every update.
    #[cfg(test)]
    pub(crate) fn recorded() -> (Self, mpsc::UnboundedReceiver<TaskStatus>) {
        let (commands, mut queue) = mpsc::unbounded_channel();
        let (record, recorded) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            while let Some(command) = queue.recv().await {
                match command {
                    DriverCommand::Update(status) => drop(record.send(*status)),
                    DriverCommand::Drained(answer) => drop(answer.send(true)),
                }
            }
        });
        (Self::new(commands, None), recorded)
    }

    /// Queues a status for the agent, with uuid and time filled in, and the other fields that the agent requires.
    ///
    /// Nothing is sent for a task whose terminal update has been queued already: an agent would
    /// retry such an update for ever.
    pub fn update(&self, mut status: TaskStatus) -> Uuid {
        let uuid = Uuid::new_v4();
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        status.uuid = Some(uuid.as_bytes().to_vec());
        status.timestamp = Some(now.as_secs_f64());
        let _ = self.commands.send(DriverCommand::Update(Box::new(status)));
        uuid
    }

    /// Waits until every update queued so far is acknowledged; false after `limit`, or at once when
    /// the agent is gone for good.
    pub async fn drained(&self, limit: Duration) -> bool {
        let (answer, drained) = oneshot::channel();
        let _ = self.commands.send(DriverCommand::Drained(answer));
        matches!(tokio::time::timeout(limit, drained).await, Ok(Ok(true)))
    }

    /// The address under which an agent reaches the executor; none with version 1, where we only call.
    pub fn pid(&self) -> Option<&Upid> {
        self.pid.as_ref()
    }
}

/// Those who wait for the last acknowledgement.
#[derive(Default)]
pub(in crate::mesos) struct Drains(Vec<oneshot::Sender<bool>>);

impl Drains {
    pub fn push(&mut self, answer: oneshot::Sender<bool>) {
        self.0.push(answer);
    }

    /// `None` while the answer is open.
    pub fn answer(&mut self, drained: Option<bool>) {
        if let Some(drained) = drained {
            for answer in self.0.drain(..) {
                // The caller has stopped waiting.
                let _ = answer.send(drained);
            }
        }
    }
}

/// Whether a status ends its task.
pub fn is_terminal(status: &TaskStatus) -> bool {
    TaskState::try_from(status.state).is_ok_and(TaskState::is_terminal)
}
