//! What a decision costs that ends "local": every call on a path pays it.

use std::{hint::black_box, time::Instant};

use mirrord_layer_brain::{
    rules::Rules,
    settings::{FileMode, Settings},
};

fn main() {
    let rules = Rules::new(&Settings {
        proxy: "/run/user/1000/mirrord/proxy".into(),
        layer: "/home/u/.cache/mirrord/layer.so".into(),
        files: FileMode::Read,
        outgoing: true,
        remote_mounts: vec!["/data".into()],
        local_trees: vec!["/home/u".into(), "/projects/shop".into()],
    });
    for path in [
        "/usr/lib/python3/dist-packages/x.py",
        "/home/u/code/x.rs",
        "/etc/passwd",
        "/etc/app/x.yaml",
        "/tmp/x",
    ] {
        let best = (0..20).map(|_| nanoseconds(&rules, path)).fold(f64::INFINITY, f64::min);
        println!("{path}: {best:.1} ns");
    }
}

fn nanoseconds(rules: &Rules, path: &str) -> f64 {
    const ROUNDS: u32 = 100_000;
    let start = Instant::now();
    for _ in 0..ROUNDS {
        black_box(rules.decide(black_box(path.as_bytes())));
    }
    start.elapsed().as_secs_f64() * 1e9 / f64::from(ROUNDS)
}
