//! The certificate authority of an installation, and what it issues.

use std::fmt::Write as _;

use mirrord_protocol::{DOMAIN, route::RouteId};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, CidrSubnet, DistinguishedName,
    DnType, DnValue, ExtendedKeyUsagePurpose, GeneralSubtree, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    NameConstraints, PublicKeyData,
};
use ring::hmac;
use rustls::pki_types::{
    CertificateDer, CertificateSigningRequestDer, PrivateKeyDer, PrivatePkcs8KeyDer, pem::PemObject,
};
use thiserror::Error;
use time::OffsetDateTime;
use x509_parser::{asn1_rs::Tag, certificate::Validity, time::ASN1Time};

use crate::{
    KeyHash, UnixTime,
    succession::{PREDECESSORS, Past},
};

/// The name in the control plane's client certificate.
pub const CONTROL_PLANE_NAME: &str = "boot.control.mirrord.dev";

/// How long an authority lives, in seconds: 5 years.
const AUTHORITY_LIFETIME: u64 = 5 * 365 * DAY;
/// How long serving and control-plane certificates live, in seconds.
const LEAF_LIFETIME: u64 = 90 * DAY;
/// How far certificates are valid before they are issued, in seconds, for clocks that differ.
pub(crate) const BACKDATED: u64 = 3600;
const DAY: u64 = 24 * 3600;

/// Why a certificate could not be issued or loaded.
#[derive(Debug, Error)]
pub enum AuthorityError {
    /// Making or reading a certificate failed.
    #[error("certificate: {0}")]
    Certificate(#[from] rcgen::Error),
    /// Not PEM, or not the expected item.
    #[error("PEM: {0}")]
    Pem(String),
    /// The certificate isn't that of the key.
    #[error("the CA certificate belongs to another key")]
    KeyMismatch,
    /// A moment that no certificate can express.
    #[error("time {0} is out of range")]
    Time(UnixTime),
}

/// A certificate with its private key, for TLS.
#[derive(Debug)]
pub struct Identity {
    /// Leaf first; the authority itself not included, but what its predecessors said of it.
    pub chain: Vec<CertificateDer<'static>>,
    /// PKCS #8.
    pub key: PrivateKeyDer<'static>,
    /// When it must have been replaced.
    pub not_after: UnixTime,
}

/// A certificate authority with its key, and what is left of those before it ([`crate::succession`]).
pub struct Authority {
    certificate: CertificateDer<'static>,
    certificate_pem: String,
    key_pem: String,
    pub(crate) issuer: Issuer<'static, KeyPair>,
    pub(crate) past: Past,
}

impl Authority {
    /// Makes a new authority, which can sign only the names of this crate's kinds.
    ///
    /// # Errors
    /// See [`AuthorityError`].
    pub fn create(now: UnixTime) -> Result<Self, AuthorityError> {
        let key = KeyPair::generate()?;
        let certificate = authority_params(&key, now)?.self_signed(&key)?;
        Self::load(&certificate.pem(), &key.serialize_pem())
    }

    /// Loads an authority from what [`Self::certificate_pem`] and [`Self::key_pem`] gave.
    ///
    /// # Errors
    /// See [`AuthorityError`].
    pub fn load(certificate_pem: &str, key_pem: &str) -> Result<Self, AuthorityError> {
        let certificate = CertificateDer::from_pem_slice(certificate_pem.as_bytes())
            .map_err(|error| AuthorityError::Pem(error.to_string()))?;
        let key = KeyPair::from_pem(key_pem)?;
        let end_entity = webpki::EndEntityCert::try_from(&certificate)
            .map_err(|error| AuthorityError::Pem(error.to_string()))?;
        if !end_entity.subject_public_key_info().ends_with(key.der_bytes()) {
            return Err(AuthorityError::KeyMismatch);
        }
        let issuer = Issuer::from_ca_cert_der(&certificate, key)?;
        let (certificate_pem, key_pem) = (certificate_pem.into(), key_pem.into());
        Ok(Self { certificate, certificate_pem, key_pem, issuer, past: Past::default() })
    }

