//! The executor's log in the sandbox: the first thing that an operator reads.

use std::collections::BTreeMap;

use calico_mesos::mesos::messages::{CommandInfo, TaskState};
use serde_json::Value;

use crate::custom::{environment, executor, task, CALICO};
use crate::gc::executor_dies;
use crate::world::{app, calico, tell_custom_executors, with, World, LIMIT};

/// Lines of the executor's own, each without level, time and process: what a task writes stands beside them.
fn own(log: &str) -> Vec<String> {
    let own = |line: &str| {
        let mut parts = line.splitn(4, ' ');
        let (level, time, pid) = (parts.next()?, parts.next()?, parts.next()?);
        let is_ours = level.len() == 5
            && level.starts_with(['I', 'W', 'E', 'D'])
            && time.len() == "03:56:22.302".len()
            && pid.bytes().all(|byte| byte.is_ascii_digit());
        is_ours.then(|| parts.next().unwrap_or_default().to_owned())
    };
    log.lines().filter_map(own).collect()
}

/// A task's lines, without its name.
fn of<'a>(lines: &'a [String], task: &str) -> Vec<&'a str> {
    let prefix = format!("{task}: ");
    lines.iter().filter_map(|line| line.strip_prefix(&prefix)).collect()
}

#[tokio::test]
async fn a_launch_reads_like_a_story() {
    let world = World::with(|stack| stack.consul = true, |_| ()).await;
    let task = world.running(&app("/web", "sleep 1000", with(calico(), "SERVICE_PORT", "80"))).await;
    world.registered("web-direct").await;
    task.kill().await;
    let log = task.log();
    let lines = own(&log);
    assert!(lines[0].starts_with("registered with agent "), "{log}");
    let story = of(&lines, &task.id);
    let [address] = task.addresses().try_into().unwrap();
    let pool = world.stack.pools[0];
    for begin in [
        format!("launching as container {} (Docker, Calico: auto, profile dev)", task.launched.container_id),
        format!("address {address} from pool {pool}, profile dev (new)"),
        "running after ".to_owned(),
        format!("Consul: web-direct {address}:80"),
        "stopping the task with a grace period of ".to_owned(),
        format!("taken down: {address} given back ("),
    ] {
        let found = story.iter().filter(|line| line.starts_with(&begin)).count();
        assert_eq!(found, 1, "'{begin}' in\n{log}");
    }
    let running = story.iter().find(|line| line.starts_with("running after ")).unwrap();
    let parts: String = running.chars().map(|c| if c.is_ascii_digit() { '9' } else { c }).collect();
    let mut parts = parts.clone();
    while parts.contains("99") {
        parts = parts.replace("99", "9");
    }
    assert_eq!(parts, "running after 9 ms (address 9, interface 9, gate 9, start 9)");
    no_line_twice(&lines, &log);
}

fn no_line_twice(lines: &[String], log: &str) {
    let mut seen: BTreeMap<&String, usize> = BTreeMap::new();
    for line in lines {
        *seen.entry(line).or_default() += 1;
    }
    assert!(seen.values().all(|count| *count == 1), "a line stands twice in\n{log}");
}

#[tokio::test]
async fn each_line_names_its_task_among_three() {
    let world = World::with(|stack| stack.consul = true, tell_custom_executors).await;
    let executor = executor(&[], &[]);
    let members: Vec<_> = (0..3)
        .map(|_| {
            let mut info = task(&executor);
            info.executor = None;
            info.command = Some(CommandInfo {
                value: Some("exec sleep 1000".into()),
                environment: Some(environment(&[&CALICO[..], &[("SERVICE_PORT", "80")]].concat())),
                ..Default::default()
            });
            info
        })
        .collect();
    let ids: Vec<String> = members.iter().map(|info| info.task_id.value.clone()).collect();
    let launched = world.agent.launch_group(executor.clone(), members).await.unwrap();
    for id in &ids {
        world.agent.wait_for(id, TaskState::TaskRunning, LIMIT).await.unwrap();
    }
    for id in &ids {
        world.agent.kill(id, None).await.unwrap();
    }
    world.agent.wait_exit(&ids[0], LIMIT).await.unwrap();
    let log = std::fs::read_to_string(launched.sandbox.join("stderr")).unwrap();
    let lines = own(&log);
    let first = lines.iter().position(|line| line.contains(": launching as container ")).unwrap();
    let nameless: Vec<_> = lines[first..]
        .iter()
        .filter(|line| !ids.iter().any(|id| line.starts_with(&format!("{id}: "))))
        .collect();
    assert!(nameless.is_empty(), "{nameless:#?}\n{log}");
    for id in &ids {
        let story = of(&lines, id);
        for word in ["launching as container ", "running after ", "taken down: "] {
            assert_eq!(
                story.iter().filter(|line| line.starts_with(word)).count(),
                1,
                "{word} of {id}\n{log}"
            );
        }
    }
    no_line_twice(&lines, &log);
    world.nothing_left().await;
}

