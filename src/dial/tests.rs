//! Peers of every kind, real sockets all of them.

use http_body_util::{BodyExt, Empty};
use hyper::body::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, UnixListener};

use super::*;
use crate::tls;

const LIMIT: Option<Duration> = Some(Duration::from_millis(100));

#[tokio::test]
async fn a_peer_that_refuses_is_not_one_that_is_slow_or_refuses_tls() {
    let folder = tempfile::tempdir().unwrap();
    let missing = unix(&folder.path().join("missing"), None).await.unwrap_err();
    assert!(matches!(missing, DialError::Refused(_)) && missing.is_nothing_there(), "{missing:?}");

    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let name = || ServerName::IpAddress(address.ip().into());
    let config = Arc::new(tls::trust_everybody().unwrap());
    // It is connected, for the kernel answers, and does not speak.
    let stream = tcp(&[address], LIMIT).await.unwrap();
    let slow = secure(stream, config.clone(), name(), LIMIT).await.err().unwrap();
    assert!(matches!(slow, DialError::Slow(_)) && !slow.is_nothing_there(), "{slow:?}");

    let stream = tcp(&[address], LIMIT).await.unwrap();
    let plain = async {
        // The first one is the silent one.
        listener.accept().await.unwrap();
        let (mut peer, _) = listener.accept().await.unwrap();
        peer.write_all(b"HTTP/1.0 400 Bad Request\r\n\r\n").await.unwrap();
        let _ = peer.read_to_end(&mut Vec::new()).await;
    };
    let (refused, ()) = tokio::join!(secure(stream, config, name(), None), plain);
    let refused = refused.err().unwrap();
    assert!(matches!(refused, DialError::Tls(_)), "{refused:?}");
    assert_eq!(tls::fault(&refused), Some(tls::TlsFault::Here));

    drop(listener);
    let refused = tcp(&[address], LIMIT).await.unwrap_err();
    assert!(matches!(refused, DialError::Refused(_)), "{refused:?}");
    assert_eq!(io::Error::from(refused).kind(), io::ErrorKind::ConnectionRefused);
}

#[tokio::test]
async fn a_socket_whose_queue_is_full_is_not_taken_for_a_missing_one() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s");
    let listener = UnixListener::bind(&path).unwrap();
    let mut held = Vec::new();
    let error = loop {
        match unix(&path, LIMIT).await {
            Ok(stream) => held.push(stream),
            Err(error) => break error,
        }
    };
    assert!(!held.is_empty() && !error.is_nothing_there(), "{error:?}");
    assert_eq!(io::Error::from(error).kind(), io::ErrorKind::WouldBlock);
    drop(listener);
}

#[tokio::test]
async fn a_request_that_is_dropped_closes_its_connection() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let stream = tcp(&[listener.local_addr().unwrap()], None).await.unwrap();
    let (mut peer, _) = listener.accept().await.unwrap();
    let request = Request::get("/").header("host", "x").body(Empty::<Bytes>::new()).unwrap();
    {
        let asking = exchange(Box::pin(stream), request);
        let mut asked = [0; 512];
        tokio::select! {
            answer = asking => panic!("{answer:?}"),
            read = peer.read(&mut asked) => assert!(asked[..read.unwrap()].starts_with(b"GET / HTTP/1.1\r\n")),
        }
    }
    // Its end is the end of the connection.
    assert_eq!(peer.read(&mut [0]).await.unwrap(), 0);
}

#[tokio::test]
async fn header_names_are_spelled_as_the_peer_wants_them() {
    for (spelling, name) in [(Spelling::Lower, "x-name: y"), (Spelling::Title, "X-Name: y")] {
        let (near, mut far) = tokio::io::duplex(512);
        let mut sender = open(Box::pin(near), spelling).await.unwrap();
        let request = Request::get("/").header("x-name", "y").body(Empty::<Bytes>::new()).unwrap();
        let answering = async {
            let mut asked = vec![0; 512];
            let length = far.read(&mut asked).await.unwrap();
            far.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nOK").await.unwrap();
            String::from_utf8_lossy(&asked[..length]).into_owned()
        };
        let (answer, asked) = tokio::join!(sender.send_request(request), answering);
        assert!(asked.contains(name), "{asked}");
        assert_eq!(answer.unwrap().into_body().collect().await.unwrap().to_bytes(), "OK");
    }
}
