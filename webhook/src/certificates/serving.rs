//! This replica's serving certificate. Each replica issues its own from the shared authority, so nothing has to be
//! stored or agreed on; connections that stand keep the old one, new ones get the new one.
//!
//! Whether it is time for another is looked at in each handshake, not by a timer: a node that slept for months, or whose
//! clock jumped, shows a valid one to the first who asks.

use std::sync::{Arc, Mutex, PoisonError};

use mirrord_certs::{AuthorityError, UnixTime};
use rustls::{
    ServerConfig,
    crypto::ring,
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};

use super::keys::{Keyring, Keys};
use crate::{
    clock,
    metrics::{Certificate, metrics},
};

/// Why there is no serving certificate.
#[derive(Debug, thiserror::Error)]
pub enum ServingError {
    /// The authority could not issue it.
    #[error("issuing the serving certificate: {0}")]
    Authority(#[from] AuthorityError),
    /// TLS can't use it.
    #[error("serving certificate: {0}")]
    Tls(#[from] rustls::Error),
}

/// The serving certificate, which changes while it is served.
pub struct Serving {
    keyring: Keyring,
    names: Vec<String>,
    current: Mutex<Issued>,
}

struct Issued {
    key: Arc<CertifiedKey>,
    renew_at: UnixTime,
    /// The keys that it comes from.
    of: Arc<Keys>,
}

impl Issued {
    fn is_due(&self, keys: &Arc<Keys>, now: UnixTime) -> bool {
        now >= self.renew_at || !Arc::ptr_eq(&self.of, keys)
    }
}

impl Serving {
    /// A certificate for a Service's names.
    ///
    /// # Errors
    /// See [`ServingError`].
    pub fn new(
        keyring: Keyring,
        service: &str,
        namespace: &str,
        now: UnixTime,
    ) -> Result<Arc<Self>, ServingError> {
        // The API server asks for <service>.<namespace>.svc.
        let names = vec![format!("{service}.{namespace}.svc")];
        let current = Mutex::new(issue(keyring.now(), &names, now)?);
        Ok(Arc::new(Self { keyring, names, current }))
    }

    /// The certificate to show at a moment: another one from two thirds of its life on, and after a rotation.
    fn at(&self, now: UnixTime) -> Arc<CertifiedKey> {
        let keys = self.keyring.now();
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        if current.is_due(&keys, now) {
            match issue(keys, &self.names, now) {
                Ok(issued) => *current = issued,
                Err(error) => tracing::error!("the serving certificate can't be renewed: {error}"),
            }
        }
        current.key.clone()
    }

    /// TLS as the API server's client of webhooks wants it: no client certificate, since API servers show none.
    ///
    /// # Errors
    /// See [`ServingError`].
    pub fn tls(self: &Arc<Self>) -> Result<ServerConfig, ServingError> {
        let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(Resolver(self.clone())));
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(config)
    }
}

fn issue(of: Arc<Keys>, names: &[String], now: UnixTime) -> Result<Issued, ServingError> {
    let identity = of.authority.serving(names, now)?;
    let renew_at = now + identity.not_after.saturating_sub(now) / 3 * 2;
    let expiry = i64::try_from(identity.not_after).unwrap_or(i64::MAX);
    metrics().cluster.certificate_expiry.of(Certificate::Serving).set(expiry);
    let key = CertifiedKey::from_der(identity.chain, identity.key, &ring::default_provider())?;
    Ok(Issued { key: Arc::new(key), renew_at, of })
}

struct Resolver(Arc<Serving>);

impl std::fmt::Debug for Resolver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Resolver").field(&self.0.names).finish()
    }
}

impl ResolvesServerCert for Resolver {
    fn resolve(&self, _client: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.at(clock::now()))
    }
}

#[cfg(test)]
mod tests {
    use mirrord_certs::{Authority, GateMaster};
    use tokio::sync::watch;

    use super::*;

    const DAY: u64 = 24 * 3600;
    const START: UnixTime = 1_800_000_000;

    fn keys() -> Arc<Keys> {
        Arc::new(Keys::new(Authority::create(START).unwrap(), GateMaster::generate().unwrap()))
    }

    #[test]
    fn the_certificate_changes_at_two_thirds_of_its_life_and_after_a_long_sleep() {
        let (_keys_tx, keys_rx) = watch::channel(keys());
        let serving = Serving::new(Keyring::new(keys_rx), "mirrord-webhook", "mirrord", START).unwrap();
        let first = serving.at(START);
        assert_eq!(serving.at(START + 59 * DAY).cert, first.cert);
        let second = serving.at(START + 61 * DAY);
        assert_ne!(second.cert, first.cert);
        assert_eq!(serving.at(START + 62 * DAY).cert, second.cert);
        assert_ne!(serving.at(START + 1000 * DAY).cert, second.cert, "it had expired");
    }

    #[test]
    fn the_certificate_changes_with_the_authority_and_brings_what_vouches_for_it() {
        let (keys_tx, keys_rx) = watch::channel(keys());
        let serving = Serving::new(Keyring::new(keys_rx), "mirrord-webhook", "mirrord", START).unwrap();
        assert_eq!(serving.at(START).cert.len(), 1);
        let next = keys_tx.borrow().authority.succeed(START).unwrap();
        keys_tx.send_replace(Arc::new(Keys::new(next, GateMaster::generate().unwrap())));
        let shown = serving.at(START);
        assert_eq!(shown.cert.len(), 2);
        assert_eq!(serving.at(START).cert, shown.cert);
    }
}