/// From the launch to the end no line is without a task, at any level: lines about the executor name all its tasks.
#[tokio::test]
async fn lines_about_the_whole_executor_name_all_its_tasks() {
    let world = World::with(|_| (), tell_custom_executors).await;
    world.configure("log.level", "\"debug\"");
    let executor = executor(&[], &[]);
    let members: Vec<_> = (0..2)
        .map(|_| {
            let mut info = task(&executor);
            info.executor = None;
            info.command = Some(CommandInfo {
                value: Some("exec sleep 1000".into()),
                environment: Some(environment(&CALICO)),
                ..Default::default()
            });
            info
        })
        .collect();
    let mut ids: Vec<String> = members.iter().map(|info| info.task_id.value.clone()).collect();
    ids.sort();
    let launched = world.agent.launch_group(executor.clone(), members).await.unwrap();
    for id in &ids {
        world.agent.wait_for(id, TaskState::TaskRunning, LIMIT).await.unwrap();
    }
    world.agent.shutdown_executor(&ids[0]).await.unwrap();
    world.agent.wait_exit(&ids[0], LIMIT).await.unwrap();
    let log = std::fs::read_to_string(launched.sandbox.join("stderr")).unwrap();
    let lines = own(&log);
    let first = lines.iter().position(|line| line.contains(": launching as container ")).unwrap();
    let last = lines.iter().rposition(|line| line.contains("taken down: ")).unwrap();
    let named = |line: &&String| ids.iter().any(|id| line.starts_with(id.as_str()));
    let nameless: Vec<_> = lines[first..last].iter().filter(|line| !named(line)).collect();
    assert!(nameless.is_empty(), "{nameless:#?}\n{log}");
    let wanted = format!("{}: shutting down: ", ids.join(", "));
    assert!(lines.iter().any(|line| line.starts_with(&wanted)), "'{wanted}' in\n{log}");
    world.nothing_left().await;
}

/// With Consul away, the cleaner that an executor runs at its start cannot finish a dead executor's task.
#[tokio::test]
async fn a_cleaner_warns_once_of_what_it_could_not_do() {
    let world = World::with(|stack| stack.consul = true, |_| ()).await;
    let dead = world.running(&app("/dead", "sleep 1000", with(calico(), "SERVICE_PORT", "80"))).await;
    world.registered("dead-direct").await;
    executor_dies(&dead).await;
    world.configure("consul.address", "\"http://127.0.0.1:1\"");
    let next = world.running(&app("/next", "sleep 1000", calico())).await;
    next.logs("could not clean up after ", 1).await;
    let log = next.log();
    let about = |line: &&str| line.contains(&*dead.id) || line.contains("dead-direct");
    let warnings: Vec<_> = log.lines().filter(about).collect();
    let [warning] = warnings[..] else { panic!("{warnings:#?}\n{log}") };
    let words = format!("could not clean up after {}: consul: ", dead.id);
    assert!(warning.starts_with('W') && warning.contains(&words), "{warning}");

    // A command's table names it, and no warning beside it.
    let cleaned = world.gc();
    let table = String::from_utf8(cleaned.stdout).unwrap();
    let failed: Vec<_> = table.lines().filter(|line| line.starts_with("could not")).collect();
    assert!(
        cleaned.status.code() == Some(1) && failed.iter().any(|line| line.contains("consul: ")),
        "{table}"
    );
    assert_eq!(String::from_utf8(cleaned.stderr).unwrap(), "", "{table}");

    let address = format!("{:?}", world.stack.consul.as_ref().unwrap().url());
    world.configure("consul.address", &address);
    next.kill().await;
    assert!(world.gc().status.success());
    world.nothing_left().await;
}

#[tokio::test]
async fn an_object_a_line_where_the_operator_wants_it() {
    let world = World::new().await;
    world.configure("log.format", "\"json\"");
    world.configure("log.level", "\"debug\"");
    let task = world.running(&app("/web", "sleep 1000", calico())).await;
    task.kill().await;
    let text = std::fs::read_to_string(task.sandbox().join("stderr")).unwrap();
    let objects: Vec<Value> = text
        .lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}")))
        .collect();
    assert!(objects.iter().any(|object| object["level"] == "debug"), "{text}");
    let running = objects.iter().find(|it| it["message"].as_str().unwrap().starts_with("running after "));
    assert_eq!(running.unwrap()["task"], task.id.as_str());
    world.nothing_left().await;
}

#[tokio::test]
async fn the_operator_s_variable_counts_and_the_task_s_does_not() {
    let set = |agent: &mut calico_mesos::rig::agent::AgentOptions| {
        agent.executor_environment = [("GLOG_v".to_owned(), "1".to_owned())].into();
    };
    let world = World::with(|_| (), set).await;
    let debug = |log: &str| log.lines().any(|line| line.starts_with('D'));
    let task = world.running(&app("/web", "sleep 1000", calico())).await;
    task.kill().await;
    assert!(debug(&task.log()), "{}", task.log());
    let task = world.running(&app("/web", "sleep 1000", with(calico(), "GLOG_v", "3"))).await;
    task.kill().await;
    assert!(!debug(&task.log()), "{}", task.log());
    world.nothing_left().await;
}
