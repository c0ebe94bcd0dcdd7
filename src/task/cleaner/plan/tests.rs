//! What a plan does with every kind of thing, one at a time and all together.

mod restore;

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::calico::{Allocation, Endpoint, Identity, SeenEndpoint};
use crate::consul::Service;
use crate::net::forward::{Mapping, Protocol};
use crate::task::cleaner::seen::{Folder, SeenContainer, Silent};
use crate::task::record::journal::{Backing, Owner};

const NODE: &str = "agent-17";
const DAY: Duration = Duration::from_secs(86400);
const REPORT: Rules = Rules { orphans: Orphans::Report, grace: Duration::from_secs(300) };
const REMOVE: Rules = Rules { orphans: Orphans::Remove, ..REPORT };

fn now() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000)
}

fn survey() -> Survey {
    Survey { now: now(), journal_since: Some(now() - 100 * DAY), ..Survey::new(NODE.into()) }
}

fn id(number: u8) -> ContainerId {
    ContainerId::parse(&format!("5f3cbe{number:02x}-77aa-4d1b-8b0e-0c1f2a3b4c5d")).unwrap()
}

fn record(container: &ContainerId) -> Box<Record> {
    let identity = Identity { uid: "u".into(), ..Identity::new(NODE, container, "cart", "cart.1") };
    Box::new(Record {
        backing: Backing::Container {
            docker: "unix:///d".into(),
            name: format!("mesos-{container}"),
            adopted: false,
        },
        framework: "f".into(),
        owner: Owner { pid: 4121, start_time: 1, boot_id: "b".into(), version: "0.1.0".into() },
        written: humantime::format_rfc3339_seconds(now() - Duration::from_secs(7300)).to_string(),
        ..Record::new(container.clone(), identity)
    })
}

fn endpoint(container: Option<&ContainerId>, address: &str, age: Duration) -> SeenEndpoint {
    let workload = container.map_or("legacy-3".into(), |container| container.workload("cart"));
    let endpoint = Endpoint {
        name: format!("agent--17-mesos-{workload}-eth0"),
        uid: Some("u".into()),
        node: NODE.into(),
        orchestrator: "mesos".into(),
        workload,
        container_id: container.map(ToString::to_string).unwrap_or_default(),
        interface: container.map(ContainerId::interface).unwrap_or_default(),
        mac: String::new(),
        addresses: vec![address.parse().unwrap()],
        profiles: vec![],
        labels: BTreeMap::new(),
        app: container.map(|_| "cart".into()),
        task_id: container.map(|_| "cart.1".into()),
        created: Some(now() - age),
    };
    SeenEndpoint { endpoint, revision: 7, container: container.cloned() }
}

fn allocation(handle: &str, address: &str, age: Duration) -> Allocation {
    Allocation {
        address: address.parse().unwrap(),
        block: "10.0.0.0/26".parse().unwrap(),
        handle: Some(handle.into()),
        node: Some(NODE.into()),
        kind: None,
        app: Some("cart".into()),
        task_id: Some("cart.1".into()),
        since: Some(now() - age),
    }
}

fn service(container: &ContainerId, node: &str) -> Service {
    serde_json::from_value(json!({
        "ID": format!("calico-mesos-{container}-80"), "Service": "web-direct", "Address": "10.0.0.1",
        "Port": 80, "Meta": {"calico-node": node}
    }))
    .unwrap()
}

fn container(state: ContainerState, age: Duration) -> SeenContainer {
    SeenContainer { docker: "unix:///d".into(), name: "mesos-x".into(), state, created: Some(now() - age) }
}

fn folder(inhabited: bool, age: Duration) -> Folder {
    Folder { path: "/run/x".into(), made: Some(now() - age), bound: true, inhabited }
}

