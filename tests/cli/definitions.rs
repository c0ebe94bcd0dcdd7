//! `calico-mesos run` with app definitions as people have them.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use calico_mesos::rig::daemons::{Stack, StackOptions};

use crate::kit::faults::Freeze;
use crate::machine::{plain, App, Machine, PROGRAM};
use crate::netlab::require_private_network;

const BUSYBOX: &str = r#""container": {"type": "DOCKER", "docker": {"image": "busybox"}}"#;

/// An app of busybox, with these fields more.
fn app(id: &str, cmd: &str, rest: &str) -> String {
    format!(r#"{{"id": "{id}", "cpus": 0.1, "mem": 32, "cmd": {cmd:?}, {rest}, {BUSYBOX}}}"#)
}

/// A shell script in a machine's own namespace, with a web server for the folder at port 8000 of it.
fn beside_a_web_server(folder: &std::path::Path, script: &str) -> crate::machine::Outcome {
    let script = format!(
        "busybox httpd -f -p 127.0.0.1:8000 -h {} & server=$!\n\
         until curl -so /dev/null http://127.0.0.1:8000/; do sleep 0.05; done\n\
         {script}\ncode=$?\nkill $server; wait $server; exit $code",
        folder.display()
    );
    Machine::start_with(&["bash", "-c", &script]).finish()
}

#[test]
fn local_and_http_uris_are_in_the_sandbox_before_the_task_starts() {
    let files = tempfile::tempdir().unwrap();
    let made = std::process::Command::new("sh")
        .args(["-ec", "echo packed >inside; tar czf a.tgz inside; echo 'echo ran' >tool; echo local >plain"])
        .current_dir(files.path())
        .status();
    assert!(made.unwrap().success());
    let rest = format!(
        r#""fetch": [{{"uri": "http://127.0.0.1:8000/a.tgz"}},
                     {{"uri": "http://127.0.0.1:8000/tool", "executable": true, "destPath": "bin/tool"}},
                     {{"uri": "file://{}/plain"}}, {{"uri": "hdfs://name/x.jar"}}]"#,
        files.path().display()
    );
    let app = App::new(&app("fetching", "cd $MESOS_SANDBOX && cat inside plain && bin/tool", &rest));
    let outcome = beside_a_web_server(files.path(), &format!("{PROGRAM} run {} --dev", app.path));
    outcome.expect(0);
    for line in ["| packed", "| local", "| ran"] {
        outcome.says(line);
    }
    // Said before anything was launched.
    let note =
        "note: hdfs://name/x.jar is not fetched: only local files and http, https, ftp, ftps are fetched";
    let (before, _) = outcome.stdout.split_once("STARTING > RUNNING").expect("it ran");
    assert!(before.contains(note), "{outcome:#?}");
    outcome.says("left behind: nothing");
}

