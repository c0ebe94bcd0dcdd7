//! `calico-mesos run` from end to end.

use std::time::Duration;

use calico_mesos::rig::daemons::{Stack, StackOptions};
use nix::sys::signal::Signal;

use crate::machine::{plain, testapp, App, Machine, PROGRAM};
use crate::netlab::require_private_network;

const TICKING: &str = "echo hello from $HOSTNAME; while sleep 1; do date; done";

#[test]
fn two_instances_with_addresses_names_and_output() {
    let app = App::calico(TICKING);
    let mut machine = Machine::start(&["run", &app.path, "--dev", "--instances", "2", "--for", "3s"]);
    machine.wait_for("| hello from");
    let outcome = machine.finish();
    outcome.expect(0);
    assert_eq!(outcome.stderr, "", "{outcome:#?}");
    outcome.says("/hello  busybox  2 instances  profile dev (will be created)");
    outcome.says("STARTING > RUNNING");
    outcome.says("TASK ");
    outcome.says("DNS  hello-direct.service.consul > ");
    outcome.says("(SRV 8080)");
    outcome.says("try  dig @127.0.0.1 -p ");
    outcome.says("stopping 2 tasks ... KILLED KILLED");
    outcome.says(
        "removed 4 Consul entries, 2 endpoints, 2 veths, 2 namespaces, 2 addresses; left behind: nothing",
    );
}

/// The issue's own app, and the steps of `make demo`.
#[test]
fn the_demo_runs_and_leaves_nothing() {
    let steps = crate::machine::root().join("scripts/demo-steps.sh");
    let arguments = ["run", &testapp(), "--dev", "--instances", "2", "--then", steps.to_str().unwrap()];
    let outcome = Machine::start(&arguments).finish();
    outcome.expect(0);
    outcome.says("3 packets transmitted, 3 packets received, 0% packet loss");
    outcome.says("IN\tSRV\t1 1 3000 ");
    outcome.says("left behind: nothing");
}

/// SIGTERM and Ctrl-C are one; a shell's background job would not get the latter while it starts.
#[test]
fn a_run_that_is_ended_at_any_moment_leaves_nothing() {
    let app = App::calico(TICKING);
    for milliseconds in [0, 50, 600, 1200, 1800, 2200] {
        let machine = Machine::start(&["run", &app.path, "--dev", "--instances", "2"]);
        machine.signal_after(Duration::from_millis(milliseconds), Signal::SIGTERM);
        let outcome = machine.finish();
        // 143: before it could listen for signals, and thus before it made anything.
        let at_once = outcome.code == 143 && outcome.stdout.is_empty();
        outcome.expect(if at_once { 143 } else { 0 });
    }
}

#[test]
fn ctrl_c_once_and_twice_while_tasks_run() {
    // Process 1 of a container ignores SIGTERM unless it says otherwise: the grace runs its whole length.
    let app = App::calico("while true; do sleep 1; done");
    let mut machine = Machine::start(&["run", &app.path, "--dev"]);
    machine.wait_for("try  dig");
    machine.signal(Signal::SIGINT);
    let outcome = machine.finish();
    outcome.expect(0);
    outcome.says("stopping 1 task ... KILLED");

    let mut machine = Machine::start(&["run", &app.path, "--dev"]);
    machine.wait_for("try  dig");
    machine.signal(Signal::SIGTERM);
    machine.wait_for("stopping 1 task ...");
    machine.signal(Signal::SIGTERM);
    let outcome = machine.finish();
    outcome.expect(0);
    outcome.says("at once ... KILLED");
}

#[test]
fn a_task_that_fails_is_explained_and_removed() {
    let text = r#"{"id": "broken", "cpus": 0.1, "mem": 32, "args": ["/no/such/program"],
        "container": {"type": "DOCKER", "docker": {"image": "busybox"}}, "env": {"CALICO_IP": "auto"}}"#;
    let app = App::new(text);
    let outcome = Machine::start(&["run", &app.path, "--dev"]).finish();
    outcome.expect(1);
    outcome.says("STARTING > FAILED");
    outcome.says("CM-");
    outcome.says("left behind: nothing");

    // Outside every pool: the app's fault, told at once.
    let text = text.replace("\"auto\"", "\"203.0.113.7\"");
    let app = App::new(&text);
    let outcome = Machine::start(&["run", &app.path, "--dev"]).finish();
    outcome.expect(1);
    outcome.says("203.0.113.7");
}

#[test]
fn a_command_that_fails_fails_the_run() {
    let app = App::calico(TICKING);
    let outcome = Machine::start(&["run", &app.path, "--dev", "--then", "exit 7"]).finish();
    outcome.expect(1);
    outcome.says("exit status: 7");
    outcome.says("left behind: nothing");
}

#[test]
fn an_app_that_ends_by_itself_ends_the_run() {
    let app = App::calico("echo done; sleep 1");
    let outcome = Machine::start(&["run", &app.path, "--dev"]).finish();
    outcome.expect(0);
    outcome.says("FINISHED");
    outcome.says("| done");
}

