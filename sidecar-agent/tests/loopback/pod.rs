//! What only a pod's surroundings show: mounts, other processes, time that runs out, and the end of the pod. A mount
//! namespace stands in for the container's, of a user namespace where the tests aren't root.

use std::{
    fs,
    process::{Child, Command},
};

use mirrord_certs::SelfSigned;
use mirrord_protocol::{
    boot::{Announce, Announcement, Call},
    control::{CloseCode, Obstacle, View},
    feature::Feature,
    reply::{Environment, FailureCode, Listing, Opened},
    request::{List, Request},
};
use tempfile::TempDir;

use crate::{
    closed, key, open, path,
    support::{CONTAINER, POD_UID, Session, Sidecar, now, within},
};

/// Runs the rest of the arguments in a mount namespace of its own, after this script, whose `$0` is a folder.
pub(crate) fn behind(script: &str, folder: &TempDir) -> Vec<String> {
    let script = format!("set -e; {script}; exec \"$@\"");
    let folder = folder.path().to_str().expect("UTF-8").to_owned();
    ["unshare", "--mount", "--map-root-user", "sh", "-c", &script, &folder].map(Into::into).into()
}

pub(crate) async fn session(sidecar: &Sidecar, key: &SelfSigned, features: &[Feature]) -> Session {
    let control_plane = sidecar.booted().await;
    control_plane.announce(1, &[(key, features)]).await;
    let mut session = sidecar.session(key, features).await;
    session.rights().await;
    session
}

#[tokio::test]
async fn secrets_are_told_by_their_mount_whatever_the_path() {
    let folder = tempfile::tempdir().expect("made");
    let script = r#"cd "$0"; mkdir secret again; mount -t tmpfs none secret; echo hush >secret/key
        mount --bind secret again; ln -s secret/key link; echo plain >plain"#;
    let at = |name: &str| open(folder.path().join(name));
    let mount = folder.path().join("secret");
    let arguments = ["--secret-mount", mount.to_str().expect("UTF-8")];
    let sidecar = Sidecar::start_behind(&behind(script, &folder), &arguments, &[]);

    let key = key();
    let files = session(&sidecar, &key, &[Feature::Files]).await;
    assert_eq!(files.ask::<Opened>(at("plain")).await.expect("a file").1, b"plain\n");
    for name in ["secret/key", "secret/../secret/key", "link", "again/key", "secret"] {
        let failure = files.ask::<Opened>(at(name)).await.expect_err(name);
        assert!(
            failure.is(FailureCode::NotGranted) && failure.message.contains("`secrets`"),
            "{name}: {failure}"
        );
    }
    drop(files);
    let all = session(&sidecar, &key, &[Feature::Files, Feature::Secrets]).await;
    assert_eq!(all.ask::<Opened>(at("link")).await.expect("granted").1, b"hush\n");
}

#[tokio::test]
async fn the_sidecars_own_token_is_shown_to_nobody() {
    let folder = tempfile::tempdir().expect("made");
    // The identity is a mount in the pod; the tests' own folder becomes one.
    let script = r#"for last; do :; done; mount --bind "$last" "$last"; ln -s "$last" "$0/link""#;
    let sidecar = Sidecar::start_behind(&behind(script, &folder), &[], &[]);
    let all = session(&sidecar, &key(), &Feature::ALL).await;
    for at in
        [sidecar.folder.path().join("token"), folder.path().join("link/token"), folder.path().join("link")]
    {
        let failure = all.ask::<Opened>(open(&at)).await.expect_err("hidden");
        assert_eq!(failure.errno, Some(libc::ENOENT), "{at:?}: {failure}");
    }
    let parent = sidecar.folder.path().parent().expect("a parent");
    let (listing, _) = all.ask::<Listing>(Request::List(List { path: path(parent) })).await.expect("listed");
    let own = sidecar.folder.path().file_name().expect("a name").as_encoded_bytes();
    assert!(listing.entries.iter().all(|entry| entry.name != own), "nor is it listed");
}

/// A program of the target container, with a file and a variable that only it has.
struct Application(Child);

impl Application {
    fn start(folder: &TempDir) -> Self {
        let log = folder.path().join("pods").join(POD_UID).join("containers").join(CONTAINER);
        fs::create_dir_all(&log).expect("made");
        fs::write(log.join("0"), "").expect("written");
        fs::create_dir(folder.path().join("data")).expect("made");
        let script = format!(
            r#"cd "$0"; mount -t tmpfs none data; echo live >data/note; touch data/termination-log
            mount --bind pods/{POD_UID}/containers/{CONTAINER}/0 data/termination-log
            export STARTED_BY=entrypoint"#
        );
        let wrapped = behind(&script, folder);
        let child =
            Command::new(&wrapped[0]).args(&wrapped[1..]).args(["sleep", "600"]).spawn().expect("started");
        Self(child)
    }

