//! Reviews of Sessions, as far as they need no API server, and what a router makes of a Session.

use std::net::IpAddr;

use base64::{Engine, engine::general_purpose::STANDARD};
use k8s_openapi::api::authentication::v1::UserInfo;
use mirrord_ingress::watch;
use mirrord_session::{Session, SessionStatus, session_name};
use mirrord_webhook::sessions::{
    denial::Denial,
    review::{Operation, Request, ReviewError, Verdict},
    wish::{self, Update, Wish},
};
use serde_json::{Value, json};

/// When the review is answered.
const NOW: u64 = 1_000_000;

/// The body of a review; where it isn't one, a Session that is created under its key's name.
pub fn session_review(data: &[u8]) {
    match Request::parse(data) {
        Ok(request) => answered(&request),
        Err(ReviewError::Refused { uid, denial, .. }) => denied(denial, uid),
        Err(ReviewError::Unreadable(_)) => {
            let Ok(mut session) = serde_json::from_slice::<Session>(data) else { return };
            if let Some(key) = session.spec.public_key_der() {
                session.metadata.name = Some(session_name(&key));
            }
            let request = json!({"uid": "u-1", "operation": "CREATE", "userInfo": {}, "object": session});
            let body = json!({ "request": request }).to_string();
            answered(&Request::parse(body.as_bytes()).expect("what was read can be reviewed"));
        }
    }
}

fn answered(request: &Request) {
    let uid = request.uid.clone();
    match &request.operation {
        Operation::Create(session) => {
            known(session);
            match wish::creation(session) {
                Ok(wish) => {
                    let key = session.spec.public_key_der().expect("a key");
                    assert_eq!(session.metadata.name, Some(session_name(&key)));
                    wished(&wish, session);
                    admitted(&session.status.clone().unwrap_or_default(), uid);
                }
                Err(denial) => denied(denial, uid),
            }
        }
        Operation::Update { old, new } => {
            known(old);
            known(new);
            match wish::update(&request.user, old, new, NOW) {
                Ok(update) => updated(&update, &request.user, old, new),
                Err(denial) => denied(denial, uid),
            }
        }
    }
}

/// Only the creator gets more time, before the deadline, for what was granted and nothing else.
fn updated(update: &Update, user: &UserInfo, old: &Session, new: &Session) {
    let Update::Renew(wish) = update else { return };
    let status = old.status.as_ref().expect("it was admitted");
    assert_eq!(user.username.as_deref().unwrap_or_default(), status.creator.username);
    assert!(NOW < status.deadline && old.metadata.deletion_timestamp.is_none());
    let mut same = new.spec.clone();
    same.renewal = old.spec.renewal;
    assert!(same == old.spec && new.spec.renewal != old.spec.renewal);
    assert_eq!(wish.container.as_ref(), Some(&status.container));
    wished(wish, old);
}

fn wished(wish: &Wish, session: &Session) {
    let asked = [&session.spec.features[..], &session.spec.optional_features].concat();
    assert!(!wish.features().is_empty());
    assert!(wish.features().iter().all(|feature| asked.iter().any(|word| word == feature.verb())));
    let target = wish.target.to_string();
    assert_eq!(target.parse().as_ref(), Ok(&wish.target));
}

/// A Session survives being stored, and a router sends no packet where none may go for it.
fn known(session: &Session) {
    let stored = serde_json::to_value(session).expect("an object");
    let again: Session = serde_json::from_value(stored).expect("what was written can be read");
    assert_eq!((&again.spec, &again.status), (&session.spec, &session.status));
    for (route, address) in watch::grant(session).routes {
        let ip = address.ip().to_canonical();
        let local = matches!(ip, IpAddr::V4(v4) if v4.is_link_local() || v4.is_broadcast());
        assert!(
            !(local || ip.is_loopback() || ip.is_unspecified() || ip.is_multicast()),
            "{route}: {address}"
        );
        assert_ne!(address.port(), 0);
    }
}

fn admitted(status: &SessionStatus, uid: String) {
    let response = response(&Verdict::Admitted(Box::new(status.clone())), uid, true);
    let patch = response["patch"].as_str().and_then(|text| STANDARD.decode(text).ok()).expect("base64");
    let patch: Value = serde_json::from_slice(&patch).expect("JSON");
    assert_eq!(patch, json!([{"op": "add", "path": "/status", "value": status}]));
}

fn denied(denial: Denial, uid: String) {
    assert!(!denial.message.is_empty());
    let (word, message) = (denial.code.word(), denial.message.clone());
    let response = response(&Verdict::Denied(denial), uid, false);
    assert!(response.get("patch").is_none());
    assert_eq!(response["status"]["message"], message);
    assert_eq!(response["status"]["details"]["causes"][0]["reason"], word);
}

fn response(verdict: &Verdict, uid: String, allowed: bool) -> Value {
    let answer = verdict.answer(uid.clone()).expect("written");
    let answer: Value = serde_json::from_slice(&answer).expect("JSON");
    assert_eq!((&answer["response"]["uid"], &answer["response"]["allowed"]), (&uid.into(), &allowed.into()));
    answer["response"].clone()
}