/// Endpoint and address, a day old.
fn orphan(container: &ContainerId) -> Trace {
    Trace {
        endpoint: Some(endpoint(Some(container), "10.0.0.70", DAY)),
        addresses: vec![allocation(&container.handle(), "10.0.0.70", DAY)],
        ..Trace::default()
    }
}

fn lines(plan: &Plan) -> Vec<String> {
    let line =
        |item: &Item| format!("{} {} {}: {}", item.verdict.word(), item.kind.word(), item.name, item.why);
    plan.items.iter().map(line).collect()
}

#[test]
fn a_dead_executors_task_goes_whatever_its_age() {
    let mut survey = survey();
    let trace = Trace {
        services: vec![service(&id(1), NODE)],
        container: Some(container(ContainerState::Exited, DAY)),
        ports: vec![Mapping { protocol: Protocol::Tcp, host: 31000, task: 80 }],
        veth: Some("cali5f3cbe01".into()),
        folder: Some(folder(false, Duration::ZERO)),
        ..orphan(&id(1))
    };
    survey.traces.insert(id(1), trace);
    survey.records.insert(id(1), SeenRecord::Dead(record(&id(1)), Death::Died));
    let plan = Plan::make(&survey, &REPORT);
    assert_eq!(
        lines(&plan),
        [
            "remove consul web-direct (5f3cbe01): executor pid 4121 dead, container exited",
            "remove ports 31000/tcp: same task",
            "remove veth cali5f3cbe01: same task",
            "remove folder tasks/5f3cbe01: same task",
            "remove endpoint mesos/cart.5f3cbe01/eth0: same task",
            "release address 10.0.0.70: same task, handle mesos.5f3cbe01",
            "remove journal cart.5f3cbe01: same task",
        ]
    );
    assert_eq!((plan.finish, plan.remove, plan.orphans.len()), (vec![id(1)], vec![], 0));
    assert_eq!(
        plan.items[0].age,
        Some(Duration::from_secs(7300)),
        "an entry of unknown age has the record's"
    );
}

#[test]
fn the_reason_of_a_tasks_death_is_printed() {
    let trace = |state| Trace { container: Some(container(state, DAY)), ..Trace::default() };
    let command = || Box::new(Record { backing: Backing::Process, ..*record(&id(1)) });
    let living = Trace { folder: Some(folder(true, DAY)), ..Trace::default() };
    for (record, death, trace, told) in [
        (record(&id(1)), Death::Rebooted, Trace::default(), "host rebooted since, no container"),
        (
            record(&id(1)),
            Death::Died,
            trace(ContainerState::Living),
            "executor pid 4121 dead, container runs",
        ),
        (
            record(&id(1)),
            Death::Died,
            trace(ContainerState::NeverStarted),
            "executor pid 4121 dead, container never started",
        ),
        (
            record(&id(1)),
            Death::LetGo,
            trace(ContainerState::Exited),
            "executor pid 4121 has given it up, container exited",
        ),
        (command(), Death::Died, Trace::default(), "executor pid 4121 dead, command over"),
        (command(), Death::Died, living, "executor pid 4121 dead, command runs"),
    ] {
        assert_eq!(why_dead(&record, death, &trace), told);
    }
}

#[test]
fn a_living_task_is_left_alone() {
    let mut survey = survey();
    survey.traces.insert(id(1), Trace { folder: Some(folder(true, DAY)), ..orphan(&id(1)) });
    survey.records.insert(id(1), SeenRecord::Living(Some(record(&id(1)))));
    assert_eq!(Plan::make(&survey, &REMOVE), Plan::default());
    // The same for one that ended while we looked, and for one whose record is of a newer release.
    survey.records.clear();
    survey.before.insert(id(1));
    assert_eq!(Plan::make(&survey, &REMOVE), Plan::default());
    survey.records.insert(id(1), SeenRecord::Unreadable("its format is 9".into()));
    let plan = Plan::make(&survey, &REMOVE);
    assert_eq!(lines(&plan), ["keep journal 5f3cbe01: its format is 9"]);
    assert_eq!((plan.remove, plan.finish), (vec![], vec![]));
}

