//! TLS to the agent, trusted only where the operator asks for it.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use calico_mesos::mesos::driver::Event;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::ServerConfig;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use super::fixtures;
use super::peer::{connect, next};

fn openssl(dir: &Path, arguments: &str) {
    let output = Command::new("openssl").args(arguments.split(' ')).current_dir(dir).output().unwrap();
    assert!(output.status.success(), "openssl {arguments}: {}", String::from_utf8_lossy(&output.stderr));
}

fn certificates(dir: &Path) {
    for ca in ["ca", "other"] {
        openssl(
            dir,
            &format!(
                "req -x509 -newkey rsa:2048 -nodes -keyout {ca}.key -out {ca}.pem -subj /CN={ca} -days 2"
            ),
        );
    }
    for (name, subject) in [("agent", "IP:127.0.0.1"), ("elsewhere", "DNS:elsewhere.example.org")] {
        std::fs::write(dir.join("ext"), format!("subjectAltName={subject}")).unwrap();
        openssl(
            dir,
            &format!("req -newkey rsa:2048 -nodes -keyout {name}.key -out {name}.csr -subj /CN={name}"),
        );
        openssl(dir, &format!("x509 -req -in {name}.csr -CA ca.pem -CAkey ca.key -CAcreateserial -out {name}.pem -days 2 -extfile ext"));
    }
}

/// Answers every SUBSCRIBE as a real agent did.
async fn agent(dir: &Path, name: &str) -> String {
    let chain = vec![CertificateDer::from_pem_file(dir.join(format!("{name}.pem"))).unwrap()];
    let key = PrivateKeyDer::from_pem_file(dir.join(format!("{name}.key"))).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let mut open = Vec::new();
        while let Ok((stream, _)) = listener.accept().await {
            // Whoever does not trust us hangs up.
            let Ok(mut stream) = acceptor.accept(stream).await else { continue };
            let mut request = [0; 1024];
            if stream.read(&mut request).await.is_ok_and(|count| count > 0) {
                stream.write_all(&fixtures::bytes("a1/001.s2c.bin")).await.unwrap();
                stream.flush().await.unwrap();
                open.push(stream);
            }
        }
    });
    format!("slave(1)@{address}")
}

#[tokio::test]
async fn an_agent_is_verified_only_when_it_is_to_be() {
    let dir = tempfile::tempdir().unwrap();
    certificates(dir.path());
    for (name, ca, verify, trusted) in [
        ("agent", "ca", true, true),
        ("agent", "other", true, false),
        ("elsewhere", "ca", true, false),
        ("elsewhere", "other", false, true),
    ] {
        let variables = [
            ("MESOS_SLAVE_PID", agent(dir.path(), name).await),
            ("MESOS_FRAMEWORK_ID", "f".into()),
            ("MESOS_EXECUTOR_ID", "e".into()),
            ("MESOS_SLAVE_ID", "s".into()),
            ("MESOS_DIRECTORY", "/sandbox".into()),
            ("LIBPROCESS_SSL_ENABLED", "true".into()),
            ("LIBPROCESS_SSL_CA_FILE", dir.path().join(format!("{ca}.pem")).display().to_string()),
            ("LIBPROCESS_SSL_VERIFY_SERVER_CERT", verify.to_string()),
        ];
        let (_driver, mut events) = connect(variables.map(|(name, value)| (name.to_owned(), value)).into());
        let registered = matches!(next(&mut events).await, Event::Registered { .. });
        assert_eq!(registered, trusted, "{name} with {ca}, verified: {verify}");
    }
}
