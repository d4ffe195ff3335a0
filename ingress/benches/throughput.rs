//! Throughput and CPU cost of the router: the same transfer straight to a sidecar and through the router, on loopback,
//! in one process, in turns. `cargo bench -p mirrord-ingress` prints megabytes per second, and CPU seconds per gigabyte
//! of the whole process (client, sidecar, router) and of the router's thread alone.

#[path = "../tests/support/mod.rs"]
mod support;

use std::time::Instant;

use quinn::Connection;
use support::{Gate, Ingress, Sidecar};

/// Bytes sent, which all come back.
const BYTES: usize = 512 * 1024 * 1024;
const ROUNDS: usize = 3;
/// Clock ticks of /proc/<pid>/stat per second: USER_HZ is 100 on all architectures we build for.
const TICKS: f64 = 100.0;

/// CPU seconds of this process, or of its thread of a name.
fn cpu(thread: Option<&str>) -> f64 {
    let of = |path: String| {
        let stat = std::fs::read_to_string(path).unwrap_or_default();
        let fields: Vec<&str> = stat.rsplit(") ").next().unwrap_or_default().split(' ').collect();
        fields[11..13].iter().filter_map(|ticks| ticks.parse::<f64>().ok()).sum::<f64>() / TICKS
    };
    let Some(name) = thread else { return of("/proc/self/stat".into()) };
    let tasks = std::fs::read_dir("/proc/self/task").into_iter().flatten().flatten();
    let named = |path: &std::path::Path| {
        std::fs::read_to_string(path.join("comm")).is_ok_and(|comm| comm.trim_end() == name)
    };
    tasks
        .map(|task| task.path())
        .filter(|path| named(path))
        .map(|path| of(format!("{}/stat", path.display())))
        .sum()
}

async fn transfer(connection: &Connection) {
    let (mut send, mut receive) = connection.open_bi().await.unwrap();
    let piece = vec![0x5a; 1024 * 1024];
    let write = async {
        for _ in 0..BYTES / piece.len() {
            send.write_all(&piece).await.unwrap();
        }
        send.finish().unwrap();
    };
    let read = async {
        let mut read = 0;
        while let Some(chunk) = receive.read_chunk(usize::MAX, true).await.unwrap() {
            read += chunk.bytes.len();
        }
        assert_eq!(read, BYTES);
    };
    tokio::join!(write, read);
}

async fn measure(what: &str, connection: &Connection) {
    let (started, all, router) = (Instant::now(), cpu(None), cpu(Some(support::ROUTER_THREAD)));
    transfer(connection).await;
    let (gigabytes, seconds) = (2.0 * BYTES as f64 / 1e9, started.elapsed().as_secs_f64());
    println!(
        "{what}: {:.0} MB/s, {:.2} CPU s/GB in all, {:.2} in the router, packets of {} bytes",
        gigabytes * 1000.0 / seconds,
        (cpu(None) - all) / gigabytes,
        (cpu(Some(support::ROUTER_THREAD)) - router) / gigabytes,
        connection.stats().path.current_mtu,
    );
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
    let (gate, sidecar) = (Gate::new(), Sidecar::start("pod"));
    let ingress = Ingress::start("127.0.0.1:0", gate.folder.path());
    ingress.session("one", &[(sidecar.route, sidecar.address)]).await;
    let (_direct_endpoint, direct) = sidecar.client(sidecar.address, gate.token(sidecar.route)).await;
    let (_routed_endpoint, routed) = sidecar.client(ingress.address, gate.token(sidecar.route)).await;
    for _ in 0..ROUNDS {
        measure("direct", &direct).await;
        measure("routed", &routed).await;
    }
    let lost = routed.stats().path.lost_packets;
    println!("packets lost on the routed connection: {lost} of {}", routed.stats().path.sent_packets);
}
