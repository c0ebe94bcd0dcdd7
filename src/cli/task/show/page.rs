//! The story of a task for people: a line a matter, then the steps of its launch and of its teardown.

use super::Shown;
use crate::cli::gc::duration;
use crate::cli::task::text::{age, bytes, joined, or_dash};
use crate::error::is_deceptive;
use crate::task::record::journal::Backing;
use crate::task::report::trail::Part;
use crate::task::story::facts::{BoundNamespace, FelixReport, Look};
use crate::task::story::StoryPhase;

/// The width of the names of the lines.
const NAME: usize = 10;
/// Names that are found in files are others': a terminal obeys none of their characters.
#[derive(Default)]
struct Page(Vec<String>);

impl Page {
    fn line(&mut self, name: &str, text: &str) {
        let text = text.replace(is_deceptive, " ");
        self.0.push(format!("{name:NAME$} {text}").trim_end().to_owned());
    }

    /// One line for each, the name before the first.
    fn lines(&mut self, name: &str, texts: &[String]) {
        for (index, text) in texts.iter().enumerate() {
            self.line(if index == 0 { name } else { "" }, text);
        }
    }
}

pub(super) fn page(shown: &Shown) -> String {
    let mut page = Page::default();
    let story = &shown.story;
    page.line("task", &or_dash(&story.task));
    page.line("app", &or_dash(&story.app));
    page.line("state", &state(shown));
    page.line("framework", &or_dash(&story.framework));
    page.line("container", story.container.as_str());
    page.lines("workload", &workload(shown));
    page.line("executor", &executor(shown));
    page.lines("address", &addresses(shown));
    page.lines("interface", &interface(shown));
    page.lines("namespace", &namespace(shown));
    page.line("endpoint", &endpoint(shown));
    page.line("felix", &felix(&shown.facts.report));
    page.lines("ports", &ports(shown));
    page.lines("consul", &entries(shown));
    page.line("error", &error(shown));
    page.line("logs", &logs(shown));
    if let Some(life) = &story.life {
        life.launch.iter().for_each(|part| steps(&mut page, "launch", part));
        life.teardowns.iter().for_each(|part| steps(&mut page, "teardown", part));
    }
    page.0.join("\n")
}

fn state(shown: &Shown) -> String {
    let story = &shown.story;
    let mut text = story.state.word().to_owned();
    if let Some((ending, time)) = story.ending() {
        let code = ending.code.as_ref().map(|code| match code.as_str() {
            Some(code) => format!(" {code}"),
            None => format!(" {code}"),
        });
        text += &format!(": {}{}", ending.outcome, code.unwrap_or_default());
        text += &time.map(|time| format!(", {time}")).unwrap_or_default();
    }
    if let Some(health) = &story.health {
        text += &format!(", {health}");
    }
    if let Some(began) = story.began() {
        text += &format!("; began {began}");
        if let Some(age) = age(Some(began), shown.now).filter(|_| story.state != StoryPhase::Ended) {
            text += &format!(" ({} ago)", duration(age));
        }
    }
    text
}

fn workload(shown: &Shown) -> Vec<String> {
    match shown.story.view.as_ref().map(|view| &view.record.backing) {
        None => Vec::new(),
        Some(Backing::Process) => vec!["a command of the executor's".to_owned()],
        Some(Backing::Container { docker, name, adopted }) => {
            let others = if *adopted { ", made by others" } else { "" };
            vec![format!("container {name} of Docker at {docker}{others}")]
        }
    }
}

fn executor(shown: &Shown) -> String {
    let version = shown.story.version().unwrap_or("of an unknown release");
    match &shown.story.view {
        Some(view) if view.owned => format!("{version}, pid {}", view.record.owner.pid),
        Some(view) => {
            format!("{version}, pid {} is dead; `calico-mesos gc` takes the task down", view.record.owner.pid)
        }
        None => format!("{version}, gone"),
    }
}

fn addresses(shown: &Shown) -> Vec<String> {
    let story = &shown.story;
    let tenures = story.life.as_ref().map(|life| life.addresses.as_slice()).unwrap_or_default();
    let one = |address: &std::net::IpAddr| {
        let mut parts = Vec::new();
        if let Some(tenure) = tenures.iter().find(|tenure| tenure.address == *address) {
            parts.extend(tenure.given.as_ref().map(|time| format!("since {time}")));
            parts.extend(tenure.returned.as_ref().map(|time| format!("returned {time}")));
            parts.extend(
                tenure
                    .conflict
                    .as_ref()
                    .map(|holder| format!("CONFLICT: the datastore gives it to {holder}")),
            );
        }
        let routed = shown.facts.host_routes.iter().find(|(known, _)| known == address);
        match routed.map(|(_, routed)| routed) {
            Some(Ok(true)) => parts.push("the host routes it here".to_owned()),
            Some(Ok(false)) if story.state != StoryPhase::Ended => {
                parts.push("NO host route leads here".to_owned())
            }
            Some(Err(error)) => parts.push(error.clone()),
            _ => {}
        }
        format!("{address}  {}", parts.join(", ")).trim_end().to_owned()
    };
    let mut lines: Vec<String> = story.addresses.iter().map(one).collect();
    if lines.is_empty() {
        lines.push("-".to_owned());
    }
    if !story.profiles.is_empty() {
        lines.push(format!("profiles {}", joined(&story.profiles)));
    }
    lines
}

