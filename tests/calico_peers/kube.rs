//! The one answer that `calicoctl ipam check` wants from a Kubernetes API since 3.30: no services.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::path::{Path, PathBuf};

const SERVICES: &str =
    r#"{"kind":"ServiceList","apiVersion":"v1","metadata":{"resourceVersion":"1"},"items":[]}"#;

pub struct Kube {
    folder: tempfile::TempDir,
}

impl Kube {
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let server = format!("http://{}", listener.local_addr().unwrap());
        let kube = Self { folder: tempfile::tempdir().unwrap() };
        let config = serde_json::json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "c",
            "clusters": [{"name": "c", "cluster": {"server": server}}],
            "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
            "users": [{"name": "u", "user": {}}],
        });
        std::fs::write(kube.config(), config.to_string()).unwrap();
        // Ends with the test program.
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let _ = answer(stream);
            }
        });
        kube
    }

    pub fn config(&self) -> PathBuf {
        Path::new(self.folder.path()).join("config")
    }
}

fn answer(mut stream: std::net::TcpStream) -> std::io::Result<()> {
    let mut request = [0; 8192];
    let length = stream.read(&mut request)?;
    let (status, body) = match request[..length].starts_with(b"GET /api/v1/services") {
        true => ("200 OK", SERVICES),
        false => ("404 Not Found", "{}"),
    };
    write!(
        stream,
        "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
}
