//! Puts the sidecar into pods, as the mutating webhook on their creation. No I/O: [`review`] turns the bytes that
//! the API server posts into those of the answer, [`inject`] decides for one pod.
//!
//! Three promises, kept by construction and held by tests: the patch only *adds*, and never inside an application
//! container; what was injected once is left alone when the API server asks again; and a pod is *never denied*:
//! whatever we can't serve or don't understand is admitted as it came, with a reason from a closed list.
//!
//! | module | what it holds |
//! |---|---|
//! | [`settings`] | what the operator decides |
//! | [`limits`], [`quantity`] | bounds that a namespace's LimitRanges and quotas set |
//! | [`names`], [`status`] | names, paths and the annotation, shared with who looks for sidecars |
//! | [`skip`] | the closed list of reasons |
//! | `pod`, `raw` | the pod as it is read: few fields borrowed, the rest untouched |
//! | `choose`, `process_namespace`, `resources` | the decisions |
//! | `twin`, `patch` | what is added |

use serde_json::value::RawValue;

pub mod limits;
pub mod names;
pub mod quantity;
pub mod settings;
pub mod skip;
pub mod status;

mod choose;
mod patch;
mod pod;
mod process_namespace;
mod raw;
mod resources;
mod review;
mod secrets;
mod twin;

use self::{
    choose::{Choice, Chosen, MountError},
    names::{EVICTABLE_ANNOTATION, STATUS_ANNOTATION},
    pod::Pod,
    status::STATUS_VERSION,
};
pub use self::{
    limits::{LimitRangeItem, Limits, Quota},
    patch::Patch,
    process_namespace::{Sharing, Why},
    review::{Reviewed, review},
    settings::{Authorities, Settings},
    skip::SkipReason,
    status::{InjectedContainer, ProcessNamespace, Status},
};

/// What is known of a pod's namespace. (The pod itself may not name it: pods made from a template don't yet.)
#[derive(Clone, Copy, Debug)]
pub struct NamespaceFacts<'a> {
    /// Its name, from the review.
    pub name: &'a str,
    /// Whether it is labelled; `None` where nobody watches, and the API server's selectors are trusted.
    pub opted_in: Option<bool>,
    /// What its LimitRanges say, and what its quotas leave.
    pub limits: Limits,
}

/// What to do with one pod.
#[derive(Debug)]
pub enum Outcome {
    /// It gets its sidecars.
    Injected {
        /// What to answer to the API server.
        patch: Patch,
        /// What to log and tell.
        report: Report,
    },
    /// It gets none, for a good reason.
    Skipped(SkipReason),
    /// It gets none, by a fault of ours.
    Failed(Fault),
}

/// What was decided for an injected pod.
#[derive(Debug)]
pub struct Report {
    /// The status annotation's content.
    pub status: Status,
    /// Whether processes are shared, and why.
    pub sharing: Sharing,
    /// What the pod's author should know.
    pub warnings: Vec<&'static str>,
}

/// A fault of ours: the pod is admitted untouched, the author warned, a metric counts it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Fault {
    /// The review is no AdmissionReview that we can read.
    #[error("the admission review could not be read")]
    UnreadableReview,
    /// A field of the pod has an unexpected type.
    #[error("the pod could not be read")]
    UnreadablePod,
    /// The patch could not be written.
    #[error("the patch could not be written")]
    Unwritable,
}

impl Fault {
    /// All of them.
    pub const ALL: &[Self] = &[Self::UnreadableReview, Self::UnreadablePod, Self::Unwritable];

    /// The value of the metric's label.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::UnreadableReview => "unreadable_review",
            Self::UnreadablePod => "unreadable_pod",
            Self::Unwritable => "unwritable",
        }
    }
}

/// Decides for one pod. Never fails: a pod that we can't serve is admitted untouched.
#[must_use]
pub fn inject(pod: &RawValue, namespace: &NamespaceFacts<'_>, settings: &Settings) -> Outcome {
    match Pod::read(pod) {
        Ok(pod) => inject_read(&pod, namespace, settings),
        Err(_) => Outcome::Failed(Fault::UnreadablePod),
    }
}