#[test]
fn what_consul_has_lost_is_registered_again() {
    let mut survey = survey();
    let told = vec![service(&id(1), NODE)];
    survey.traces.insert(id(1), Trace { told: told.clone(), ..Trace::default() });
    survey.records.insert(id(1), SeenRecord::Living(None));
    let plan = Plan::make(&survey, &REPORT);
    assert_eq!(
        lines(&plan),
        ["register consul web-direct (5f3cbe01): Consul has lost it, and the task lives"]
    );
    assert_eq!(plan.register, [id(1)]);
    survey.silent.push(Silent { source: "Consul", why: "away".into(), essential: false });
    assert_eq!(Plan::make(&survey, &REPORT), Plan::default());
    survey.silent.clear();
    survey.traces.insert(id(1), Trace { services: told.clone(), told, ..Trace::default() });
    assert_eq!(Plan::make(&survey, &REPORT), Plan::default());
}

#[test]
fn an_orphan_is_reported_or_removed_as_the_operator_wants() {
    let mut survey = survey();
    survey.traces.insert(id(1), orphan(&id(1)));
    let plan = Plan::make(&survey, &REPORT);
    assert_eq!((plan.count(|verdict| verdict == Verdict::Report), plan.count(Verdict::is_work)), (2, 0));
    assert_eq!((plan.orphans.len(), plan.remove.len()), (1, 0));
    let plan = Plan::make(&survey, &REMOVE);
    assert_eq!(
        lines(&plan),
        [
            "remove endpoint mesos/cart.5f3cbe01/eth0: in no journal, and nothing of it lives",
            "release address 10.0.0.70: same task, handle mesos.5f3cbe01",
        ]
    );
    assert_eq!((plan.orphans.len(), plan.remove), (1, vec![id(1)]));
}

/// Each of these alone keeps an orphan.
#[test]
fn an_orphan_is_kept_while_it_is_young_or_in_use() {
    let minute = Duration::from_secs(60);
    let kept = |change: &dyn Fn(&mut Survey, &mut Trace), why: &str| {
        let (mut survey, mut trace) = (survey(), orphan(&id(1)));
        change(&mut survey, &mut trace);
        survey.traces.insert(id(1), trace);
        for rules in [REMOVE, REPORT] {
            let plan = Plan::make(&survey, &rules);
            assert!(lines(&plan)[0].contains(why), "{why}: {:#?}", lines(&plan));
            assert_eq!(plan.count(|verdict| verdict != Verdict::Keep), 0, "{why}");
            assert!(plan.remove.is_empty() && plan.orphans.is_empty(), "{why}");
        }
    };
    kept(&|survey, _| survey.journal_since = None, "the journal itself is missing");
    kept(
        &|survey, _| {
            let lives =
                Trace { container: Some(container(ContainerState::Living, 200 * DAY)), ..Trace::default() };
            survey.traces.insert(id(2), lives);
            survey.records.insert(id(2), SeenRecord::Living(None));
        },
        "younger than the oldest living",
    );
    kept(
        &|survey, _| {
            survey.silent.push(Silent { source: "Docker", why: "away".into(), essential: true });
        },
        "Docker could not be queried",
    );
    kept(&|_, trace| trace.container = Some(container(ContainerState::Living, DAY)), "its container runs");
    kept(&|_, trace| trace.folder = Some(folder(true, DAY)), "lives in its namespace");
    kept(&|_, trace| trace.veth = Some("cali5f3cbe01".into()), "behind its interface");
    kept(
        &|_, trace| {
            trace.veth = Some("cali5f3cbe01".into());
            trace.folder = Some(Folder { bound: false, ..folder(false, DAY) });
        },
        "behind its interface",
    );
    kept(&|_, trace| trace.services = vec![service(&id(1), "agent-18")], "names no node, or another one");
    kept(
        &|survey, _| survey.shown = ["10.0.0.70".parse().unwrap()].into(),
        "another endpoint shows 10.0.0.70",
    );
    kept(
        &|_, trace| trace.endpoint = Some(endpoint(Some(&id(1)), "10.0.0.70", minute)),
        "younger than grace",
    );
    kept(
        &|survey, trace| {
            // A clock that was set back.
            survey.now = now() - 3 * DAY;
            trace.folder = None;
        },
        "younger than grace",
    );
}

