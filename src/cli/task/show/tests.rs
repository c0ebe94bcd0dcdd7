//! Page and document of a task whose looks failed, or found things missing.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use serde_json::{json, Value};

use super::{document::document, page::page, Shown};
use crate::calico::Identity;
use crate::consul::Service;
use crate::names::ContainerId;
use crate::net::forward::{Mapping, Protocol};
use crate::net::show::{Inside, InterfaceFigures};
use crate::task::record::journal::{Record, View};
use crate::task::report::trail::{Life, Part, Tenure};
use crate::task::story::facts::{BoundNamespace, Facts, FelixReport};
use crate::task::story::{Story, StoryPhase};

const CONTAINER: &str = "5f3cbe1e-77aa-4d1b-8b0e-0c1f2a3b4c5d";

fn address() -> IpAddr {
    "10.0.0.1".parse().unwrap()
}

fn mapping(host: u16) -> Mapping {
    Mapping { protocol: Protocol::Tcp, host, task: 8080 }
}

fn service() -> Service {
    let listed = json!({
        "ID": "calico-mesos-1", "Name": "web-direct", "Address": "10.0.0.1", "Port": 3000,
        "Check": {"Name": "x", "TTL": "1h", "Status": "critical", "Notes": "connection refused"},
    });
    serde_json::from_value(listed).unwrap()
}

/// A living task of which everything is as it should be, but for Felix.
fn shown() -> Shown {
    let container = ContainerId::parse(CONTAINER).unwrap();
    let mut record = Record::new(container.clone(), Identity::new("agent-1", &container, "/web", "web.1"));
    record.written = "2026-11-28T20:00:00Z".into();
    record.ports = vec![mapping(31000)];
    let tenure = Tenure {
        address: address(),
        profiles: vec!["dev".into()],
        given: Some("2026-11-28T20:00:01.000Z".into()),
        returned: None,
        conflict: None,
    };
    let launch = Part { steps: vec![("claimed".into(), 12.5)], ..Part::default() };
    let inside = Inside { mac: "02:00:00:00:00:01".into(), mtu: 1480, ..Inside::default() };
    let bound = BoundNamespace { inode: 7, processes: vec![4711], inside: Ok(Some(inside)) };
    Shown {
        story: Story {
            task: "web.1".into(),
            app: "/web".into(),
            framework: "F".into(),
            state: StoryPhase::Running,
            addresses: vec![address()],
            profiles: vec!["dev".into()],
            view: Some(View {
                record: Box::new(record),
                owned: true,
                pending: false,
                held: Vec::new(),
                ending: None,
            }),
            life: Some(Life { addresses: vec![tenure], launch: Some(launch), ..Life::default() }),
            health: None,
            container,
        },
        facts: Facts {
            interface: "cali5f3cbe1e77a".into(),
            figures: Ok(Some(InterfaceFigures { mtu: 1480, up: true, ..InterfaceFigures::default() })),
            namespace: "/run/calico-mesos/tasks/x/netns".into(),
            bound: Ok(Some(bound)),
            host_routes: vec![(address(), Ok(true))],
            endpoint: "agent--1-mesos-x-eth0".into(),
            record: Ok(Some(json!({"spec": {"ipNetworks": ["10.0.0.1/32"], "profiles": ["dev"]}}))),
            report: FelixReport::NoFolder("/var/run/calico/endpoint-status".into()),
            ports: Ok(vec![mapping(31000)]),
            registered: Ok(Some(vec![service()])),
            noted: vec![service()],
        },
        sandbox: None,
        now: SystemTime::UNIX_EPOCH + Duration::from_secs(1_796_000_000),
    }
}

#[track_caller]
fn says(shown: &Shown, texts: &[&str]) {
    let page = page(shown);
    for text in texts {
        assert!(page.contains(text), "no '{text}' in\n{page}");
    }
}