fn interface(shown: &Shown) -> Vec<String> {
    let name = &shown.facts.interface;
    vec![match &shown.facts.figures {
        Err(error) => format!("{name}: {error}"),
        Ok(None) => format!("{name} does not exist"),
        Ok(Some(figures)) => format!(
            "{name}, {}, MTU {}, received {} in {} packets, sent {} in {}",
            if figures.up { "up" } else { "DOWN" },
            figures.mtu,
            bytes(figures.received.bytes),
            figures.received.packets,
            bytes(figures.sent.bytes),
            figures.sent.packets,
        ),
    }]
}

fn namespace(shown: &Shown) -> Vec<String> {
    let path = shown.facts.namespace.display();
    match &shown.facts.bound {
        Err(error) => vec![error.clone()],
        Ok(None) => vec![format!("{path} does not exist")],
        Ok(Some(BoundNamespace { inode, processes, inside })) => {
            let lives = match processes.len() {
                0 => "nothing lives in it".to_owned(),
                1 => format!("process {}", processes[0]),
                number => format!("{number} processes, the first {}", processes[0]),
            };
            let mut lines = vec![format!("{path} (net:[{inode}]), {lives}")];
            match inside {
                Err(error) => lines.push(error.clone()),
                Ok(None) => lines.push("it has no interface eth0".to_owned()),
                Ok(Some(inside)) => {
                    lines.push(format!(
                        "eth0 {}, MTU {}, {}",
                        joined(&inside.addresses),
                        inside.mtu,
                        inside.mac
                    ));
                    let routes = inside.routes.iter().map(|route| match route.gateway {
                        Some(gateway) => format!("{} via {gateway}", route.destination),
                        None => route.destination.to_string(),
                    });
                    lines.push(format!("routes {}", joined(&routes.collect::<Vec<_>>())));
                }
            }
            lines
        }
    }
}

fn endpoint(shown: &Shown) -> String {
    let name = &shown.facts.endpoint;
    match &shown.facts.record {
        Err(error) => format!("{name}: {error}"),
        Ok(None) if shown.story.state == StoryPhase::Ended => format!("{name} is not in the datastore"),
        Ok(None) => format!("{name} is NOT in the datastore"),
        Ok(Some(record)) => {
            let list = |path: &str| {
                let items = record.pointer(path).and_then(|value| value.as_array());
                let items: Vec<&str> =
                    items.into_iter().flatten().filter_map(|value| value.as_str()).collect();
                joined(&items)
            };
            format!("{name}: {}, profiles {}", list("/spec/ipNetworks"), list("/spec/profiles"))
        }
    }
}

fn felix(report: &FelixReport) -> String {
    match report {
        FelixReport::NoFelix => "does not run here by configuration (dataplane = \"local\")".to_owned(),
        FelixReport::NoFolder(folder) => {
            format!("writes no reports: there is no folder {}", folder.display())
        }
        FelixReport::Missing(file) => format!("no report {}", file.display()),
        FelixReport::Written(file, since) => format!("done with it since {since}: {}", file.display()),
    }
}

fn ports(shown: &Shown) -> Vec<String> {
    let mut lines: Vec<String> = shown
        .ports()
        .into_iter()
        .map(|(mapping, open)| {
            let closed = match open {
                Some(false) => "  NOT forwarded",
                Some(true) | None => "",
            };
            format!("{} {} > {}{closed}", mapping.protocol.name(), mapping.host, mapping.task)
        })
        .collect();
    lines.extend(failed(&shown.facts.ports));
    if lines.is_empty() {
        lines.push("-".to_owned());
    }
    lines
}

fn entries(shown: &Shown) -> Vec<String> {
    if shown.facts.registered == Ok(None) {
        return vec!["nothing is registered by configuration (consul.enabled = false)".to_owned()];
    }
    let mut lines: Vec<String> = shown
        .entries()
        .into_iter()
        .map(|(service, listed)| {
            let port = service.port.map(|port| format!(" port {port}")).unwrap_or_default();
            let health = match service.health.as_ref().map(|health| (health.healthy, &health.why)) {
                None => String::new(),
                Some((true, _)) => "  healthy".to_owned(),
                Some((false, why)) => format!("  unhealthy: {why}"),
            };
            let missing = if listed == Some(false) { "  NOT in Consul" } else { "" };
            format!("{} {}{port}{health}{missing}", service.name, service.address)
        })
        .collect();
    lines.extend(failed(&shown.facts.registered));
    if lines.is_empty() {
        lines.push("-".to_owned());
    }
    lines
}

fn failed<T>(look: &Look<T>) -> Option<String> {
    look.as_ref().err().cloned()
}

/// The failure that ended it, else the last one of its teardown.
fn error(shown: &Shown) -> String {
    let message = shown.story.ending().and_then(|(ending, _)| ending.message.clone());
    let of_teardown = || {
        let parts = shown.story.life.iter().flat_map(|life| &life.teardowns);
        parts.flat_map(|part| &part.errors).next_back().cloned()
    };
    message.or_else(of_teardown).unwrap_or_else(|| "-".to_owned())
}

fn logs(shown: &Shown) -> String {
    match &shown.sandbox {
        None => "the sandbox is unknown".to_owned(),
        Some(sandbox) if sandbox.reach.exists() => {
            format!("stdout and stderr in {}", sandbox.path.display())
        }
        Some(sandbox) => format!("{}, which is gone", sandbox.path.display()),
    }
}

fn steps(page: &mut Page, name: &str, part: &Part) {
    let (time, by) = (&part.time, if part.by == "gc" { " by calico-mesos gc" } else { "" });
    page.line(name, &format!("{time}{by}: {}", part.ending.outcome));
    for (step, at) in &part.steps {
        page.line("", &format!("{at:>10.1} ms  {step}"));
    }
    for error in &part.errors {
        page.line("", &format!("failed: {error}"));
    }
}
