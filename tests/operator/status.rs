//! `status`: what it finds on a host with little, and what it never hides.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::os::unix::process::CommandExt;
use std::process::Stdio;

use serde_json::{json, Value};

use crate::datastore::RESOURCES;
use crate::desk::{Desk, Said, NODE, PROGRAM};
use crate::world::{app, calico, World, RUNTIME};

const POOL: (&str, &str) = ("web", r#"{"cidr":"10.65.0.0/24","blockSize":26,"vxlanMode":"Always"}"#);

/// A desk whose Docker is away.
async fn desk() -> Desk {
    let desk = Desk::new(&[NODE, "agent-2"], &[POOL]).await;
    add(&desk, &format!("[docker]\nhost = \"unix://{}/none.sock\"\n", desk.dir().display()));
    desk
}

fn add(desk: &Desk, text: &str) {
    let mut file = std::fs::OpenOptions::new().append(true).open(desk.config()).unwrap();
    file.write_all(text.as_bytes()).unwrap();
}

#[track_caller]
fn line<'a>(said: &'a Said, name: &str) -> &'a str {
    let found = said.stdout.lines().find(|line| line.get(6..).is_some_and(|rest| rest.starts_with(name)));
    found.unwrap_or_else(|| panic!("no line {name}: {said:?}"))
}

fn check<'a>(document: &'a Value, name: &str) -> &'a Value {
    document["checks"].as_array().unwrap().iter().find(|check| check["name"] == name).unwrap()
}

#[tokio::test]
async fn every_part_has_its_line_and_a_problem_is_exit_code_2() {
    let desk = desk().await;
    let said = desk.run("status");
    assert_eq!(said.code, 2, "{said:?}");
    assert!(said.stdout.lines().next().unwrap().contains("Calico node agent-1"), "{said:?}");
    assert!(
        said.stdout.contains(&format!("datastore from [etcd] of {}", desk.config().display())),
        "{said:?}"
    );
    let datastore = line(&said, "datastore");
    assert!(datastore.starts_with("ok    datastore  etcd 3."), "{datastore}");
    for words in ["1 of 1 member, no TLS", "of 2 GB, the default", "not compacted yet"] {
        assert!(datastore.contains(words), "{datastore}");
    }
    assert!(line(&said, "docker").starts_with("FAIL"), "{said:?}");
    assert!(said.stdout.contains("                 > start Docker (systemctl start docker)"), "{said:?}");
    assert!(line(&said, "bgp").contains("not used: no pool needs it"), "{said:?}");
    assert!(line(&said, "consul").contains("not used"), "{said:?}");
    assert!(line(&said, "tasks").contains("0 running, 0 waiting for teardown"), "{said:?}");
    assert!(line(&said, "pool").contains("10.65.0.0/24  0 of 256 used (0 %), 0 of 4 blocks"), "{said:?}");
    assert!(!said.stdout.contains('\u{1b}'), "no colours in a pipe: {said:?}");
}

/// The schema that README.md documents.
#[tokio::test]
async fn json_has_the_documented_shape() {
    let desk = desk().await;
    let said = desk.run("status -o json");
    assert_eq!((said.code, said.stderr.as_str()), (2, ""));
    let document: Value = serde_json::from_str(&said.stdout).unwrap();
    let keys: Vec<&String> = document.as_object().unwrap().keys().collect();
    let wanted = [
        "schema",
        "host",
        "node",
        "ipv4",
        "ipv6",
        "cluster",
        "datastore_from",
        "verdict",
        "problems",
        "warnings",
        "checks",
    ];
    assert_eq!(keys, wanted);
    assert_eq!(
        (&document["schema"], &document["node"], &document["verdict"]),
        (&json!(1), &json!(NODE), &json!("fail"))
    );
    let names: Vec<&str> =
        document["checks"].as_array().unwrap().iter().map(|check| check["name"].as_str().unwrap()).collect();
    assert_eq!(
        names,
        ["node", "datastore", "felix", "policy", "bgp", "docker", "consul", "agent", "tasks", "pool"]
    );
    for check in document["checks"].as_array().unwrap() {
        let keys: Vec<&String> = check.as_object().unwrap().keys().collect();
        assert_eq!(keys, ["name", "verdict", "text", "advice", "facts"]);
        assert!(["ok", "warn", "fail"].contains(&check["verdict"].as_str().unwrap()), "{check}");
    }
    let verdicts = |word: &str| {
        document["checks"].as_array().unwrap().iter().filter(|check| check["verdict"] == word).count()
    };
    assert_eq!(document["problems"], json!(verdicts("fail")));
    assert_eq!(document["warnings"], json!(verdicts("warn")));
    let pool = &check(&document, "pool")["facts"];
    assert_eq!(
        (&pool["cidr"], &pool["free"], &pool["encapsulation"]),
        (&json!("10.65.0.0/24"), &json!(256), &json!("vxlan"))
    );
    assert!(check(&document, "datastore")["facts"]["latency_ms"].as_f64().unwrap() > 0.0);
    // The same document, for those who prefer YAML.
    let yaml = desk.run("status -o yaml").stdout;
    assert!(yaml.contains("verdict: fail") && yaml.contains("name: datastore"), "{yaml}");
    assert_eq!(desk.run("status -o name").stdout.lines().count(), 10);
}

