//! Sessions that supported releases stored (`protocol/recorded`), read by the present router.

use mirrord_ingress::{routes::Grant, watch::grant};
use mirrord_recorded::releases;
use mirrord_session::Session;

#[test]
fn a_session_of_every_supported_release_opens_its_route() {
    for release in releases() {
        let session: Session = serde_json::from_str(&release.text("session.json")).unwrap();
        let status = session.status.clone().unwrap();
        let pod = &status.pods[0];
        let address = format!("{}:{}", pod.address, pod.port).parse().unwrap();
        let routes = vec![(pod.route.parse().unwrap(), address)];
        assert_eq!(grant(&session), Grant { routes, until: status.deadline }, "{}", release.name());
    }
}
