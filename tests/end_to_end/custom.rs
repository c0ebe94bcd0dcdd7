//! Way in B: commands and containers through the custom executor, over the executor API's version 1.

use std::time::Duration;

use calico_mesos::mesos::messages::environment::Variable;
use calico_mesos::mesos::messages::{
    container_info, volume, CommandInfo, ContainerInfo, Environment, ExecutorInfo, Label, Labels, TaskInfo,
    TaskState, Volume,
};
use nix::sys::signal::{kill, Signal};
use nix::unistd::Pid;

use crate::world::{addresses, sh, tell_custom_executors, Task, World, EXECUTOR};

pub const CALICO: [(&str, &str); 2] = [("CALICO_IP", "auto"), ("CALICO_PROFILE", "dev")];

pub async fn world() -> World {
    World::with(|_| (), tell_custom_executors).await
}

pub fn environment(variables: &[(&str, &str)]) -> Environment {
    let variable = |(name, value): &(&str, &str)| Variable {
        name: (*name).into(),
        value: Some((*value).into()),
        ..Default::default()
    };
    Environment { variables: variables.iter().map(variable).collect() }
}

/// As a framework starts it: the program, and what follows it on the command line.
pub fn executor(words: &[&str], variables: &[(&str, &str)]) -> ExecutorInfo {
    let arguments = [&[EXECUTOR], words].concat();
    ExecutorInfo {
        executor_id: format!("e-{}", uuid::Uuid::new_v4()).into(),
        command: Some(CommandInfo {
            shell: Some(false),
            value: Some(EXECUTOR.into()),
            arguments: arguments.into_iter().map(str::to_owned).collect(),
            environment: Some(environment(variables)),
            ..Default::default()
        }),
        ..Default::default()
    }
}

/// As Marathon starts it: a line for the shell.
pub fn by_shell(line: &str, variables: &[(&str, &str)]) -> ExecutorInfo {
    let mut info = executor(&[], variables);
    let command = info.command.as_mut().unwrap();
    (command.shell, command.value) = (Some(true), Some(line.into()));
    command.arguments.clear();
    info
}

pub fn task(executor: &ExecutorInfo) -> TaskInfo {
    TaskInfo {
        name: "batch".into(),
        task_id: format!("batch.{}", uuid::Uuid::new_v4()).into(),
        executor: Some(executor.clone()),
        ..Default::default()
    }
}

pub fn command(line: &str, variables: &[(&str, &str)]) -> CommandInfo {
    let environment = Some(environment(variables));
    CommandInfo { value: Some(line.into()), environment, ..Default::default() }
}

pub async fn running(world: &World, info: TaskInfo) -> Task<'_> {
    let task = world.launch_info(info).await;
    task.reaches(TaskState::TaskRunning).await;
    task
}

async fn is_killed(task: &Task<'_>) {
    let status = task.kill().await;
    assert_eq!(status.state(), TaskState::TaskKilled, "{status:?}\n{}", task.log());
}

#[tokio::test]
async fn marathons_path_executor_runs_the_apps_command() {
    let world = world().await;
    let line = format!(
        "chmod ug+rx '{EXECUTOR}' && exec '{EXECUTOR}' sh -c 'env > env; (ip -4 -o addr show eth0; pwd) > seen.tmp; mv seen.tmp seen; exec sleep 1000'"
    );
    let variables =
        [&CALICO[..], &[("MARATHON_APP_ID", "/prod/batch"), ("GREETING", "hello world")]].concat();
    let info = task(&by_shell(&line, &variables));
    let task = running(&world, info).await;
    let [address] = task.addresses().try_into().unwrap();
    let seen = task.file("seen").await;
    assert!(seen.contains(&format!(" {address}/32 ")), "{seen} is not {address}");
    assert!(seen.contains(&format!("{}\n", task.sandbox().display())), "{seen}");
    let env = task.file("env").await;
    assert!(env.contains("GREETING=hello world\n") && env.contains("MESOS_SANDBOX="), "{env}");
    for foreign in ["CALICO_MESOS_CONFIG", "DOCKER_HOST", "LIBPROCESS", "MESOS_SLAVE_PID"] {
        assert!(!env.contains(foreign), "the executor's own environment leaks: {env}");
    }
    let [endpoint] = world.endpoints().await.try_into().unwrap();
    assert_eq!(endpoint["spec"]["orchestrator"], "mesos");
    assert!(endpoint["spec"]["workload"].as_str().unwrap().starts_with("prod-batch."), "{endpoint}");
    assert!(sh(&format!("busybox ping -c 1 -W 2 {address}")).contains(" 0% packet loss"));
    assert!(world.containers().await.is_empty());
    is_killed(&task).await;
    assert_eq!(addresses(&task.ends().await), [address]);
    world.nothing_left().await;
}

