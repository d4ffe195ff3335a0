//! Fills the Secrets of the authority and of the gate key, and reads them. The chart renders them empty, so that our right
//! is to read and update two Secrets by name, and none to create any.
//!
//! Replicas that start together race by resourceVersion: one update wins, the others get a conflict and read again.
//! A Secret that holds something is written by nothing but a rotation ([`super::rotation`]).

use std::collections::BTreeMap;

use k8s_openapi::{ByteString, api::core::v1::Secret};
use kube::{Api, Error, ResourceExt, api::PostParams};
use mirrord_certs::{Authority, AuthorityError, GateMaster, UnixTime};

use super::keys::GateKeys;

/// Keys of the authority's Secret, as `kubernetes.io/tls` calls them.
pub(super) const CERTIFICATE: &str = "tls.crt";
pub(super) const PRIVATE_KEY: &str = "tls.key";
/// Of its predecessors: cross certificates, and the last one's own. Missing where there were none.
pub(super) const CROSS: &str = "cross.crt";
pub(super) const PREVIOUS: &str = "previous.crt";
/// What the webhooks' paths end in. Missing before a rotation: it then comes from the private key.
pub(super) const PATH: &str = "path.key";
/// Keys of the gate's Secret.
pub(super) const GATE: &str = "current";
pub(super) const GATE_NEXT: &str = "next";
pub(super) const GATE_PREVIOUS: &str = "previous";
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
    /// What it holds can't be used. It is not overwritten: sidecars trust it.
    #[error(
        "Secret {name} holds {what}; restore it from a backup, or empty it and restart all injected workloads"
    )]
    Unusable {
        /// Which.
        name: String,
        /// What is wrong.
        what: String,
    },
    /// What others supply can't be used.
    #[error(
        "Secret {name}, named by the chart's `certificates`, supplies no certificate authority: {what}. See `kubectl describe \
         certificate,secret {name}`"
    )]
    Supply {
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

/// The authority's Secret; where it is empty, the one that `make` has is put there.
///
/// # Errors
/// See [`SecretError`].
pub async fn authority(
    api: &Api<Secret>,
    name: &str,
    make: impl AsyncFn() -> Result<Authority, SecretError>,
) -> Result<Secret, SecretError> {
    filled(api, name, async || {
        let authority = make().await?;
        let (certificate, key) = (authority.certificate_pem().as_bytes(), authority.key_pem().as_bytes());
        Ok(BTreeMap::from([entry(CERTIFICATE, certificate), entry(PRIVATE_KEY, key)]))
    })
    .await
}

/// The authority that others supply.
///
/// # Errors
/// [`SecretError::Supply`], also where it isn't there yet.
pub async fn supply(api: &Api<Secret>, name: &str, now: UnixTime) -> Result<Authority, SecretError> {
    let refused = |what: String| SecretError::Supply { name: name.to_owned(), what };
    let found = api.get_opt(name).await;
    let found = found.map_err(|error| SecretError::Api { name: name.to_owned(), error: Box::new(error) })?;
    let data = found.ok_or_else(|| refused("it isn't there yet".to_owned()))?.data.unwrap_or_default();
    let text = |key: &str| {
        let bytes = data.get(key).map(|bytes| bytes.0.as_slice()).unwrap_or_default();
        std::str::from_utf8(bytes)
            .ok()
            .filter(|text| !text.is_empty())
            .ok_or_else(|| refused(format!("no {key}")))
    };
    Authority::supplied(text(CERTIFICATE)?, text(PRIVATE_KEY)?, now)
        .map_err(|error| refused(error.to_string()))
}

/// The gate's Secret; a new key is put there where it is empty.
///
/// # Errors
/// See [`SecretError`].
pub async fn gate(api: &Api<Secret>, name: &str) -> Result<Secret, SecretError> {
    filled(api, name, async || {
        let key = GateMaster::generate().ok_or(SecretError::NoRandomness)?;
        Ok(BTreeMap::from([entry(GATE, key.as_bytes())]))
    })
    .await
}

pub(super) fn entry(key: &str, value: &[u8]) -> (String, ByteString) {
    (key.to_owned(), ByteString(value.to_vec()))
}

/// The authority of a Secret, and what the webhooks' paths end in; or what is wrong with it.
pub(super) fn read_authority(data: &BTreeMap<String, ByteString>) -> Result<(Authority, String), String> {
    let optional = |key: &str| {
        let bytes = data.get(key).map(|bytes| bytes.0.as_slice()).unwrap_or_default();
        std::str::from_utf8(bytes).map_err(|_| format!("a {key} that is no text"))
    };
    let text = |key: &str| match optional(key)? {
        "" => Err(format!("no {key}")),
        text => Ok(text),
    };
    let (cross, previous) = (optional(CROSS)?, optional(PREVIOUS)?);
    let authority = Authority::load(text(CERTIFICATE)?, text(PRIVATE_KEY)?)
        .and_then(|authority| authority.with_past(cross, previous))
        .map_err(|error| format!("no usable authority: {error}"))?;
    let path_key = match optional(PATH)? {
        "" => authority.webhook_path_key(),
        path_key => path_key.to_owned(),
    };
    Ok((authority, path_key))
}

/// The keys of a gate's Secret, or what is wrong with it.
pub(super) fn read_gate(data: &BTreeMap<String, ByteString>) -> Result<GateKeys, String> {
    let key = |name: &str| match data.get(name) {
        None => Ok(None),
        Some(bytes) => {
            GateMaster::new(&bytes.0).map(Some).ok_or_else(|| format!("a {name} that isn't of 32 bytes"))
        }
    };
    let current = key(GATE)?.ok_or_else(|| format!("no {GATE}"))?;
    Ok(GateKeys { current, next: key(GATE_NEXT)?, previous: key(GATE_PREVIOUS)? })
}

/// Puts something else into a Secret, unless somebody was quicker: then nothing happens, and `false` comes back.
///
/// # Errors
/// See [`SecretError`].
pub(super) async fn replace(api: &Api<Secret>, secret: &Secret) -> Result<bool, SecretError> {
    let name = secret.name_any();
    match api.replace(&name, &PostParams::default(), secret).await {
        Ok(_) => Ok(true),
        Err(Error::Api(status)) if status.code == 409 => Ok(false),
        Err(error) => Err(SecretError::Api { name, error: Box::new(error) }),
    }
}

/// Whether a Secret holds anything.
fn is_filled(secret: &Secret) -> bool {
    secret.data.iter().flatten().any(|(_, value)| !value.0.is_empty())
}

/// A Secret, after filling it if it is empty.
async fn filled(
    api: &Api<Secret>,
    name: &str,
    make: impl AsyncFn() -> Result<BTreeMap<String, ByteString>, SecretError>,
) -> Result<Secret, SecretError> {
    for _ in 0..ATTEMPTS {
        let mut secret = get(api, name).await?;
        if is_filled(&secret) {
            return Ok(secret);
        }
        secret.data = Some(make().await?);
        if replace(api, &secret).await? {
            tracing::info!(secret = name, "filled");
        }
    }
    Err(SecretError::Contended(name.to_owned()))
}

/// A Secret as it is.
///
/// # Errors
/// [`SecretError::Api`].
pub(super) async fn get(api: &Api<Secret>, name: &str) -> Result<Secret, SecretError> {
    api.get(name).await.map_err(|error| SecretError::Api { name: name.to_owned(), error: Box::new(error) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_put_into_the_secret_is_read_again() {
        let authority = Authority::create(1_800_000_000).unwrap();
        let (certificate, key) = (authority.certificate_pem().as_bytes(), authority.key_pem().as_bytes());
        let mut data = BTreeMap::from([entry(CERTIFICATE, certificate), entry(PRIVATE_KEY, key)]);
        let (read, path_key) = read_authority(&data).unwrap();
        assert_eq!((read.certificate(), path_key), (authority.certificate(), authority.webhook_path_key()));
        data.extend([entry(PATH, b"k3y"), entry(CROSS, b""), entry(PREVIOUS, certificate)]);
        let (read, path_key) = read_authority(&data).unwrap();
        assert_eq!((read.previous_pem(), &*path_key), (authority.certificate_pem(), "k3y"));
        data.insert(PRIVATE_KEY.to_owned(), ByteString(b"half a key".to_vec()));
        assert!(read_authority(&data).err().unwrap().contains("no usable authority"));
        data.remove(PRIVATE_KEY);
        assert_eq!(read_authority(&data).err().unwrap(), "no tls.key");
    }

    #[test]
    fn gate_keys_are_of_32_bytes_or_refused() {
        let mut data = BTreeMap::from([entry(GATE, &[1; 32]), entry(GATE_NEXT, &[2; 32])]);
        let keys = read_gate(&data).unwrap();
        assert_eq!(keys.current.as_bytes(), &[1; 32]);
        assert!(keys.next.is_some_and(|key| key.as_bytes() == &[2; 32]) && keys.previous.is_none());
        data.insert(GATE_PREVIOUS.to_owned(), ByteString(vec![3; 31]));
        assert_eq!(read_gate(&data).unwrap_err(), "a previous that isn't of 32 bytes");
        assert_eq!(read_gate(&BTreeMap::new()).unwrap_err(), "no current");
    }
}
