//! From JSON to [`App`]: defaults, checks, refusals.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::Value;

use super::fields::Fields;
use super::model::{App, AppCommand, Resources};
use super::{container, executor, health, networks, source, strings, AppError};
use crate::mesos::messages::command_info::Uri;

/// What cannot be had on one machine, with what to do about it.
const REFUSED: [(&str, &str); 4] = [
    ("secrets", "is not supported here: there is no secret store; put the value into env"),
    ("residency", "is not supported here: persistent volumes need a cluster"),
    ("check", "is not supported with Docker containers; use healthChecks"),
    ("executorResources", "is not supported: the Docker executor takes no resources of its own"),
];

/// Last parts of an id that mean something in Marathon's API.
const RESERVED: [&str; 3] = ["restart", "tasks", "versions"];

/// Which app is meant, and what Marathon itself would add to it.
#[derive(Debug, Clone, Copy, Default)]
pub struct AppChoice<'a> {
    /// The id of one among several.
    pub app: Option<&'a str>,
    /// What Marathon was given as `--executor`.
    pub executor: Option<&'a str>,
}

impl App {
    /// Reads one app definition.
    pub fn parse(json: &str) -> Result<App, AppError> {
        Self::read(json.as_bytes(), &AppChoice::default())
    }

    /// Reads the chosen app out of a file, in any encoding.
    pub fn read(file: &[u8], choice: &AppChoice<'_>) -> Result<App, AppError> {
        let value: Value = serde_json::from_str(&source::text(file)?).map_err(AppError::Json)?;
        let value = source::choose(value, choice.app)?;
        let top = Fields::top(&value)?;
        for (name, problem) in REFUSED {
            if top.get(name).is_some_and(|value| !is_empty(value)) {
                return Err(top.error(name, problem));
            }
        }
        let id = id(top)?;
        let mut notes = Vec::new();
        let network = networks::read(top, &mut notes)?;
        let command = command(top)?;
        let executor = executor::read(top, choice.executor, &command, &network)?;
        if let (Some(_), AppCommand::Shell(line)) = (&executor, &command) {
            notes.extend(executor::cut(line));
        }
        let (docker, volumes) = match executor {
            Some(_) => (None, Vec::new()),
            None => container::read(top).map(|(docker, volumes)| (Some(docker), volumes))?,
        };
        let health_check = health::read(top, network.ports(), &mut notes)?;
        if top.length("readinessChecks")? > 0 {
            notes.push("readinessChecks are left out: Marathon itself makes them".to_owned());
        }
        let app = App {
            id,
            instances: top.whole("instances", u32::MAX)?.unwrap_or(1),
            command,
            executor,
            user: top.text("user")?.map(str::to_owned),
            resources: resources(top)?,
            env: env(top)?,
            labels: text_map(top, "labels")?,
            docker,
            network,
            volumes,
            fetch: fetch(top)?,
            health_check,
            kill_grace: top.number("taskKillGracePeriodSeconds")?.map(seconds),
            notes,
        };
        strings::check(&app)?;
        Ok(app)
    }
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Object(map) => map.is_empty(),
        Value::Array(list) => list.is_empty(),
        _ => false,
    }
}

/// As long as a duration can be, where a number is out of all reason.
fn seconds(number: f64) -> Duration {
    Duration::try_from_secs_f64(number).unwrap_or(Duration::MAX)
}

fn id(top: Fields<'_>) -> Result<String, AppError> {
    let text = top.required_text("id")?;
    let parts: Vec<&str> = text.split('/').filter(|part| !part.is_empty()).collect();
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    let good = |part: &str| {
        part.split('.').all(|word| {
            !word.is_empty() && word.chars().all(plain) && !word.starts_with('-') && !word.ends_with('-')
        })
    };
    if parts.is_empty() || !parts.iter().all(|part| good(part)) {
        return Err(top.error(
            "id",
            format!(
                "'{text}' is invalid: lower-case letters, digits, dashes and single dots inside a part, and slashes \
                 between the parts, as in /prod/web"
            ),
        ));
    }
    if let Some(last) = parts.last().filter(|last| RESERVED.contains(last)) {
        return Err(top.error(
            "id",
            format!("'{text}' is invalid: '{last}' as the last part means something else in Marathon's API"),
        ));
    }
    let path = parts.join("/");
    // It becomes one folder's name, together with some 60 characters.
    if path.len() > 180 {
        return Err(top.error("id", "is longer than 180 characters"));
    }
    Ok(format!("/{path}"))
}

