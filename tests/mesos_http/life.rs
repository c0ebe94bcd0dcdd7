//! Whole lives of tasks between the driver and the embedded agent, in one process over loopback.

use std::time::Duration;

use calico_mesos::mesos::driver::Event;
use calico_mesos::mesos::messages::task_status::{Reason, Source};
use calico_mesos::mesos::messages::{CommandInfo, TaskState, TaskStatus};
use calico_mesos::rig::agent::{Agent, AgentError, AgentOptions};

use super::peer::{connect, environment, executor, next, task, Peer, SOON};

#[tokio::test]
async fn from_launch_to_kill() {
    let mut peer = Peer::running(|_, _| ()).await;
    peer.acknowledged("t.1", TaskState::TaskStarting).await;
    peer.acknowledged("t.1", TaskState::TaskRunning).await;
    peer.agent.message("t.1", b"hello".to_vec()).await.unwrap();
    assert_eq!(peer.event().await, Event::Message(b"hello".to_vec()));
    let grace = Some(Duration::from_millis(1500));
    peer.agent.kill("t.1", grace).await.unwrap();
    assert_eq!(peer.event().await, Event::Kill { task_id: "t.1".into(), grace });
    peer.acknowledged("t.1", TaskState::TaskKilled).await;
    assert!(peer.driver.drained(SOON).await);

    let running = peer.saw(TaskState::TaskRunning).await;
    assert_eq!(running.source(), Source::Executor);
    let container = running.container_status.unwrap();
    assert_eq!(container.container_id.unwrap().value, peer.launched.container_id);
    assert_eq!(container.network_infos[0].ip_addresses[0].ip_address(), "127.0.0.1");
    assert_eq!(
        peer.conversation(),
        [
            "< SUBSCRIBE",
            "> SUBSCRIBED",
            "> LAUNCH",
            "< UPDATE",
            "> ACKNOWLEDGED",
            "< UPDATE",
            "> ACKNOWLEDGED",
            "> MESSAGE",
            "> KILL",
            "< UPDATE",
            "> ACKNOWLEDGED",
        ]
    );
    assert_eq!(peer.agent.problems(), Vec::<String>::new());
}

#[tokio::test]
async fn several_tasks_and_a_group_for_one_executor() {
    let mut peer = Peer::running(|_, _| ()).await;
    let second = peer.agent.launch(task("t.2")).await.unwrap();
    assert_eq!(second.container_id, peer.launched.container_id);
    assert!(matches!(peer.event().await, Event::Launch(task) if task.task_id.value == "t.2"));
    peer.agent.launch_group(executor(), vec![task("g.1"), task("g.2")]).await.unwrap();
    let Event::LaunchGroup(group) = peer.event().await else { panic!("no group") };
    assert_eq!(group.iter().map(|task| task.task_id.value.as_str()).collect::<Vec<_>>(), ["g.1", "g.2"]);
    for task in ["g.2", "t.1", "g.1", "t.2"] {
        peer.acknowledged(task, TaskState::TaskRunning).await;
    }
    peer.acknowledged("g.1", TaskState::TaskFinished).await;
    assert!(matches!(peer.agent.launch(task("t.2")).await, Err(AgentError::Duplicate(_))));
    assert_eq!(peer.agent.problems(), Vec::<String>::new());
}

#[tokio::test]
async fn the_executor_process_as_the_agent_makes_it() {
    let dir = tempfile::tempdir().unwrap();
    let mut options = AgentOptions::new(dir.path(), "/nowhere");
    options.authenticate_http_executors = true;
    options.domain_socket = Some(dir.path().join("agent.sock"));
    let agent = Agent::start(options).await.unwrap();
    let mut first = task("t.1");
    let variable = calico_mesos::mesos::messages::environment::Variable {
        name: "PATH".into(),
        value: Some("/from/the/framework:/usr/bin:/bin".into()),
        ..Default::default()
    };
    let command = first.executor.as_mut().unwrap().command.as_mut().unwrap();
    command.environment = Some(calico_mesos::mesos::messages::Environment { variables: vec![variable] });
    let launched = agent.launch(first).await.unwrap();
    let environment = environment(&launched.sandbox).await;
    let sandbox = launched.sandbox.to_str().unwrap();
    for (name, value) in [
        ("MESOS_SANDBOX", sandbox),
        ("MESOS_DIRECTORY", sandbox),
        ("MESOS_EXECUTOR_ID", "e"),
        ("MESOS_AGENT_ENDPOINT", &agent.pid().address.to_string()),
        ("MESOS_DOMAIN_SOCKET", dir.path().join("agent.sock").to_str().unwrap()),
        ("PATH", "/from/the/framework:/usr/bin:/bin"),
    ] {
        assert_eq!(environment.get(name).map(String::as_str), Some(value), "{name}");
    }
    assert!(environment.contains_key("MESOS_EXECUTOR_AUTHENTICATION_TOKEN"));
    // A program and its arguments, no shell between.
    let mut second = task("u.1");
    let command = CommandInfo {
        shell: Some(false),
        value: Some("/bin/sh".into()),
        arguments: ["named", "-c", "echo $0 > name.new; mv name.new environ"].map(Into::into).to_vec(),
        ..CommandInfo::default()
    };
    let executor = second.executor.as_mut().unwrap();
    (executor.executor_id, executor.command) = ("f".into(), Some(command));
    let launched = agent.launch(second).await.unwrap();
    agent.wait_exit("u.1", SOON).await.unwrap();
    assert_eq!(std::fs::read_to_string(launched.sandbox.join("environ")).unwrap(), "named\n");
    let failed = agent.wait_for("u.1", TaskState::TaskFailed, SOON).await.unwrap();
    assert_eq!((failed.reason(), failed.message()), (Reason::ExecutorTerminated, "Executor terminated"));
}

