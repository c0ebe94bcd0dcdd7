//! A container that others make, start and stop has the same life as any Calico task.

use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use calico_mesos::mesos::messages::ExecutorInfo;
use calico_mesos::names::ContainerId;
use calico_mesos::task::channel::{Cause, Ended, Kill, LifeChange, LifeChannel, Order, OthersWord, Outcome};
use calico_mesos::task::life::{self, LifeEnd};
use calico_mesos::task::request;
use calico_mesos::task::request::{docker_host, CalicoTask, Context, ForeignContainer, Task, Work};
use serde_json::{json, Value};
use tokio::sync::mpsc::{self, UnboundedReceiver, UnboundedSender};
use tokio::task::JoinHandle;

use crate::world::{app, calico, sh, task_info, with, World, LIMIT};

/// A container that a client of the Docker API has made, and the life that goes with it.
struct Adopted {
    docker_id: String,
    life: JoinHandle<LifeEnd>,
    kills: UnboundedSender<Kill>,
    changes: UnboundedReceiver<(String, LifeChange)>,
}

impl Adopted {
    async fn begin(world: &World, script: &str) -> Self {
        let body = json!({
            "Image": "busybox", "Cmd": ["sh", "-c", script],
            "HostConfig": {"NetworkMode": "none", "Runtime": request::RUNTIME}
        });
        let docker_id = post(world, "/containers/create", &body).await["Id"].as_str().unwrap().to_owned();
        let info = task_info(&app("/adopted", script, with(calico(), "SERVICE_PORT", "80")));
        let container = ContainerId::random();
        let socket = world.stack.docker.socket.display().to_string();
        let choose = || docker_host::choose(None, false, &world.stack.config, Some(&socket));
        let context = Context::of_custom(&container, Path::new("/sandbox"), None, &choose);
        let custom = request::Custom { executor: &ExecutorInfo::default(), arguments: &[] };
        let mut description = request::describe_custom(&info, &custom, &context).unwrap();
        let work = Work::Foreign(ForeignContainer {
            docker: choose().unwrap().host,
            id: docker_id.clone(),
            hostname: "web".to_owned(),
            checked: false,
            last: Vec::new(),
        });
        let task = CalicoTask::clone(description.task.calico().unwrap());
        description.task = Task::Calico(Arc::new(CalicoTask { work, ..task }));
        let order = Order {
            container,
            name: docker_id.clone(),
            description,
            config_path: world.stack.config.clone(),
            framework: "docker".to_owned(),
            host_address: None,
        };
        Self::of(docker_id, |channel| tokio::spawn(life::live_adopted(order, channel)))
    }

    /// Its next start.
    fn again(docker_id: String, held: life::HeldNetwork) -> Self {
        Self::of(docker_id, |channel| tokio::spawn(life::live_again(held, channel)))
    }

    fn of(docker_id: String, live: impl FnOnce(LifeChannel) -> JoinHandle<LifeEnd>) -> Self {
        let (kills, receiver) = mpsc::unbounded_channel();
        let (sender, changes) = mpsc::unbounded_channel();
        let channel = LifeChannel {
            task_id: "web.1".to_owned(),
            kills: receiver,
            others: OthersWord::default(),
            changes: sender,
        };
        Self { docker_id, life: live(channel), kills, changes }
    }

    async fn next(&mut self) -> LifeChange {
        let next = tokio::time::timeout(LIMIT, self.changes.recv()).await;
        next.expect("nothing happens").expect("the life is over").1
    }

    async fn start(&mut self, world: &World) {
        let change = self.next().await;
        assert!(matches!(change, LifeChange::Prepared), "{change:?}");
        post(world, &format!("/containers/{}/start", self.docker_id), &Value::Null).await;
    }

    async fn runs(&mut self) -> IpAddr {
        match self.next().await {
            LifeChange::Running { addresses, .. } => addresses[0],
            other => panic!("{other:?}"),
        }
    }

    async fn over(self) -> LifeEnd {
        tokio::time::timeout(LIMIT, self.life).await.expect("it does not end").unwrap()
    }

