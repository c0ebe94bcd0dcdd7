//! Commands beside the workload: exit codes, output, and that none outlives its check.

use std::collections::BTreeMap;
use std::time::Duration;

use calico_mesos::host::processes::{command_line, pids};
use calico_mesos::limits::START_WITHOUT_GATE as START;
use calico_mesos::task::health::{
    Check, CheckTiming, CheckVerdict, Checks, CommandLine, Exec, Probe, Target,
};
use calico_mesos::workload::{Docker, DockerError, DockerHost};

use crate::daemon::{append, own_daemon, own_dir, shared, shell, unique};
use crate::kit::faults::Freeze;
use crate::kit::wait::within;

/// A container that sleeps.
struct Sleeper {
    docker: Docker,
    id: String,
}

impl Sleeper {
    async fn start(docker: Docker) -> Self {
        let mut spec = shell("trap 'exit 0' TERM; echo up > /up; sleep 1000 & wait");
        spec.environment = vec!["A=container".into(), "B=container".into()];
        let id = docker.create(&unique("mesos"), &spec).await.unwrap();
        docker.start(&id, START).await.unwrap();
        Self { docker, id }
    }

    async fn run(&self, argv: &[&str], most: usize) -> Result<(i64, String), DockerError> {
        let file = tempfile::NamedTempFile::new().unwrap();
        let environment = BTreeMap::from([("B".to_owned(), "check".to_owned())]);
        let running = self.docker.exec(&self.id, &words(argv), &environment).await?;
        let code = running.exit(Some(append(file.path())), most).await?;
        Ok((code, std::fs::read_to_string(file.path()).unwrap()))
    }

    async fn verdict(&self, argv: &[&str], timeout: Duration) -> CheckVerdict {
        let line =
            CommandLine { program: argv[0].to_owned(), arguments: words(argv), environment: BTreeMap::new() };
        let timing = CheckTiming {
            delay: Duration::ZERO,
            interval: Duration::ZERO,
            timeout: Some(timeout),
            grace: Duration::ZERO,
            failures: 1,
        };
        let exec = Exec::Docker { docker: self.docker.clone(), id: self.id.clone() };
        let target = Target { namespace: None, addresses: Vec::new(), exec };
        Checks::begin(Check { timing, probe: Probe::Command(line) }, target).verdict().await
    }

    async fn remove(self) {
        self.docker.remove(&self.id, true).await.unwrap();
    }
}

fn words(argv: &[&str]) -> Vec<String> {
    argv.iter().map(|word| (*word).to_owned()).collect()
}

/// Pids of all processes whose command line has this word.
fn processes(word: &str) -> Vec<i32> {
    let named = |pid: &i32| command_line(*pid).is_some_and(|words| words.iter().any(|its| its == word));
    pids().filter(named).collect()
}

async fn until_processes(word: &str, count: usize) {
    within(Duration::from_secs(20), format!("{count} processes run '{word}'"), async || {
        let found = processes(word);
        if found.len() == count {
            Ok(())
        } else {
            Err(format!("{found:?}"))
        }
    })
    .await;
}

#[tokio::test]
async fn exit_code_output_and_environment() {
    let daemon = shared();
    let sleeper = Sleeper::start(daemon.connect().await).await;
    let shell = |script| ["sh", "-c", script];
    let ran = sleeper.run(&shell("echo $A $B; echo err >&2; exit 7"), 1000).await.unwrap();
    assert_eq!(ran.0, 7);
    assert!(ran.1.contains("container check\n") && ran.1.contains("err\n"), "{}", ran.1);
    assert_eq!(sleeper.run(&["echo", "a b", "c"], 1000).await.unwrap(), (0, "a b c\n".into()));
    let (code, output) = sleeper.run(&shell("seq 1 100000"), 1000).await.unwrap();
    assert!(code == 0 && output.len() < 1200 && output.contains("left out"), "{} bytes", output.len());
    let missing = sleeper.run(&["nope"], 1000).await;
    assert!(!matches!(missing, Ok((0, _))), "{missing:?}");
    sleeper.remove().await;
}

#[tokio::test]
async fn a_container_that_is_gone_is_told() {
    let daemon = shared();
    let sleeper = Sleeper::start(daemon.connect().await).await;
    sleeper.docker.kill(&sleeper.id).await.unwrap();
    sleeper.run(&["true"], 0).await.unwrap_err();
    sleeper.docker.remove(&sleeper.id, true).await.unwrap();
    let error = sleeper.run(&["true"], 0).await.unwrap_err();
    assert!(matches!(error, DockerError::NoContainer { .. }), "{error}");
}

#[tokio::test]
async fn what_a_check_finds() {
    let daemon = shared();
    let sleeper = Sleeper::start(daemon.connect().await).await;
    let limit = Duration::from_secs(20);
    assert!(sleeper.verdict(&["test", "-f", "/up"], limit).await.healthy);
    let bad = sleeper.verdict(&["sh", "-c", "exit 9"], limit).await;
    assert_eq!((bad.healthy, bad.kill, bad.why.as_str()), (false, true, "the command exits with status 9"));
    sleeper.remove().await;
}

#[tokio::test]
async fn nothing_of_a_check_outlives_its_time() {
    let daemon = shared();
    let sleeper = Sleeper::start(daemon.connect().await).await;
    // Two children, one of which has left the session.
    let child = format!("sleep 1000; : {}", unique("child"));
    let script = format!("sh -c '{child}' & setsid sh -c '{child}' & trap '' TERM; wait");
    let argv = ["sh", "-c", &script];
    let (verdict, ()) =
        tokio::join!(sleeper.verdict(&argv, Duration::from_secs(3)), until_processes(&child, 2));
    assert_eq!(verdict.why, "no answer within 3 s");
    until_processes(&child, 0).await;
    until_processes(&script, 0).await;
    let inspected = sleeper.docker.inspect(&sleeper.id).await.unwrap();
    assert!(inspected.running, "the workload itself was hit");
    sleeper.remove().await;
}

#[tokio::test]
async fn a_daemon_that_is_away_says_nothing_about_health() {
    let dir = own_dir();
    let mut daemon = own_daemon(dir.path()).await;
    let docker = Docker::connect(&DockerHost::parse(&daemon.host()).unwrap(), "").await.unwrap();
    let sleeper = Sleeper::start(docker).await;
    daemon.freeze();
    let limit = Duration::from_millis(500);
    let verdict = tokio::time::timeout(Duration::from_secs(2), sleeper.verdict(&["true"], limit));
    assert!(verdict.await.is_err(), "a frozen daemon was taken for an ill task");
    daemon.thaw();
    assert!(sleeper.verdict(&["true"], Duration::from_secs(20)).await.healthy);
    sleeper.remove().await;
    daemon.stop().await;
}