/// Way B: the app names our executor where it is installed, and there is no container.
#[test]
fn commands_of_a_custom_executor() {
    let text = r#"{"id": "batch", "cpus": 0.1, "mem": 32, "executor": "/nowhere/bin/calico-executor",
        "cmd": "'echo hello from $MARATHON_APP_ID; ip -4 -o addr show eth0; exec sleep 1000'",
        "env": {"CALICO_IP": "auto", "SERVICE_PORT": "8080"}}"#;
    let app = App::new(text);
    let then = "test \"$CM_CONTAINERS\" = '- -' && grep -h inet $CM_LOGS";
    let arguments = ["run", &app.path, "--dev", "--instances", "2", "--then", then];
    let outcome = Machine::start(&arguments).finish();
    outcome.expect(0);
    outcome.says("executor /nowhere/bin/calico-executor is not on this machine; used instead: ");
    outcome.says("/batch  a command  2 instances  profile dev");
    outcome.says(", rest executor)");
    outcome.says("DNS  batch-direct.service.consul > ");
    outcome.says("eth0    inet 192.168.");
    outcome.says("stopping 2 tasks ... KILLED KILLED");
    outcome.says(
        "removed 4 Consul entries, 2 endpoints, 2 veths, 2 namespaces, 2 addresses; left behind: nothing",
    );
}

#[test]
fn a_command_ends_as_it_likes_and_when_it_is_asked_to() {
    let app = |cmd: &str| App::new(&format!(r#"{{"id": "batch", "cpus": 0.1, "mem": 32, "cmd": "{cmd}"}}"#));
    let executor = ["--dev", "--executor", "/nowhere/calico-executor"];
    for (cmd, code, words) in [("'echo done; exit 0'", 0, "FINISHED"), ("'exit 3'", 1, "status 3")] {
        let app = app(cmd);
        let outcome = Machine::start(&[&["run", &app.path], &executor[..]].concat()).finish();
        outcome.expect(code);
        outcome.says(words);
        outcome.says("left behind: nothing");
    }
    // With the first Ctrl-C the grace begins, the second one cuts it short; nobody of the family is left.
    let app = app("'trap : TERM; echo up; sleep 1000 & while :; do sleep 0.2; done'");
    let mut machine = Machine::start(&[&["run", &app.path], &executor[..]].concat());
    machine.wait_for("| up");
    machine.signal(Signal::SIGINT);
    machine.wait_for("stopping 1 task ...");
    machine.signal(Signal::SIGINT);
    let outcome = machine.finish();
    outcome.expect(0);
    outcome.says(" KILLED");
}

#[test]
fn a_container_of_a_custom_executor() {
    let text = r#"{"id": "hello", "cpus": 0.1, "mem": 32, "executor": "/nowhere/calico-executor",
        "cmd": "'echo hello from $HOSTNAME; while sleep 1; do date; done'",
        "env": {"CALICO_IP": "auto", "CALICO_DOCKER_IMAGE": "busybox"}}"#;
    let app = App::new(text);
    let mut machine = Machine::start(&["run", &app.path, "--dev"]);
    machine.wait_for("| hello from");
    machine.signal(Signal::SIGTERM);
    let outcome = machine.finish();
    outcome.expect(0);
    outcome.says("/hello  busybox  1 instance  profile dev");
    outcome.says(", rest Docker)");
    outcome
        .says("removed 2 Consul entries, 1 endpoint, 1 veth, 1 namespace, 1 address; left behind: nothing");

    let then = "case $CM_CONTAINERS in calico-mesos-*) ;; *) exit 1 ;; esac";
    let outcome = Machine::start(&["run", &app.path, "--dev", "--then", then]).finish();
    outcome.expect(0);
}

#[test]
fn a_reader_that_goes_away_ends_the_run() {
    let app = App::calico(TICKING);
    let line = format!("{PROGRAM} run {} --dev | head -1; exit ${{PIPESTATUS[0]}}", app.path);
    let outcome = Machine::start_with(&["bash", "-c", &line]).finish();
    outcome.expect(0);
}

/// On daemons that are not its own: asks, registers nothing, leaves nothing.
#[tokio::test]
async fn on_the_machine_as_it_is_configured() {
    require_private_network();
    let runtime = std::path::Path::new(PROGRAM).with_file_name("calico-runc");
    let options =
        StackOptions { runtime: Some(runtime), consul: true, any_dns_port: true, ..Default::default() };
    let stack = Stack::start(options).await.unwrap();
    let config = stack.config.to_str().unwrap().to_owned();
    let app = App::calico(TICKING);

    let path = app.path.clone();
    let run = move |arguments: Vec<&'static str>| {
        let line: Vec<String> = ["run", &path, "--config", &config].map(str::to_owned).into();
        let line: Vec<String> = line.into_iter().chain(arguments.into_iter().map(str::to_owned)).collect();
        tokio::task::spawn_blocking(move || plain(&line.iter().map(String::as_str).collect::<Vec<_>>()))
    };

    let outcome = run(vec![]).await.unwrap();
    outcome.expect(1);
    outcome.says("go on? [y/N]");
    outcome.says("nothing was launched");

    let outcome = run(vec!["--yes", "--for", "2s"]).await.unwrap();
    outcome.expect(0);
    outcome.says(&stack.etcd_endpoint);
    outcome.says("nothing is registered (--register registers the tasks)");
    outcome.says("removed 1 endpoint, 1 veth, 1 namespace, 1 address; left behind: nothing");
    assert!(!outcome.stdout.contains("DNS "), "{outcome:#?}");

    let outcome = run(vec!["--yes", "--register", "--for", "2s"]).await.unwrap();
    outcome.expect(0);
    outcome.says("removed 2 Consul entries, 1 endpoint");
    let (status, list) = stack.docker.request("GET", "/containers/json?all=1", b"").await.unwrap();
    assert_eq!((status, list.trim()), (200, "[]"));
    stack.stop().await.unwrap();
}