#[test]
fn a_page_names_every_matter() {
    says(
        &shown(),
        &[
            "task       web.1\n",
            "state      running; began 2026-11-28T20:00:00Z",
            "workload   a command of the executor's\n",
            "address    10.0.0.1  since 2026-11-28T20:00:01.000Z, the host routes it here\n           profiles dev\n",
            "interface  cali5f3cbe1e77a, up, MTU 1480, received 0 B in 0 packets",
            "(net:[7]), process 4711\n",
            "endpoint   agent--1-mesos-x-eth0: 10.0.0.1/32, profiles dev\n",
            "felix      writes no reports: there is no folder /var/run/calico/endpoint-status\n",
            "ports      tcp 31000 > 8080\n",
            "consul     web-direct 10.0.0.1 port 3000  unhealthy: connection refused\n",
            "error      -\nlogs       the sandbox is unknown\nlaunch",
            "      12.5 ms  claimed",
        ],
    );
}

#[test]
fn what_is_missing_of_a_living_task_stands_out() {
    let mut shown = shown();
    shown.facts.host_routes = vec![(address(), Ok(false))];
    shown.facts.figures = Ok(None);
    shown.facts.bound = Ok(None);
    shown.facts.record = Ok(None);
    shown.facts.ports = Ok(vec![mapping(31001)]);
    shown.facts.registered = Ok(Some(Vec::new()));
    shown.facts.report = FelixReport::Missing("/e/x".into());
    says(
        &shown,
        &[
            "NO host route leads here",
            "cali5f3cbe1e77a does not exist",
            "netns does not exist",
            "is NOT in the datastore",
            "tcp 31000 > 8080  NOT forwarded\n           tcp 31001 > 8080\n",
            "NOT in Consul",
            "no report /e/x",
        ],
    );
    let document = document(&shown);
    assert_eq!(document["ports"]["mappings"][0]["open"], false);
    assert_eq!(document["consul"]["entries"][0]["registered"], false);
    assert_eq!(document["endpoint"], json!({"name": "agent--1-mesos-x-eth0", "record": null, "error": null}));
}

#[test]
fn a_look_that_failed_gives_its_reason_and_hides_nothing() {
    let mut shown = shown();
    shown.facts.host_routes = vec![(address(), Err("no routes".into()))];
    shown.facts.figures = Err("no links".into());
    shown.facts.bound = Err("no namespace".into());
    shown.facts.record = Err("etcd is away".into());
    shown.facts.ports = Err("no tables".into());
    shown.facts.registered = Err("Consul is away".into());
    says(
        &shown,
        &[
            "no routes",
            "no links",
            "no namespace",
            "etcd is away",
            "no tables",
            "Consul is away",
            "tcp 31000 > 8080\n",
        ],
    );
    let document = document(&shown);
    for (part, why) in [("endpoint", "etcd is away"), ("interface", "no links"), ("consul", "Consul is away")]
    {
        assert_eq!(document[part], json!({ "error": why }));
    }
    assert_eq!(document["addresses"][0]["host_route"], Value::Null);
}

#[test]
fn names_of_others_do_not_reach_the_terminal_as_they_are() {
    let mut shown = shown();
    shown.story.task = "web\u{1b}[2J\nforged".into();
    shown.sandbox = Some(crate::task::story::Sandbox {
        path: PathBuf::from("/a\nb"),
        reach: PathBuf::from("/nonexistent/sandbox/of/a/task"),
    });
    says(&shown, &["task       web [2J forged\n", "logs       /a b, which is gone"]);
}

/// The fields that the README's table promises; a field that goes is a broken promise.
#[test]
fn the_document_has_the_fields_that_are_promised() {
    let document = document(&shown());
    let fields: Vec<&str> = document.as_object().unwrap().keys().map(String::as_str).collect();
    let promised = "task app framework container state health since age_seconds ending executor_version executor_pid \
                    profiles write_pending workload addresses interface namespace endpoint felix ports consul sandbox \
                    launch teardowns";
    assert_eq!(fields, promised.split_whitespace().collect::<Vec<_>>());
    assert_eq!(document["launch"]["steps_ms"], json!({"claimed": 12.5}));
    assert_eq!(document["felix"]["report"], "no folder");
    assert_eq!(document["namespace"]["interface"]["mtu"], 1480);
}
