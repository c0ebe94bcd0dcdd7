//! The timer that runs the cleaner every half minute, on hosts with systemd.
//!
//! Only files are written and removed: what systemd does with them is the operator's to say, as with the agent. Where
//! the package has brought the units, none are written over them.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use clap::Args;

use crate::config::DEFAULT_PATH;
use crate::error::FileError;
use crate::host::files;

/// Where units that were installed by hand lie; they win over the package's.
pub const FOLDER: &str = "/etc/systemd/system";
/// Where the package's units lie.
pub const PACKAGED: &str = "/lib/systemd/system";
pub const TIMER: &str = "calico-mesos-gc.timer";
pub const SERVICE: &str = "calico-mesos-gc.service";
const UNITS: [(&str, &str); 2] = [
    (SERVICE, include_str!("../../../mesos/calico-mesos-gc.service")),
    (TIMER, include_str!("../../../mesos/calico-mesos-gc.timer")),
];
/// How the shipped unit calls this program.
const COMMAND: &str = "ExecStart=/usr/bin/calico-mesos gc";

#[derive(Debug, Args)]
pub struct TimerArgs {
    /// Where systemd looks for units
    #[arg(long, value_name = "DIR", default_value = FOLDER)]
    units: PathBuf,
    /// Only print what would be changed; exit code 3 when there is something
    #[arg(long)]
    pub dry_run: bool,
}

