//! `profile NAME tag …`: the labels that a profile gives its endpoints, by the names that rules use.

use std::process::ExitCode;

use clap::{Args, Subcommand};

use crate::cli::change::ChangeFlags;
use crate::cli::output::{Listing, Output, Row};
use crate::cli::session::Session;
use crate::cli::Failed;

#[derive(Debug, Subcommand)]
pub enum TagVerb {
    /// List the tags of the profile.
    Show(Output),
    /// Let the profile's endpoints match rules with `tag TAG`, too.
    Add(TagArguments),
    /// Take the tag from the profile's endpoints.
    Remove(TagArguments),
}

#[derive(Debug, Args)]
pub struct TagArguments {
    /// The name of a profile whose label it is, or a new name
    tag: String,
    #[command(flatten)]
    flags: ChangeFlags,
}

/// Runs one of the verbs.
pub async fn tag(name: &str, verb: &TagVerb, session: &Session) -> Result<ExitCode, Failed> {
    let mut datastore = session.datastore().await?;
    let (arguments, edited, words) = match verb {
        TagVerb::Show(output) => {
            let profiles = datastore.profiles().await?;
            session.warn_of(&profiles.damaged);
            let row = |tag: String| Row {
                cells: vec![tag.clone()],
                json: tag.as_str().into(),
                name: tag,
                ..Row::default()
            };
            let rows = profiles.tags_of(profiles.named(name)?).into_iter().map(row).collect();
            Listing { rows, ..Listing::framed(&["Tag"]) }.print(output.output, &session.out);
            return Ok(ExitCode::SUCCESS);
        }
        TagVerb::Add(arguments) => {
            let edited = datastore.add_tag(name, &arguments.tag, arguments.flags.dry_run).await?;
            (arguments, edited, ["Added", "Would add", "to"])
        }
        TagVerb::Remove(arguments) => {
            let edited = datastore.remove_tag(name, &arguments.tag, arguments.flags.dry_run).await?;
            (arguments, edited, ["Removed", "Would remove", "from"])
        }
    };
    let (tag, flags) = (&arguments.tag, arguments.flags);
    let [done, would, preposition] = words;
    let sentence = match (edited.is_change(), flags.dry_run) {
        (false, _) => format!("Profile {name} has the tag {tag} already."),
        (true, false) => format!("{done} tag {tag} {preposition} profile {name}"),
        (true, true) => format!("{would} tag {tag} {preposition} profile {name}"),
    };
    Ok(super::report(name, edited, flags, sentence, session))
}
