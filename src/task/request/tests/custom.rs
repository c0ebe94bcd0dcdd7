//! Tasks of a custom executor: where the command, the image, the user and the variables come from.

use std::path::Path;

use proptest::prelude::*;

use super::any::any_task;
use super::*;
use crate::error::Code;
use crate::names::ContainerId;
use crate::workload::CommandSpec;

const CONTAINER: &str = "5f3cbe1e-77aa-4d1b-8b0e-0c1f2a3b4c5d";

fn variable(name: &str, value: &str) -> Variable {
    Variable { name: name.into(), value: Some(value.into()), ..Default::default() }
}

/// What Marathon makes of `"executor": "/usr/bin/calico-executor"` and an environment.
fn executor(variables: &[(&str, &str)]) -> ExecutorInfo {
    let variables = variables.iter().map(|(name, value)| variable(name, value)).collect();
    ExecutorInfo {
        command: Some(CommandInfo {
            value: Some("chmod ug+rx '/x' && exec '/x' sleep 5".into()),
            user: Some("root".into()),
            environment: Some(Environment { variables }),
            ..Default::default()
        }),
        ..Default::default()
    }
}

/// Marathon's TaskInfo beside it.
fn bare() -> TaskInfo {
    TaskInfo { command: None, container: None, ..testapp() }
}

fn with_command(command: CommandInfo) -> TaskInfo {
    TaskInfo { command: Some(command), ..bare() }
}

fn label(task: &mut TaskInfo, key: &str, value: &str) {
    let labels = task.labels.get_or_insert_default();
    labels.labels.push(Label { key: key.into(), value: Some(value.into()) });
}

fn describe_at(
    sandbox: &str,
    task: &TaskInfo,
    executor: &ExecutorInfo,
    arguments: &[&str],
) -> Result<Description, Failure> {
    let arguments: Vec<String> = arguments.iter().map(|&word| word.to_owned()).collect();
    let container = ContainerId::parse(CONTAINER).unwrap();
    let context = Context::of_custom(&container, Path::new(sandbox), Some(1 << 30), &chosen);
    describe_custom(task, &Custom { executor, arguments: &arguments }, &context)
}

fn described(task: &TaskInfo, executor: &ExecutorInfo, arguments: &[&str]) -> Result<Description, Failure> {
    describe_at("/sandbox", task, executor, arguments)
}

fn command_of(description: &Description) -> &CommandSpec {
    match description.task.work() {
        Work::Command(spec) => spec,
        Work::Docker(_) | Work::Foreign(_) => panic!("not a command: {description:?}"),
    }
}

fn argv(task: &TaskInfo, arguments: &[&str]) -> (String, Vec<String>) {
    let description = described(task, &executor(&[]), arguments).unwrap();
    let spec = command_of(&description);
    (spec.program.clone(), spec.arguments.clone())
}

fn told(task: &TaskInfo, executor: &ExecutorInfo, arguments: &[&str]) -> String {
    let failure = described(task, executor, arguments).unwrap_err();
    assert_eq!((failure.code, failure.blame()), (Code::TaskInvalid, Blame::App), "{failure}");
    assert!(!failure.message.contains(char::is_control), "{failure}");
    failure.message
}

fn words(program: &str, words: &[&str]) -> (String, Vec<String>) {
    (program.into(), words.iter().map(|&word| word.into()).collect())
}

