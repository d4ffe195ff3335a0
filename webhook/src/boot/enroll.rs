//! Proves a sidecar and makes it able to serve.
//!
//! Whoever holds an address can be dialled by mistake (addresses are reused) or on purpose. A sidecar is who it claims
//! when the API server says that its token is bound to that very pod, and when the key that asks for a certificate is
//! the key that it proved in TLS: a token that was passed on proves nothing about another's connection.

use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec, TokenReviewStatus};
use kube::{Api, Client, api::PostParams};
use mirrord_certs::{AuthorityError, request_key_hash};
use mirrord_protocol::boot::{Call, Done, Enrolled, Install};
use mirrord_session::TOKEN_AUDIENCE;
use serde_bytes::ByteBuf;

use super::{
    channel::{Channel, ChannelError},
    desired::Twin,
};
use crate::{certificates::keys::Keyring, clock, metrics::EnrollFault};

/// How long a sidecar's certificate lives, in seconds: longer than any session.
const CERTIFICATE_LIFETIME: u64 = 8 * 24 * 3600;
/// When the next one is issued, in seconds.
pub(super) const RENEW_AFTER: u64 = CERTIFICATE_LIFETIME / 8;
/// Which pod a token is bound to (KEP-2799; `k8s.io/apiserver/pkg/authentication/serviceaccount`).
const POD_UID: &str = "authentication.kubernetes.io/pod-uid";

