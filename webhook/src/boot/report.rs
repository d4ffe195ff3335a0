//! What sidecars say they did, into our metrics.
//!
//! A sidecar tells each thing once, so what replicas hear adds up. It is believed as far as that goes: whoever runs a pod
//! can make its sidecar lie, so no report moves a counter so far that it could wrap, and words that we don't know count
//! as `other` and `unknown`.

use mirrord_protocol::{
    boot::{self, Requests},
    control,
};

use crate::metrics::{Obstacle, Release, RequestResult, SidecarRequest, Sidecars, View, metrics};

/// The most that one report adds to a counter: a terabyte in 30 s, and it takes 16 million such reports to wrap.
const MOST: u64 = 1 << 40;
/// Kinds of requests that one report may have.
const KINDS: usize = 64;

/// What a sidecar of this release calls itself.
const SOFTWARE: &str = concat!("mirrord-agent ", env!("CARGO_PKG_VERSION"));

/// Of which release a sidecar is.
pub(super) fn release(report: &boot::Report) -> Release {
    if report.software == SOFTWARE { Release::Same } else { Release::Other }
}

/// Adds a report.
pub(super) fn count(report: &boot::Report) {
    let Sidecars {
        reports,
        wakes,
        sessions,
        requests,
        file_bytes,
        connections,
        guarded,
        sent_bytes,
        received_bytes,
    } = &metrics().sidecars;
    let view = match report.view {
        control::View::Twin => View::Twin,
        control::View::Live => View::Live,
        control::View::Unknown => View::Unknown,
    };
    let obstacle = match report.obstacle {
        None => Obstacle::None,
        Some(control::Obstacle::Isolated) => Obstacle::Isolated,
        Some(control::Obstacle::NoProcess) => Obstacle::NoProcess,
        Some(control::Obstacle::User) => Obstacle::User,
        Some(control::Obstacle::Group) => Obstacle::Group,
        Some(control::Obstacle::Capabilities) => Obstacle::Capabilities,
        Some(control::Obstacle::Shielded) => Obstacle::Shielded,
        Some(control::Obstacle::Overwritten) => Obstacle::Overwritten,
        Some(control::Obstacle::Unknown) => Obstacle::Unknown,
    };
    reports.of((view, obstacle)).inc();
    for (counter, count) in [
        (wakes, report.wakes),
        (sessions, report.sessions),
        (file_bytes, report.file_bytes),
        (connections, report.connections),
        (guarded, report.guarded),
        (sent_bytes, report.sent_bytes),
        (received_bytes, report.received_bytes),
    ] {
        counter.inc_by(count.min(MOST));
    }
    for Requests { request, served, refused, failed } in report.requests.iter().take(KINDS) {
        let request = word(request);
        for (result, count) in [
            (RequestResult::Served, served),
            (RequestResult::Refused, refused),
            (RequestResult::Failed, failed),
        ] {
            requests.of((request, result)).inc_by((*count).min(MOST));
        }
    }
}

fn word(request: &str) -> SidecarRequest {
    use mirrord_telemetry::Label as _;
    let known = SidecarRequest::all().into_iter().find(|known| known.pairs() == [("request", request)]);
    known.unwrap_or(SidecarRequest::Other)
}

#[cfg(test)]
mod tests {
    use mirrord_protocol::request::REQUESTS;

    use super::*;

    #[test]
    fn every_request_of_this_release_counts_for_itself_and_others_together() {
        for request in REQUESTS.iter().chain(&["read"]) {
            assert_ne!(word(request), SidecarRequest::Other, "{request}");
        }
        assert_eq!(word("teleport"), SidecarRequest::Other);
        assert_eq!(word(""), SidecarRequest::Other);
    }

    #[test]
    fn no_lie_wraps_a_counter() {
        let before = metrics().sidecars.sent_bytes.get();
        let report = boot::Report { sent_bytes: u64::MAX, ..boot::Report::default() };
        count(&report);
        count(&report);
        assert_eq!(metrics().sidecars.sent_bytes.get(), before + 2 * MOST);
        assert_eq!(release(&report), Release::Other);
    }
}
