//! What a Session asks for, checked as far as that needs nobody else.

use k8s_openapi::api::authentication::v1::UserInfo;
use mirrord_certs::UnixTime;
use mirrord_protocol::feature::Feature;
use mirrord_session::{Creator, Session, SessionSpec, SessionStatus, Target, session_name};

use super::denial::{Denial, DenialCode};

/// How SubjectPublicKeyInfo of an Ed25519 key begins (RFC 8410 §4); 32 bytes follow.
const ED25519: &[u8] = b"\x30\x2a\x30\x05\x06\x03\x2b\x65\x70\x03\x21\x00";
/// How SubjectPublicKeyInfo of an uncompressed P-256 key begins (RFC 5480 §2); 64 bytes follow.
const P256: &[u8] =
    b"\x30\x59\x30\x13\x06\x07\x2a\x86\x48\xce\x3d\x02\x01\x06\x08\x2a\x86\x48\xce\x3d\x03\x01\x07\x03\x42\x00\x04";

/// What a Session asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wish {
    /// As the user typed it; its container is that of [`Self::container`].
    pub target: Target,
    /// Which container; else the one that injection chose.
    pub container: Option<String>,
    /// The session is no use without these.
    pub required: Vec<Feature>,
    /// Granted where the caller has them.
    pub optional: Vec<Feature>,
}

/// What an update is.
#[derive(Debug, PartialEq, Eq)]
pub enum Update {
    /// Nothing of ours: the status stays what it was.
    Keep,
    /// A later expiry is asked for.
    Renew(Wish),
}

/// Checks a Session that is to be made.
///
/// # Errors
/// What is wrong with it.
pub fn creation(session: &Session) -> Result<Wish, Denial> {
    let key = session.spec.public_key_der().filter(|key| is_public_key(key)).ok_or_else(|| {
        Denial::bad_session(
            "spec.publicKey is no P-256 or Ed25519 key: it must be the base64 of a SubjectPublicKeyInfo in DER",
        )
    })?;
    let name = session_name(&key);
    match session.metadata.name.as_deref() {
        Some(given) if given == name => wish(&session.spec),
        None | Some("") => Err(Denial::bad_session(format!(
            "a Session is named after its key: set metadata.name to {name}; generateName can't be used"
        ))),
        Some(given) => Err(Denial::bad_session(format!(
            "a Session of this public key must be named {name}, not {given}"
        ))),
    }
}

fn is_public_key(der: &[u8]) -> bool {
    (der.starts_with(ED25519) && der.len() == ED25519.len() + 32)
        || (der.starts_with(P256) && der.len() == P256.len() + 64)
}

fn wish(spec: &SessionSpec) -> Result<Wish, Denial> {
    let typed = spec.target.as_deref().ok_or_else(|| {
        Denial::bad_session(
            "spec.target is missing; only a dry run without one is answered, with a list of targets",
        )
    })?;
    let target: Target =
        typed.parse().map_err(|error| Denial::bad_session(format!("spec.target: {error}")))?;
    let container = match (&target.container, &spec.container) {
        (Some(one), Some(other)) if one != other => {
            return Err(Denial::bad_session(format!(
                "spec.target names container {one:?} and spec.container {other:?}: leave one out"
            )));
        }
        (one, other) => one.clone().or_else(|| other.clone()),
    };
    let required: Result<Vec<Feature>, _> = spec.features.iter().map(|word| word.parse()).collect();
    let required = required.map_err(|error| Denial::bad_session(format!("spec.features: {error}")))?;
    // An optional feature of another release is one that isn't granted.
    let optional: Vec<Feature> = spec.optional_features.iter().filter_map(|word| word.parse().ok()).collect();
    if required.is_empty() && optional.is_empty() {
        return Err(Denial::bad_session("a Session without features is no use: name some in spec.features"));
    }
    Ok(Wish { target, container, required, optional })
}

impl Wish {
    /// All features to ask the API server about, each once.
    #[must_use]
    pub fn features(&self) -> Vec<Feature> {
        Feature::ALL
            .into_iter()
            .filter(|it| self.required.contains(it) || self.optional.contains(it))
            .collect()
    }
}