#[test]
fn a_uri_that_cannot_be_fetched_fails_the_launch_with_the_reason() {
    let files = tempfile::tempdir().unwrap();
    let app = App::new(&app("fetching", "true", r#""uris": ["http://127.0.0.1:8000/none.tgz"]"#));
    let outcome = beside_a_web_server(files.path(), &format!("{PROGRAM} run {} --dev", app.path));
    outcome.expect(1);
    for words in ["cannot fetch http://127.0.0.1:8000/none.tgz for task 'fetching.", "curl failed", "404"] {
        assert!(outcome.stderr.contains(words), "{outcome:#?}");
    }
    outcome.says("nothing had to be removed; left behind: nothing");
}

/// The peer accepts and says nothing; the connection is seen in the kernel's table, by the port in hexadecimal.
#[test]
fn an_end_is_heard_while_a_uri_is_fetched() {
    let app = App::new(&app("fetching", "true", r#""uris": ["http://127.0.0.1:8000/slow.tgz"]"#));
    let script = format!(
        "sleep 1000 | busybox nc -l -p 8000 >/dev/null & peer=$!\n\
         {PROGRAM} run {} --dev & run=$!\n\
         until grep -q ' 0100007F:1F40 01 ' /proc/net/tcp || ! kill -0 $run; do sleep 0.05; done\n\
         begun=$SECONDS; kill -TERM $run; wait $run; code=$?\n\
         echo took $((SECONDS - begun)) s; kill $(jobs -p) $(pgrep -P $$ sleep); exit $code",
        app.path
    );
    let outcome = Machine::start_with(&["bash", "-c", &script]).finish();
    outcome.expect(0);
    outcome.says("fetching http://127.0.0.1:8000/slow.tgz");
    outcome.says("nothing had to be removed; left behind: nothing");
    let took: u32 = outcome.stdout.split_once("took ").unwrap().1.split(' ').next().unwrap().parse().unwrap();
    assert!(took < 20, "{outcome:#?}");
}

#[test]
fn what_marathon_itself_would_check_is_said_before_the_launch() {
    let text = app("checked", "true", r#""healthChecks": [{"protocol": "HTTP"}, {"protocol": "TCP"}]"#);
    let app = App::new(&text);
    let outcome = Machine::start(&["run", &app.path, "--dev"]).finish();
    outcome.expect(0);
    let (before, _) = outcome.stdout.split_once("1 instance").expect("it was launched");
    assert!(before.contains("note: healthChecks[0] is left out: Marathon itself makes HTTP"), "{outcome:#?}");
    assert!(before.contains("note: healthChecks[1] is left out: Marathon itself makes TCP"), "{outcome:#?}");
}

/// The outer run's task has the first host port, which nothing listens on: it leads to the task's address.
#[test]
fn host_ports_that_lead_to_another_task_are_not_assigned() {
    let rest = r#""ports": [0], "env": {"CALICO_IP": "auto"}"#;
    let outer = App::new(&app("outer", "sleep 1000", rest));
    let inner = App::new(&app("inner", "echo has $PORT0 of its own; sleep 1000", rest));
    let then = "until grep -q own $CM_LOGS; do sleep 0.05; done; cat $CM_LOGS";
    let nested = format!("nft list tables; {PROGRAM} run {} --dev --then '{then}'", inner.path);
    let outcome = Machine::start(&["run", &outer.path, "--dev", "--then", &nested]).finish();
    outcome.expect(0);
    outcome.says("calico-mesos-ports");
    outcome.says("has 31001 of its own");
}

#[test]
fn one_app_of_a_group_is_run_by_its_id() {
    let group = format!(
        r#"{{"id": "/shop", "apps": [{}], "groups": [{{"id": "back", "apps": [{}]}}]}}"#,
        app("web", "true", r#""env": {}"#),
        app("db", "echo I am $MARATHON_APP_ID", r#""env": {}"#)
    );
    let file = App::new(&group);
    let outcome = plain(&["run", &file.path, "--dev"]);
    assert_eq!((outcome.code, &*outcome.stdout), (1, ""), "{outcome:?}");
    assert!(outcome.stderr.contains("--app ID (/shop/web, /shop/back/db)"), "{outcome:?}");
    let outcome = Machine::start(&["run", &file.path, "--app", "/shop/back/db", "--dev"]).finish();
    outcome.expect(0);
    outcome.says("| I am /shop/back/db");
}

#[test]
fn a_bridge_that_dev_does_not_have_is_said_before_the_launch() {
    let text = r#"{"id": "bridged", "cpus": 0.1, "mem": 32, "cmd": "ip -o link | wc -l",
        "container": {"type": "DOCKER", "docker": {"image": "busybox", "network": "BRIDGE"}}}"#;
    let app = App::new(text);
    let outcome = Machine::start(&["run", &app.path, "--dev"]).finish();
    outcome.expect(0);
    let (before, _) = outcome.stdout.split_once("1 instance").expect("it was launched");
    assert!(before.contains("note: the private Docker of --dev has no bridge"), "{outcome:#?}");
    outcome.says("| 1");
}

#[tokio::test]
async fn a_long_launch_says_what_it_is_waiting_for() {
    require_private_network();
    let runtime = std::path::Path::new(PROGRAM).with_file_name("calico-runc");
    let stack = Stack::start(StackOptions { runtime: Some(runtime), ..Default::default() }).await.unwrap();
    let app = App::calico("echo up");
    let mut run = Command::new(PROGRAM)
        .args(["run", &app.path, "--yes", "--config", stack.config.to_str().unwrap()])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    stack.docker.freeze();
    let lines = BufReader::new(run.stdout.take().unwrap()).lines();
    let told = tokio::task::spawn_blocking(move || {
        let mut lines = lines.map(Result::unwrap);
        let waiting = lines.find(|line| line.contains("  waiting "));
        (waiting, lines)
    });
    let (waiting, lines) = told.await.unwrap();
    stack.docker.thaw();
    let rest: Vec<String> = tokio::task::spawn_blocking(|| lines.collect()).await.unwrap();
    let status = tokio::task::spawn_blocking(move || run.wait()).await.unwrap().unwrap();
    let waiting = waiting.unwrap();
    assert!(waiting.contains("waiting for Docker to create the container ("), "{waiting}");
    assert!(status.success() && rest.iter().any(|line| line.contains("| up")), "{rest:#?}");
    stack.stop().await.unwrap();
}