#[tokio::test]
async fn exits_are_told_in_the_words_of_a_command() {
    let world = world().await;
    for (line, state, words) in [
        ("exit 0", TaskState::TaskFinished, "Command exited with status 0"),
        ("exit 4", TaskState::TaskFailed, "Command exited with status 4"),
        ("kill -KILL $$", TaskState::TaskFailed, "Command exited with status 137"),
    ] {
        let mut info = task(&executor(&[], &[]));
        info.command = Some(command(line, &CALICO));
        let task = world.launch_info(info).await;
        let status = task.ends().await;
        assert_eq!((status.state(), status.message()), (state, words), "{}", task.log());
        task.executor_exit().await;
    }
    let mut info = task(&executor(&[], &[]));
    info.command = Some(CommandInfo {
        shell: Some(false),
        value: Some("no-such-program".into()),
        ..command("", &CALICO)
    });
    let message = world.launch_info(info).await.fails().await;
    assert!(message.contains("no-such-program") && message.contains("CM-COMMAND"), "{message}");
    world.nothing_left().await;
}

#[tokio::test]
async fn without_the_variables_a_command_has_the_hosts_network() {
    let world = world().await;
    let mut info = task(&executor(&[], &[]));
    info.command = Some(command(
        "trap 'echo bye > bye; exit 0' TERM; readlink /proc/self/ns/net > seen; while :; do sleep 0.1; done",
        &[],
    ));
    let task = running(&world, info).await;
    assert_eq!(task.file("seen").await.trim(), sh("readlink /proc/self/ns/net").trim());
    world.agent.kill(&task.id, Some(Duration::from_secs(60))).await.unwrap();
    assert_eq!(task.ends().await.state(), TaskState::TaskKilled);
    assert_eq!(task.file("bye").await, "bye\n");
    task.executor_exit().await;
    assert!(!world.config.paths.journal().exists());
}

#[tokio::test]
async fn a_command_that_ignores_sigterm_leaves_nobody_behind() {
    let world = world().await;
    let mut info = task(&executor(&[], &[]));
    let line = "trap '' TERM; (setsid sleep 4242 &) ; echo up > up; while :; do sleep 0.1; done";
    info.command = Some(command(line, &CALICO));
    let task = running(&world, info).await;
    task.file("up").await;
    world.agent.kill(&task.id, Some(Duration::from_secs(1))).await.unwrap();
    assert_eq!(task.ends().await.state(), TaskState::TaskKilled, "{}", task.log());
    task.executor_exit().await;
    assert_eq!(sh("pgrep -f 'sleep 424[2]'"), "");
    world.nothing_left().await;
}

#[tokio::test]
async fn a_group_shares_its_fate_and_every_task_has_its_own_address() {
    let world = world().await;
    let executor = executor(&[], &[]);
    let member = |line: &str| {
        let mut info = task(&executor);
        info.executor = None;
        info.command = Some(command(line, &CALICO));
        info
    };
    let (first, second) = (member("until [ -e go ]; do sleep 0.05; done; exit 3"), member("exec sleep 1000"));
    let ids = [first.task_id.value.clone(), second.task_id.value.clone()];
    let launched = world.agent.launch_group(executor.clone(), vec![first, second]).await.unwrap();
    let mut seen = Vec::new();
    for id in &ids {
        let status = world.agent.wait_for(id, TaskState::TaskRunning, crate::world::LIMIT).await.unwrap();
        seen.extend(addresses(&status));
    }
    assert_eq!(seen.len(), 2);
    assert_ne!(seen[0], seen[1]);
    std::fs::write(launched.sandbox.join("go"), "").unwrap();
    for (id, state) in [(&ids[0], TaskState::TaskFailed), (&ids[1], TaskState::TaskKilled)] {
        world.agent.wait_for(id, state, crate::world::LIMIT).await.unwrap();
    }
    world.agent.wait_exit(&ids[1], crate::world::LIMIT).await.unwrap();
    world.nothing_left().await;
}

