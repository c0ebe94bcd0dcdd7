//! `endpoint …`: counts, lists, filters, Felix's reports, and the profiles of one endpoint.

use serde_json::{json, Value};

use calico_mesos::calico::{Identity, Wanted};

use crate::datastore::{auto, task, RESOURCES};
use crate::desk::{Desk, NODE};
use crate::profiles::cells;

const POOL: (&str, &str) = ("web", r#"{"cidr":"10.65.0.0/24","blockSize":29}"#);

/// Two tasks here, one elsewhere, and one of another orchestrator in another namespace.
async fn desk() -> (Desk, [Identity; 3]) {
    let mut desk = Desk::new(&[NODE, "agent-2"], &[POOL]).await;
    let tasks = [task(NODE), task(NODE), task("agent-2")];
    let labelled = Wanted { labels: [("app".to_owned(), "web".to_owned())].into(), ..auto() };
    desk.world.launch(&tasks[0], &labelled).await.unwrap();
    desk.world.launch(&tasks[1], &auto()).await.unwrap();
    desk.world.launch(&tasks[2], &auto()).await.unwrap();
    let stack = json!({
        "kind": "WorkloadEndpoint", "apiVersion": "projectcalico.org/v3",
        "metadata": {"name": "agent--2-openstack-vm--1-port", "namespace": "openstack", "uid": "u", "creationTimestamp": "2026-08-22T10:11:12Z"},
        "spec": {"orchestrator": "openstack", "workload": "vm-1", "node": "agent-2", "endpoint": "port",
            "ipNetworks": ["10.66.0.1/32", "fd00::1/128"], "interfaceName": "tap1", "mac": "02:00:00:00:00:01",
            "profiles": ["a", "b"], "later": {"kept": true}},
    });
    let key = format!("{RESOURCES}/workloadendpoints/openstack/agent--2-openstack-vm--1-port");
    desk.world.put(&key, &stack.to_string()).await;
    (desk, tasks)
}

fn rows(desk: &Desk, filter: &str) -> usize {
    desk.json(&format!("endpoint show --detailed {filter}")).as_array().unwrap().len()
}

#[tokio::test]
async fn endpoints_are_counted_and_listed() {
    let (desk, tasks) = desk().await;
    let table = desk.done("endpoint show");
    let heading = "Hostname | Orchestrator ID | NumWorkloads | NumEndpoints";
    assert!(table.lines().nth(1).unwrap().contains(heading), "{table}");
    let expected =
        [[NODE, "mesos", "2", "2"], ["agent-2", "mesos", "1", "1"], ["agent-2", "openstack", "1", "1"]];
    assert_eq!(cells(&table), expected);
    let table = desk.done("endpoint show --detailed --host agent-2 --orchestrator openstack");
    let line = table.lines().nth(1).unwrap().split('|').map(str::trim).collect::<Vec<_>>().join(" | ");
    assert_eq!(
        line.trim_matches([' ', '|']),
        "Hostname | Orchestrator ID | Workload ID | Endpoint ID | Addresses | MAC | Profiles | State"
    );
    let expected = [
        ["agent-2", "openstack", "vm-1", "port", "10.66.0.1/32", "02:00:00:00:00:01", "a,b", "-"],
        ["", "", "", "", "fd00::1/128", "", "", ""],
    ];
    assert_eq!(cells(&table), expected);
    let wide = desk.done("endpoint show --detailed -o wide");
    assert!(wide.contains(&tasks[2].task_id) && wide.contains(&tasks[2].interface), "{wide}");
    let names = desk.done("endpoint show -o name");
    assert_eq!(names.lines().count(), 4, "{names}");
}

#[tokio::test]
async fn filters_leave_what_they_name() {
    let (mut desk, tasks) = desk().await;
    let first = &tasks[0];
    for (filter, count) in [
        (String::new(), 4),
        ("--host agent-2".to_owned(), 2),
        ("--orchestrator mesos".to_owned(), 3),
        ("--host agent-2 --orchestrator mesos".to_owned(), 1),
        (format!("--workload {}", first.workload), 1),
        (format!("--workload {}", first.task_id), 1),
        ("--workload /prod/web".to_owned(), 3),
        ("--endpoint port".to_owned(), 1),
        ("--profile dev".to_owned(), 3),
        ("--profile b".to_owned(), 1),
        ("-l app=='web'".to_owned(), 1),
        ("-l has(mesos-profile/dev)".to_owned(), 3),
        ("-l !has(mesos-profile/dev)".to_owned(), 1),
    ] {
        assert_eq!(rows(&desk, &filter), count, "{filter}");
    }
    // A name that is typed wrong is no empty list; one of which there is nothing is.
    for (filter, words) in [
        ("--host agent-3", ["no node 'agent-3'", "'agent-"]),
        ("--profile dew", ["no profile 'dew'", "did you mean 'dev'?"]),
        ("--profile dew --host agent-2 -o json", ["no profile 'dew'", "did you mean 'dev'?"]),
    ] {
        let refused = desk.refused(&format!("endpoint show {filter}"));
        assert!(words.iter().all(|word| refused.contains(word)), "{filter}: {refused}");
    }
    desk.done("profile add empty");
    desk.world.put(&format!("{RESOURCES}/nodes/agent-9"), r#"{"spec":{}}"#).await;
    for filter in [
        "--profile empty",
        "--host agent-9",
        "--profile b --host agent-9",
        "--profile projectcalico-default-allow",
    ] {
        assert_eq!(rows(&desk, filter), 0, "{filter}");
        assert!(desk.done(&format!("endpoint show {filter}")).contains("Hostname"), "{filter}");
    }
    let said = desk.run("endpoint show -l app=web");
    assert!(said.code == 64 && said.stderr.contains("selector 'app=web'"), "{said:?}");
    // What the key excludes is not read: a damaged record of another host is passed over in silence.
    desk.world.put(&format!("{RESOURCES}/workloadendpoints/default/agent--3-mesos-x-eth0"), "{").await;
    assert_eq!(rows(&desk, "--host agent-2"), 2);
    let other = r#"{"metadata":{"name":"z"},"spec":{"ipNetworks":["10.65.9.9/32"],"interfaceName":"calib","mac":"x"}}"#;
    desk.world.put(&format!("{RESOURCES}/workloadendpoints/default/agent--3-mesos-y-eth0"), other).await;
    let warnings = desk.run("endpoint show").stderr;
    assert!(warnings.contains("agent--3-mesos-x-eth0 is damaged"), "{warnings}");
    assert!(warnings.contains("agent--3-mesos-y-eth0 is damaged: calicoctl cannot edit it"), "{warnings}");
}

#[tokio::test]
async fn the_state_is_what_felix_reports() {
    let (mut desk, tasks) = desk().await;
    let state = |desk: &Desk, task: &Identity| {
        desk.json(&format!("endpoint show --detailed --workload {}", task.workload))[0]["state"].clone()
    };
    assert_eq!(state(&desk, &tasks[0]), Value::Null);
    let folder = desk.dir().join("status");
    std::fs::create_dir(&folder).unwrap();
    std::fs::write(folder.join(format!("mesos default%2F{} eth0", tasks[0].workload)), "").unwrap();
    // A file here says nothing of an endpoint elsewhere.
    std::fs::write(folder.join(format!("mesos default%2F{} eth0", tasks[2].workload)), "").unwrap();
    assert_eq!((state(&desk, &tasks[0]), state(&desk, &tasks[2])), (json!("up"), Value::Null));
    let key = |host: &str, workload: &str| {
        format!("/calico/felix/v2/no-region/host/{host}/workload/mesos/default%2f{workload}/endpoint/eth0")
    };
    desk.world.put(&key("agent-2", &tasks[2].workload), r#"{"status":"down"}"#).await;
    desk.world.put(&key(NODE, &tasks[1].workload), "{").await;
    assert_eq!((state(&desk, &tasks[1]), state(&desk, &tasks[2])), (Value::Null, json!("down")));
    let host = desk.json("endpoint show --detailed --host agent-2 --orchestrator mesos");
    assert_eq!(host[0]["state"], json!("down"));
    let table = desk.run("profile show --detailed").stdout;
    let states: Vec<String> = cells(&table).into_iter().map(|row| row[5].clone()).collect();
    assert!(states.contains(&"up".to_owned()) && states.contains(&"down".to_owned()), "{table}");
}

#[tokio::test]
async fn an_endpoints_profiles_are_changed() {
    let (mut desk, tasks) = desk().await;
    let key = "agent--2-openstack-vm--1-port";
    desk.done("profile add web");
    assert_eq!(cells(&desk.done("endpoint vm-1 profile show")), [["a"], ["b"]]);
    let refused = desk.refused("endpoint vm-1 profile append webb");
    assert!(refused.contains("no profile 'webb'; did you mean 'web'?"), "{refused}");
    let said = desk.run("endpoint vm-1 profile append web --dry-run");
    assert_eq!((said.code, said.stdout.as_str()), (3, "endpoint vm-1 would have the profiles: a,b,web\n"));
    let changed = desk.done("endpoint vm-1 profile append web projectcalico-default-allow web");
    assert_eq!(changed, "endpoint vm-1 now has the profiles: a,b,web,projectcalico-default-allow\n");
    assert!(desk.done("endpoint vm-1 profile append web").contains("already has"));
    desk.done("endpoint 10.66.0.1 profile remove a projectcalico-default-allow");
    let refused = desk.refused("endpoint vm-1 profile remove a");
    assert!(refused.contains("does not have the profile 'a'; it has: b, web"), "{refused}");
    let dump = desk.world.dump().await;
    let record: Value =
        serde_json::from_str(&dump[&format!("{RESOURCES}/workloadendpoints/openstack/{key}")]).unwrap();
    assert_eq!(
        (&record["spec"]["profiles"], &record["spec"]["later"]),
        (&json!(["b", "web"]), &json!({"kept": true}))
    );

    let first = &tasks[0];
    for name in [&first.task_id, &first.workload, &first.container_id, &first.container_id[..13].to_owned()] {
        desk.done(&format!("endpoint {name} profile set web"));
        desk.done(&format!("endpoint {name} profile set dev"));
    }
    let said = desk.run(&format!("endpoint {} profile remove dev", first.task_id));
    assert!(said.code == 0 && said.stdout.contains("profiles: none"), "{said:?}");
    assert!(said.stderr.contains("Felix drops"), "{said:?}");
    let refused = desk.refused("endpoint agent profile show");
    assert!(refused.contains("fits 4 endpoints"), "{refused}");
    assert!(desk.refused("endpoint nowhere profile show").contains("no endpoint"));
    for line in ["endpoint profile show", "endpoint vm-1 show", "endpoint vm-1 profile set", "endpoint vm-1"]
    {
        assert_eq!(desk.run(line).code, 64, "{line}");
    }
    let trail = desk.trail();
    assert_eq!(trail[1]["object"], json!(format!("WorkloadEndpoint openstack/{key}")));
    assert_eq!(trail[1]["before"]["spec"]["profiles"], json!(["a", "b"]));
}
