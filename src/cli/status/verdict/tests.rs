//! Every verdict, from facts made by hand.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, SystemTime};

use super::super::bird::{Bird, BirdPeer};
use super::super::draft::Grade;
use super::super::facts::{ClusterFacts, FelixFacts, NodeFacts, NodeRecord, PoolFacts, StoreFacts, TaskFact};
use super::*;
use crate::calico::{History, PoolUsage, StoreHealth};
use crate::cli::node::agents::FoundAgent;
use crate::net::Filters;

const HOUR: Duration = Duration::from_secs(3600);

fn names(list: &[&str]) -> BTreeSet<String> {
    list.iter().map(|name| (*name).to_owned()).collect()
}

fn pool(cidr: &str, vxlan: bool) -> PoolFacts {
    let usage = PoolUsage {
        name: "web".into(),
        cidr: cidr.parse().unwrap(),
        enabled: true,
        allocated: 2104,
        reserved: 0,
        free: 65_536 - 2104,
        affine_blocks: 60,
        loose_blocks: 1,
        free_blocks: 963,
        damaged_blocks: 0,
    };
    PoolFacts { usage, vxlan, ipip: false }
}

/// A host with which all is well.
fn fine() -> HostFacts {
    let members = ["a", "b", "c"].map(|name| (name.to_owned(), true));
    let health = StoreHealth {
        endpoint: "https://10.0.0.1:2379".into(),
        tls: true,
        version: "3.5.15".into(),
        latency: Duration::from_millis(2),
        size: 41 << 20,
        used: 30 << 20,
        quota: 2 << 30,
        quota_reported: true,
        members: BTreeMap::from(members),
        alarms: Some(Vec::new()),
        revision: 90_000,
        history: History::Since { revision: 80_000, time: Some(SystemTime::UNIX_EPOCH + HOUR) },
    };
    let task = |id: &str, version: &str| TaskFact {
        id: id.into(),
        version: version.into(),
        settled: true,
        routed: true,
        reported: true,
    };
    let filters = Filters { forward: names(&["cali-FORWARD", "DOCKER-USER"]), ..Filters::default() };
    HostFacts {
        now: SystemTime::UNIX_EPOCH + HOUR + Duration::from_secs(720),
        node: NodeFacts { host: "agent-17".into(), name: "agent-17".into(), ..NodeFacts::default() },
        store: Ok(StoreFacts {
            health,
            cluster: Some(ClusterFacts {
                guid: "f00d".into(),
                version: Some("3.29.7".into()),
                ready: Some(true),
            }),
            record: Some(NodeRecord { ipv4: Some("10.0.0.17/24".into()), ..NodeRecord::default() }),
            nodes: 49,
            pools: vec![pool("192.168.0.0/16", false)],
            felix_routes: false,
            damaged: Vec::new(),
        }),
        felix: FelixFacts {
            process: Some((7, HOUR)),
            all_seen: true,
            filters: Some(Ok(filters)),
            folder: "/var/run/calico/endpoint-status".into(),
            folder_exists: true,
        },
        tasks: Ok(TaskFacts {
            living: vec![task("web.1", "0.3.1"), task("web.2", "0.3.1"), task("web.3", "0.2.0")],
            ..TaskFacts::default()
        }),
        bird: Bird::Answers(vec![peer("10.0.0.31", "up", "Established")]),
        bird6: Bird::Absent,
        docker: Ok(DockerFacts {
            version: "24.0.9".into(),
            runtime: Some("/usr/bin/calico-runc".into()),
            file: Some(("/etc/docker/daemon.json".into(), Some("/usr/bin/calico-runc".into()))),
            ..DockerFacts::default()
        }),
        consul: Some(Ok(6)),
        agents: vec![AgentFacts {
            agent: FoundAgent {
                pid: 8,
                launcher_dir: Some("/usr/lib/calico-mesos/launcher".into()),
                containerizers: Some("docker,mesos".into()),
                ..FoundAgent::default()
            },
            wired: true,
        }],
        mtu: Some(1480),
    }
}

fn peer(address: &str, state: &str, info: &str) -> BirdPeer {
    BirdPeer {
        address: address.into(),
        kind: "node-to-node mesh",
        state: state.into(),
        since: "02:11".into(),
        info: info.into(),
    }
}

fn store(facts: &mut HostFacts) -> &mut StoreFacts {
    facts.store.as_mut().unwrap()
}