#[tokio::test]
async fn a_datastore_that_is_away_hides_nothing_else() {
    let desk = desk().await;
    let text = std::fs::read_to_string(desk.config()).unwrap();
    std::fs::write(desk.config(), text.replace(&desk.world.etcd.endpoint, "http://127.0.0.1:1")).unwrap();
    let said = desk.run("status");
    assert_eq!(said.code, 2, "{said:?}");
    let datastore = line(&said, "datastore");
    assert!(datastore.starts_with("FAIL") && datastore.contains("127.0.0.1:1"), "{datastore}");
    assert!(line(&said, "tasks").starts_with("ok"), "{said:?}");
    assert!(line(&said, "docker").starts_with("FAIL"), "{said:?}");
    assert!(said.stdout.contains("Calico node agent-1"), "{said:?}");
}

#[tokio::test]
async fn a_compaction_and_damaged_records_are_seen() {
    let mut desk = desk().await;
    for number in 0..20 {
        desk.world.put("/calico/x", &number.to_string()).await;
    }
    desk.world.raw.compact(10, None).await.unwrap();
    let document: Value = serde_json::from_str(&desk.run("status -o json").stdout).unwrap();
    let datastore = check(&document, "datastore");
    assert_eq!(datastore["facts"]["compacted_revision"], json!(10), "{datastore}");
    assert!(datastore["text"].as_str().unwrap().contains("compacted, history of"), "{datastore}");

    // The time is that of Felix's report at that revision.
    let report =
        |time: std::time::SystemTime| format!(r#"{{"time":"{}"}}"#, humantime::format_rfc3339_seconds(time));
    let key = format!("/calico/felix/v2/no-region/host/{NODE}/last_reported_status");
    let past = std::time::SystemTime::now() - std::time::Duration::from_secs(720);
    desk.world.put(&key, &report(past)).await;
    let revision = desk.world.raw.get(key.as_str(), None).await.unwrap().header().unwrap().revision();
    desk.world.put(&key, &report(std::time::SystemTime::now())).await;
    desk.world.raw.compact(revision, None).await.unwrap();
    assert!(desk.run("status").stdout.contains("history of 12 min"));

    let keys = ["ippools/broken", "nodes/broken"].map(|name| format!("{RESOURCES}/{name}"));
    for (key, value) in keys.iter().zip(["{", r#"["a"]"#]) {
        desk.world.put(key, value).await;
    }
    let pool = format!("{RESOURCES}/ippools/odd");
    desk.world.put(&pool, r#"{"spec":{"cidr":"10.0.0.0"}}"#).await;
    // One of each kind that no other part of `status` reads.
    let others = [
        format!("{RESOURCES}/bgppeers/broken"),
        format!("{RESOURCES}/globalnetworkpolicies/broken"),
        format!("{RESOURCES}/hostendpoints/broken"),
        format!("{RESOURCES}/profiles/broken"),
        format!("{RESOURCES}/workloadendpoints/default/broken"),
        "/calico/ipam/v2/assignment/ipv4/block/10.65.0.0-26".to_owned(),
        "/calico/ipam/v2/handle/broken".to_owned(),
    ];
    for key in &others {
        desk.world.put(key, "{").await;
    }
    let document: Value = serde_json::from_str(&desk.run("status -o json").stdout).unwrap();
    let datastore = check(&document, "datastore");
    assert_eq!(datastore["verdict"], "warn");
    let damaged = datastore["facts"]["damaged"].as_array().unwrap();
    let all = [&keys[..], &others, &[pool]].concat();
    let seen = |key: &String| damaged.iter().any(|damaged| damaged == key.as_str());
    assert!(damaged.len() == all.len() && all.iter().all(seen), "{damaged:#?}");
    let pool = check(&document, "pool");
    let text = pool["text"].as_str().unwrap();
    assert!(text.contains("10.65.0.0/24") && text.contains("1 damaged block left out"), "{pool}");
    assert_eq!((&pool["verdict"], &pool["facts"]["damaged_blocks"]), (&json!("warn"), &json!(1)));
}

#[tokio::test]
async fn the_classic_table_is_birds_own_answer() {
    let desk = desk().await;
    let node = format!("{RESOURCES}/nodes/{NODE}");
    let mut desk = desk;
    desk.world
        .put(&node, r#"{"metadata":{"name":"agent-1"},"spec":{"bgp":{"ipv4Address":"10.99.0.11/24"}}}"#)
        .await;
    let listener = UnixListener::bind(desk.dir().join("bird.ctl")).unwrap();
    let bird = std::thread::spawn(move || {
        for stream in listener.incoming().take(2) {
            let mut stream = stream.unwrap();
            stream.write_all(b"0001 BIRD 1.6.8 ready.\n").unwrap();
            let mut question = String::new();
            BufReader::new(stream.try_clone().unwrap()).read_line(&mut question).unwrap();
            assert_eq!(question, "show protocols\n");
            let answer = "2002-name     proto    table    state  since       info\n\
                1002-kernel1  Kernel   master   up     02:00:01    \n \
                Mesh_10_99_0_12 BGP      master   up     02:11:04    Established   \n0000 \n";
            stream.write_all(answer.as_bytes()).unwrap();
        }
    });
    let said = desk.run("status --detailed");
    let first = said.stdout.lines().next().unwrap();
    assert!(first.starts_with("calico-node container"), "{said:?}");
    assert!(said.stdout.contains("IP: 10.99.0.11    AS Number: 64512 (inherited)"), "{said:?}");
    let row = "|  10.99.0.12  | node-to-node mesh |   up  | 02:11:04 | Established |";
    assert!(said.stdout.contains(row), "{said:?}");
    assert!(
        said.stdout.contains("| Peer address |     Peer type     | State |   Since  |     Info    |"),
        "{said:?}"
    );
    assert!(line(&said, "bgp").contains("1 of 1 peer up"), "{said:?}");

    // Under the name calicoctl without a flag.
    let link = desk.dir().join("calicoctl");
    std::os::unix::fs::symlink(PROGRAM, &link).unwrap();
    let said = Said::of(desk.command(&link).arg("status").output().unwrap());
    assert!(said.stdout.contains(row), "{said:?}");
    bird.join().unwrap();
}

#[tokio::test]
async fn watch_prints_until_its_reader_goes() {
    let desk = desk().await;
    let mut command = desk.command(PROGRAM);
    command.args(["status", "--watch=0.1"]).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut heads = 0;
    while heads < 3 {
        let line = lines.next().unwrap().unwrap();
        heads += usize::from(line.contains("Calico node agent-1   "));
    }
    drop(lines);
    let said = Said::of(child.wait_with_output().unwrap());
    assert_eq!((said.code, said.stderr.as_str()), (0, ""));

    let said = desk.run("status --watch=none");
    assert_eq!(said.code, 64, "{said:?}");
}

#[tokio::test]
async fn a_running_task_counts_in_all_its_places() {
    let world = World::with(|stack| stack.consul = true, |_| ()).await;
    let task = world.running(&app("/web", "sleep 1000", calico())).await;
    world.registered("web-direct").await;
    let socket = format!("unix://{}", world.stack.docker.socket.display());
    let mut command = std::process::Command::new(PROGRAM);
    command
        .arg("--config")
        .arg(&world.stack.config)
        .env("DOCKER_HOST", socket)
        .args(["status", "-o", "json"]);
    let said = Said::of(command.output().unwrap());
    let document: Value =
        serde_json::from_str(&said.stdout).unwrap_or_else(|error| panic!("{error}: {said:?}"));
    let facts = |name: &str| &check(&document, name)["facts"];
    assert_eq!(facts("tasks")["by_version"], json!({ env!("CARGO_PKG_VERSION"): 1 }), "{document:#}");
    assert_eq!(facts("docker")["runtime"], json!(RUNTIME), "{document:#}");
    assert!(facts("consul")["entries"].as_u64() >= Some(1), "{document:#}");
    assert_eq!(facts("pool")["allocated"], json!(1), "{document:#}");
    assert_eq!(facts("node")["in_datastore"], json!(true), "{document:#}");
    task.kill().await;
}

#[tokio::test]
async fn without_root_it_reads_what_it_may() {
    let desk = desk().await;
    let open = |path: &std::path::Path, mode| {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    };
    open(desk.dir(), 0o755);
    open(&desk.config(), 0o644);
    let program = desk.dir().join("calico-mesos");
    std::fs::copy(PROGRAM, &program).unwrap();
    let said = Said::of(desk.command(&program).arg("status").uid(65534).gid(65534).output().unwrap());
    assert!(line(&said, "datastore").starts_with("ok"), "{said:?}");
    assert!(line(&said, "tasks").contains("root only"), "{said:?}");
    assert!(said.stdout.contains("run status as root"), "{said:?}");
}
