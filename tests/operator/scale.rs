//! Ten thousand endpoints: how much memory a list of them takes, and what a filter leaves unread.

use std::io::Read;
use std::process::Stdio;

use etcd_client::{Txn, TxnOp};
use serde_json::{json, Value};

use crate::datastore::{auto, task, RESOURCES};
use crate::desk::{Desk, NODE, PROGRAM};

const COUNT: usize = 10_000;
const HOSTS: usize = 50;
/// The program without optimisation takes 25 MB more before it has read anything.
const MOST_MEMORY: u64 = if cfg!(debug_assertions) { 85 << 20 } else { 60 << 20 };

/// So many endpoints, all like one that was launched, on several hosts.
async fn desk() -> Desk {
    let mut desk = Desk::new(&[NODE], &[("web", r#"{"cidr":"10.65.0.0/24"}"#)]).await;
    let template = task(NODE);
    desk.world.launch(&template, &auto()).await.unwrap();
    let prefix = format!("{RESOURCES}/workloadendpoints/");
    let dump = desk.world.dump().await;
    let (key, value) = dump.iter().find(|(key, _)| key.starts_with(&prefix)).unwrap();
    desk.world.delete(key).await;
    let dashed = |text: &str| text.replace('-', "--");
    let puts: Vec<TxnOp> = (0..COUNT)
        .map(|number| {
            let identity = task(&format!("agent-{}", number % HOSTS));
            let renamed = |text: &str| {
                text.replace(&dashed(&template.container_id), &dashed(&identity.container_id))
                    .replace(&template.container_id, &identity.container_id)
                    .replace(&template.interface, &identity.interface)
                    .replace(&format!("{}-mesos", dashed(NODE)), &format!("{}-mesos", dashed(&identity.node)))
            };
            let mut record: Value = serde_json::from_str(&renamed(value)).unwrap();
            record["spec"]["node"] = json!(identity.node);
            TxnOp::put(renamed(key), record.to_string(), None)
        })
        .collect();
    for batch in puts.chunks(100) {
        desk.world.raw.txn(Txn::new().and_then(batch.to_vec())).await.unwrap();
    }
    desk
}

/// What the command prints, and the most memory that it has had in bytes. The kernel's count for children is of no use:
/// a child begins with its parent's.
fn run(desk: &Desk, line: &str) -> (String, u64) {
    let mut command = desk.command(PROGRAM);
    let mut child = command.args(line.split(' ')).stdout(Stdio::piped()).spawn().unwrap();
    let status = format!("/proc/{}/status", child.id());
    let peak = || -> Option<u64> {
        let status = std::fs::read_to_string(&status).ok()?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
        Some(line.trim().strip_suffix(" kB")?.parse::<u64>().unwrap() << 10)
    };
    let (mut printed, mut most) = (Vec::new(), 0);
    let mut pipe = child.stdout.take().unwrap();
    let mut piece = vec![0; 16 << 10];
    loop {
        // Before the piece is read, its writer may still wait for room in the pipe.
        most = most.max(peak().unwrap_or(0));
        match pipe.read(&mut piece).unwrap() {
            0 => break,
            length => printed.extend_from_slice(&piece[..length]),
        }
    }
    assert!(child.wait().unwrap().success(), "{line}");
    (String::from_utf8(printed).unwrap(), most)
}

#[tokio::test]
async fn ten_thousand_endpoints_are_listed_in_sixty_megabytes() {
    let desk = desk().await;
    for format in ["--detailed", "--detailed -o wide", "-o json", "-o yaml", "-o name"] {
        let (printed, most) = run(&desk, &format!("endpoint show {format}"));
        println!("endpoint show {format}: {} MB, {} bytes printed", most >> 20, printed.len());
        assert!(printed.lines().count() >= COUNT, "{format}: {} lines", printed.lines().count());
        assert!(most > 0 && most < MOST_MEMORY, "{format}: {} MB", most >> 20);
        if format == "-o json" {
            let list: Vec<Value> = serde_json::from_str(&printed).unwrap();
            assert_eq!(list.len(), COUNT);
        }
    }
}

#[tokio::test]
async fn a_filter_by_host_reads_the_endpoints_of_that_host_alone() {
    let desk = desk().await;
    let mut sent = Vec::new();
    for line in ["endpoint show -o name", "endpoint show -o name --host agent-7"] {
        let before = desk.world.bytes_sent().await;
        let (printed, _) = run(&desk, line);
        sent.push(desk.world.bytes_sent().await - before);
        let expected = if line.contains("--host") { COUNT / HOSTS } else { COUNT };
        assert_eq!(printed.lines().count(), expected, "{line}");
    }
    // One of fifty hosts, and a few answers that do not depend on endpoints.
    assert!(sent[1] * 25 < sent[0], "etcd has sent {sent:?} bytes");
}