#[derive(Debug, thiserror::Error)]
pub enum TimerError {
    #[error("cannot find the path of this program")]
    Here(#[source] io::Error),
    #[error(transparent)]
    File(#[from] FileError),
    #[error("{0} was not made by calico-mesos; move it away")]
    Foreign(PathBuf),
}

/// What has changed, or would have.
#[derive(Debug, PartialEq, Eq)]
pub struct Changed {
    pub sentences: Vec<String>,
    pub any: bool,
}

/// Writes the units where they are missing or of another release.
pub fn install(arguments: &TimerArgs, config: &Path) -> Result<Changed, TimerError> {
    let program = std::env::current_exe().map_err(TimerError::Here)?;
    let line = command(&program, config);
    if arguments.units == Path::new(FOLDER) && packaged(Path::new(PACKAGED), &line) && !written(FOLDER) {
        let sentences =
            vec![format!("the package has brought the timer; to start it: systemctl enable --now {TIMER}")];
        return Ok(Changed { sentences, any: false });
    }
    let mut changed = Vec::new();
    for (name, text) in UNITS {
        let path = arguments.units.join(name);
        let wanted = text.replace(COMMAND, &line);
        match ours(&path)? {
            Some(there) if there == wanted => continue,
            _ if arguments.dry_run => {}
            // systemd complains about units that are for root's eyes only: a new file is for everybody's.
            _ => files::replace(&path, |new| new.write_all(wanted.as_bytes()))
                .map_err(FileError::on("write", &path))?,
        }
        changed.push(path);
    }
    let how = format!("systemctl daemon-reload && systemctl enable --now {TIMER}");
    Ok(told(&changed, arguments.dry_run, ("to write", "written"), &how))
}

/// Removes them.
pub fn uninstall(arguments: &TimerArgs) -> Result<Changed, TimerError> {
    let mut changed = Vec::new();
    for (name, _) in UNITS {
        let path = arguments.units.join(name);
        if ours(&path)?.is_none() {
            continue;
        }
        if !arguments.dry_run {
            fs::remove_file(&path).map_err(FileError::on("remove", &path))?;
        }
        changed.push(path);
    }
    let how = format!("systemctl stop {TIMER}; systemctl daemon-reload");
    Ok(told(&changed, arguments.dry_run, ("to remove", "removed"), &how))
}

/// Does the timer lie where systemd looks for it?
pub fn is_installed() -> bool {
    written(FOLDER) || written(PACKAGED)
}

fn written(folder: &str) -> bool {
    Path::new(folder).join(TIMER).exists()
}

/// Has a package brought the units, for the same command?
fn packaged(folder: &Path, line: &str) -> bool {
    fs::read_to_string(folder.join(SERVICE)).is_ok_and(|text| text.contains(&format!("\n{line} ")))
}

fn told(changed: &[PathBuf], dry_run: bool, words: (&str, &str), how: &str) -> Changed {
    let any = !changed.is_empty();
    let mut sentences: Vec<String> = changed
        .iter()
        .map(|path| match dry_run {
            true => format!("{}: {}", words.0, path.display()),
            false => format!("{} is {}", path.display(), words.1),
        })
        .collect();
    sentences.push(match any {
        true => format!("to make systemd read it, run: {how}"),
        false => "the timer is up to date".to_owned(),
    });
    Changed { sentences, any }
}

/// The text of a unit that calls calico-mesos; none when there is no such file.
fn ours(path: &Path) -> Result<Option<String>, TimerError> {
    match fs::read_to_string(path) {
        Ok(text) if text.contains("dead Calico tasks") => Ok(Some(text)),
        Ok(_) => Err(TimerError::Foreign(path.into())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(FileError::on("read", path)(source).into()),
    }
}

fn command(program: &Path, config: &Path) -> String {
    let config = match config == Path::new(DEFAULT_PATH) {
        true => String::new(),
        false => format!(" --config {}", word(config)),
    };
    format!("ExecStart={}{config} gc", word(program))
}

/// As systemd reads a word of a command line.
fn word(path: &Path) -> String {
    let text = path.display().to_string().replace('\\', "\\\\").replace('%', "%%").replace('$', "$$");
    match text.contains([' ', '"', '\'']) {
        true => format!("\"{}\"", text.replace('"', "\\\"")),
        false => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arguments(units: &Path, dry_run: bool) -> TimerArgs {
        TimerArgs { units: units.into(), dry_run }
    }

    #[test]
    fn timer_units_are_installed_and_removed() {
        let folder = tempfile::tempdir().unwrap();
        let config = Path::new("/etc/other config.toml");
        let count = || fs::read_dir(folder.path()).unwrap().count();
        assert!(install(&arguments(folder.path(), true), config).unwrap().any);
        assert_eq!(count(), 0);
        let done = install(&arguments(folder.path(), false), config).unwrap();
        assert!(done.sentences.last().unwrap().contains("systemctl enable --now"), "{done:?}");
        let service = fs::read_to_string(folder.path().join("calico-mesos-gc.service")).unwrap();
        let program = std::env::current_exe().unwrap();
        let line =
            format!("\nExecStart={} --config \"/etc/other config.toml\" gc --quiet\n", program.display());
        assert!(service.contains(&line), "{service}");
        assert!(!install(&arguments(folder.path(), false), config).unwrap().any);
        // Another release, or another configuration.
        assert!(install(&arguments(folder.path(), false), Path::new(DEFAULT_PATH)).unwrap().any);
        assert!(uninstall(&arguments(folder.path(), true)).unwrap().any);
        assert_eq!(count(), 2);
        assert!(uninstall(&arguments(folder.path(), false)).unwrap().any);
        assert!(!uninstall(&arguments(folder.path(), false)).unwrap().any);
        assert_eq!(count(), 0);
    }

    #[test]
    fn the_packages_units_are_known_by_their_command() {
        let folder = tempfile::tempdir().unwrap();
        let line = |program: &str| command(Path::new(program), Path::new(DEFAULT_PATH));
        assert!(!packaged(folder.path(), &line("/usr/bin/calico-mesos")));
        fs::write(folder.path().join(SERVICE), UNITS[0].1).unwrap();
        assert!(packaged(folder.path(), &line("/usr/bin/calico-mesos")));
        assert!(!packaged(folder.path(), &line("/usr/local/bin/calico-mesos")));
        assert!(!packaged(folder.path(), &command(Path::new("/usr/bin/calico-mesos"), Path::new("/x"))));
    }

    #[test]
    fn units_that_others_wrote_stay() {
        let folder = tempfile::tempdir().unwrap();
        let timer = folder.path().join(TIMER);
        fs::write(&timer, "[Timer]\n").unwrap();
        let foreign = |result| matches!(result, Err(TimerError::Foreign(path)) if path == timer);
        assert!(foreign(install(&arguments(folder.path(), false), Path::new(DEFAULT_PATH)).map(drop)));
        assert!(foreign(uninstall(&arguments(folder.path(), false)).map(drop)));
        assert_eq!(fs::read_to_string(&timer).unwrap(), "[Timer]\n");
    }
}
