//! What each sidecar should be told, as a pure function of the stored Sessions and the time.
//!
//! Both replicas compute it alike, and a restarted one computes it anew: there is nothing to agree on. The status of
//! a Session is ours wherever our admission was in force when it was made; others, and what contradicts itself, count
//! as if they weren't there. Expired Sessions are told about until their grace is over: the sidecar suspends them by
//! its own clock, and a renewal wakes them up.

use std::{
    collections::{BTreeMap, HashMap},
    net::{IpAddr, SocketAddr},
};

use kube::ResourceExt;
use mirrord_certs::{KeyHash, UnixTime};
use mirrord_protocol::{boot::Announcement, limits, route::RouteId};
use mirrord_session::{Session, SessionPod, SessionStatus, session_name};

use crate::{certificates::bundle::Configuration, sessions::crowd::Crowd};

/// How much of a creator's name sidecars are told: for their logs.
const CREATOR_BYTES: usize = 128;

/// A sidecar, and how to reach and recognise it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Twin {
    /// Its route.
    pub route: RouteId,
    /// Where it waits.
    pub address: SocketAddr,
    /// Its pod's namespace.
    pub namespace: String,
    /// Its pod's name.
    pub pod: String,
    /// Its pod's UID, which its token must be bound to.
    pub pod_uid: String,
}

/// News about stored Sessions.
#[derive(Debug)]
pub enum Change {
    /// These are all, at this resource version.
    Listed(Vec<Session>, u64),
    /// This one was stored.
    Stored(Box<Session>),
    /// This one was deleted.
    Gone(Box<Session>),
    /// Nothing changed up to this resource version.
    Seen(u64),
}

/// What changed, for people.
#[derive(Debug)]
pub enum News {
    /// A Session was stored that was not there before.
    Began(Box<Session>),
    /// A Session is gone; this is what it last was.
    Ended(Box<Session>),
}

/// Which Sessions count.
#[derive(Clone, Copy, Debug)]
pub struct Rules {
    /// Since when our admission is in force.
    pub configuration: Configuration,
    /// How long an expired Session is kept, in seconds.
    pub grace: u64,
    /// How many of one user's Sessions in a namespace count: the oldest.
    pub per_user: usize,
}

/// The stored Sessions, as far as they were seen.
#[derive(Debug, Default)]
pub struct Desired {
    sessions: HashMap<(String, String), Session>,
    revision: u64,
    listed: bool,
}

impl Desired {
    /// Takes in a change; returns what people should hear of it. Of the first list that is nothing: who begins to look
    /// doesn't know what is new.
    pub fn apply(&mut self, change: Change) -> Vec<News> {
        match change {
            Change::Listed(sessions, revision) => {
                self.seen(revision);
                self.list(sessions)
            }
            Change::Stored(session) => {
                self.seen(revision(&session));
                let before = self.sessions.insert(key(&session), (*session).clone());
                before.is_none().then_some(News::Began(session)).into_iter().collect()
            }
            Change::Gone(session) => {
                self.seen(revision(&session));
                let before = self.sessions.remove(&key(&session));
                before.map(|session| News::Ended(Box::new(session))).into_iter().collect()
            }
            Change::Seen(revision) => {
                self.seen(revision);
                Vec::new()
            }
        }
    }

    /// Takes in a full list.
    fn list(&mut self, sessions: Vec<Session>) -> Vec<News> {
        let sessions = sessions.into_iter().map(|session| (key(&session), session)).collect();
        let before = std::mem::replace(&mut self.sessions, sessions);
        if !std::mem::replace(&mut self.listed, true) {
            return Vec::new();
        }
        let began = self.sessions.iter().filter(|(key, _)| !before.contains_key(*key));
        let began: Vec<_> = began.map(|(_, session)| News::Began(Box::new(session.clone()))).collect();
        let ended = before.into_iter().filter(|(key, _)| !self.sessions.contains_key(key));
        began.into_iter().chain(ended.map(|(_, session)| News::Ended(Box::new(session)))).collect()
    }

    /// How many Sessions are stored, and how many of them are live.
    #[must_use]
    pub fn counts(&self, now: UnixTime, rules: Rules) -> (usize, usize) {
        let live = |session: &&Session| {
            let expires_at = session.status.as_ref().map_or(0, |status| status.expires_at);
            !is_over(session, now, rules) && now < expires_at
        };
        (self.sessions.len(), self.sessions.values().filter(live).count())
    }

    fn seen(&mut self, revision: u64) {
        self.revision = self.revision.max(revision);
    }

