//! The one task that an operator means.

use std::net::IpAddr;

use super::{Story, StoryPhase};
use crate::names;

/// A name closer than this to what was typed is suggested; 1 is equal.
const NEAR: f64 = 0.7;
/// So many candidates are named.
const MOST: usize = 8;

/// No single task is meant.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotFound {
    #[error("no task of this host has the id, app or address '{word}'{}", near(.nearest))]
    Nothing { word: String, nearest: Option<String> },
    #[error("'{word}' is not unique: {}; give more of the id", .candidates.join(", "))]
    Ambiguous { word: String, candidates: Vec<String> },
}

fn near(name: &Option<String>) -> String {
    name.as_ref().map(|name| format!("; the nearest is '{name}'")).unwrap_or_default()
}

/// The task with this id, container, app or address. A beginning of an id is enough where it is unique. A living task
/// comes before ended ones, and the whole of a name before the beginning of another.
pub fn find<'a>(stories: &'a [Story], word: &str) -> Result<&'a Story, NotFound> {
    let wanted = word.trim();
    let address = wanted.parse::<IpAddr>().ok();
    let app = wanted.trim_matches('/');
    let lower = wanted.to_lowercase();
    let whole = |story: &&Story| story.task == wanted || story.container.as_str() == lower;
    let named = |story: &&Story| {
        story.app.trim_matches('/') == app || address.is_some_and(|it| story.addresses.contains(&it))
    };
    let begins =
        |story: &&Story| story.task.starts_with(wanted) || story.container.as_str().starts_with(&lower);
    let tests: [&dyn Fn(&&Story) -> bool; 3] = [&whole, &named, &begins];
    if !app.is_empty() {
        for alive in [true, false] {
            for test in tests {
                let lives = |story: &&Story| (story.state != StoryPhase::Ended) == alive;
                let found: Vec<&Story> = stories.iter().filter(lives).filter(test).collect();
                match found.as_slice() {
                    [] => {}
                    [story] => return Ok(story),
                    several => return Err(ambiguous(wanted, several)),
                }
            }
        }
    }
    let names = stories.iter().flat_map(|story| [story.task.as_str(), story.app.as_str()]);
    let nearest = names::nearest(wanted, names, NEAR).map(str::to_owned);
    Err(NotFound::Nothing { word: wanted.to_owned(), nearest })
}

fn ambiguous(word: &str, several: &[&Story]) -> NotFound {
    let name = |story: &&Story| match story.task.is_empty() {
        true => story.container.to_string(),
        false => format!("{} (container {})", story.task, &story.container.as_str()[..8]),
    };
    let mut candidates: Vec<String> = several.iter().take(MOST).map(name).collect();
    if several.len() > MOST {
        candidates.push(format!("{} more", several.len() - MOST));
    }
    NotFound::Ambiguous { word: word.to_owned(), candidates }
}
