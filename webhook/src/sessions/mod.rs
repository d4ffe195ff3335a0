//! The admission webhook on Sessions: who may do what, and the answer with all that a client needs.
//!
//! A review is answered by few calls to the API server (the target, its pods, one SubjectAccessReview a feature) and
//! pure decisions over their results. What is answered is no authority: any pod can post a forged review. Sidecars
//! serve only what [`crate::boot`] reads back from the API server's store, where forged reviews never get.
//!
//! | module | what it holds |
//! |---|---|
//! | [`review`] | the AdmissionReview, from bytes to bytes |
//! | [`wish`] | what a Session asks for; what may change afterwards |
//! | [`lookup`] | target → top-level workload and pods |
//! | [`sidecars`] | which pods can serve |
//! | [`trust`] | whose sidecars know this installation's authority |
//! | [`grants`] | what the caller may do |
//! | [`crowd`] | how many sessions one user may have |
//! | [`ingress`] | where clients reach the ingress |
//! | [`listing`] | targets that the caller may use |
//! | [`denial`], [`explain`] | refusals and what they say |
//! | [`audit`] | a line for each decision |

pub mod audit;
pub mod crowd;
pub mod denial;
pub mod explain;
pub mod grants;
pub mod ingress;
pub mod listing;
pub mod lookup;
pub mod review;
pub mod sidecars;
pub mod trust;
pub mod wish;

use std::{sync::Arc, time::Duration};

use k8s_openapi::api::core::v1::Namespace;
use kube::{Api, Client, ResourceExt};
use mirrord_certs::UnixTime;
use mirrord_protocol::feature::Feature;
use mirrord_session::{INJECT_LABEL, SessionPod, SessionStatus};
use tokio::sync::watch;

use self::{
    audit::Record,
    crowd::Crowd,
    denial::{Denial, DenialCode},
    grants::Grants,
    lookup::{Lookup, Workload},
    review::{Operation, Request, ReviewError, Verdict},
    sidecars::{Choice, MAX_PODS, Serving, WhyNone},
    trust::{Acquaintance, Parted},
    wish::{Update, Wish},
};
use crate::{
    boot::Prepare,
    certificates::{
        bundle::Configuration,
        keys::{Keyring, Keys},
    },
    clock,
    metrics::{SessionReview, metrics},
};

/// A review takes no longer: the API server waits 10 s.
const PATIENCE: Duration = Duration::from_secs(8);
/// A gate token outlives its session's expiry by so much, in seconds: routers' and sidecars' clocks may be 5 minutes ahead.
pub const GATE_LEEWAY: u64 = 360;

/// How long sessions live.
#[derive(Clone, Copy, Debug)]
pub struct Lifetimes {
    /// Until they are suspended unless renewed, in seconds.
    pub ttl: u64,
    /// Until they end for good, in seconds.
    pub deadline: u64,
}

/// Answers reviews of Sessions.
pub struct Sessions {
    /// To the API server.
    pub client: Client,
    /// How long sessions live.
    pub lifetimes: Lifetimes,
    /// What gate tokens and sidecars' certificates come from.
    pub keyring: Keyring,
    /// Where clients reach the ingress; `None` while that isn't known.
    pub ingress: watch::Receiver<Option<Arc<str>>>,
    /// Whether Sessions of this moment will be trusted when they are read back.
    pub configuration: watch::Receiver<Configuration>,
    /// How many sessions there are, as far as this replica has seen.
    pub crowd: watch::Receiver<Crowd>,
    /// How many sessions one user may have in a namespace.
    pub per_user: usize,
    /// Wakes sidecars up while the answer is still on its way.
    pub prepare: Prepare,
}

/// What a session gets: the answer, without what only the moment decides.
struct Granted {
    workload: Workload,
    features: Vec<Feature>,
    choice: Choice,
}

