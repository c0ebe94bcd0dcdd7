//! Whole lives of one task between the driver and the embedded agent, in one process over loopback.

use std::time::Duration;

use calico_mesos::mesos::driver::Event;
use calico_mesos::mesos::messages::task_status::{Reason, Source};
use calico_mesos::mesos::messages::{RegisterExecutorMessage, TaskState, TaskStatus, Wire};
use calico_mesos::rig::agent::AgentError;
use prost::Message as _;

use super::peer::{self, body, task, Peer, SOON};

use crate::kit::wait::within;

#[tokio::test]
async fn from_launch_to_kill() {
    let mut peer = Peer::running(|_| {}).await;
    peer.acknowledged(TaskState::TaskStarting).await;
    peer.acknowledged(TaskState::TaskRunning).await;
    peer.agent.message("t.1", b"hello executor".to_vec()).await.unwrap();
    assert_eq!(peer.event().await, Event::Message(b"hello executor".to_vec()));
    peer.agent.kill("t.1", Some(Duration::from_millis(1500))).await.unwrap();
    let grace = Some(Duration::from_millis(1500));
    assert_eq!(peer.event().await, Event::Kill { task_id: "t.1".into(), grace });
    peer.acknowledged(TaskState::TaskKilling).await;
    peer.acknowledged(TaskState::TaskKilled).await;
    assert!(peer.driver.drained(SOON).await);

    let running = peer.saw(TaskState::TaskRunning).await;
    assert_eq!(running.source(), Source::Executor);
    let container = running.container_status.unwrap();
    assert_eq!(container.container_id.unwrap().value, peer.launched.container_id);
    assert_eq!(container.network_infos[0].ip_addresses[0].ip_address(), "127.0.0.1");
    assert_eq!(
        peer.conversation(),
        [
            "< RegisterExecutor",
            "> ExecutorRegistered",
            "> RunTask",
            "< StatusUpdate",
            "> StatusUpdateAcknowledgement",
            "< StatusUpdate",
            "> StatusUpdateAcknowledgement",
            "> FrameworkToExecutor",
            "> KillTask",
            "< StatusUpdate",
            "> StatusUpdateAcknowledgement",
            "< StatusUpdate",
            "> StatusUpdateAcknowledgement",
        ]
    );
    assert_eq!(peer.agent.problems(), Vec::<String>::new());
}

#[tokio::test]
async fn the_executor_process_as_the_agent_makes_it() {
    let mut custom = task("t.1");
    custom.command.as_mut().unwrap().environment = Some(calico_mesos::mesos::messages::Environment {
        variables: vec![calico_mesos::mesos::messages::environment::Variable {
            name: "PATH".into(),
            value: Some("/from/the/task:/usr/bin:/bin".into()),
            ..Default::default()
        }],
    });
    let peer = Peer::launch(
        |options| {
            options.extra_flags = vec!["--config=/tmp/x.toml".into()];
            options.executor_environment.insert("DOCKER_HOST".into(), "unix:///x.sock".into());
        },
        custom,
    )
    .await;
    let sandbox = &peer.launched.sandbox;
    let mut environment = peer::environment(sandbox).await;
    // The shell's own.
    for name in ["PWD", "_", "SHLVL", "OLDPWD"] {
        environment.remove(name);
    }
    let options = peer.agent.options();
    let agent = peer.agent.pid().to_string();
    let expected = [
        ("DOCKER_HOST", "unix:///x.sock"),
        ("LIBPROCESS_IP", "127.0.0.1"),
        ("LIBPROCESS_PORT", "0"),
        ("MESOS_AGENT_ENDPOINT", agent.split('@').nth(1).unwrap()),
        ("MESOS_CHECKPOINT", "1"),
        ("MESOS_DIRECTORY", sandbox.to_str().unwrap()),
        ("MESOS_EXECUTOR_ID", "t.1"),
        ("MESOS_EXECUTOR_SHUTDOWN_GRACE_PERIOD", "5secs"),
        ("MESOS_FRAMEWORK_ID", options.framework_id.as_str()),
        ("MESOS_HTTP_COMMAND_EXECUTOR", "0"),
        ("MESOS_RECOVERY_TIMEOUT", "15mins"),
        ("MESOS_SLAVE_ID", options.slave_id.as_str()),
        ("MESOS_SLAVE_PID", agent.as_str()),
        ("MESOS_SUBSCRIPTION_BACKOFF_MAX", "2secs"),
        ("PATH", "/from/the/task:/usr/bin:/bin"),
    ];
    let expected: std::collections::BTreeMap<_, _> =
        expected.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    assert_eq!(environment, expected);

    let argv = std::fs::read_to_string(sandbox.join("argv")).unwrap();
    let flags = calico_mesos::mesos::flags::Flags::parse(std::iter::once("x").chain(argv.lines())).unwrap();
    assert_eq!(flags.container, format!("mesos-{}", peer.launched.container_id));
    assert_eq!(flags.sandbox_directory, *sandbox);
    assert_eq!(flags.config.as_deref(), Some(std::path::Path::new("/tmp/x.toml")));
    let names: Vec<_> = argv.lines().map(|flag| flag.split('=').next().unwrap()).collect();
    let mut sorted = names[..names.len() - 1].to_vec();
    sorted.sort_unstable();
    assert_eq!(sorted, names[..names.len() - 1]);
    let below = format!(
        "slaves/{}/frameworks/{}/executors/t.1/runs/{}",
        options.slave_id, options.framework_id, peer.launched.container_id
    );
    assert_eq!(*sandbox, options.work_dir.join(&below));
    let pid =
        std::fs::read_to_string(options.work_dir.join("meta").join(below).join("pids/forked.pid")).unwrap();
    assert_eq!(pid, peer.launched.executor_pid.to_string());
}

