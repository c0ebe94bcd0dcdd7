//! The file's text becomes a configuration, or one sentence that says all that is wrong with it.

use super::*;

fn load(text: &str) -> Result<Config, ConfigError> {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), text).unwrap();
    Config::load(file.path())
}

#[test]
fn an_empty_file_gives_the_defaults() {
    assert_eq!(load("").unwrap(), Config::default());
}

#[test]
fn durations_and_enums_are_read() {
    let config =
        load("[launch]\nretry_for = \"2m\"\n[policy]\nwait = \"best-effort\"\n[node]\ndataplane = \"local\"")
            .unwrap();
    assert_eq!(config.launch.retry_for, Duration::from_secs(120));
    assert_eq!(config.node.dataplane, Dataplane::Local);
}

#[test]
fn every_problem_is_reported_at_once() {
    let error =
        load("[etcd]\nendpoints = [\"localhost:2379\"]\nusername = \"x\"\n[node]\nmtu = 1").unwrap_err();
    let text = crate::error::chain(&error);
    assert!(
        text.contains("localhost:2379") && text.contains("password_file") && text.contains("mtu"),
        "{text}"
    );
}

#[test]
fn a_misspelt_name_is_refused() {
    let error = load("[ectd]\n").unwrap_err();
    assert!(crate::error::chain(&error).contains("ectd"));
}

#[test]
fn docker_host_survives_a_broken_file() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "[docker]\nhost = \"unix:///x\"\n[nonsense]\na = 1").unwrap();
    assert!(Config::load(file.path()).is_err());
    assert_eq!(Config::docker_only(file.path()).host.as_deref(), Some("unix:///x"));
}

#[test]
fn a_secret_in_the_wrong_place_is_not_printed() {
    for text in [
        "[etcd]\npassword = \"hunter2\"",
        "[etcd]\nendpoints = \"http://u:hunter2@h\"",
        "[etcd]\nendpoints = [\"http://u:hunter2@h:1\"]",
        "[etcd]\nendpoints = [\"u:hunter2@h:1\"]",
        "[etcd]\nusername = \"x\"\npassword_file = \"hunter2\"",
        "[consul]\ntoken_file = \"hunter2\"",
        "[consul]\naddress = \"http://u:hunter2@h\"",
        "[consul]\nenabled = \"hunter2\"",
        "hunter2",
    ] {
        let told = crate::error::chain(&load(text).unwrap_err());
        assert!(!told.contains("hunter2"), "{told}");
    }
    let config: Config = toml::from_str("[etcd]\nusername = \"hunter2\"").unwrap();
    assert!(!format!("{config:?}").contains("hunter2"));
}

#[test]
fn mistakes_are_reported_with_their_line() {
    let told = crate::error::chain(&load("[etcd]\n\nendpoints = \"x\"").unwrap_err());
    assert!(told.ends_with("line 3: invalid type: string, expected a sequence"), "{told}");
}

#[test]
fn all_mistakes_have_their_lines_and_unknown_names_the_nearest_one() {
    let text = "[etcd]\nendpoint = [\"x\"]\n\n[polcy]\nwait = \"off\"\n[policy]\nwait = \"sometimes\"\ntimeout = 3\n[xyzzy]\n";
    let error = load(text).unwrap_err();
    let problems: Vec<String> = error.problems().iter().map(ToString::to_string).collect();
    let expected = [
        "line 2: 'endpoint' is not a key of [etcd]; did you mean 'endpoints'?",
        "line 4: 'polcy' is not a section; did you mean 'policy'?",
        "line 7: unknown variant `sometimes`, expected one of `best-effort`, `required`, `off`",
        "line 8: invalid type: integer `3`, expected a string",
        "line 9: 'xyzzy' is not a section",
    ];
    assert_eq!(problems, expected);
    let error = load("[node]\nmtu = 1\n\n[paths]\nrun = \"run\"\n").unwrap_err();
    let problems: Vec<String> = error.problems().iter().map(ToString::to_string).collect();
    assert_eq!(
        problems,
        ["line 5: paths.run must be an absolute path", "line 2: node.mtu: 1 is not between 576 and 65535"]
    );
}

#[test]
fn a_configuration_that_is_written_reads_back() {
    let mut written = serde_json::to_value(Config::default()).unwrap();
    for keys in written.as_object_mut().unwrap().values_mut().filter_map(serde_json::Value::as_object_mut) {
        keys.retain(|_, value| !value.is_null());
    }
    assert_eq!(serde_json::from_value::<Config>(written).unwrap(), Config::default());
}

#[test]
fn a_path_that_would_lead_into_a_sandbox_is_refused() {
    let told = load("[paths]\nrun = \"run\"\n[etcd]\nca_file = \"ca.pem\"\n[runtime]\npath = \"bin/runc\"");
    let told = told.unwrap_err().to_string();
    assert!(["paths.run", "etcd.ca_file", "runtime.path"].iter().all(|name| told.contains(name)), "{told}");
    assert!(load("[runtime]\npath = \"crun\"").is_ok());
}

#[test]
fn a_file_that_others_can_write_is_refused() {
    use std::os::unix::fs::PermissionsExt;
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "[docker]\nhost = \"unix:///evil\"").unwrap();
    std::fs::set_permissions(file.path(), std::fs::Permissions::from_mode(0o666)).unwrap();
    assert!(matches!(Config::load(file.path()), Err(ConfigError::Unsafe(_))));
    assert_eq!(Config::docker_only(file.path()), Docker::default());
}

proptest::proptest! {
    #[test]
    fn any_text_is_read_or_refused_with_one_sentence(text in "(?s).{0,60}|(\\[(etcd|consul|docker|paths|limits)\\]\n[a-z_]{0,12} = (\"[a-z:/@.]{0,12}\"|\\[\\]|true|-1)\n){0,3}") {
        if let Err(error) = load(&text) {
            let told = crate::error::chain(&error);
            proptest::prop_assert!(!told.contains('\n'), "{}", told);
        }
    }
}
