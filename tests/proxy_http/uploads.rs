//! Uploads that Docker judges before they are finished.

use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::timeout;

use super::kit::{in_order, soon, Peer, Proxy};

const LARGE: usize = 100 << 20;
const CHUNK: usize = 64 << 10;

/// As Docker's own server does it: the answer, no more reading, and a moment later the end.
async fn refuse(proxy: &Proxy, answer: &str) {
    let mut docker = proxy.accept().await;
    docker.head().await;
    docker.exactly(1000).await;
    docker.send(answer).await;
    docker.end().await;
    tokio::time::sleep(Duration::from_millis(100)).await;
}

/// Sends it all, or until the connection breaks; then reads.
async fn upload<S: AsyncRead + AsyncWrite + Unpin>(client: &mut Peer<S>) -> String {
    client
        .send("PUT /containers/web/archive HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n")
        .await;
    let mut chunk = format!("{CHUNK:x}\r\n").into_bytes();
    chunk.extend_from_slice(&vec![b'x'; CHUNK]);
    chunk.extend_from_slice(b"\r\n");
    let mut answer = vec![0; 4096];
    let mut read = 0;
    let (mut from, mut to) = tokio::io::split(&mut client.stream);
    for _ in 0..LARGE / CHUNK {
        tokio::select! {
            biased;
            got = from.read(&mut answer[read..]) => {
                read += got.unwrap();
                break;
            }
            sent = timeout(Duration::from_secs(20), to.write_all(&chunk)) => {
                if sent.expect("the proxy reads on").is_err() {
                    break;
                }
            }
        }
    }
    while let Ok(length @ 1..) = soon(from.read(&mut answer[read..])).await {
        read += length;
    }
    String::from_utf8_lossy(&answer[..read]).into_owned()
}

#[tokio::test]
async fn an_error_before_the_end_of_an_upload_reaches_the_client() {
    let proxy = Proxy::start().await;
    let answer = "HTTP/1.1 404 Not Found\r\nContent-Length: 9\r\nConnection: close\r\n\r\nnot here\n";
    for _ in 0..3 {
        let mut client = proxy.unix().await;
        let (read, ()) = tokio::join!(upload(&mut client), refuse(&proxy, answer));
        assert_eq!(in_order(&read), in_order(answer));
        let mut client = proxy.tcp().await;
        let (read, ()) = tokio::join!(upload(&mut client), refuse(&proxy, answer));
        assert_eq!(in_order(&read), in_order(answer));
    }
}

/// A client that reads nothing before it has sent all, such as docker-py.
#[tokio::test]
async fn an_early_error_is_there_for_a_client_that_reads_later() {
    let proxy = Proxy::start().await;
    let answer = "HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
    let mut client = proxy.tcp().await;
    let sending = async {
        let length = 4 << 20;
        client
            .send(format!(
                "POST /images/load HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n\r\n"
            ))
            .await;
        let sent = soon(client.stream.write_all(&vec![0; length])).await;
        (sent.is_ok(), client.text().await)
    };
    let (read, ()) = tokio::join!(sending, refuse(&proxy, answer));
    assert!(read.0);
    assert_eq!(in_order(&read.1), in_order(answer));
}

#[tokio::test]
async fn a_whole_upload_arrives_as_it_was_sent() {
    let proxy = Proxy::start().await;
    let mut client = proxy.tcp().await;
    let bytes: Vec<u8> =
        (0..(8 << 20)).map(|number: u32| number.wrapping_mul(2_654_435_761).to_le_bytes()[3]).collect();
    client
        .send(format!(
            "POST /images/load HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n\r\n",
            bytes.len()
        ))
        .await;
    let receiving = async {
        let mut docker = proxy.accept().await;
        docker.head().await;
        let received = docker.exactly(bytes.len()).await;
        docker.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", bytes.len())).await;
        docker.send(&received).await;
        received
    };
    let sending = async {
        client.send(&bytes).await;
        client.head().await;
        client.exactly(bytes.len()).await
    };
    let (received, returned) = tokio::join!(receiving, sending);
    assert!(received == bytes && returned == bytes);
}

#[tokio::test]
async fn a_client_that_expects_100_continue_sends_when_docker_says_so() {
    let proxy = Proxy::start().await;
    let request =
        "POST /build HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n";
    let mut client = proxy.tcp().await;
    client.send(request).await;
    let mut docker = proxy.accept().await;
    assert!(docker.head().await.contains("\r\nExpect: 100-continue\r\n"));
    let silence = timeout(Duration::from_millis(200), client.stream.read_u8()).await;
    assert!(silence.is_err(), "{silence:?}");
    docker.send("HTTP/1.1 100 Continue\r\n\r\n").await;
    client.expects("HTTP/1.1 100 Continue\r\n\r\n").await;
    client.send("12345").await;
    docker.expects("12345").await;
    docker.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await;
    client.expects("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await;

    // Docker refuses, and the body is never sent.
    let mut client = proxy.tcp().await;
    client.send(request).await;
    let mut docker = proxy.accept().await;
    docker.head().await;
    let answer = "HTTP/1.1 413 Too large\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
    docker.send(answer).await;
    drop(docker);
    client.answered(answer).await;
    assert_eq!(client.text().await, "");

    // Docker reads without a word, as a server may: the client is not left waiting.
    let mut client = proxy.tcp().await;
    client.send(request).await;
    let mut docker = proxy.accept().await;
    docker.head().await;
    client.expects("HTTP/1.1 100 Continue\r\n\r\n").await;
    client.send("12345").await;
    docker.expects("12345").await;
}
