//! What the verbs that change something share: their flags, the audit trail, and what they print.
//!
//! For people a verb prints its own sentences. For programs all verbs print one document:
//!
//! ```text
//!  {"changed": true, "dry_run": false,
//!   "objects": [{"object": "Profile dev", "name": "dev", "changed": true, "before": null, "after": {…}}]}
//! ```

use std::process::ExitCode;

use clap::Args;
use serde_json::{json, Value};

use crate::calico::{Edited, Made};
use crate::task::report::audit;

use super::output::{Format, Output};
use super::session::Session;

/// Exit code of a dry run that found something to do.
const FOUND: u8 = 3;

/// The flags of every verb that changes or removes something.
#[derive(Debug, Clone, Copy, Default, Args)]
pub struct ChangeFlags {
    /// Only print what would be changed; exit code 3 when there is something to change
    #[arg(long)]
    pub dry_run: bool,
    #[command(flatten)]
    output: Output,
}

/// One object that a verb has looked at in order to change it.
#[derive(Debug, Clone)]
pub struct ChangedObject {
    /// Its kind and name, such as `Profile dev`.
    object: String,
    name: String,
    /// As it was and as it is, or would be in a dry run.
    edited: Edited,
}

impl ChangedObject {
    /// A resource of Calico, or what else has a kind and a name.
    pub fn of(kind: &str, name: &str, edited: Edited) -> Self {
        Self { object: format!("{kind} {name}"), name: name.to_owned(), edited }
    }

    /// A file or a service of this host.
    pub fn on_host(name: &str, before: Option<Value>, after: Option<Value>) -> Self {
        Self { object: name.to_owned(), name: name.to_owned(), edited: Edited { before, after } }
    }
}

impl From<Made> for ChangedObject {
    fn from(made: Made) -> Self {
        Self { object: made.object, name: made.name, edited: made.edited }
    }
}

impl ChangeFlags {
    /// How the settings are printed where a verb only shows them.
    pub fn format(self) -> Format {
        self.output.output
    }

    /// The exit code of a command that has changed something, or would have.
    pub fn exit_code(self, changes: bool) -> ExitCode {
        match self.dry_run && changes {
            true => ExitCode::from(FOUND),
            false => ExitCode::SUCCESS,
        }
    }
}

impl Session {
    /// Notes the changes in the audit trail: who, by which command, from what to what. Then prints the sentences, or
    /// the document in the form that the flags name. Nothing is noted where nothing changed, or in a dry run.
    pub fn report(&self, flags: ChangeFlags, objects: &[ChangedObject], sentences: &[String]) -> ExitCode {
        for changed in objects.iter().filter(|changed| changed.edited.is_change() && !flags.dry_run) {
            self.note(changed);
        }
        let any = objects.iter().any(|changed| changed.edited.is_change());
        match flags.format() {
            Format::Table | Format::Wide => sentences.iter().for_each(|sentence| self.out.line(sentence)),
            Format::Name => objects.iter().for_each(|changed| self.out.line(&changed.name)),
            format => self.out.value(format, &document(objects, any, flags.dry_run)),
        }
        flags.exit_code(any)
    }

    fn note(&self, changed: &ChangedObject) {
        let object = &changed.object;
        if !nix::unistd::geteuid().is_root() {
            tracing::warn!("this change of {object} is not in the audit trail, which root alone can write");
        }
        audit::changed(&self.config, object, changed.edited.before.as_ref(), changed.edited.after.as_ref());
    }
}

fn document(objects: &[ChangedObject], any: bool, dry_run: bool) -> Value {
    let object = |changed: &ChangedObject| {
        json!({
            "object": changed.object, "name": changed.name, "changed": changed.edited.is_change(),
            "before": changed.edited.before, "after": changed.edited.after,
        })
    };
    json!({
        "changed": any, "dry_run": dry_run, "objects": objects.iter().map(object).collect::<Vec<_>>(),
    })
}
