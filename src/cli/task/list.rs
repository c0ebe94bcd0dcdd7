//! `calico-mesos task list`: a row a task.

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::time::SystemTime;

use serde_json::{json, Value};

use crate::cli::gc::duration;
use crate::cli::output::{Each, Format, Listing, Out, Output, Row};
use crate::cli::session::Session;
use crate::cli::watch::Watch;
use crate::cli::Failed;
use crate::error::chain;
use crate::net::show::{self, InterfaceFigures};
use crate::task::story::{Story, StoryPhase};

use super::text::{age, bytes, joined, or_dash, traffic_json, with_own};

#[derive(Debug, clap::Args)]
pub struct TaskListArguments {
    /// Also list the tasks that have ended, as far back as the audit trail goes
    #[arg(long, short)]
    all: bool,
    #[command(flatten)]
    output: Output,
    #[command(flatten)]
    watch: Watch,
}

pub async fn list(arguments: &TaskListArguments, session: &Session) -> Result<ExitCode, Failed> {
    let print = async |out: &Out| {
        let stories = super::stories(session, arguments.all)?;
        let figures = match show::figures().await {
            Ok(figures) => figures,
            Err(error) => {
                tracing::warn!("the traffic is not shown: {}", chain(&error));
                BTreeMap::new()
            }
        };
        let now = SystemTime::now();
        let figures = |story: &Story| figures.get(&story.container.interface());
        match arguments.output.output {
            format @ (Format::Json | Format::Yaml) => {
                out.value(format, &Each(|| stories.tasks.iter().map(|it| document(it, figures(it), now))));
            }
            format => listing(stories.tasks.iter().map(|it| row(it, figures(it), now))).print(format, out),
        }
        Ok(ExitCode::SUCCESS)
    };
    arguments.watch.repeat(&session.out, print).await
}

fn listing(rows: impl Iterator<Item = Row>) -> Listing {
    Listing {
        wide_header: vec!["INTERFACE", "MTU", "AGE", "RECEIVED", "SENT", "HEALTH", "PROFILES"],
        rows: rows.collect(),
        ..Listing::plain(&["TASK", "APP", "STATE", "ADDRESS", "CONTAINER", "EXECUTOR"])
    }
}

fn row(story: &Story, figures: Option<&InterfaceFigures>, now: SystemTime) -> Row {
    let name = match story.task.is_empty() {
        true => story.container.to_string(),
        false => story.task.clone(),
    };
    let cells = vec![
        name.clone(),
        or_dash(&story.app),
        state(story),
        joined(&story.addresses),
        story.container.as_str()[..8].to_owned(),
        story.version().unwrap_or("-").to_owned(),
    ];
    let of = |value: &dyn Fn(&InterfaceFigures) -> String| figures.map_or_else(|| "-".to_owned(), value);
    let wide = vec![
        of(&|_| story.container.interface()),
        of(&|figures| figures.mtu.to_string()),
        age(story.began(), now).map_or_else(|| "-".to_owned(), duration),
        of(&|figures| bytes(figures.received.bytes)),
        of(&|figures| bytes(figures.sent.bytes)),
        story.health.clone().unwrap_or_else(|| "-".to_owned()),
        joined(&story.profiles),
    ];
    Row { name, cells, wide, ..Row::default() }
}

/// The word, and how an ended one ended: `exited 3`.
fn state(story: &Story) -> String {
    match (story.state, story.ending()) {
        (StoryPhase::Ended, Some((ending, _))) => match &ending.code {
            Some(Value::String(code)) => format!("{} {code}", ending.outcome),
            Some(code) => format!("{} {code}", ending.outcome),
            None => ending.outcome.clone(),
        },
        (state, _) => state.word().to_owned(),
    }
}

/// The row for programs.
fn document(story: &Story, figures: Option<&InterfaceFigures>, now: SystemTime) -> Value {
    let own = json!({
        "addresses": story.addresses,
        "interface": figures.map(|_| story.container.interface()),
        "mtu": figures.map(|figures| figures.mtu),
        "received": figures.map(|figures| traffic_json(figures.received)),
        "sent": figures.map(|figures| traffic_json(figures.sent)),
    });
    with_own(story, now, own)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::names::ContainerId;
    use crate::net::show::Traffic;
    use crate::task::channel::Ending;
    use crate::task::report::trail::{Life, Part};

    fn story(state: StoryPhase) -> Story {
        Story {
            container: ContainerId::parse("5f3cbe1e-77aa-4d1b-8b0e-0c1f2a3b4c5d").unwrap(),
            task: "web.1".into(),
            app: "/web".into(),
            framework: "F".into(),
            state,
            addresses: vec!["10.0.0.1".parse().unwrap(), "fd00::1".parse().unwrap()],
            profiles: vec!["dev".into()],
            view: None,
            life: None,
            health: Some("healthy".into()),
        }
    }

    fn ended(outcome: &str, code: Option<Value>) -> Story {
        let ending = Ending { outcome: outcome.into(), code, message: None };
        let part = Part { time: "2026-11-28T20:00:01.000Z".into(), ending, ..Part::default() };
        let life = Life { teardowns: vec![part], ..Life::default() };
        Story { life: Some(life), ..story(StoryPhase::Ended) }
    }

    #[test]
    fn a_row_has_traffic_where_there_is_an_interface() {
        let now = SystemTime::now();
        let figures = InterfaceFigures {
            mtu: 1480,
            up: true,
            received: Traffic { bytes: 1_234_567, packets: 9 },
            sent: Traffic { bytes: 999, packets: 2 },
        };
        let row = row(&story(StoryPhase::Running), Some(&figures), now);
        assert_eq!(row.cells, ["web.1", "/web", "running", "10.0.0.1, fd00::1", "5f3cbe1e", "-"]);
        assert_eq!(row.wide, ["cali5f3cbe1e77a", "1480", "-", "1.2 MB", "999 B", "healthy", "dev"]);
        let json = document(&story(StoryPhase::Running), Some(&figures), now);
        assert_eq!(json["received"], json!({"bytes": 1_234_567, "packets": 9}));
        let row = super::row(&story(StoryPhase::Starting), None, now);
        assert_eq!(row.wide[..5], ["-", "-", "-", "-", "-"]);
        assert_eq!(document(&story(StoryPhase::Starting), None, now)["mtu"], Value::Null);
    }

    #[test]
    fn an_ended_task_shows_how_it_ended() {
        assert_eq!(state(&ended("exited", Some(3.into()))), "exited 3");
        assert_eq!(state(&ended("failed", Some("CM-IP-TAKEN".into()))), "failed CM-IP-TAKEN");
        assert_eq!(state(&ended("killed", None)), "killed");
        assert_eq!(state(&story(StoryPhase::Ended)), "ended");
        assert_eq!(state(&story(StoryPhase::Waiting)), "waiting for teardown");
    }
}
