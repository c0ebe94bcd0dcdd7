//! Whatever proptest makes of a task: an answer, never a panic.

use proptest::prelude::*;

use super::*;
use crate::error::Code;
use crate::mesos::messages::container_info::docker_info::PortMapping;

fn good_value(key: &str) -> &'static str {
    match key {
        "add-host" => "db:10.0.0.1",
        "dns" => "10.0.0.1",
        "ulimit" => "nofile=1:2",
        _ => "x",
    }
}

prop_compose! {
    pub(super) fn any_task()(
        texts in proptest::collection::vec(prop_oneof![40 => "[a-z]{1,9}", 1 => "(?s).{0,12}"], 12),
        numbers in proptest::collection::vec(prop_oneof![20 => 0.0..1e4, 1 => any::<f64>()], 4),
        integers in proptest::collection::vec(prop_oneof![4 => 1..4i32, 1 => any::<i32>()], 6),
        flags in any::<u16>(),
        key in proptest::sample::select(vec!["label", "env", "zzz", "volume", "add-host", "dns", "hostname", "ulimit", "net", "cap-add", "ip", "cap-drop"]),
        calico in proptest::option::of(proptest::sample::select(vec!["auto", "auto,auto6", "10.0.0.1", "auto6", "x"])),
    ) -> TaskInfo {
        let bit = |number: u16| flags & (1 << number) != 0;
        let maybe = |number: u16, text: &String| bit(number).then(|| text.clone());
        let mut task = testapp();
        task.name = texts[0].clone();
        task.task_id.value = texts[1].clone() + "t";
        task.resources = vec![scalar("cpus", numbers[0]), scalar("mem", numbers[1]), ports(0, 65535)];
        if bit(0) { task.limits.insert("mem".into(), value::Scalar { value: numbers[1] + numbers[2] }); }
        if bit(1) { task.limits.insert("cpus".into(), value::Scalar { value: numbers[3] }); }
        task.command = Some(CommandInfo {
            shell: Some(bit(2)),
            value: (!(bit(3) && bit(15))).then(|| texts[2].clone()),
            arguments: vec![texts[3].clone()],
            environment: Some(Environment { variables: vec![Variable {
                name: texts[4].clone(), value: maybe(4, &texts[5]), r#type: Some(integers[0] % 4), secret: None,
            }] }),
            ..Default::default()
        });
        if let Some(calico) = calico { set(&mut task, "CALICO_IP", calico); }
        if bit(5) { set(&mut task, "CALICO_PROFILE", &texts[6]); }
        if bit(6) { set(&mut task, "SERVICE_PORT", if bit(0) && bit(15) { &texts[7] } else { "80,web:81" }); }
        container(&mut task).r#type = if bit(7) && bit(13) { integers[1] } else { 1 };
        container(&mut task).hostname = (bit(8) && bit(12)).then(|| texts[8].clone());
        container(&mut task).volumes = vec![Volume {
            container_path: texts[9].clone(), host_path: (!(bit(9) && bit(14))).then(|| format!("/{}", texts[10])), mode: integers[2], source: None,
        }];
        docker(&mut task).network = Some(integers[3] % 5);
        container(&mut task).network_infos = vec![NetworkInfo { name: Some(if bit(10) { texts[0].clone() } else { "calico".into() }), ..Default::default() }];
        docker(&mut task).parameters = vec![parameter(key, if bit(1) { &texts[11] } else { good_value(key) })];
        if bit(11) && bit(13) {
            docker(&mut task).port_mappings = vec![PortMapping {
                host_port: integers[4] as u32, container_port: integers[5] as u32, protocol: (bit(12) && bit(14)).then(|| texts[3].clone()),
            }];
        }
        let spare = texts[0].clone();
        task.health_check = bit(14).then(|| HealthCheck {
            r#type: (!bit(13)).then_some(integers[5]),
            delay_seconds: bit(12).then_some(numbers[0]),
            timeout_seconds: bit(11).then_some(numbers[3]),
            tcp: (integers[4] % 3 == 0).then(|| health_check::TcpCheckInfo { port: integers[3] as u32, protocol: maybe(10, &spare).map(|_| integers[2]) }),
            http: (integers[4] % 3 == 1).then(|| health_check::HttpCheckInfo { port: 80, path: maybe(9, &format!("/{}", texts[7])), ..Default::default() }),
            command: (integers[4] % 3 == 2).then(|| CommandInfo { shell: Some(bit(8)), value: maybe(7, &spare), arguments: vec![texts[6].clone()], ..Default::default() }),
            ..Default::default()
        });
        task.kill_policy = Some(KillPolicy { grace_period: Some(DurationInfo { nanoseconds: i64::from(integers[4]) }) });
        task
    }
}

proptest! {
    #[test]
    fn any_task_is_accepted_or_refused_without_a_panic(task in any_task()) {
        match describe(&task, &flags(), Some(1 << 30)) {
            Ok(description) => {
                let spec = description.container().unwrap();
                prop_assert_eq!(description.task.calico().is_some(), spec.runtime.as_deref() == Some("calico"));
                prop_assert!(description.task.calico().is_none() || spec.network == "none");
                prop_assert!(!spec.network.is_empty());
                prop_assert!(spec.environment.iter().all(|line| !line.contains('\0')));
                prop_assert!(spec.memory.is_none_or(|memory| memory >= 32 << 20));
                prop_assert!(spec.cpu_shares.is_none_or(|shares| shares >= 2));
            }
            Err(failure) => {
                prop_assert_ne!(failure.code, Code::Internal);
                prop_assert!(!failure.message.contains(char::is_control), "{}", failure.message);
                prop_assert!(failure.message.len() < 1000);
            }
        }
    }
}

/// The generator is worth something only if it makes good tasks and bad ones.
#[test]
fn the_generator_makes_acceptable_and_refused_tasks() {
    use proptest::strategy::ValueTree;
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let good = (0..500)
        .map(|_| any_task().new_tree(&mut runner).unwrap().current())
        .filter(|task| describe(task, &flags(), None).is_ok())
        .count();
    assert!((25..475).contains(&good), "{good} of 500 are good");
}
