//! `config show` and `config check`: where each value comes from, and every mistake with its line.

use std::process::Command;

use crate::machine::{plain, App};

const PROGRAM: &str = env!("CARGO_BIN_EXE_calico-mesos");

/// Runs the program with these variables and no others of a datastore.
fn shell(arguments: &[&str], variables: &[(&str, &str)]) -> (i32, String, String) {
    let mut command = Command::new(PROGRAM);
    command.args(arguments).env_clear().envs(variables.iter().copied());
    let output = command.output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    (output.status.code().unwrap(), text(&output.stdout), text(&output.stderr))
}

#[test]
fn show_names_the_origin_of_each_value() {
    let file = App::new("[policy]\nwait = \"required\"\n");
    let arguments = ["config", "show", "--config", &file.path, "-o", "json"];
    let (code, stdout, stderr) = shell(&arguments, &[("ETCD_ENDPOINTS", "http://10.1.2.3:2379")]);
    assert_eq!((code, &*stderr), (0, ""), "{stdout}");
    let settings: serde_json::Value = serde_json::from_str(&stdout).unwrap();
    let find = |key: &str| {
        settings.as_array().unwrap().iter().find(|setting| setting["key"] == key).unwrap().clone()
    };
    assert_eq!(find("etcd.endpoints")["value"], serde_json::json!(["http://10.1.2.3:2379"]));
    assert_eq!(find("etcd.endpoints")["origin"], "ETCD_ENDPOINTS of the environment");
    assert_eq!(find("policy.wait")["origin"], format!("{}:2", file.path));
    assert_eq!(find("gc.grace")["origin"], "default");
    let (_, table, _) = shell(&["config", "show", "--config", &file.path], &[]);
    let line = table.lines().find(|line| line.starts_with("policy.wait ")).unwrap();
    assert!(line.contains("required") && line.ends_with(":2"), "{line}");
    let (_, yaml, _) = shell(&["config", "show", "--config", &file.path, "-o", "yaml"], &[]);
    assert!(yaml.starts_with("- key: etcd.endpoints\n"), "{yaml}");
}

#[test]
fn check_lists_every_mistake() {
    let file = App::new("[etcd]\nendpoint = \"x\"\n[polcy]\n");
    let outcome = plain(&["config", "check", "--config", &file.path]);
    assert_eq!(outcome.code, 1, "{outcome:?}");
    for words in ["did you mean 'endpoints'?", "did you mean 'policy'?", "2 mistakes in "] {
        assert!(outcome.stdout.contains(words), "{outcome:?}");
    }
    let good = App::new("[policy]\nwait = \"off\"\n");
    let outcome = plain(&["config", "check", "--config", &good.path]);
    assert_eq!((outcome.code, outcome.stdout.contains("no mistakes")), (0, true), "{outcome:?}");
    let (code, stdout, _) =
        shell(&["config", "check", "--config", &good.path], &[("DATASTORE_TYPE", "kubernetes")]);
    assert_eq!((code, stdout.contains("etcdv3 alone")), (1, true), "{stdout}");
}