#[tokio::test]
async fn containers_by_container_info_label_and_variable() {
    let world = world().await;
    let label =
        Labels { labels: vec![Label { key: "CALICO_DOCKER_IMAGE".into(), value: Some("busybox".into()) }] };
    let mut by_info = task(&executor(&[], &[]));
    by_info.command = Some(command("exec sleep 1000", &CALICO));
    by_info.container = Some(ContainerInfo {
        r#type: container_info::Type::Docker.into(),
        docker: Some(container_info::DockerInfo { image: "busybox".into(), ..Default::default() }),
        ..Default::default()
    });
    let mut by_label = task(&executor(&["sleep", "1000"], &CALICO));
    by_label.labels = Some(label);
    let variables = [&CALICO[..], &[("CALICO_DOCKER_IMAGE", "busybox")]].concat();
    let by_variable = task(&executor(&["sleep", "1000"], &variables));
    for info in [by_info, by_label, by_variable] {
        let task = running(&world, info).await;
        let [container] = world.containers().await.try_into().unwrap();
        let name = container["Names"][0].as_str().unwrap().to_owned();
        assert!(name.starts_with("/calico-mesos-"), "an agent that starts would kill {name}");
        assert_eq!(task.addresses().len(), 1);
        is_killed(&task).await;
        world.nothing_left().await;
        assert!(world.containers().await.is_empty(), "no agent would remove it");
    }
}

/// Chronos' task ids have colons, and Mesos makes the sandbox's path of them.
#[tokio::test]
async fn a_sandbox_with_a_colon_in_its_path() {
    let world = world().await;
    let line = "echo seen > /mnt/mesos/sandbox/out; echo seen > /data/out; exec sleep 1000";
    let volume = Volume {
        container_path: "/data".into(),
        host_path: Some("data".into()),
        mode: volume::Mode::Rw.into(),
        ..Default::default()
    };
    let container = |image: &str| ContainerInfo {
        r#type: container_info::Type::Docker.into(),
        docker: Some(container_info::DockerInfo { image: image.into(), ..Default::default() }),
        volumes: vec![volume.clone()],
        ..Default::default()
    };
    let id = format!("ct:{}:0:batch:", uuid::Uuid::new_v4());
    let executor = ExecutorInfo { executor_id: id.as_str().into(), ..executor(&[], &[]) };
    let by_executor = TaskInfo { executor: Some(executor.clone()), ..task(&executor) };
    let drop_in = TaskInfo { executor: None, task_id: format!("{id}a").into(), ..by_executor.clone() };
    for info in [by_executor, drop_in] {
        let command = Some(command(line, &CALICO));
        let info = TaskInfo { command, container: Some(container("busybox")), ..info };
        let task = running(&world, info).await;
        assert!(task.sandbox().display().to_string().contains("/ct:"), "{:?}", task.sandbox());
        assert_eq!((task.file("out").await, task.file("data/out").await), ("seen\n".into(), "seen\n".into()));
        is_killed(&task).await;
    }
    world.nothing_left().await;
}

/// As Singularity hands a deploy's command to its custom executor.
#[tokio::test]
async fn the_command_stands_in_the_tasks_data() {
    let world = world().await;
    let mut info = task(&by_shell(EXECUTOR, &CALICO));
    info.data = Some(b"echo \"$CALICO_PROFILE\" > seen && exec sleep 1000".to_vec());
    let task = running(&world, info).await;
    assert_eq!(task.file("seen").await, "dev\n");
    is_killed(&task).await;
    world.nothing_left().await;
}