    /// The resource version up to which Sessions were seen.
    #[must_use]
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// The sidecars that have sessions, and which.
    #[must_use]
    pub fn twins(&self, now: UnixTime, rules: Rules) -> BTreeMap<RouteId, (Twin, Vec<Announcement>)> {
        let mut twins: BTreeMap<RouteId, (Twin, Vec<Announcement>)> = BTreeMap::new();
        let mut live: Vec<_> = self.live(now, rules).collect();
        // A sidecar takes so many and no more: those that came first stay, whoever creates how many.
        live.sort_by_key(|session| {
            let created = session.metadata.creation_timestamp.as_ref().map(|time| time.0);
            (created, session.metadata.name.clone())
        });
        let mut crowd = Crowd::default();
        for session in live {
            let Some((status, announcement)) = announcement(session) else { continue };
            let namespace = session.namespace().unwrap_or_default();
            if crowd.join(&namespace, &status.creator) > rules.per_user {
                continue;
            }
            for twin in status.pods.iter().filter_map(|pod| twin(pod, &status.container, &namespace)) {
                twins.entry(twin.route).or_insert_with(|| (twin, Vec::new())).1.push(announcement.clone());
            }
        }
        for (_, announcements) in twins.values_mut() {
            announcements.truncate(limits::SESSIONS);
        }
        twins
    }

    /// How many Sessions each user has.
    #[must_use]
    pub fn crowd(&self, now: UnixTime, rules: Rules) -> Crowd {
        let mut crowd = Crowd::default();
        for session in self.live(now, rules) {
            if let Some(status) = &session.status {
                crowd.join(session.metadata.namespace.as_deref().unwrap_or_default(), &status.creator);
            }
        }
        crowd
    }

    fn live(&self, now: UnixTime, rules: Rules) -> impl Iterator<Item = &Session> {
        self.sessions.values().filter(move |session| !is_over(session, now, rules))
    }

    /// The Sessions that are over and can be deleted.
    #[must_use]
    pub fn garbage(&self, now: UnixTime, rules: Rules) -> Vec<&Session> {
        // Without a configuration nothing is known about what it covers.
        if rules.configuration.created.is_none() {
            return Vec::new();
        }
        let over = |session: &&Session| {
            session.metadata.deletion_timestamp.is_none() && is_over(session, now, rules)
        };
        self.sessions.values().filter(over).collect()
    }
}

fn key(session: &Session) -> (String, String) {
    (session.namespace().unwrap_or_default(), session.name_any())
}

fn revision(session: &Session) -> u64 {
    session.resource_version().and_then(|version| version.parse().ok()).unwrap_or(0)
}

fn is_covered(session: &Session, rules: Rules) -> bool {
    let created = session.metadata.creation_timestamp.as_ref();
    let created = created.and_then(|time| u64::try_from(time.0.as_second()).ok()).unwrap_or(0);
    rules.configuration.covers(created)
}

/// Why a Session that is gone ended; `None` where it never counted.
pub(super) fn ending(session: &Session, now: UnixTime, rules: Rules) -> Option<&'static str> {
    let status = session.status.as_ref().filter(|_| is_covered(session, rules))?;
    Some(if now >= status.deadline {
        "its deadline was reached"
    } else if now >= status.expires_at.saturating_add(rules.grace) {
        "it was not renewed"
    } else {
        "it was deleted"
    })
}

pub(super) fn is_over(session: &Session, now: UnixTime, rules: Rules) -> bool {
    session.metadata.deletion_timestamp.is_some()
        || !is_covered(session, rules)
        || session.status.as_ref().is_none_or(|status| {
            now >= status.deadline || now >= status.expires_at.saturating_add(rules.grace)
        })
}

fn announcement(session: &Session) -> Option<(&SessionStatus, Announcement)> {
    let status = session.status.as_ref()?;
    let public_key = session.spec.public_key_der()?;
    if session.metadata.name.as_deref() != Some(&session_name(&public_key)) {
        return None;
    }
    let mut creator = status.creator.username.clone();
    creator.truncate(creator.floor_char_boundary(CREATOR_BYTES));
    let announcement = Announcement {
        key_hash: KeyHash::of(&public_key).0.to_vec(),
        features: status.features.iter().filter_map(|word| word.parse().ok()).collect(),
        expires_at: status.expires_at,
        deadline: status.deadline,
        creator,
    };
    Some((status, announcement))
}

fn twin(pod: &SessionPod, container: &str, namespace: &str) -> Option<Twin> {
    let route: RouteId = pod.route.parse().ok()?;
    let address: IpAddr = pod.address.parse().ok()?;
    (route == RouteId::of(&pod.uid, container)).then(|| Twin {
        route,
        address: SocketAddr::new(address, pod.port),
        namespace: namespace.to_owned(),
        pod: pod.name.clone(),
        pod_uid: pod.uid.clone(),
    })
}

#[cfg(test)]
mod tests;
