//! `calico-mesos task …` against tasks that real executors run.

use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::process::{Command, Output, Stdio};

use calico_mesos::mesos::messages::{CommandInfo, ExecutorInfo, TaskState};
use nix::sys::signal::{kill, Signal};
use nix::unistd::Pid;
use serde_json::{json, Value};

use crate::kit::wait::eventually;
use crate::world::{app, calico, task_info, tell_custom_executors, with, Task, World, CLI};

fn command(world: &World, arguments: &[&str]) -> Command {
    let mut command = Command::new(CLI);
    command.arg("--config").arg(&world.stack.config).arg("task").args(arguments).stdin(Stdio::null());
    command
}

fn run(world: &World, arguments: &[&str]) -> Output {
    command(world, arguments).output().unwrap()
}

/// Its output; it has to succeed without a warning.
#[track_caller]
fn says(world: &World, arguments: &[&str]) -> String {
    let output = run(world, arguments);
    assert!(output.status.success() && output.stderr.is_empty(), "{arguments:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

#[track_caller]
fn document(world: &World, arguments: &[&str]) -> Value {
    let text = says(world, &[arguments, &["-o", "json"]].concat());
    serde_json::from_str(&text).unwrap()
}

/// Why it failed, with this exit code.
#[track_caller]
fn fails(world: &World, arguments: &[&str], code: i32) -> String {
    let output = run(world, arguments);
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {output:?}");
    assert!(output.stdout.is_empty(), "{output:?}");
    String::from_utf8(output.stderr).unwrap()
}

/// The row of a task in `task list`.
fn row(world: &World, arguments: &[&str], id: &str) -> Value {
    let rows = document(world, &[&["list"], arguments].concat());
    let mut rows = rows.as_array().unwrap().iter().filter(|row| row["task"] == json!(id)).cloned();
    let row = rows.next().unwrap_or_else(|| panic!("no row for {id}"));
    assert!(rows.next().is_none());
    row
}

fn kill_executor(task: &Task<'_>) {
    kill(Pid::from_raw(i32::try_from(task.launched.executor_pid).unwrap()), Signal::SIGKILL).unwrap();
}

const TALKS: &str = "echo hello; echo trouble >&2; exec sleep 1000";

#[tokio::test]
async fn a_living_task_is_listed_and_shown_by_any_of_its_names() {
    let world = World::with(|stack| stack.consul = true, |_| ()).await;
    let task = world.running(&app("/prod/web", TALKS, with(calico(), "SERVICE_PORT", "3000"))).await;
    world.registered("web-prod-direct").await;
    let (address, container) = (task.addresses()[0].clone(), task.launched.container_id.clone());
    let interface = format!("cali{}", container.replace('-', "").get(..11).unwrap());

    let listed = row(&world, &[], &task.id);
    let expected = [
        ("app", json!("/prod/web")),
        ("state", json!("running")),
        ("addresses", json!([address])),
        ("profiles", json!(["dev"])),
        ("container", json!(container)),
        ("interface", json!(interface)),
        ("executor_pid", json!(task.launched.executor_pid)),
        ("executor_version", json!(env!("CARGO_PKG_VERSION"))),
        ("ending", Value::Null),
        ("health", Value::Null),
    ];
    for (field, value) in expected {
        assert_eq!(listed[field], value, "{field} of {listed}");
    }
    let table = says(&world, &["list"]);
    let lines: Vec<&str> = table.lines().collect();
    assert_eq!(lines.len(), 2, "{table}");
    assert_eq!(
        lines[0].split_whitespace().collect::<Vec<_>>(),
        ["TASK", "APP", "STATE", "ADDRESS", "CONTAINER", "EXECUTOR"]
    );
    assert_eq!(lines[1].split_whitespace().nth(3), Some(address.as_str()), "{table}");
    assert!(says(&world, &["list", "-o", "wide"]).contains(&interface));
    assert_eq!(says(&world, &["list", "-o", "name"]), format!("{}\n", task.id));

    let shown = document(&world, &["show", "prod/web"]);
    for name in [&task.id, &address, &container[..8], "/prod/web", &task.id[..task.id.len() - 3]] {
        assert_eq!(document(&world, &["show", name])["container"], json!(container), "{name}");
    }
    assert_eq!(shown["workload"]["name"], json!(task.container()));
    assert_eq!(shown["addresses"][0]["host_route"], json!(true), "{shown}");
    assert!(shown["addresses"][0]["given"].is_string(), "{shown}");
    assert_eq!((&shown["interface"]["name"], &shown["interface"]["up"]), (&json!(interface), &json!(true)));
    assert_eq!(shown["namespace"]["interface"]["mtu"], shown["interface"]["mtu"]);
    assert!(!shown["namespace"]["processes"].as_array().unwrap().is_empty(), "{shown}");
    // The kernel adds a link-local one where IPv6 is on.
    let inside = &shown["namespace"]["interface"];
    assert!(inside["addresses"].as_array().unwrap().contains(&json!(format!("{address}/32"))), "{inside}");
    for route in [
        json!({"destination": "0.0.0.0/0", "gateway": "169.254.1.1"}),
        json!({"destination": "169.254.1.1/32", "gateway": null}),
    ] {
        assert!(inside["routes"].as_array().unwrap().contains(&route), "{inside}");
    }
    assert_eq!(shown["endpoint"]["record"]["spec"]["interfaceName"], json!(interface));
    assert_eq!(shown["felix"]["report"], "no felix");
    let entries = shown["consul"]["entries"].as_array().unwrap();
    let direct = entries.iter().find(|entry| entry["name"] == "web-prod-direct").unwrap();
    assert_eq!((&direct["registered"], &direct["port"]), (&json!(true), &json!(3000)));
    assert_eq!(shown["sandbox"], json!(task.sandbox()));
    let steps = shown["launch"]["steps_ms"].as_object().unwrap();
    assert!(steps.contains_key("claimed") && steps["running"].as_f64().unwrap() > 0.0, "{shown}");
    assert_eq!(shown["teardowns"], json!([]));

    let page = says(&world, &["show", &address]);
    for text in [
        &address,
        &interface,
        &container,
        "169.254.1.1",
        "web-prod-direct",
        "ms  claimed",
        "container mesos-",
    ] {
        assert!(page.contains(text), "no {text} in\n{page}");
    }
    assert!(!page.contains("NOT") && !page.contains("NO host route"), "{page}");
    task.kill().await;
    world.nothing_left().await;
}

#[tokio::test]
async fn an_ended_task_keeps_its_story_and_its_output() {
    let world = World::new().await;
    let task = world.running(&app("/web", TALKS, calico())).await;
    let address = task.addresses()[0].clone();
    let failed = world.launch(&app("/outside", "x", with(calico(), "CALICO_IP", "203.0.113.9"))).await;
    failed.fails().await;
    failed.executor_exit().await;
    task.kill().await;
    world.nothing_left().await;

    assert_eq!(document(&world, &["list"]), json!([]));
    let listed = row(&world, &["--all"], &task.id);
    assert_eq!((&listed["state"], &listed["ending"]["outcome"]), (&json!("ended"), &json!("killed")));
    let shown = document(&world, &["show", &address]);
    assert_eq!((&shown["task"], &shown["state"]), (&json!(task.id), &json!("ended")));
    assert!(shown["addresses"][0]["returned"].is_string(), "{shown}");
    assert_eq!(
        (&shown["interface"]["exists"], &shown["namespace"]["exists"]),
        (&json!(false), &json!(false))
    );
    assert_eq!((&shown["endpoint"]["record"], &shown["endpoint"]["error"]), (&Value::Null, &Value::Null));
    assert!(shown["teardowns"][0]["steps_ms"]["forgotten"].is_number(), "{shown}");
    assert!(says(&world, &["logs", &task.id, "--only", "stdout"]).ends_with("hello\n"));
    let shown = document(&world, &["show", &failed.id]);
    assert_eq!((&shown["ending"]["code"], &shown["addresses"]), (&json!("CM-IP-OUTSIDE"), &json!([])));
    assert!(says(&world, &["show", &failed.id]).contains("error      CALICO_IP 203.0.113.9"));
    let why = fails(&world, &["exec", &task.id, "--", "true"], 1);
    assert!(why.contains("has ended, and its network namespace is gone"), "{why}");
}

#[tokio::test]
async fn a_tool_of_the_host_runs_in_the_tasks_network() {
    let world = World::new().await;
    let task = world.running(&app("/web", "sleep 1000", calico())).await;
    let address = task.addresses()[0].clone();
    let seen = says(&world, &["exec", "/web", "--", "ip", "-4", "-o", "addr", "show", "dev", "eth0"]);
    assert!(seen.contains(&format!("inet {address}/32")), "{seen}");
    // Without the dashes as well, and with the exit code of the command.
    assert_eq!(run(&world, &["exec", "/web", "sh", "-c", "exit 7"]).status.code(), Some(7));
    let broken = run(&world, &["exec", "/web", "sh", "-c", "kill -PIPE $$"]);
    assert_eq!(std::os::unix::process::ExitStatusExt::signal(&broken.status), Some(13), "{broken:?}");
    let why = fails(&world, &["exec", "/web", "--", "no-such-tool"], 1);
    assert!(why.contains("cannot run 'no-such-tool': No such file"), "{why}");
    fails(&world, &["exec", "/web"], 64);
    task.kill().await;
    world.nothing_left().await;
}

#[tokio::test]
async fn output_is_printed_and_followed_until_the_end() {
    let world = World::new().await;
    let task = world.running(&app("/web", &format!("echo first; {TALKS}"), calico())).await;
    task.logs("trouble", 1).await;
    let output = run(&world, &["logs", "/web"]);
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(text(&output.stdout).ends_with("first\nhello\n"), "{output:?}");
    assert!(text(&output.stderr).contains("trouble\n") && output.status.success(), "{output:?}");
    assert_eq!(says(&world, &["logs", "/web", "--only", "stdout", "-n", "1"]), "hello\n");

    let mut following = command(&world, &["logs", "/web", "-f", "--only", "stdout"])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(following.stdout.take().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap() == "hello"));
    std::fs::OpenOptions::new()
        .append(true)
        .open(task.sandbox().join("stdout"))
        .map(|mut file| {
            std::io::Write::write_all(&mut file, b"\x1b[2Jlater\nno newline").unwrap();
        })
        .unwrap();
    // What a terminal would obey does not reach it.
    assert_eq!(lines.next().unwrap().unwrap(), "?[2Jlater");
    task.kill().await;
    let rest: Vec<String> = lines.map(Result::unwrap).collect();
    assert!(rest.concat().starts_with("no newline"), "{rest:?}");
    assert!(following.wait().unwrap().success());
    world.nothing_left().await;
}

#[tokio::test]
async fn a_dead_executors_task_waits_for_its_teardown() {
    let world = World::new().await;
    let task = world.running(&app("/web", TALKS, calico())).await;
    kill_executor(&task);
    task.ends().await;
    let listed = row(&world, &[], &task.id);
    assert_eq!((&listed["state"], &listed["executor_pid"]), (&json!("waiting for teardown"), &Value::Null));
    let page = says(&world, &["show", "/web"]);
    assert!(page.contains("is dead; `calico-mesos gc` takes the task down"), "{page}");
    // Its namespace lives, and so does what the executor wrote.
    assert_eq!(run(&world, &["exec", "/web", "true"]).status.code(), Some(0));
    assert!(says(&world, &["logs", "/web", "--only", "stdout"]).ends_with("hello\n"));
    world.cleaned().await;
    assert_eq!(row(&world, &["--all"], &task.id)["state"], "ended");
}

#[tokio::test]
async fn names_that_mean_several_or_no_tasks_are_refused() {
    let world = World::new().await;
    let one = world.running(&app("/web", "sleep 1000", calico())).await;
    let other = world.running(&app("/web", "sleep 1000", calico())).await;
    let why = fails(&world, &["show", "/web"], 1);
    assert!(
        why.contains("'/web' is not unique") && why.contains(&one.id) && why.contains(&other.id),
        "{why}"
    );
    let why = fails(&world, &["logs", "/wep"], 1);
    assert!(why.contains("no task of this host") && why.contains("the nearest is '/web'"), "{why}");
    fails(&world, &["show"], 64);
    one.kill().await;
    other.kill().await;
    world.nothing_left().await;
}

#[tokio::test]
async fn what_is_damaged_or_away_hides_nothing_else() {
    let mut world = World::new().await;
    let task = world.running(&app("/web", "sleep 1000", calico())).await;
    let (id, journal) = (task.id.clone(), world.config.paths.journal());
    let damaged = journal.join("5f3cbe1e-77aa-4d1b-8b0e-0c1f2a3b4c5d.json");
    std::fs::write(&damaged, "{\"format\":7,\"owner\":{\"version\":\"9.9.9\"}}").unwrap();
    let trail = world.config.paths.log.join("audit/tasks/current");
    let whole = std::fs::read_to_string(&trail).unwrap();
    std::fs::write(&trail, format!("{{half\n{whole}\u{0}\n")).unwrap();
    let output = run(&world, &["list", "-o", "name"]);
    assert_eq!(String::from_utf8_lossy(&output.stdout), format!("{id}\n"), "{output:?}");
    let warnings = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        warnings.contains("5f3cbe1e-77aa-4d1b-8b0e-0c1f2a3b4c5d.json is left out: it has format 7"),
        "{warnings}"
    );
    assert!(
        warnings.contains("2 lines of ") && warnings.contains("tasks/current cannot be read"),
        "{warnings}"
    );
    std::fs::remove_file(&damaged).unwrap();
    std::fs::remove_file(&trail).unwrap();
    // As the release before has left it.
    std::fs::write(world.config.paths.log.join("audit/tasks.log"), whole).unwrap();
    let launch = &document(&world, &["show", "/web"])["launch"];
    assert_eq!(launch["outcome"], "running", "{launch}");

    // The endpoint's record is nonsense, and then its datastore is away.
    let endpoint = document(&world, &["show", "/web"])["endpoint"]["name"].as_str().unwrap().to_owned();
    let key = format!("/calico/resources/v3/projectcalico.org/workloadendpoints/default/{endpoint}");
    let record = world.get(&key).await.unwrap().to_string();
    world.put(&key, "[").await;
    let shown = document(&world, &["show", "/web"]);
    assert!(shown["endpoint"]["error"].as_str().unwrap().contains(&key), "{shown}");
    world.put(&key, &record).await;
    world.stack.etcd.as_mut().unwrap().kill();
    let shown = document(&world, &["show", "/web"]);
    assert!(shown["endpoint"]["error"].is_string(), "{shown}");
    assert_eq!((&shown["state"], &shown["interface"]["up"]), (&json!("running"), &json!(true)));
    world.stack.etcd.as_mut().unwrap().restart().await.unwrap();
    world.agent.kill(&id, Some(std::time::Duration::ZERO)).await.unwrap();
    world.agent.wait_exit(&id, crate::world::LIMIT).await.unwrap();
    world.nothing_left().await;
}