/// The check of this name after a change, with what it must say.
#[track_caller]
fn expect(name: &str, grade: Grade, says: &str, change: impl FnOnce(&mut HostFacts)) {
    let mut facts = fine();
    change(&mut facts);
    let checks = all(&facts);
    let check = checks.iter().find(|check| check.name == name).unwrap();
    assert_eq!(check.grade, grade, "{check:?}");
    let text = [std::slice::from_ref(&check.text), &check.advice].concat().join(" > ");
    assert!(text.contains(says), "{text}");
}

#[test]
fn a_healthy_host_has_only_good_lines() {
    let facts = fine();
    let lines: Vec<String> = all(&facts)
        .iter()
        .map(|check| format!("{} {} {}", check.grade.word(), check.name, check.text))
        .collect();
    assert_eq!(
        lines,
        [
            "ok node Calico node agent-17, 10.0.0.17/24, cluster f00d",
            "ok datastore etcd 3.5.15, 3 of 3 members, TLS, 2 ms, 41 MB of 2 GB, compacted, history of 12 min",
            "ok felix 3.29.7 in the datastore, pid 7, up 60 min, iptables nft (Docker too), 3 of 3 tasks programmed",
            "ok policy 3 of 3 endpoints reported in /var/run/calico/endpoint-status",
            "ok bgp 1 of 1 peer up",
            "ok docker 24.0.9, runtime calico > /usr/bin/calico-runc",
            "ok consul 6 entries of Calico tasks",
            "ok agent pid 8, launches from /usr/lib/calico-mesos/launcher",
            "ok tasks 3 running: 2 on 0.3.1, 1 on 0.2.0, 0 waiting for teardown",
            "ok pool 192.168.0.0/16  2,104 of 65,536 used (3 %), 61 of 1,024 blocks, MTU 1480",
        ]
    );
    assert!(all(&facts).iter().all(|check| check.advice.is_empty()));
}

#[test]
fn the_node_and_its_cluster() {
    expect("node", Grade::Fail, "no Node of this name", |facts| store(facts).record = None);
    expect("node", Grade::Fail, "no ClusterInformation", |facts| store(facts).cluster = None);
    for (ready, says) in [(Some(false), "is locked"), (None, "lacks datastoreReady")] {
        expect("node", Grade::Fail, says, |facts| store(facts).cluster.as_mut().unwrap().ready = ready);
    }
    expect("node", Grade::Ok, "Calico node agent-17", |facts| facts.store = Err("away".into()));
}

#[test]
fn a_datastore_that_is_away_is_a_problem_and_the_rest_is_still_judged() {
    expect("datastore", Grade::Fail, "no task with Calico can start", |facts| {
        facts.store = Err("away".into())
    });
    expect("tasks", Grade::Ok, "3 running", |facts| facts.store = Err("away".into()));
    expect("felix", Grade::Ok, "3 of 3 tasks", |facts| facts.store = Err("away".into()));
    let mut facts = fine();
    facts.store = Err("away".into());
    assert!(all(&facts).iter().all(|check| check.name != "pool"), "nothing is known about pools");
}

#[test]
fn the_datastores_members_size_alarms_and_history() {
    let health = |change: fn(&mut StoreHealth)| move |facts: &mut HostFacts| change(&mut store(facts).health);
    expect(
        "datastore",
        Grade::Warn,
        "2 of 3 members (b down)",
        health(|it| {
            it.members.insert("b".into(), false);
        }),
    );
    expect(
        "datastore",
        Grade::Fail,
        "no majority",
        health(|it| {
            it.members.extend(["a", "b"].map(|name| (name.to_owned(), false)));
        }),
    );
    expect("datastore", Grade::Ok, "members not shown to this login", health(|it| it.members.clear()));
    expect("datastore", Grade::Warn, "85 % full", health(|it| it.size = it.quota / 100 * 85 + 100));
    expect("datastore", Grade::Fail, "nearly full", health(|it| it.size = it.quota));
    expect("datastore", Grade::Ok, "41 MB of 2 GB, the default", health(|it| it.quota_reported = false));
    expect(
        "datastore",
        Grade::Fail,
        "etcd has raised NOSPACE",
        health(|it| it.alarms = Some(vec!["NOSPACE".into()])),
    );
    expect("datastore", Grade::Ok, "no TLS", health(|it| it.tls = false));
    expect(
        "datastore",
        Grade::Ok,
        "not compacted yet (90,000 revisions)",
        health(|it| it.history = History::Whole),
    );
    expect(
        "datastore",
        Grade::Warn,
        "--auto-compaction-retention",
        health(|it| {
            it.history = History::Whole;
            it.revision = 1_000_000;
        }),
    );
    expect(
        "datastore",
        Grade::Warn,
        "compacted once, and not since",
        health(|it| {
            it.history = History::Since { revision: 7, time: None };
            it.revision = 1_000_000;
        }),
    );
    expect(
        "datastore",
        Grade::Ok,
        "history of 10,000 revisions",
        health(|it| {
            it.history = History::Since { revision: 80_000, time: None };
        }),
    );
    expect("datastore", Grade::Ok, "41 MB", health(|it| it.history = History::Unknown));
    expect(
        "datastore",
        Grade::Ok,
        "not compacted yet (1 revision)",
        health(|it| (it.history, it.revision) = (History::Whole, 1)),
    );
    expect("datastore", Grade::Warn, "1 damaged record: /calico/x", |facts| {
        store(facts).damaged = vec!["/calico/x".into()];
    });
}