/// Why a sidecar is not enrolled.
#[derive(Debug, thiserror::Error)]
pub enum EnrollError {
    /// It could not be asked.
    #[error("{0}")]
    Channel(#[from] ChannelError),
    /// It shows no token, or one that is no text.
    #[error("it shows no token")]
    NoToken,
    /// Its CSR is none, or no certificate could be made.
    #[error("certificate: {0}")]
    Certificate(#[from] AuthorityError),
    /// It asks a certificate for another key than it holds.
    #[error("its certificate request is for another key than that of its connection")]
    OtherKey,
    /// The API server could not be asked.
    #[error("TokenReview: {0}")]
    Review(#[from] kube::Error),
    /// It isn't the sidecar that we look for.
    #[error("{0}")]
    Stranger(#[from] Stranger),
}

impl EnrollError {
    /// The value of the metric's label.
    #[must_use]
    pub fn fault(&self) -> EnrollFault {
        match self {
            Self::Channel(ChannelError::Failed(_)) => EnrollFault::Refused,
            Self::Channel(_) => EnrollFault::Unreachable,
            Self::NoToken | Self::OtherKey => EnrollFault::Unproven,
            Self::Certificate(_) => EnrollFault::Certificate,
            Self::Review(_) => EnrollFault::TokenReview,
            Self::Stranger(Stranger::Unauthenticated(_)) => EnrollFault::Unauthenticated,
            Self::Stranger(_) => EnrollFault::Stranger,
        }
    }
}

/// Why a token proves nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Stranger {
    /// The API server doesn't know it.
    #[error("its token is not authenticated: {0}")]
    Unauthenticated(String),
    /// It is meant for others.
    #[error("its token is not for the audience {TOKEN_AUDIENCE}")]
    Audience,
    /// It is another pod's, or no pod's.
    #[error("its token is bound to pod {0:?}, not to the one dialled")]
    OtherPod(String),
    /// It is of another namespace.
    #[error("its token belongs to {0:?}, not to the namespace dialled")]
    OtherNamespace(String),
}

/// Enrolls sidecars.
pub struct Enroller {
    /// To the API server.
    pub client: Client,
    /// What their certificates come from, and the keys that they check gate tokens with.
    pub keyring: Keyring,
}

impl Enroller {
    /// Proves one sidecar and installs what it needs; returns the minor version that it speaks.
    ///
    /// # Errors
    /// See [`EnrollError`].
    pub async fn enroll(&self, channel: &Channel, twin: &Twin) -> Result<u16, EnrollError> {
        let (Enrolled { csr, version, .. }, token) = channel.call(&Call::Enroll {}).await?;
        if request_key_hash(&csr)? != channel.peer_key()? {
            return Err(EnrollError::OtherKey);
        }
        let token = String::from_utf8(token.into()).map_err(|_| EnrollError::NoToken)?;
        if token.trim().is_empty() {
            return Err(EnrollError::NoToken);
        }
        check(self.review(token).await?.as_ref(), twin)?;
        let keys = self.keyring.now();
        let leaf = keys.authority.sidecar(&csr, twin.route, clock::now(), CERTIFICATE_LIFETIME)?;
        let install = Install {
            chain: keys.authority.chain(&leaf).iter().map(|it| ByteBuf::from(it.to_vec())).collect(),
            reset_key: keys.authority.reset_key(twin.route).to_vec(),
            gate_keys: keys.gate.of_route(twin.route).map(|key| ByteBuf::from(*key.as_bytes())).collect(),
        };
        let (Done {}, _) = channel.call(&Call::Install(install)).await?;
        Ok(version)
    }

    async fn review(&self, token: String) -> Result<Option<TokenReviewStatus>, kube::Error> {
        let audiences = Some(vec![TOKEN_AUDIENCE.to_owned()]);
        let review = TokenReview {
            spec: TokenReviewSpec { token: Some(token.trim().to_owned()), audiences },
            ..TokenReview::default()
        };
        let reviewed =
            Api::<TokenReview>::all(self.client.clone()).create(&PostParams::default(), &review).await;
        Ok(reviewed?.status)
    }
}

/// Whether a reviewed token proves that its bearer is a twin's pod.
fn check(review: Option<&TokenReviewStatus>, twin: &Twin) -> Result<(), Stranger> {
    let unauthenticated = |why: &str| Err(Stranger::Unauthenticated(why.to_owned()));
    let Some(review) = review else { return unauthenticated("no answer") };
    if review.authenticated != Some(true) {
        return unauthenticated(review.error.as_deref().unwrap_or_default());
    }
    if !review.audiences.iter().flatten().any(|audience| audience == TOKEN_AUDIENCE) {
        return Err(Stranger::Audience);
    }
    let user = review.user.clone().unwrap_or_default();
    let bound = user.extra.and_then(|mut extra| extra.remove(POD_UID)).unwrap_or_default();
    if bound != [twin.pod_uid.as_str()] {
        return Err(Stranger::OtherPod(bound.join(",")));
    }
    let username = user.username.unwrap_or_default();
    if !username.starts_with(&format!("system:serviceaccount:{}:", twin.namespace)) {
        return Err(Stranger::OtherNamespace(username));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use mirrord_protocol::route::RouteId;
    use serde_json::{Value, json};

    use super::*;

    fn verdict(change: impl FnOnce(&mut Value)) -> Result<(), Stranger> {
        let twin = Twin {
            route: RouteId::of("pod-1", "app"),
            address: "10.0.0.1:4801".parse().unwrap(),
            namespace: "shop".into(),
            pod: "checkout-1".into(),
            pod_uid: "pod-1".into(),
        };
        let mut review = json!({
            "authenticated": true, "audiences": ["mirrord.dev"],
            "user": {
                "username": "system:serviceaccount:shop:default",
                "extra": { POD_UID: ["pod-1"] },
            },
        });
        change(&mut review);
        check(Some(&serde_json::from_value(review).unwrap()), &twin)
    }

    #[test]
    fn a_token_proves_the_pod_that_it_is_bound_to_and_no_other() {
        assert_eq!(verdict(|_| ()), Ok(()));
        let other = verdict(|review| review["user"]["extra"][POD_UID] = json!(["pod-2"]));
        assert_eq!(other, Err(Stranger::OtherPod("pod-2".into())));
        let unbound = verdict(|review| review["user"]["extra"] = Value::Null);
        assert_eq!(unbound, Err(Stranger::OtherPod(String::new())));
    }

    #[test]
    fn tokens_for_others_of_others_or_of_nobody_prove_nothing() {
        assert_eq!(verdict(|review| review["audiences"] = json!(["vault"])), Err(Stranger::Audience));
        assert_eq!(verdict(|review| review["audiences"] = Value::Null), Err(Stranger::Audience));
        let refused = verdict(|review| {
            review["authenticated"] = json!(false);
            review["error"] = json!("token expired");
        });
        assert_eq!(refused, Err(Stranger::Unauthenticated("token expired".into())));
        let elsewhere =
            verdict(|review| review["user"]["username"] = json!("system:serviceaccount:shop2:default"));
        assert!(matches!(elsewhere, Err(Stranger::OtherNamespace(_))));
    }
}
