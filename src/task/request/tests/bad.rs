//! Tasks that are none.

use super::*;
use crate::error::Code;

fn limit(task: &mut TaskInfo, value: f64) {
    task.limits.insert("mem".into(), value::Scalar { value });
}

#[test]
fn tasks_that_cannot_run_are_refused_with_the_field() {
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
        assert_eq!(refused(change), Code::TaskInvalid, "number {number}");
    }
    assert_eq!(refused(&|task| task.check = Some(CheckInfo::default())), Code::Unsupported);
    let duration = DurationInfo { nanoseconds: -1 };
    assert_eq!(refused(&|task| task.max_completion_time = Some(duration)), Code::TaskInvalid);
}

/// The kernel would refuse them when the container is there already.
#[test]
fn what_the_kernel_does_not_take_is_refused_beforehand() {
    let parameter = |task: &mut TaskInfo, key: &str, value: &str| {
        docker(task).parameters = vec![Parameter { key: key.into(), value: value.into() }];
    };
    let mut task = plain();
    docker(&mut task).network = Some(Network::Bridge as i32);
    container(&mut task).hostname = Some("h".repeat(64));
    assert_eq!(understood(&task).container().unwrap().hostname, Some("h".repeat(64)));
    container(&mut task).hostname = Some("h".repeat(65));
    let failure = refusal(&task);
    assert!(
        failure.message.contains("the hostname") && failure.message.contains("kernel takes 64"),
        "{failure}"
    );
    container(&mut task).hostname = None;
    for key in ["hostname", "domainname"] {
        parameter(&mut task, key, &"h".repeat(64));
        understood(&task);
        parameter(&mut task, key, &"h".repeat(65));
        let failure = refusal(&task);
        assert!(failure.message.contains(key) && failure.message.contains("kernel takes 64"), "{failure}");
    }
    let limit = 128 << 10;
    parameter(&mut task, "env", &format!("BIG={}", "x".repeat(limit)));
    let failure = refusal(&task);
    assert!(failure.message.contains("BIG") && failure.message.contains("less than 131072"), "{failure}");
    docker(&mut task).parameters.clear();
    set(&mut task, "BIG", &"x".repeat(limit - 5));
    understood(&task);
    set(&mut task, "BIG2", &"x".repeat(limit - 5));
    let failure = refusal(&task);
    assert!(failure.message.contains("'BIG2' has 131072 bytes") && failure.message.len() < 300, "{failure}");
    let mut task = plain();
    task.command.as_mut().unwrap().value = Some("x".repeat(limit));
    assert!(refusal(&task).message.contains("the command"));
}

#[test]
fn what_stands_in_records_that_others_share_is_kept_short() {
    let mut task = plain();
    set(&mut task, "CALICO_IP", "auto");
    set(&mut task, "MARATHON_APP_ID", &format!("/a\nb/{}", "é".repeat(60_000)));
    let description = understood(&task);
    assert!(
        description.app.starts_with("/a b/é") && description.app.len() <= 512,
        "{}",
        description.app.len()
    );
    let many = |count: usize| {
        let label = |number: usize| Label { key: format!("k{number}"), value: None };
        Some(Labels { labels: (0..count).map(label).collect() })
    };
    task.labels = many(500);
    assert_eq!(understood(&task).task.calico().unwrap().labels.len(), 500);
    task.labels = many(501);
    assert!(refusal(&task).message.contains("501 labels"));
    let mut stock = plain();
    stock.labels = many(501);
    assert!(understood(&stock).task.calico().is_none());
}

#[test]
fn an_app_that_bears_the_name_of_anothers_addresses_is_told() {
    let mut task = plain();
    set(&mut task, "CALICO_IP", "auto");
    for (app, says) in
        [("/other-direct", "registered as other-direct-direct only"), ("/ü", "is not registered")]
    {
        set(&mut task, "MARATHON_APP_ID", app);
        assert!(understood(&task).notes.iter().any(|note| note.contains(says)), "{app}");
    }
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
    assert_eq!(refusal(&task).code, Code::IpInvalid);
}
