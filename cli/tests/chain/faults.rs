//! What happens when a part fails: the message is read.

use std::{
    io::{ErrorKind, Read, Write},
    net::{TcpListener, TcpStream, UdpSocket},
    time::Duration,
};

use mirrord_cli::{exit::Problem, kubernetes::refusal::Refusal};
use mirrord_layer_brain::conversation::{Ask, Attach, Connect, Connected, Done};
use mirrord_protocol::control::CloseCode;
use mirrord_session::SessionStatus;

use super::{
    layer::{Proxy, dial},
    sidecar::{Sidecar, World},
};

fn failed(status: &SessionStatus) -> (String, String, u8) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let error = dial(&runtime, status).unwrap_err();
    let kind = format!("{error:?}");
    let problem = Problem::from(error);
    (kind, problem.to_string(), problem.exit.number())
}

#[test]
fn an_unreachable_ingress_is_told_with_its_address() {
    let sidecar = Sidecar::start("shop-1", World::default());
    // Bound, so that it stays free of others, and deaf.
    let deaf = UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = deaf.local_addr().unwrap().to_string();
    let status = SessionStatus { ingress: address.clone(), ..sidecar.status() };
    let (_, text, code) = failed(&status);
    assert_eq!(code, 69);
    assert!(
        text.contains(&format!("pod shop-1 didn't answer through the ingress at {address} (UDP) within")),
        "{text}"
    );
    assert!(text.contains("help: a firewall or VPN may block UDP"), "{text}");
}

#[test]
fn an_ingress_without_address_is_told_by_name() {
    let sidecar = Sidecar::start("shop-1", World::default());
    let status = SessionStatus { ingress: "nowhere.invalid:443".to_owned(), ..sidecar.status() };
    let (error, text, code) = failed(&status);
    assert_eq!(code, 69);
    assert!(error.starts_with("Lookup"), "{error}");
    assert!(text.contains("nowhere.invalid:443"), "{text}");
}

#[test]
fn a_sidecar_of_another_authority_is_not_trusted() {
    let sidecar = Sidecar::start("shop-1", World::default());
    let other = Sidecar::start("shop-1", World::default());
    let certificate_authorities = other.status().certificate_authorities;
    let (_, text, code) = failed(&SessionStatus { certificate_authorities, ..sidecar.status() });
    assert_eq!(code, 69);
    assert!(text.contains("pod shop-1: the sidecar's certificate can't be trusted: "), "{text}");
    assert!(text.contains("kubectl rollout restart"), "{text}");
}

#[test]
fn a_session_that_nobody_announced_is_told_as_such() {
    let world = World { refuse: Some(CloseCode::NotAnnounced), ..World::default() };
    let sidecar = Sidecar::start("shop-1", world);
    let (_, text, code) = failed(&sidecar.status());
    assert_eq!(code, 75);
    assert!(text.contains("the control plane has not announced the session to it"), "{text}");
}

#[test]
fn no_pod_is_told_before_anything_is_dialled() {
    let sidecar = Sidecar::start("shop-1", World::default());
    let (error, _, code) = failed(&SessionStatus { pods: vec![], ..sidecar.status() });
    assert_eq!(error, "NoPods");
    assert_eq!(code, 66);
}

#[test]
fn the_next_pod_serves_where_the_first_is_gone() {
    let mut gone = Sidecar::start("shop-1", World::default());
    let alive = Sidecar::start("shop-2", World::default());
    gone.kill();
    let status = SessionStatus { pods: vec![gone.pod.clone(), alive.pod.clone()], ..alive.status() };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (_, tunnel) = dial(&runtime, &status).unwrap();
    assert_eq!(tunnel.pod(), "shop-2");
}

#[test]
fn a_session_deleted_in_mid_use_ends_all_calls_with_the_reason() {
    let sidecar = Sidecar::start("shop-1", World::default().with_file("/etc/app", "1"));
    let proxy = Proxy::start(sidecar.status());
    let mut layer = proxy.layer();
    assert!(layer.open("/etc/app", false).is_ok());
    sidecar.close(CloseCode::Deleted, "alice deleted the session");
    assert_eq!(layer.end(), "alice deleted the session");
    assert_eq!(proxy.layer().end(), "alice deleted the session", "also for connections made later");
}

