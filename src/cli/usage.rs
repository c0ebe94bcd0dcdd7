//! What a person reads when a command cannot be carried out: one line of why, and for a mistake in the command line
//! where the help of that verb is.

use std::error::Error;
use std::ffi::OsString;
use std::process::ExitCode;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::Command;

use crate::calico::StoreError;
use crate::error::{chain, EXIT_USAGE};
use crate::names;

use super::calicoctl;

/// How similar a word has to be, between 0 and 1, to be suggested in place of an unknown one; clap's own measure.
const SIMILAR: f64 = 0.7;

/// The line that reports an error: the name under which the program was called, what failed and why, and where the
/// datastore does not answer what to do about it.
pub(super) fn complaint(error: &(dyn Error + 'static)) -> String {
    let advice = store_error(error).map_or_else(String::new, |store| {
        format!("; {}; see `calico-mesos status` and `calico-mesos config show`", store.advice())
    });
    format!("{}: {}{advice}", calicoctl::program(), chain(error))
}

/// The error of the way to etcd that is the cause of this one, if it is.
fn store_error<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a StoreError> {
    let mut next = Some(error);
    while let Some(cause) = next {
        let boxed = cause.downcast_ref::<Box<StoreError>>().map(AsRef::as_ref);
        if let Some(found) = cause.downcast_ref::<StoreError>().or(boxed) {
            return Some(found);
        }
        next = cause.source();
    }
    None
}

/// clap's own text for help and versions; for mistakes one line, and the help of the verb that was meant.
pub(super) fn usage(error: &clap::Error, command: Command, words: &[OsString]) -> ExitCode {
    if !error.use_stderr() {
        // A closed standard output has no reader for the error.
        let _ = error.print();
        return ExitCode::SUCCESS;
    }
    let program = calicoctl::program();
    let text = error.render().to_string();
    let lines: Vec<&str> = text.lines().take_while(|line| !line.trim().is_empty()).map(str::trim).collect();
    let line = match error.kind() {
        // clap prints the help in this case, which is longer than a terminal.
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand | ErrorKind::MissingSubcommand => {
            "the verb or an argument is missing".to_owned()
        }
        _ => lines.join(" "),
    };
    let meant = Meant::by(command, words);
    let nearest = suggested(error).or(meant.nearest);
    let nearest = nearest.map_or_else(String::new, |nearest| format!("; did you mean '{nearest}'?"));
    eprintln!("{program}: {}{nearest}", line.strip_prefix("error: ").unwrap_or(&line));
    eprintln!("try '{program}{} --help'", meant.path);
    ExitCode::from(EXIT_USAGE)
}

/// The word of the command line that an unknown one resembles most, as clap finds it.
fn suggested(error: &clap::Error) -> Option<String> {
    let kinds = [ContextKind::SuggestedSubcommand, ContextKind::SuggestedArg, ContextKind::SuggestedValue];
    kinds.into_iter().find_map(|kind| match error.get(kind)? {
        ContextValue::String(word) => Some(word.clone()),
        // The most similar one comes last.
        ContextValue::Strings(words) => words.last().cloned(),
        _ => None,
    })
}

/// The verb that a command line with a mistake is about.
#[derive(Debug, PartialEq, Eq)]
struct Meant {
    /// The words that lead to it, with a blank before each: ` profile NAME rule`.
    path: String,
    /// The verb that a word in the place of one resembles. clap takes the first for a name where one may stand.
    nearest: Option<String>,
}

impl Meant {
    fn by(mut command: Command, words: &[OsString]) -> Self {
        let (mut path, mut names) = (String::new(), Vec::new());
        let mut words = words.iter().map(|word| word.to_string_lossy());
        while let Some(word) = words.next() {
            match command.find_subcommand(word.as_ref()) {
                Some(found) => {
                    if !names.is_empty() {
                        let names =
                            command.get_positionals().map(|name| name.get_id().as_str().to_uppercase());
                        names.for_each(|name| path.extend([" ", &name]));
                    }
                    path.extend([" ", found.get_name()]);
                    command = found.clone();
                    names.clear();
                }
                None if word == "--config" => drop(words.next()),
                None if word.starts_with('-') => {}
                None => names.push(word.into_owned()),
            }
            // What follows a word in the place of a verb belongs to that word.
            if command.has_subcommands() && names.len() > command.get_positionals().count() {
                break;
            }
        }
        let verbs: Vec<&str> = command.get_subcommands().map(Command::get_name).collect();
        let nearest =
            names.iter().rev().find_map(|name| names::nearest(name, verbs.iter().copied(), SIMILAR));
        Self { path, nearest: nearest.map(str::to_owned) }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::super::Cli;
    use super::*;

    fn meant(line: &str) -> (String, Option<String>) {
        let words: Vec<OsString> = line.split_whitespace().map(OsString::from).collect();
        let meant = Meant::by(Cli::command(), &words);
        (meant.path, meant.nearest)
    }

    #[test]
    fn the_help_is_that_of_the_verb() {
        for (line, path) in [
            ("", ""),
            ("pol add", ""),
            ("pool add --ipip=x", " pool add"),
            ("--config show pool add", " pool add"),
            ("node bgppeer add 10.0.0.1", " node bgppeer add"),
            ("profile dev rule add inbound permit", " profile NAME rule add"),
            ("profile dev rul show", " profile"),
            ("profile rule add", " profile rule add"),
            ("endpoint web.1 profile apend x", " endpoint ENDPOINT profile"),
        ] {
            assert_eq!(meant(line).0, path, "{line}");
        }
    }

    #[test]
    fn an_unknown_word_in_the_place_of_a_verb_is_compared_with_the_verbs() {
        for (line, nearest) in [
            ("profile shwo", Some("show")),
            ("profile dev rul show", Some("rule")),
            ("profile dev", None),
            ("endpoint profle", Some("profile")),
            ("endpoint web.1 profile apend x", Some("append")),
        ] {
            assert_eq!(meant(line).1.as_deref(), nearest, "{line}");
        }
    }

    #[test]
    fn a_datastore_that_is_away_is_reported_with_advice() {
        let away = || Box::new(StoreError::Connect("127.0.0.1:1: refused".into()));
        let error =
            crate::calico::CalicoError::Store { endpoints: "http://127.0.0.1:1".into(), source: away() };
        let wrapped = crate::calico::ProfileError::from(error);
        let line = complaint(&wrapped);
        for words in ["http://127.0.0.1:1", "127.0.0.1:1: refused", "[etcd] in config.toml", "config show`"] {
            assert!(line.contains(words), "{words}: {line}");
        }
        assert_eq!(line.matches("refused").count(), 1, "{line}");
    }
}
