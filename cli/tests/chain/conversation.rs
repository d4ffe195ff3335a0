//! What layers get from the proxy while all is well.

use std::{
    io::{Read, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    os::unix::fs::MetadataExt,
    time::Duration,
};

use mirrord_layer_brain::{
    conversation::{self, Answer, Ask, Attach, Connect, Connected, Done, Resolve, Resolved},
    listing,
};
use mirrord_protocol::request::Family;

use super::{
    layer::{Layer, Proxy, remote},
    sidecar::{MODE, MTIME, Sidecar, World},
};

fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|index| u8::try_from(index * 7 % 251).unwrap()).collect()
}

#[test]
fn a_small_file_is_opened_stated_and_read_in_one_round_trip() {
    let sidecar = Sidecar::start("a", World::default().with_file("/etc/app.yaml", "key: 1\n"));
    let proxy = Proxy::start(sidecar.status());
    let mut layer = proxy.layer();
    let before = proxy.requests();
    let (opened, mut file) = layer.open("/etc/app.yaml", false).unwrap();
    let status = file.metadata().unwrap();
    let mut text = String::new();
    file.read_to_string(&mut text).unwrap();
    assert_eq!(proxy.requests() - before, 1);
    assert_eq!(text, "key: 1\n");
    assert_eq!((opened.attributes.mode, status.mode()), (MODE, MODE));
    assert_eq!((status.mtime(), status.mtime_nsec()), (MTIME.0, i64::from(MTIME.1)));
}

#[test]
fn a_large_file_arrives_whole_at_every_length_around_the_bounds() {
    let bound = 64 * 1024;
    let read = 1024 * 1024;
    let lengths =
        [0, bound - 1, bound, bound + 1, bound + read - 1, bound + read, bound + read + 1, 9 * read + 3];
    let path = |length: usize| format!("/data/{length}");
    let world = lengths
        .iter()
        .fold(World::default(), |world, length| world.with_file(&path(*length), pattern(*length)));
    let sidecar = Sidecar::start("a", world);
    let proxy = Proxy::start(sidecar.status());
    let mut layer = proxy.layer();
    for length in lengths {
        let (_, mut file) = layer.open(&path(length), false).unwrap();
        let mut content = Vec::new();
        file.read_to_end(&mut content).unwrap();
        assert!(content == pattern(length), "{length}");
    }
}

#[test]
fn what_is_missing_or_too_large_is_an_errno_without_descriptor() {
    let large = World::default().with_file("/data/large", vec![0; 64 * 1024 * 1024 + 1]);
    let sidecar = Sidecar::start("a", large);
    let proxy = Proxy::start(sidecar.status());
    let mut layer = proxy.layer();
    assert_eq!(layer.open("/nowhere", false).unwrap_err(), Some(libc::ENOENT));
    assert_eq!(layer.open("/data/large", false).unwrap_err(), Some(libc::EFBIG));
    assert_eq!(layer.open("/data/large", true).unwrap_err(), Some(libc::ENOTDIR));
}

#[test]
fn a_folder_is_listed_in_one_round_trip_if_it_is_known_to_be_one() {
    let world =
        World::default().with_file("/etc/app/a", "1").with_file("/etc/app/b", "2").with_file("/etc/c", "3");
    let sidecar = Sidecar::start("a", world);
    let proxy = Proxy::start(sidecar.status());
    let mut layer = proxy.layer();
    for (directory, round_trips) in [(true, 1), (false, 2)] {
        let before = proxy.requests();
        let (opened, mut file) = layer.open("/etc/app", directory).unwrap();
        assert_eq!(proxy.requests() - before, round_trips);
        assert_eq!(opened.attributes.mode, libc::S_IFDIR | 0o755);
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).unwrap();
        let (mut names, mut position) = (Vec::new(), 0);
        while let Some(record) = listing::record(&bytes, position) {
            names.push(String::from_utf8_lossy(record.name).into_owned());
            position = record.next;
        }
        assert_eq!(names, [".", "..", "a", "b"]);
    }
}

#[test]
fn attributes_links_and_names_are_the_pod_s() {
    let sidecar = Sidecar::start("a", World::default().with_file("/etc/app", "12345"));
    let proxy = Proxy::start(sidecar.status());
    let mut layer = proxy.layer();
    let stat = conversation::Stat { path: remote("/etc/app"), no_follow: false, access: 0 };
    assert_eq!(layer.ok::<conversation::Attributes>(&Ask::Stat(stat)).size, 5);
    let link = conversation::ReadLink { path: remote("/etc/app") };
    match layer.ask::<conversation::Link>(&Ask::ReadLink(link)).0 {
        Answer::Failed(failure) => assert_eq!(failure.errno, Some(libc::EINVAL)),
        other => panic!("{other:?}"),
    }
    let mut resolve = |name: &str| {
        let resolve =
            Resolve { name: name.to_owned(), family: Family::Any, canonical: false, configured: false };
        layer.ask::<Resolved>(&Ask::Resolve(resolve)).0
    };
    assert!(matches!(resolve("db.shop"), Answer::Ok(found) if found.addresses[0].to_string() == "10.0.0.9"));
    assert!(matches!(resolve("nope"), Answer::Failed(failure) if failure.eai == Some(-2)));
}

