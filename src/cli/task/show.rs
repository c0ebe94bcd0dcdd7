//! `calico-mesos task show`: everything about one task, as text or as a document.

mod document;
mod page;

use std::process::ExitCode;
use std::time::SystemTime;

use crate::cli::complete;
use crate::cli::output::{Format, Out, Output};
use crate::cli::session::Session;
use crate::cli::watch::Watch;
use crate::cli::Failed;
use crate::net::forward::Mapping;
use crate::task::story::facts::Facts;
use crate::task::story::{sandbox, Sandbox, Story};

#[derive(Debug, clap::Args)]
pub struct TaskShowArguments {
    /// Any unique beginning of its id or of its container's, its app, or an address
    #[arg(value_name = "ID", add = complete::tasks())]
    task: String,
    #[command(flatten)]
    output: Output,
    #[command(flatten)]
    watch: Watch,
}

/// All that is known of one task.
struct Shown {
    story: Story,
    facts: Facts,
    sandbox: Option<Sandbox>,
    now: SystemTime,
}

pub async fn show(arguments: &TaskShowArguments, session: &Session) -> Result<ExitCode, Failed> {
    let print = async |out: &Out| {
        let story = super::the_task(session, &arguments.task)?;
        let facts = Facts::look(&session.config, &story).await;
        let shown = Shown { sandbox: sandbox(&story), story, facts, now: SystemTime::now() };
        match arguments.output.output {
            Format::Table | Format::Wide => out.line(page::page(&shown)),
            Format::Name => out.line(&shown.story.task),
            format => out.value(format, &document::document(&shown)),
        }
        Ok(ExitCode::SUCCESS)
    };
    arguments.watch.repeat(&session.out, print).await
}

impl Shown {
    /// The ports that lead to it or are to lead to it, and whether they do; unknown where the tables cannot be read.
    fn ports(&self) -> Vec<(Mapping, Option<bool>)> {
        let wanted = self.story.view.iter().flat_map(|view| &view.record.ports);
        let open = self.facts.ports.as_ref().ok();
        let is_open = |mapping: &Mapping| open.map(|open| open.contains(mapping));
        let mut ports: Vec<(Mapping, Option<bool>)> =
            wanted.map(|mapping| (*mapping, is_open(mapping))).collect();
        for mapping in open.into_iter().flatten() {
            if ports.iter().all(|(known, _)| known != mapping) {
                ports.push((*mapping, Some(true)));
            }
        }
        ports
    }

    /// Its entries in Consul, and whether Consul has them; unknown where Consul does not answer.
    fn entries(&self) -> Vec<(&crate::consul::Service, Option<bool>)> {
        let listed = self.facts.registered.as_ref().ok().and_then(Option::as_ref);
        let is_listed = |id: &str| listed.map(|listed| listed.iter().any(|service| service.id == id));
        let mut entries: Vec<_> =
            self.facts.noted.iter().map(|service| (service, is_listed(&service.id))).collect();
        for service in listed.into_iter().flatten() {
            if entries.iter().all(|(known, _)| known.id != service.id) {
                entries.push((service, Some(true)));
            }
        }
        entries
    }
}

#[cfg(test)]
mod tests;
