//! Tells people of sessions that start and end: by Events, and by a line of the audit for each end.
//!
//! All replicas see the same. Whose Event of a session's end the API server takes writes the line; where none could be
//! written (too many at once, a namespace that goes) each replica writes one, rather than none.

use std::sync::Arc;

use kube::ResourceExt;
use mirrord_certs::UnixTime;

use super::desired::{News, Rules, is_over};
use crate::{events::Events, sessions::audit};

/// Tells of news; nothing waits for it.
pub(super) fn tell(events: &Arc<Events>, news: Vec<News>, now: UnixTime, rules: Rules) {
    for news in news {
        let events = Arc::clone(events);
        match news {
            News::Began(session) if !is_over(&session, now, rules) => {
                tokio::spawn(async move { events.started(&session).await });
            }
            News::Began(_) => {}
            News::Ended(session) => {
                let Some(why) = super::desired::ending(&session, now, rules) else { continue };
                tokio::spawn(async move {
                    if events.ended(&session, why).await {
                        tracing::debug!(session = session.name_any(), "another replica told of its end");
                    } else {
                        audit::ended(&session, why);
                    }
                });
            }
        }
    }
}
