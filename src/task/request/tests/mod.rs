//! Whole tasks, good and bad, and whatever proptest makes of one.

mod any;
mod bad;
mod calico;
mod custom;
mod health;
mod parameters;
mod parts;

use super::docker_host::{Chosen, Source};
use super::*;
use crate::config::Config;
use crate::error::{Blame, Code};
use crate::mesos::flags::Flags;
use crate::mesos::messages::container_info::docker_info::Network;
use crate::mesos::messages::container_info::{DockerInfo, Type};
use crate::mesos::messages::environment::Variable;
use crate::mesos::messages::*;
use crate::task::request::calico::{AddressRequest, Family};
use crate::workload::DockerHost;

fn flags() -> Flags {
    with_flags(&[])
}

fn with_flags(extra: &[&str]) -> Flags {
    let stock = [
        "mesos-docker-executor",
        "--container=mesos-1087382a-40ba-4fa3-9eda-41fed69a9a91",
        "--sandbox_directory=/sandbox",
        "--mapped_directory=/mnt/mesos/sandbox",
    ];
    Flags::parse(stock.iter().chain(extra).copied()).unwrap()
}

fn scalar(name: &str, value: f64) -> Resource {
    Resource {
        name: name.into(),
        r#type: value::Type::Scalar as i32,
        scalar: Some(value::Scalar { value }),
        allocation_info: Some(resource::AllocationInfo { role: Some("*".into()) }),
        ..Default::default()
    }
}

fn ports(begin: u64, end: u64) -> Resource {
    Resource {
        name: "ports".into(),
        r#type: value::Type::Ranges as i32,
        ranges: Some(value::Ranges { range: vec![value::Range { begin, end }] }),
        ..Default::default()
    }
}

fn parameter(key: &str, value: &str) -> Parameter {
    Parameter { key: key.into(), value: value.into() }
}

/// The app of the README as Marathon sends it.
fn testapp() -> TaskInfo {
    let mut task = TaskInfo {
        name: "testapp".into(),
        task_id: TaskId { value: "testapp.instance-7d0f._app.1".into() },
        resources: vec![scalar("cpus", 0.1), scalar("mem", 32.0)],
        command: Some(CommandInfo { value: Some("sleep 10".into()), ..Default::default() }),
        container: Some(ContainerInfo {
            r#type: Type::Docker as i32,
            docker: Some(DockerInfo {
                image: "busybox".into(),
                network: Some(Network::Host as i32),
                parameters: vec![parameter("label", "MESOS_TASK_ID=testapp.instance-7d0f._app.1")],
                ..Default::default()
            }),
            ..Default::default()
        }),
        ..Default::default()
    };
    for (name, value) in [
        ("MARATHON_APP_ID", "/testapp"),
        ("CALICO_IP", "auto"),
        ("CALICO_PROFILE", "dev"),
        ("SERVICE_PORT", "3000"),
    ] {
        set(&mut task, name, value);
    }
    task
}

/// The same without Calico.
fn plain() -> TaskInfo {
    let mut task = testapp();
    task.command.as_mut().unwrap().environment = None;
    task
}

fn set(task: &mut TaskInfo, name: &str, value: &str) {
    let environment = task.command.as_mut().unwrap().environment.get_or_insert_default();
    let value = Some(value.to_owned());
    environment.variables.push(Variable { name: name.into(), value, ..Default::default() });
}

fn container(task: &mut TaskInfo) -> &mut ContainerInfo {
    task.container.as_mut().unwrap()
}

fn docker(task: &mut TaskInfo) -> &mut DockerInfo {
    container(task).docker.as_mut().unwrap()
}

fn user_network(task: &mut TaskInfo, name: &str) {
    docker(task).network = Some(Network::User as i32);
    container(task).network_infos = vec![NetworkInfo { name: Some(name.into()), ..Default::default() }];
}

impl Description {
    /// The container that is to be made, if it is one.
    fn container(&self) -> Option<&ContainerSpec> {
        match self.task.work() {
            Work::Docker(task) => Some(&task.container),
            Work::Command(_) | Work::Foreign(_) => None,
        }
    }

    /// As a life holds it against the configuration.
    fn within(mut self, config: &Config) -> Result<Self, Failure> {
        if let Task::Calico(task) = &self.task {
            self.task = Task::Calico(Arc::new(CalicoTask::clone(task).within(config)?));
        }
        Ok(self)
    }
}

fn chosen() -> Result<Chosen, Failure> {
    let host = DockerHost::parse(DockerHost::DEFAULT).unwrap();
    Ok(Chosen { host, tls: None, credentials: None, source: Source::Socket })
}

/// As the drop-in understands it.
fn describe(task: &TaskInfo, flags: &Flags, memory: Option<u64>) -> Result<Description, Failure> {
    super::describe(task, &Context::of_agent(flags, memory, &chosen)?)
}

fn understood(task: &TaskInfo) -> Description {
    describe(task, &flags(), Some(1 << 30)).unwrap()
}

