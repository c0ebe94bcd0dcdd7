//! A TaskInfo: parameters, variables, volumes, health checks and all the rest, held against an operator's limits.
#![no_main]

use std::path::Path;

use calico_mesos::config::Config;
use calico_mesos::mesos::flags::Flags;
use calico_mesos::mesos::messages::{ExecutorInfo, Message, TaskInfo};
use calico_mesos::names::ContainerId;
use calico_mesos::task::request::{describe, describe_custom, Custom};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Ok(task) = TaskInfo::decode(data) else { return };
    let words = ["x", "--container=mesos-1087382a-40ba-4fa3-9eda-41fed69a9a91", "--sandbox_directory=/sandbox"];
    let flags = Flags::parse(words).expect("the agent's own words");
    let container = ContainerId::random();
    let executor = ExecutorInfo::default();
    let custom = Custom {
        executor: &executor,
        arguments: &[],
        sandbox: Path::new("/sandbox"),
        container: &container,
    };
    for described in [describe(&task, &flags, Some(1 << 30)), describe_custom(&task, &custom, None)] {
        match described.and_then(|description| description.within(&Config::default())) {
            Ok(description) if description.calico.is_some() => {
                assert!(description.container().is_none_or(|container| container.network == "none"));
            }
            Ok(_) => {}
            Err(failure) => assert!(!failure.message.contains(char::is_control), "{failure}"),
        }
    }
});
