//! Health checks: what is understood of them, and every way to get one wrong.

use std::time::Duration;

use super::*;
use crate::error::Code;
use crate::mesos::messages::health_check::{HttpCheckInfo, TcpCheckInfo, Type};
use crate::task::health::{Check, CheckFamily, CheckTiming, CommandLine, Probe, Scheme};

fn http(port: u32, path: Option<&str>) -> HealthCheck {
    let http = HttpCheckInfo { port, path: path.map(str::to_owned), ..Default::default() };
    HealthCheck { r#type: Some(Type::Http as i32), http: Some(http), ..Default::default() }
}

fn tcp(port: u32) -> HealthCheck {
    let tcp = TcpCheckInfo { port, protocol: None };
    HealthCheck { r#type: Some(Type::Tcp as i32), tcp: Some(tcp), ..Default::default() }
}

fn command(value: Option<&str>, arguments: Option<&[&str]>) -> HealthCheck {
    let command = CommandInfo {
        shell: Some(arguments.is_none()),
        value: value.map(str::to_owned),
        arguments: arguments.unwrap_or_default().iter().map(|word| (*word).to_owned()).collect(),
        ..Default::default()
    };
    HealthCheck { r#type: Some(Type::Command as i32), command: Some(command), ..Default::default() }
}

fn with(check: HealthCheck) -> TaskInfo {
    TaskInfo { health_check: Some(check), ..testapp() }
}

fn check(check: HealthCheck) -> Check {
    understood(&with(check)).health.unwrap()
}

fn line(check: HealthCheck) -> CommandLine {
    match self::check(check).probe {
        Probe::Command(line) => line,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_task_without_a_check_has_none() {
    assert_eq!(understood(&testapp()).health, None);
}

#[test]
fn absent_fields_of_a_check_have_mesos_defaults() {
    let Check { timing, probe } = check(tcp(80));
    assert_eq!(probe, Probe::Tcp { port: 80, family: CheckFamily::V4 });
    let expected = CheckTiming {
        delay: Duration::from_secs(15),
        interval: Duration::from_secs(10),
        timeout: Some(Duration::from_secs(20)),
        grace: Duration::from_secs(10),
        failures: 3,
    };
    assert_eq!(timing, expected);
    let own = HealthCheck {
        delay_seconds: Some(0.0),
        interval_seconds: Some(0.25),
        timeout_seconds: Some(0.0),
        grace_period_seconds: Some(f64::from(i32::MAX)),
        consecutive_failures: Some(0),
        ..tcp(80)
    };
    let expected = CheckTiming {
        delay: Duration::ZERO,
        interval: Duration::from_millis(250),
        timeout: None,
        grace: Duration::from_secs(2_147_483_647),
        failures: 0,
    };
    assert_eq!(check(own).timing, expected);
}

#[test]
fn http_and_tcp_checks_are_read() {
    let probe = |path: &str| Probe::Http {
        scheme: Scheme::Http,
        port: 8080,
        path: path.into(),
        family: CheckFamily::V4,
    };
    assert_eq!(check(http(8080, None)).probe, probe("/"));
    assert_eq!(check(http(8080, Some("/a b?c={d}"))).probe, probe("/a b?c={d}"));
    let mut secure = http(65535, Some("/"));
    let description = secure.http.as_mut().unwrap();
    description.scheme = Some("https".into());
    description.protocol = Some(network_info::Protocol::IPv6.into());
    description.statuses = vec![418];
    let expected =
        Probe::Http { scheme: Scheme::Https, port: 65535, path: "/".into(), family: CheckFamily::V6 };
    assert_eq!(check(secure).probe, expected);
    let mut six = tcp(1);
    six.tcp.as_mut().unwrap().protocol = Some(2);
    assert_eq!(check(six).probe, Probe::Tcp { port: 1, family: CheckFamily::V6 });
}

#[test]
fn commands_run_once_whoever_writes_them() {
    let words = |value, arguments| line(command(value, arguments)).arguments;
    assert_eq!(words(Some("exit 0"), None), ["sh", "-c", "exit 0"]);
    assert_eq!(words(Some("test"), Some(&["-f", "/x"])), ["test", "-f", "/x"]);
    // As Marathon puts it.
    assert_eq!(words(Some("test"), Some(&["test", "-f", "/x"])), ["test", "-f", "/x"]);
    assert_eq!(words(None, Some(&["test", "-f", "/x"])), ["test", "-f", "/x"]);
    assert_eq!(words(Some("true"), Some(&[])), ["true"]);
    assert_eq!(line(command(Some("test"), Some(&["-f"]))).program, "test");
}

/// Where the task is a command, too, the arguments are argv, as Mesos has it there.
#[test]
fn beside_a_command_the_arguments_are_argv() {
    let spec = crate::workload::CommandSpec {
        program: "sleep".into(),
        arguments: vec!["sleep".into()],
        environment: Default::default(),
        user: None,
        directory: "/".into(),
    };
    let line = |check| {
        let check = super::super::health::read(&with(check), &Work::Command(spec.clone()), &mut Vec::new());
        match check.unwrap().unwrap().probe {
            Probe::Command(line) => line,
            other => panic!("{other:?}"),
        }
    };
    let renamed = line(command(Some("/bin/busybox"), Some(&["test", "-f"])));
    assert_eq!(
        (renamed.program.as_str(), renamed.arguments),
        ("/bin/busybox", vec!["test".into(), "-f".to_owned()])
    );
    assert_eq!(line(command(Some("true"), Some(&[]))).arguments, ["true"]);
}

#[test]
fn a_command_has_variables_of_its_own() {
    let mut check = command(Some("exit 0"), None);
    let variable = |name: &str, kind: i32| Variable {
        name: name.into(),
        value: Some("1".into()),
        r#type: Some(kind),
        secret: None,
    };
    let own = check.command.as_mut().unwrap();
    own.environment = Some(Environment { variables: vec![variable("A", 1), variable("S", 2)] });
    own.user = Some("nobody".into());
    let description = understood(&with(check));
    assert_eq!(description.notes.len(), 2, "{:?}", description.notes);
    let Some(Check { probe: Probe::Command(line), .. }) = description.health else { panic!("no command") };
    assert_eq!(line.environment, [("A".to_owned(), "1".to_owned())].into());
}

#[test]
fn marathon_before_1_4_names_no_type() {
    let old = HealthCheck { r#type: None, ..http(80, None) };
    assert_eq!(check(old).probe, check(http(80, None)).probe);
}

#[test]
fn checks_that_cannot_be_made_are_refused() {
    let http_with = |change: &dyn Fn(&mut HttpCheckInfo)| {
        let mut check = http(80, None);
        change(check.http.as_mut().unwrap());
        check
    };
    let time = |change: &dyn Fn(&mut HealthCheck)| {
        let mut check = tcp(80);
        change(&mut check);
        check
    };
    let mut secret_name = command(Some("true"), None);
    secret_name.command.as_mut().unwrap().environment =
        Some(Environment { variables: vec![Variable { name: "A=B".into(), ..Default::default() }] });
    let mut both_forms = command(Some("true"), Some(&["x"]));
    both_forms.command.as_mut().unwrap().shell = Some(true);
    let bad = [
        (HealthCheck::default(), "neither"),
        (HealthCheck { r#type: Some(0), ..tcp(80) }, "type 0"),
        (HealthCheck { r#type: Some(77), ..tcp(80) }, "type 77"),
        (HealthCheck { r#type: Some(3), ..Default::default() }, "neither"),
        (HealthCheck { r#type: Some(3), ..http(80, None) }, "TCP"),
        (HealthCheck { http: http(80, None).http, ..tcp(80) }, "more than one"),
        (HealthCheck { command: command(Some("x"), None).command, ..tcp(80) }, "more than one"),
        (time(&|check| check.delay_seconds = Some(-1.0)), "delay of -1"),
        (time(&|check| check.interval_seconds = Some(f64::NAN)), "interval of NaN"),
        (time(&|check| check.timeout_seconds = Some(f64::INFINITY)), "timeout of inf"),
        (time(&|check| check.grace_period_seconds = Some(1e10)), "grace period of 1"),
        (tcp(0), "port 0"),
        (tcp(65536), "port 65536"),
        (http(70000, None), "port 70000"),
        (http(80, Some("x")), "begin with"),
        (http(80, Some("/a\r\nHost: x")), "control characters"),
        (http(80, Some(&format!("/{}", "a".repeat(9000)))), "longer"),
        (http_with(&|http| http.scheme = Some("ftp".into())), "neither http nor https"),
        (http_with(&|http| http.scheme = Some("HTTP".into())), "neither http nor https"),
        (http_with(&|http| http.protocol = Some(9)), "protocol 9"),
        (command(None, None), "names no command"),
        (command(Some(""), None), "names no command"),
        (command(None, Some(&[])), "names no program"),
        (command(Some("a\0b"), None), "NUL"),
        (command(Some("a"), Some(&["b\0"])), "NUL"),
        (both_forms, "wants a shell"),
        (secret_name, "environment variable"),
    ];
    for (number, (check, words)) in bad.into_iter().enumerate() {
        let failure = refusal(&with(check));
        assert_eq!(failure.code, Code::TaskInvalid, "number {number}: {failure}");
        assert!(failure.message.contains(words), "number {number}: {failure}");
        assert!(!failure.message.contains(char::is_control), "number {number}: {failure}");
    }
}
