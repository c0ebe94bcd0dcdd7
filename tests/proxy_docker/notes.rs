//! The notes of refused starts: what is started again by the proxy itself, and what is not.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use crate::lab::Lab;

/// A container that has run, is to be restarted always, and was stopped long ago; and where its note would be.
async fn stopped(lab: &Lab, arguments: &[&str]) -> (String, PathBuf) {
    let arguments = [&["--name", "web", "--restart", "always"], arguments, &["busybox", "sleep", "1000"]];
    let id = lab.run(&arguments.concat());
    lab.runs("web").await;
    lab.ok(&["stop", "-t", "0", "web"]);
    lab.given_back().await;
    let note = lab.world.config.paths.refused_start(&id);
    (id, note)
}

/// Long enough for the proxy to start what has a note.
async fn is_not_started_again(lab: &Lab) {
    tokio::time::sleep(Duration::from_secs(4)).await;
    assert_eq!(lab.inspect("web")["State"]["Running"], false, "{}", lab.log());
}

/// Docker answers nothing about a container while its start waits for the network, and keeps a stop waiting as long: the
/// proxy gives the start up.
#[tokio::test]
async fn a_stop_during_prepare_ends_the_start_and_wants_none_afterwards() {
    let mut lab = Lab::new().await;
    let (id, note) = stopped(&lab, &[]).await;
    lab.world.configure("launch.retry_for", "\"100s\"");
    lab.world.stack.etcd.as_mut().unwrap().kill();
    for call in [
        &["stop", "-t", "0", "web"][..],
        &["stop", "-t", "0", &id[..12]],
        &["kill", "web"],
        &["rm", "-f", "web"],
    ] {
        let mut start = lab.start_directly("web");
        lab.prepares().await;
        let begun = Instant::now();
        // What does not run cannot be killed.
        assert_eq!(lab.docker(call).status.success(), call[0] != "kill", "docker {call:?}: {}", lab.log());
        assert!(!start.wait().unwrap().success(), "docker {call:?}");
        let took = begun.elapsed();
        assert!(took < Duration::from_secs(20), "docker {call:?} took {took:?}: {}", lab.log());
        assert!(!note.exists(), "docker {call:?} leaves the note: {}", lab.log());
    }
    lab.world.stack.etcd.as_mut().unwrap().restart().await.unwrap();
    lab.nothing_left().await;
}

#[tokio::test]
async fn every_call_that_ends_a_container_strikes_its_note() {
    let mut lab = Lab::new().await;
    let (id, note) = stopped(&lab, &[]).await;
    lab.world.configure("launch.retry_for", "\"1s\"");
    lab.world.stack.etcd.as_mut().unwrap().kill();
    for call in [
        &["stop", "web"][..],
        &["kill", "web"],
        &["kill", &id[..12]],
        &["restart", "-t", "0", "web"],
        &["start", "web"],
    ] {
        assert!(!lab.start_directly("web").wait().unwrap().success());
        assert!(note.exists(), "{}", lab.log());
        // What is not running cannot be killed, and what cannot start cannot be restarted: the client hears of it.
        lab.docker(call);
        assert!(!note.exists(), "docker {call:?} leaves the note\n{}", lab.log());
    }
    lab.world.stack.etcd.as_mut().unwrap().restart().await.unwrap();
    is_not_started_again(&lab).await;
    lab.ok(&["rm", "web"]);
    lab.nothing_left().await;
}

/// The start has never come to Docker's runtime, so that the proxy has prepared in vain.
#[tokio::test]
async fn a_start_that_docker_refuses_itself_is_not_made_again() {
    let lab = Lab::new().await;
    let folder = lab.world.stack.dir.join("data");
    std::fs::create_dir(&folder).unwrap();
    let mount = format!("type=bind,src={},dst=/data", folder.display());
    let (_, note) = stopped(&lab, &["--mount", &mount]).await;
    std::fs::remove_dir(&folder).unwrap();
    let refused = lab.fails(&["start", "web"]);
    assert!(refused.contains("bind source path"), "{refused}");
    // At once, while what was prepared is given back.
    std::fs::create_dir(&folder).unwrap();
    lab.ok(&["start", "web"]);
    lab.runs("web").await;
    std::fs::remove_dir(&folder).unwrap();
    lab.ok(&["stop", "-t", "0", "web"]);
    lab.given_back().await;
    lab.fails(&["start", "web"]);
    lab.given_back().await;
    assert!(!note.exists(), "{}", lab.log());
    std::fs::create_dir(&folder).unwrap();
    is_not_started_again(&lab).await;
    lab.ok(&["rm", "web"]);
    lab.nothing_left().await;
}