/// Decides what an update is. Only the creator may change a Session, and only `spec.renewal` of it; what we wrote
/// into its status stays, whatever the update says. (The garbage collector's edits of finalizers pass, or deletions
/// would hang; so do updates without a change, which migrations of storage make.)
///
/// # Errors
/// Why it is refused.
pub fn update(user: &UserInfo, old: &Session, new: &Session, now: UnixTime) -> Result<Update, Denial> {
    let same_spec = old.spec == new.spec;
    if same_spec && (old.metadata.deletion_timestamp.is_some() || same_metadata(old, new)) {
        return Ok(Update::Keep);
    }
    let Some(status) = &old.status else {
        return Err(Denial::bad_session("this Session was stored without mirrord's webhook: delete it"));
    };
    let caller = creator(user);
    if caller != status.creator {
        return Err(Denial::new(
            DenialCode::NotGranted,
            format!(
                "the session belongs to user {:?}: {:?} can't change it, only delete it",
                status.creator.username, caller.username
            ),
        ));
    }
    if same_spec {
        return Ok(Update::Keep);
    }
    if (SessionSpec { renewal: new.spec.renewal, ..old.spec.clone() }) != new.spec {
        return Err(Denial::bad_session(
            "of a Session only spec.renewal can be changed: delete it and create another, with another key",
        ));
    }
    renewal(old, status, now).map(Update::Renew)
}

fn renewal(old: &Session, status: &SessionStatus, now: UnixTime) -> Result<Wish, Denial> {
    if old.metadata.deletion_timestamp.is_some() {
        return Err(Denial::bad_session("the session is being deleted: create another"));
    }
    if now >= status.deadline {
        return Err(Denial::bad_session("the session has reached its deadline: create another"));
    }
    // Its container stays, also where injection would now choose another.
    Ok(Wish { container: Some(status.container.clone()), ..wish(&old.spec)? })
}

fn same_metadata(old: &Session, new: &Session) -> bool {
    let bare = |session: &Session| {
        let mut metadata = session.metadata.clone();
        metadata.managed_fields = None;
        metadata.resource_version = None;
        metadata.generation = None;
        metadata
    };
    bare(old) == bare(new)
}

/// How a caller is recorded.
#[must_use]
pub fn creator(user: &UserInfo) -> Creator {
    Creator { username: user.username.clone().unwrap_or_default(), uid: user.uid.clone().unwrap_or_default() }
}

#[cfg(test)]
mod tests {
    use mirrord_certs::SelfSigned;
    use serde_json::json;

    use super::*;

    fn session(change: impl FnOnce(&mut Session)) -> Session {
        let key = SelfSigned::generate().unwrap().public_key();
        let spec = SessionSpec {
            target: Some("deploy/checkout".into()),
            features: vec!["env".into()],
            optional_features: vec!["outgoing".into(), "telepathy".into()],
            ..SessionSpec::default()
        };
        let mut session = Session::new(&session_name(&key), spec.with_public_key(&key));
        change(&mut session);
        session
    }

    fn admitted() -> Session {
        let creator = Creator { username: "developer".into(), uid: "7".into() };
        let status =
            SessionStatus { creator, container: "app".into(), deadline: 1000, ..SessionStatus::default() };
        session(|session| session.status = Some(status))
    }

    fn user(name: &str, uid: &str) -> UserInfo {
        UserInfo { username: Some(name.into()), uid: Some(uid.into()), ..UserInfo::default() }
    }

    fn refusal<T: std::fmt::Debug>(result: Result<T, Denial>) -> (DenialCode, String) {
        let denial = result.unwrap_err();
        (denial.code, denial.message)
    }

    #[test]
    fn a_proper_session_is_understood_and_unknown_optional_features_are_left_out() {
        let wish = creation(&session(|_| ())).unwrap();
        assert_eq!(wish.target.resource_name(), "deployment.checkout");
        assert_eq!(wish.features(), [Feature::Env, Feature::Outgoing]);
    }

