//! Which sessions this sidecar serves, and what each may do now: a pure state, with time as an argument.
//!
//! The control plane announces the *full* set with a revision; an older one than the last is ignored, so two
//! replicas that announce at once can't bring a deleted session back. Expiry is judged by this clock, corrected by what
//! the control plane's shows when it announces; [`SKEW`] is allowed for what that leaves.

use std::collections::HashMap;

use mirrord_certs::{KEY_HASH_BYTES, KeyHash, UnixTime};
use mirrord_protocol::{
    boot::{Announce, Announcement},
    feature::Feature,
    limits::SESSIONS,
};
use thiserror::Error;

/// How far the control plane's clock and ours may differ beyond what is corrected, in seconds.
pub(crate) const SKEW: u64 = 60;
/// Corrections are multiples of this, in seconds: what comes of a call's delay or another replica's clock changes nothing.
const STEP: i64 = 30;

/// What one session may do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Grant {
    pub(crate) features: Vec<Feature>,
    pub(crate) expires_at: UnixTime,
    /// 0 where there is none.
    pub(crate) deadline: UnixTime,
    pub(crate) creator: String,
    /// How far our clock is ahead of the one that these moments are of, in seconds.
    pub(crate) ahead: i64,
}

impl Grant {
    /// Until when it counts by our clock, skew included.
    pub(crate) fn until(&self) -> UnixTime {
        let deadline = if self.deadline == 0 { UnixTime::MAX } else { self.deadline };
        self.expires_at.min(deadline).saturating_add_signed(self.ahead).saturating_add(SKEW)
    }

    /// Whether it counts.
    pub(crate) fn is_live(&self, now: UnixTime) -> bool {
        now < self.until()
    }
}

/// Why an announcement makes no sense.
#[derive(Debug, Error, PartialEq, Eq)]
pub(crate) enum AnnounceError {
    #[error("{0} sessions were announced; {SESSIONS} is the limit")]
    TooMany(usize),
    #[error("a session's key hash has {0} octets instead of {KEY_HASH_BYTES}")]
    KeyHash(usize),
}

/// The announced set.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Sessions {
    revision: u64,
    grants: HashMap<KeyHash, Grant>,
}

impl Sessions {
    /// None yet, and none from before a revision.
    pub(crate) fn after(revision: u64) -> Self {
        Self { revision, grants: HashMap::new() }
    }

    /// The set after an announcement; `None` where it is older than the last one.
    pub(crate) fn announced(&self, announce: Announce, now: UnixTime) -> Result<Option<Self>, AnnounceError> {
        if announce.sessions.len() > SESSIONS {
            return Err(AnnounceError::TooMany(announce.sessions.len()));
        }
        if announce.revision < self.revision {
            return Ok(None);
        }
        let ahead = ahead(announce.now, now);
        let grants = announce.sessions.into_iter().map(|it| grant(it, ahead)).collect::<Result<_, _>>()?;
        Ok(Some(Self { revision: announce.revision, grants }))
    }

    /// What a session may do; `None` where it isn't announced.
    pub(crate) fn grant(&self, key: KeyHash) -> Option<&Grant> {
        self.grants.get(&key)
    }

    /// Whether both sets grant the same.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        self.grants == other.grants
    }

    /// How many are announced.
    pub(crate) fn len(&self) -> usize {
        self.grants.len()
    }

    /// When the last of them ends; `None` where none is live.
    pub(crate) fn live_until(&self, now: UnixTime) -> Option<UnixTime> {
        self.grants.values().filter(|grant| grant.is_live(now)).map(Grant::until).max()
    }
}

/// How far our clock is ahead of one that showed `theirs` when ours showed `now`; 0 where it wasn't told.
fn ahead(theirs: UnixTime, now: UnixTime) -> i64 {
    if theirs == 0 {
        return 0;
    }
    let ahead = i64::try_from(i128::from(now) - i128::from(theirs)).unwrap_or(0);
    (ahead.saturating_add(STEP / 2)).div_euclid(STEP) * STEP
}

