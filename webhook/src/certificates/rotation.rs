//! When keys are replaced, and by what: decisions over what a Secret holds, with time as an argument. Replicas decide
//! alike, and the API server lets one of them write (resourceVersion).
//!
//! **Authority.** At two thirds of its life, or when an admin asks, the next one takes over at once: its cross
//! certificate makes all who trust the old one accept it ([`mirrord_certs::succession`]). The old key is thrown away; the
//! old certificate stays for the overlap.
//!
//! Where an authority is supplied by others ([`mirrord_certs::SupplyError`] says what it must be), that one takes over
//! whenever it isn't the one in use, and no other is ever made.
//!
//! **Gate key.** A token of an unknown key opens nothing, so a key is published first, as `next`, and signs only when
//! routers (kubelet renews their folder within 90 s) and sidecars have it. The one before stays as long as its tokens may
//! live.
//!
//! An admin asks by `kubectl annotate secret NAME mirrord.dev/rotate=now`; the annotation goes when it is done.

use std::collections::BTreeMap;

use k8s_openapi::{ByteString, api::core::v1::Secret, jiff::Timestamp};
use kube::ResourceExt;
use mirrord_certs::{Authority, AuthorityError, GateMaster, UnixTime};
use mirrord_protocol::DOMAIN;

use super::{
    keys::{GateKeys, Keys},
    secrets::{CERTIFICATE, CROSS, GATE, GATE_NEXT, GATE_PREVIOUS, PATH, PREVIOUS, PRIVATE_KEY, entry},
};

/// How long a gate key is known before it signs, in seconds.
pub const PUBLISHED: u64 = 300;
/// How long a gate key signs, in seconds: 30 days.
pub const GATE_LIFETIME: u64 = 30 * 24 * 3600;

/// For so long nobody replaces an authority that just took over because of its age, in seconds: whoever put it there knows of
/// a supply that this replica, of an older or newer configuration, doesn't know.
const SETTLED: u64 = 3600;

/// What a Secret asks for.
#[derive(Debug)]
pub enum Step {
    /// Nothing before this moment.
    Wait(UnixTime),
    /// To hold this from now on.
    Write(BTreeMap<String, ByteString>),
}

/// When the last step was done, and whether an admin asks for one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Marks {
    since: Option<UnixTime>,
    asked: bool,
}

fn since_annotation() -> String {
    format!("{DOMAIN}/rotated")
}

fn rotate_annotation() -> String {
    format!("{DOMAIN}/rotate")
}

impl Marks {
    /// The marks that a Secret bears.
    #[must_use]
    pub fn of(secret: &Secret) -> Self {
        let annotations = secret.annotations();
        let since = annotations.get(&since_annotation()).and_then(|text| text.parse::<Timestamp>().ok());
        Self {
            since: since.and_then(|since| since.as_second().try_into().ok()),
            asked: annotations.contains_key(&rotate_annotation()),
        }
    }

    /// Whether an admin asks for a step.
    #[must_use]
    pub fn is_asked(&self) -> bool {
        self.asked
    }

    /// Marks that a step was done.
    pub fn done(secret: &mut Secret, now: UnixTime) {
        let annotations = secret.annotations_mut();
        annotations.remove(&rotate_annotation());
        let since = i64::try_from(now).ok().and_then(|now| Timestamp::from_second(now).ok());
        if let Some(since) = since {
            annotations.insert(since_annotation(), since.to_string());
        }
    }
}

/// Who makes the authorities.
#[derive(Clone, Copy)]
pub enum Maker<'a> {
    /// The control plane.
    Own,
    /// Others; this is theirs at present, `None` where it can't be had.
    Others(Option<&'a Authority>),
}

