//! Follows the Sessions of all namespaces: what the API server says becomes changes of the table of routes.
//!
//! While the API server is away everything stays as it was. After a new list, Sessions that are no longer in it go.

use std::{
    collections::HashSet,
    net::{IpAddr, SocketAddr},
};

use futures::{Stream, StreamExt};
use kube::{ResourceExt, runtime::watcher};
use mirrord_session::{Session, SessionPod};
use tokio::sync::mpsc;

use crate::{
    health::Health,
    routes::{Change, Grant},
};

/// Follows events until nobody wants to hear of changes any more.
pub async fn follow(
    events: impl Stream<Item = watcher::Result<watcher::Event<Session>>>,
    changes: mpsc::Sender<Change>,
    health: &Health,
) {
    let mut events = std::pin::pin!(events);
    let mut mirror = Mirror::default();
    while let Some(event) = events.next().await {
        let event = match event {
            Ok(event) => event,
            Err(error) => {
                health.watch_failed();
                tracing::warn!(%error, "the API server doesn't tell of Sessions; known routes stay");
                continue;
            }
        };
        let listed = matches!(event, watcher::Event::InitDone);
        for change in mirror.apply(event) {
            if changes.send(change).await.is_err() {
                return;
            }
        }
        if listed {
            health.listed();
        }
    }
}

/// Which Sessions are known, and which were seen in the list that is under way.
#[derive(Debug, Default)]
struct Mirror {
    known: HashSet<String>,
    seen: HashSet<String>,
}

impl Mirror {
    fn apply(&mut self, event: watcher::Event<Session>) -> Vec<Change> {
        match event {
            watcher::Event::Init => {
                self.seen.clear();
                Vec::new()
            }
            watcher::Event::InitApply(session) => {
                self.seen.insert(name(&session));
                self.set(&session)
            }
            watcher::Event::InitDone => {
                let gone: Vec<String> = self.known.difference(&self.seen).cloned().collect();
                self.known = std::mem::take(&mut self.seen);
                gone.into_iter().map(Change::Remove).collect()
            }
            watcher::Event::Apply(session) => self.set(&session),
            watcher::Event::Delete(session) => {
                let name = name(&session);
                self.known.remove(&name);
                vec![Change::Remove(name)]
            }
        }
    }

    fn set(&mut self, session: &Session) -> Vec<Change> {
        let name = name(session);
        self.known.insert(name.clone());
        vec![Change::Set(name, grant(session))]
    }
}

fn name(session: &Session) -> String {
    format!("{}/{}", session.namespace().unwrap_or_default(), session.name_any())
}

/// What a Session grants. It was filled in by the control plane; what makes no sense is left out, with a word in the log.
#[must_use]
pub fn grant(session: &Session) -> Grant {
    let Some(status) = &session.status else { return Grant::default() };
    let route = |pod: &SessionPod| {
        let id = pod.route.parse().ok();
        let address = pod.address.parse().ok().filter(|&address| is_pod_address(address));
        let route = id.zip(address).filter(|_| pod.port != 0);
        if route.is_none() {
            let (session, pod) = (name(session), &pod.name);
            tracing::warn!(session, pod, "a Session's pod has no usable route, address and port");
        }
        route.map(|(id, address)| (id, SocketAddr::new(address, pod.port)))
    };
    Grant {
        routes: status.pods.iter().filter_map(route).collect(),
        until: status.deadline.max(status.expires_at),
    }
}

/// Whether packets may be sent there: not to this router itself, nor to a node's metadata service, nor to many at once.
fn is_pod_address(address: IpAddr) -> bool {
    let link_local = match address.to_canonical() {
        IpAddr::V4(address) => address.is_link_local() || address.is_broadcast(),
        IpAddr::V6(address) => address.is_unicast_link_local(),
    };
    let address = address.to_canonical();
    !(link_local || address.is_unspecified() || address.is_loopback() || address.is_multicast())
}

#[cfg(test)]
mod tests {
    use futures::stream;
    use mirrord_session::{SessionSpec, SessionStatus};
    use watcher::Event;

    use super::*;

    fn session(name: &str, pods: &[(&str, &str, u16)]) -> Session {
        let pod = |&(route, address, port): &(&str, &str, u16)| SessionPod {
            route: route.into(),
            address: address.into(),
            port,
            ..SessionPod::default()
        };
        let mut session = Session::new(name, SessionSpec::default());
        session.metadata.namespace = Some("shop".into());
        session.status = Some(SessionStatus {
            pods: pods.iter().map(pod).collect(),
            expires_at: 100,
            deadline: 900,
            ..SessionStatus::default()
        });
        session
    }

    async fn changes(events: Vec<watcher::Result<Event<Session>>>) -> (Vec<Change>, bool) {
        let (changes_tx, mut changes_rx) = mpsc::channel(64);
        let health = Health::default();
        follow(stream::iter(events), changes_tx, &health).await;
        let mut changes = Vec::new();
        while let Some(change) = changes_rx.recv().await {
            changes.push(change);
        }
        (changes, health.is_ready())
    }

    #[test]
    fn a_session_grants_its_pods_routes_until_its_deadline() {
        let session =
            session("a", &[("0011223344556677", "10.1.2.3", 4433), ("ff".repeat(8).as_str(), "fd00::5", 9)]);
        let routes = vec![
            ("0011223344556677".parse().unwrap(), "10.1.2.3:4433".parse().unwrap()),
            ("ffffffffffffffff".parse().unwrap(), "[fd00::5]:9".parse().unwrap()),
        ];
        assert_eq!(grant(&session), Grant { routes, until: 900 });
    }

    #[test]
    fn what_makes_no_sense_grants_nothing() {
        let route = "0011223344556677";
        for (route, address, port) in [
            ("0011", "10.1.2.3", 1),
            (route, "ten", 1),
            (route, "10.1.2.3", 0),
            (route, "127.0.0.1", 1),
            (route, "::1", 1),
            (route, "::ffff:127.0.0.1", 1),
            (route, "0.0.0.0", 1),
            (route, "169.254.169.254", 1),
            (route, "fe80::1", 1),
            (route, "224.0.0.1", 1),
            (route, "255.255.255.255", 1),
        ] {
            assert_eq!(
                grant(&session("a", &[(route, address, port)])).routes,
                [],
                "{route} {address} {port}"
            );
        }
        assert_eq!(grant(&Session::new("a", SessionSpec::default())), Grant::default());
    }

    #[tokio::test]
    async fn a_second_list_removes_what_is_not_in_it() {
        let (a, b) = (session("a", &[]), session("b", &[]));
        let (changes, ready) = changes(vec![
            Ok(Event::Init),
            Ok(Event::InitApply(a.clone())),
            Ok(Event::InitApply(b.clone())),
            Ok(Event::InitDone),
            Err(watcher::Error::NoResourceVersion),
            Ok(Event::Init),
            Ok(Event::InitApply(b.clone())),
            Ok(Event::InitDone),
            Ok(Event::Delete(b.clone())),
        ])
        .await;
        let set = |session: &Session| Change::Set(name(session), grant(session));
        let remove = |session: &Session| Change::Remove(name(session));
        assert_eq!(changes, [set(&a), set(&b), set(&b), remove(&a), remove(&b)]);
        assert!(ready);
    }

    #[tokio::test]
    async fn it_is_ready_only_once_the_first_list_is_in() {
        let listing = vec![Ok(Event::Init), Ok(Event::InitApply(session("a", &[]))), Ok(Event::Init)];
        assert!(!changes(listing).await.1);
    }
}
