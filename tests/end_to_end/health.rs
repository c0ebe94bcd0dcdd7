//! Health checks through the real executor: what the framework hears of them, and what follows.
//!
//! A task is well as long as there is a file `well` in its sandbox, which the tests put there and take away.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use calico_mesos::mesos::messages::task_status::Reason;
use calico_mesos::mesos::messages::{TaskState, TaskStatus};
use serde_json::{json, Value};

use crate::kit::wait::eventually;
use crate::world::{addresses, app, calico, Task, World};

/// Serves the sandbox, and tells each request in stderr.
const SERVER: &str = "httpd -f -vv -p 8080 -h /mnt/mesos/sandbox";
/// The same, but deaf on loopback.
const SERVER_OF_ITS_ADDRESS: &str = "httpd -f -vv -p $(hostname -i):8080 -h /mnt/mesos/sandbox";

fn checked(id: &str, cmd: &str, env: Value, check: Value) -> Value {
    let mut definition = app(id, cmd, env);
    let mut whole = json!({
        "delaySeconds": 0, "intervalSeconds": 0.1, "timeoutSeconds": 20,
        "gracePeriodSeconds": 600, "maxConsecutiveFailures": 3,
    });
    whole.as_object_mut().unwrap().extend(check.as_object().unwrap().clone());
    definition["healthChecks"] = json!([whole]);
    definition
}

fn http() -> Value {
    json!({"protocol": "MESOS_HTTP", "port": 8080, "path": "/well"})
}

fn command() -> Value {
    let script = "echo ran; test -f /mnt/mesos/sandbox/well";
    json!({"protocol": "COMMAND", "command": {"value": script}})
}

impl Task<'_> {
    fn set_well(&self, well: bool) {
        let path = self.sandbox().join("well");
        match well {
            true => std::fs::write(path, "").unwrap(),
            false => std::fs::remove_file(path).unwrap(),
        }
    }

    /// The updates that tell of health, in order.
    fn verdicts(&self) -> Vec<TaskStatus> {
        let history = self.world.agent.history(&self.id);
        let statuses = history.into_iter().map(|update| update.status);
        statuses.filter(|status| status.healthy.is_some()).collect()
    }

    async fn verdict(&self, number: usize) -> TaskStatus {
        let verdict = async || self.verdicts().get(number).cloned().ok_or(self);
        eventually(format!("there is verdict number {number}"), verdict).await
    }

    /// Ill in the grace period, then well, then ill for good.
    async fn lives_and_dies_by_its_health(&self, one_failure: &str) {
        let own = self.addresses();
        self.logs(one_failure, 3).await;
        assert_eq!(self.verdicts(), [], "failures of the grace period do not count");

        self.set_well(true);
        let well = self.verdict(0).await;
        assert_eq!((well.state(), well.healthy), (TaskState::TaskRunning, Some(true)));
        assert_eq!(well.reason, Some(Reason::TaskHealthCheckStatusUpdated.into()));
        assert_eq!((addresses(&well), &well.data), (own.clone(), &None));

        self.set_well(false);
        let last = self.ends().await;
        assert_eq!((last.state(), last.healthy), (TaskState::TaskKilled, Some(false)), "{}", self.log());
        let verdicts = self.verdicts();
        let healths: Vec<_> = verdicts.iter().map(|status| status.healthy).collect();
        let ill = Some(false);
        assert_eq!(healths, [Some(true), ill, ill, ill, ill], "three failures and the end");
        assert!(verdicts.iter().all(|status| addresses(status) == own), "{verdicts:?}");
        use TaskState::*;
        let states = [TaskStarting, TaskRunning, TaskRunning, TaskRunning, TaskRunning, TaskRunning];
        assert_eq!(self.states(), [&states[..], &[TaskKilling, TaskKilled]].concat());
        self.executor_exit().await;
    }
}

#[tokio::test]
async fn http_of_a_task_bound_to_its_calico_address_alone() {
    let world = World::new().await;
    let task = world.running(&checked("/web", SERVER_OF_ITS_ADDRESS, calico(), http())).await;
    task.lives_and_dies_by_its_health("response:404").await;
    assert!(task.log().contains("answered 404"), "{}", task.log());
    world.nothing_left().await;
}

#[tokio::test]
async fn http_of_a_task_without_calico() {
    let world = World::new().await;
    let task = world.running(&checked("/plain", SERVER, json!({}), http())).await;
    task.lives_and_dies_by_its_health("response:404").await;
}

#[tokio::test]
async fn a_command_in_the_container() {
    let world = World::new().await;
    let task = world.running(&checked("/commanded", "sleep 1000", calico(), command())).await;
    task.lives_and_dies_by_its_health("ran\n").await;
    world.nothing_left().await;
}