/// What the authority's Secret asks for.
///
/// # Errors
/// Where no authority can be made.
pub fn authority(keys: &Keys, marks: Marks, maker: Maker<'_>, now: UnixTime) -> Result<Step, AuthorityError> {
    let Keys { authority, path_key, .. } = keys;
    let settled = marks.since.map_or(0, |since| since + SETTLED);
    let (next, due) = match maker {
        Maker::Own => {
            let due = authority.due_at().max(settled);
            let next = (now >= due || marks.asked).then(|| authority.succeed(now));
            (next, due)
        }
        Maker::Others(supplied) => {
            let other = supplied.filter(|supplied| supplied.certificate() != authority.certificate());
            // The one that was replaced just now is a supply that others, of another configuration, no longer know.
            let is_back = other.is_some_and(|other| Some(other.certificate()) == authority.previous());
            let due = if is_back { settled } else { 0 };
            let next = other.filter(|_| now >= due).map(|other| {
                let other = Authority::load(other.certificate_pem(), other.key_pem())?;
                authority.hand_over(other, now)
            });
            (next, other.map_or(UnixTime::MAX, |_| due))
        }
    };
    if let Some(next) = next {
        let next = next?;
        return Ok(Step::Write(authority_entries(&next, next.previous_pem(), path_key)));
    }
    Ok(match authority.overlap_ends(marks.since) {
        Some(end) if now >= end => Step::Write(authority_entries(authority, "", path_key)),
        Some(end) => Step::Wait(end.min(due)),
        None => Step::Wait(due),
    })
}

fn authority_entries(authority: &Authority, previous: &str, path_key: &str) -> BTreeMap<String, ByteString> {
    BTreeMap::from([
        entry(CERTIFICATE, authority.certificate_pem().as_bytes()),
        entry(PRIVATE_KEY, authority.key_pem().as_bytes()),
        entry(CROSS, authority.cross_pem().as_bytes()),
        entry(PREVIOUS, previous.as_bytes()),
        // It stays, so that no review gets lost between two replicas of which one knows a new path.
        entry(PATH, path_key.as_bytes()),
    ])
}

/// What the gate's Secret asks for. `token_life`: how long a token lives at most, in seconds. `None` where the system has
/// no randomness.
#[must_use]
pub fn gate(keys: &GateKeys, marks: Marks, token_life: u64, now: UnixTime) -> Option<Step> {
    let since = marks.since.unwrap_or(now);
    let GateKeys { current, next, previous } = keys.clone();
    let (next_due, previous_over) = (since + PUBLISHED, since + token_life);
    let step = match (next, previous) {
        (Some(_), _) if now < next_due => Step::Wait(next_due),
        (Some(next), _) => {
            Step::Write(gate_entries(&GateKeys { current: next, next: None, previous: Some(current) }))
        }
        (None, Some(_)) if now >= previous_over => {
            Step::Write(gate_entries(&GateKeys { current, next: None, previous: None }))
        }
        (None, previous) if marks.asked || now >= since + GATE_LIFETIME => {
            let next = Some(GateMaster::generate()?);
            Step::Write(gate_entries(&GateKeys { current, next, previous }))
        }
        (None, Some(_)) => Step::Wait(previous_over),
        (None, None) => Step::Wait(since + GATE_LIFETIME),
    };
    Some(match step {
        // A Secret of before there were marks: time counts from now.
        Step::Wait(_) if marks.since.is_none() => Step::Write(gate_entries(keys)),
        step => step,
    })
}

