//! `calico-mesos status`: how this host does, part by part.
//!
//! `read` collects [`facts`], `verdict` judges them without touching anything, and this file prints. The exit code is
//! 0 when all is well, 1 with warnings only, 2 with a problem.

mod bird;
mod damage;
mod draft;
mod facts;
mod read;
mod verdict;

use std::process::ExitCode;
use std::sync::PoisonError;

use clap::Args;
use serde_json::{json, Value};

use super::calicoctl;
use super::output::{count, framed, Colour, Format, Out, Output};
use super::session::Session;
use super::watch::Watch;
use super::Failed;

use bird::{Bird, BirdPeer};
use draft::{span, Grade, StatusCheck};
use facts::HostFacts;

pub(super) use read::docker_host;

/// Where the verdicts begin: behind `warn  datastore  `.
const MARGIN: usize = 17;
const SCHEMA: u32 = 1;

/// What is asked for on the command line.
#[derive(Debug, Clone, Args)]
pub struct StatusArguments {
    /// Print calicoctl's classic lines and the table of BGP peers first
    #[arg(long)]
    pub detailed: bool,
    #[command(flatten)]
    output: Output,
    #[command(flatten)]
    watch: Watch,
}

/// Reads, judges and prints.
pub async fn status(arguments: StatusArguments, session: &Session) -> Result<ExitCode, Failed> {
    arguments.watch.repeat(&session.out, async |out: &Out| Ok(once(&arguments, session, out).await)).await
}

async fn once(arguments: &StatusArguments, session: &Session, out: &Out) -> ExitCode {
    let facts = read::facts(session).await;
    let checks = verdict::all(&facts);
    let worst = checks.iter().map(|check| check.grade).max().unwrap_or_default();
    match arguments.output.output {
        format @ (Format::Json | Format::Yaml) => out.value(format, &document(&facts, &checks)),
        Format::Name => checks.iter().for_each(|check| out.line(check.name)),
        format => {
            if arguments.detailed || format == Format::Wide || calicoctl::is_front_end() {
                classic(&facts, out);
            }
            print(&facts, &checks, out);
        }
    }
    match worst {
        Grade::Ok => ExitCode::SUCCESS,
        Grade::Warn => ExitCode::from(1),
        Grade::Fail => ExitCode::from(2),
    }
}

/// The same for an archive: what people read, in all its parts, and the document for programs.
pub(super) async fn texts(session: &Session) -> (String, Value) {
    let facts = read::facts(session).await;
    let checks = verdict::all(&facts);
    let (out, bytes) = Out::in_memory();
    classic(&facts, &out);
    print(&facts, &checks, &out);
    let bytes = std::mem::take(&mut *bytes.lock().unwrap_or_else(PoisonError::into_inner));
    (String::from_utf8_lossy(&bytes).into_owned(), document(&facts, &checks))
}

fn graded(checks: &[StatusCheck], grade: Grade) -> usize {
    checks.iter().filter(|check| check.grade == grade).count()
}

/// The header, and a line for each part with its advice below it.
fn print(facts: &HostFacts, checks: &[StatusCheck], out: &Out) {
    let address = facts.store.as_ref().ok().and_then(|store| store.record.as_ref()?.ipv4.clone());
    let (problems, warnings) = (graded(checks, Grade::Fail), graded(checks, Grade::Warn));
    let verdict = match (problems, warnings) {
        (0, 0) => "all is well".to_owned(),
        (0, warnings) => count(warnings, "warning"),
        (problems, 0) => count(problems, "problem"),
        _ => format!("{}, {}", count(problems, "problem"), count(warnings, "warning")),
    };
    let parts = [facts.node.host.clone(), format!("Calico node {}", facts.node.name)];
    let head: Vec<String> = parts.into_iter().chain(address).chain([verdict]).collect();
    out.line(cleaned(&head.join("   ")));
    out.line(cleaned(&format!("datastore from {}", facts.node.origin)));
    for check in checks {
        let colour = match check.grade {
            Grade::Ok => Colour::Green,
            Grade::Warn => Colour::Yellow,
            Grade::Fail => Colour::Red,
        };
        let word = out.coloured(colour, &format!("{:<4}", check.grade.word()));
        out.line(format!("{word}  {:<9}  {}", check.name, cleaned(&check.text)));
        for advice in &check.advice {
            out.line(format!("{:MARGIN$}> {}", "", cleaned(advice)));
        }
    }
}

/// Names are others': what a terminal would obey is left out.
fn cleaned(text: &str) -> String {
    text.replace(crate::error::is_deceptive, " ")
}

/// The form for programs; README.md documents it.
fn document(facts: &HostFacts, checks: &[StatusCheck]) -> Value {
    let worst = checks.iter().map(|check| check.grade).max().unwrap_or_default();
    let list: Vec<Value> = checks
        .iter()
        .map(|check| {
            json!({
                "name": check.name, "verdict": check.grade.word().to_lowercase(), "text": check.text,
                "advice": check.advice, "facts": check.facts,
            })
        })
        .collect();
    let store = facts.store.as_ref().ok();
    let cluster = store.and_then(|store| store.cluster.as_ref()).map(|cluster| cluster.guid.clone());
    let record = store.and_then(|store| store.record.as_ref());
    json!({
        "schema": SCHEMA,
        "host": facts.node.host,
        "node": facts.node.name,
        "ipv4": record.and_then(|record| record.ipv4.clone()),
        "ipv6": record.and_then(|record| record.ipv6.clone()),
        "cluster": cluster,
        "datastore_from": facts.node.origin,
        "verdict": worst.word().to_lowercase(),
        "problems": graded(checks, Grade::Fail),
        "warnings": graded(checks, Grade::Warn),
        "checks": list,
    })
}

/// What `calicoctl status` printed: calico/node, Felix, and the BGP peers of each family.
fn classic(facts: &HostFacts, out: &Out) {
    match &facts.felix.process {
        Some((_, age)) => out.line(format!("calico-node container is running. Status: Up {}", span(*age))),
        None => out.line("calico-node container not running"),
    }
    let store = facts.store.as_ref().ok();
    let version = store.and_then(|store| store.cluster.as_ref()?.version.clone());
    if let (Some(_), Some(version)) = (&facts.felix.process, version) {
        // calicoctl asked the datastore as well: no running Felix tells its version.
        out.line(format!("Running felix version {version} (as the datastore has it)"));
    }
    for (family, bird) in [("IPv4", &facts.bird), ("IPv6", &facts.bird6)] {
        out.line(format!("\n{family} BGP status"));
        if let Some(record) = store.and_then(|store| store.record.as_ref()) {
            let address = if family == "IPv4" { &record.ipv4 } else { &record.ipv6 };
            let inherited = if record.inherited { " (inherited)" } else { "" };
            let address = address.as_deref().and_then(|address| address.split('/').next()).unwrap_or("None");
            out.line(format!("IP: {address}    AS Number: {}{inherited}", record.as_number));
        }
        match bird {
            Bird::Absent => out.line("BIRD is not running."),
            Bird::Silent(why) => out.line(format!("BIRD cannot be asked: {why}")),
            Bird::Answers(peers) if peers.is_empty() => out.line(format!("No {family} peers found.")),
            Bird::Answers(peers) => {
                let cells = |peer: &BirdPeer| {
                    let BirdPeer { address, kind, state, since, info } = peer.clone();
                    vec![address, kind.to_owned(), state, since, info]
                };
                let header = ["Peer address", "Peer type", "State", "Since", "Info"];
                out.line(framed(&header, &peers.iter().map(cells).collect::<Vec<_>>(), false));
            }
        }
    }
    out.line("");
}
