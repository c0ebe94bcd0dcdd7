//! Certificates and keys for the connections to etcd, Consul and the Mesos agent, and for health checks.
//!
//! Files are read anew for each connection, so that a renewed certificate needs no restart. Roots come
//! from the configured CA file, else from the system's bundle at its fixed places: never from
//! SSL_CERT_FILE, which a task could set. The cryptography is ring's, named here outright, since a
//! process-wide default would depend on which library asked first.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{VerifierBuilderError, WantsClientCert};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{
    ClientConfig, ConfigBuilder, DigitallySignedStruct, RootCertStore, SignatureScheme, WantsVerifier,
};

/// Debian and Alpine, Fedora and RHEL, SUSE.
const SYSTEM_BUNDLES: [&str; 3] =
    ["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/ca-bundle.pem"];

#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("cannot read {path}")]
    Read {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("{path} holds no usable {what} in PEM form")]
    Pem { path: PathBuf, what: &'static str },
    #[error("found no system CA bundle ({looked_for}); name a ca_file in the configuration")]
    NoBundle { looked_for: String },
    #[error("cannot use the certificate {path} with its key")]
    Identity {
        path: PathBuf,
        #[source]
        source: Box<rustls::Error>,
    },
    #[error("cannot set up TLS")]
    Setup(#[source] Box<rustls::Error>),
    #[error("cannot use the trusted roots")]
    Roots(#[source] VerifierBuilderError),
}

/// Who or what kept a TLS connection from being made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TlsFault {
    /// The peer sent an alert: it does not accept our certificate, or that there is none.
    Peer,
    /// The peer's certificate is not trusted, names another host, or it does not speak TLS.
    Here,
    /// Our own files cannot be used.
    Files,
    /// A peer with TLS was spoken to without.
    Plain,
}

/// What a peer without TLS does with a TLS connection: it answers plain requests alone.
#[derive(Debug, thiserror::Error)]
#[error("it speaks HTTP without TLS")]
pub struct PlainSpoken;

/// What a peer with TLS answers to a plain request.
#[derive(Debug, thiserror::Error)]
#[error("a plain HTTP request was answered with {status}")]
pub struct PlainRefused {
    pub status: String,
}

/// Whether the text of an answer says that the server expects TLS. The HTTP server of Go, which Docker and Consul use,
/// answers a plain request with 400 and this text alone.
pub fn refuses_plain(answer: &str) -> bool {
    answer.contains("HTTP request to an HTTPS server")
}

/// Whether TLS is the reason of this error, at any depth.
///
/// With TLS 1.3 a server looks at the client's certificate when the client takes the handshake for done: its refusal is
/// then an error of the first read, deep below what the HTTP library reports.
pub fn fault(error: &(dyn std::error::Error + 'static)) -> Option<TlsFault> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(error) = error.downcast_ref::<rustls::Error>() {
            return Some(match error {
                rustls::Error::AlertReceived(_) => TlsFault::Peer,
                _ => TlsFault::Here,
            });
        }
        if error.is::<PlainSpoken>() {
            return Some(TlsFault::Here);
        }
        if error.is::<TlsError>() {
            return Some(TlsFault::Files);
        }
        if error.is::<PlainRefused>() {
            return Some(TlsFault::Plain);
        }
        // The source of an io::Error is that of what it holds, not what it holds.
        let held = error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
        next = match held {
            Some(held) => Some(held),
            None => error.source(),
        };
    }
    None
}

/// Where a client's certificates lie.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Files {
    /// The trusted roots; the system's otherwise.
    pub ca: Option<PathBuf>,
    /// Both or none.
    pub cert: Option<PathBuf>,
    pub key: Option<PathBuf>,
}

impl Files {
    /// Reads and checks them anew.
    pub fn read(&self) -> Result<Material, TlsError> {
        read(self.ca.as_deref(), self.cert.as_deref(), self.key.as_deref())
    }

    /// The same, for a client that takes rustls's configuration.
    pub fn client_config(&self) -> Result<ClientConfig, TlsError> {
        self.read()?.client_config()
    }
}

/// What a client needs, as PEM text that has been checked.
pub struct Material {
    /// The trusted roots.
    pub ca: Vec<u8>,
    /// Certificate chain and private key, if the server requires a client certificate.
    pub identity: Option<ClientIdentity>,
}

pub struct ClientIdentity {
    pub certificate: Vec<u8>,
    pub key: Vec<u8>,
    path: PathBuf,
}

/// Reads the files; `cert` and `key` come together, as the configuration has checked.
pub fn read(ca: Option<&Path>, cert: Option<&Path>, key: Option<&Path>) -> Result<Material, TlsError> {
    let ca_path = match ca {
        Some(path) => path.to_owned(),
        None => system_bundle()?,
    };
    let ca = file(&ca_path)?;
    if certificates(&ca).is_none() {
        return Err(TlsError::Pem { path: ca_path, what: "certificate" });
    }
    let identity = match (cert, key) {
        (Some(cert), Some(key)) => Some(identity(cert, key)?),
        _ => None,
    };
    Ok(Material { ca, identity })
}

impl Material {
    pub fn client_config(&self) -> Result<ClientConfig, TlsError> {
        with_identity(builder()?.with_root_certificates(store(&self.ca)), self.identity.as_ref())
    }
}

/// For a peer that is trusted by rules of its own.
pub fn client_with_verifier(
    verifier: Arc<dyn ServerCertVerifier>,
    cert_and_key: Option<(&Path, &Path)>,
) -> Result<ClientConfig, TlsError> {
    let identity = cert_and_key.map(|(cert, key)| identity(cert, key)).transpose()?;
    let builder = builder()?.dangerous().with_custom_certificate_verifier(verifier);
    with_identity(builder, identity.as_ref())
}