fn gate_entries(keys: &GateKeys) -> BTreeMap<String, ByteString> {
    let others = [(GATE_NEXT, &keys.next), (GATE_PREVIOUS, &keys.previous)];
    let others = others.into_iter().filter_map(|(name, key)| Some((name, key.as_ref()?)));
    std::iter::once((GATE, &keys.current))
        .chain(others)
        .map(|(name, key)| entry(name, key.as_bytes()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::{super::secrets, *};

    const NOW: UnixTime = 1_800_000_000;
    const TOKEN_LIFE: u64 = 700;

    fn marks(since: UnixTime) -> Marks {
        Marks { since: Some(since), asked: false }
    }

    fn keys() -> Keys {
        Keys::new(Authority::create(NOW).unwrap(), GateMaster::generate().unwrap())
    }

    fn written(step: Step) -> BTreeMap<String, ByteString> {
        match step {
            Step::Write(data) => data,
            Step::Wait(until) => panic!("waits until {until}"),
        }
    }

    fn waits(step: &Step) -> UnixTime {
        match step {
            Step::Wait(until) => *until,
            Step::Write(_) => panic!("writes"),
        }
    }

    #[test]
    fn an_authority_is_replaced_when_it_is_due_or_asked_for_and_keeps_the_path() {
        let keys = keys();
        let due = keys.authority.due_at();
        assert_eq!(waits(&authority(&keys, Marks::default(), Maker::Own, due - 1).unwrap()), due);
        for (marks, now) in [(Marks::default(), due), (Marks { since: None, asked: true }, NOW)] {
            let data = written(authority(&keys, marks, Maker::Own, now).unwrap());
            let (next, path) = secrets::read_authority(&data).unwrap();
            assert_ne!(next.certificate(), keys.authority.certificate());
            assert_eq!(next.previous_pem(), keys.authority.certificate_pem());
            assert_eq!(path, keys.path_key);
            assert!(next.due_at() > now + 1000 * 24 * 3600, "and not again at once");
        }
    }

    #[test]
    fn the_last_authority_is_forgotten_when_the_overlap_is_over() {
        let mut keys = keys();
        let (last, first) = (keys.authority.certificate_pem().to_owned(), keys.path_key.clone());
        keys.authority = keys.authority.succeed(NOW).unwrap();
        let end = keys.authority.overlap_ends(None).unwrap();
        assert_eq!(waits(&authority(&keys, Marks::default(), Maker::Own, end - 1).unwrap()), end);
        let data = written(authority(&keys, Marks::default(), Maker::Own, end).unwrap());
        let (forgetful, path) = secrets::read_authority(&data).unwrap();
        assert_eq!(forgetful.trusted_pem(), keys.authority.certificate_pem());
        assert_eq!((forgetful.cross_pem(), path), (keys.authority.cross_pem(), first));
        assert!(keys.authority.trusted_pem().contains(&last), "and before it wasn't");
        keys.authority = forgetful;
        assert_eq!(
            waits(&authority(&keys, Marks::default(), Maker::Own, end).unwrap()),
            keys.authority.due_at()
        );
    }

    #[test]
    fn a_supplied_authority_takes_over_once_and_no_other_is_made() {
        let mut keys = keys();
        let (own, path) = (keys.authority.certificate_pem().to_owned(), keys.path_key.clone());
        let asked = Marks { since: None, asked: true };
        let far = NOW + 10 * 365 * 24 * 3600;
        assert_eq!(waits(&authority(&keys, asked, Maker::Others(None), far).unwrap()), UnixTime::MAX);

        let supplied = Authority::create(NOW - 24 * 3600).unwrap();
        let theirs = Maker::Others(Some(&supplied));
        let data = written(authority(&keys, Marks::default(), theirs, NOW).unwrap());
        let (next, kept) = secrets::read_authority(&data).unwrap();
        assert_eq!((next.certificate(), kept), (supplied.certificate(), path));
        assert_eq!(next.previous_pem(), own);
        assert!(!next.cross_pem().is_empty(), "who trusts the former one accepts it");
        keys.authority = next;
        // Replicas that don't know of the supply yet, or no more, leave it alone: it is due by its age, but took over just now.
        let aged = keys.authority.due_at();
        assert!(waits(&authority(&keys, marks(aged), Maker::Own, aged).unwrap()) >= aged + SETTLED);
        let end = waits(&authority(&keys, marks(NOW), theirs, NOW).unwrap());
        assert!(end > NOW, "the overlap counts from here, though it was issued yesterday");
        let data = written(authority(&keys, marks(NOW), theirs, end).unwrap());
        keys.authority = secrets::read_authority(&data).unwrap().0;
        assert_eq!(waits(&authority(&keys, asked, theirs, far).unwrap()), UnixTime::MAX);
    }

    #[test]
    fn replicas_of_two_supplies_do_not_take_turns() {
        let mut keys = keys();
        let (one, other) = (Authority::create(NOW).unwrap(), Authority::create(NOW).unwrap());
        let step = |keys: &Keys, supplied, marks, now| {
            authority(keys, marks, Maker::Others(Some(supplied)), now).unwrap()
        };
        for supplied in [&one, &other] {
            let data = written(step(&keys, supplied, marks(NOW), NOW));
            keys.authority = secrets::read_authority(&data).unwrap().0;
        }
        assert_eq!(waits(&step(&keys, &one, marks(NOW), NOW + 1)), NOW + SETTLED);
        let third = Authority::create(NOW).unwrap();
        let _ = written(step(&keys, &third, marks(NOW), NOW + 1));
        let _ = written(step(&keys, &one, marks(NOW), NOW + SETTLED));
    }

    #[test]
    fn a_gate_key_is_published_before_it_signs_and_kept_while_its_tokens_live() {
        let first = keys().gate;
        let bytes = |key: &Option<GateMaster>| key.as_ref().map(|key| *key.as_bytes());
        let step = |keys: &GateKeys, marks, now| gate(keys, marks, TOKEN_LIFE, now).unwrap();
        let read = |step| secrets::read_gate(&written(step)).unwrap();

        assert_eq!(waits(&step(&first, marks(NOW), NOW + 1)), NOW + GATE_LIFETIME);
        let published = read(step(&first, marks(NOW), NOW + GATE_LIFETIME));
        assert_eq!(published.current.as_bytes(), first.current.as_bytes());
        assert!(published.next.is_some() && published.previous.is_none());

        assert_eq!(waits(&step(&published, marks(NOW), NOW + PUBLISHED - 1)), NOW + PUBLISHED);
        let signing = read(step(&published, marks(NOW), NOW + PUBLISHED));
        assert_eq!(Some(*signing.current.as_bytes()), bytes(&published.next));
        assert_eq!(bytes(&signing.previous), Some(*first.current.as_bytes()));
        assert!(signing.next.is_none());

        assert_eq!(waits(&step(&signing, marks(NOW), NOW + TOKEN_LIFE - 1)), NOW + TOKEN_LIFE);
        let done = read(step(&signing, marks(NOW), NOW + TOKEN_LIFE));
        assert!(done.previous.is_none() && done.current.as_bytes() == signing.current.as_bytes());
    }

    #[test]
    fn an_admin_may_ask_at_any_time_and_a_secret_without_marks_gets_them() {
        let keys = keys().gate;
        let asked = Marks { since: Some(NOW), asked: true };
        let published =
            secrets::read_gate(&written(gate(&keys, asked, TOKEN_LIFE, NOW + 1).unwrap())).unwrap();
        assert!(published.next.is_some());
        // Under way already: once more afterwards.
        assert_eq!(waits(&gate(&published, asked, TOKEN_LIFE, NOW + 1).unwrap()), NOW + PUBLISHED);
        let unmarked = secrets::read_gate(&written(gate(&keys, Marks::default(), TOKEN_LIFE, NOW).unwrap()));
        assert_eq!(unmarked.unwrap().current.as_bytes(), keys.current.as_bytes());
    }

    #[test]
    fn marks_are_read_as_they_were_written() {
        let mut secret = Secret::default();
        assert_eq!(Marks::of(&secret), Marks::default());
        secret.annotations_mut().insert("mirrord.dev/rotate".into(), "now".into());
        assert!(Marks::of(&secret).asked);
        Marks::done(&mut secret, NOW);
        assert_eq!(Marks::of(&secret), marks(NOW));
        assert_eq!(secret.annotations()["mirrord.dev/rotated"], "2027-01-15T08:00:00Z");
    }
}
