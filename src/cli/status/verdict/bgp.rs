//! BGP: BIRD's sessions, and whether a pool needs them.

use serde_json::{json, Value};

use crate::cli::output::count;
use crate::cli::status::bird::{Bird, BirdPeer};
use crate::cli::status::draft::{some, Draft, StatusCheck};
use crate::cli::status::facts::{HostFacts, StoreFacts};

/// BGP sessions. Without BIRD all is well where no pool needs it.
pub fn bgp(facts: &HostFacts, store: Option<&StoreFacts>) -> StatusCheck {
    let mut draft = Draft::default();
    let families = [("IPv4", &facts.bird), ("IPv6", &facts.bird6)];
    let mut peers: Vec<(&str, &BirdPeer)> = Vec::new();
    for (family, bird) in families {
        match bird {
            Bird::Absent => {}
            Bird::Silent(why) => draft
                .warn(format!("BIRD for {family}: {why}"), "run status as root, or look whether BIRD hangs"),
            Bird::Answers(found) => peers.extend(found.iter().map(|peer| (family, peer))),
        }
    }
    let absent = families.iter().all(|(_, bird)| matches!(bird, Bird::Absent));
    if absent {
        without_bird(&mut draft, facts.node.local, store);
    } else if families.iter().any(|(_, bird)| matches!(bird, Bird::Answers(_))) {
        sessions(&mut draft, &peers, store);
    }
    let list: Vec<Value> = peers.iter().map(|(family, peer)| {
        json!({ "family": family, "address": peer.address, "type": peer.kind, "state": peer.state, "since": peer.since, "info": peer.info })
    }).collect();
    draft.done("bgp", json!({ "bird": !absent, "peers": list }))
}

fn sessions(draft: &mut Draft, peers: &[(&str, &BirdPeer)], store: Option<&StoreFacts>) {
    let down: Vec<String> = peers
        .iter()
        .filter(|(_, peer)| !peer.is_up())
        .map(|(_, peer)| format!("{} {} since {}", peer.address, peer.info, peer.since))
        .collect();
    match (peers.len(), down.len()) {
        (0, _) if store.is_some_and(|store| store.nodes > 1) && needs_bgp(store) => draft.fail(
            "BIRD has no peers, and the cluster has other nodes",
            "check nodeToNodeMeshEnabled and the BGP peers: calico-mesos bgp-node-mesh, calico-mesos bgppeer show",
        ),
        (0, _) => draft.say("BIRD runs without peers"),
        (all, 0) => draft.say(format!("{all} of {} up", count(all, "peer"))),
        (all, _) => draft.fail(
            format!("{} of {} up; {}", all - down.len(), count(all, "peer"), some(&down)),
            "tasks here do not reach those hosts' tasks: check that BIRD runs there and that TCP port 179 is open between the hosts",
        ),
    }
}

fn needs_bgp(store: Option<&StoreFacts>) -> bool {
    let Some(store) = store else { return false };
    !store.felix_routes && store.pools.iter().any(|pool| pool.usage.enabled && !pool.vxlan)
}

fn without_bird(draft: &mut Draft, local: bool, store: Option<&StoreFacts>) {
    match store {
        _ if local => draft.say("not used: dataplane = \"local\""),
        None => draft
            .warn("BIRD does not run here; whether the pools need it is unknown without the datastore", ""),
        Some(_) if !needs_bgp(store) => draft.say("not used: no pool needs it"),
        Some(store) if store.nodes <= 1 => draft.say("BIRD does not run; the cluster has one node"),
        Some(store) => {
            let pools: Vec<String> = store
                .pools
                .iter()
                .filter(|pool| pool.usage.enabled && !pool.vxlan)
                .map(|pool| pool.usage.cidr.to_string())
                .collect();
            draft.fail(
                format!(
                    "BIRD does not run here, and {} {} it",
                    some(&pools),
                    if pools.len() == 1 { "needs" } else { "need" }
                ),
                "start calico/node with CALICO_NETWORKING_BACKEND=bird, or let the pools use VXLAN",
            );
        }
    }
}