#[tokio::test]
async fn a_shutdown_that_is_ignored_ends_with_sigterm() {
    let mut peer = Peer::running(|options| options.shutdown_grace = Duration::from_millis(200)).await;
    peer.acknowledged(TaskState::TaskRunning).await;
    peer.agent.shutdown_executor("t.1").await.unwrap();
    assert!(matches!(peer.event().await, Event::Shutdown { .. }));
    let failed = peer.saw(TaskState::TaskFailed).await;
    assert_eq!((failed.message(), failed.reason()), ("Container killed", Reason::ExecutorTerminated));
    assert!(peer.agent.wait_exit("t.1", SOON).await.is_ok());
}

#[tokio::test]
async fn an_executor_that_dies_fails_its_task() {
    let mut peer = Peer::running(|_| {}).await;
    peer.acknowledged(TaskState::TaskRunning).await;
    let pid = nix::unistd::Pid::from_raw(peer.launched.executor_pid.try_into().unwrap());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).unwrap();
    let failed = peer.saw(TaskState::TaskFailed).await;
    assert_eq!((failed.message(), failed.reason()), ("Container terminated", Reason::ExecutorTerminated));
    assert_eq!(failed.source(), Source::Slave);
}

#[tokio::test]
async fn an_executor_that_never_registers() {
    let dir = tempfile::tempdir().unwrap();
    let mut options =
        calico_mesos::rig::agent::AgentOptions::new(dir.path().join("work"), peer::stand_in(dir.path()));
    options.registration_timeout = Duration::from_millis(200);
    let agent = calico_mesos::rig::agent::Agent::start(options).await.unwrap();
    agent.launch(task("t.1")).await.unwrap();
    let failed = agent.wait_for("t.1", TaskState::TaskFailed, SOON).await.unwrap();
    assert_eq!(failed.reason(), Reason::ExecutorRegistrationTimeout);
    assert_eq!(failed.message(), "Executor did not register within 200ms; Container killed");
}

#[tokio::test]
async fn a_kill_before_the_registration() {
    let dir = tempfile::tempdir().unwrap();
    let options =
        calico_mesos::rig::agent::AgentOptions::new(dir.path().join("work"), peer::stand_in(dir.path()));
    let agent = calico_mesos::rig::agent::Agent::start(options).await.unwrap();
    let launched = agent.launch(task("t.1")).await.unwrap();
    agent.kill("t.1", None).await.unwrap();
    let killed = agent.wait_for("t.1", TaskState::TaskKilled, SOON).await.unwrap();
    assert_eq!(killed.reason(), Reason::TaskKilledDuringLaunch);
    let (_driver, mut events) = peer::connect(&launched.sandbox).await;
    assert!(matches!(events.recv().await.unwrap(), Event::Shutdown { .. }));
}