#[test]
fn the_app_of_the_readme_without_a_container() {
    let executor = executor(&[
        ("MARATHON_APP_ID", "/prod/web"),
        ("CALICO_IP", "auto"),
        ("CALICO_PROFILE", "web"),
        ("SERVICE_PORT", "8080"),
        ("PORT0", "31005"),
        ("MESOS_SANDBOX", "/elsewhere"),
        ("MESOS_EXECUTOR_AUTHENTICATION_TOKEN", "secret"),
    ]);
    let mut task = bare();
    label(&mut task, "team", "blue");
    let found = described(&task, &executor, &["python3", "-m", "http.server", "8080"]).unwrap();
    let spec = command_of(&found);
    assert_eq!((spec.program.as_str(), spec.arguments.len()), ("python3", 4));
    assert_eq!((spec.user.as_deref(), spec.directory.as_path()), (None, Path::new("/sandbox")));
    let environment: Vec<String> =
        spec.environment.iter().map(|(name, value)| format!("{name}={value}")).collect();
    assert_eq!(
        environment,
        [
            "CALICO_IP=auto",
            "CALICO_PROFILE=web",
            "MARATHON_APP_ID=/prod/web",
            "MESOS_ALLOCATION_ROLE=*",
            "MESOS_SANDBOX=/sandbox",
            "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            "PORT0=31005",
            "SERVICE_PORT=8080",
        ]
    );
    let calico = found.task.calico().unwrap();
    assert_eq!((calico.request.profiles[0].as_str(), calico.request.ports[0].port), ("web", 8080));
    assert_eq!((found.app.as_str(), found.task_id.as_str()), ("/prod/web", "testapp.instance-7d0f._app.1"));
    assert_eq!(calico.labels["team"], "blue");
    assert!(found.notes.is_empty());
}

#[test]
fn where_the_command_comes_from() {
    assert_eq!(argv(&bare(), &["server"]), words("server", &["server"]));
    assert_eq!(argv(&bare(), &["server", "a b"]), words("server", &["server", "a b"]));
    assert_eq!(argv(&bare(), &["a && b"]), words("/bin/sh", &["sh", "-c", "a && b"]));
    assert_eq!(argv(&bare(), &["--", "server"]), words("server", &["server"]));
    let own = |value: Option<&str>, shell: Option<bool>, arguments: &[&str]| {
        with_command(CommandInfo {
            value: value.map(str::to_owned),
            shell,
            arguments: arguments.iter().map(|&word| word.to_owned()).collect(),
            ..Default::default()
        })
    };
    assert_eq!(argv(&own(Some("a && b"), None, &[]), &[]), words("/bin/sh", &["sh", "-c", "a && b"]));
    assert_eq!(argv(&own(Some("x"), Some(false), &["x", "1"]), &[]), words("x", &["x", "1"]));
    assert_eq!(argv(&own(Some("/bin/x"), Some(false), &["x"]), &[]), words("/bin/x", &["x"]));
    assert_eq!(argv(&own(Some("a b"), Some(false), &[]), &[]), words("a b", &["a b"]));
    assert_eq!(argv(&own(None, Some(false), &["x", "1"]), &[]), words("x", &["x", "1"]));
    let both = own(Some("x"), None, &["y"]);
    assert_eq!(argv(&both, &[]), words("/bin/sh", &["sh", "-c", "x"]));
    assert!(described(&both, &executor(&[]), &[]).unwrap().notes[0].contains("arguments"));
    // Variables alone make no command.
    assert_eq!(argv(&with_command(CommandInfo::default()), &["x"]), words("x", &["x"]));

    let none = executor(&[]);
    assert!(told(&bare(), &none, &[]).contains("no command"));
    assert!(told(&bare(), &none, &["--"]).contains("no command"));
    assert!(told(&bare(), &none, &[""]).contains("empty"));
    assert!(told(&bare(), &none, &["x", "a\0b"]).contains("NUL"));
    assert!(told(&own(Some("x"), None, &[]), &none, &["y"]).contains("another one"));
    assert!(told(&own(Some(""), None, &[]), &none, &[]).contains("names no command"));
    assert!(told(&own(None, None, &["x"]), &none, &[]).contains("names no command"));
}

