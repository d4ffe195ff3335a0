//! Floods: whoever connects, posts or resets without end costs a bounded amount, and the API server is answered.
//!
//! Times on processors are printed, to be read; memory, threads and descriptors are asserted, of the real HTTPS server with
//! all routes in a process of its own ([`webhook`]).

mod frames;
#[path = "../support/mod.rs"]
mod support;
mod webhook;

use frames::{PREFACE, data, endless, more, post, reset, says_calm};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use webhook::{LIMIT, Webhook, rest, write};

/// Connections that there may be, and others' descriptors beside them.
const DESCRIPTORS: u64 = 512 + 64;
/// Addresses of a crowd, with more connections than there may be: but each with fewer than it may have.
const CROWD: u8 = 12;
const OF_EACH: usize = 50;
/// Streams that one connection may have at once.
const STREAMS: u32 = 64;
const STRANGERS: &str = "/inject/0123456789";
/// The largest payload of a frame.
const FRAME: usize = 16 * 1024;

/// Stream ids of a client: odd, and each is used once.
fn ids(count: u32) -> impl Iterator<Item = u32> {
    (0..count).map(|number| 2 * number + 1)
}

fn bounded(webhook: &Webhook, flood: &str, memory: u64) {
    let usage = webhook.usage(flood);
    assert!(usage.peak <= memory, "{usage}");
    assert!(usage.descriptors <= DESCRIPTORS && usage.threads <= webhook.threads() + 1, "{usage}");
}

/// Connections of a crowd, all kept open; after those of each address the API server is answered.
async fn crowd<S>(webhook: &Webhook, connect: impl AsyncFn(u8) -> S) -> Vec<S> {
    let mut crowd = Vec::new();
    for client in 0..CROWD {
        for _ in 0..OF_EACH {
            crowd.push(connect(client).await);
        }
        webhook.serves().await;
    }
    crowd
}

#[tokio::test]
async fn connections_that_never_finish_tls_are_bounded() {
    let webhook = Webhook::start().await;
    let _crowd = crowd(&webhook, async |client| {
        let mut stream = webhook.tcp(client).await.unwrap();
        // A record of a ClientHello, 512 octets long by its own word.
        stream.write_all(&[0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc]).await.unwrap();
        stream
    })
    .await;
    bounded(&webhook, "600 connections that never finish TLS", LIMIT / 2);
}

#[tokio::test]
async fn idle_connections_are_bounded() {
    let webhook = Webhook::start().await;
    let _crowd = crowd(&webhook, async |client| {
        let mut stream = webhook.connect(client).await.unwrap();
        assert!(write(&mut stream, PREFACE).await);
        stream
    })
    .await;
    bounded(&webhook, "600 idle HTTP/2 connections", LIMIT / 2);
}

#[tokio::test]
async fn headers_that_never_end_are_bounded() {
    let webhook = Webhook::start().await;
    let head = [b"POST / HTTP/1.1\r\nx: ".to_vec(), vec![b'y'; 400 * 1024]].concat();
    let _crowd = crowd(&webhook, async |client| {
        let mut stream = webhook.connect(client).await.unwrap();
        write(&mut stream, &head).await;
        stream
    })
    .await;
    bounded(&webhook, "600 connections with HTTP/1 headers of 400 KiB", LIMIT / 2);
}

#[tokio::test]
async fn http_2_headers_that_never_end_close_the_connection() {
    let webhook = Webhook::start().await;
    for _ in 0..20 {
        let mut stream = webhook.connect(1).await.unwrap();
        let mut flood = [PREFACE, &endless(1)].concat();
        (0..100).for_each(|_| flood.extend(more(1)));
        write(&mut stream, &flood).await;
        rest(&mut stream).await;
    }
    webhook.serves().await;
    bounded(&webhook, "20 connections with 1.6 MiB of CONTINUATION each", LIMIT / 2);
}

#[tokio::test]
async fn strangers_streams_and_bodies_take_no_memory_and_keep_nobody_waiting() {
    let webhook = Webhook::start().await;
    let _crowd = crowd(&webhook, async |client| {
        let mut stream = webhook.connect(client).await.unwrap();
        let mut flood = PREFACE.to_vec();
        // What the window of the connection lets through.
        ids(STREAMS - 1).for_each(|id| flood.extend(post(id, STRANGERS, false)));
        ids(3).for_each(|id| flood.extend(data(id, &[b'x'; FRAME], false)));
        write(&mut stream, &flood).await;
        stream
    })
    .await;
    bounded(&webhook, "600 connections with 63 strangers' streams without end", LIMIT * 3 / 4);
}

