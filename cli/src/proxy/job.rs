//! What a proxy is started for, and the name that follows from it.
//!
//! Two commands share a proxy exactly where all of this is the same: cluster and credentials, namespace, target,
//! container, features, and the release of mirrord. The name is a hash of it.

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::kubernetes::{
    access::{Access, Place},
    api::Wanted,
};

/// What a proxy is started for. Travels to its process by a pipe.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Job {
    /// [`name`] of all else.
    pub name: String,
    /// The API server.
    pub access: Access,
    /// Where the Session is made.
    pub namespace: String,
    /// What the Session is for.
    pub wanted: Wanted,
    /// How long it stays after its last user, in seconds.
    pub linger_seconds: u64,
}

/// Names what is wanted at a place.
#[must_use]
pub fn name(place: &Place, wanted: &Wanted) -> String {
    let mut hash = Sha256::new();
    hash.update(place.fingerprint);
    let parts = [env!("CARGO_PKG_VERSION"), &wanted.target, wanted.container.as_deref().unwrap_or_default()];
    for part in parts {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    let mut verbs: Vec<_> = wanted.features.iter().map(|feature| (feature.verb(), "required")).collect();
    verbs.extend(wanted.optional.iter().map(|feature| (feature.verb(), "optional")));
    verbs.sort_unstable();
    verbs.dedup();
    for (verb, need) in verbs {
        hash.update(format!("{verb}:{need};"));
    }
    hash.finalize().iter().take(8).map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use mirrord_protocol::feature::Feature;

    use super::*;
    use crate::kubernetes::access::ChosenBy;

    #[test]
    fn only_the_same_wish_at_the_same_place_shares_a_proxy() {
        let place = Place { namespace: "shop".to_owned(), chosen_by: ChosenBy::User, fingerprint: [1; 32] };
        let wanted = Wanted {
            target: "deployment/a".to_owned(),
            container: None,
            features: vec![Feature::Env, Feature::Files],
            optional: vec![],
        };
        let first = name(&place, &wanted);
        assert_eq!(first.len(), 16);
        let reordered = Wanted { features: vec![Feature::Files, Feature::Env], ..wanted.clone() };
        assert_eq!(name(&place, &reordered), first);
        let others = [
            Wanted { target: "deployment/b".to_owned(), ..wanted.clone() },
            Wanted { container: Some("c".to_owned()), ..wanted.clone() },
            Wanted { features: vec![Feature::Env], ..wanted.clone() },
            Wanted { optional: vec![Feature::Secrets], ..wanted.clone() },
        ];
        for other in others {
            assert_ne!(name(&place, &other), first);
        }
        let elsewhere = Place { fingerprint: [2; 32], ..place };
        assert_ne!(name(&elsewhere, &wanted), first);
    }
}