/// Docker finishes a create whose asker is dead, maybe after the record has gone.
#[test]
fn a_container_that_never_started_and_has_nothing_else_goes() {
    let mut survey = survey();
    let created =
        |age| Trace { container: Some(container(ContainerState::NeverStarted, age)), ..Trace::default() };
    // Another client may be about to start it.
    survey.traces.insert(id(1), created(LAUNCHING - Duration::from_secs(1)));
    assert_eq!(Plan::make(&survey, &REMOVE).count(Verdict::is_work), 0);
    let created = created(LAUNCHING);
    survey.traces.insert(id(1), created.clone());
    let plan = Plan::make(&survey, &REPORT);
    assert_eq!(lines(&plan), ["remove container mesos-x: created and never started, in no journal"]);
    // With the journal, the record of its launch may have been deleted.
    survey.journal_since = Some(now() + DAY);
    assert_eq!(Plan::make(&survey, &REPORT).count(Verdict::is_work), 0);
    survey.journal_since = None;
    assert_eq!(Plan::make(&survey, &REPORT).count(Verdict::is_work), 0);
    let mut survey = self::survey();
    survey.traces.insert(id(1), Trace { container: created.container, ..orphan(&id(1)) });
    assert_eq!(Plan::make(&survey, &REPORT).count(Verdict::is_work), 0);
}

#[test]
fn what_others_have_is_named_and_never_touched() {
    let mut survey = survey();
    let tunnel = Allocation {
        kind: Some("vxlanTunnelAddress".into()),
        ..allocation("vxlan-tunnel-addr-agent-17", "10.0.0.1", 90 * DAY)
    };
    survey.strange_addresses = vec![tunnel, allocation("mesos.legacy", "10.0.0.3", DAY)];
    survey.strange_endpoints = vec![endpoint(None, "10.0.0.3", 41 * DAY)];
    survey.strangers = vec![("/j/notes.txt".into(), "not a journal file".into())];
    survey.unreadable_blocks = vec![("10.0.0.0/26".parse().unwrap(), "it ends too early".into())];
    let plan = Plan::make(&survey, &REMOVE);
    assert_eq!(
        lines(&plan),
        [
            "keep address 10.0.0.1: Calico's own (vxlanTunnelAddress)",
            "keep block 10.0.0.0/26: its content cannot be read: it ends too early",
            "unknown address 10.0.0.3: not written by calico-mesos: never touched",
            "unknown endpoint mesos/legacy-3/eth0: not written by calico-mesos: never touched",
            "unknown journal notes.txt: not a journal file",
        ]
    );
}

#[test]
fn a_dead_node_loses_what_is_ours_and_its_empty_blocks() {
    let mut survey = survey();
    survey.traces.insert(id(1), orphan(&id(1)));
    survey.traces.insert(
        id(2),
        Trace { endpoint: Some(endpoint(Some(&id(2)), "10.0.0.99", Duration::ZERO)), ..Trace::default() },
    );
    survey.shown = ["10.0.0.99".parse().unwrap()].into();
    let address = |text: &str| text.parse::<IpAddr>().unwrap();
    let blocks = [
        ("10.0.0.64/29".parse().unwrap(), vec![address("10.0.0.70")]),
        ("10.0.0.96/29".parse().unwrap(), vec![address("10.0.0.99")]),
        ("10.0.0.0/29".parse().unwrap(), vec![]),
    ];
    let plan = Plan::of_dead_node(&survey, &blocks);
    assert_eq!(
        lines(&plan),
        [
            "remove endpoint mesos/cart.5f3cbe01/eth0: the node is given up",
            "release address 10.0.0.70: the node is given up, handle mesos.5f3cbe01",
            "keep endpoint mesos/cart.5f3cbe02/eth0: another endpoint shows 10.0.0.99",
            "keep address 10.0.0.99: another endpoint shows 10.0.0.99",
            "remove block 10.0.0.64/29: nothing is left in it",
            "keep block 10.0.0.96/29: 10.0.0.99 in it belongs to something else",
            "remove block 10.0.0.0/29: nothing is left in it",
        ]
    );
    assert_eq!(plan.remove, [id(1)]);
}