    fn stop(&mut self) {
        self.0.kill().expect("killed");
        self.0.wait().expect("ended");
    }
}

impl Drop for Application {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

async fn environment(session: &Session) -> (View, String) {
    let (environment, bytes) = session.ask::<Environment>(Request::Environment {}).await.expect("granted");
    (environment.view, String::from_utf8(bytes).expect("ASCII"))
}

#[tokio::test]
async fn what_an_entrypoint_exported_is_seen_while_its_program_lives() {
    let folder = tempfile::tempdir().expect("made");
    let mut application = Application::start(&folder);
    let sidecar = Sidecar::start_behind(&[], &["--namespace-shared"], &[("FROM", "twin")]);
    let session = session(&sidecar, &key(), &[Feature::Env, Feature::Files]).await;
    let exported =
        |variables: &str| variables.split('\0').any(|variable| variable == "STARTED_BY=entrypoint");
    within(async {
        // Until the script has come to its exec.
        while !matches!(environment(&session).await, (View::Live, variables) if exported(&variables)) {}
    })
    .await;
    let note = open(folder.path().join("data/note"));
    assert_eq!(session.ask::<Opened>(note.clone()).await.expect("in its mounts").1, b"live\n");

    application.stop();
    assert_eq!(environment(&session).await, (View::Twin, "FROM=twin".into()));
    assert_eq!(session.ask::<Opened>(note).await.expect_err("gone with it").errno, Some(libc::ENOENT));
    assert_eq!(sight(&sidecar).await, (View::Twin, Some(Obstacle::NoProcess)));
}

/// What a new session is told about its view.
async fn sight(sidecar: &Sidecar) -> (View, Option<Obstacle>) {
    let key = key();
    let control_plane = sidecar.booted().await;
    control_plane.announce(2, &[(&key, &[Feature::Env])]).await;
    let rights = sidecar.session(&key, &[Feature::Env]).await.rights().await;
    (rights.view, rights.obstacle)
}

#[tokio::test]
async fn a_sidecar_beside_isolated_processes_says_that_its_view_is_its_own() {
    let isolated = Sidecar::start(&[]);
    assert_eq!(sight(&isolated).await, (View::Twin, Some(Obstacle::Isolated)));
}

#[tokio::test]
async fn a_session_that_nobody_renews_ends_as_expired() {
    let sidecar = Sidecar::start(&[]);
    let control_plane = sidecar.booted().await;
    let key = key();
    // A minute ago: the allowance for clocks that differ is all that is left of it.
    let announcement = Announcement {
        key_hash: key.key_hash().0.to_vec(),
        features: vec![Feature::Env],
        expires_at: now() - 58,
        deadline: 0,
        creator: "ada".into(),
    };
    let sessions = vec![announcement];
    control_plane.say(Call::Announce(Announce { revision: 1, sessions, now: 0 })).await.expect("announced");
    // No control plane ever comes back to end it: the sidecar's own clock does.
    drop(control_plane);
    let session = sidecar.session(&key, &[Feature::Env]).await;
    let (code, reason) = closed(&session.connection).await;
    assert_eq!(code, Some(CloseCode::Expired));
    assert!(reason.contains("expired"), "{reason}");
}

#[tokio::test]
async fn a_client_that_is_quicker_than_the_control_plane_is_served() {
    let sidecar = Sidecar::start(&[]);
    let key = key();
    let client = sidecar.session(&key, &[Feature::Env]);
    let control_plane = async {
        let control_plane = sidecar.booted().await;
        control_plane.announce(1, &[(&key, &[Feature::Env])]).await;
        control_plane
    };
    let (mut session, _control_plane) = tokio::join!(client, control_plane);
    assert_eq!(session.rights().await.features, [Feature::Env]);
}

#[tokio::test]
async fn a_pod_that_stops_says_so_and_ends_well() {
    let mut sidecar = Sidecar::start(&[]);
    let session = session(&sidecar, &key(), &[Feature::Env]).await;
    let status = sidecar.terminate();
    assert!(status.success(), "{status}");
    assert_eq!(closed(&session.connection).await.0, Some(CloseCode::Stopping));
}
