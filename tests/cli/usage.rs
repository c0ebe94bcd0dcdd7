//! Command lines, app definitions and configurations that make no sense, and verbs with nothing to do.

use std::fs;

use calico_mesos::calico::Identity;
use calico_mesos::names::ContainerId;
use calico_mesos::task::record::journal::{Backing, Journal, Record};

use crate::machine::{plain, private_config, testapp, App};

#[test]
fn a_senseless_command_line_is_one_line_and_exit_code_64() {
    for arguments in
        [&[][..], &["rnu"], &["run"], &["run", "--instances", "many", "x.json"], &["gc", "--wet-run"]]
    {
        let outcome = plain(arguments);
        assert_eq!((outcome.code, &*outcome.stdout), (64, ""), "{arguments:?}");
        let lines: Vec<&str> = outcome.stderr.lines().collect();
        assert_eq!(lines.len(), 2, "{lines:?}");
        assert!(lines[0].starts_with("calico-mesos: ") && lines[1].contains("--help"), "{lines:?}");
    }
}

#[test]
fn unknown_words_name_the_nearest_ones() {
    for (arguments, words) in [
        (&["profle", "show"][..], "unrecognized subcommand 'profle'; did you mean 'profile'?"),
        (&["pool", "shwo"], "did you mean 'show'?"),
        (&["gc", "--dry-rum"], "did you mean '--dry-run'?"),
        (&["node"], "the verb or an argument is missing"),
    ] {
        let outcome = plain(arguments);
        assert_eq!((outcome.code, &*outcome.stdout), (64, ""), "{arguments:?}");
        assert!(outcome.stderr.contains(words), "{outcome:?}");
        assert_eq!(outcome.stderr.lines().count(), 2, "{outcome:?}");
    }
}

#[test]
fn output_that_is_lost_is_an_error_and_a_closed_reader_is_none() {
    let full = fs::File::options().write(true).open("/dev/full").unwrap();
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_calico-mesos"));
    let output = command.arg("explain").stdout(full).output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert!(stderr.contains("cannot write the output: No space left on device"), "{stderr}");
}

#[test]
fn help_and_version_are_no_errors() {
    for argument in ["--help", "--version"] {
        let outcome = plain(&[argument]);
        assert_eq!((outcome.code, &*outcome.stderr), (0, ""));
        assert!(outcome.stdout.contains("alico-mesos") || outcome.stdout.contains("Calico"), "{outcome:?}");
    }
}

