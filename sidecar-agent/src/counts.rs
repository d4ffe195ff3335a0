//! What this sidecar did since it was asked last, counted for the control plane's metrics: a sidecar has no port for
//! others to ask at. Each thing is told once, to whichever replica asks, so that what all of them heard adds up; an answer
//! that is lost on its way takes its counts along.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use mirrord_protocol::{
    boot::{Report, Requests},
    reply::{Failure, FailureCode},
    request::Request,
};

/// A counter.
#[derive(Debug, Default)]
pub(crate) struct Count(AtomicU64);

impl Count {
    pub(crate) fn add(&self, count: u64) {
        self.0.fetch_add(count, Relaxed);
    }

    fn take(&self) -> u64 {
        self.0.swap(0, Relaxed)
    }
}

/// Kinds of requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Environment,
    Open,
    Read,
    Stat,
    List,
    ReadLink,
    Connect,
    Resolve,
    Ping,
    Other,
}

impl Kind {
    const WORDS: [&'static str; 10] =
        ["environment", "open", "read", "stat", "list", "read_link", "connect", "resolve", "ping", "other"];

    pub(crate) fn of(request: &Request) -> Self {
        match request {
            Request::Environment {} => Self::Environment,
            Request::Open(_) => Self::Open,
            Request::Stat(_) => Self::Stat,
            Request::List(_) => Self::List,
            Request::ReadLink(_) => Self::ReadLink,
            Request::Connect(_) => Self::Connect,
            Request::Resolve(_) => Self::Resolve,
            Request::Ping {} => Self::Ping,
        }
    }
}

/// How requests of one kind were answered.
#[derive(Debug, Default)]
struct Answers {
    served: Count,
    refused: Count,
    failed: Count,
}

/// All that is counted.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    pub(crate) wakes: Count,
    pub(crate) sessions: Count,
    pub(crate) file_bytes: Count,
    pub(crate) connections: Count,
    pub(crate) guarded: Count,
    pub(crate) sent_bytes: Count,
    pub(crate) received_bytes: Count,
    answers: [Answers; Kind::WORDS.len()],
}

impl Counts {
    /// Counts an answer.
    pub(crate) fn answered(&self, kind: Kind, failure: Option<&Failure>) {
        let answers = &self.answers[kind as usize];
        let count = match failure {
            None => &answers.served,
            Some(failure) if failure.is(FailureCode::NotGranted) => &answers.refused,
            Some(_) => &answers.failed,
        };
        count.add(1);
    }

    /// Begins anew, and tells what there was; the rest of the report is for others to fill in.
    pub(crate) fn take(&self) -> Report {
        let requests = Kind::WORDS.iter().zip(&self.answers).map(|(word, answers)| Requests {
            request: (*word).to_owned(),
            served: answers.served.take(),
            refused: answers.refused.take(),
            failed: answers.failed.take(),
        });
        let some = |requests: &Requests| requests.served + requests.refused + requests.failed > 0;
        Report {
            wakes: self.wakes.take(),
            sessions: self.sessions.take(),
            requests: requests.filter(some).collect(),
            file_bytes: self.file_bytes.take(),
            connections: self.connections.take(),
            guarded: self.guarded.take(),
            sent_bytes: self.sent_bytes.take(),
            received_bytes: self.received_bytes.take(),
            ..Report::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use mirrord_protocol::request::{REQUESTS, Stat};

    use super::*;

    #[test]
    fn everything_is_told_once() {
        let counts = Counts::default();
        let path = mirrord_protocol::path::RemotePath::new("/x").expect("a path");
        let stat = Kind::of(&Request::Stat(Stat { path, no_follow: false, access: 0 }));
        counts.answered(stat, None);
        counts.answered(stat, Some(&Failure::system(libc::ENOENT)));
        counts.answered(stat, Some(&Failure::new(FailureCode::NotGranted, libc::EACCES, "no")));
        counts.sent_bytes.add(5);
        let expected = Requests { request: "stat".into(), served: 1, refused: 1, failed: 1 };
        let report = counts.take();
        assert_eq!((report.requests, report.sent_bytes), (vec![expected], 5));
        assert_eq!(counts.take(), Report::default());
    }

    #[test]
    fn every_request_has_its_word() {
        assert!(REQUESTS.iter().all(|word| Kind::WORDS.contains(word)), "{REQUESTS:?}");
    }
}