fn command(top: Fields<'_>) -> Result<AppCommand, AppError> {
    let args = top.texts("args")?;
    match top.text("cmd")? {
        // Marathon's task builder makes no shell line of an empty one.
        Some("") | None => Ok(AppCommand::Arguments(args)),
        Some(_) if !args.is_empty() => Err(top.error("args", "and cmd exclude each other")),
        Some(cmd) => Ok(AppCommand::Shell(cmd.to_owned())),
    }
}

fn resources(top: Fields<'_>) -> Result<Resources, AppError> {
    let limits = top.object("resourceLimits", |limits| {
        let mut read = BTreeMap::new();
        for name in ["cpus", "mem"] {
            let limit = match limits.get(name) {
                Some(Value::String(text)) if text == "unlimited" => Some(f64::INFINITY),
                _ => limits.number(name)?,
            };
            read.extend(limit.map(|limit| (name.to_owned(), limit)));
        }
        Ok(read)
    })?;
    Ok(Resources {
        cpus: top.number("cpus")?.unwrap_or(1.0),
        mem: top.number("mem")?.unwrap_or(128.0),
        disk: top.number("disk")?.unwrap_or(0.0),
        gpus: top.whole("gpus", u16::MAX.into())?.unwrap_or(0),
        limits: limits.unwrap_or_default(),
    })
}

fn env(top: Fields<'_>) -> Result<BTreeMap<String, String>, AppError> {
    let env = top.object("env", |env| {
        let mut read = BTreeMap::new();
        for name in env.names() {
            if matches!(env.get(name), Some(Value::Object(_))) {
                return Err(
                    env.error(name, "takes a secret, which is not supported here: there is no secret store")
                );
            }
            if name.is_empty() || name.contains(['=', '\0']) {
                return Err(env.error(name, "is not a valid name of a variable"));
            }
            read.insert(name.clone(), env.text(name)?.unwrap_or_default().to_owned());
        }
        Ok(read)
    })?;
    Ok(env.unwrap_or_default())
}

pub(super) fn text_map(fields: Fields<'_>, name: &str) -> Result<BTreeMap<String, String>, AppError> {
    let map = fields.object(name, |map| {
        map.names().map(|key| Ok((key.clone(), map.text(key)?.unwrap_or_default().to_owned()))).collect()
    })?;
    Ok(map.unwrap_or_default())
}

/// `fetch`, or the older `uris`; archives are unpacked by their names, as Marathon decides it.
fn fetch(top: Fields<'_>) -> Result<Vec<Uri>, AppError> {
    let mut all: Vec<Uri> = top
        .texts("uris")?
        .into_iter()
        .map(|value| Uri {
            extract: Some(is_archive(&value)),
            value,
            executable: Some(false),
            cache: Some(false),
            output_file: None,
        })
        .collect();
    if !all.is_empty() && top.length("fetch")? > 0 {
        return Err(top.error("uris", "and fetch exclude each other"));
    }
    all.extend(top.objects("fetch", |fetch| {
        let value = fetch.required_text("uri")?.to_owned();
        Ok(Uri {
            executable: Some(fetch.flag("executable")?.unwrap_or(false)),
            extract: Some(fetch.flag("extract")?.unwrap_or(true)),
            cache: Some(fetch.flag("cache")?.unwrap_or(false)),
            output_file: fetch.text("destPath")?.or(fetch.text("outputFile")?).map(str::to_owned),
            value,
        })
    })?);
    Ok(all)
}

/// By the end of the URI's path; what comes behind it does not count.
fn is_archive(uri: &str) -> bool {
    const ENDS: [&str; 9] =
        [".tar", ".tar.gz", ".tar.bz2", ".tar.xz", ".gz", ".tgz", ".tbz2", ".txz", ".zip"];
    let path = uri.split(['?', '#']).next().unwrap_or_default();
    // Marathon takes what Java calls a URI, which has neither blanks nor these.
    let valid = !uri.contains([' ', '\\', '^', '`', '{', '|', '}', '<', '>', '"']);
    valid && ENDS.iter().any(|end| path.ends_with(end))
}