fn inject_read(pod: &Pod<'_>, namespace: &NamespaceFacts<'_>, settings: &Settings) -> Outcome {
    match decide(pod, namespace, settings) {
        Ok((patch, report)) => Outcome::Injected { patch, report },
        Err(Stop::Skipped(reason)) => Outcome::Skipped(reason),
        Err(Stop::Failed(fault)) => Outcome::Failed(fault),
    }
}

/// What ends an injection early.
enum Stop {
    Skipped(SkipReason),
    Failed(Fault),
}

impl From<SkipReason> for Stop {
    fn from(reason: SkipReason) -> Self {
        Self::Skipped(reason)
    }
}

impl From<MountError> for Stop {
    fn from(error: MountError) -> Self {
        match error {
            MountError::PathTaken => Self::Skipped(SkipReason::PathTaken),
            MountError::Unreadable => Self::Failed(Fault::UnreadablePod),
        }
    }
}

impl From<serde_json::Error> for Stop {
    fn from(_: serde_json::Error) -> Self {
        Self::Failed(Fault::Unwritable)
    }
}

fn decide(
    pod: &Pod<'_>,
    namespace: &NamespaceFacts<'_>,
    settings: &Settings,
) -> Result<(Patch, Report), Stop> {
    skip::at_first_sight(pod, namespace, settings)?;
    let authorities = settings.authorities.list();
    if authorities.is_empty() {
        return Err(SkipReason::NoAuthority.into());
    }
    let Choice { chosen, unknown_default } = choose::choose(pod)?;
    let sharing = process_namespace::decide(pod);
    let patch = write(pod, namespace, settings, &authorities, &chosen, sharing)?;

    let mut warnings = Vec::new();
    if unknown_default {
        warnings.push("default-container names no container of the pod; the sidecar serves the first one");
    }
    if sharing.unknown_mode {
        warnings.push("mirrord.dev/process-namespace is none of auto, shared, isolated; it counts as auto");
    }
    Ok((patch, Report { status: status(&chosen, sharing), sharing, warnings }))
}

fn write(
    pod: &Pod<'_>,
    namespace: &NamespaceFacts<'_>,
    settings: &Settings,
    authorities: &str,
    chosen: &[Chosen<'_, '_>],
    sharing: Sharing,
) -> Result<Patch, Stop> {
    let applications: Vec<_> = chosen.iter().map(|twin| twin.container).collect();
    let resources = resources::fit(pod, &applications, &settings.sizes, &namespace.limits)?;
    let mut containers = Vec::with_capacity(chosen.len() + 1);
    for (chosen, resources) in chosen.iter().zip(resources) {
        if containers.is_empty() {
            containers.push(twin::copy_step(pod, settings, chosen.container, resources.clone()));
        }
        containers.push(twin::twin(
            pod,
            chosen,
            authorities,
            sharing.namespace,
            settings.log_format,
            resources,
        )?);
    }
    let status = serde_json::to_string(&status(chosen, sharing))?;
    let evictable = twin::evictable_volumes(pod.annotation(|annotations| &annotations.evictable_volumes));

    let mut patch = Patch::default();
    patch.append("/spec/volumes", pod.spec.volumes.is_some(), &twin::volumes(settings))?;
    patch.append("/spec/initContainers", pod.spec.init_containers.is_some(), &containers)?;
    if sharing.add_field {
        patch.add("/spec/shareProcessNamespace", &true)?;
    }
    let annotations = [(STATUS_ANNOTATION, status), (EVICTABLE_ANNOTATION, evictable)];
    patch.set("/metadata/annotations", pod.metadata.annotations.is_some(), &annotations)?;
    Ok(patch)
}

fn status(chosen: &[Chosen<'_, '_>], sharing: Sharing) -> Status {
    let containers = chosen.iter().map(|twin| InjectedContainer {
        name: twin.container.name.to_string(),
        sidecar: twin.sidecar.clone(),
        port: twin.port,
    });
    Status { version: STATUS_VERSION, containers: containers.collect(), process_namespace: sharing.namespace }
}
