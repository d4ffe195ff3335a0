//! What processes of the node use.

use mirrord_e2e::cluster::cluster;
use serde_json::Value;

/// Clock ticks of proc_pid_stat(5) per second: USER_HZ is 100 on all architectures that we build for.
const TICKS: f64 = 100.0;

/// A process of the node, by its number there.
pub(crate) struct Process(String);

/// Memory and processor time.
#[derive(Clone, Copy, Default)]
pub(crate) struct Usage {
    /// Resident, in KiB.
    pub(crate) memory_kib: f64,
    /// Since its start, in seconds.
    pub(crate) cpu_s: f64,
}

impl std::iter::Sum for Usage {
    fn sum<I: Iterator<Item = Self>>(all: I) -> Self {
        all.fold(Self::default(), |sum, one| Self {
            memory_kib: sum.memory_kib + one.memory_kib,
            cpu_s: sum.cpu_s + one.cpu_s,
        })
    }
}

impl Process {
    /// The main process of a container, by its status in a pod.
    pub(crate) fn of_container(status: &Value) -> Self {
        let id = status["containerID"].as_str().unwrap_or_default();
        Self(cluster().main_process(id.trim_start_matches("containerd://")))
    }

    /// Memory of this kind, as proc_pid_smaps(5) calls it, in KiB.
    pub(crate) fn kibibytes(&self, field: &str) -> f64 {
        number(&self.file("smaps_rollup"), field)
    }

    /// How many threads it has.
    pub(crate) fn threads(&self) -> f64 {
        number(&self.file("status"), "Threads:")
    }

    /// Its children, by number.
    pub(crate) fn children(&self) -> String {
        self.file(&format!("task/{}/children", self.0)).trim().to_owned()
    }

    /// How often it went to sleep again, or was put aside.
    pub(crate) fn wake_ups(&self) -> f64 {
        let status = self.file("status");
        number(&status, "voluntary_ctxt_switches:") + number(&status, "nonvoluntary_ctxt_switches:")
    }

    /// What it uses.
    pub(crate) fn usage(&self) -> Usage {
        let stat = self.file("stat");
        // The process's name, in parentheses, may hold blanks; behind it, user and system time are fields 12 and 13.
        let fields = stat.rsplit(") ").next().unwrap_or_default().split(' ').skip(11).take(2);
        let ticks: f64 = fields.filter_map(|field| field.parse::<f64>().ok()).sum();
        Usage { memory_kib: self.kibibytes("Rss:"), cpu_s: ticks / TICKS }
    }

    fn file(&self, name: &str) -> String {
        cluster().on_node(&["cat", &format!("/proc/{}/{name}", self.0)]).text()
    }
}

/// The number behind a word at the beginning of a line.
fn number(text: &str, word: &str) -> f64 {
    let line = text.lines().find(|line| line.starts_with(word)).unwrap_or_default();
    line.split_whitespace().nth(1).and_then(|number| number.parse().ok()).unwrap_or(f64::NAN)
}
