//! The closed sets that labels take their values from.

use mirrord_telemetry::labels;

use crate::{
    injection::{Fault, Outcome, SkipReason},
    sessions::denial::DenialCode,
};

// A value that is missing from its list would have no counter.
const _: () = assert!(Fault::Unwritable as usize + 1 == Fault::ALL.len());
const _: () = assert!(DenialCode::Unavailable as usize + 1 == DenialCode::ALL.len());

/// What became of a pod's review.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PodReview {
    /// It got its sidecars.
    Injected,
    /// It got none, for a good reason.
    Skipped(SkipReason),
    /// It got none, by a fault of ours.
    Failed(Fault),
    /// It got none, by a fault of ours that nobody foresaw.
    Panicked,
}

impl PodReview {
    /// The label of an outcome.
    #[must_use]
    pub fn of(outcome: &Outcome) -> Self {
        match outcome {
            Outcome::Injected { .. } => Self::Injected,
            Outcome::Skipped(reason) => Self::Skipped(*reason),
            Outcome::Failed(fault) => Self::Failed(*fault),
        }
    }
}

impl mirrord_telemetry::Label for PodReview {
    const COUNT: usize = 1 + SkipReason::ALL.len() + Fault::ALL.len() + 1;

    fn all() -> Vec<Self> {
        let skipped = SkipReason::ALL.iter().map(|reason| Self::Skipped(*reason));
        let failed = Fault::ALL.iter().map(|fault| Self::Failed(*fault));
        [Self::Injected].into_iter().chain(skipped).chain(failed).chain([Self::Panicked]).collect()
    }

    fn place(self) -> usize {
        match self {
            Self::Injected => 0,
            Self::Skipped(reason) => 1 + reason as usize,
            Self::Failed(fault) => 1 + SkipReason::ALL.len() + fault as usize,
            Self::Panicked => Self::COUNT - 1,
        }
    }

    fn pairs(self) -> Vec<(&'static str, &'static str)> {
        match self {
            Self::Injected => vec![("result", "injected")],
            Self::Skipped(reason) => vec![("result", "skipped"), ("reason", reason.label())],
            Self::Failed(fault) => vec![("result", "failed"), ("reason", fault.label())],
            Self::Panicked => vec![("result", "failed"), ("reason", "panic")],
        }
    }
}

/// What became of a Session's review.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SessionReview {
    /// A new one was granted.
    Granted,
    /// It may live on.
    Renewed,
    /// A change that is none of ours to decide.
    Unchanged,
    /// Nothing was to be stored.
    DryRun,
    /// It was refused.
    Denied(DenialCode),
}

impl mirrord_telemetry::Label for SessionReview {
    const COUNT: usize = 4 + DenialCode::ALL.len();

    fn all() -> Vec<Self> {
        let denied = DenialCode::ALL.iter().map(|code| Self::Denied(*code));
        [Self::Granted, Self::Renewed, Self::Unchanged, Self::DryRun].into_iter().chain(denied).collect()
    }

    fn place(self) -> usize {
        match self {
            Self::Granted => 0,
            Self::Renewed => 1,
            Self::Unchanged => 2,
            Self::DryRun => 3,
            Self::Denied(code) => 4 + code as usize,
        }
    }

    fn pairs(self) -> Vec<(&'static str, &'static str)> {
        let verdict = match self {
            Self::Granted => "granted",
            Self::Renewed => "renewed",
            Self::Unchanged => "unchanged",
            Self::DryRun => "dry_run",
            Self::Denied(code) => return vec![("verdict", "denied"), ("code", code.word())],
        };
        vec![("verdict", verdict)]
    }
}