#[tokio::test]
async fn agent_restarts_and_lost_streams() {
    let world = world().await;
    let mut info = task(&executor(&[], &[]));
    info.command = Some(command("until [ -e go ]; do sleep 0.05; done; exit 0", &CALICO));
    let task = running(&world, info).await;
    world.agent.stop().await.unwrap();
    world.agent.restart().await.unwrap();
    task.logs("registered again with agent ", 1).await;
    world.agent.cut(&task.id).await.unwrap();
    task.logs("registered again with agent ", 2).await;
    assert!(!task.states().iter().any(|state| state.is_terminal()), "{:?}\n{}", task.states(), task.log());
    // Its last update has to wait for the agent.
    world.agent.stop().await.unwrap();
    std::fs::write(task.sandbox().join("go"), "").unwrap();
    task.logs("Command exited with status 0", 1).await;
    world.agent.restart().await.unwrap();
    assert_eq!(task.ends().await.state(), TaskState::TaskFinished, "{}", task.log());
    task.executor_exit().await;
    world.nothing_left().await;
}

#[tokio::test]
async fn the_cleaner_finishes_what_a_killed_cgroup_leaves() {
    let world = world().await;
    let mut info = task(&executor(&[], &[]));
    info.command = Some(command("exec sleep 1000", &CALICO));
    let task = running(&world, info).await;
    let mut info = self::task(&executor(&["sleep", "1000"], &CALICO));
    info.labels = Some(Labels {
        labels: vec![Label { key: "CALICO_DOCKER_IMAGE".into(), value: Some("busybox".into()) }],
    });
    let container = running(&world, info).await;
    for task in [&task, &container] {
        // What the agent does to an executor's cgroup; the container lives in Docker's.
        kill(Pid::from_raw(i32::try_from(task.launched.executor_pid).unwrap()), Signal::SIGKILL).unwrap();
        assert_eq!(task.ends().await.state(), TaskState::TaskFailed);
    }
    assert!(!world.leftovers().await.is_empty());
    assert!(world.gc().status.success());
    world.nothing_left().await;
}

/// No journal names it, and Mesos does not see it: the README sends the operator to Docker.
#[tokio::test]
async fn a_container_without_calico_outlives_a_killed_executor() {
    let world = world().await;
    let mut info = task(&executor(&[], &[]));
    info.command = Some(command("exec sleep 1000", &[("CALICO_DOCKER_IMAGE", "busybox")]));
    let task = running(&world, info).await;
    kill(Pid::from_raw(i32::try_from(task.launched.executor_pid).unwrap()), Signal::SIGKILL).unwrap();
    assert_eq!(task.ends().await.state(), TaskState::TaskFailed);
    let (code, json) = world.gc_json(&[]);
    assert_eq!((code, json["items"].as_array().unwrap().len()), (0, 0), "{json:#}");
    let [container] = world.containers().await.try_into().unwrap();
    assert_eq!(container["State"], "running");
    // The sandbox tells which one it is.
    let id = container["Names"][0].as_str().unwrap().strip_prefix("/calico-mesos-").unwrap();
    assert!(task.log().contains(&format!("launching as container {id} ")), "{}", task.log());
    let path = format!("/containers/{}?force=true", container["Id"].as_str().unwrap());
    world.stack.docker.request("DELETE", &path, b"").await.unwrap();
    world.nothing_left().await;
}

#[tokio::test]
async fn in_private_mount_and_pid_namespaces() {
    let world = world().await;
    let inside = "exec unshare -m -p --fork --mount-proc --propagation slave";
    let image = [&CALICO[..], &[("CALICO_DOCKER_IMAGE", "busybox")]].concat();
    for variables in [&CALICO[..], &image] {
        let line = format!("{inside} '{EXECUTOR}' sh -c 'ip -4 -o addr show eth0; exec sleep 1000'");
        let task = running(&world, task(&by_shell(&line, variables))).await;
        let [address] = task.addresses().try_into().unwrap();
        assert!(task.file("stdout").await.contains(&format!(" {address}/32 ")), "{}", task.log());
        is_killed(&task).await;
        world.nothing_left().await;
    }
}

