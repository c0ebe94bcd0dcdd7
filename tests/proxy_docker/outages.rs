//! The proxy, Docker and the datastore go away and come back.

use calico_mesos::rig::daemons::StackOptions;
use nix::sys::signal::Signal;

use crate::kit::faults::{kill_dockerd, power_off};
use crate::lab::Lab;
use crate::wait::eventually;
use crate::world::sh;

#[tokio::test]
async fn a_new_proxy_goes_on_with_what_runs() {
    for signal in [Signal::SIGTERM, Signal::SIGKILL] {
        let mut lab = Lab::new().await;
        lab.run(&["--name", "web", "busybox", "sleep", "1000"]);
        let address = lab.runs("web").await;
        lab.end_proxy(signal);
        // The cleaner takes neither its network nor the container for dead.
        assert!(lab.world.gc().status.success());
        assert!(sh(&format!("busybox ping -c 1 -W 2 {address}")).contains(" 0% packet loss"));
        lab.start_proxy().await;
        assert_eq!(lab.runs("web").await, address);
        lab.ok(&["restart", "-t", "0", "web"]);
        assert_eq!(lab.runs("web").await, address);
        lab.ok(&["rm", "-f", "web"]);
        lab.nothing_left().await;
    }
}

#[tokio::test]
async fn what_ends_while_the_proxy_is_away_is_taken_down() {
    let mut lab = Lab::new().await;
    lab.run(&["--name", "web", "busybox", "sleep", "1000"]);
    lab.runs("web").await;
    lab.end_proxy(Signal::SIGKILL);
    assert!(lab.docker_directly(&["kill", "web"]).status.success());
    lab.start_proxy().await;
    eventually("the address is given back", async || match lab.world.task_keys().await {
        keys if keys.is_empty() => Ok(()),
        keys => Err(format!("{}\n{}", keys.join("\n"), lab.log())),
    })
    .await;
    lab.ok(&["rm", "web"]);
    lab.nothing_left().await;
}

#[tokio::test]
async fn a_start_without_a_proxy_is_refused_and_made_again_by_the_next_one() {
    let mut lab = Lab::new().await;
    lab.run(&["--name", "web", "--restart", "always", "busybox", "sleep", "1000"]);
    let address = lab.runs("web").await;
    lab.end_proxy(Signal::SIGKILL);
    let id = lab.docker_directly(&["inspect", "-f", "{{.Id}} {{.State.Pid}}", "web"]).stdout;
    let id = String::from_utf8(id).unwrap();
    let pid = id.split_whitespace().nth(1).unwrap();
    // Docker's restart manager starts it again, and tries that once.
    sh(&format!("kill -9 {pid}"));
    eventually("the start is refused", async || {
        let seen =
            lab.docker_directly(&["inspect", "-f", "{{.State.Status}} {{.State.Error}}", "web"]).stdout;
        let seen = String::from_utf8(seen).unwrap();
        match seen.contains("does not run") {
            true => Ok(()),
            false => Err(seen),
        }
    })
    .await;
    lab.start_proxy().await;
    assert_eq!(lab.runs("web").await, address);
    lab.ok(&["rm", "-f", "web"]);
    lab.nothing_left().await;
}

/// Docker starts its containers at boot before its own API answers, and tries each once.
#[tokio::test]
async fn a_host_that_boots_with_a_late_proxy_has_its_containers_back() {
    let mut lab = Lab::new().await;
    lab.run(&["--name", "web", "--restart", "always", "busybox", "sleep", "1000"]);
    lab.run(&["--name", "once", "busybox", "sleep", "1000"]);
    let address = lab.runs("web").await;
    lab.runs("once").await;
    lab.end_proxy(Signal::SIGKILL);
    power_off(&mut lab.world.stack.docker);
    // What a host keeps in memory only.
    sh(&format!("umount {}/tasks/*/netns", lab.world.config.paths.run.display()));
    std::fs::remove_dir_all(&lab.world.config.paths.run).unwrap();
    for link in sh("ls /sys/class/net").lines().filter(|link| link.starts_with("cali")) {
        if !lab.world.endpoints().await.iter().all(|endpoint| endpoint["spec"]["interfaceName"] != link) {
            sh(&format!("ip link del {link}"));
        }
    }
    lab.world.stack.docker.restart().await.unwrap();
    let seen = String::from_utf8(lab.docker_directly(&["inspect", "-f", "{{.State.Status}}", "web"]).stdout);
    assert_eq!(seen.unwrap().trim(), "exited");
    lab.start_proxy().await;
    assert_eq!(lab.runs("web").await, address);
    assert_eq!(lab.inspect("once")["State"]["Running"], false, "its policy does not ask for it");
    lab.ok(&["rm", "-f", "web", "once"]);
    lab.nothing_left().await;
}

#[tokio::test]
async fn a_dockerd_that_is_killed_starts_its_containers_again_with_their_addresses() {
    let mut lab = Lab::new().await;
    lab.run(&["--name", "web", "--restart", "always", "busybox", "sleep", "1000"]);
    let address = lab.runs("web").await;
    kill_dockerd(&lab.world.stack.docker);
    lab.world.stack.docker.restart_dockerd().await.unwrap();
    assert_eq!(lab.runs("web").await, address);
    assert!(sh(&format!("busybox ping -c 1 -W 2 {address}")).contains(" 0% packet loss"), "{}", lab.log());
    lab.ok(&["rm", "-f", "web"]);
    lab.nothing_left().await;
}

