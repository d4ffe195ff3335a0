//! How an authority hands over to the next.
//!
//! A sidecar trusts the authority that was put on its command line, for as long as its pod lives. So the old authority
//! signs a certificate for the key of the new one, a *cross certificate* (RFC 5280 §3.2), before its own key is thrown
//! away. It goes behind each leaf that the new one issues: who trusts either accepts them.
//!
//! The other way round there is an overlap: who is told of the new authority is told of the old one as well for
//! [`OVERLAP`], since a replica or a sidecar may still show what the old one issued. It ends when the old one's
//! certificate is taken out of the store, so that all replicas see it end, whatever their clocks show.

use rcgen::PublicKeyData;
use rustls::pki_types::{CertificateDer, pem::PemObject};

use crate::{
    Authority, AuthorityError, UnixTime,
    authority::{BACKDATED, authority_params},
};

/// How many predecessors are remembered. Each costs some 550 bytes of a handshake's first flight, which must stay below
/// three times a client's first datagram (RFC 9000 §8.1).
pub const PREDECESSORS: u8 = 4;
/// How long the last authority is still shown beside the new one, in seconds.
pub const OVERLAP: u64 = 3600;

/// What is left of former authorities.
#[derive(Clone, Debug, Default)]
pub(crate) struct Past {
    /// Cross certificates, each for the one before it, the first for the authority itself.
    cross: Vec<Pem>,
    /// The last authority, in the overlap.
    previous: Option<Pem>,
}

/// A certificate.
#[derive(Clone, Debug)]
pub(crate) struct Pem {
    pub(crate) text: String,
    der: CertificateDer<'static>,
}

impl Pem {
    fn new(certificate: &rcgen::Certificate) -> Self {
        Self { text: certificate.pem(), der: certificate.der().clone() }
    }

    /// All that stand in a text. What else stands there is left out: people write remarks, and some put the key before it.
    pub(crate) fn all(text: &str) -> Result<Vec<Self>, AuthorityError> {
        const BEGIN: &str = "-----BEGIN CERTIFICATE-----";
        const END: &str = "-----END CERTIFICATE-----";
        let texts =
            text.split_inclusive(END).filter_map(|text| text.rfind(BEGIN).and_then(|at| text.get(at..)));
        texts
            .map(|text| {
                let der = CertificateDer::from_pem_slice(text.as_bytes());
                let der = der.map_err(|error| AuthorityError::Pem(error.to_string()))?;
                Ok(Self { text: format!("{text}\n"), der })
            })
            .collect()
    }
}

impl Authority {
    /// Makes the next authority, signed by itself and by this one.
    ///
    /// # Errors
    /// See [`AuthorityError`].
    pub fn succeed(&self, now: UnixTime) -> Result<Self, AuthorityError> {
        self.hand_over(Self::create(now)?, now)
    }

    /// Makes another authority the next one: this one signs for its key. Where it has the same key and name, as after a
    /// mere renewal of the certificate, what was signed for that key stays.
    ///
    /// # Errors
    /// See [`AuthorityError`].
    pub fn hand_over(&self, mut next: Self, now: UnixTime) -> Result<Self, AuthorityError> {
        let mut cross = self.past.cross.clone();
        let key = |authority: &Self| authority.issuer.key().subject_public_key_info();
        // Leaves name their issuer as it names itself: under another name, also of the same key, nobody knows them.
        let name = next.subject()?;
        if key(&next) != key(self) || name != self.subject()? {
            let mut params = authority_params(next.issuer.key(), now)?;
            params.distinguished_name = name;
            cross.insert(0, Pem::new(&params.signed_by(next.issuer.key(), &self.issuer)?));
            cross.truncate(PREDECESSORS.into());
        }
        let previous = Pem { text: self.certificate_pem().to_owned(), der: self.certificate().clone() };
        next.past = Past { cross, previous: Some(previous) };
        Ok(next)
    }

    /// Adds what [`Self::cross_pem`] and [`Self::previous_pem`] gave.
    ///
    /// # Errors
    /// See [`AuthorityError`].
    pub fn with_past(mut self, cross_pem: &str, previous_pem: &str) -> Result<Self, AuthorityError> {
        let mut cross = Pem::all(cross_pem)?;
        cross.truncate(PREDECESSORS.into());
        self.past = Past { cross, previous: Pem::all(previous_pem)?.into_iter().next() };
        Ok(self)
    }

    /// Cross certificates, PEM, the one for this authority first; empty where it is the first of its line.
    #[must_use]
    pub fn cross_pem(&self) -> String {
        self.past.cross.iter().map(|one| one.text.as_str()).collect()
    }

    /// The last authority's certificate, DER; `None` where there was none, or the overlap is over.
    #[must_use]
    pub fn previous(&self) -> Option<&CertificateDer<'static>> {
        self.past.previous.as_ref().map(|one| &one.der)
    }

    /// The last authority's certificate, PEM; empty where there was none, or the overlap is over.
    #[must_use]
    pub fn previous_pem(&self) -> &str {
        self.past.previous.as_ref().map_or("", |one| &one.text)
    }

    /// Whose leaves are to be accepted, PEM: this authority's, and in the overlap its predecessor's.
    #[must_use]
    pub fn trusted_pem(&self) -> String {
        self.certificate_pem().to_owned() + self.previous_pem()
    }

    /// When its predecessor is to be forgotten; `None` where there is none. `since`: when it took over, where that is known;
    /// what others made may have been issued long before.
    #[must_use]
    pub fn overlap_ends(&self, since: Option<UnixTime>) -> Option<UnixTime> {
        self.past.previous.as_ref().map(|_| since.unwrap_or_else(|| self.issued_at()) + OVERLAP)
    }

    /// When the next one is to take over: at two thirds of its life, which others may have made a short one.
    #[must_use]
    pub fn due_at(&self) -> UnixTime {
        self.issued_at() + self.not_after().saturating_sub(self.issued_at()) / 3 * 2
    }

    fn issued_at(&self) -> UnixTime {
        self.validity().0 + BACKDATED
    }

    /// A leaf and what belongs behind it, so that who trusts a predecessor accepts it.
    #[must_use]
    pub fn chain(&self, leaf: &CertificateDer<'static>) -> Vec<CertificateDer<'static>> {
        std::iter::once(leaf).chain(self.past.cross.iter().map(|one| &one.der)).cloned().collect()
    }
}
