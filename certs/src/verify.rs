//! rustls configurations of the tunnel's ends. TLS 1.3 only, no tickets, no resumption, no 0-RTT: rustls doesn't ask
//! for the client's key again on resumption.

use std::sync::Arc;

use mirrord_protocol::{ALPN, ALPN_BOOT};
use rustls::{
    ClientConfig, DigitallySignedStruct, DistinguishedName, Error, RootCertStore, ServerConfig,
    SignatureScheme,
    client::{
        Resumption, WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{CryptoProvider, WebPkiSupportedAlgorithms, ring},
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime},
    server::{
        NoServerSessionStorage, WebPkiClientVerifier,
        danger::{ClientCertVerified, ClientCertVerifier},
    },
    version::TLS13,
};

use crate::{CONTROL_PLANE_NAME, Identity, SelfSigned};

fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

fn roots<'a>(authorities: impl IntoIterator<Item = CertificateDer<'a>>) -> Result<Arc<RootCertStore>, Error> {
    let mut roots = RootCertStore::empty();
    for authority in authorities {
        roots.add(authority.into_owned())?;
    }
    Ok(Arc::new(roots))
}

/// A client's side of a session: its own key, and sidecars of these authorities only.
///
/// # Errors
/// A certificate that rustls can't take.
pub fn session_client<'a>(
    key: &SelfSigned,
    authorities: impl IntoIterator<Item = CertificateDer<'a>>,
) -> Result<ClientConfig, Error> {
    let verifier = WebPkiServerVerifier::builder_with_provider(roots(authorities)?, provider())
        .build()
        .map_err(|error| Error::General(error.to_string()))?;
    let config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])?
        .with_webpki_verifier(verifier)
        .with_client_auth_cert(vec![key.certificate().clone()], key.private_key())?;
    Ok(client_defaults(config, ALPN))
}

/// A sidecar's side of sessions: any key may knock; whose it is, is decided by what was announced.
///
/// # Errors
/// A certificate that rustls can't take.
pub fn session_server(
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
) -> Result<ServerConfig, Error> {
    server(Arc::new(AnyKey::new()), chain, key, ALPN)
}

/// The control plane's side of the boot channel: shows its certificate; takes any sidecar key, to be proved inside.
///
/// # Errors
/// A certificate that rustls can't take.
pub fn boot_client(identity: &Identity) -> Result<ClientConfig, Error> {
    let config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(AnyKey::new()))
        .with_client_auth_cert(identity.chain.clone(), identity.key.clone_key())?;
    Ok(client_defaults(config, ALPN_BOOT))
}

/// A sidecar's side of the boot channel: only the control plane of these authorities may call.
///
/// # Errors
/// A certificate that rustls can't take.
pub fn boot_server<'a>(
    key: &SelfSigned,
    authorities: impl IntoIterator<Item = CertificateDer<'a>>,
) -> Result<ServerConfig, Error> {
    let chains = WebPkiClientVerifier::builder_with_provider(roots(authorities)?, provider())
        .build()
        .map_err(|error| Error::General(error.to_string()))?;
    server(Arc::new(ControlPlane(chains)), vec![key.certificate().clone()], key.private_key(), ALPN_BOOT)
}

/// Whether a sidecar that trusts these authorities would let a control plane of this identity in, at a moment: what
/// [`boot_server`] decides in the handshake.
#[must_use]
pub fn admits_control_plane<'a>(
    authorities: impl IntoIterator<Item = CertificateDer<'a>>,
    identity: &Identity,
    now: crate::UnixTime,
) -> bool {
    let Some((leaf, intermediates)) = identity.chain.split_first() else { return false };
    let Ok(roots) = roots(authorities) else { return false };
    let Ok(chains) = WebPkiClientVerifier::builder_with_provider(roots, provider()).build() else {
        return false;
    };
    let now = UnixTime::since_unix_epoch(std::time::Duration::from_secs(now));
    ControlPlane(chains).verify_client_cert(leaf, intermediates, now).is_ok()
}

fn server(
    verifier: Arc<dyn ClientCertVerifier>,
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    alpn: &[u8],
) -> Result<ServerConfig, Error> {
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])?
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain, key)?;
    config.alpn_protocols = vec![alpn.to_vec()];
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(config)
}

fn client_defaults(mut config: ClientConfig, alpn: &[u8]) -> ClientConfig {
    config.alpn_protocols = vec![alpn.to_vec()];
    config.resumption = Resumption::disabled();
    config
}

/// Takes any certificate whose key signed the handshake.
#[derive(Debug)]
struct AnyKey(WebPkiSupportedAlgorithms);

impl AnyKey {
    fn new() -> Self {
        Self(ring::default_provider().signature_verification_algorithms)
    }

    fn tls13(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        rustls::crypto::verify_tls13_signature(message, certificate, signature, &self.0)
    }
}

fn no_tls12() -> Error {
    Error::PeerIncompatible(rustls::PeerIncompatible::Tls12NotOffered)
}

impl ClientCertVerifier for AnyKey {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(no_tls12())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.tls13(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_schemes()
    }
}

impl ServerCertVerifier for AnyKey {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(no_tls12())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.tls13(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_schemes()
    }
}

/// Takes a client certificate of the authority that also carries the control plane's name.
#[derive(Debug)]
struct ControlPlane(Arc<dyn ClientCertVerifier>);

impl ClientCertVerifier for ControlPlane {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let verified = self.0.verify_client_cert(end_entity, intermediates, now)?;
        let name =
            ServerName::try_from(CONTROL_PLANE_NAME).map_err(|error| Error::General(error.to_string()))?;
        webpki::EndEntityCert::try_from(end_entity)
            .and_then(|certificate| certificate.verify_is_valid_for_subject_name(&name))
            .map_err(|_| Error::InvalidCertificate(rustls::CertificateError::NotValidForName))?;
        Ok(verified)
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(no_tls12())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_verify_schemes()
    }
}
