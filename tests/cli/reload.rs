//! `--reload`: which of this machine's Docker daemons gets the signal.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use calico_mesos::cli::runtime::{install, uninstall, InstallArgs, UninstallArgs};

use crate::kit::wait;

const RUNTIME: &str = env!("CARGO_BIN_EXE_calico-runc");

/// A shell under dockerd's name that waits for its input, in a mount namespace of its own where `folder` is another
/// one. SIGHUP would end it.
fn daemon_elsewhere(folder: &Path, daemon_json: &Path) -> Child {
    let script = r#"mount -t tmpfs none "$1" && echo '{}' > "$2" && echo ready && exec -a dockerd bash -c 'read line; :' dockerd --config-file "$2""#;
    let mut daemon = Command::new("unshare")
        .args(["--mount", "bash", "-c", script, "bash"])
        .args([folder, daemon_json])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(daemon.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line, "ready\n");
    let line = || fs::read_to_string(format!("/proc/{}/cmdline", daemon.id())).unwrap();
    wait::blocking(wait::LIMIT, "it bears dockerd's name", || line().starts_with("dockerd\0"));
    daemon
}

#[test]
fn only_a_daemon_that_reads_the_file_is_signalled() {
    let folder = tempfile::tempdir().unwrap();
    let daemon_json = folder.path().join("daemon.json");
    // Where no daemon.json is yet, and where there is one.
    for before in [None, Some("{}")] {
        match before {
            Some(text) => fs::write(&daemon_json, text).unwrap(),
            None => {
                let _ = fs::remove_file(&daemon_json);
            }
        }
        let mut other = daemon_elsewhere(folder.path(), &daemon_json);
        let args = InstallArgs {
            daemon_json: daemon_json.clone(),
            runtime: Some(RUNTIME.into()),
            reload: true,
            dry_run: false,
        };
        let done = install(&args).unwrap();
        assert!(done.changed && done.reloaded.is_empty(), "{done:?}");
        let told = done.sentences.join("\n");
        let wanted =
            format!("dockerd (pid {}) is not signalled: it runs in another mount namespace", other.id());
        assert!(told.contains(&wanted) && told.contains("no running dockerd reads this file"), "{told}");
        let gone = uninstall(
            &UninstallArgs { daemon_json: daemon_json.clone(), reload: true, dry_run: false },
            || Ok(Vec::new()),
        );
        assert!(gone.as_ref().is_ok_and(|done| done.changed && done.reloaded.is_empty()), "{gone:?}");
        assert_eq!(other.try_wait().unwrap(), None, "it was signalled");
        drop(other.stdin.take());
        assert!(other.wait().unwrap().success());
    }
}