fn any_state() -> impl Strategy<Value = ContainerState> {
    use ContainerState::*;
    prop_oneof![Just(NeverStarted), Just(Living), Just(Lost), Just(Exited)]
}

prop_compose! {
    fn any_trace(number: u8)(
        is_there in any::<[bool; 7]>(),
        age in prop_oneof![Just(Duration::ZERO), Just(DAY)],
        state in any_state(),
        inhabited in any::<bool>(),
        node in prop_oneof![Just(NODE), Just("agent-18")],
    ) -> Trace {
        let id = id(number);
        let address = format!("10.0.0.{number}");
        let if_there = |index: usize| is_there[index].then_some(());
        Trace {
            endpoint: if_there(0).map(|()| endpoint(Some(&id), &address, age)),
            addresses: if_there(1).map(|()| allocation(&id.handle(), &address, age)).into_iter().collect(),
            container: if_there(2).map(|()| container(state, age)),
            folder: if_there(3).map(|()| folder(inhabited, age)),
            dangling: vec![],
            veth: if_there(4).map(|()| id.interface()),
            ports: vec![],
            services: if_there(5).map(|()| service(&id, node)).into_iter().collect(),
            told: if_there(6).map(|()| service(&id, node)).into_iter().collect(),
            lacking: None,
        }
    }
}

prop_compose! {
    fn any_survey()(
        traces in (0_u8..8).map(|number| any_trace(number).boxed()).collect::<Vec<_>>(),
        seen in prop::collection::vec(0_u8..5, 8),
        journal in prop_oneof![Just(None), Just(Some(now() - 100 * DAY)), Just(Some(now()))],
        silent in prop::option::of(any::<bool>()),
        shown in prop::collection::btree_set(0_u8..8, 0..3),
    ) -> Survey {
        let mut survey = Survey { journal_since: journal, ..survey() };
        for (number, (trace, seen)) in (0_u8..8).zip(traces.into_iter().zip(seen)) {
            survey.traces.insert(id(number), trace);
            match seen {
                0 => drop(survey.records.insert(id(number), SeenRecord::Living(Some(record(&id(number)))))),
                1 => drop(survey.records.insert(id(number), SeenRecord::Dead(record(&id(number)), Death::Died))),
                2 => drop(survey.records.insert(id(number), SeenRecord::Unreadable("newer".into()))),
                3 => drop(survey.before.insert(id(number))),
                _ => {}
            }
        }
        let silence = |essential| Silent { source: "Docker", why: "away".into(), essential };
        survey.silent = silent.map(silence).into_iter().collect();
        survey.shown = shown.iter().map(|number| format!("10.0.0.{number}").parse().unwrap()).collect();
        survey.strange_addresses = vec![
            Allocation { kind: Some("ipipTunnelAddress".into()), ..allocation("ipip-tunnel-addr-x", "10.0.0.200", DAY) },
            allocation("windows-reserved-ipam-handle", "10.0.0.201", DAY),
            allocation("mesos.legacy", "10.0.0.202", DAY),
        ];
        survey.strange_endpoints = vec![endpoint(None, "10.0.0.202", DAY)];
        survey
    }
}

