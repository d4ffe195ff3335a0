//! An authority that somebody else makes: a company's PKI, or cert-manager.
//!
//! Whoever made it could have issued other certificates from it, and it may allow all names. Nothing rests on that: who
//! verifies asks for a kind's name and usage ([`crate::verify`]), so it has to be an authority of mirrord's own, which
//! nobody else lets issue names below `mirrord.dev`.

use rustls::pki_types::CertificateDer;
use thiserror::Error;

use crate::{Authority, AuthorityError, UnixTime, succession::Pem, verify::admits_control_plane};

/// Why a supplied authority can't be used.
#[derive(Debug, Error)]
pub enum SupplyError {
    /// It isn't read.
    #[error("{0}")]
    Unreadable(#[from] AuthorityError),
    /// The key isn't in the one form that ring reads.
    #[error(
        "the key isn't PKCS #8, for which PEM says `BEGIN PRIVATE KEY`: convert it by `openssl pkcs8 -topk8 -nodes`, or \
         set cert-manager's `privateKey.encoding: PKCS8`"
    )]
    Encoding,
    /// It may not issue.
    #[error(
        "the certificate is no authority's: it needs basicConstraints CA, and keyCertSign among its key usages"
    )]
    NoAuthority,
    /// Not of this moment.
    #[error("the certificate is valid from {from} to {to} only (seconds since 1970)")]
    Time {
        /// First moment.
        from: UnixTime,
        /// Last moment.
        to: UnixTime,
    },
    /// What it issues isn't accepted.
    #[error(
        "what it issues isn't accepted: its name constraints have to permit DNS names below `svc` and `mirrord.dev`, its key \
         has to be ECDSA P-256 or P-384, Ed25519 or RSA, and no attribute may stand twice in its name"
    )]
    NotAccepted,
}

impl Authority {
    /// Reads a supplied authority: the first certificate, and the key, of a Secret as of `kubernetes.io/tls`.
    ///
    /// # Errors
    /// See [`SupplyError`].
    pub fn supplied(certificates_pem: &str, key_pem: &str, now: UnixTime) -> Result<Self, SupplyError> {
        if !key_pem.contains("-----BEGIN PRIVATE KEY-----") {
            return Err(SupplyError::Encoding);
        }
        // What stands behind it leads to a root, which nobody here trusts.
        let first = Pem::all(certificates_pem)?.into_iter().next();
        let first = first.ok_or_else(|| AuthorityError::Pem("no certificate".to_owned()))?;
        let supplied = Self::load(&first.text, key_pem)?;
        if !may_issue(supplied.certificate()) {
            return Err(SupplyError::NoAuthority);
        }
        let (from, to) = supplied.validity();
        if now < from || now >= to {
            return Err(SupplyError::Time { from, to });
        }
        let identity = supplied.control_plane(now)?;
        if !admits_control_plane([supplied.certificate().clone()], &identity, now) {
            return Err(SupplyError::NotAccepted);
        }
        Ok(supplied)
    }
}

fn may_issue(certificate: &CertificateDer<'_>) -> bool {
    let Ok((_, parsed)) = x509_parser::parse_x509_certificate(certificate) else { return false };
    let usages = parsed.key_usage().ok().flatten();
    parsed.is_ca() && usages.is_none_or(|usages| usages.value.key_cert_sign())
}