#[tokio::test]
async fn tcp_and_no_word_after_a_kill() {
    let world = World::new().await;
    let check = json!({"protocol": "MESOS_TCP", "port": 8080, "maxConsecutiveFailures": 1000});
    let server = format!(
        "{SERVER} & server=$!; trap 'kill $server' TERM; wait; \
                          echo down >> /mnt/mesos/sandbox/down; sleep 2"
    );
    let task = world.running(&checked("/tcp", &server, calico(), check)).await;
    assert_eq!(task.verdict(0).await.healthy, Some(true));
    world.agent.kill(&task.id, Some(Duration::from_secs(30))).await.unwrap();
    let last = task.ends().await;
    assert_eq!((last.state(), last.healthy), (TaskState::TaskKilled, None), "{}", task.log());
    assert_eq!(task.file("down").await, "down\n", "the task was not asked politely");
    assert_eq!(task.verdicts().len(), 1, "a task that is being stopped is not ill");
    task.executor_exit().await;
    world.nothing_left().await;
}

#[tokio::test]
async fn no_check_but_a_command_costs_a_process() {
    let world = World::new().await;
    let task = world.running(&checked("/web", SERVER, calico(), http())).await;
    let seen = tokio::spawn(children_of(task.launched.executor_pid, task.sandbox().join("enough")));
    let before = task.log().matches("response:404").count();
    task.logs("response:404", before + 20).await;
    std::fs::write(task.sandbox().join("enough"), "").unwrap();
    let (looks, children) = seen.await.unwrap();
    assert!(looks > 100 && children.is_empty(), "{looks} looks found {children:?}");
    task.kill().await;
}

/// Every child that the process ever has, until the file exists.
async fn children_of(parent: u32, until: impl AsRef<Path>) -> (usize, BTreeSet<String>) {
    let (mut looks, mut children) = (0, BTreeSet::new());
    while !until.as_ref().exists() {
        for task in std::fs::read_dir(format!("/proc/{parent}/task")).unwrap().flatten() {
            // A thread of one probe may be gone already.
            let own = std::fs::read_to_string(task.path().join("children")).unwrap_or_default();
            children.extend(own.split_whitespace().map(str::to_owned));
        }
        looks += 1;
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    (looks, children)
}

/// The state of each check of a service in Consul's catalogue.
async fn consul_says(world: &World, service: &str) -> Vec<String> {
    let entries = world.consul(&format!("/v1/health/service/{service}")).await;
    let own = |check: &Value| {
        check["CheckID"].as_str().unwrap().starts_with("service:").then(|| check["Status"].clone())
    };
    let checks = entries.as_array().unwrap().iter().flat_map(|entry| entry["Checks"].as_array().unwrap());
    checks.filter_map(own).map(|status| status.as_str().unwrap().to_owned()).collect()
}

async fn consul_comes_to_say(task: &Task<'_>, status: &str) {
    for service in ["web-direct", "web"] {
        eventually(format!("{service} is {status} in Consul"), async || {
            let said = consul_says(task.world, service).await;
            if said == [status] {
                Ok(())
            } else {
                Err(format!("{said:?}{task}"))
            }
        })
        .await;
    }
}

#[tokio::test]
async fn consul_follows_the_tasks_health() {
    let mut world = World::with(|stack| stack.consul = true, |_| ()).await;
    let check = json!({"protocol": "COMMAND", "maxConsecutiveFailures": 1_000_000,
                       "command": {"value": "test -f /mnt/mesos/sandbox/well"}});
    let definition = checked("/web", "sleep 1000", calico(), check);
    let (id, sandbox) = {
        let task = world.running(&definition).await;
        consul_comes_to_say(&task, "critical").await;
        task.set_well(true);
        consul_comes_to_say(&task, "passing").await;
        task.set_well(false);
        consul_comes_to_say(&task, "critical").await;
        (task.id.clone(), task.launched.clone())
    };
    // This Consul forgets everything; the task's next news brings it all back.
    world.stack.consul.as_mut().unwrap().kill();
    let task = Task { world: &world, id: id.clone(), launched: sandbox.clone() };
    task.set_well(true);
    let well = async || (task.verdicts().last().unwrap().healthy == Some(true)).then_some(()).ok_or(&task);
    eventually("it is healthy again", well).await;
    world.stack.consul.as_mut().unwrap().restart().await.unwrap();
    let task = Task { world: &world, id, launched: sandbox };
    consul_comes_to_say(&task, "passing").await;
    task.kill().await;
    world.nothing_left().await;
}
