//! Follows the stored Sessions of the whole cluster.
//!
//! A list and then watches from its resource version, by hand: kube's `watcher` hides the list's version and the
//! bookmarks', and sidecars ignore sets older than one they know. Without the list's version a deletion that happened
//! while nobody watched would look older than the announcement that it revokes.

use std::time::Duration;

use futures::StreamExt;
use kube::{
    Api, Error,
    api::{ListParams, WatchEvent, WatchParams},
};
use mirrord_session::Session;
use tokio::sync::mpsc;

use super::desired::Change;
use crate::{
    back_off::BackOff,
    clock::pause,
    metrics::{Watch, metrics},
};

/// A watch is renewed after so long, in seconds: a connection that died silently is noticed then.
const WATCH_SECONDS: u32 = 60;
/// Silence beyond the above means that the connection is dead.
const SILENCE: Duration = Duration::from_secs(70);

/// Why a watch ended.
#[derive(Debug, thiserror::Error)]
enum WatchError {
    #[error("{0}")]
    Api(#[from] Error),
    #[error("the API server no longer has the changes since the last watch")]
    Gone,
    #[error("the API server fell silent")]
    Silence,
}

/// Tells all news, for ever; ends when nobody listens.
pub(super) async fn follow(api: Api<Session>, change_tx: mpsc::Sender<Change>) {
    let mut back_off = BackOff::new(Duration::from_millis(200), Duration::from_secs(10));
    while !change_tx.is_closed() {
        if let Err(error) = list_and_watch(&api, &change_tx, &mut back_off).await {
            metrics().cluster.watch_restarts.of(Watch::Sessions).inc();
            tracing::warn!("Sessions can't be watched: {error}");
            pause(back_off.next()).await;
        }
    }
}

async fn list_and_watch(
    api: &Api<Session>,
    change_tx: &mpsc::Sender<Change>,
    back_off: &mut BackOff,
) -> Result<(), WatchError> {
    let list = api.list(&ListParams::default()).await?;
    let mut version = list.metadata.resource_version.unwrap_or_default();
    let _ = change_tx.send(Change::Listed(list.items, number(&version))).await;
    back_off.reset();
    while !change_tx.is_closed() {
        let params = WatchParams::default().timeout(WATCH_SECONDS);
        let mut events = std::pin::pin!(api.watch(&params, &version).await?);
        loop {
            let event =
                tokio::time::timeout(SILENCE, events.next()).await.map_err(|_| WatchError::Silence)?;
            let Some(event) = event else { break };
            let change = match event? {
                WatchEvent::Added(session) | WatchEvent::Modified(session) => {
                    Change::Stored(Box::new(session))
                }
                WatchEvent::Deleted(session) => Change::Gone(Box::new(session)),
                WatchEvent::Bookmark(bookmark) => Change::Seen(number(&bookmark.metadata.resource_version)),
                WatchEvent::Error(status) if status.code == 410 => return Err(WatchError::Gone),
                WatchEvent::Error(status) => return Err(Error::Api(status).into()),
            };
            if let Some(seen) = version_of(&change) {
                version = seen;
            }
            let _ = change_tx.send(change).await;
        }
    }
    Ok(())
}

fn version_of(change: &Change) -> Option<String> {
    match change {
        Change::Stored(session) | Change::Gone(session) => session.metadata.resource_version.clone(),
        Change::Seen(revision) | Change::Listed(_, revision) => Some(revision.to_string()),
    }
}

/// Resource versions are opaque to clients, but for their order, which KEP-5504 lets clients rely on.
fn number(version: &str) -> u64 {
    version.parse().unwrap_or(0)
}