fn refusal(task: &TaskInfo) -> Failure {
    let failure = describe(task, &flags(), Some(1 << 30)).unwrap_err();
    assert_eq!(failure.blame(), Blame::App, "{failure}");
    failure
}

#[test]
fn the_app_of_the_readme() {
    let description = understood(&testapp());
    let spec = description.container().unwrap();
    assert_eq!(spec.entrypoint.as_deref().unwrap(), ["/bin/sh"]);
    assert_eq!(spec.command.as_deref().unwrap(), ["-c", "sleep 10"]);
    assert_eq!((spec.network.as_str(), spec.runtime.as_deref()), ("none", Some("calico")));
    assert_eq!(
        (spec.cpu_shares, spec.cpu_quota, spec.memory, spec.memory_reservation),
        (Some(102), None, Some(32 << 20), None)
    );
    assert_eq!(spec.labels["MESOS_TASK_ID"], "testapp.instance-7d0f._app.1");
    assert_eq!(spec.binds, ["/sandbox:/mnt/mesos/sandbox"]);
    assert_eq!(
        spec.environment,
        [
            "CALICO_IP=auto",
            "CALICO_PROFILE=dev",
            "MARATHON_APP_ID=/testapp",
            "MESOS_ALLOCATION_ROLE=*",
            "MESOS_CONTAINER_NAME=mesos-1087382a-40ba-4fa3-9eda-41fed69a9a91",
            "MESOS_SANDBOX=/mnt/mesos/sandbox",
            "SERVICE_PORT=3000"
        ]
    );
    let calico = &description.task.calico().unwrap().request;
    assert_eq!(calico.addresses, [AddressRequest::Auto(Family::V4)]);
    assert_eq!((calico.profiles.as_slice(), calico.ports[0].port), (&["dev".to_owned()][..], 3000));
    assert_eq!((description.app.as_str(), description.kill_grace), ("/testapp", None));
    assert!(description.notes.is_empty());
}

#[test]
fn a_task_without_the_variables_is_left_alone() {
    let description = understood(&plain());
    assert!(matches!(description.task, Task::Plain(_)));
    let spec = description.container().unwrap();
    assert_eq!((spec.network.as_str(), spec.runtime.as_deref()), ("host", None));
    assert_eq!(description.app, "testapp");
}

#[test]
fn the_network_is_read_from_the_container() {
    let network = |change: &dyn Fn(&mut TaskInfo), task: TaskInfo| {
        let mut task = task;
        change(&mut task);
        describe(&task, &flags(), None)
            .map(|found| (found.container().unwrap().network.clone(), found.task.calico().is_some()))
    };
    let mode = |mode: Network| move |task: &mut TaskInfo| docker(task).network = Some(mode as i32);
    let named = |name: &'static str| move |task: &mut TaskInfo| user_network(task, name);
    let none = ("none".to_owned(), true);
    assert_eq!(network(&mode(Network::Host), testapp()).unwrap(), none);
    assert_eq!(network(&mode(Network::Bridge), testapp()).unwrap(), none);
    assert_eq!(network(&named("calico"), testapp()).unwrap(), none);
    assert_eq!(network(&named("calico"), plain()).unwrap(), none);
    assert_eq!(network(&named("other"), plain()).unwrap(), ("other".into(), false));
    assert_eq!(network(&mode(Network::Bridge), plain()).unwrap(), ("bridge".into(), false));
    assert_eq!(network(&mode(Network::None), plain()).unwrap(), ("none".into(), false));
    assert_eq!(network(&|task| docker(task).network = None, plain()).unwrap(), ("host".into(), false));
    assert!(network(&named("other"), testapp()).unwrap_err().message.contains("'other'"));
    assert!(network(&mode(Network::None), testapp()).unwrap_err().message.contains("no network"));
    assert!(network(&mode(Network::User), plain()).unwrap_err().message.contains("names none"));
    let by_parameter = |key: &'static str, value: &'static str| {
        move |task: &mut TaskInfo| docker(task).parameters.push(parameter(key, value))
    };
    assert_eq!(network(&by_parameter("net", "mine"), plain()).unwrap(), ("mine".into(), false));
    assert_eq!(network(&by_parameter("network", "default"), plain()).unwrap(), ("bridge".into(), false));
    assert_eq!(network(&by_parameter("network", "calico"), testapp()).unwrap_err().code, Code::Parameter);
    let several = |task: &mut TaskInfo| {
        docker(task).parameters = vec![parameter("net", "a"), parameter("network", "b")];
    };
    assert_eq!(network(&several, plain()).unwrap(), ("a".into(), false));
}

#[test]
fn the_apps_name_is_read_from_the_task() {
    let mut task = plain();
    task.discovery = Some(DiscoveryInfo { name: Some("web.prod".into()), ..Default::default() });
    assert_eq!(understood(&task).app, "web.prod");
    set(&mut task, "MARATHON_APP_ID", "/prod/web");
    assert_eq!(understood(&task).app, "/prod/web");
}
