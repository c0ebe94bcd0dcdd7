//! States and names of tasks, without a host.

use std::path::PathBuf;

use super::*;
use crate::calico::Identity;
use crate::task::record::journal::Record;
use crate::task::report::trail::{Part, Tenure};

const ONE: &str = "5f3cbe1e-77aa-4d1b-8b0e-0c1f2a3b4c5d";
const OTHER: &str = "5f3cbe1e-88bb-4d1b-8b0e-0c1f2a3b4c5d";

fn view(owned: bool, ending: Option<&str>) -> View {
    let container = ContainerId::parse(ONE).unwrap();
    let mut record = Record::new(container.clone(), Identity::new("agent-1", &container, "/web", "web.1"));
    record.written = "2026-11-28T20:00:05Z".to_owned();
    let ending = ending.map(|outcome| Ending { outcome: outcome.into(), ..Ending::default() });
    View { record: Box::new(record), owned, pending: false, held: Vec::new(), ending }
}

fn part(time: &str, outcome: &str) -> Part {
    let ending = Ending { outcome: outcome.into(), ..Ending::default() };
    Part { time: time.into(), ending, ..Part::default() }
}

fn launched() -> Life {
    Life { launch: Some(part("2026-11-28T20:00:06.100Z", "running")), ..Life::default() }
}

#[test]
fn a_state_follows_from_journal_and_trail() {
    let since = Some("2026-11-28T19:00:00.000Z");
    assert_eq!(state(&view(true, None), Some(&launched()), since), StoryPhase::Running);
    assert_eq!(state(&view(true, None), None, since), StoryPhase::Starting);
    assert_eq!(
        state(&view(true, None), Some(&Life::default()), Some("2026-11-28T20:00:05.900Z")),
        StoryPhase::Starting
    );
    for rotated_away in [Some("2026-11-28T20:00:06.000Z"), None, Some("")] {
        let expected = if rotated_away == Some("") { StoryPhase::Starting } else { StoryPhase::Alive };
        assert_eq!(state(&view(true, None), None, rotated_away), expected, "{rotated_away:?}");
    }
    assert_eq!(state(&view(true, Some("killed")), Some(&launched()), since), StoryPhase::Ending);
    assert_eq!(state(&view(false, None), Some(&launched()), since), StoryPhase::Waiting);
    assert_eq!(state(&view(false, Some("exited")), None, None), StoryPhase::Waiting);
}

#[test]
fn an_ending_is_the_journals_before_it_is_the_trails() {
    let mut life = launched();
    life.teardowns.push(part("2026-11-28T20:01:00.000Z", "exited"));
    let story =
        Story { view: Some(view(false, Some("killed"))), ..ended(ONE, "web.1", "/web", life.clone()) };
    assert_eq!(story.ending().unwrap().0.outcome, "killed");
    let story = Story { view: Some(view(true, None)), ..story };
    assert_eq!(story.ending(), None, "a living task has not ended");
    let story = Story { view: None, ..story };
    let (ending, time) = story.ending().unwrap();
    assert_eq!((ending.outcome.as_str(), time), ("exited", Some("2026-11-28T20:01:00.000Z")));
}

fn ended(id: &str, task: &str, app: &str, life: Life) -> Story {
    over(ContainerId::parse(id).unwrap(), Life { task: task.into(), app: app.into(), ..life })
}

fn alive(story: Story) -> Story {
    Story { state: StoryPhase::Running, ..story }
}

fn with_address(address: &str) -> Life {
    let tenure = Tenure {
        address: address.parse().unwrap(),
        profiles: Vec::new(),
        given: None,
        returned: None,
        conflict: None,
    };
    Life { addresses: vec![tenure], ..Life::default() }
}

#[test]
fn a_task_is_found_by_id_container_app_and_address() {
    let stories = [
        alive(ended(ONE, "web.instance-7d0f._app.1", "/prod/web", with_address("10.0.0.1"))),
        alive(ended(OTHER, "web.instance-8e1f._app.1", "/prod/db", with_address("fd00::2"))),
    ];
    let found = |word: &str| find(&stories, word).map(|story| story.app.clone());
    for word in [
        "web.instance-7d0f._app.1",
        "web.instance-7",
        ONE,
        "5f3cbe1e-77",
        "5F3CBE1E-77",
        "/prod/web",
        "prod/web",
        "10.0.0.1",
        " 10.0.0.1 ",
    ] {
        assert_eq!(found(word).as_deref(), Ok("/prod/web"), "{word}");
    }
    assert_eq!(found("fd00:0::2").as_deref(), Ok("/prod/db"));
    let several = NotFound::Ambiguous {
        word: "5f3c".into(),
        candidates: vec![
            "web.instance-7d0f._app.1 (container 5f3cbe1e)".into(),
            "web.instance-8e1f._app.1 (container 5f3cbe1e)".into(),
        ],
    };
    assert_eq!(found("5f3c"), Err(several));
    assert_eq!(
        found("/prod/wbe").unwrap_err().to_string(),
        "no task of this host has the id, app or address '/prod/wbe'; the nearest is '/prod/web'"
    );
    for nothing in ["", "/", "  "] {
        assert!(matches!(found(nothing), Err(NotFound::Nothing { .. })), "{nothing:?}");
    }
    assert_eq!(found("zzz"), Err(NotFound::Nothing { word: "zzz".into(), nearest: None }));
}

#[test]
fn a_living_task_comes_before_ended_ones_and_a_whole_name_before_a_beginning() {
    let third = "aaaabbbb-88bb-4d1b-8b0e-0c1f2a3b4c5d";
    let stories = [
        alive(ended(ONE, "web.10", "/web", with_address("10.0.0.1"))),
        alive(ended(OTHER, "web.1", "/other", with_address("10.0.0.2"))),
        ended(third, "web.0", "/web", with_address("10.0.0.1")),
    ];
    let found = |word: &str| find(&stories, word).map(|story| story.container.to_string());
    assert_eq!(found("web.1").as_deref(), Ok(OTHER));
    assert_eq!(found("/web").as_deref(), Ok(ONE));
    assert_eq!(found("10.0.0.1").as_deref(), Ok(ONE));
    assert_eq!(found("web.0").as_deref(), Ok(third));
    let many: Vec<Story> = (0..10)
        .map(|number| {
            ended(ContainerId::random().as_str(), &format!("batch.{number}"), "/batch", Life::default())
        })
        .collect();
    let error = find(&many, "/batch").unwrap_err().to_string();
    assert!(
        error.contains("'/batch' is not unique: batch.0 (container ") && error.contains("2 more; give more"),
        "{error}"
    );
}

#[test]
fn a_sandbox_of_an_ended_task_is_the_trails() {
    let mut life = launched();
    assert_eq!(sandbox(&ended(ONE, "web.1", "/web", life.clone())), None);
    life.launch.as_mut().unwrap().sandbox = Some("/var/lib/mesos/x".into());
    let found = sandbox(&ended(ONE, "web.1", "/web", life.clone())).unwrap();
    assert_eq!(found.path, PathBuf::from("/var/lib/mesos/x"));
    // The record of this test names this very process.
    let own = Story { view: Some(view(true, None)), ..ended(ONE, "web.1", "/web", life) };
    assert_eq!(sandbox(&own).unwrap().path, std::env::current_dir().unwrap());
}
