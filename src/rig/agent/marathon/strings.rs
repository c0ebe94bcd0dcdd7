//! What no program can be started with: a variable or an argument that the kernel does not take.

use super::environment;
use super::model::{App, AppCommand, AppInstance};
use super::AppError;
use crate::host::processes::MAX_STRING;

/// Refuses the app before anything is made: its executor, which gets the variables too, could not be started.
pub(super) fn check(app: &App) -> Result<(), AppError> {
    for (name, value) in environment::variables(app, &AppInstance::new("localhost", Vec::new()), &[]) {
        // Together with the equals sign.
        fits(&format!("env.{name}"), name.len() + 1 + value.len())?;
    }
    match &app.command {
        AppCommand::Shell(line) => fits("cmd", line.len()),
        AppCommand::Arguments(words) => words.iter().try_for_each(|word| fits("args", word.len())),
    }
}

fn fits(field: &str, bytes: usize) -> Result<(), AppError> {
    match bytes < MAX_STRING {
        true => Ok(()),
        false => Err(AppError::field(
            field,
            format!(
                "has {bytes} bytes, with its name where it has one; the kernel takes less than {MAX_STRING}"
            ),
        )),
    }
}