    /// The certificate, DER.
    #[must_use]
    pub fn certificate(&self) -> &CertificateDer<'static> {
        &self.certificate
    }

    /// The certificate, PEM.
    #[must_use]
    pub fn certificate_pem(&self) -> &str {
        &self.certificate_pem
    }

    /// When its certificate ends; 0 where that can't be read, which its issuing excludes.
    #[must_use]
    pub fn not_after(&self) -> UnixTime {
        self.validity().1
    }

    /// From when until when its certificate is valid.
    pub(crate) fn validity(&self) -> (UnixTime, UnixTime) {
        let Ok((_, parsed)) = x509_parser::parse_x509_certificate(&self.certificate) else { return (0, 0) };
        let Validity { not_before, not_after } = parsed.validity();
        let moment = |time: &ASN1Time| UnixTime::try_from(time.timestamp()).unwrap_or(0);
        (moment(not_before), moment(not_after))
    }

    /// Its name, as it stands in what it issues.
    pub(crate) fn subject(&self) -> Result<DistinguishedName, AuthorityError> {
        let parsed = x509_parser::parse_x509_certificate(&self.certificate);
        let (_, parsed) = parsed.map_err(|error| AuthorityError::Pem(error.to_string()))?;
        let mut name = DistinguishedName::new();
        for attribute in parsed.subject().iter_attributes() {
            let oid: Option<Vec<u64>> = attribute.attr_type().iter().map(Iterator::collect);
            let text = attribute.as_str().map_err(|error| AuthorityError::Pem(error.to_string()))?;
            let value = match attribute.attr_value().header.tag() {
                Tag::PrintableString => DnValue::PrintableString(text.try_into()?),
                Tag::Ia5String => DnValue::Ia5String(text.try_into()?),
                _ => DnValue::Utf8String(text.to_owned()),
            };
            name.push(DnType::from_oid(&oid.unwrap_or_default()), value);
        }
        Ok(name)
    }

    /// The private key, PKCS #8 PEM: for the control plane's Secret only.
    #[must_use]
    pub fn key_pem(&self) -> &str {
        &self.key_pem
    }

    /// A serving certificate of the webhook, for names below `svc`.
    ///
    /// # Errors
    /// See [`AuthorityError`].
    pub fn serving(&self, names: &[String], now: UnixTime) -> Result<Identity, AuthorityError> {
        let mut params = params("mirrord webhook", now, LEAF_LIFETIME)?;
        params.subject_alt_names = dns_names(names)?;
        self.identity(params, ExtendedKeyUsagePurpose::ServerAuth, now + LEAF_LIFETIME)
    }

    /// The control plane's client certificate for the boot channel.
    ///
    /// # Errors
    /// See [`AuthorityError`].
    pub fn control_plane(&self, now: UnixTime) -> Result<Identity, AuthorityError> {
        let mut params = params("mirrord control plane", now, LEAF_LIFETIME)?;
        params.subject_alt_names = dns_names(&[CONTROL_PLANE_NAME.into()])?;
        self.identity(params, ExtendedKeyUsagePurpose::ClientAuth, now + LEAF_LIFETIME)
    }

