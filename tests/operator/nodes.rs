//! `node show`, `node start` and `node stop`.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use calico_mesos::names::ContainerId;
use calico_mesos::task::record::journal::{Journal, Record};
use serde_json::json;

use crate::datastore::{auto, task, IPAM, RESOURCES};
use crate::desk::{Desk, Said, NODE, PROGRAM};

#[tokio::test]
async fn nodes_are_shown_with_what_they_have() {
    let mut desk = Desk::new(&[NODE, "agent-2"], &[("a", r#"{"cidr":"10.65.0.0/24","blockSize":28}"#)]).await;
    let spec =
        json!({"bgp": {"ipv4Address": "10.0.0.2/24", "asNumber": 64513}, "ipv4VXLANTunnelAddr": "10.65.9.1"});
    let record = json!({"metadata": {"name": "agent-3", "labels": {"rack": "r1"}}, "spec": spec});
    desk.world.put(&format!("{RESOURCES}/nodes/agent-3"), &record.to_string()).await;
    for _ in 0..2 {
        desk.world.launch(&task(NODE), &auto()).await.unwrap();
    }
    let status = r#"{"time":"2026-08-22T10:00:00Z","uptime":12.5,"first_update":false}"#;
    desk.world.put("/calico/felix/v2/no-region/host/agent-2/last_reported_status", status).await;
    let table = desk.done("node show");
    let rows: Vec<Vec<&str>> = table.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(rows[0][..5], ["NODE", "ADDRESS", "AS", "TUNNEL", "BLOCKS"]);
    assert_eq!(rows[1][..7], [NODE, "-", "-", "-", "1", "2", "2"], "{table}");
    assert!(rows[1][7..].join(" ").ends_with("s ago (address taken)"), "{table}");
    assert_eq!(rows[2][..7], ["agent-2", "-", "-", "-", "0", "0", "0"], "{table}");
    assert!(rows[2][7..].join(" ").ends_with("d ago (Felix)"), "{table}");
    assert_eq!(
        rows[3],
        ["agent-3", "10.0.0.2/24", "64513", "vxlan", "10.65.9.1", "0", "0", "0", "-"],
        "{table}"
    );
    assert_eq!(rows.len(), 4, "{table}");

    let shown = desk.json("node show agent-2");
    let [node] = &shown.as_array().unwrap()[..] else { panic!("not one node: {shown}") };
    let seen = json!({"time": "2026-08-22T10:00:00Z", "source": "Felix"});
    assert_eq!((&node["last_sign_of_life"], &node["felix_reports"]), (&seen, &json!(false)));
    assert!(desk.done("node show -o wide").contains("rack=r1"));
    let refused = desk.refused("node show agent-33");
    assert!(refused.contains("'agent-33'") && refused.contains("'agent-3'"), "{refused}");
}

/// Whatever was edited by hand: it is named, and the other nodes are listed all the same.
#[tokio::test]
async fn damaged_records_are_named_and_hide_nothing() {
    let mut desk = Desk::new(&[NODE], &[("a", r#"{"cidr":"10.65.0.0/24"}"#)]).await;
    desk.world.launch(&task(NODE), &auto()).await.unwrap();
    let damaged = [
        (format!("{RESOURCES}/nodes/broken"), "[]"),
        (
            format!("{IPAM}/assignment/ipv4/block/10.65.0.64-26"),
            r#"{"cidr":"10.65.0.64/26","allocations":[1]}"#,
        ),
        (format!("{IPAM}/assignment/ipv4/block/10.65.0.1/26"), "{}"),
        ("/calico/felix/v2/no-region/host/agent-1/last_reported_status".to_owned(), r#"{"time":"soon"}"#),
    ];
    for (key, value) in &damaged {
        desk.world.put(key, value).await;
    }
    desk.world.put(&format!("{IPAM}/host/gone/ipv4/block/10.65.0.128-26"), "{}").await;
    let said = desk.run("node show");
    assert_eq!(said.code, 0, "{said:?}");
    for name in [NODE, "broken", "gone"] {
        assert!(said.stdout.lines().any(|line| line.starts_with(name)), "{said:?}");
    }
    for (key, _) in &damaged {
        assert!(said.stderr.contains(&format!("{key} is damaged")), "{key}: {said:?}");
    }
    assert!(said.stderr.contains("'gone', and there is no such node"), "{said:?}");
    assert!(!said.stderr.contains("'broken', and there"), "{said:?}");
}

/// In place of systemd: has the unit if there is a file of its name, and notes what is asked of it.
fn systemd(desk: &Desk) -> std::path::PathBuf {
    let folder = desk.dir().join("systemd");
    fs::create_dir(&folder).unwrap();
    let script = format!(
        "#!/bin/sh\ncd {}\ncase $1 in\n  cat) test -e unit ;;\n  is-active) test -e active ;;\n  stop) rm active ;;\n  \
         *) touch active ;;\nesac && echo \"$*\" >> calls\n",
        folder.display()
    );
    fs::write(folder.join("systemctl"), script).unwrap();
    fs::set_permissions(folder.join("systemctl"), fs::Permissions::from_mode(0o755)).unwrap();
    folder
}

#[tokio::test]
async fn calico_node_is_started_with_the_settings_and_stopped_when_no_task_lives() {
    let desk = Desk::new(&[NODE], &[]).await;
    let systemd = systemd(&desk);
    let env = desk.dir().join("etc/calico.env");
    let path = format!("{}:{}", systemd.display(), std::env::var("PATH").unwrap());
    let run = |line: &str| {
        let mut command = desk.command(PROGRAM);
        Said::of(command.args(line.split_whitespace()).env("PATH", &path).output().unwrap())
    };
    let start = format!("node start --ip=127.0.0.1 --as=64513 --env-file={}", env.display());
    // The settings are written, and the rest is the operator's to install.
    let said = run(&start);
    assert!(said.code == 1 && said.stderr.contains("no unit calico-node.service"), "{said:?}");
    let text = fs::read_to_string(&env).unwrap();
    for line in ["CALICO_IP=127.0.0.1", "CALICO_AS=64513", "CALICO_NODENAME=agent-1"] {
        assert!(text.lines().any(|there| there == line), "{text}");
    }
    assert!(text.contains(&format!("ETCD_ENDPOINTS={}", desk.world.etcd.endpoint)), "{text}");
    assert!(run("node stop").stderr.contains("no unit"));

    fs::write(systemd.join("unit"), "").unwrap();
    assert_eq!(run(&format!("{start} --dry-run")).code, 3);
    assert!(!systemd.join("active").exists());
    assert!(run(&start).stdout.ends_with("calico-node.service is started\n"));
    assert!(run(&start).stdout.ends_with("calico-node.service runs already\n"));
    // The classic form; another value is only read by a new start.
    let said = run(&format!("{} --as=64514", start.replace(" start", "").replace(" --as=64513", "")));
    assert!(said.stdout.ends_with("calico-node.service is restarted\n"), "{said:?}");
    assert!(run("node start --ip=192.0.2.77").stderr.contains("192.0.2.77 belongs to no interface"));

    let journal = Journal::open(&desk.dir().join("state/tasks")).unwrap();
    let container = ContainerId::random();
    let task = journal.begin(Record::new(container.clone(), task(NODE))).unwrap();
    let said = run("node stop");
    assert!(said.code == 1 && said.stderr.contains("1 task lives here"), "{said:?}");
    assert!(systemd.join("active").exists());
    assert_eq!(run("node stop --force --dry-run").code, 3);
    drop(task);
    assert_eq!(run("node stop").stdout, "calico-node.service is stopped\n");
    assert_eq!(run("node stop").stdout, "calico-node.service does not run\n");
    let objects: Vec<_> = desk.trail().iter().map(|line| line["object"].clone()).collect();
    let (file, unit) = (json!(env), json!("calico-node.service"));
    assert_eq!(objects, [file.clone(), unit.clone(), file, unit.clone(), unit]);
}
