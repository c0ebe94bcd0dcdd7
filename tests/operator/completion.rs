//! Completions and manual pages, as a shell and `man` use them.

use std::process::Command;

use crate::desk::{Desk, Said, PROGRAM};

/// What bash offers at the end of a line.
fn offered(desk: &Desk, line: &[&str]) -> Vec<String> {
    let mut command = Command::new(PROGRAM);
    command.env_clear().env("CALICO_MESOS_COMPLETE", "bash").env("_CLAP_IFS", "\n");
    command.env("_CLAP_COMPLETE_INDEX", (line.len() + 2).to_string());
    let config = desk.config();
    command.args(["--", "calico-mesos", "--config"]).arg(config).args(line);
    let said = Said::of(command.output().unwrap());
    assert_eq!((said.code, said.stderr.as_str()), (0, ""), "{line:?}: {said:?}");
    said.stdout.lines().map(|word| word.trim().to_owned()).collect()
}

#[tokio::test]
async fn names_come_out_of_the_datastore() {
    let mut desk = Desk::new(&["agent-1", "agent-2", "other"], &[]).await;
    assert_eq!(offered(&desk, &["gc", "--decommission", "--node", "ag"]), ["agent-1", "agent-2"]);
    assert!(offered(&desk, &["conf"]).contains(&"config".to_owned()));
    let task = r#"{"metadata":{"name":"agent--1-mesos-w-eth0","annotations":{"mesos.apache.org/task-id":"web.1","mesos.apache.org/app-id":"/web"}},"spec":{"node":"agent-1","orchestrator":"mesos","workload":"w","endpoint":"eth0"}}"#;
    let key = "/calico/resources/v3/projectcalico.org/workloadendpoints/default/agent--1-mesos-w-eth0";
    desk.world.put(key, task).await;
    for verb in ["show", "exec", "logs"] {
        assert_eq!(offered(&desk, &["task", verb, "we"]), ["web.1"]);
    }
    desk.done("profile add dev");
    desk.done("profile add web");
    assert_eq!(offered(&desk, &["profile", "remove", "d"]), ["dev"]);
    assert_eq!(offered(&desk, &["endpoint", "show", "--host", "o"]), ["other"]);
    // A datastore that is away completes nothing, and says nothing on the user's line.
    std::fs::write(desk.config(), "[etcd]\nendpoints = [\"http://127.0.0.1:1\"]\n").unwrap();
    assert_eq!(offered(&desk, &["gc", "--node", "ag"]), Vec::<String>::new());
}

#[tokio::test]
async fn scripts_and_pages_are_for_the_program_itself() {
    let desk = Desk::new(&[], &[]).await;
    for shell in ["bash", "zsh", "fish"] {
        let script = desk.done(&format!("completion {shell}"));
        assert!(script.contains("CALICO_MESOS_COMPLETE") && script.contains("calico-mesos"), "{script}");
    }
    // The shell takes the script as it is.
    let script = desk.dir().join("completion.bash");
    std::fs::write(&script, desk.done("completion bash")).unwrap();
    let status =
        Command::new("bash").args(["-e", "-c", ". \"$0\" && complete -p calico-mesos"]).arg(&script).output();
    assert!(status.unwrap().status.success());
    let pages = desk.dir().join("man");
    desk.done(&format!("man {}", pages.display()));
    for page in ["calico-mesos", "calico-mesos-gc", "calico-mesos-config-check", "calico-mesos-bgppeer-add"] {
        let text = std::fs::read_to_string(pages.join(format!("{page}.1"))).unwrap();
        assert!(text.contains(".SH NAME") && text.contains(".SH SYNOPSIS"), "{page}: {text}");
    }
    std::fs::write(desk.dir().join("file"), "").unwrap();
    let refused = desk.refused(&format!("man {}/file", desk.dir().display()));
    assert!(refused.contains("cannot write the manual pages to"), "{refused}");
}
