//! What the real dockerd answers to what it refuses, and the failure that becomes of it: Docker gives its reasons in
//! prose, which decides who is to blame.

use std::sync::atomic::{AtomicBool, Ordering};

use calico_mesos::error::{Blame, Code, Failure};
use calico_mesos::workload::{ContainerSpec, Docker};

use crate::daemon::{own_daemon, own_dir, run, shared, shell, unique};
use crate::kit::wait::eventually;

/// The failure of a container that must not come to life.
async fn refused(docker: &Docker, spec: ContainerSpec) -> Failure {
    match run(docker, &spec).await {
        Ok(ran) => panic!("it ran, with status {}: {}{}", ran.exit.code, ran.stdout, ran.stderr),
        Err(error) => error.failure(),
    }
}

fn entrypoint(word: &str) -> ContainerSpec {
    ContainerSpec { entrypoint: Some(vec![word.into()]), ..shell("true") }
}

#[tokio::test]
async fn a_wrong_image_is_the_apps_fault() {
    let daemon = shared();
    let docker = daemon.connect().await;
    for image in ["localhost:1/none:1", "UPPER CASE"] {
        let failure = refused(&docker, ContainerSpec { image: image.into(), ..shell("true") }).await;
        assert_eq!((failure.code, failure.blame()), (Code::Image, Blame::App), "{failure}");
        assert!(failure.message.contains(image), "{failure}");
    }
}

#[tokio::test]
async fn a_command_that_cannot_run_is_the_apps_fault() {
    let daemon = shared();
    let docker = daemon.connect().await;
    let bind = |spec: ContainerSpec, bind: &str| ContainerSpec { binds: vec![bind.into()], ..spec };
    for (spec, words) in [
        (entrypoint("nope"), "exec: \"nope\": executable file not found in $PATH"),
        (entrypoint("/nope"), "no such file or directory"),
        (entrypoint("/tmp"), "permission denied"),
        (bind(entrypoint("/passwd"), "/etc/passwd:/passwd:ro"), "permission denied"),
    ] {
        let failure = refused(&docker, spec).await;
        assert_eq!((failure.code, failure.blame()), (Code::Command, Blame::App), "{failure}");
        assert!(failure.message.ends_with(words), "no '{words}' at the end of: {failure}");
    }
}

#[tokio::test]
async fn a_runtime_that_docker_does_not_have_is_the_hosts_fault_only_for_ours() {
    let daemon = shared();
    let docker = daemon.connect().await;
    let with = |runtime: &str| ContainerSpec { runtime: Some(runtime.into()), ..shell("true") };
    let ours = refused(&docker, with("calico")).await;
    assert_eq!((ours.code, ours.blame()), (Code::Runtime, Blame::Host), "{ours}");
    assert!(ours.message.contains("'calico'") && ours.message.contains("install-runtime"), "{ours}");
    let other = refused(&docker, with("nowhere")).await;
    assert_eq!((other.code, other.blame()), (Code::DockerRefused, Blame::App), "{other}");
    assert!(other.message.contains("'nowhere'") && !other.message.contains("install-runtime"), "{other}");
}

#[tokio::test]
async fn what_docker_refuses_of_a_definition_is_the_apps_fault() {
    let daemon = shared();
    let docker = daemon.connect().await;
    let nothing = ContainerSpec { command: None, ..entrypoint("") };
    for (spec, words) in [
        (ContainerSpec { cap_add: vec!["NONSENSE".into()], ..shell("true") }, &["NONSENSE"][..]),
        // In its words are "not a directory" and a path of the host: not a missing command.
        (ContainerSpec { binds: vec!["/etc/passwd:/tmp".into()], ..shell("true") }, &["mount", "directory"]),
        (nothing, &["No command specified"]),
        (ContainerSpec { network: "nowhere".into(), ..shell("true") }, &["nowhere", "not found"]),
    ] {
        let failure = refused(&docker, spec).await;
        assert_eq!((failure.code, failure.blame()), (Code::DockerRefused, Blame::App), "{failure}");
        for word in words {
            assert!(failure.message.to_lowercase().contains(&word.to_lowercase()), "no '{word}': {failure}");
        }
    }
}

#[tokio::test]
async fn a_name_that_another_container_has_is_the_hosts_fault() {
    let daemon = shared();
    let docker = daemon.connect().await;
    let name = unique("mesos");
    let id = docker.create(&name, &shell("true")).await.unwrap();
    let failure = docker.create(&name, &shell("true")).await.unwrap_err().failure();
    assert_eq!((failure.code, failure.blame()), (Code::Name, Blame::Host));
    assert!(failure.message.contains(&name));
    docker.remove(&id, true).await.unwrap();
}

/// The agent removes the containers of ended tasks, perhaps at the same moment: Docker answers one of the two with a
/// conflict, which is no failure. Another conflict is one.
#[tokio::test]
async fn a_removal_that_is_under_way_is_no_failure() {
    let dir = own_dir();
    let mut daemon = own_daemon(dir.path()).await;
    let host = calico_mesos::workload::DockerHost::parse(&daemon.host()).unwrap();
    let docker = Docker::connect(&host, "").await.unwrap();
    let conflicted = AtomicBool::new(false);
    let raw = async |id: &str| {
        let answer = daemon.request("DELETE", &format!("/containers/{id}?force=1"), b"").await.unwrap();
        if answer.0 == 409 {
            assert!(answer.1.contains("in progress"), "{answer:?}");
            conflicted.store(true, Ordering::Relaxed);
        }
    };
    eventually("two removals of one container meet", async || {
        let id = docker.create(&unique("mesos"), &shell("sleep 1000")).await.unwrap();
        docker.start(&id, calico_mesos::limits::START_WITHOUT_GATE).await.unwrap();
        let ours = async || docker.remove(&id, true).await.unwrap();
        tokio::join!(raw(&id), ours(), raw(&id), ours(), raw(&id), ours());
        conflicted.load(Ordering::Relaxed)
    })
    .await;
    let id = docker.create(&unique("mesos"), &shell("sleep 1000")).await.unwrap();
    docker.start(&id, calico_mesos::limits::START_WITHOUT_GATE).await.unwrap();
    let failure = docker.remove(&id, false).await.unwrap_err().failure();
    assert_eq!(failure.code, Code::Docker, "{failure}");
    assert!(failure.message.contains("running"), "{failure}");
    docker.remove(&id, true).await.unwrap();
    daemon.stop().await;
}
