//! The connection to the pod, kept up for as long as the session lives.
//!
//! | module | what it holds |
//! |---|---|
//! | [`dial`] | one connection: from a Session's status to granted rights |
//! | [`failure`] | why no connection came about |
//! | [`ask`] | requests on a connection, and how its end is told |
//! | `silence` | whether the other end still says anything |
//! | [`link`] | what requests see: a connection that is replaced when it is lost, until the session is over |
//! | [`keeper`] | renews the session, dials again, ends |

pub mod ask;
pub mod dial;
pub mod failure;
pub mod keeper;
pub mod link;
mod silence;

use std::time::Duration;

/// How long things may take before something is done about it.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// All dialling for one answer.
    pub dial: Duration,
    /// Dialling one pod, if others are left.
    pub pod: Duration,
    /// An answer, before the sidecar is pinged.
    pub doubt: Duration,
    /// A ping, before another connection is dialled beside.
    pub ping: Duration,
    /// Dialling anew, before the session is given up.
    pub reconnect: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        let seconds = Duration::from_secs;
        Self {
            dial: seconds(16),
            pod: seconds(8),
            doubt: seconds(2),
            ping: seconds(2),
            reconnect: seconds(30),
        }
    }
}
