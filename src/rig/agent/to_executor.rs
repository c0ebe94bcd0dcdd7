//! The messages of an agent to an executor, in the version of the API that the executor speaks.

use std::time::Instant;

use super::executor::ExecutorLink;
use super::history::{Direction, HistoryRecord};
use super::hub::Hub;
use crate::mesos::messages::event::{self, Type};
use crate::mesos::messages::{
    Event, ExecutorRegisteredMessage, ExecutorReregisteredMessage, FrameworkToExecutorMessage, KillPolicy,
    KillTaskMessage, Message as _, RunTaskMessage, ShutdownExecutorMessage,
    StatusUpdateAcknowledgementMessage, TaskGroupInfo, TaskInfo,
};

/// A scheduler that speaks HTTP has no address of the older kind.
const SCHEDULER: &str = "@0.0.0.0:0";

#[derive(Debug)]
pub(super) enum AgentMessage {
    Registered,
    Reregistered,
    Run(Box<TaskInfo>),
    /// Several at once; an executor of version 0 gets them one by one.
    RunGroup(Vec<TaskInfo>),
    Kill {
        task: String,
        policy: Option<KillPolicy>,
    },
    Acknowledge {
        task: String,
        uuid: Vec<u8>,
    },
    Message(Vec<u8>),
    Shutdown,
}

impl Hub {
    /// Lost when the executor has no link, as with a real agent.
    pub(super) fn send_to_executor(&self, executor: &str, message: AgentMessage) {
        let link = self.executors.get(executor).and_then(|executor| executor.link.as_ref());
        match link {
            None => {}
            Some(ExecutorLink::Actor(_)) => self.send_by_libprocess(executor, message),
            Some(ExecutorLink::Stream(stream)) => {
                let Some(event) = self.as_event(executor, message) else { return };
                let body = event.encode_to_vec();
                self.note(Direction::ToExecutor, &format!("Event.{}", event.r#type().as_str_name()), &body);
                // The connection may have ended a moment ago.
                let _ = stream.send(body);
            }
        }
    }

    /// What came or went over HTTP, under the name it has in Mesos.
    pub(super) fn note(&self, direction: Direction, name: &str, body: &[u8]) {
        let name = format!("mesos.v1.executor.{name}");
        self.shared.record(HistoryRecord {
            at: Instant::now(),
            direction,
            name,
            body: body.to_vec(),
            wire: Vec::new(),
        });
    }

    fn send_by_libprocess(&self, executor: &str, message: AgentMessage) {
        let options = &self.options;
        let (slave_id, framework_id) =
            (options.slave_id.as_str().into(), options.framework_id.as_str().into());
        match message {
            AgentMessage::Registered => {
                let Some(info) = self.executors.get(executor).map(|executor| executor.info.clone()) else {
                    return;
                };
                self.send(
                    executor,
                    &ExecutorRegisteredMessage {
                        executor_info: info,
                        framework_id,
                        framework_info: options.framework_info(),
                        slave_id,
                        slave_info: options.slave_info(self.pid.address.port()),
                    },
                );
            }
            AgentMessage::Reregistered => {
                let slave_info = options.slave_info(self.pid.address.port());
                self.send(executor, &ExecutorReregisteredMessage { slave_id, slave_info });
            }
            AgentMessage::Run(task) => {
                let framework = options.framework_info();
                let pid = Some(SCHEDULER.into());
                self.send(
                    executor,
                    &RunTaskMessage { framework, pid, task: *task, ..RunTaskMessage::default() },
                );
            }
            AgentMessage::RunGroup(tasks) => {
                for task in tasks {
                    self.send_by_libprocess(executor, AgentMessage::Run(Box::new(task)));
                }
            }
            AgentMessage::Kill { task, policy } => self
                .send(executor, &KillTaskMessage { framework_id, task_id: task.into(), kill_policy: policy }),
            AgentMessage::Acknowledge { task, uuid } => self.send(
                executor,
                &StatusUpdateAcknowledgementMessage { slave_id, framework_id, task_id: task.into(), uuid },
            ),
            AgentMessage::Message(data) => self.send(
                executor,
                &FrameworkToExecutorMessage { slave_id, framework_id, executor_id: executor.into(), data },
            ),
            AgentMessage::Shutdown => self.send(executor, &ShutdownExecutorMessage::default()),
        }
    }

    fn as_event(&self, executor: &str, message: AgentMessage) -> Option<Event> {
        let bare = |kind: Type| Event { r#type: Some(kind.into()), ..Event::default() };
        Some(match message {
            AgentMessage::Registered | AgentMessage::Reregistered => {
                let known = self.executors.get(executor)?;
                let subscribed = event::Subscribed {
                    executor_info: known.info.clone(),
                    framework_info: self.options.framework_info(),
                    agent_info: self.options.slave_info(self.pid.address.port()),
                    container_id: Some(known.container_id()),
                };
                Event { subscribed: Some(subscribed), ..bare(Type::Subscribed) }
            }
            AgentMessage::Run(task) => {
                Event { launch: Some(event::Launch { task: *task }), ..bare(Type::Launch) }
            }
            AgentMessage::RunGroup(tasks) => {
                let task_group = TaskGroupInfo { tasks };
                Event { launch_group: Some(event::LaunchGroup { task_group }), ..bare(Type::LaunchGroup) }
            }
            AgentMessage::Kill { task, policy } => {
                let kill = event::Kill { task_id: task.into(), kill_policy: policy };
                Event { kill: Some(kill), ..bare(Type::Kill) }
            }
            AgentMessage::Acknowledge { task, uuid } => {
                let acknowledged = event::Acknowledged { task_id: task.into(), uuid };
                Event { acknowledged: Some(acknowledged), ..bare(Type::Acknowledged) }
            }
            AgentMessage::Message(data) => {
                Event { message: Some(event::Message { data }), ..bare(Type::Message) }
            }
            AgentMessage::Shutdown => bare(Type::Shutdown),
        })
    }
}
