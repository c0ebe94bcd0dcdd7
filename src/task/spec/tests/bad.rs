//! Parameters, and tasks that are none.

use super::*;
use crate::workload::Ulimit;

fn limit(task: &mut TaskInfo, value: f64) {
    task.limits.insert("mem".into(), value::Scalar { value });
}

#[test]
fn parameters_that_are_understood() {
    let mut task = testapp();
    docker(&mut task).parameters = [
        ("label", "a=b=c"),
        ("label", "flag"),
        ("add-host", "db:10.0.0.5"),
        ("add-host", "db6=fd00::5"),
        ("dns", "10.0.0.53"),
        ("dns-search", "svc"),
        ("dns-opt", "ndots:2"),
        ("dns-option", "rotate"),
        ("hostname", "first"),
        ("hostname", "web"),
        ("cap-add", "NET_ADMIN"),
        ("cap-drop", "ALL"),
        ("ulimit", "nofile=1"),
        ("ulimit", "nofile=10:20"),
        ("ulimit", "core=-1"),
    ]
    .map(|(key, value)| parameter(key, value))
    .into();
    let spec = understood(&task).container().unwrap().clone();
    assert_eq!((spec.labels["a"].as_str(), spec.labels["flag"].as_str()), ("b=c", ""));
    assert_eq!(spec.extra_hosts, ["db:10.0.0.5", "db6:fd00::5"]);
    assert_eq!((spec.dns.len(), spec.dns_search.len(), spec.dns_options.len()), (1, 1, 2));
    assert_eq!((spec.hostname.as_deref(), spec.cap_add.len(), spec.cap_drop.len()), (Some("web"), 1, 1));
    let ulimit = |name: &str, soft, hard| Ulimit { name: name.into(), soft, hard };
    assert_eq!(spec.ulimits, [ulimit("nofile", 10, 20), ulimit("core", -1, -1)]);
}

#[test]
fn parameters_that_are_refused() {
    let code = |task: TaskInfo, key: &str, value: &str| {
        let mut task = task;
        docker(&mut task).parameters.push(parameter(key, value));
        refusal(&task).code
    };
    for key in
        ["runtime", "network", "net", "ip", "ip6", "link", "mac-address", "userns", "name", "restart", "rm"]
    {
        assert_eq!(code(testapp(), key, "x"), "CM-PARAMETER", "{key}");
    }
    for key in ["runtime", "restart", "memory-swap", "device", "nonsense", "", "Label"] {
        assert_eq!(code(plain(), key, "x"), "CM-UNSUPPORTED", "{key}");
    }
    for (key, value) in [
        ("label", "=x"),
        ("env", ""),
        ("volume", " "),
        ("add-host", "db"),
        ("add-host", ":10.0.0.1"),
        ("add-host", "db:nowhere"),
        ("dns", "ns.example"),
        ("hostname", "x"),
        ("hostname", "a\0"),
        ("ulimit", "nofile"),
        ("ulimit", "files=1"),
        ("ulimit", "nofile=2:1"),
        ("ulimit", "nofile=-1:1"),
        ("ulimit", "nofile=-2"),
        ("ulimit", "nofile=1:2:3"),
        ("cap-add", ""),
        ("cap-add", "A\nB"),
    ] {
        assert_eq!(code(plain(), key, value), "CM-PARAMETER", "{key}={value}");
    }
    assert_eq!(code(plain(), "env", "=x"), "CM-TASK-INVALID");
}

#[test]
fn what_makes_no_task() {
    let refused = |change: &dyn Fn(&mut TaskInfo)| {
        let mut task = testapp();
        change(&mut task);
        let failure = refusal(&task);
        assert!(!failure.message.contains(char::is_control), "{failure}");
        failure.code
    };
    let invalid: &[&dyn Fn(&mut TaskInfo)] = &[
        &|task| task.container = None,
        &|task| container(task).r#type = Type::Mesos as i32,
        &|task| container(task).r#type = 77,
        &|task| container(task).docker = None,
        &|task| docker(task).image.clear(),
        &|task| docker(task).image = "a b".into(),
        &|task| docker(task).image = "../../info".into(),
        &|task| docker(task).image = "a?b".into(),
        &|task| docker(task).image = "a".repeat(5000),
        &|task| task.task_id.value.clear(),
        &|task| task.task_id.value = "a\nb".into(),
        &|task| task.task_id.value = "a".repeat(5000),
        &|task| task.command = None,
        &|task| task.command.as_mut().unwrap().value = None,
        &|task| task.command.as_mut().unwrap().value = Some("a\0b".into()),
        &|task| set(task, "", "x"),
        &|task| set(task, "A=B", "x"),
        &|task| set(task, "A\0", "x"),
        &|task| set(task, "A", "\0"),
        &|task| task.resources.push(scalar("cpus", f64::NAN)),
        &|task| task.resources.push(scalar("mem", -1.0)),
        &|task| task.resources.push(scalar("mem", 1e300)),
        &|task| task.resources.push(scalar("cpus", f64::INFINITY)),
        &|task| task.resources[0].scalar = None,
        &|task| limit(task, f64::NAN),
        &|task| limit(task, 1.0),
        &|task| {
            task.kill_policy = Some(KillPolicy { grace_period: Some(DurationInfo { nanoseconds: -1 }) });
        },
        &|task| {
            container(task).hostname = Some("h\u{7}".into());
        },
        &|task| user_network(task, ""),
        &|task| {
            user_network(task, "calico");
            container(task).network_infos.push(NetworkInfo::default());
        },
    ];
    for (number, change) in invalid.iter().enumerate() {
        assert_eq!(refused(change), "CM-TASK-INVALID", "number {number}");
    }
    assert_eq!(refused(&|task| task.health_check = Some(HealthCheck::default())), "CM-UNSUPPORTED");
    assert_eq!(refused(&|task| task.check = Some(CheckInfo::default())), "CM-UNSUPPORTED");
    let duration = DurationInfo { nanoseconds: -1 };
    assert_eq!(refused(&|task| task.max_completion_time = Some(duration)), "CM-TASK-INVALID");
}

#[test]
fn hostname_needs_a_network_of_its_own() {
    let mut task = plain();
    container(&mut task).hostname = Some("web".into());
    assert!(refusal(&task).message.contains("hostname"));
    set(&mut task, "CALICO_IP", "auto");
    assert_eq!(understood(&task).container().unwrap().hostname.as_deref(), Some("web"));
}

#[test]
fn secrets_do_not_decide_about_calico() {
    let mut task = plain();
    set(&mut task, "CALICO_IP", "");
    task.command.as_mut().unwrap().environment.as_mut().unwrap().variables[0].r#type = Some(2);
    assert_eq!(refusal(&task).code, "CM-IP-INVALID");
}