/// Where the cleaner cannot see into the task's namespace, it gives the address back no sooner than that is gone.
#[tokio::test]
async fn a_command_that_outlives_its_executor_in_another_mount_namespace() {
    let world = world().await;
    let line = format!("exec unshare -m --propagation slave '{EXECUTOR}' sleep 1000");
    let task = running(&world, task(&by_shell(&line, &CALICO))).await;
    let pid = task.launched.executor_pid;
    let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap();
    let [command] = children.split_whitespace().collect::<Vec<_>>().try_into().unwrap();
    kill(Pid::from_raw(i32::try_from(pid).unwrap()), Signal::SIGKILL).unwrap();
    assert_eq!(task.ends().await.state(), TaskState::TaskFailed);
    let before = world.task_keys().await;
    for _ in 0..2 {
        let (code, json) = world.gc_json(&[]);
        assert_eq!(code, 1, "{json:#}");
        assert!(json.to_string().contains("in another mount namespace"), "{json:#}");
        assert_eq!(world.task_keys().await, before);
    }
    kill(Pid::from_raw(command.parse().unwrap()), Signal::SIGKILL).unwrap();
    assert!(world.gc().status.success());
    world.nothing_left().await;
}

#[tokio::test]
async fn who_is_not_root_is_told_what_to_do() {
    let world = world().await;
    let line = format!("exec setpriv --reuid=65534 --regid=65534 --clear-groups '{EXECUTOR}' sleep 1000");
    let message = world.launch_info(task(&by_shell(&line, &CALICO))).await.fails().await;
    assert!(message.contains("CM-ROOT") && message.contains("switch_user"), "{message}");
}

#[tokio::test]
async fn what_a_task_sets_steers_nothing() {
    let world = world().await;
    for (name, value) in [("CALICO_MESOS_CONFIG", "/nonexistent"), ("DOCKER_HOST", "unix:///nonexistent")] {
        let mut info = task(&executor(&[], &[(name, value)]));
        info.command = Some(command("exec sleep 1000", &[]));
        let task = running(&world, info).await;
        is_killed(&task).await;
    }
}

#[tokio::test]
async fn malformed_tasks_end_in_one_sentence() {
    let world = world().await;
    let nothing = task(&executor(&[], &CALICO));
    let mut no_value = task(&executor(&[], &CALICO));
    no_value.command = Some(CommandInfo { shell: Some(true), ..Default::default() });
    let mut control = task(&executor(&[], &CALICO));
    control.command = Some(CommandInfo { value: Some("a\0b".into()), ..Default::default() });
    let mut long = task(&executor(&[], &CALICO));
    long.command = Some(command("x", &[("BIG", &"x".repeat(128 << 10))]));
    for info in [nothing, no_value, control, long] {
        let task = world.launch_info(info).await;
        let message = task.fails().await;
        assert!(message.contains("CM-TASK-INVALID"), "{message}");
        task.executor_exit().await;
        let terminal = task.states().iter().filter(|state| state.is_terminal()).count();
        assert_eq!(terminal, 1, "{:?}", task.states());
    }
}

/// Its checks run in its namespace, as its user, and see its own environment.
#[tokio::test]
async fn a_command_is_checked_where_it_lives() {
    use calico_mesos::mesos::messages::{health_check, HealthCheck};
    let world = world().await;
    let mut info = task(&executor(&["sh", "-c", "exec busybox httpd -f -p 8080"], &CALICO));
    let check = command("test \"$CALICO_PROFILE\" = dev && test -e well", &[]);
    info.health_check = Some(HealthCheck {
        delay_seconds: Some(0.0),
        interval_seconds: Some(0.1),
        grace_period_seconds: Some(0.0),
        consecutive_failures: Some(2),
        r#type: Some(health_check::Type::Command.into()),
        command: Some(check),
        ..Default::default()
    });
    let task = world.launch_info(info).await;
    std::fs::write(task.sandbox().join("well"), "").unwrap();
    task.update("a healthy update", |status| status.healthy == Some(true)).await;
    std::fs::remove_file(task.sandbox().join("well")).unwrap();
    let status = task.ends().await;
    assert_eq!((status.state(), status.healthy), (TaskState::TaskKilled, Some(false)), "{}", task.log());
    task.executor_exit().await;
    world.nothing_left().await;
}
