//! The story of a task for programs. A look that failed is `null` with its reason in `error` beside it.

use serde_json::{json, Map, Value};

use super::Shown;
use crate::cli::task::text::{traffic_json, with_own};
use crate::net::plan::Route;
use crate::task::record::journal::Backing;
use crate::task::report::trail::{Part, Tenure};
use crate::task::story::facts::{FelixReport, Look};

pub(super) fn document(shown: &Shown) -> Value {
    let Shown { story, facts, sandbox, now } = shown;
    let life = story.life.as_ref();
    let own = json!({
        "write_pending": story.view.as_ref().map(|view| view.pending),
        "workload": workload(shown),
        "addresses": addresses(shown),
        "interface": interface(shown),
        "namespace": namespace(shown),
        "endpoint": with_error(&facts.record, |record| json!({ "name": facts.endpoint, "record": record })),
        "felix": felix(&facts.report),
        "ports": with_error(&facts.ports, |_| json!({ "mappings": ports(shown) })),
        "consul": with_error(&facts.registered, |_| json!({ "entries": entries(shown) })),
        "sandbox": sandbox.as_ref().map(|sandbox| &sandbox.path),
        "launch": life.and_then(|life| life.launch.as_ref()).map(part),
        "teardowns": life.map(|life| life.teardowns.iter().map(part).collect::<Vec<_>>()).unwrap_or_default(),
    });
    with_own(story, *now, own)
}

/// What was found, with `error: null`; or nothing but the reason.
fn with_error<T>(look: &Look<T>, found: impl FnOnce(&T) -> Value) -> Value {
    match look {
        Err(error) => json!({ "error": error }),
        Ok(value) => {
            let mut found = found(value);
            if let Some(fields) = found.as_object_mut() {
                fields.insert("error".to_owned(), Value::Null);
            }
            found
        }
    }
}

fn workload(shown: &Shown) -> Value {
    match shown.story.view.as_ref().map(|view| &view.record.backing) {
        None => Value::Null,
        Some(Backing::Process) => json!({ "kind": "command" }),
        Some(Backing::Container { docker, name, adopted }) => {
            json!({ "kind": "container", "docker": docker, "name": name, "adopted": adopted })
        }
    }
}

fn addresses(shown: &Shown) -> Vec<Value> {
    let tenures = shown.story.life.as_ref().map(|life| life.addresses.as_slice()).unwrap_or_default();
    let known = |address| tenures.iter().find(|tenure: &&Tenure| tenure.address == address);
    let routed = |address| shown.facts.host_routes.iter().find(|(known, _)| *known == address);
    let one = |address: &std::net::IpAddr| {
        let tenure = known(*address);
        json!({
            "address": address,
            "given": tenure.and_then(|tenure| tenure.given.as_ref()),
            "returned": tenure.and_then(|tenure| tenure.returned.as_ref()),
            "conflict": tenure.and_then(|tenure| tenure.conflict.as_ref()),
            "host_route": routed(*address).and_then(|(_, routed)| routed.as_ref().ok()),
        })
    };
    shown.story.addresses.iter().map(one).collect()
}

fn interface(shown: &Shown) -> Value {
    with_error(&shown.facts.figures, |figures| {
        json!({
            "name": shown.facts.interface,
            "exists": figures.is_some(),
            "mtu": figures.map(|figures| figures.mtu),
            "up": figures.map(|figures| figures.up),
            "received": figures.map(|figures| traffic_json(figures.received)),
            "sent": figures.map(|figures| traffic_json(figures.sent)),
        })
    })
}

fn namespace(shown: &Shown) -> Value {
    with_error(&shown.facts.bound, |bound| {
        let inside = bound.as_ref().map(|bound| {
            with_error(&bound.inside, |inside| match inside {
                None => json!({ "exists": false }),
                Some(inside) => json!({
                    "exists": true,
                    "mac": inside.mac,
                    "mtu": inside.mtu,
                    "addresses": inside.addresses,
                    "routes": inside.routes.iter().map(route).collect::<Vec<_>>(),
                }),
            })
        });
        json!({
            "path": shown.facts.namespace,
            "exists": bound.is_some(),
            "inode": bound.as_ref().map(|bound| bound.inode),
            "processes": bound.as_ref().map(|bound| &bound.processes),
            "interface": inside,
        })
    })
}

fn route(route: &Route) -> Value {
    json!({ "destination": route.destination, "gateway": route.gateway })
}

fn felix(report: &FelixReport) -> Value {
    match report {
        FelixReport::NoFelix => json!({ "report": "no felix", "file": null, "since": null }),
        FelixReport::NoFolder(folder) => json!({ "report": "no folder", "file": folder, "since": null }),
        FelixReport::Missing(file) => json!({ "report": "missing", "file": file, "since": null }),
        FelixReport::Written(file, since) => json!({ "report": "written", "file": file, "since": since }),
    }
}

fn ports(shown: &Shown) -> Vec<Value> {
    let one = |(mapping, open): (crate::net::forward::Mapping, Option<bool>)| {
        json!({
            "protocol": mapping.protocol.name(), "host": mapping.host, "task": mapping.task, "open": open,
        })
    };
    shown.ports().into_iter().map(one).collect()
}

fn entries(shown: &Shown) -> Vec<Value> {
    let one = |(service, listed): (&crate::consul::Service, Option<bool>)| {
        json!({
            "id": service.id,
            "name": service.name,
            "address": service.address,
            "port": service.port,
            "tags": service.tags,
            "healthy": service.health.as_ref().map(|health| health.healthy),
            "reason": service.health.as_ref().map(|health| &health.why),
            "registered": listed,
        })
    };
    shown.entries().into_iter().map(one).collect()
}

fn part(part: &Part) -> Value {
    let steps: Map<String, Value> =
        part.steps.iter().map(|(name, at)| (name.clone(), (*at).into())).collect();
    json!({
        "time": part.time,
        "outcome": part.ending.outcome,
        "code": part.ending.code,
        "message": part.ending.message,
        "steps_ms": steps,
        "errors": part.errors,
        "by": part.by,
        "pid": part.pid,
        "version": part.version,
    })
}