#[tokio::test]
async fn over_the_domain_socket_with_a_token() {
    let mut peer = Peer::running(|options, dir| {
        options.domain_socket = Some(dir.join("agent.sock"));
        options.authenticate_http_executors = true;
    })
    .await;
    peer.acknowledged("t.1", TaskState::TaskRunning).await;
    peer.agent.stop().await.unwrap();
    let uuid = peer.driver.update(TaskStatus::new("t.1", TaskState::TaskFinished));
    peer.agent.restart().await.unwrap();
    assert_eq!(peer.event().await, Event::Acknowledged { task_id: "t.1".into(), uuid });
    assert_eq!(peer.event().await, Event::Reregistered);
    assert_eq!(peer.agent.problems(), Vec::<String>::new());
}

#[tokio::test]
async fn without_the_right_token_there_is_no_way_in() {
    let peer = Peer::running(|options, _| options.authenticate_http_executors = true).await;
    let own = environment(&peer.launched.sandbox).await;
    for (token, status) in [(Some("somebody else's".replace(' ', "_")), "403"), (None, "401")] {
        let mut variables = own.clone();
        let name = "MESOS_EXECUTOR_AUTHENTICATION_TOKEN".to_owned();
        variables.remove(&name);
        variables.extend(token.map(|token| (name, token)));
        let (_driver, mut events) = connect(variables);
        let Event::Shutdown { reason } = next(&mut events).await else { panic!("let in") };
        assert!(reason.contains(status), "{reason}");
    }
}

#[tokio::test]
async fn one_whose_task_was_killed_before_it_came_is_shut_down_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let agent = Agent::start(AgentOptions::new(dir.path(), "/nowhere")).await.unwrap();
    let launched = agent.launch(task("t.1")).await.unwrap();
    agent.kill("t.1", None).await.unwrap();
    let (_driver, mut events) = connect(environment(&launched.sandbox).await);
    assert!(matches!(next(&mut events).await, Event::Shutdown { .. }));
    let killed = agent.wait_for("t.1", TaskState::TaskKilled, SOON).await.unwrap();
    assert_eq!(killed.reason(), Reason::TaskKilledDuringLaunch);
}

/// The MesosContainerizer gives no warning, and leaves nobody in the container.
#[tokio::test]
async fn a_shutdown_that_is_ignored_ends_with_sigkill() {
    use std::os::unix::process::ExitStatusExt;
    let mut peer = Peer::running(|options, _| options.shutdown_grace = Duration::from_millis(200)).await;
    peer.agent.shutdown_executor("t.1").await.unwrap();
    assert!(matches!(peer.event().await, Event::Shutdown { .. }));
    // Still spoken to until then.
    peer.acknowledged("t.1", TaskState::TaskKilling).await;
    let exit = peer.agent.wait_exit("t.1", SOON).await.unwrap();
    assert_eq!(exit.status.unwrap().signal(), Some(9));
    assert_eq!((exit.executor_id.as_str(), &exit.tasks[..]), ("e", &["t.1".to_owned()][..]));
}

#[tokio::test]
async fn an_update_for_a_task_nobody_knows_is_passed_on_and_never_acknowledged() {
    let mut peer = Peer::running(|_, _| ()).await;
    peer.driver.update(TaskStatus::new("unknown", TaskState::TaskRunning));
    peer.acknowledged("t.1", TaskState::TaskRunning).await;
    peer.agent.wait_for("unknown", TaskState::TaskRunning, SOON).await.unwrap();
    assert!(!peer.driver.drained(Duration::from_millis(50)).await);
}

#[tokio::test]
async fn an_executor_that_would_run_in_an_image_is_refused() {
    use calico_mesos::mesos::messages::{container_info, ContainerInfo};
    let dir = tempfile::tempdir().unwrap();
    let agent = Agent::start(AgentOptions::new(dir.path(), "/nowhere")).await.unwrap();
    let mut inside = task("t.1");
    let container = ContainerInfo { r#type: container_info::Type::Docker.into(), ..Default::default() };
    inside.executor.as_mut().unwrap().container = Some(container);
    let error = agent.launch(inside).await.unwrap_err().to_string();
    assert!(error.contains("'e'") && error.contains("inside the image"), "{error}");
}