#[tokio::test]
async fn a_dockerd_that_is_killed_while_the_network_is_prepared_leaves_nothing() {
    let mut lab = Lab::new().await;
    lab.world.configure("launch.retry_for", "\"60s\"");
    let id = lab.ok(&["create", "--name", "web", "-e", "CALICO_IP=auto", "busybox", "sleep", "1000"]);
    lab.world.stack.etcd.as_mut().unwrap().kill();
    let mut start = lab.start_directly(&id);
    lab.prepares().await;
    lab.world.stack.docker.end();
    start.wait().unwrap();
    lab.world.stack.etcd.as_mut().unwrap().restart().await.unwrap();
    lab.world.stack.docker.restart().await.unwrap();
    lab.given_back().await;
    lab.starts_and_goes("web").await;
}

/// A client hears of it; a restart by Docker's own manager is made up for.
#[tokio::test]
async fn without_the_datastore_a_start_is_refused_and_a_restart_comes_later() {
    let mut lab = Lab::new().await;
    lab.run(&["--name", "web", "--restart", "always", "busybox", "sleep", "1000"]);
    let address = lab.runs("web").await;
    lab.world.stack.etcd.as_mut().unwrap().kill();
    let refused =
        lab.fails(&["run", "-d", "--name", "new", "-e", "CALICO_IP=auto", "busybox", "sleep", "1000"]);
    assert!(refused.contains("CM-ETCD"), "{refused}");
    // It has its address still: the datastore need not be asked.
    lab.ok(&["restart", "-t", "0", "web"]);
    assert_eq!(lab.runs("web").await, address);
    lab.world.stack.etcd.as_mut().unwrap().restart().await.unwrap();
    assert_eq!(lab.inspect("new")["State"]["Running"], false, "its client knows that it did not start");
    lab.ok(&["rm", "-f", "web", "new"]);
    lab.nothing_left().await;
}

/// The proxy alone is there to finish it: no cleaner runs here.
#[tokio::test]
async fn what_could_not_be_given_back_does_not_keep_a_container_from_starting() {
    let mut lab = Lab::new().await;
    lab.run(&["--name", "web", "busybox", "sleep", "1000"]);
    lab.runs("web").await;
    lab.ok(&["stop", "-t", "0", "web"]);
    lab.world.stack.etcd.as_mut().unwrap().kill();
    eventually("it is left", async || match lab.log().contains("left for the next cleaner") {
        true => Ok(()),
        false => Err(lab.log()),
    })
    .await;
    lab.world.stack.etcd.as_mut().unwrap().restart().await.unwrap();
    lab.ok(&["start", "web"]);
    lab.runs("web").await;
    assert_eq!(lab.world.endpoints().await.len(), 1);
    lab.ok(&["rm", "-f", "web"]);
    lab.nothing_left().await;
}

/// As at a boot of the host with a datastore that comes later.
#[tokio::test]
async fn a_proxy_without_the_datastore_serves_at_once() {
    let mut lab = Lab::new().await;
    lab.world.configure("launch.retry_for", "\"20s\"");
    lab.run(&["--name", "web", "busybox", "sleep", "1000"]);
    lab.runs("web").await;
    lab.end_proxy(Signal::SIGKILL);
    assert!(lab.docker_directly(&["kill", "web"]).status.success());
    lab.world.stack.etcd.as_mut().unwrap().kill();
    let begun = std::time::Instant::now();
    lab.start_proxy().await;
    let took = begun.elapsed();
    assert!(took < std::time::Duration::from_secs(10), "{took:?}: {}", lab.log());
    lab.world.stack.etcd.as_mut().unwrap().restart().await.unwrap();
    lab.starts_and_goes("web").await;
}

/// With `live-restore` a dockerd that is killed leaves its containers running, and the next one goes on with them.
#[tokio::test]
async fn containers_of_a_live_restored_dockerd_keep_address_and_process() {
    let live_restore = |stack: &mut StackOptions| {
        stack.docker_configuration.insert("live-restore".into(), true.into());
    };
    let mut lab = Lab::with(live_restore).await;
    lab.run(&["--name", "web", "--restart", "always", "busybox", "sleep", "1000"]);
    let address = lab.runs("web").await;
    let pid = lab.inspect("web")["State"]["Pid"].clone();
    kill_dockerd(&lab.world.stack.docker);
    assert!(sh(&format!("busybox ping -c 1 -W 2 {address}")).contains(" 0% packet loss"));
    lab.world.stack.docker.restart_dockerd().await.unwrap();
    assert_eq!(lab.runs("web").await, address);
    assert_eq!(lab.inspect("web")["State"]["Pid"], pid, "it was started again");
    lab.ok(&["restart", "-t", "0", "web"]);
    assert_eq!(lab.runs("web").await, address);
    // One that ends while no dockerd runs, the next one starts again.
    let pid = lab.inspect("web")["State"]["Pid"].to_string();
    kill_dockerd(&lab.world.stack.docker);
    sh(&format!("kill -9 {pid}"));
    lab.world.stack.docker.restart_dockerd().await.unwrap();
    assert_eq!(lab.runs("web").await, address);
    lab.ok(&["rm", "-f", "web"]);
    lab.nothing_left().await;
}

/// Its first process is one among the host's, and no runtime tells its end while Docker is away.
#[tokio::test]
async fn the_end_of_a_container_in_the_hosts_pid_namespace_is_seen_without_docker() {
    let mut lab = Lab::new().await;
    lab.run(&["--name", "web", "--pid", "host", "busybox", "sleep", "1000"]);
    lab.runs("web").await;
    let pid = lab.inspect("web")["State"]["Pid"].to_string();
    lab.world.stack.docker.kill();
    sh(&format!("kill -9 {pid}"));
    lab.given_back().await;
    lab.world.stack.docker.restart().await.unwrap();
    lab.starts_and_goes("web").await;
}