#[tokio::test]
async fn a_second_task_and_a_second_end() {
    let mut peer = Peer::running(|_| {}).await;
    peer.agent.launch_on("t.1", task("t.2")).await.unwrap();
    assert!(matches!(peer.event().await, Event::Launch(task) if task.task_id.value == "t.2"));
    peer.driver.update(TaskStatus::new("t.2", TaskState::TaskFailed).with_message("one task per executor"));
    assert!(peer.driver.drained(SOON).await);
    let failed = peer.agent.wait_for("t.2", TaskState::TaskFailed, SOON).await.unwrap();
    assert_eq!(failed.message(), "one task per executor");
    // Nothing leaves the driver behind a terminal update.
    peer.driver.update(TaskStatus::new("t.2", TaskState::TaskFinished));
    assert!(peer.driver.drained(SOON).await);
    let states: Vec<_> = peer.agent.history("t.2").iter().map(|update| update.status.state()).collect();
    assert_eq!(states, [TaskState::TaskFailed]);
    let error = peer.agent.wait_for("t.2", TaskState::TaskRunning, SOON).await.unwrap_err();
    assert!(matches!(error, AgentError::Ended { state: "FAILED", .. }), "{error}");
}

#[tokio::test]
async fn registration_is_the_first_thing_said() {
    let peer = Peer::running(|_| {}).await;
    let register: RegisterExecutorMessage = body(&peer);
    assert_eq!(register.executor_id.value, "t.1");
}

/// life5: the framework is gone; nothing is acknowledged any more.
#[tokio::test]
async fn a_framework_that_is_torn_down() {
    let mut peer = Peer::running(|options| options.shutdown_grace = Duration::from_secs(1)).await;
    peer.acknowledged(TaskState::TaskRunning).await;
    peer.agent.tear_down().await.unwrap();
    assert!(matches!(peer.event().await, Event::Shutdown { .. }));
    peer.driver.update(TaskStatus::new("t.1", TaskState::TaskKilled));
    assert!(!peer.driver.drained(Duration::from_millis(200)).await);
    assert_eq!(peer.conversation().last().unwrap(), "< StatusUpdate");
}

/// What the protocol forbids is seen, not passed over.
#[tokio::test]
async fn problems_are_recorded() {
    use calico_mesos::mesos::libprocess::{framing, link};
    use calico_mesos::mesos::messages::{StatusUpdate, StatusUpdateMessage};
    let mut peer = Peer::running(|_| {}).await;
    peer.acknowledged(TaskState::TaskRunning).await;
    let slave = Some(peer.agent.options().slave_id.as_str().into());
    let good = StatusUpdateMessage {
        update: StatusUpdate {
            executor_id: Some("t.1".into()),
            slave_id: slave.clone(),
            status: TaskStatus { slave_id: slave, ..TaskStatus::new("t.1", TaskState::TaskFinished) },
            uuid: Some(uuid::Uuid::new_v4().as_bytes().to_vec()),
            ..StatusUpdate::default()
        },
        pid: Some(peer.driver.pid().unwrap().to_string()),
    };
    let change = |change: &dyn Fn(&mut StatusUpdateMessage)| {
        let mut message = good.clone();
        message.update.uuid = Some(uuid::Uuid::new_v4().as_bytes().to_vec());
        change(&mut message);
        message
    };
    let messages = [
        (change(&|message| message.update.slave_id = None), "agent id mismatch"),
        (change(&|message| message.update.uuid = None), "no uuid"),
        (change(&|message| message.update.uuid = Some((0..16).collect())), "invalid uuid"),
        (change(&|message| message.update.status.task_id = "other".into()), "unknown task 'other'"),
        (change(&|_| {}), ""),
        (change(&|_| {}), "behind its terminal one"),
    ];
    for (message, problem) in messages {
        let seen = peer.agent.problems().len();
        let body = message.encode_to_vec();
        let request =
            framing::encode(peer.driver.pid().unwrap(), peer.agent.pid(), StatusUpdateMessage::NAME, &body);
        link::send_once(peer.agent.pid().address, &request).await.unwrap();
        if problem.is_empty() {
            peer.saw(TaskState::TaskFinished).await;
            continue;
        }
        within(SOON, "the agent objects", async || peer.agent.problems().len() != seen).await;
        let problems = peer.agent.problems();
        assert!(problems.last().is_some_and(|text| text.contains(problem)), "{problem}: {problems:?}");
    }
    let ends = peer.agent.history("t.1").iter().filter(|update| update.status.state().is_terminal()).count();
    assert_eq!(ends, 1);
}