fn connect(layer: &mut Layer, address: SocketAddr) -> (Connected, TcpStream) {
    let connected: Connected = layer.ok(&Ask::Connect(Connect { address, v6_only: false }));
    assert_eq!(connected.peer, address);
    let socket = TcpStream::connect(connected.listener).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    (connected, socket)
}

fn attach(layer: &mut Layer, ticket: u64, socket: &TcpStream) {
    let attach = Attach { ticket, local: socket.local_addr().unwrap() };
    let _: Done = layer.ok(&Ask::Attach(attach));
}

#[test]
fn a_connection_carries_both_directions_and_half_closes_and_strangers_are_dropped() {
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = server.local_addr().unwrap();
    let served = std::thread::spawn(move || {
        let (mut socket, _) = server.accept().unwrap();
        socket.write_all(b"welcome").unwrap();
        let mut all = Vec::new();
        socket.read_to_end(&mut all).unwrap();
        // The client's half is closed; ours still talks.
        socket.write_all(&all).unwrap();
    });
    let sidecar = Sidecar::start("a", World::default());
    let proxy = Proxy::start(sidecar.status());
    let mut layer = proxy.layer();
    let connected: Connected = layer.ok(&Ask::Connect(Connect { address, v6_only: false }));
    let mut stranger = TcpStream::connect(connected.listener).unwrap();
    let mut socket = TcpStream::connect(connected.listener).unwrap();
    attach(&mut layer, connected.ticket, &socket);
    let sent = pattern(3_000_000);
    let mut greeting = [0; 7];
    socket.read_exact(&mut greeting).unwrap();
    assert_eq!(&greeting, b"welcome");
    socket.write_all(&sent).unwrap();
    socket.shutdown(Shutdown::Write).unwrap();
    let mut echoed = Vec::new();
    socket.read_to_end(&mut echoed).unwrap();
    assert!(echoed == sent);
    served.join().unwrap();
    stranger.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    assert!(!matches!(stranger.read(&mut [0; 1]), Ok(1..)), "a stranger heard something");
}

#[test]
fn a_refused_connection_is_refused_and_a_reset_is_a_reset() {
    let sidecar = Sidecar::start("a", World::default());
    let proxy = Proxy::start(sidecar.status());
    let mut layer = proxy.layer();
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    match layer.ask::<Connected>(&Ask::Connect(Connect { address: closed, v6_only: false })).0 {
        Answer::Failed(failure) => assert_eq!(failure.errno, Some(libc::ECONNREFUSED)),
        other => panic!("{other:?}"),
    }
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let (connected, mut socket) = connect(&mut layer, server.local_addr().unwrap());
    attach(&mut layer, connected.ticket, &socket);
    let (accepted, _) = server.accept().unwrap();
    socket2::SockRef::from(&accepted).set_linger(Some(Duration::ZERO)).unwrap();
    drop(accepted);
    let error = socket.read(&mut [0; 1]).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::ECONNRESET));
}

#[test]
fn a_ticket_is_good_for_one_socket() {
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let sidecar = Sidecar::start("a", World::default());
    let proxy = Proxy::start(sidecar.status());
    let mut layer = proxy.layer();
    let (connected, socket) = connect(&mut layer, server.local_addr().unwrap());
    attach(&mut layer, connected.ticket, &socket);
    let again = Attach { ticket: connected.ticket, local: socket.local_addr().unwrap() };
    assert!(matches!(layer.ask::<Done>(&Ask::Attach(again)).0, Answer::Failed(_)));
}

#[test]
fn each_layer_s_connection_holds_the_proxy() {
    let sidecar = Sidecar::start("a", World::default());
    let proxy = Proxy::start(sidecar.status());
    let (first, second) = (proxy.layer(), proxy.layer());
    assert_eq!(proxy.holds.count(), 2);
    drop((first, second));
    proxy.runtime.block_on(async {
        tokio::time::timeout(Duration::from_secs(10), proxy.holds.free()).await.unwrap();
    });
    assert_eq!(proxy.holds.count(), 0);
}