    #[test]
    fn a_session_is_named_after_its_key() {
        let (code, message) =
            refusal(creation(&session(|session| session.metadata.name = Some("mine".into()))));
        assert_eq!(code, DenialCode::BadSession);
        assert!(message.contains("must be named s-"), "{message}");
        let generated = session(|session| {
            session.metadata.name = None;
            session.metadata.generate_name = Some("s-".into());
        });
        assert!(refusal(creation(&generated)).1.contains("generateName"));
    }

    #[test]
    fn only_keys_that_tls_can_use_are_taken() {
        for key in ["", "!", "AAAA", "MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAE"] {
            let (_, message) = refusal(creation(&session(|session| session.spec.public_key = key.into())));
            assert!(message.contains("spec.publicKey"), "{message}");
        }
    }

    #[test]
    fn nonsense_is_refused_with_the_field_that_holds_it() {
        type Wrong = (fn(&mut SessionSpec), &'static str);
        let wrongs: [Wrong; 5] = [
            (|spec| spec.target = Some("checkout".into()), "spec.target"),
            (|spec| spec.target = None, "dry run"),
            (|spec| spec.features = vec!["telepathy".into()], "spec.features"),
            (|spec| (spec.features, spec.optional_features) = (vec![], vec![]), "without features"),
            (
                |spec| {
                    spec.target = Some("pod/p/container/a".into());
                    spec.container = Some("b".into());
                },
                "leave one out",
            ),
        ];
        for (wrong, hint) in wrongs {
            let (code, message) = refusal(creation(&session(|session| wrong(&mut session.spec))));
            assert_eq!(code, DenialCode::BadSession);
            assert!(message.contains(hint), "{message}");
        }
    }

    #[test]
    fn the_creator_renews_and_keeps_the_container() {
        let old = admitted();
        let mut new = old.clone();
        new.spec.renewal = Some(1);
        new.status = None;
        let Ok(Update::Renew(wish)) = update(&user("developer", "7"), &old, &new, 999) else { panic!() };
        assert_eq!(wish.container.as_deref(), Some("app"));
        assert!(refusal(update(&user("developer", "7"), &old, &new, 1000)).1.contains("deadline"));
    }

    #[test]
    fn nobody_else_changes_a_session() {
        let old = admitted();
        let mut new = old.clone();
        new.spec.renewal = Some(1);
        for other in [user("neighbour", "8"), user("developer", "8"), user("neighbour", "7")] {
            assert_eq!(refusal(update(&other, &old, &new, 0)).0, DenialCode::NotGranted);
        }
        let mut labelled = old.clone();
        labelled.metadata.labels = Some([("a".to_owned(), "b".to_owned())].into());
        assert_eq!(refusal(update(&user("neighbour", "8"), &old, &labelled, 0)).0, DenialCode::NotGranted);
    }

    #[test]
    fn what_was_asked_for_cannot_be_changed_afterwards() {
        let old = admitted();
        let changes: [fn(&mut SessionSpec); 5] = [
            |spec| spec.target = Some("deployment/payment".into()),
            |spec| spec.container = Some("other".into()),
            |spec| spec.features.push("files".into()),
            |spec| spec.optional_features.clear(),
            |spec| spec.public_key.push('A'),
        ];
        for change in changes {
            let mut new = old.clone();
            change(&mut new.spec);
            new.spec.renewal = Some(1);
            assert_eq!(refusal(update(&user("developer", "7"), &old, &new, 0)).0, DenialCode::BadSession);
        }
    }

    #[test]
    fn an_edited_status_is_put_back_and_deletions_do_not_hang() {
        let old = admitted();
        let mut edited = old.clone();
        edited.status = Some(SessionStatus { features: vec!["files".into()], ..SessionStatus::default() });
        assert_eq!(update(&user("developer", "7"), &old, &edited, 0), Ok(Update::Keep));
        assert_eq!(update(&user("migrator", ""), &old, &edited, 0), Ok(Update::Keep));

        let mut ending = old;
        ending.metadata.deletion_timestamp =
            Some(serde_json::from_value(json!("2026-11-24T08:00:00Z")).unwrap());
        ending.metadata.finalizers = Some(vec!["foregroundDeletion".into()]);
        let mut done = ending.clone();
        done.metadata.finalizers = None;
        assert_eq!(update(&user("garbage-collector", ""), &ending, &done, 0), Ok(Update::Keep));
    }
}
