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

fn told_of(news: Vec<News>) -> Vec<(&'static str, String)> {
    let mut told: Vec<_> = news
        .into_iter()
        .map(|news| match news {
            News::Began(session) => ("began", session.name_any()),
            News::Ended(session) => ("ended", session.name_any()),
        })
        .collect();
    told.sort();
    told
}

#[test]
fn people_hear_of_each_start_and_end_once_but_of_nothing_that_was_there_before() {
    let mut desired = Desired::default();
    let (old, new, late) = (session(5, &["a"]), session(6, &["a"]), session(9, &["a"]));
    assert_eq!(told_of(desired.apply(Change::Listed(vec![old.clone()], 5))), []);
    let began = desired.apply(Change::Stored(Box::new(new.clone())));
    assert_eq!(told_of(began), [("began", new.name_any())]);
    assert_eq!(told_of(desired.apply(Change::Stored(Box::new(new.clone())))), [], "a renewal");
    let ended = desired.apply(Change::Gone(Box::new(old.clone())));
    assert_eq!(told_of(ended), [("ended", old.name_any())]);
    assert_eq!(told_of(desired.apply(Change::Gone(Box::new(old)))), []);
    let missed = desired.apply(Change::Listed(vec![late.clone()], 12));
    assert_eq!(told_of(missed), [("began", late.name_any()), ("ended", new.name_any())]);
}

#[test]
fn an_end_has_its_reason_and_only_what_counted_has_one() {
    let rules = |grace| Rules { grace, ..RULES };
    let session = session(5, &["a"]);
    assert_eq!(ending(&session, 3_700, rules(600)), Some("it was deleted"));
    assert_eq!(ending(&session, 4_300, rules(600)), Some("it was deleted"), "it could still be renewed");
    assert_eq!(ending(&session, 4_600, rules(600)), Some("it was not renewed"));
    assert_eq!(ending(&session, 9_000, rules(600)), Some("its deadline was reached"));
    let young = Configuration { agrees: true, created: Some(3_600) };
    assert_eq!(ending(&session, 3_700, Rules { configuration: young, ..RULES }), None);
}

#[test]
fn what_is_stored_and_what_is_live_is_counted() {
    let mut desired = Desired::default();
    desired.apply(Change::Listed(vec![session(5, &["a"]), session(6, &["b"])], 6));
    assert_eq!(desired.counts(3_999, RULES), (2, 2));
    assert_eq!(desired.counts(4_000, RULES), (2, 0), "suspended until they are renewed");
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
    let mut forgeries = vec![session(1, &["a"]), session(2, &["a"]), session(3, &["a"]), session(4, &["a"])];
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
    others.metadata.creation_timestamp = Some(serde_json::from_value(json!("1970-01-01T01:00:02Z")).unwrap());
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
    first.metadata.creation_timestamp = Some(serde_json::from_value(json!("1970-01-01T00:59:50Z")).unwrap());
    first.status.as_mut().unwrap().expires_at = 4_500;
    let sessions = (0..limits::SESSIONS).map(|_| session(5, &["a"])).chain([first]).collect();
    desired.apply(Change::Listed(sessions, 5));
    let twins = desired.twins(3_700, RULES);
    let announcements = &twins[&RouteId::of("a", "app")].1;
    assert_eq!(announcements.len(), limits::SESSIONS);
    assert_eq!(announcements[0].expires_at, 4_500, "those that came first are kept");
}