labels! {
    /// Why a request was not read.
    pub enum Refused as "reason" {
        /// Its path doesn't end in our key.
        WrongPath = "wrong_path",
        /// Larger than any of an API server's.
        TooLarge = "too_large",
        /// Others needed the memory, or too many Sessions were under review.
        Busy = "busy",
        /// It didn't arrive whole and in time.
        Broken = "broken",
        /// It is no review.
        Unreadable = "unreadable",
    }

    /// A call to a sidecar.
    pub enum BootCall as "call" {
        /// Dial it.
        Dial = "dial",
        /// Who are you?
        Enroll = "enroll",
        /// Here are your certificate and keys.
        Install = "install",
        /// These are your sessions.
        Announce = "announce",
        /// What did you do?
        Report = "report",
    }

    /// What became of a call.
    pub enum CallResult as "result" {
        /// It was answered.
        Answered = "answered",
        /// The sidecar said no.
        Refused = "refused",
        /// There was no answer.
        Lost = "lost",
    }

    /// Why a sidecar could not be told.
    pub enum EnrollFault as "reason" {
        /// It didn't answer, or hung up, or its answer made no sense.
        Unreachable = "unreachable",
        /// It said no.
        Refused = "refused",
        /// Its certificate request can't be granted.
        Certificate = "certificate",
        /// It showed another key than it asks a certificate for, or no token.
        Unproven = "unproven",
        /// The API server doesn't know its token.
        Unauthenticated = "unauthenticated",
        /// Its token is another pod's, or meant for others.
        Stranger = "stranger",
        /// The API server didn't review its token.
        TokenReview = "token_review",
    }

    /// Of which release a sidecar is.
    pub enum Release as "release" {
        /// Of this one.
        Same = "same",
        /// Of another one that says which.
        Other = "other",
        /// Of one that doesn't say.
        Unknown = "unknown",
    }

    /// A certificate.
    pub enum Certificate as "certificate" {
        /// This replica's, for the API server.
        Serving = "serving",
        /// The installation's authority.
        Authority = "authority",
    }

    /// A watch.
    pub enum Watch as "watch" {
        /// Stored Sessions.
        Sessions = "sessions",
        /// LimitRanges.
        LimitRanges = "limit_ranges",
        /// Our webhook configuration.
        Configuration = "configuration",
        /// The ingress's Service.
        Ingress = "ingress",
        /// Our two Secrets.
        Secrets = "secrets",
    }

    /// What an Event is about.
    pub enum Occasion as "occasion" {
        /// A session started.
        Started = "session_started",
        /// A session ended.
        Ended = "session_ended",
        /// A pod's sidecar can't be told.
        Unreachable = "sidecar_unreachable",
    }

    /// What became of an Event.
    pub enum EventResult as "result" {
        /// It was written.
        Written = "written",
        /// Another replica had written it.
        There = "there",
        /// It was one too many.
        Suppressed = "suppressed",
        /// The API server refused it.
        Failed = "failed",
    }

    /// Whose environment and files a sidecar lends.
    pub enum View as "view" {
        /// Its own: same image, variables and volumes.
        Twin = "twin",
        /// The running application's.
        Live = "live",
        /// Another release's word.
        Unknown = "unknown",
    }

    /// Why it isn't the running application's.
    pub enum Obstacle as "obstacle" {
        /// It is.
        None = "none",
        /// The pod doesn't share its process namespace.
        Isolated = "isolated",
        /// No process of the container is there.
        NoProcess = "no_process",
        /// It runs as another user than its container starts with.
        User = "user",
        /// It runs as another group than its container starts with.
        Group = "group",
        /// It has capabilities.
        Capabilities = "capabilities",
        /// It shields its memory.
        Shielded = "shielded",
        /// It has written over its environment.
        Overwritten = "overwritten",
        /// Another release's word.
        Unknown = "unknown",
    }

    /// What clients ask sidecars for.
    pub enum SidecarRequest as "request" {
        /// The environment.
        Environment = "environment",
        /// A file.
        Open = "open",
        /// More of a file.
        Read = "read",
        /// Attributes.
        Stat = "stat",
        /// A folder.
        List = "list",
        /// A link's target.
        ReadLink = "read_link",
        /// A connection.
        Connect = "connect",
        /// A name.
        Resolve = "resolve",
        /// Whether it is there.
        Ping = "ping",
        /// What this release doesn't know.
        Other = "other",
    }

    /// What became of a request.
    pub enum RequestResult as "result" {
        /// It was served.
        Served = "served",
        /// The session had no right to it.
        Refused = "refused",
        /// It failed, as it would have in the pod.
        Failed = "failed",
    }
}

#[cfg(test)]
mod tests {
    use mirrord_telemetry::Label;

    use super::*;

    fn in_order<L: Label + PartialEq>() {
        let all = L::all();
        assert_eq!(all.len(), L::COUNT);
        for (place, label) in all.into_iter().enumerate() {
            assert_eq!(label.place(), place, "{label:?}");
        }
    }

    #[test]
    fn every_outcome_counts_for_itself() {
        in_order::<PodReview>();
        in_order::<SessionReview>();
    }
}