    /// What it still has when it has ended by itself.
    async fn ends_held(self) -> life::HeldNetwork {
        *self.over().await.held.expect("nothing is held")
    }

    /// The outcome, once everything is taken down.
    async fn ends(self) -> Outcome {
        let LifeEnd { ended: Ended { outcome, afterwards }, held } = self.over().await;
        afterwards.await;
        if let Some(held) = held {
            held.give_back().await;
        }
        outcome
    }
}

async fn post(world: &World, path: &str, body: &Value) -> Value {
    // Docker refuses a start with a body.
    let body = if body.is_null() { String::new() } else { body.to_string() };
    let (status, text) = world.stack.docker.request("POST", path, body.as_bytes()).await.unwrap();
    assert!(status < 300, "{path}: {status} {text}");
    serde_json::from_str(&text).unwrap_or(Value::Null)
}

/// Everything is gone but the container, which is its maker's to remove.
async fn only_the_container_is_left(world: &World, id: &str) {
    let [container] = world.containers().await.try_into().unwrap();
    assert_eq!((&container["Id"], &container["State"] != "running"), (&json!(id), true));
    let (status, _) =
        world.stack.docker.request("DELETE", &format!("/containers/{id}?force=1"), b"").await.unwrap();
    assert_eq!(status, 204);
    world.nothing_left().await;
}

#[tokio::test]
async fn an_adopted_container_is_wired_and_its_end_reported() {
    let world = World::with(|stack| stack.consul = true, |_| ()).await;
    let mut task =
        Adopted::begin(&world, "trap 'exit 3' TERM; ip -4 -o addr show eth0; while :; do sleep 0.1; done")
            .await;
    let id = task.docker_id.clone();
    task.start(&world).await;
    let address = task.runs().await;
    assert!(sh(&format!("busybox ping -c 1 -W 2 {address}")).contains(" 0% packet loss"));
    world.registered("adopted-direct").await;
    // Its first instruction has seen the address.
    let (_, logs) =
        world.stack.docker.request("GET", &format!("/containers/{id}/logs?stdout=1"), b"").await.unwrap();
    assert!(logs.contains(&address.to_string()), "{logs}");

    post(&world, &format!("/containers/{id}/stop?t=10"), &Value::Null).await;
    assert_eq!(task.ends().await, Outcome::Over);
    only_the_container_is_left(&world, &id).await;
}

#[tokio::test]
async fn an_adopted_container_that_never_starts_is_given_up() {
    let world = World::new().await;
    let mut task = Adopted::begin(&world, "sleep 1000").await;
    let id = task.docker_id.clone();
    let change = task.next().await;
    assert!(matches!(change, LifeChange::Prepared), "{change:?}");
    task.kills.send(Kill { grace: Duration::ZERO, announce: true, cause: Cause::Asked }).unwrap();
    let outcome = task.ends().await;
    assert_eq!(outcome, Outcome::Killed { exit: None, cause: Cause::Asked });
    only_the_container_is_left(&world, &id).await;
}

/// The same namespace, endpoint and address, set anew; what outlived the container is dead.
#[tokio::test]
async fn it_starts_again_with_all_that_it_had() {
    let world = World::new().await;
    let mut task = Adopted::begin(&world, "ip -4 -o addr show eth0; exec sleep 1000").await;
    let id = task.docker_id.clone();
    task.start(&world).await;
    let address = task.runs().await;
    post(&world, &format!("/containers/{id}/kill"), &Value::Null).await;
    let held = task.ends_held().await;
    assert_eq!(held.addresses(), [address]);

    let mut again = Adopted::again(id.clone(), held);
    again.start(&world).await;
    assert_eq!(again.runs().await, address);
    assert!(sh(&format!("busybox ping -c 1 -W 2 {address}")).contains(" 0% packet loss"));
    post(&world, &format!("/containers/{id}/kill"), &Value::Null).await;
    assert_eq!(again.ends().await, Outcome::Over);
    only_the_container_is_left(&world, &id).await;
}