#[tokio::test]
async fn strangers_requests_are_answered_and_forgotten() {
    let webhook = Webhook::start().await;
    let stream = webhook.connect(1).await.unwrap();
    let (mut read, mut send) = tokio::io::split(stream);
    let reading = tokio::spawn(async move {
        let mut answers = Vec::new();
        let _ = read.read_to_end(&mut answers).await;
        answers.windows(12).filter(|bytes| bytes == b"HTTP/1.1 404").count()
    });
    for last in (0..10_000).map(|number| number == 9_999) {
        let close = if last { "Connection: close\r\n" } else { "" };
        let request = format!("POST {STRANGERS} HTTP/1.1\r\nHost: x\r\n{close}Content-Length: 2\r\n\r\n{{}}");
        send.write_all(request.as_bytes()).await.unwrap();
    }
    send.flush().await.unwrap();
    assert_eq!(reading.await.unwrap(), 10_000);
    webhook.serves().await;
    bounded(&webhook, "10,000 requests for wrong paths", LIMIT / 2);
}

#[tokio::test]
async fn more_streams_than_are_allowed_close_the_connection() {
    let webhook = Webhook::start().await;
    let mut stream = webhook.connect(1).await.unwrap();
    let mut flood = PREFACE.to_vec();
    ids(10_000).for_each(|id| flood.extend(post(id, &webhook.path, false)));
    write(&mut stream, &flood).await;
    assert!(says_calm(&rest(&mut stream).await), "it goes on");
    webhook.serves().await;
    bounded(&webhook, "10,000 streams at once", LIMIT / 2);
}

#[tokio::test]
async fn bodies_that_never_come_are_given_up_and_hold_a_bounded_part() {
    let webhook = Webhook::start().await;
    let mut crowd = Vec::new();
    for client in 0..CROWD {
        let mut stream = webhook.connect(client).await.unwrap();
        let mut flood = PREFACE.to_vec();
        ids(STREAMS - 1).for_each(|id| flood.extend(post(id, &webhook.path, false)));
        ids(60).for_each(|id| flood.extend(data(id, &[b'x'; FRAME], false)));
        write(&mut stream, &flood).await;
        crowd.push(stream);
    }
    webhook.serves_in_the_end().await;
    bounded(&webhook, "12 connections with 63 bodies that never end, by who knows the path", LIMIT / 2);
}

#[tokio::test]
async fn the_largest_reviews_at_once_stay_within_the_budget() {
    let webhook = Webhook::start().await;
    let (webhook, mut posting) = (std::sync::Arc::new(webhook), tokio::task::JoinSet::new());
    for client in 0..32 {
        let webhook = webhook.clone();
        posting.spawn(async move {
            let mut stream = webhook.connect(client).await.unwrap();
            let (path, length) = (&webhook.path, 3 * 1024 * 1024);
            let head = format!(
                "POST {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n"
            );
            let body = [head.as_bytes(), b"{\"request\":\"", &vec![b'x'; length - 14], b"\"}"].concat();
            write(&mut stream, &body).await;
            rest(&mut stream).await
        });
    }
    let (mut answered, mut refused) = (0, 0);
    while let Some(answer) = posting.join_next().await {
        match answer.unwrap().get(..12) {
            Some(b"HTTP/1.1 200") => answered += 1,
            _ => refused += 1,
        }
    }
    println!("{answered} answered, {refused} refused");
    assert!(answered > 0);
    webhook.serves().await;
    bounded(&webhook, "32 reviews of 3 MiB at once", LIMIT * 3 / 4);
}

#[tokio::test]
async fn rapid_resets_close_the_connection() {
    let webhook = Webhook::start().await;
    for path in [STRANGERS, &webhook.path] {
        for _ in 0..10 {
            let mut stream = webhook.connect(1).await.unwrap();
            let mut flood = PREFACE.to_vec();
            // CVE-2023-44487: streams that are over before they count.
            for id in ids(1_000) {
                flood.extend(post(id, path, false));
                flood.extend(reset(id));
            }
            write(&mut stream, &flood).await;
            assert!(says_calm(&rest(&mut stream).await), "it goes on serving resets");
        }
        webhook.serves().await;
    }
    bounded(&webhook, "20 connections with 1,000 rapid resets each", LIMIT / 2);
}