proptest! {
    #[test]
    fn nothing_that_lives_or_is_somebody_elses_is_ever_removed(survey in any_survey(), remove in any::<bool>()) {
        let rules = if remove { REMOVE } else { REPORT };
        let plan = Plan::make(&survey, &rules);
        let worked: Vec<&Item> = plan.items.iter().filter(|item| item.verdict.is_work()).collect();
        for item in &worked {
            let Some(container) = &item.container else {
                return Err(TestCaseError::fail(format!("without a task: {item:?}")));
            };
            let trace = &survey.traces[container];
            match survey.records.get(container) {
                Some(SeenRecord::Living(_)) => {
                    prop_assert_eq!(item.verdict, Verdict::Register);
                    prop_assert!(plan.register.contains(container));
                }
                Some(SeenRecord::Dead(..)) => prop_assert!(plan.finish.contains(container)),
                Some(SeenRecord::Unreadable(_)) => prop_assert!(false, "left to a newer release: {:?}", item),
                None => {
                    prop_assert!(plan.remove.contains(container));
                    prop_assert!(!survey.before.contains(container), "it ended meanwhile: {:?}", item);
                    prop_assert!(survey.silent.iter().all(|silent| !silent.essential));
                    prop_assert!(survey.journal_since.is_some());
                    prop_assert!(trace.container.as_ref().is_none_or(|its| its.state != ContainerState::Living));
                    prop_assert!(trace.folder.as_ref().is_none_or(|folder| !folder.inhabited));
                    prop_assert!(trace.services.iter().all(|service| service.node() == Some(NODE)));
                    prop_assert!(trace.all_addresses().all(|address| !survey.shown.contains(&address)));
                    prop_assert!(remove || trace.is_merely(ContainerState::NeverStarted) || trace.is_merely(ContainerState::Lost), "not asked for: {:?}", item);
                    prop_assert!(trace.times().iter().all(|time| *time == now() - DAY), "too young: {:?}", item);
                    prop_assert!(trace.veth.is_none() || trace.folder.is_some());
                }
            }
        }
        // Every removal has its line, and the work names no task twice.
        for container in plan.remove.iter().chain(&plan.finish).chain(&plan.register) {
            prop_assert!(worked.iter().any(|item| item.container.as_ref() == Some(container)));
        }
        let strangers = plan.items.iter().filter(|item| item.container.is_none());
        prop_assert!(strangers.clone().all(|item| matches!(item.verdict, Verdict::Keep | Verdict::Unknown)));
        prop_assert_eq!(strangers.count(), 4);
    }

    /// A record without an owner is finished in every case.
    #[test]
    fn tasks_of_dead_executors_are_always_removed(survey in any_survey()) {
        let dead = survey.records.iter().filter(|(_, seen)| matches!(seen, SeenRecord::Dead(..)));
        let dead: Vec<ContainerId> = dead.map(|(container, _)| container.clone()).collect();
        prop_assert_eq!(Plan::make(&survey, &REPORT).finish, dead);
    }
}

#[test]
fn a_container_whose_end_docker_has_missed_goes_when_nothing_else_is_left() {
    let lost = |age| Some(container(ContainerState::Lost, age));
    for (trace, verdict) in [
        (Trace { container: lost(DAY), ..Trace::default() }, Verdict::Stop),
        (Trace { container: lost(Duration::from_secs(60)), ..Trace::default() }, Verdict::Keep),
        (Trace { container: lost(DAY), ..orphan(&id(1)) }, Verdict::Report),
    ] {
        let mut survey = survey();
        survey.traces.insert(id(1), trace);
        let plan = Plan::make(&survey, &REPORT);
        let its = plan.items.iter().find(|item| item.kind == ItemKind::Container).unwrap();
        assert_eq!(its.verdict, verdict, "{its:?}");
        assert_eq!(plan.remove.is_empty(), verdict != Verdict::Stop);
    }
}
