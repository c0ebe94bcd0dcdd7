//! The secrets that this host's files and environments hold, so that they are found wherever else they stand.

use std::path::{Path, PathBuf};

use base64::engine::general_purpose::STANDARD;
use base64::Engine;
use serde_json::Value;

use crate::cli::node::agents;
use crate::config::{Config, CALICOCTL_CFG};
use crate::host::processes::{command_line, environment, pids};
use crate::mesos::flags::PROGRAM;

use super::files::read_some;
use super::mask::is_secret;

/// More than any key or token has.
const LONGEST: u64 = 64 << 10;
/// Programs that carry a task's environment.
const EXECUTORS: [&str; 2] = [PROGRAM, "calico-executor"];

/// All that are found; what cannot be read holds none that we could give away. `settings` is calico/node's file.
pub fn of_host(config: &Config, file: &Path, settings: &Path) -> Vec<String> {
    let mut found: Vec<String> = config.etcd.password.iter().cloned().collect();
    let mut files: Vec<PathBuf> = config.secrets().map(Path::to_owned).collect();
    // The file itself may have a mistake in it, so that its configuration is not known.
    for path in [file, Path::new(CALICOCTL_CFG), settings] {
        let text = read_some(path, LONGEST).unwrap_or_default();
        for (name, value) in text.lines().filter_map(assignment) {
            note(name, value, &mut found, &mut files);
        }
    }
    for (name, value) in std::env::vars() {
        note(&name, &value, &mut found, &mut files);
    }
    for pid in agents::running().iter().map(|agent| agent.pid).chain(executors()) {
        let (words, variables) =
            (command_line(pid).unwrap_or_default(), environment(pid).unwrap_or_default());
        for (name, value) in words.iter().chain(&variables).filter_map(|word| assignment(word)) {
            note(name, value, &mut found, &mut files);
        }
    }
    files.sort();
    files.dedup();
    found.extend(files.iter().flat_map(|path| of_text(&read_some(path, LONGEST).unwrap_or_default())));
    found
}

fn executors() -> Vec<i32> {
    let name = |pid| Some(Path::new(command_line(pid)?.first()?).file_name()?.to_str()?.to_owned());
    pids().filter(|pid| name(*pid).is_some_and(|name| EXECUTORS.contains(&name.as_str()))).collect()
}

/// `NAME=value`, `name = "value"`, `name: value`, `--name=value`.
fn assignment(line: &str) -> Option<(&str, &str)> {
    let line = line.trim().trim_start_matches("export ");
    let at = line.find(['=', ':'])?;
    let quotes = |text: &'_ str| -> bool { text.len() > 1 && text.starts_with(['"', '\'']) };
    let value = line[at + 1..].trim();
    let bare = if quotes(value) { value.trim_matches(['"', '\'']) } else { value };
    Some((line[..at].trim().trim_start_matches('-'), bare))
}

/// A secret, or the file in which it lies.
fn note(name: &str, value: &str, found: &mut Vec<String>, files: &mut Vec<PathBuf>) {
    if !is_secret(name) {
        return;
    }
    let path = Path::new(value.strip_prefix("file://").unwrap_or(value));
    match path.is_absolute() && path.is_file() {
        true => files.push(path.into()),
        false => found.extend(of_text(value)),
    }
}

/// Secrets in the text of a file that holds nothing else, or of such a variable: lines, the last words of lines
/// (`principal secret`), and in JSON the values with such names.
fn of_text(text: &str) -> Vec<String> {
    if let Ok(value @ (Value::Object(_) | Value::Array(_))) = serde_json::from_str(text) {
        let mut found = Vec::new();
        of_json("", &value, &mut found);
        return found;
    }
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with("-----"));
    lines
        .flat_map(|line| line.split_whitespace().last().into_iter().chain([line]).map(str::to_owned))
        .collect()
}

fn of_json(name: &str, value: &Value, found: &mut Vec<String>) {
    match value {
        Value::Object(map) => {
            for (key, value) in map {
                // What lies below such a name is a secret, whatever its own name.
                of_json(if is_secret(name) && !value.is_object() { name } else { key }, value, found);
            }
        }
        Value::Array(list) => list.iter().for_each(|value| of_json(name, value, found)),
        Value::String(text) if is_secret(name) => {
            found.push(text.clone());
            // `user:password`, as registries take it.
            let plain = STANDARD.decode(text).ok().and_then(|bytes| String::from_utf8(bytes).ok());
            let password = plain.as_deref().and_then(|plain| plain.split_once(':')).map(|(_, word)| word);
            found.extend(password.map(str::to_owned));
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn files_of_secrets_are_read_in_their_forms() {
        assert!(of_text("hunter2\n").contains(&"hunter2".to_owned()));
        assert!(of_text("principal hunter2\n").contains(&"hunter2".to_owned()));
        let pem = of_text("-----BEGIN PRIVATE KEY-----\nAAAA\nBBBB\n-----END PRIVATE KEY-----\n");
        assert_eq!(pem, ["AAAA", "AAAA", "BBBB", "BBBB"]);
        let json =
            r#"{"credentials":[{"principal":"p","secret":"s1"}],"auths":{"r":{"auth":"dXNlcjpodW50ZXIy"}}}"#;
        let found = of_text(json);
        assert!(["s1", "hunter2", "dXNlcjpodW50ZXIy"].iter().all(|word| found.contains(&(*word).to_owned())));
    }

    #[test]
    fn settings_name_secrets_or_their_files() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        fs::write(&path, "x").unwrap();
        let (mut found, mut files) = (Vec::new(), Vec::new());
        let lines = [
            format!("key_file = \"{}\"", path.display()),
            "ETCD_PASSWORD='hunter2'".to_owned(),
            "--credential=/no/such/file".to_owned(),
            "NODENAME=agent-1".to_owned(),
        ];
        for (name, value) in lines.iter().filter_map(|line| assignment(line)) {
            note(name, value, &mut found, &mut files);
        }
        assert_eq!(files, [path]);
        assert!(found.contains(&"hunter2".to_owned()) && !found.iter().any(|word| word.contains("agent")));
    }
}
