//! The calls of an executor (pure).

use crate::mesos::messages::call::{Subscribe, Type, Update};
use crate::mesos::messages::task_status::Source;
use crate::mesos::messages::{Call, ExecutorId, FrameworkId, Message as _, TaskInfo, TaskStatus};

/// Who we are to the agent.
#[derive(Debug, Clone)]
pub(super) struct SubscriberIdentity {
    pub framework_id: FrameworkId,
    pub executor_id: ExecutorId,
}

/// Makes calls of one executor.
#[derive(Debug)]
pub(super) struct Calls(pub SubscriberIdentity);

impl Calls {
    pub fn subscribe(&self, tasks: &[TaskInfo], updates: &[TaskStatus]) -> Vec<u8> {
        let updates = updates.iter().map(|status| Update { status: status.clone() });
        let subscribe =
            Subscribe { unacknowledged_tasks: tasks.to_vec(), unacknowledged_updates: updates.collect() };
        // An empty one too: it has to be there.
        Call { subscribe: Some(subscribe), ..self.call(Type::Subscribe) }.encode_to_vec()
    }

    pub fn update(&self, status: &TaskStatus) -> Vec<u8> {
        let update = Update { status: status.clone() };
        Call { update: Some(update), ..self.call(Type::Update) }.encode_to_vec()
    }

    pub fn heartbeat(&self) -> Vec<u8> {
        self.call(Type::Heartbeat).encode_to_vec()
    }

    /// A status with all that an agent insists on. Its own id it fills in itself.
    pub fn complete(&self, status: TaskStatus) -> TaskStatus {
        TaskStatus {
            source: Some(Source::Executor.into()),
            executor_id: Some(self.0.executor_id.clone()),
            slave_id: None,
            ..status
        }
    }

    fn call(&self, kind: Type) -> Call {
        Call {
            executor_id: self.0.executor_id.clone(),
            framework_id: self.0.framework_id.clone(),
            r#type: Some(kind.into()),
            ..Call::default()
        }
    }
}