#[test]
fn felix_is_judged_by_the_kernel() {
    expect("felix", Grade::Fail, "no Felix runs", |facts| facts.felix.process = None);
    expect("felix", Grade::Warn, "cannot be seen", |facts| {
        (facts.felix.process, facts.felix.all_seen) = (None, false);
    });
    expect("felix", Grade::Warn, "as root", |facts| facts.felix.filters = None);
    expect("felix", Grade::Warn, "nft failed", |facts| facts.felix.filters = Some(Err("nft failed".into())));
    let filters = |filters: Filters| move |facts: &mut HostFacts| facts.felix.filters = Some(Ok(filters));
    expect("felix", Grade::Fail, "no rules", filters(Filters::default()));
    let unhooked = Filters { chains: names(&["cali-FORWARD"]), ..Filters::default() };
    expect("felix", Grade::Fail, "not hooked", filters(unhooked));
    let mixed = Filters {
        forward: names(&["cali-FORWARD"]),
        legacy: Some(names(&["DOCKER-USER"])),
        ..Filters::default()
    };
    expect("felix", Grade::Warn, "iptables nft, but Docker filters with iptables legacy", filters(mixed));
    let legacy = Filters { legacy: Some(names(&["DOCKER-USER", "cali-FORWARD"])), ..Filters::default() };
    expect("felix", Grade::Ok, "iptables legacy (Docker too)", filters(legacy));
    let native = Filters { tables: names(&["calico"]), ..Filters::default() };
    expect("felix", Grade::Ok, "up 60 min, nftables, 3 of 3", filters(native));
    expect("felix", Grade::Ok, "not used", |facts| facts.node.local = true);
}

#[test]
fn each_task_has_its_route_and_its_report() {
    let first = |change: fn(&mut TaskFact)| {
        move |facts: &mut HostFacts| change(&mut facts.tasks.as_mut().unwrap().living[0])
    };
    expect("felix", Grade::Fail, "2 of 3 tasks programmed, not web.1", first(|task| task.routed = false));
    expect("felix", Grade::Fail, "2 of 3 tasks programmed, not web.1", first(|task| task.reported = false));
    expect("felix", Grade::Ok, "2 of 2 tasks", first(|task| (task.settled, task.routed) = (false, false)));
    let none = |facts: &mut HostFacts| {
        facts.tasks.as_mut().unwrap().living.iter_mut().for_each(|task| task.reported = false);
    };
    expect("felix", Grade::Ok, "3 of 3 tasks", none);
    expect("policy", Grade::Warn, "holds no report of any task", none);
    expect("policy", Grade::Ok, "2 of 3 endpoints reported", first(|task| task.reported = false));
    expect("policy", Grade::Warn, "FELIX_ENDPOINTSTATUSPATHPREFIX=/var/run/calico", |facts| {
        facts.felix.folder_exists = false;
    });
    expect("policy", Grade::Fail, "no task can start", |facts| {
        (facts.felix.folder_exists, facts.node.policy_required) = (false, true);
    });
    expect("policy", Grade::Ok, "enforces no policy", |facts| facts.node.local = true);
    expect("policy", Grade::Ok, "Felix reports endpoints in", |facts| facts.tasks = Err("root".into()));
}