#[test]
fn a_stopped_session_is_deleted_at_the_api_server() {
    let sidecar = Sidecar::start("shop-1", World::default());
    let proxy = Proxy::start(sidecar.status());
    let mut layer = proxy.layer();
    proxy.stop.stop("it was stopped");
    // What is asked before the keeper hears of it is still answered by the pod.
    assert_eq!(proxy.runtime.block_on(proxy.link.over()), "it was stopped");
    assert_eq!(layer.end(), "it was stopped");
    let ended = proxy.lease.ended.clone();
    proxy.runtime.block_on(async {
        let counted = async {
            while *ended.lock().unwrap() == 0 {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(10), counted).await.unwrap();
    });
}

#[test]
fn a_sidecar_killed_in_mid_session_is_told_and_not_waited_for() {
    let mut sidecar = Sidecar::start("shop-1", World::default());
    let proxy = Proxy::start(sidecar.status());
    let mut layer = proxy.layer();
    sidecar.kill();
    let reason = layer.end();
    assert!(
        reason.starts_with("the connection to pod shop-1 was lost, and not replaced within 2 s: "),
        "{reason}"
    );
}

#[test]
fn a_program_that_asks_nothing_and_waits_for_bytes_learns_that_the_sidecar_is_gone() {
    let mut sidecar = Sidecar::start("shop-1", World::default());
    let proxy = Proxy::start(sidecar.status());
    let mut layer = proxy.layer();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let connected: Connected = layer.ok(&Ask::Connect(Connect { address, v6_only: false }));
    let mut socket = TcpStream::connect(connected.listener).unwrap();
    let attach = Attach { ticket: connected.ticket, local: socket.local_addr().unwrap() };
    let _: Done = layer.ok(&Ask::Attach(attach));
    socket.write_all(b"heard").unwrap();
    let (mut server, _) = listener.accept().unwrap();
    server.read_exact(&mut [0; 5]).unwrap();

    sidecar.kill();
    socket.write_all(b"not heard").unwrap();
    // Long before QUIC's idle time of a minute.
    socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    assert_eq!(socket.read(&mut [0; 1]).unwrap_err().kind(), ErrorKind::ConnectionReset);
}

#[test]
fn a_killed_sidecar_is_replaced_by_another_pod_s_and_the_question_asked_again() {
    let mut first = Sidecar::start("shop-1", World::default().with_file("/etc/app", "first"));
    let second = Sidecar::start("shop-2", World::default().with_file("/etc/app", "second"));
    let proxy = Proxy::start(first.status());
    let mut layer = proxy.layer();
    assert!(layer.open("/etc/app", false).is_ok());
    *proxy.lease.answer.lock().unwrap() = Ok(second.status());
    first.kill();
    let (opened, file) = layer.open("/etc/app", false).unwrap();
    assert_eq!(opened.attributes.size, 6);
    assert_eq!(std::io::read_to_string(file).unwrap(), "second");
    assert_eq!(proxy.runtime.block_on(proxy.link.tunnel()).unwrap().pod(), "shop-2");
}

#[test]
fn a_session_that_is_gone_at_the_api_server_is_not_dialled_for() {
    let sidecar = Sidecar::start("shop-1", World::default());
    let proxy = Proxy::start(sidecar.status());
    let mut layer = proxy.layer();
    *proxy.lease.answer.lock().unwrap() =
        Err(Refusal::NoSession("sessions.mirrord.dev \"s-1\" not found".to_owned()));
    sidecar.close(CloseCode::Stopping, "");
    assert_eq!(layer.end(), "there is no such session: sessions.mirrord.dev \"s-1\" not found");
}

#[test]
fn a_long_answer_of_a_living_sidecar_is_waited_for() {
    let sidecar = Sidecar::start("shop-1", World::default().with_file("/slow/600", "late"));
    let proxy = Proxy::start(sidecar.status());
    let mut layer = proxy.layer();
    let (_, file) = layer.open("/slow/600", false).unwrap();
    assert_eq!(std::io::read_to_string(file).unwrap(), "late");
    assert!(proxy.requests() > 2, "it was pinged");
    assert_eq!(*proxy.lease.ended.lock().unwrap(), 0);
}