impl Sessions {
    /// Answers one review.
    ///
    /// # Errors
    /// Where the body is no review; the API server then does what `failurePolicy: Fail` says.
    pub async fn review(&self, body: &[u8]) -> Result<Vec<u8>, ReviewError> {
        let reviews = &metrics().sessions.reviews;
        let (uid, verdict) = match Request::parse(body) {
            Ok(request) => {
                let mut record = Record::default();
                let decided = tokio::time::timeout(PATIENCE, self.decide(&request, &mut record)).await;
                let decided =
                    decided.unwrap_or_else(|late| Err(Denial::unavailable("asking the API server")(late)));
                let (review, verdict) = match decided {
                    Ok((review, status)) => (review, Verdict::Admitted(Box::new(status))),
                    Err(denial) => (SessionReview::Denied(denial.code), Verdict::Denied(denial)),
                };
                audit::decided(&request, &record, review, &verdict);
                reviews.of(review).inc();
                (request.uid, verdict)
            }
            Err(ReviewError::Refused { uid, user, namespace, denial }) => {
                audit::unreadable(&user, &namespace, &denial);
                reviews.of(SessionReview::Denied(denial.code)).inc();
                (uid, Verdict::Denied(denial))
            }
            Err(unreadable @ ReviewError::Unreadable(_)) => return Err(unreadable),
        };
        Ok(verdict.answer(uid)?)
    }

    async fn decide(
        &self,
        request: &Request,
        record: &mut Record,
    ) -> Result<(SessionReview, SessionStatus), Denial> {
        let now = clock::now();
        let (review, status) = match &request.operation {
            Operation::Create(session) if request.dry_run && session.spec.target.is_none() => {
                (SessionReview::DryRun, self.list(request).await?)
            }
            Operation::Create(session) => {
                let wish = wish::creation(session)?;
                if !self.configuration.borrow().covers(now) {
                    return Err(Denial::new(
                        DenialCode::Unavailable,
                        "mirrord was installed this very moment: try again in a few seconds",
                    ));
                }
                let creator = wish::creator(&request.user);
                self.crowd.borrow().room(&request.namespace, &creator, self.per_user)?;
                let deadline = now + self.lifetimes.deadline;
                let renewal = Some(session.spec.renewal.unwrap_or_default());
                let fresh = SessionStatus { creator, renewal, deadline, ..SessionStatus::default() };
                (SessionReview::Granted, self.admit(request, &wish, fresh, now, record).await?)
            }
            Operation::Update { old, new } => match wish::update(&request.user, old, new, now)? {
                Update::Keep => (SessionReview::Unchanged, old.status.clone().unwrap_or_default()),
                Update::Renew(wish) => {
                    let mut status = old.status.clone().unwrap_or_default();
                    status.renewal = Some(new.spec.renewal.unwrap_or_default());
                    (SessionReview::Renewed, self.admit(request, &wish, status, now, record).await?)
                }
            },
        };
        Ok((if request.dry_run { SessionReview::DryRun } else { review }, status))
    }

    async fn list(&self, request: &Request) -> Result<SessionStatus, Denial> {
        let lookup = Lookup::new(self.client.clone(), &request.namespace);
        let grants = Grants::new(self.client.clone());
        let targets = listing::list(&lookup, &grants, &request.user, &request.namespace);
        let targets = targets.await.map_err(Denial::unavailable("listing workloads"))?;
        Ok(SessionStatus { targets, ..SessionStatus::default() })
    }

    /// Checks and fills in; `status` holds what stays.
    async fn admit(
        &self,
        request: &Request,
        wish: &Wish,
        status: SessionStatus,
        now: UnixTime,
        record: &mut Record,
    ) -> Result<SessionStatus, Denial> {
        let ingress = self.ingress.borrow().clone().ok_or_else(|| {
            Denial::new(
                DenialCode::Unavailable,
                "mirrord's ingress has no public address yet: its LoadBalancer Service is pending (an admin can set \
                 one: chart value ingress.address)",
            )
        })?;
        let primary = status.pods.first().map(|pod| pod.uid.clone());
        let Granted { workload, features, choice } =
            self.grant(request, wish, primary.as_deref(), record).await?;
        let expires_at = (now + self.lifetimes.ttl).min(status.deadline);
        // Only the one that every session uses: a review may be forged, and the others shall sleep on.
        if let Some(primary) = choice.pods.first().filter(|_| !request.dry_run) {
            self.prepare.wake(&request.namespace, primary);
        }
        (record.pods, record.expires_at) = (choice.pods.len(), expires_at);
        let keys = self.keyring.now();
        let pods = choice.pods.iter().map(|pod| session_pod(pod, &keys, expires_at)).collect();
        Ok(SessionStatus {
            workload: workload.resource_name(),
            features: features.iter().map(|feature| feature.verb().to_owned()).collect(),
            container: choice.container,
            pods,
            without_sidecar: choice.without_sidecar,
            running: choice.running,
            injected: choice.injected,
            ingress: ingress.to_string(),
            certificate_authorities: keys.authority.trusted_pem(),
            expires_at,
            expires_in: u32::try_from(expires_at.saturating_sub(now)).unwrap_or(u32::MAX),
            targets: Vec::new(),
            ..status
        })
    }

