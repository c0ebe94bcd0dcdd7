//! TLS to the agent as libprocess does it: encryption always, trust only when the operator asks for it.
//!
//! The agent is on this very host, so when it is verified its certificate must be for the address we
//! call or for the host's name.

use std::net::IpAddr;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::WebPkiServerVerifier;
use rustls::crypto::{verify_tls12_signature, verify_tls13_signature, CryptoProvider};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, Error, SignatureScheme};

use crate::mesos::environment::Tls;
use crate::tls::{self, TlsError};

pub(super) fn client_config(tls: &Tls, agent: IpAddr) -> Result<ClientConfig, TlsError> {
    let provider = tls::provider();
    let chain = match tls.verify_server {
        true => {
            let roots = Arc::new(tls::roots(tls.ca_file.as_deref())?);
            Some(
                WebPkiServerVerifier::builder_with_provider(roots, provider.clone())
                    .build()
                    .map_err(TlsError::Roots)?,
            )
        }
        false => None,
    };
    let verifier = Arc::new(Verifier { chain, names: names(agent), provider });
    tls::client_with_verifier(verifier, tls.identity.as_ref().map(|(cert, key)| (&**cert, &**key)))
}

fn names(agent: IpAddr) -> Vec<ServerName<'static>> {
    let hostname = nix::unistd::gethostname().ok().and_then(|name| name.into_string().ok());
    let hostname = hostname.and_then(|name| ServerName::try_from(name).ok());
    std::iter::once(ServerName::IpAddress(agent.into())).chain(hostname).collect()
}

#[derive(Debug)]
struct Verifier {
    /// `None`: any certificate will do.
    chain: Option<Arc<WebPkiServerVerifier>>,
    names: Vec<ServerName<'static>>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        called: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let Some(chain) = &self.chain else { return Ok(ServerCertVerified::assertion()) };
        let verify =
            |name: &ServerName<'_>| chain.verify_server_cert(end_entity, intermediates, name, ocsp, now);
        // Should no name do, the error is about the one that was called.
        self.names.iter().find_map(|name| verify(name).ok()).map_or_else(|| verify(called), Ok)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, signature, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, signature, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
