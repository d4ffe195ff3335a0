//! This replica's serving certificate. Each replica issues its own from the shared authority, so nothing has to be
//! stored or agreed on; connections that stand keep the old one, new ones get the new one.

use std::{
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use mirrord_certs::{Authority, AuthorityError, UnixTime};
use rustls::{
    ServerConfig,
    crypto::ring,
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};

use crate::{
    clock,
    metrics::{Certificate, metrics},
};

/// How often to look whether it is time to renew. (Clocks jump; a timer over months would not notice.)
const CHECK: Duration = Duration::from_secs(3600);

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
    authority: Arc<Authority>,
    names: Vec<String>,
    current: RwLock<Issued>,
}

struct Issued {
    key: Arc<CertifiedKey>,
    renew_at: UnixTime,
}

impl Serving {
    /// A certificate for a Service's names.
    ///
    /// # Errors
    /// See [`ServingError`].
    pub fn new(
        authority: Arc<Authority>,
        service: &str,
        namespace: &str,
        now: UnixTime,
    ) -> Result<Arc<Self>, ServingError> {
        // The API server asks for <service>.<namespace>.svc.
        let names = vec![format!("{service}.{namespace}.svc")];
        let current = RwLock::new(issue(&authority, &names, now)?);
        Ok(Arc::new(Self { authority, names, current }))
    }

    /// Renews at two thirds of the certificate's life, for ever.
    pub async fn keep_fresh(&self) {
        let mut checks = tokio::time::interval(CHECK);
        loop {
            checks.tick().await;
            if let Err(error) = self.renew_if_due(clock::now()) {
                tracing::error!("the serving certificate can't be renewed: {error}");
            }
        }
    }

    fn renew_if_due(&self, now: UnixTime) -> Result<bool, ServingError> {
        if now < self.current.read().unwrap_or_else(PoisonError::into_inner).renew_at {
            return Ok(false);
        }
        let issued = issue(&self.authority, &self.names, now)?;
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = issued;
        Ok(true)
    }

    fn current(&self) -> Arc<CertifiedKey> {
        self.current.read().unwrap_or_else(PoisonError::into_inner).key.clone()
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

fn issue(authority: &Authority, names: &[String], now: UnixTime) -> Result<Issued, ServingError> {
    let identity = authority.serving(names, now)?;
    let renew_at = now + identity.not_after.saturating_sub(now) / 3 * 2;
    let expiry = i64::try_from(identity.not_after).unwrap_or(i64::MAX);
    metrics().cluster.certificate_expiry.of(Certificate::Serving).set(expiry);
    let key = CertifiedKey::from_der(identity.chain, identity.key, &ring::default_provider())?;
    Ok(Issued { key: Arc::new(key), renew_at })
}

struct Resolver(Arc<Serving>);

impl std::fmt::Debug for Resolver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Resolver").field(&self.0.names).finish()
    }
}

impl ResolvesServerCert for Resolver {
    fn resolve(&self, _client: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.current())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: u64 = 24 * 3600;

    #[test]
    fn the_certificate_changes_at_two_thirds_of_its_life() {
        let start = 1_800_000_000;
        let authority = Arc::new(Authority::create(start).unwrap());
        let serving = Serving::new(authority, "mirrord-webhook", "mirrord", start).unwrap();
        let first = serving.current();
        assert!(!serving.renew_if_due(start + 59 * DAY).unwrap());
        assert!(serving.renew_if_due(start + 61 * DAY).unwrap());
        assert_ne!(serving.current().cert, first.cert);
        assert!(!serving.renew_if_due(start + 62 * DAY).unwrap());
    }
}
