//! `scripts/go-progress.sh`: builds with Go that show how far they have come.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use crate::machine::root;

/// A Go program in a folder of its own, which no cache holds: its text names the folder.
fn program(body: &str) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("go.mod"), "module example.test/tiny\n\ngo 1.24\n").unwrap();
    let text = format!("// {}\npackage main\n\nfunc main() {{\n\t{body}\n}}\n", dir.path().display());
    fs::write(dir.path().join("main.go"), text).unwrap();
    dir
}

/// `go_build` in a fresh `bash -eu`, in which no other job ran before; what comes after it says so.
fn script(folder: &Path) -> String {
    format!(
        ". '{}'; cd '{}'; go_build -o tiny . 2>err; echo status $? >after",
        root().join("scripts/go-progress.sh").display(),
        folder.display()
    )
}

fn bash(script: &str) -> Output {
    // Nothing is fetched, and the machine's other settings for Go do not count.
    let mut command = Command::new("bash");
    command.args(["-euc", script]).env("GOFLAGS", "-mod=mod").env("GOPROXY", "off").env("GOWORK", "off");
    command.output().unwrap()
}

fn read(folder: &Path, name: &str) -> String {
    fs::read_to_string(folder.join(name)).unwrap_or_default()
}

#[test]
fn a_build_that_succeeds_goes_on_with_the_script() {
    let dir = program(r#"println("it runs")"#);
    let output = bash(&script(dir.path()));
    assert!(output.status.success(), "{output:?}");
    assert_eq!(read(dir.path(), "after"), "status 0\n", "{output:?}");
    let run = Command::new(dir.path().join("tiny")).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&run.stderr), "it runs\n");
}

#[test]
fn a_build_that_fails_ends_the_script_with_the_compilers_words() {
    let dir = program("nothing()");
    let output = bash(&script(dir.path()));
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(!dir.path().join("after").exists() && !dir.path().join("tiny").exists());
    let words = read(dir.path(), "err");
    assert!(words.contains("main.go:5:2: undefined: nothing"), "{words}");

    // A caller that looks at the status gets it.
    let output = bash(&format!("{} || true", script(dir.path()).replace("; echo status", " || echo status")));
    assert!(output.status.success(), "{output:?}");
    assert_eq!(read(dir.path(), "after"), "status 1\n");
}

/// One line that counts, ended before the caller's next words.
#[test]
fn a_terminal_sees_how_far_the_build_has_come() {
    let dir = program(r#"println("it runs")"#);
    let line = format!("{}; echo; echo next", script(dir.path()).replace(" 2>err", ""));
    fs::write(dir.path().join("run.sh"), line).unwrap();
    let run = format!("TOTAL=9 bash -eu '{}/run.sh'", dir.path().display());
    let output = bash(&format!("script -qec \"{run}\" /dev/null </dev/null"));
    let shown = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{output:?}");
    let (progress, rest) = shown.rsplit_once("packages compiled").unwrap_or_else(|| panic!("{shown:?}"));
    assert!(progress.contains("\rgo: 0 modules fetched, 1 of about 9 "), "{shown:?}");
    assert!(rest.starts_with("\r\n") && rest.trim_end().ends_with("next"), "{shown:?}");
}
