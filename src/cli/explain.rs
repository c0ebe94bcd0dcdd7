//! `calico-mesos explain`: what a failure code means, who is to blame and what to do.

use std::process::ExitCode;

use serde_json::{json, Value};

use crate::error::{Blame, Code};

use super::output::{Format, Listing, Out, Output, Row};

/// How similar a code has to be, between 0 and 1, to be named where an unknown one is refused.
const SIMILAR: f64 = 0.8;
const MOST_SIMILAR: usize = 3;

#[derive(Debug, clap::Args)]
pub struct ExplainArguments {
    /// The code that ends a failure message, with or without CM-, in any case; without one all codes are listed
    #[arg(value_parser = find)]
    code: Option<Code>,
    #[command(flatten)]
    output: Output,
}

pub fn explain(arguments: &ExplainArguments, out: &Out) -> ExitCode {
    match arguments.code {
        Some(code) => match arguments.output.output {
            Format::Table | Format::Wide => out.line(text(code)),
            Format::Name => out.line(code.to_string()),
            format => out.value(format, &as_json(code)),
        },
        None => list().print(arguments.output.output, out),
    }
    ExitCode::SUCCESS
}

fn list() -> Listing {
    let row = |code: &Code| Row {
        name: code.to_string(),
        cells: vec![code.to_string(), code.party().name().to_owned(), plain(code.meaning())],
        json: as_json(*code),
        ..Row::default()
    };
    Listing { rows: Code::ALL.iter().map(row).collect(), ..Listing::plain(&["CODE", "FAULT", "MEANING"]) }
}

fn text(code: Code) -> String {
    let retried = match code.blame() {
        Blame::App => "the task fails at once",
        Blame::Host => "a Calico task tries again for launch.retry_for before its container starts",
    };
    format!(
        "{code}\n\nMeaning:     {}\nFault:       {}; {retried}\nWhat to do:  {}",
        plain(code.meaning()),
        code.party().description(),
        plain(code.advice())
    )
}

/// Without the marks that README.md needs and a terminal shows as they are.
fn plain(markdown: &str) -> String {
    markdown.replace('`', "")
}

fn as_json(code: Code) -> Value {
    json!({
        "code": code,
        "fault": code.party().name(),
        "retried": code.blame() == Blame::Host,
        "meaning": code.meaning(),
        "advice": code.advice(),
    })
}

/// The code as people type it. The error names the codes that were probably meant.
fn find(text: &str) -> Result<Code, String> {
    let upper = text.trim().to_uppercase();
    let word = upper.strip_prefix("CM-").unwrap_or(&upper);
    if let Ok(code) = format!("CM-{word}").parse() {
        return Ok(code);
    }
    let mut scores: Vec<(f64, Code)> = Code::ALL.iter().map(|code| (likeness(word, *code), *code)).collect();
    scores.sort_by(|one, other| other.0.total_cmp(&one.0));
    let near = scores.iter().take_while(|(score, _)| *score >= SIMILAR).take(MOST_SIMILAR);
    let near: Vec<&str> = near.map(|(_, code)| code.name()).collect();
    Err(match near.is_empty() {
        true => "it is not a failure code; `calico-mesos explain` lists all".to_owned(),
        false => format!(
            "it is not a failure code; similar: {}; `calico-mesos explain` lists all",
            near.join(", ")
        ),
    })
}

fn likeness(word: &str, code: Code) -> f64 {
    let own = &code.name()["CM-".len()..];
    match !word.is_empty() && own.split('-').any(|part| part == word) {
        true => 1.0,
        false => strsim::jaro_winkler(word, own),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_found_in_any_case_and_without_their_prefix() {
        for text in ["CM-IP-TAKEN", "cm-ip-taken", "Ip-Taken", " ip-taken "] {
            assert_eq!(find(text), Ok(Code::IpTaken), "{text}");
        }
    }

    #[test]
    fn an_unknown_code_is_refused_with_the_near_ones() {
        for (text, near) in
            [("CM-IP-TAKN", Some("CM-IP-TAKEN")), ("taken", Some("CM-PORT-TAKEN")), ("", None), ("ÿ", None)]
        {
            let refused = find(text).unwrap_err();
            assert_eq!(refused.contains("similar"), near.is_some(), "{refused}");
            assert!(near.is_none_or(|near| refused.contains(near)), "{refused}");
            assert!(refused.contains("lists all"), "{refused}");
        }
    }
}
