//! A daemon that accepts connections and says hello, and nothing more: every call has its limit.

use std::collections::BTreeMap;
use std::future::Future;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixListener;
use tokio::time::Instant;

use super::{ContainerSpec, Docker, DockerError, DockerHost, ImageRequest};
use crate::limits::*;

/// The daemon's address; it answers the ping alone, if that.
fn silent(says_hello: bool) -> (tempfile::TempDir, DockerHost) {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("s");
    let listener = UnixListener::bind(&socket).unwrap();
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut request = [0; 4096];
                while let Ok(length @ 1..) = client.read(&mut request).await {
                    if says_hello && String::from_utf8_lossy(&request[..length]).contains("/_ping") {
                        let hello = b"HTTP/1.1 200 OK\r\nApi-Version: 1.41\r\nContent-Length: 2\r\n\r\nOK";
                        client.write_all(hello).await.unwrap();
                    }
                }
            });
        }
    });
    (folder, DockerHost::Unix(socket))
}

/// It fails as too slow, after about so long.
async fn takes<T>(call: impl Future<Output = Result<T, DockerError>>, limit: Duration) {
    let begun = Instant::now();
    let Err(error) = call.await else { panic!("a silent daemon has answered") };
    let took = begun.elapsed();
    assert!(matches!(error, DockerError::Slow { .. }), "{error}");
    assert!(took >= limit && took < limit + Duration::from_secs(2), "{error}: {took:?} instead of {limit:?}");
}

#[tokio::test(start_paused = true)]
async fn a_daemon_that_does_not_say_hello() {
    let (_folder, host) = silent(false);
    takes(Docker::connect(&host, ""), DOCKER_HELLO).await;
}

#[tokio::test(start_paused = true)]
async fn every_call_to_a_silent_daemon_has_its_limit() {
    let (_folder, host) = silent(true);
    let docker = Docker::connect(&host, "").await.unwrap();
    takes(docker.create("mesos-1", &ContainerSpec::default()), DOCKER_CREATE).await;
    takes(docker.start("c", Duration::from_secs(70)), Duration::from_secs(70)).await;
    takes(docker.attach("c"), DOCKER_CALL).await;
    takes(docker.wait("c"), DOCKER_REGISTER).await;
    takes(docker.inspect("c"), 6 * DOCKER_INSPECT).await;
    takes(docker.kill("c"), 3 * DOCKER_CALL).await;
    // A kill follows.
    takes(docker.stop("c", Duration::from_secs(30)), Duration::from_secs(30) + 4 * DOCKER_CALL).await;
    let begun = Instant::now();
    assert!(!docker.oom_killed("c").await);
    assert_eq!(begun.elapsed().as_secs(), DOCKER_OUT_OF_MEMORY.as_secs());
    takes(docker.remove("c", true), 3 * DOCKER_CALL).await;
    takes(docker.containers(), 3 * DOCKER_CALL).await;
    takes(docker.runtime_of("c"), DOCKER_CALL).await;
    takes(docker.exec("c", &["true".into()], &BTreeMap::new()), DOCKER_CALL).await;
    let request = ImageRequest { image: "busybox", ..Default::default() };
    takes(docker.ensure_image(request, &mut |_| ()), 3 * DOCKER_LOOK).await;
    let request = ImageRequest { force: true, ..request };
    takes(docker.ensure_image(request, &mut |_| ()), DOCKER_PULL_SILENCE).await;
}
