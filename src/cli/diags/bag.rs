//! What the parts have found: texts, what failed, what is not there, and secrets to leave out of all of it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// No text gets longer, in bytes.
pub const LONGEST: usize = 8 << 20;

/// Filled by all parts at once. What a part has found stays, also where the part is given up.
#[derive(Debug, Clone, Default)]
pub struct Bag(Arc<Mutex<Findings>>);

/// The contents of the archive as it was read.
#[derive(Debug, Default)]
pub struct Findings {
    /// The name in the archive, and the text.
    pub texts: Vec<(String, String)>,
    /// A sentence each.
    pub errors: Vec<String>,
    /// What this host does not have, with the reason.
    pub absent: Vec<String>,
    pub secrets: Vec<String>,
}

impl Bag {
    fn inside(&self) -> MutexGuard<'_, Findings> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn add(&self, name: impl Into<String>, text: impl Into<String>) {
        let mut text = text.into();
        if text.len() > LONGEST {
            let end = (0..=LONGEST).rev().find(|at| text.is_char_boundary(*at)).unwrap_or_default();
            // Not within a line: half of a secret could stand there.
            let end = text[..end].rfind('\n').map_or(0, |at| at + 1);
            text.truncate(end);
            text.push_str("… cut here: the rest is left out\n");
        }
        self.inside().texts.push((name.into(), text));
    }

    /// A text, or why there is none.
    pub fn result(&self, name: &str, text: Result<String, impl std::fmt::Display>) {
        match text {
            Ok(text) => self.add(name, text),
            Err(error) => self.error(name, error),
        }
    }

    pub fn error(&self, name: &str, error: impl std::fmt::Display) {
        let line = error.to_string().split_whitespace().collect::<Vec<_>>().join(" ");
        self.inside().errors.push(format!("{name}: {line}"));
    }

    pub fn absent(&self, name: &str, why: &str) {
        self.inside().absent.push(format!("{name}: {why}"));
    }

    pub fn secrets(&self, values: impl IntoIterator<Item = String>) {
        self.inside().secrets.extend(values);
    }

    /// Everything so far; what comes later from a part that was given up is lost.
    pub fn take(&self) -> Findings {
        std::mem::take(&mut self.inside())
    }
}
