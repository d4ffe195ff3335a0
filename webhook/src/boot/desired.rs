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
}

impl Desired {
    /// Takes in news.
    pub fn apply(&mut self, change: Change) {
        match change {
            Change::Listed(sessions, revision) => {
                self.sessions = sessions.into_iter().map(|session| (key(&session), session)).collect();
                self.seen(revision);
            }
            Change::Stored(session) => {
                self.seen(revision(&session));
                self.sessions.insert(key(&session), *session);
            }
            Change::Gone(session) => {
                self.seen(revision(&session));
                self.sessions.remove(&key(&session));
            }
            Change::Seen(revision) => self.seen(revision),
        }
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

fn is_over(session: &Session, now: UnixTime, rules: Rules) -> bool {
    let created = session.metadata.creation_timestamp.as_ref();
    let created = created.and_then(|time| u64::try_from(time.0.as_second()).ok()).unwrap_or(0);
    session.metadata.deletion_timestamp.is_some()
        || !rules.configuration.covers(created)
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
mod tests {
    use mirrord_certs::SelfSigned;
    use mirrord_protocol::feature::Feature;
    use mirrord_session::{Creator, SessionSpec};
    use serde_json::json;

    use super::*;

    const RULES: Rules = Rules {
        configuration: Configuration { agrees: true, created: Some(1_000) },
        grace: 600,
        per_user: limits::SESSIONS,
    };

    fn session(version: u64, pods: &[&str]) -> Session {
        let key = SelfSigned::generate().unwrap().public_key();
        let mut session = Session::new(&session_name(&key), SessionSpec::default().with_public_key(&key));
        session.metadata.namespace = Some("shop".into());
        session.metadata.resource_version = Some(version.to_string());
        session.metadata.creation_timestamp =
            Some(serde_json::from_value(json!("1970-01-01T01:00:00Z")).unwrap());
        let pods = pods.iter().map(|uid| SessionPod {
            name: format!("pod-{uid}"),
            uid: (*uid).to_owned(),
            route: RouteId::of(uid, "app").to_string(),
            address: "10.0.0.1".into(),
            port: 4801,
            gate_token: String::new(),
        });
        session.status = Some(SessionStatus {
            creator: Creator { username: "développeur".repeat(40), uid: String::new() },
            features: vec!["env".into(), "telepathy".into()],
            container: "app".into(),
            pods: pods.collect(),
            expires_at: 4_000,
            deadline: 9_000,
            ..SessionStatus::default()
        });
        session
    }

    fn told(desired: &Desired, now: UnixTime) -> Vec<usize> {
        desired.twins(now, RULES).values().map(|(_, announcements)| announcements.len()).collect()
    }

    #[test]
    fn every_pod_of_a_session_is_told_until_it_is_deleted() {
        let mut desired = Desired::default();
        let (one, other) = (session(5, &["a", "b"]), session(6, &["b"]));
        desired.apply(Change::Listed(vec![one.clone()], 5));
        desired.apply(Change::Stored(Box::new(other)));
        let twins = desired.twins(3_700, RULES);
        assert_eq!(twins[&RouteId::of("a", "app")].1.len(), 1);
        assert_eq!(twins[&RouteId::of("b", "app")].1.len(), 2);
        let (twin, announcements) = &twins[&RouteId::of("a", "app")];
        assert_eq!(twin.address, "10.0.0.1:4801".parse().unwrap());
        assert_eq!(announcements[0].features, [Feature::Env]);
        assert!(announcements[0].creator.len() <= CREATOR_BYTES);
        desired.apply(Change::Gone(Box::new(one)));
        assert_eq!(told(&desired, 3_700), [1]);
    }

    #[test]
    fn the_revision_covers_deletions_that_only_a_list_shows() {
        let mut desired = Desired::default();
        desired.apply(Change::Stored(Box::new(session(7, &["a"]))));
        desired.apply(Change::Listed(vec![], 12));
        assert_eq!((told(&desired, 3_700), desired.revision()), (vec![], 12));
        desired.apply(Change::Seen(20));
        assert_eq!(desired.revision(), 20);
    }

    #[test]
    fn an_expired_session_is_kept_for_its_grace_and_never_beyond_its_deadline() {
        let mut desired = Desired::default();
        desired.apply(Change::Listed(vec![session(5, &["a"])], 5));
        assert_eq!(told(&desired, 4_599), [1]);
        assert!(desired.garbage(4_599, RULES).is_empty());
        assert!(told(&desired, 4_600).is_empty());
        assert_eq!(desired.garbage(4_600, RULES).len(), 1);
        let patient = Rules { grace: 1_000_000, ..RULES };
        assert_eq!(desired.twins(8_999, patient).len(), 1);
        assert!(desired.twins(9_000, patient).is_empty());
    }

    #[test]
    fn sessions_that_never_saw_our_admission_gain_nothing() {
        let mut forgeries =
            vec![session(1, &["a"]), session(2, &["a"]), session(3, &["a"]), session(4, &["a"])];
        forgeries[0].metadata.creation_timestamp =
            Some(serde_json::from_value(json!("1970-01-01T00:00:10Z")).unwrap());
        forgeries[1].status = None;
        forgeries[2].metadata.name = Some("s-other".into());
        forgeries[3].status.as_mut().unwrap().pods[0].uid = "another-pods".into();
        let mut desired = Desired::default();
        desired.apply(Change::Listed(forgeries, 5));
        assert!(desired.twins(3_700, RULES).is_empty());
    }

    #[test]
    fn a_session_under_deletion_is_over_though_finalizers_keep_it() {
        let mut ending = session(5, &["a"]);
        ending.metadata.deletion_timestamp = ending.metadata.creation_timestamp.clone();
        let mut desired = Desired::default();
        desired.apply(Change::Listed(vec![ending], 5));
        assert!(desired.twins(3_700, RULES).is_empty());
        assert!(desired.garbage(9_000, RULES).is_empty(), "it is being deleted already");
    }

    #[test]
    fn of_one_users_sessions_only_the_oldest_count_and_others_have_room() {
        let rules = Rules { per_user: 2, ..RULES };
        let mut sessions: Vec<Session> = (0..3).map(|_| session(5, &["a"])).collect();
        sessions[1].metadata.creation_timestamp =
            Some(serde_json::from_value(json!("1970-01-01T01:00:01Z")).unwrap());
        sessions[1].status.as_mut().unwrap().expires_at = 4_001;
        let mut others = session(5, &["a"]);
        others.metadata.creation_timestamp =
            Some(serde_json::from_value(json!("1970-01-01T01:00:02Z")).unwrap());
        others.status.as_mut().unwrap().creator.username = "bob".into();
        others.status.as_mut().unwrap().expires_at = 4_002;
        let first = sessions[0].clone();
        let mut desired = Desired::default();
        desired.apply(Change::Listed(sessions.into_iter().chain([others]).collect(), 5));
        let told = |desired: &Desired| -> Vec<u64> {
            let twins = desired.twins(3_700, rules);
            twins[&RouteId::of("a", "app")].1.iter().map(|announcement| announcement.expires_at).collect()
        };
        assert_eq!(told(&desired), [4_000, 4_000, 4_002], "the youngest of the crowd is left out");
        let creator = first.status.as_ref().unwrap().creator.clone();
        assert!(
            desired.crowd(3_700, rules).room("shop", &creator, 3).is_err(),
            "all that are stored are counted"
        );
        desired.apply(Change::Gone(Box::new(first)));
        assert_eq!(told(&desired), [4_000, 4_001, 4_002], "and moves up");
    }

    #[test]
    fn a_sidecar_is_told_no_more_than_the_wire_allows() {
        let mut desired = Desired::default();
        let mut first = session(5, &["a"]);
        first.metadata.creation_timestamp =
            Some(serde_json::from_value(json!("1970-01-01T00:59:50Z")).unwrap());
        first.status.as_mut().unwrap().expires_at = 4_500;
        let sessions = (0..limits::SESSIONS).map(|_| session(5, &["a"])).chain([first]).collect();
        desired.apply(Change::Listed(sessions, 5));
        let twins = desired.twins(3_700, RULES);
        let announcements = &twins[&RouteId::of("a", "app")].1;
        assert_eq!(announcements.len(), limits::SESSIONS);
        assert_eq!(announcements[0].expires_at, 4_500, "those that came first are kept");
    }
}