#[test]
fn bgp_is_needed_only_where_a_pool_has_no_vxlan() {
    let down = peer("10.0.0.31", "start", "Connect");
    expect("bgp", Grade::Fail, "1 of 2 peers up; 10.0.0.31 Connect since 02:11", |facts| {
        facts.bird = Bird::Answers(vec![down, peer("10.0.0.32", "up", "Established")]);
    });
    expect("bgp", Grade::Fail, "192.168.0.0/16 needs it", |facts| facts.bird = Bird::Absent);
    expect("bgp", Grade::Ok, "not used: no pool needs it", |facts| {
        facts.bird = Bird::Absent;
        store(facts).pools = vec![pool("192.168.0.0/16", true)];
    });
    expect("bgp", Grade::Ok, "not used: no pool needs it", |facts| {
        facts.bird = Bird::Absent;
        store(facts).felix_routes = true;
    });
    expect("bgp", Grade::Ok, "the cluster has one node", |facts| {
        facts.bird = Bird::Absent;
        store(facts).nodes = 1;
    });
    expect("bgp", Grade::Warn, "unknown without the datastore", |facts| {
        facts.bird = Bird::Absent;
        facts.store = Err("away".into());
    });
    expect("bgp", Grade::Ok, "dataplane", |facts| {
        facts.bird = Bird::Absent;
        facts.node.local = true;
    });
    expect("bgp", Grade::Warn, "BIRD for IPv4: by root only", |facts| {
        facts.bird = Bird::Silent("by root only".into());
    });
    expect("bgp", Grade::Fail, "no peers", |facts| facts.bird = Bird::Answers(Vec::new()));
    expect("bgp", Grade::Ok, "without peers", |facts| {
        facts.bird = Bird::Answers(Vec::new());
        store(facts).nodes = 1;
    });
}

#[test]
fn docker_and_its_runtime() {
    let with =
        |change: fn(&mut DockerFacts)| move |facts: &mut HostFacts| change(facts.docker.as_mut().unwrap());
    expect("docker", Grade::Fail, "refused", |facts| facts.docker = Err("connection refused".into()));
    expect(
        "docker",
        Grade::Fail,
        "no runtime calico: no container",
        with(|docker| {
            (docker.runtime, docker.file) = (None, None);
        }),
    );
    expect("docker", Grade::Fail, "dockerd has not read it", with(|docker| docker.runtime = None));
    expect("docker", Grade::Fail, "calico-runc: gone", with(|docker| docker.fault = Some("gone".into())));
    expect(
        "docker",
        Grade::Warn,
        "names /opt/calico-runc",
        with(|docker| {
            docker.file = Some(("/etc/docker/daemon.json".into(), Some("/opt/calico-runc".into())));
        }),
    );
    expect(
        "docker",
        Grade::Warn,
        "lost with dockerd's next start",
        with(|docker| {
            docker.file = Some(("/etc/docker/daemon.json".into(), None));
        }),
    );
    expect("docker", Grade::Ok, env!("CARGO_PKG_VERSION"), with(|docker| docker.ours = true));
}

#[test]
fn consul_agents_and_the_journal() {
    expect("consul", Grade::Ok, "not used", |facts| facts.consul = None);
    expect("consul", Grade::Fail, "without a name", |facts| facts.consul = Some(Err("away".into())));
    expect("agent", Grade::Warn, "no Mesos agent", |facts| facts.agents.clear());
    expect("agent", Grade::Warn, "Mesos' own folder", |facts| facts.agents[0] = AgentFacts::default());
    expect("agent", Grade::Warn, "--containerizers=docker,mesos", |facts| {
        facts.agents[0].agent.containerizers = Some("mesos".into());
    });
    let tasks =
        |change: fn(&mut TaskFacts)| move |facts: &mut HostFacts| change(facts.tasks.as_mut().unwrap());
    expect(
        "tasks",
        Grade::Warn,
        "1 waiting for teardown: web.9",
        tasks(|tasks| tasks.dead = vec!["web.9".into()]),
    );
    expect(
        "tasks",
        Grade::Warn,
        "1 record that this release cannot read",
        tasks(|tasks| {
            tasks.unreadable = vec!["x.json".into()];
        }),
    );
    expect("tasks", Grade::Ok, "0 running, 0 waiting", tasks(|tasks| tasks.living.clear()));
    expect("tasks", Grade::Warn, "as root", |facts| facts.tasks = Err("cannot be read".into()));
}

#[test]
fn pools_that_run_out() {
    let usage =
        |change: fn(&mut PoolUsage)| move |facts: &mut HostFacts| change(&mut store(facts).pools[0].usage);
    expect("pool", Grade::Warn, "(85 %)", usage(|it| (it.allocated, it.free) = (85, 15)));
    expect("pool", Grade::Fail, "add another pool", usage(|it| (it.allocated, it.free) = (96, 4)));
    expect("pool", Grade::Fail, "no enabled IP pool", usage(|it| it.enabled = false));
    expect("pool", Grade::Fail, "no enabled IP pool", |facts| store(facts).pools.clear());
}