    async fn grant(
        &self,
        request: &Request,
        wish: &Wish,
        primary: Option<&str>,
        record: &mut Record,
    ) -> Result<Granted, Denial> {
        let lookup = Lookup::new(self.client.clone(), &request.namespace);
        let grants = Grants::new(self.client.clone());
        let found = lookup.find(&wish.target).await.map_err(Denial::unavailable("looking for the target"))?;
        let Some(found) = found else { return Err(self.not_found(request, wish, &lookup, &grants).await) };
        let workload = found.workload.clone();
        record.workload = workload.resource_name();
        let granted = grants.of(&request.user, &request.namespace, Some(&workload), wish.features());
        let (granted, pods) = futures::future::try_join(granted, lookup.pods(found))
            .await
            .map_err(Denial::unavailable("asking for rights and pods"))?;
        record.refused = wish.features().into_iter().filter(|it| !granted.contains(it)).collect();
        let refused = |missing: &[Feature]| {
            let message = grants::missing_message(&request.user, &request.namespace, &workload, missing);
            Denial::new(DenialCode::NotGranted, message)
        };
        let features = grants::settle(&wish.required, &granted).map_err(|missing| refused(&missing))?;
        if features.is_empty() {
            return Err(refused(&wish.optional));
        }
        record.granted.clone_from(&features);
        let keys = self.keyring.now();
        let acquaintance = Acquaintance::new(&keys.authority, clock::now());
        let Parted { pods, strangers } = trust::part(pods, |theirs| acquaintance.knows_us(theirs));
        match sidecars::choose(&pods, wish.container.as_deref(), primary) {
            Ok(mut choice) => {
                // As good as none, and mended in the same way.
                let more = u32::try_from(strangers.len()).unwrap_or(u32::MAX);
                choice.running = choice.running.saturating_add(more);
                choice.without_sidecar.extend(strangers);
                choice.without_sidecar.truncate(MAX_PODS);
                Ok(Granted { workload, features, choice })
            }
            Err(WhyNone::NothingRuns) if !strangers.is_empty() => {
                Err(explain::strangers(&workload, &request.namespace))
            }
            Err(why) => Err(self.nothing_serves(&why, &workload, &request.namespace).await),
        }
    }

    async fn nothing_serves(&self, why: &WhyNone, workload: &Workload, namespace: &str) -> Denial {
        let found = Api::<Namespace>::all(self.client.clone()).get(namespace).await;
        let labelled = found
            .ok()
            .map(|namespace| namespace.labels().get(INJECT_LABEL).is_some_and(|value| value == "enabled"));
        explain::nothing_serves(why, workload, namespace, labelled)
    }

    /// Suggests names that are near, of workloads only that the caller has a right on.
    async fn not_found(&self, request: &Request, wish: &Wish, lookup: &Lookup, grants: &Grants) -> Denial {
        let wanted = Workload { kind: wish.target.kind, name: wish.target.name.clone() };
        let there = lookup.common_workloads().await.unwrap_or_default();
        let mut near = Vec::new();
        for workload in explain::near(&wanted, there) {
            let granted = grants.of(&request.user, &request.namespace, Some(&workload), Feature::ALL).await;
            if granted.is_ok_and(|granted| !granted.is_empty()) {
                near.push(workload);
            }
        }
        explain::not_found(&wanted, &request.namespace, &near)
    }
}

fn session_pod(pod: &Serving, keys: &Keys, expires_at: UnixTime) -> SessionPod {
    let Serving { name, uid, route, address, port } = pod;
    SessionPod {
        name: name.clone(),
        uid: uid.clone(),
        route: route.to_string(),
        address: address.clone(),
        port: *port,
        gate_token: String::new(),
    }
    .with_gate_token(&keys.gate.issue(*route, expires_at + GATE_LEEWAY))
}
