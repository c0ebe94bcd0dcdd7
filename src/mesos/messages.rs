//! The Mesos messages (generated), their names on the wire, and small conveniences.
//!
//! Enums are plain `i32` fields with typed accessors, so a value that a newer agent made up never
//! keeps a TaskInfo from being read. Unknown fields are dropped when decoding.

use std::fmt;
use std::time::Duration;

#[allow(clippy::doc_markdown, missing_docs, reason = "written by prost-build")]
mod generated {
    include!(concat!(env!("OUT_DIR"), "/mesos.rs"));
}
pub use generated::*;
/// Encoding and decoding, for modules that do not depend on the library behind it.
pub use prost::Message;

/// A message that travels on its own, with its name as it stands in the request's path.
pub trait Wire: prost::Message + Default {
    /// Full protobuf name, e.g. `mesos.internal.RunTaskMessage`.
    const NAME: &'static str;
}

macro_rules! wire {
    ($($message:ident),* $(,)?) => {
        $(impl Wire for $message {
            const NAME: &'static str = concat!("mesos.internal.", stringify!($message));
        })*
    };
}

wire!(
    RegisterExecutorMessage,
    ExecutorRegisteredMessage,
    RunTaskMessage,
    KillTaskMessage,
    StatusUpdateMessage,
    StatusUpdateAcknowledgementMessage,
    ReconnectExecutorMessage,
    ReregisterExecutorMessage,
    ExecutorReregisteredMessage,
    ShutdownExecutorMessage,
    FrameworkToExecutorMessage,
    ExecutorToFrameworkMessage,
);

macro_rules! ids {
    ($($id:ident),* $(,)?) => {
        $(
            impl From<&str> for $id {
                fn from(value: &str) -> Self {
                    Self { value: value.to_owned() }
                }
            }
            impl From<String> for $id {
                fn from(value: String) -> Self {
                    Self { value }
                }
            }
            impl fmt::Display for $id {
                fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                    f.write_str(&self.value)
                }
            }
        )*
    };
}

ids!(FrameworkId, ExecutorId, SlaveId, TaskId);

impl TaskState {
    /// Nothing may follow it.
    pub fn is_terminal(self) -> bool {
        use TaskState::*;
        matches!(
            self,
            TaskFinished
                | TaskFailed
                | TaskKilled
                | TaskLost
                | TaskError
                | TaskDropped
                | TaskGone
                | TaskGoneByOperator
        )
    }

    /// `RUNNING`, as people write it.
    pub fn short(self) -> &'static str {
        self.as_str_name().trim_start_matches("TASK_")
    }
}

impl TaskStatus {
    /// A bare status; the driver adds uuid, timestamp and agent.
    pub fn new(task: impl Into<TaskId>, state: TaskState) -> Self {
        Self { task_id: task.into(), state: state.into(), ..Self::default() }
    }

    pub fn with_message(mut self, message: impl Into<String>) -> Self {
        self.message = Some(message.into());
        self
    }
}

impl FrameworkInfo {
    /// Whether the framework announced that it understands this.
    pub fn has(&self, capability: framework_info::capability::Type) -> bool {
        self.capabilities.iter().any(|own| own.r#type == Some(capability.into()))
    }
}

impl DurationInfo {
    pub fn from_duration(duration: Duration) -> Self {
        Self { nanoseconds: i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX) }
    }

    /// `None` for a negative duration.
    pub fn to_duration(&self) -> Option<Duration> {
        u64::try_from(self.nanoseconds).ok().map(Duration::from_nanos)
    }
}

impl KillPolicy {
    /// The grace period; a negative one counts as zero.
    pub fn grace(&self) -> Option<Duration> {
        self.grace_period.as_ref().map(|grace| grace.to_duration().unwrap_or_default())
    }
}

impl Resource {
    pub fn scalar(name: &str, value: f64, role: Option<&str>) -> Self {
        Self {
            name: name.to_owned(),
            r#type: value::Type::Scalar.into(),
            scalar: Some(value::Scalar { value }),
            allocation_info: role.map(allocation),
            ..Self::default()
        }
    }

    pub fn ranges(name: &str, ranges: &[(u64, u64)], role: Option<&str>) -> Self {
        let range = ranges.iter().map(|&(begin, end)| value::Range { begin, end }).collect();
        Self {
            name: name.to_owned(),
            r#type: value::Type::Ranges.into(),
            ranges: Some(value::Ranges { range }),
            allocation_info: role.map(allocation),
            ..Self::default()
        }
    }
}

fn allocation(role: &str) -> resource::AllocationInfo {
    resource::AllocationInfo { role: Some(role.to_owned()) }
}