#[tokio::test]
async fn who_is_not_root_reads_that_root_is_needed() {
    let world = World::new().await;
    let copy = tempfile::Builder::new().prefix("cm-task-").tempdir_in("/tmp").unwrap();
    std::fs::set_permissions(copy.path(), PermissionsExt::from_mode(0o755)).unwrap();
    let (program, config) = (copy.path().join("calico-mesos"), copy.path().join("config.toml"));
    std::fs::copy(CLI, &program).unwrap();
    std::fs::write(&config, "").unwrap();
    for arguments in [&["list"][..], &["show", "x"], &["exec", "x", "true"], &["logs", "x"]] {
        let mut command = Command::new(&program);
        command.arg("--config").arg(&config).arg("task").args(arguments).uid(65534).gid(65534);
        let output = command.output().unwrap();
        let why = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        assert!(why.contains("run this as root (sudo)"), "{why}");
    }
    world.nothing_left().await;
}

#[tokio::test]
async fn a_watched_list_ends_with_its_reader() {
    let world = World::new().await;
    let task = world.running(&app("/web", "sleep 1000", calico())).await;
    let mut watching = command(&world, &["list", "-o", "name", "--watch=0.1"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(watching.stdout.take().unwrap()).lines();
    for _ in 0..3 {
        assert_eq!(lines.next().unwrap().unwrap(), task.id);
    }
    drop(lines);
    let ended = async || watching.try_wait().unwrap().map(|status| status.success());
    assert!(eventually("the program ends", ended).await);
    task.kill().await;
    world.nothing_left().await;
}

/// Way in B: several tasks of one executor, whose sandbox they share; health checks are Mesos'.
#[tokio::test]
async fn a_command_of_a_custom_executor_is_a_task_like_any_other() {
    let world = World::with(|_| (), tell_custom_executors).await;
    let mut info = task_info(&app("/batch", "x", json!({})));
    let variable = |name: &str, value: &str| calico_mesos::mesos::messages::environment::Variable {
        name: name.into(),
        value: Some(value.into()),
        ..Default::default()
    };
    info.container = None;
    info.command = Some(CommandInfo {
        shell: Some(true),
        value: Some(TALKS.into()),
        environment: Some(calico_mesos::mesos::messages::Environment {
            variables: vec![variable("CALICO_IP", "auto")],
        }),
        ..Default::default()
    });
    info.executor = Some(ExecutorInfo {
        executor_id: "batch".to_owned().into(),
        command: Some(CommandInfo {
            shell: Some(false),
            value: Some(crate::world::EXECUTOR.into()),
            ..Default::default()
        }),
        ..Default::default()
    });
    let task = world.launch_info(info).await;
    task.reaches(TaskState::TaskRunning).await;
    let shown = document(&world, &["show", &task.id]);
    assert_eq!((&shown["workload"]["kind"], &shown["state"]), (&json!("command"), &json!("running")));
    assert_eq!(shown["addresses"][0]["host_route"], json!(true));
    let seen = says(&world, &["exec", &task.id, "--", "ip", "-4", "-o", "addr"]);
    assert!(seen.contains(shown["addresses"][0]["address"].as_str().unwrap()), "{seen}");
    assert!(says(&world, &["logs", &task.id, "--only", "stdout"]).contains("hello\n"));
    task.kill().await;
    world.cleaned().await;
}