#[test]
fn the_tasks_variables_win_and_secrets_stay_out() {
    let environment = Environment {
        variables: vec![
            variable("A", "task"),
            variable("PATH", "/opt/bin"),
            Variable { r#type: Some(2), ..variable("PASSWORD", "") },
        ],
    };
    let task = with_command(CommandInfo {
        value: Some("x".into()),
        environment: Some(environment),
        ..Default::default()
    });
    let found = described(&task, &executor(&[("A", "executor"), ("B", "executor")]), &[]).unwrap();
    let environment = &command_of(&found).environment;
    assert_eq!((environment["A"].as_str(), environment["B"].as_str()), ("task", "executor"));
    assert_eq!((environment["PATH"].as_str(), environment.get("PASSWORD")), ("/opt/bin", None));
    assert!(found.notes[0].contains("'PASSWORD'"));
    assert!(matches!(found.task, Task::Plain(_)));
    let mut secret = executor(&[("CALICO_IP", ""), ("SERVICE_PORT", "")]);
    secret.command.as_mut().unwrap().environment.as_mut().unwrap().variables[0].r#type = Some(2);
    assert_eq!(described(&bare(), &secret, &["x"]).unwrap_err().code, Code::IpInvalid);
}

#[test]
fn whose_the_command_is() {
    let user = |task: &TaskInfo, variables: &[(&str, &str)]| {
        let found = described(task, &executor(variables), &["x"]).unwrap();
        command_of(&found).user.clone()
    };
    let mut task = with_command(CommandInfo { user: Some("web".into()), ..Default::default() });
    assert_eq!(user(&task, &[]).as_deref(), Some("web"));
    assert_eq!(user(&task, &[("CALICO_USER", "web")]).as_deref(), Some("web"));
    assert_eq!(user(&bare(), &[("CALICO_USER", "33:44")]).as_deref(), Some("33:44"));
    label(&mut task, "CALICO_USER", "web");
    assert_eq!(user(&TaskInfo { labels: task.labels.clone(), ..bare() }, &[]).as_deref(), Some("web"));
    label(&mut task, "CALICO_USER", "db");
    for (task, variables) in
        [(&task, &[][..]), (&task, &[("CALICO_USER", "web")]), (&bare(), &[("CALICO_USER", "")])]
    {
        assert!(told(task, &executor(variables), &["x"]).contains("CALICO_USER"));
    }
    let task = with_command(CommandInfo { user: Some("a\nb".into()), ..Default::default() });
    assert!(told(&task, &executor(&[]), &["x"]).contains("control characters"));
}

#[test]
fn containers_of_three_origins() {
    let image = [("CALICO_DOCKER_IMAGE", "registry/web:1"), ("CALICO_IP", "auto")];
    let mut labelled = bare();
    label(&mut labelled, "CALICO_DOCKER_IMAGE", "registry/web:1");
    let variables = executor(&image);
    let calico = executor(&image[1..]);
    let mut own = TaskInfo { command: None, ..testapp() };
    docker(&mut own).image = "registry/web:1".into();
    for (task, executor) in [(&bare(), &variables), (&labelled, &calico), (&own, &calico), (&own, &variables)]
    {
        let found = described(task, executor, &["serve", "--port=80"]).unwrap();
        let spec = found.container().unwrap();
        assert_eq!((spec.image.as_str(), spec.runtime.as_deref()), ("registry/web:1", Some("calico")));
        assert_eq!((spec.entrypoint.as_ref(), spec.command.as_ref().map(Vec::len)), (None, Some(2)));
        assert_eq!(spec.binds, ["/sandbox:/mnt/mesos/sandbox"]);
        let name = format!("MESOS_CONTAINER_NAME=calico-mesos-{CONTAINER}");
        assert!(spec.environment.contains(&name) && spec.environment.contains(&"CALICO_IP=auto".into()));
        assert_eq!((spec.memory, spec.cpu_shares), (Some(32 << 20), Some(102)));
    }
    // The image's own command, and a line for the shell in the image.
    for arguments in [&["--"][..], &[]] {
        let found = described(&bare(), &variables, arguments).unwrap();
        assert_eq!(found.container().unwrap().command, None);
    }
    let found = described(&bare(), &variables, &["a && b"]).unwrap();
    assert_eq!(found.container().unwrap().entrypoint.as_deref().unwrap(), ["/bin/sh"]);
    assert_eq!(found.container().unwrap().command.as_deref().unwrap(), ["-c", "a && b"]);

    docker(&mut own).image = "registry/other:1".into();
    assert!(told(&own, &variables, &["x"]).contains("'registry/other:1'"));
    assert!(told(&bare(), &executor(&[("CALICO_DOCKER_IMAGE", "../info")]), &["x"])
        .contains("not a valid image name"));
    assert!(told(&bare(), &executor(&[("CALICO_DOCKER_IMAGE", "")]), &["x"]).contains("is empty"));
    container(&mut own).r#type = Type::Mesos as i32;
    assert!(told(&own, &calico, &["x"]).contains("DOCKER"));
}

/// Mesos makes the sandbox's path of ids in which a framework may have a colon; Docker's binds have none.
#[test]
fn a_sandbox_with_a_colon_is_a_mount() {
    use crate::workload::{Mount, MountKind, Propagation};
    let variables = executor(&[("CALICO_IP", "auto")]);
    let mut task = TaskInfo { command: None, ..testapp() };
    let volume = |container_path: &str, host_path: &str, mode| Volume {
        container_path: container_path.into(),
        host_path: Some(host_path.into()),
        mode: mode as i32,
        ..Default::default()
    };
    let (ro, rw) = (volume::Mode::Ro, volume::Mode::Rw);
    container(&mut task).volumes = vec![volume("/data", "data", ro), volume("/srv", "/srv", rw)];
    docker(&mut task).parameters = vec![
        Parameter { key: "volume".into(), value: "./own:/own:ro,rslave".into() },
        Parameter { key: "volume".into(), value: "/a:/b:z".into() },
    ];
    let found = describe_at("/a:b", &task, &variables, &["x"]).unwrap();
    let spec = found.container().unwrap();
    assert_eq!(spec.binds, ["/srv:/srv:rw", "/a:/b:z"]);
    let mount = |source: &str, target: &str, read_only, propagation| Mount {
        kind: MountKind::Bind,
        source: source.into(),
        target: target.into(),
        read_only,
        propagation,
        ..Mount::default()
    };
    let expected = [
        mount("/a:b/data", "/data", true, None),
        mount("/a:b", "/mnt/mesos/sandbox", false, None),
        mount("/a:b/own", "/own", true, Some(Propagation::RSlave)),
    ];
    assert_eq!(spec.mounts, expected);
    docker(&mut task).parameters[0].value = "./own:/own:z".into();
    let failure = describe_at("/a:b", &task, &variables, &["x"]).unwrap_err();
    assert!(failure.code == Code::Parameter && failure.message.contains("option z"), "{failure}");
    assert!(describe_at("/a:b", &bare(), &variables, &["x"]).is_ok());
}

#[test]
fn a_command_in_the_tasks_data() {
    let with = |data: &[u8]| TaskInfo { data: Some(data.to_vec()), ..bare() };
    assert_eq!(
        argv(&with(b"exec ./run a && b\n"), &[]),
        words("/bin/sh", &["sh", "-c", "exec ./run a && b"])
    );
    assert_eq!(argv(&with(b"true"), &[]), words("/bin/sh", &["sh", "-c", "true"]));
    assert_eq!(argv(&with(b"|date"), &[]), words("/bin/sh", &["sh", "-c", "date"]));
    assert_eq!(argv(&with(b"other"), &["x"]), words("x", &["x"]));
    let own = CommandInfo { value: Some("x".into()), ..Default::default() };
    let own = TaskInfo { command: Some(own), ..with(b"other") };
    assert_eq!(argv(&own, &[]), words("/bin/sh", &["sh", "-c", "x"]));
    for data in [&b"{\"cmd\": \"x\"}"[..], b"\xff", b"a\0b", b"", b" | "] {
        let message = told(&with(data), &executor(&[]), &[]);
        assert!(message.contains("TaskInfo.data"), "{message}");
    }
    let image = executor(&[("CALICO_DOCKER_IMAGE", "web")]);
    let command_of = |data: &[u8], arguments: &[&str]| {
        let found = described(&with(data), &image, arguments).unwrap();
        found.container().unwrap().command.clone()
    };
    assert_eq!(command_of(b"serve 80", &[]).unwrap(), ["-c", "serve 80"]);
    assert_eq!(command_of(b"serve 80", &["--"]), None, "the image's own was asked for");
    assert_eq!(command_of(b"{}", &[]), None);
}

/// An agent kills every container of its kind of name that it does not know.
#[test]
fn no_agent_takes_the_container_for_its_own() {
    let name = container_name(&ContainerId::parse(CONTAINER).unwrap());
    assert!(!name.starts_with("mesos-") && name.ends_with(CONTAINER));
}

#[test]
fn an_executor_in_the_apps_image_says_so() {
    let mut executor = executor(&[]);
    executor.container = testapp().container;
    let failure = described(&bare(), &executor, &["x"]).unwrap_err();
    assert_eq!(failure.code, Code::Unsupported);
    assert!(failure.message.contains("CALICO_DOCKER_IMAGE") && failure.message.contains("drop-in"));
    // A container of the other kind holds volumes for the executor itself.
    executor.container.as_mut().unwrap().r#type = Type::Mesos as i32;
    assert!(described(&bare(), &executor, &["x"]).is_ok());
}

#[test]
fn commands_that_cannot_run_are_refused() {
    let changes: &[&dyn Fn(&mut TaskInfo)] = &[
        &|task| task.task_id.value.clear(),
        &|task| task.task_id.value = "a\nb".into(),
        &|task| task.task_id.value = "a".repeat(5000),
        &|task| task.resources.push(scalar("cpus", f64::NAN)),
        &|task| task.resources.push(scalar("mem", -1.0)),
        &|task| task.resources.push(scalar("mem", 1e300)),
        &|task| task.resources[0].scalar = None,
        &|task| {
            task.limits.insert("cpus".into(), value::Scalar { value: -1.0 });
        },
        &|task| {
            task.kill_policy = Some(KillPolicy { grace_period: Some(DurationInfo { nanoseconds: -1 }) });
        },
        &|task| task.max_completion_time = Some(DurationInfo { nanoseconds: -1 }),
    ];
    for change in changes {
        let mut task = bare();
        change(&mut task);
        told(&task, &executor(&[]), &["x"]);
    }
    for name in ["", "A=B", "A\0"] {
        told(&bare(), &executor(&[(name, "x")]), &["x"]);
    }
    told(&bare(), &executor(&[("A", "\0")]), &["x"]);
    let long = "x".repeat(128 << 10);
    assert!(told(&bare(), &executor(&[("A", &long)]), &["x"]).contains("'A' has 131074 bytes"));
    assert!(told(&bare(), &executor(&[]), &["x", &long]).contains("the command"));
}

proptest! {
    #[test]
    fn any_task_is_accepted_or_refused_without_a_panic(
        mut task in any_task(),
        bare in any::<bool>(),
        named in proptest::option::of("(?s).{0,9}|[a-z]{1,9}"),
        arguments in proptest::collection::vec(prop_oneof![9 => "[a-z ]{1,9}", 1 => "(?s).{0,9}"], 0..3),
    ) {
        if bare {
            task.container = None;
        }
        let variables: Vec<(&str, &str)> = named.iter().map(|user| ("CALICO_USER", user.as_str())).collect();
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        match described(&task, &executor(&variables), &arguments) {
            Ok(found) if matches!(found.task.work(), Work::Command(_)) => {
                let spec = command_of(&found);
                prop_assert!(bare && !spec.arguments.is_empty() && !spec.program.is_empty());
                prop_assert!(spec.arguments.iter().all(|word| !word.contains('\0')));
                let mut texts = spec.environment.iter().flat_map(|(name, value)| [name, value]);
                prop_assert!(texts.all(|text| !text.contains('\0')));
            }
            Ok(_) => prop_assert!(!bare),
            Err(failure) => {
                prop_assert_ne!(failure.code, Code::Internal);
                prop_assert!(!failure.message.contains(char::is_control), "{}", failure.message);
                prop_assert!(failure.message.len() < 1000);
            }
        }
    }
}
