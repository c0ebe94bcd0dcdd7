//! The text of a journal file: the record, and the lines that may follow it.
//!
//! ```text
//!  {record}                      written once
//!  {pending} or {held}           while the datastore has not answered
//!  {ending}                      once the task is over
//! ```
//!
//! A line that is cut off, or written by a later release, is ignored.

use std::fs::File;
use std::io::{self, Read};
use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Record, FORMAT, FORMAT_BEFORE};
use crate::calico::Pending;
use crate::task::channel::Ending;

/// Beyond any record: a task has at most a few hundred ports, and names of 4 KiB.
const LONGEST: u64 = 1 << 20;

/// What an owner leaves who has not heard what became of a release.
#[derive(Serialize, Deserialize)]
pub(super) struct HeldLine {
    pub held: Vec<IpAddr>,
}

/// A file, understood.
pub(super) struct Parsed {
    pub record: Record,
    pub pending: Option<Box<Pending>>,
    pub held: Option<Vec<IpAddr>>,
    pub ending: Option<Ending>,
    /// The length of the record alone, in bytes.
    pub length: u64,
}

impl Parsed {
    /// The line about the datastore; empty where there is none.
    pub fn line(&self) -> Vec<u8> {
        let written = match (&self.pending, &self.held) {
            (Some(pending), _) => line(pending),
            (None, Some(held)) => line(&HeldLine { held: held.clone() }),
            (None, None) => return Vec::new(),
        };
        // It was just read from JSON.
        written.unwrap_or_default()
    }
}

/// What follows a record is a line each.
pub(super) fn line(what: &impl Serialize) -> io::Result<Vec<u8>> {
    let mut line = serde_json::to_vec(what)?;
    line.push(b'\n');
    Ok(line)
}

/// Reads a whole file; the error is the reason why it is left alone.
pub(super) fn parse(text: &str) -> Result<Parsed, String> {
    let mut values = serde_json::Deserializer::from_str(text).into_iter::<Value>();
    let record = values.next().ok_or("it is empty")?.map_err(|error| error.to_string())?;
    let format = record["format"].as_u64().ok_or("it has no format")?;
    if !(FORMAT_BEFORE.into()..=FORMAT.into()).contains(&format) {
        let by = record["owner"]["version"].as_str().unwrap_or("unknown");
        return Err(format!(
            "it has format {format}, written by calico-mesos {by}; this is {}, which reads up to {FORMAT}, \
             so it is left to that release",
            env!("CARGO_PKG_VERSION")
        ));
    }
    let record: Record = serde_json::from_value(record).map_err(|error| error.to_string())?;
    if (&record.identity.interface, &record.identity.handle)
        != (&record.container.interface(), &record.container.handle())
    {
        // What it names would be taken down, even if another task has it.
        return Err("its names are not those of its container".to_owned());
    }
    // With its newline.
    let length = (values.byte_offset() + 1) as u64;
    let mut parsed = Parsed { record, pending: None, held: None, ending: None, length };
    // Half a line is of an owner that died while it wrote: a write to the datastore had not been sent yet.
    for line in values.map_while(Result::ok) {
        parsed.pending = parsed.pending.or_else(|| Pending::deserialize(&line).ok().map(Box::new));
        parsed.held = parsed.held.or_else(|| HeldLine::deserialize(&line).ok().map(|line| line.held));
        parsed.ending = parsed.ending.or_else(|| Ending::deserialize(&line).ok());
    }
    Ok(parsed)
}

/// The host lost its power before the record was on the disk. At most a container had been made, which is known by
/// its name; what the record would have named is made after that.
pub(super) fn is_blank(text: &str) -> bool {
    text.chars().all(|char| char == '\0')
}

/// Any value, as text.
pub(super) fn text(file: &File) -> io::Result<String> {
    let mut bytes = Vec::new();
    file.take(LONGEST).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}
