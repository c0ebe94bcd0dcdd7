//! Clients that end their side, or are gone.

use std::time::{Duration, Instant};

use super::kit::Proxy;

#[tokio::test]
async fn a_client_that_leaves_ends_dockers_call_within_a_second() {
    let proxy = Proxy::start().await;
    let calls = [
        ("GET /events", true),
        ("GET /containers/web/logs?follow=1", true),
        ("POST /containers/web/wait?condition=next-exit", true),
        ("POST /containers/web/wait", false),
        ("GET /containers/web/stats", true),
    ];
    for (call, answered) in calls {
        for tcp in [true, false] {
            let request = format!("{call} HTTP/1.1\r\nHost: localhost\r\n\r\n");
            let (mut over_tcp, mut over_unix) = (proxy.tcp().await, proxy.unix().await);
            match tcp {
                true => over_tcp.send(&request).await,
                false => over_unix.send(&request).await,
            }
            let mut docker = proxy.accept().await;
            docker.head().await;
            if answered {
                docker.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n").await;
                match tcp {
                    true => over_tcp.head().await,
                    false => over_unix.head().await,
                };
            }
            let begun = Instant::now();
            drop((over_tcp, over_unix));
            assert_eq!(docker.text().await, "", "{call}");
            assert!(begun.elapsed() < Duration::from_secs(1), "{call}: {:?}", begun.elapsed());
        }
    }
}

#[tokio::test]
async fn a_client_that_ends_its_side_alone_is_still_answered() {
    let proxy = Proxy::start().await;
    for tcp in [true, false] {
        let request = "POST /auth HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\n{}";
        let answer = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nOK";
        let (mut over_tcp, mut over_unix) = (proxy.tcp().await, proxy.unix().await);
        if tcp {
            over_tcp.send(request).await;
            over_tcp.end().await;
        } else {
            over_unix.send(request).await;
            over_unix.end().await;
        }
        let mut docker = proxy.accept().await;
        docker.head().await;
        // Docker learns of it, and answers all the same.
        assert_eq!(docker.text().await, "{}");
        docker.send(answer).await;
        let read = match tcp {
            true => over_tcp.text().await,
            false => over_unix.text().await,
        };
        assert_eq!(read, answer);
    }
}

#[tokio::test]
async fn a_client_that_leaves_within_an_upload_does_not_end_it_as_if_it_were_whole() {
    let proxy = Proxy::start().await;
    for framing in ["Content-Length: 10", "Transfer-Encoding: chunked"] {
        let mut client = proxy.unix().await;
        client.send(format!("POST /build HTTP/1.1\r\nHost: d\r\n{framing}\r\n\r\n3\r\nabc\r\n")).await;
        let mut docker = proxy.accept().await;
        docker.head().await;
        docker.expects("3\r\nabc\r\n").await;
        drop(client);
        assert_eq!(docker.text().await, "");
    }
}

/// Docker itself looks for this over a unix socket, and detaches.
#[tokio::test]
async fn a_stream_whose_client_is_gone_is_ended() {
    let proxy = Proxy::start().await;
    for upgrade in ["Connection: Upgrade\r\nUpgrade: tcp\r\n", ""] {
        let mut client = proxy.unix().await;
        client.send(format!("POST /containers/web/attach HTTP/1.1\r\nHost: d\r\n{upgrade}\r\n")).await;
        let mut docker = proxy.accept().await;
        docker.head().await;
        docker.send("HTTP/1.1 101 UPGRADED\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n").await;
        client.head().await;
        client.send("last").await;
        let begun = Instant::now();
        drop(client);
        assert_eq!(docker.text().await, "last");
        // The other direction as well: Docker's writes fail.
        loop {
            use tokio::io::AsyncWriteExt;
            if docker.stream.write_all(b"x").await.is_err() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());
    }
}
