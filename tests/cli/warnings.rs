//! What the code below the verbs warns of: one line each on standard error, whatever the verb prints.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use crate::machine::{plain, private_config, App, Machine, PROGRAM};
use crate::node::Host;

#[test]
fn a_warning_of_gc_reaches_standard_error_once() {
    let dir = tempfile::tempdir().unwrap();
    let config = private_config(dir.path());
    let figures = dir.path().join("figures.prom");
    // Nothing listens there: no figures of the pools.
    let text = fs::read_to_string(&config).unwrap();
    let more = format!("[metrics]\ntextfile = {figures:?}\n[etcd]\nendpoints = [\"http://127.0.0.1:1\"]\n");
    fs::write(&config, text + &more).unwrap();
    for form in ["table", "json"] {
        let outcome = plain(&["gc", "-o", form, "--config", config.to_str().unwrap()]);
        let words = "calico-mesos: warning: no figures of the pools: ";
        assert!(outcome.stderr.starts_with(words), "{outcome:?}");
        assert_eq!(outcome.stderr.lines().count(), 1, "{outcome:?}");
        assert!(!outcome.stdout.contains("figures"), "{outcome:?}");
        assert!(figures.exists());
    }
}

#[test]
fn a_warning_of_node_install_reaches_standard_error_once() {
    let host = Host::new();
    let config = host.path("config.toml");
    fs::write(&config, "[docker]\nhost = \"unix:///run/other.sock\"\n").unwrap();
    fs::set_permissions(&config, fs::Permissions::from_mode(0o666)).unwrap();
    let outcome = host.install(&[]);
    let words = format!("calico-mesos: warning: the configuration {} is ignored: ", config.display());
    assert!(outcome.code == 0 && outcome.stderr.starts_with(&words), "{outcome:?}");
    assert_eq!(outcome.stderr.lines().count(), 1, "{outcome:?}");
    assert!(!outcome.stdout.contains("ignored") && !outcome.stdout.contains("other.sock"), "{outcome:?}");
}

/// The executor says something to its agent that no executor says, and then goes on as any other.
#[test]
fn a_warning_of_run_reaches_standard_error_once() {
    let dir = tempfile::tempdir().unwrap();
    let executor = dir.path().join("executor");
    let peer = "x(1)@127.0.0.1:1";
    let script = format!(
        "#!/bin/sh\n\
         curl -s -X POST -H 'User-Agent: libprocess/{peer}' -H 'Libprocess-From: {peer}' \\\n\
         \"http://$MESOS_AGENT_ENDPOINT/slave(1)/mesos.internal.Nonsense\"\n\
         exec {} \"$@\"\n",
        PROGRAM.replace("calico-mesos", "calico-executor")
    );
    fs::write(&executor, script).unwrap();
    fs::set_permissions(&executor, fs::Permissions::from_mode(0o755)).unwrap();
    let app = App::new(&format!(
        r#"{{"id": "hello", "cpus": 0.1, "mem": 32, "cmd": "true", "executor": {executor:?}, "user": "root"}}"#
    ));
    let outcome = Machine::start(&["run", &app.path, "--dev"]).finish();
    outcome.expect(0);
    let words = format!("the embedded agent: unknown message mesos.internal.Nonsense from {peer}");
    assert_eq!(outcome.stderr, format!("calico-mesos: warning: {words}\n"), "{outcome:?}");
    assert!(!outcome.stdout.contains("Nonsense"), "{outcome:?}");
}
