//! What the agent makes of a call: whose it is, whether it may, what it changes.

use tokio::sync::mpsc;

use super::{ApiReply, Asked};
use crate::mesos::messages::call::{Subscribe, Type};
use crate::mesos::messages::event;
use crate::mesos::messages::{Call, Event, Message as _, StatusUpdate, TaskStatus};
use crate::rig::agent::executor::{ExecutorLink, ExecutorPhase};
use crate::rig::agent::history::Direction;
use crate::rig::agent::hub::Hub;
use crate::rig::agent::recovery::Recovery;
use crate::rig::agent::to_executor::AgentMessage;

impl Hub {
    pub(in crate::rig::agent) fn asked(&mut self, asked: Asked) {
        let Asked { call, token, reply } = asked;
        let name = format!("Call.{}", call.r#type().as_str_name());
        self.note(Direction::FromExecutor, &name, &call.encode_to_vec());
        // The caller may have hung up.
        let _ = reply.send(self.call(call, token.as_deref()));
    }

    /// In a real agent's order: recovery, heartbeats, ids, claims, subscription.
    fn call(&mut self, call: Call, token: Option<&str>) -> ApiReply {
        let kind = call.r#type();
        let early = match self.recovery {
            Recovery::Containers => true,
            Recovery::Executors => kind != Type::Subscribe && kind != Type::Heartbeat,
            Recovery::Done => false,
        };
        if early {
            return ApiReply::refused(503, "Agent has not finished recovery");
        }
        let authenticate = self.options.authenticate_http_executors;
        if authenticate && token.is_none() {
            return ApiReply::refused(401, "");
        }
        if kind == Type::Heartbeat {
            return ApiReply::Accepted;
        }
        let gone = self.torn_down && !self.executors.values().any(|executor| executor.is_alive());
        if call.framework_id.value != self.options.framework_id || gone {
            return ApiReply::refused(400, "Framework cannot be found");
        }
        let id = call.executor_id.value.as_str();
        let Some(executor) = self.executors.get(id) else {
            return ApiReply::refused(400, "Executor cannot be found");
        };
        if authenticate && executor.token.as_deref() != token {
            return ApiReply::refused(403, "");
        }
        match (kind, executor.phase) {
            (Type::Subscribe, _) => self.subscribe(id, call.subscribe.unwrap_or_default()),
            (_, ExecutorPhase::Registering | ExecutorPhase::Recovering) => {
                ApiReply::refused(403, "Executor is not subscribed")
            }
            (Type::Update, _) => {
                if let Some(update) = call.update {
                    self.update(id, update.status);
                }
                ApiReply::Accepted
            }
            (Type::Message, _) => ApiReply::Accepted,
            _ => ApiReply::refused(501, ""),
        }
    }

    fn subscribe(&mut self, id: &str, subscribe: Subscribe) -> ApiReply {
        let (sender, records) = mpsc::unbounded_channel();
        let stream = ApiReply::Stream { records, heartbeat: self.options.heartbeat };
        let torn_down = self.torn_down;
        let Some(executor) = self.executors.get_mut(id) else { return stream };
        if torn_down || matches!(executor.phase, ExecutorPhase::Terminating | ExecutorPhase::Terminated) {
            self.shared.problem(format!("executor '{id}' subscribes although it is to end"));
            let shutdown = Event { r#type: Some(event::Type::Shutdown.into()), ..Event::default() };
            // Its only event; with the sender the stream ends.
            let _ = sender.send(shutdown.encode_to_vec());
            return stream;
        }
        // An older stream ends with this.
        executor.link = Some(ExecutorLink::Stream(sender));
        let recovered =
            std::mem::replace(&mut executor.phase, ExecutorPhase::Running) != ExecutorPhase::Registering;
        let queued = std::mem::take(&mut executor.queued);
        let never_used = !executor.used && queued.is_empty();
        let marker = executor.meta.join("pids/http.marker");
        if self.options.checkpoint {
            self.checkpoint(&marker, b"");
        }
        for update in subscribe.unacknowledged_updates {
            self.update(id, update.status);
        }
        let known = subscribe.unacknowledged_tasks.iter().map(|task| task.task_id.value.as_str());
        let known = known.chain(queued.iter().flat_map(|queued| queued.ids())).collect();
        self.drop_unknown(id, &known);
        if never_used {
            // All its tasks were killed meanwhile.
            self.shut_down(id);
            return stream;
        }
        self.send_to_executor(
            id,
            if recovered { AgentMessage::Reregistered } else { AgentMessage::Registered },
        );
        for queued in queued {
            self.hand_over(id, queued);
        }
        stream
    }

    fn update(&mut self, id: &str, mut status: TaskStatus) {
        if self.torn_down {
            return;
        }
        let own = self.options.slave_id.as_str();
        let task = status.task_id.value.clone();
        if status.slave_id.as_ref().is_some_and(|other| other.value != own) {
            return self.shared.problem(format!("update for task '{task}' ignored: agent id mismatch"));
        }
        status.slave_id = Some(own.into());
        let Some(uuid) = status.uuid.clone() else { return };
        let known = self.executors.get(id).is_some_and(|executor| executor.tasks.contains_key(&task));
        self.take(StatusUpdate {
            framework_id: self.options.framework_id.as_str().into(),
            executor_id: Some(id.into()),
            slave_id: status.slave_id.clone(),
            timestamp: status.timestamp.unwrap_or_default(),
            uuid: Some(uuid.clone()),
            status,
            latest_state: None,
        });
        // For an unknown task there is never an acknowledgement.
        if known {
            self.send_to_executor(id, AgentMessage::Acknowledge { task, uuid });
        }
    }
}
