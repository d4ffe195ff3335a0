//! Fills the Secrets of the authority and of the gate key once. The chart renders them empty, so that our right is
//! to get and update two Secrets by name, and none to create any.
//!
//! Replicas that start together race by resourceVersion: one update wins, the others get a conflict and read again.
//! A Secret that holds something is never written.

use std::collections::BTreeMap;

use k8s_openapi::{ByteString, api::core::v1::Secret};
use kube::{Api, Error, api::PostParams};
use mirrord_certs::{Authority, AuthorityError, GateMaster, UnixTime};

/// Keys of the authority's Secret, as `kubernetes.io/tls` calls them.
const CERTIFICATE: &str = "tls.crt";
const PRIVATE_KEY: &str = "tls.key";
/// Key of the gate's Secret.
const GATE: &str = "current";
/// Two replicas conflict once; more conflicts are somebody else's doing.
const ATTEMPTS: usize = 5;

/// Why a Secret could not be had.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// The API server refused, or could not be reached.
    #[error(
        "Secret {name}: {error}. It is made, empty, by mirrord's Helm chart, which also allows to get and update it"
    )]
    Api {
        /// Which.
        name: String,
        /// What was said.
        error: Box<Error>,
    },
    /// What it holds can't be used. It is never overwritten: sidecars trust it.
    #[error(
        "Secret {name} holds {what}; restore it from a backup, or empty it and restart all injected workloads"
    )]
    Unusable {
        /// Which.
        name: String,
        /// What is wrong.
        what: String,
    },
    /// Somebody else keeps changing it.
    #[error("Secret {0} changed under each attempt to fill it")]
    Contended(String),
    /// No key could be made.
    #[error("making a key: {0}")]
    Make(#[from] AuthorityError),
    /// No key could be made.
    #[error("making a key: the system has no randomness")]
    NoRandomness,
}

/// The authority: that of the Secret, or a new one put there.
///
/// # Errors
/// See [`SecretError`].
pub async fn authority(api: &Api<Secret>, name: &str, now: UnixTime) -> Result<Authority, SecretError> {
    let data = filled(api, name, || {
        let authority = Authority::create(now)?;
        let (certificate, key) = (authority.certificate_pem().as_bytes(), authority.key_pem().as_bytes());
        Ok(BTreeMap::from([entry(CERTIFICATE, certificate), entry(PRIVATE_KEY, key)]))
    })
    .await?;
    read_authority(&data).map_err(|what| SecretError::Unusable { name: name.to_owned(), what })
}

/// The gate key: that of the Secret, or a new one put there.
///
/// # Errors
/// See [`SecretError`].
pub async fn gate_key(api: &Api<Secret>, name: &str) -> Result<GateMaster, SecretError> {
    let data = filled(api, name, || {
        let key = GateMaster::generate().ok_or(SecretError::NoRandomness)?;
        Ok(BTreeMap::from([entry(GATE, key.as_bytes())]))
    })
    .await?;
    let key = data.get(GATE).and_then(|bytes| GateMaster::new(&bytes.0));
    key.ok_or_else(|| SecretError::Unusable { name: name.to_owned(), what: format!("no {GATE} of 32 bytes") })
}

fn entry(key: &str, value: &[u8]) -> (String, ByteString) {
    (key.to_owned(), ByteString(value.to_vec()))
}

fn read_authority(data: &BTreeMap<String, ByteString>) -> Result<Authority, String> {
    let text = |key: &str| {
        let bytes = data.get(key).ok_or_else(|| format!("no {key}"))?;
        std::str::from_utf8(&bytes.0).map_err(|_| format!("a {key} that is no PEM"))
    };
    Authority::load(text(CERTIFICATE)?, text(PRIVATE_KEY)?)
        .map_err(|error| format!("no usable authority: {error}"))
}

/// What a Secret holds, after filling it if it holds nothing.
async fn filled(
    api: &Api<Secret>,
    name: &str,
    make: impl Fn() -> Result<BTreeMap<String, ByteString>, SecretError>,
) -> Result<BTreeMap<String, ByteString>, SecretError> {
    let failed = |error| SecretError::Api { name: name.to_owned(), error: Box::new(error) };
    for _ in 0..ATTEMPTS {
        let mut secret = api.get(name).await.map_err(failed)?;
        if let Some(data) = secret.data.take().filter(|data| data.values().any(|value| !value.0.is_empty())) {
            return Ok(data);
        }
        secret.data = Some(make()?);
        match api.replace(name, &PostParams::default(), &secret).await {
            Ok(stored) => {
                tracing::info!(secret = name, "filled");
                return Ok(stored.data.unwrap_or_default());
            }
            Err(Error::Api(status)) if status.code == 409 => {}
            Err(error) => return Err(failed(error)),
        }
    }
    Err(SecretError::Contended(name.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_put_into_the_secret_is_read_again() {
        let authority = Authority::create(1_800_000_000).unwrap();
        let (certificate, key) = (authority.certificate_pem().as_bytes(), authority.key_pem().as_bytes());
        let mut data = BTreeMap::from([entry(CERTIFICATE, certificate), entry(PRIVATE_KEY, key)]);
        assert_eq!(read_authority(&data).ok().unwrap().certificate(), authority.certificate());
        data.insert(PRIVATE_KEY.to_owned(), ByteString(b"half a key".to_vec()));
        assert!(read_authority(&data).err().unwrap().contains("no usable authority"));
        data.remove(PRIVATE_KEY);
        assert_eq!(read_authority(&data).err().unwrap(), "no tls.key");
    }
}
