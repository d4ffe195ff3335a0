//! Keys that stand for themselves: a client's session key, and a sidecar's key before it has a certificate.

use std::fmt;

use rcgen::{CertificateParams, KeyPair};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};

use crate::AuthorityError;

/// Length of a [`KeyHash`], in bytes.
pub const KEY_HASH_BYTES: usize = 32;

/// SHA-256 of a public key (SubjectPublicKeyInfo, DER): the id of a session.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct KeyHash(pub [u8; KEY_HASH_BYTES]);

impl KeyHash {
    /// Hashes a public key.
    #[must_use]
    pub fn of(subject_public_key_info: &[u8]) -> Self {
        let digest = ring::digest::digest(&ring::digest::SHA256, subject_public_key_info);
        let mut hash = [0; KEY_HASH_BYTES];
        hash.copy_from_slice(digest.as_ref());
        Self(hash)
    }
}

impl fmt::Display for KeyHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for KeyHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The hash of the key in a certificate; `None` where the bytes are no certificate.
#[must_use]
pub fn key_hash(certificate: &CertificateDer<'_>) -> Option<KeyHash> {
    let certificate = webpki::EndEntityCert::try_from(certificate).ok()?;
    Some(KeyHash::of(&certificate.subject_public_key_info()))
}

/// A fresh ECDSA P-256 key with a certificate that it signed itself.
pub struct SelfSigned {
    key: KeyPair,
    certificate: CertificateDer<'static>,
}

impl SelfSigned {
    /// Makes a key and its certificate.
    ///
    /// # Errors
    /// See [`AuthorityError`].
    pub fn generate() -> Result<Self, AuthorityError> {
        let key = KeyPair::generate()?;
        let certificate = CertificateParams::default().self_signed(&key)?.der().clone();
        Ok(Self { key, certificate })
    }

    /// The certificate, DER.
    #[must_use]
    pub fn certificate(&self) -> &CertificateDer<'static> {
        &self.certificate
    }

    /// The private key, PKCS #8.
    #[must_use]
    pub fn private_key(&self) -> PrivateKeyDer<'static> {
        PrivateKeyDer::from(PrivatePkcs8KeyDer::from(self.key.serialize_der()))
    }

    /// The public key: SubjectPublicKeyInfo, DER.
    #[must_use]
    pub fn public_key(&self) -> Vec<u8> {
        rcgen::PublicKeyData::subject_public_key_info(&self.key)
    }

    /// What the key is known by.
    #[must_use]
    pub fn key_hash(&self) -> KeyHash {
        KeyHash::of(&self.public_key())
    }

    /// A certificate signing request for the key, DER.
    ///
    /// # Errors
    /// See [`AuthorityError`].
    pub fn signing_request(&self) -> Result<Vec<u8>, AuthorityError> {
        Ok(CertificateParams::default().serialize_request(&self.key)?.der().to_vec())
    }
}

impl fmt::Debug for SelfSigned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SelfSigned").field("key_hash", &self.key_hash()).finish_non_exhaustive()
    }
}