/// The roots of a CA file, else the system's.
pub fn roots(ca: Option<&Path>) -> Result<RootCertStore, TlsError> {
    Ok(store(&read(ca, None, None)?.ca))
}

/// The cryptography of every connection.
pub fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// For a client that speaks plain HTTP, but whose library requires a configuration all the same: it trusts no
/// certificate.
pub fn trust_nobody() -> Result<ClientConfig, TlsError> {
    Ok(builder()?.with_root_certificates(RootCertStore::empty()).with_no_client_auth())
}

/// For health checks of a task by the host it runs on, where Mesos has always asked curl with `-k`: what answers on the
/// task's own loopback is the task, and its certificate names some other place.
pub fn trust_everybody() -> Result<ClientConfig, TlsError> {
    client_with_verifier(Arc::new(AnyCertificate(provider())), None)
}

/// Accepts every certificate. Nothing secret may be sent on such a connection.
#[derive(Debug)]
struct AnyCertificate(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

fn store(ca: &[u8]) -> RootCertStore {
    let mut roots = RootCertStore::empty();
    // A system bundle may hold a few roots that rustls finds odd: they are left out.
    roots.add_parsable_certificates(certificates(ca).unwrap_or_default());
    roots
}

fn with_identity(
    builder: ConfigBuilder<ClientConfig, WantsClientCert>,
    identity: Option<&ClientIdentity>,
) -> Result<ClientConfig, TlsError> {
    let Some(identity) = identity else { return Ok(builder.with_no_client_auth()) };
    let path = &identity.path;
    let chain = certificates(&identity.certificate)
        .ok_or_else(|| TlsError::Pem { path: path.clone(), what: "certificate" })?;
    let key = PrivateKeyDer::from_pem_slice(&identity.key)
        .map_err(|_| TlsError::Pem { path: path.clone(), what: "private key" })?;
    builder
        .with_client_auth_cert(chain, key)
        .map_err(|source| TlsError::Identity { path: path.clone(), source: Box::new(source) })
}

fn builder() -> Result<ConfigBuilder<ClientConfig, WantsVerifier>, TlsError> {
    ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(|source| TlsError::Setup(Box::new(source)))
}

fn identity(cert: &Path, key: &Path) -> Result<ClientIdentity, TlsError> {
    let (certificate, secret) = (file(cert)?, file(key)?);
    if certificates(&certificate).is_none() {
        return Err(TlsError::Pem { path: cert.into(), what: "certificate" });
    }
    if PrivateKeyDer::from_pem_slice(&secret).is_err() {
        return Err(TlsError::Pem { path: key.into(), what: "private key" });
    }
    Ok(ClientIdentity { certificate, key: secret, path: cert.into() })
}

/// All certificates of a PEM text; `None` when there is none, or a broken one.
fn certificates(pem: &[u8]) -> Option<Vec<CertificateDer<'static>>> {
    let all: Vec<_> = CertificateDer::pem_slice_iter(pem).collect::<Result<_, _>>().ok()?;
    (!all.is_empty()).then_some(all)
}

fn file(path: &Path) -> Result<Vec<u8>, TlsError> {
    std::fs::read(path).map_err(|source| TlsError::Read { path: path.into(), source })
}

fn system_bundle() -> Result<PathBuf, TlsError> {
    SYSTEM_BUNDLES
        .into_iter()
        .map(PathBuf::from)
        .find(|path| path.exists())
        .ok_or_else(|| TlsError::NoBundle { looked_for: SYSTEM_BUNDLES.join(", ") })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_certificate_is_named() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "not PEM").unwrap();
        let Err(error) = read(Some(file.path()), None, None) else { panic!("accepted") };
        assert!(error.to_string().contains(&*file.path().to_string_lossy()), "{error}");
        let Err(error) = read(Some(Path::new("/nowhere.pem")), None, None) else { panic!("accepted") };
        assert_eq!(error.to_string(), "cannot read /nowhere.pem");
    }

    #[test]
    fn gos_answer_to_a_plain_request_is_known() {
        assert!(refuses_plain("Client sent an HTTP request to an HTTPS server.\n"));
        assert!(!refuses_plain("400 Bad Request: missing required Host header"));
    }

    #[test]
    fn the_side_that_refused_tls_is_found_at_any_depth() {
        #[derive(Debug, thiserror::Error)]
        #[error("cannot send")]
        struct Outer(#[source] std::io::Error);
        let outer = |error: Box<dyn std::error::Error + Send + Sync>| Outer(std::io::Error::other(error));
        let alert = rustls::Error::AlertReceived(rustls::AlertDescription::UnknownCA);
        let untrusted = rustls::Error::InvalidCertificate(rustls::CertificateError::UnknownIssuer);
        let file = TlsError::Read { path: "/key".into(), source: std::io::ErrorKind::NotFound.into() };
        let plain = PlainRefused { status: "400 Bad Request".into() };
        assert_eq!(fault(&outer(alert.into())), Some(TlsFault::Peer));
        assert_eq!(fault(&outer(untrusted.into())), Some(TlsFault::Here));
        assert_eq!(fault(&outer(file.into())), Some(TlsFault::Files));
        assert_eq!(fault(&outer(plain.into())), Some(TlsFault::Plain));
        assert_eq!(fault(&Outer(std::io::ErrorKind::ConnectionRefused.into())), None);
        assert_eq!(fault(&outer("a word".into())), None);
    }
}