#[test]
fn a_bad_app_definition_is_refused_by_the_name_of_the_field() {
    let good = r#""container": {"type": "DOCKER", "docker": {"image": "busybox"}}"#;
    for (text, field) in [
        (format!(r#"{{"id": "x", "cpus": "many", {good}}}"#), "cpus"),
        (format!(r#"{{"id": "No Good", {good}}}"#), "id"),
        (r#"{"id": "x", "container": {"type": "DOCKER", "docker": {}}}"#.to_owned(), "image"),
        (r#"{"id": "x""#.to_owned(), "JSON"),
        (format!(r#"{{"id": "x", "instances": 0, {good}}}"#), "--instances"),
    ] {
        let app = App::new(&text);
        let outcome = plain(&["run", &app.path, "--dev"]);
        assert_eq!(outcome.code, 1, "{outcome:?}");
        assert_eq!(outcome.stderr.lines().count(), 1, "{outcome:?}");
        assert!(outcome.stderr.contains(field), "{outcome:?}");
    }
    let outcome = plain(&["run", "/nowhere/app.json", "--dev"]);
    assert!(outcome.code == 1 && outcome.stderr.contains("/nowhere/app.json"), "{outcome:?}");
}

#[test]
fn an_executor_that_cannot_be_used_is_told_before_anything_starts() {
    let app = App::new(r#"{"id": "x", "cmd": "sleep 1000"}"#);
    let refused = |app: &str, arguments: &[&str], words: &[&str]| {
        let outcome = plain(&[&["run", app], arguments].concat());
        assert_eq!((outcome.code, &*outcome.stdout), (1, ""), "{outcome:?}");
        assert_eq!(outcome.stderr.lines().count(), 1, "{outcome:?}");
        assert!(words.iter().all(|word| outcome.stderr.contains(word)), "{outcome:?}");
    };
    // In --dev only our own executor has a stand-in.
    refused(&app.path, &["--dev", "--executor", "/nowhere/executor"], &["/nowhere/executor is not on"]);
    refused(&app.path, &["--executor", "/nowhere/calico-executor"], &["/nowhere/calico-executor is not on"]);
    refused(&app.path, &["--dev", "--executor", "/tmp"], &["/tmp is not a file"]);
    refused(&app.path, &["--dev", "--executor", "./calico-executor"], &["not an absolute path"]);
    // A Docker app: by either remedy it can be run.
    let remedies = ["leave container out", "CALICO_DOCKER_IMAGE", "--executor) out", "mesos-docker-executor"];
    refused(&testapp(), &["--dev", "--executor", "/usr/local/bin/calico-executor"], &remedies);
    let volumes =
        r#"{"id": "x", "cmd": "y", "executor": "/z", "container": {"type": "MESOS", "volumes": []}}"#;
    refused(&App::new(volumes).path, &["--dev"], &["container of type MESOS", "CALICO_DOCKER_IMAGE"]);
}

#[test]
fn a_broken_configuration_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("config.toml");
    fs::write(&config, "[ectd]\n").unwrap();
    for verb in [&["gc"][..], &["run", &testapp()]] {
        let outcome = plain(&[verb, &["--config", config.to_str().unwrap()]].concat());
        assert!(outcome.code == 1 && outcome.stderr.contains("ectd"), "{outcome:?}");
    }
}

/// What cannot be looked at is told, and is no success.
#[test]
fn gc_where_nobody_can_be_asked() {
    let dir = tempfile::tempdir().unwrap();
    let config = private_config(dir.path());
    let config = config.to_str().unwrap();
    for arguments in [&["gc"][..], &["gc", "--dry-run"]] {
        let outcome = plain(&[arguments, &["--config", config]].concat());
        assert_eq!(outcome.code, 1, "{outcome:?}");
        assert!(outcome.stdout.contains("nothing to clean up"), "{outcome:?}");
        assert!(outcome.stdout.contains("cannot query Calico"), "{outcome:?}");
    }
    let outcome = plain(&["gc", "-o", "json", "--grace", "2m", "--config", config]);
    let json: serde_json::Value = serde_json::from_str(&outcome.stdout).unwrap();
    assert_eq!((&json["busy"], &json["items"]), (&false.into(), &serde_json::json!([])), "{json}");
    assert_eq!(json["grace_seconds"], 120);
    assert!(!dir.path().join("state/tasks").exists(), "looking made the journal");
}

#[test]
fn a_dry_run_names_orphans_and_leaves_them() {
    let dir = tempfile::tempdir().unwrap();
    let config = private_config(dir.path());
    let journal = Journal::open(&dir.path().join("state/tasks")).unwrap();
    // Its owner lets go of it at once.
    drop(journal.begin(orphan()).unwrap());
    fs::write(dir.path().join("state/tasks/newer.json"), "{\"format\": 99}").unwrap();

    let outcome = plain(&["gc", "--dry-run", "--config", config.to_str().unwrap()]);
    assert!(outcome.stdout.contains("web."), "{outcome:?}");
    assert!(outcome.stdout.contains("has given it up, no container"), "{outcome:?}");
    assert!(outcome.stdout.contains("newer.json"), "{outcome:?}");
    assert!(outcome.stdout.contains("1 to remove, 1 unknown. Nothing was changed"), "{outcome:?}");
    assert_eq!(journal.len(), 2);
}

#[test]
fn a_node_is_given_up_by_name_and_on_purpose() {
    for wrong in [&["gc", "--node", "x"][..], &["gc", "--decommission"], &["gc", "--yes"]] {
        assert_eq!(plain(wrong).code, 64, "{wrong:?}");
    }
}

fn orphan() -> Record {
    let container = ContainerId::random();
    let identity = Identity::new("agent-1", &container, "/web", "web.instance-1._app.1");
    Record {
        backing: Backing::Container {
            docker: "unix:///nowhere/docker.sock".into(),
            name: format!("mesos-{container}"),
            adopted: false,
        },
        framework: "fw-0".into(),
        ..Record::new(container, identity)
    }
}