    /// The serving certificate of the sidecar of a route, for the key of its CSR (whose own wishes don't count). It is
    /// shown with [`Self::chain`].
    ///
    /// # Errors
    /// See [`AuthorityError`]; a CSR whose signature doesn't hold is refused.
    pub fn sidecar(
        &self,
        csr: &[u8],
        route: RouteId,
        now: UnixTime,
        lifetime: u64,
    ) -> Result<CertificateDer<'static>, AuthorityError> {
        let mut request =
            CertificateSigningRequestParams::from_der(&CertificateSigningRequestDer::from(csr))?;
        request.params = params("mirrord sidecar", now, lifetime)?;
        request.params.subject_alt_names = dns_names(&[route.server_name()])?;
        request.params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        request.params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        request.params.use_authority_key_identifier_extension = true;
        Ok(request.signed_by(&self.issuer)?.der().clone())
    }

    /// The key of a sidecar's stateless resets (RFC 9000 §10.3): the same for a route on all replicas, as long as the
    /// authority stays, and known only to who holds its key.
    #[must_use]
    pub fn reset_key(&self, route: RouteId) -> [u8; 32] {
        self.derived(b"mirrord-reset-key", &route.0)
    }

    /// What the paths of the admission webhook end in, 32 hexadecimal digits: the same on all replicas, and known only to
    /// who holds the authority's key or may read the webhook configuration.
    #[must_use]
    pub fn webhook_path_key(&self) -> String {
        let key = self.derived(b"mirrord-webhook-path", b"");
        key.iter().take(16).fold(String::new(), |mut text, byte| {
            // Writing to a String can't fail.
            let _ = write!(text, "{byte:02x}");
            text
        })
    }

    fn derived(&self, label: &[u8], of: &[u8]) -> [u8; 32] {
        let key = hmac::Key::new(hmac::HMAC_SHA256, &self.issuer.key().serialize_der());
        let mut context = hmac::Context::with_key(&key);
        context.update(label);
        context.update(of);
        let mut derived = [0; 32];
        derived.copy_from_slice(context.sign().as_ref());
        derived
    }

    fn identity(
        &self,
        mut params: CertificateParams,
        usage: ExtendedKeyUsagePurpose,
        not_after: UnixTime,
    ) -> Result<Identity, AuthorityError> {
        let key = KeyPair::generate()?;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![usage];
        params.use_authority_key_identifier_extension = true;
        let certificate = params.signed_by(&key, &self.issuer)?;
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
        Ok(Identity { chain: self.chain(certificate.der()), key, not_after })
    }
}

/// The hash of the key that a CSR (DER) asks a certificate for.
///
/// # Errors
/// See [`AuthorityError`]; a CSR whose signature doesn't hold is refused.
pub fn request_key_hash(csr: &[u8]) -> Result<KeyHash, AuthorityError> {
    let request = CertificateSigningRequestParams::from_der(&CertificateSigningRequestDer::from(csr))?;
    Ok(KeyHash::of(&request.public_key.subject_public_key_info()))
}

/// The certificate of an authority that can sign only the names of this crate's kinds.
pub(crate) fn authority_params(key: &KeyPair, now: UnixTime) -> Result<CertificateParams, AuthorityError> {
    // Authorities are told apart by their names, so that who verifies looks at one key, not at all.
    let hash = KeyHash::of(&key.subject_public_key_info()).to_string();
    let mut params = params(&format!("mirrord CA {}", &hash[..8]), now, AUTHORITY_LIFETIME)?;
    // Room for the cross certificates of those that come later (succession).
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(PREDECESSORS));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    params.name_constraints = Some(NameConstraints {
        permitted_subtrees: ["svc".into(), format!("sidecar.{DOMAIN}"), format!("control.{DOMAIN}")]
            .map(GeneralSubtree::DnsName)
            .into(),
        excluded_subtrees: [CidrSubnet::V4([0; 4], [0; 4]), CidrSubnet::V6([0; 16], [0; 16])]
            .map(GeneralSubtree::IpAddress)
            .into(),
    });
    Ok(params)
}

fn params(common_name: &str, now: UnixTime, lifetime: u64) -> Result<CertificateParams, AuthorityError> {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, common_name);
    params.not_before = moment(now.saturating_sub(BACKDATED))?;
    params.not_after = moment(now.saturating_add(lifetime))?;
    Ok(params)
}

fn moment(time: UnixTime) -> Result<OffsetDateTime, AuthorityError> {
    i64::try_from(time)
        .ok()
        .and_then(|seconds| OffsetDateTime::from_unix_timestamp(seconds).ok())
        .ok_or(AuthorityError::Time(time))
}

fn dns_names(names: &[String]) -> Result<Vec<rcgen::SanType>, AuthorityError> {
    names.iter().map(|name| Ok(rcgen::SanType::DnsName(name.as_str().try_into()?))).collect()
}
