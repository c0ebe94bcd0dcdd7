//! A journal file as an operator sees it: the record, whether its owner lives, and what the owner has added.

use std::fs::File;
use std::io;
use std::net::IpAddr;
use std::path::Path;

use super::lines::{parse, text};
use super::{Journal, JournalError, Peeked, Record};
use crate::task::channel::Ending;

/// One task's record at one moment.
#[derive(Debug, Clone, PartialEq)]
pub struct View {
    pub record: Box<Record>,
    /// The executor lives and holds the record.
    pub owned: bool,
    /// A write to the datastore is under way, or was when the owner died.
    pub pending: bool,
    /// Addresses whose return its owner did not hear of.
    pub held: Vec<IpAddr>,
    /// How the task ended, where it has.
    pub ending: Option<Ending>,
}

impl View {
    /// Looks at one file of the journal; none when it has gone or never was a record, and the reason where it cannot
    /// be read.
    pub fn of(path: &Path) -> Result<Option<Result<Self, String>>, JournalError> {
        let (record, owned) = match Journal::peek(path)? {
            None => return Ok(None),
            Some(Peeked::Owned(Some(record))) => (record, true),
            Some(Peeked::Orphan(record)) => (record, false),
            Some(Peeked::Owned(None)) => {
                let why = "another release of calico-mesos holds it, which this one cannot read";
                return Ok(Some(Err(why.to_owned())));
            }
            Some(Peeked::Unreadable { why }) => return Ok(Some(Err(why))),
        };
        let lines = match File::open(path).and_then(|file| text(&file)) {
            Ok(text) => parse(&text),
            // Finished meanwhile.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(JournalError::Read { path: path.into(), source }),
        };
        Ok(Some(lines.map(|parsed| Self {
            record,
            owned,
            pending: parsed.pending.is_some(),
            held: parsed.held.unwrap_or_default(),
            ending: parsed.ending,
        })))
    }
}
