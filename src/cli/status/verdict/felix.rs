//! Felix, and whether the gate can wait for it.

use serde_json::json;

use crate::cli::output::count;
use crate::cli::status::draft::{some, span, Draft, StatusCheck};
use crate::cli::status::facts::{FelixFacts, HostFacts, StoreFacts, TaskFact};
use crate::net::Filters;

/// A backend of netfilter with which a program filters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Backend {
    /// Tables of its own.
    Nftables,
    /// iptables over nft.
    Nft,
    /// The old iptables.
    Legacy,
}

impl Backend {
    fn word(self) -> &'static str {
        match self {
            Self::Nftables => "nftables",
            Self::Nft => "iptables nft",
            Self::Legacy => "iptables legacy",
        }
    }
}

const FELIX_CHAIN: &str = "cali-FORWARD";

/// Where Felix filters forwarded packets, if it does.
pub fn felix_backend(filters: &Filters) -> Option<Backend> {
    let legacy = filters.legacy.as_ref().is_some_and(|targets| targets.contains(FELIX_CHAIN));
    match (filters.tables.contains("calico"), filters.forward.contains(FELIX_CHAIN), legacy) {
        (true, ..) => Some(Backend::Nftables),
        (_, true, _) => Some(Backend::Nft),
        (_, _, true) => Some(Backend::Legacy),
        _ => None,
    }
}

/// Where Docker filters forwarded packets, if it does.
pub fn docker_backend(filters: &Filters) -> Option<Backend> {
    let docker = |name: &String| name.starts_with("DOCKER");
    let legacy = filters.legacy.as_ref().is_some_and(|targets| targets.iter().any(docker));
    match (filters.tables.contains("docker-bridges"), filters.forward.iter().any(docker), legacy) {
        (true, ..) => Some(Backend::Nftables),
        (_, true, _) => Some(Backend::Nft),
        (_, _, true) => Some(Backend::Legacy),
        _ => None,
    }
}

/// Felix, by what it has done in the kernel: its own word that it is ready proves nothing.
pub fn felix(facts: &HostFacts, store: Option<&StoreFacts>) -> StatusCheck {
    let mut draft = Draft::default();
    let felix = &facts.felix;
    if facts.node.local {
        draft.say("not used: dataplane = \"local\"");
        return draft.done("felix", json!({ "used": false }));
    }
    let version = store.and_then(|store| store.cluster.as_ref()).and_then(|cluster| cluster.version.clone());
    match (&felix.process, felix.all_seen) {
        (Some((pid, age)), _) => {
            let version =
                version.as_ref().map_or(String::new(), |version| format!("{version} in the datastore, "));
            draft.say(format!("{version}pid {pid}, up {}", span(*age)));
        }
        (None, true) => draft
            .fail("no Felix runs on this host", "start calico/node, with `calico-mesos node start` where calico-node.service is installed; until then a task's packets are dropped"),
        (None, false) => {
            draft.warn("its process cannot be seen from here", "run status in the host's pid namespace")
        }
    }
    chains(&mut draft, felix);
    if let Ok(tasks) = &facts.tasks {
        programmed(&mut draft, &tasks.living, felix.process.is_some());
    }
    let backend = |of: fn(&Filters) -> Option<Backend>| {
        let filters = felix.filters.as_ref()?.as_ref().ok()?;
        of(filters).map(Backend::word)
    };
    draft.done(
        "felix",
        json!({
            "used": true, "version": version, "pid": felix.process.map(|(pid, _)| pid),
            "uptime_s": felix.process.map(|(_, age)| age.as_secs()),
            "backend": backend(felix_backend), "docker_backend": backend(docker_backend),
        }),
    )
}

fn chains(draft: &mut Draft, felix: &FelixFacts) {
    let filters = match &felix.filters {
        None => {
            return draft
                .warn("rules not read", "run status as root: the kernel shows its rules to root only")
        }
        Some(Err(why)) => return draft.warn(why.clone(), ""),
        Some(Ok(filters)) => filters,
    };
    match (felix_backend(filters), docker_backend(filters)) {
        (None, _) if filters.chains.contains(FELIX_CHAIN) => draft.fail(
            "its chains are not hooked into FORWARD",
            "a reload of the host's firewall removed the jump: Felix puts it back within its refresh interval, or restart calico/node",
        ),
        (None, _) if felix.process.is_some() => draft.fail(
            "it has no rules for forwarded packets in the kernel",
            "look at Felix's log below /var/log/calico",
        ),
        (None, _) => {}
        (Some(own), None) => draft.say(own.word()),
        (Some(own), Some(docker)) if own == docker => draft.say(format!("{} (Docker too)", own.word())),
        (Some(own), Some(docker)) => draft.warn(
            format!("{}, but Docker filters with {}", own.word(), docker.word()),
            "packets pass both: let both use one backend (FELIX_IPTABLESBACKEND, or the iptables alternative of the host)",
        ),
    }
}

fn programmed(draft: &mut Draft, tasks: &[TaskFact], runs: bool) {
    let all: Vec<&TaskFact> = tasks.iter().filter(|task| task.settled).collect();
    // Where Felix reports nothing, routes are all there is; `policy` says so.
    let reports = all.iter().any(|task| task.reported);
    let lacking: Vec<String> = all
        .iter()
        .filter(|task| !task.routed || reports && !task.reported)
        .map(|task| task.id.clone())
        .collect();
    let text = format!("{} of {} programmed", all.len() - lacking.len(), count(all.len(), "task"));
    match (lacking.is_empty(), runs) {
        _ if all.is_empty() => {}
        (true, _) => draft.say(text),
        (false, true) => draft.fail(
            format!("{text}, not {}", some(&lacking)),
            "Felix lets nothing through to them: look at its log below /var/log/calico, and at `calico-mesos task show`",
        ),
        (false, false) => draft.fail(format!("{text}, not {}", some(&lacking)), ""),
    }
}

/// Whether the gate can wait for policy.
pub fn policy(facts: &HostFacts) -> StatusCheck {
    let mut draft = Draft::default();
    let felix = &facts.felix;
    if facts.node.local {
        draft.say("none: dataplane = \"local\" enforces no policy");
        return draft.done("policy", json!({ "enforced": false }));
    }
    let reported = facts.tasks.as_ref().map(|tasks| {
        let settled = tasks.living.iter().filter(|task| task.settled).count();
        (tasks.living.iter().filter(|task| task.settled && task.reported).count(), settled)
    });
    let prefix = felix.folder.parent().unwrap_or(&felix.folder).display().to_string();
    let advice = format!("set FELIX_ENDPOINTSTATUSPATHPREFIX={prefix} for calico/node");
    match (felix.folder_exists, reported) {
        (false, _) if facts.node.policy_required => draft.fail(
            "Felix writes no endpoint-status files, and policy.wait is \"required\": no task can start",
            advice,
        ),
        (false, _) => {
            draft.warn("Felix writes no endpoint-status files: the gate waits for routes only", advice);
        }
        (true, Ok((0, all))) if all > 0 => draft.warn(
            format!(
                "{} holds no report of any task here: the gate waits for routes only",
                felix.folder.display()
            ),
            advice,
        ),
        (true, Ok((some, all))) => {
            draft.say(format!("{some} of {} reported in {}", count(all, "endpoint"), felix.folder.display()))
        }
        (true, Err(_)) => draft.say(format!("Felix reports endpoints in {}", felix.folder.display())),
    }
    draft.done("policy", json!({ "enforced": true, "folder": felix.folder, "reports": felix.folder_exists }))
}
