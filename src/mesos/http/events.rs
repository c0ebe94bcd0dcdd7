//! The events of an agent (pure): from a record to an input of the state, or to the reason why it is ignored.

use crate::mesos::driver::{ledger, Event};
use crate::mesos::messages::event::Type;
use crate::mesos::messages::{self, Message as _, TaskId, TaskInfo};

/// One event, its payload there.
#[derive(Debug)]
pub(super) enum Said {
    /// With the event of a first registration.
    Subscribed(Box<Event>),
    Launch(Box<TaskInfo>),
    LaunchGroup(Vec<TaskInfo>),
    Acknowledged(TaskId, Vec<u8>),
    Shutdown,
    Heartbeat,
    Error(String),
    /// What is handed on as it is.
    Other(Event),
}

pub(super) fn read(record: &[u8]) -> Result<Said, String> {
    let event =
        messages::Event::decode(record).map_err(|error| format!("an event that does not parse: {error}"))?;
    let number = event.r#type.unwrap_or_default();
    let kind = Type::try_from(number).unwrap_or(Type::Unknown);
    let bare = || format!("a {} without its content", kind.as_str_name());
    match kind {
        Type::Subscribed => {
            let subscribed = event.subscribed.ok_or_else(bare)?;
            Ok(Said::Subscribed(Box::new(Event::Registered {
                executor: Box::new(subscribed.executor_info),
                framework: Box::new(subscribed.framework_info),
                agent: Box::new(subscribed.agent_info),
                container: subscribed.container_id.map(|id| id.value),
            })))
        }
        Type::Launch => Ok(Said::Launch(Box::new(event.launch.ok_or_else(bare)?.task))),
        Type::LaunchGroup => Ok(Said::LaunchGroup(event.launch_group.ok_or_else(bare)?.task_group.tasks)),
        Type::Kill => {
            let kill = event.kill.ok_or_else(bare)?;
            Ok(Said::Other(ledger::kill(kill.task_id, kill.kill_policy.as_ref())?))
        }
        Type::Acknowledged => {
            let acknowledged = event.acknowledged.ok_or_else(bare)?;
            Ok(Said::Acknowledged(acknowledged.task_id, acknowledged.uuid))
        }
        Type::Message => Ok(Said::Other(Event::Message(event.message.ok_or_else(bare)?.data))),
        Type::Error => Ok(Said::Error(event.error.map(|error| error.message).unwrap_or_default())),
        Type::Shutdown => Ok(Said::Shutdown),
        Type::Heartbeat => Ok(Said::Heartbeat),
        Type::Unknown => Err(format!("an event of unknown type {number}")),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::mesos::messages::event;
    use crate::mesos::tests::{mangled, task};

    fn launch() -> Vec<u8> {
        let launch = Some(event::Launch { task: task() });
        messages::Event { r#type: Some(Type::Launch.into()), launch, ..Default::default() }.encode_to_vec()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]

        #[test]
        fn any_record_is_an_event_or_a_sentence(record in mangled(launch())) {
            if let Err(why) = read(&record) {
                prop_assert!(!why.is_empty() && why.len() < 300, "{}", why);
            }
        }
    }

    #[test]
    fn what_an_agent_says_is_understood() {
        let Ok(Said::Launch(read)) = read(&launch()) else { panic!("not understood") };
        assert_eq!(*read, task());
    }
}
