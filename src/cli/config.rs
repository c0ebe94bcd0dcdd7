//! `calico-mesos config …`: each value with its origin, and all mistakes with their lines.

use std::path::Path;
use std::process::ExitCode;

use serde_json::{json, Value};

use crate::config::{Config, ConfigError, Problem, DEFAULT_PATH};

use super::output::{count, Format, Listing, Out, Output, Row};
use super::session::Session;
use super::Failed;

#[derive(Debug, clap::Subcommand)]
pub enum ConfigVerb {
    /// List each value and where it comes from
    Show(Output),
    /// List all mistakes with their lines; exit code 1 when there is one
    Check(Output),
}

pub fn config(verb: &ConfigVerb, file: Option<&Path>, out: &Out) -> Result<ExitCode, Failed> {
    match verb {
        ConfigVerb::Show(output) => show(&Session::open(file, out)?, output.output),
        ConfigVerb::Check(output) => check(file, output.output, out),
    }
}

fn show(session: &Session, format: Format) -> Result<ExitCode, Failed> {
    settings(session).print(format, &session.out);
    Ok(ExitCode::SUCCESS)
}

/// Every value with its origin.
pub(super) fn settings(session: &Session) -> Listing {
    let row = |setting: crate::config::Setting| Row {
        name: setting.key.clone(),
        cells: vec![setting.key.clone(), shown(&setting.value), setting.origin.clone()],
        json: json!({ "key": setting.key, "value": setting.value, "origin": setting.origin }),
        ..Row::default()
    };
    let rows =
        session.config.settings(session.file.as_deref(), &session.origin).into_iter().map(row).collect();
    Listing { rows, ..Listing::plain(&["KEY", "VALUE", "FROM"]) }
}

/// For people: lists with commas, `-` where nothing is set.
fn shown(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::String(text) => text.clone(),
        Value::Array(items) if items.is_empty() => "-".to_owned(),
        Value::Array(items) => items.iter().map(shown).collect::<Vec<_>>().join(", "),
        other => other.to_string(),
    }
}

/// Looks at the file as an executor does, and at what only a person's shell has.
pub(super) fn check(file: Option<&Path>, format: Format, out: &Out) -> Result<ExitCode, Failed> {
    let path = file.unwrap_or(Path::new(DEFAULT_PATH));
    let problems = match Config::of_shell(file) {
        Ok(_) => Vec::new(),
        Err(error @ (ConfigError::Parse { .. } | ConfigError::Invalid { .. })) => error.problems().to_vec(),
        Err(error @ ConfigError::Read { .. }) => return Err(error.into()),
        Err(error) => vec![Problem { line: None, text: crate::error::chain(&error) }],
    };
    let row = |problem: &Problem| Row {
        name: problem.text.clone(),
        cells: vec![problem.line.map_or("-".to_owned(), |line| line.to_string()), problem.text.clone()],
        json: json!({ "line": problem.line, "problem": problem.text }),
        ..Row::default()
    };
    let clean = problems.is_empty();
    match (clean, format) {
        (true, Format::Table | Format::Wide) if path.exists() => {
            out.line(format!("{}: no mistakes", path.display()))
        }
        (true, Format::Table | Format::Wide) => {
            out.line(format!("{} does not exist: all values have their defaults", path.display()));
        }
        _ => Listing { rows: problems.iter().map(row).collect(), ..Listing::plain(&["LINE", "MISTAKE"]) }
            .print(format, out),
    }
    if !clean && matches!(format, Format::Table | Format::Wide) {
        out.line(format!("{} in {}", count(problems.len(), "mistake"), path.display()));
    }
    Ok(if clean { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