fn grant(announcement: Announcement, ahead: i64) -> Result<(KeyHash, Grant), AnnounceError> {
    let Announcement { key_hash, features, expires_at, deadline, creator } = announcement;
    let key =
        <[u8; KEY_HASH_BYTES]>::try_from(key_hash).map_err(|other| AnnounceError::KeyHash(other.len()))?;
    let features = features.into_iter().filter(|feature| *feature != Feature::Unknown).collect();
    Ok((KeyHash(key), Grant { features, expires_at, deadline, creator, ahead }))
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: KeyHash = KeyHash([1; KEY_HASH_BYTES]);

    fn announcement(key: KeyHash, features: &[Feature], expires_at: UnixTime) -> Announcement {
        let creator = "ada".into();
        Announcement { key_hash: key.0.to_vec(), features: features.into(), expires_at, deadline: 0, creator }
    }

    fn announce(revision: u64, sessions: Vec<Announcement>) -> Announce {
        Announce { revision, sessions, now: 0 }
    }

    fn with(revision: u64, sessions: Vec<Announcement>) -> Sessions {
        Sessions::default().announced(announce(revision, sessions), 0).expect("valid").expect("newer")
    }

    #[test]
    fn each_announcement_is_the_full_set() {
        let other = KeyHash([2; KEY_HASH_BYTES]);
        let first = with(5, vec![announcement(KEY, &[Feature::Env], 100)]);
        let next = announce(6, vec![announcement(other, &[], 100)]);
        let second = first.announced(next, 0).expect("valid").expect("newer");
        assert!(second.grant(KEY).is_none() && second.grant(other).is_some());
        assert_eq!(second.len(), 1);
    }

    #[test]
    fn an_older_revision_cannot_bring_a_session_back() {
        let gone = with(5, vec![]);
        let old = announce(4, vec![announcement(KEY, &[Feature::Env], 100)]);
        assert_eq!(gone.announced(old.clone(), 0), Ok(None));
        assert_eq!(Sessions::after(5).announced(old, 0), Ok(None), "not by a later worker either");
        let same = announce(5, vec![announcement(KEY, &[Feature::Env], 100)]);
        assert!(gone.announced(same, 0).expect("valid").is_some(), "the other replica says the same");
    }

    #[test]
    fn expiry_allows_for_skew_and_the_deadline_binds() {
        let sessions = with(1, vec![announcement(KEY, &[], 100)]);
        let grant = sessions.grant(KEY).expect("announced");
        assert!(grant.is_live(100 + SKEW - 1) && !grant.is_live(100 + SKEW));
        let bound = Grant { deadline: 50, ..grant.clone() };
        assert!(!bound.is_live(50 + SKEW));
        let endless = Grant { expires_at: UnixTime::MAX, ..grant.clone() };
        assert!(endless.is_live(UnixTime::MAX - 1));
        assert_eq!(sessions.live_until(0), Some(160));
        assert_eq!(sessions.live_until(160), None);
    }

    #[test]
    fn a_session_lasts_as_long_whatever_our_clock_shows() {
        // Announced at 1,000 by the control plane's clock, until 1,300.
        let announced = |ours: UnixTime| {
            let announce = Announce { now: 1_000, ..announce(1, vec![announcement(KEY, &[], 1_300)]) };
            let sessions = Sessions::default().announced(announce, ours).expect("valid").expect("newer");
            sessions.grant(KEY).expect("announced").until() - ours
        };
        assert_eq!((announced(1_000), announced(1_300), announced(700)), (360, 360, 360));
        // What is no difference of clocks changes nothing.
        assert_eq!((announced(1_014), announced(986)), (346, 374));
        assert_eq!(ahead(1_000, 1_014), 0);
        assert_eq!((ahead(u64::MAX, 0), ahead(1, u64::MAX)), (0, 0), "no clock");
        assert_eq!(ahead(0, 5_000), 0, "an older control plane doesn't say");
    }

    #[test]
    fn features_of_other_releases_are_never_granted() {
        let sessions = with(1, vec![announcement(KEY, &[Feature::Unknown, Feature::Files], 100)]);
        assert_eq!(sessions.grant(KEY).expect("announced").features, [Feature::Files]);
    }

    #[test]
    fn senseless_sets_change_nothing() {
        let short = Announcement { key_hash: vec![1; 31], ..announcement(KEY, &[], 1) };
        assert_eq!(
            Sessions::default().announced(announce(1, vec![short]), 0),
            Err(AnnounceError::KeyHash(31))
        );
        let many = vec![announcement(KEY, &[], 1); SESSIONS + 1];
        assert_eq!(
            Sessions::default().announced(announce(1, many), 0),
            Err(AnnounceError::TooMany(SESSIONS + 1))
        );
    }
}
