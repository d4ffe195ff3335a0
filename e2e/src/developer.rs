//! Somebody with `mirrord`, a kubeconfig and few rights.

use std::{
    ffi::OsStr,
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use tempfile::TempDir;

use crate::{
    cluster::{Who, cluster, mirrord},
    run::{Run, eventually},
};

/// A developer at a machine of their own: own home, own runtime folder, so nobody shares a proxy with them.
#[derive(Debug)]
pub struct Developer {
    home: TempDir,
    namespace: String,
    kubeconfig: PathBuf,
    lingers: bool,
}

impl Developer {
    /// At work in this namespace.
    #[must_use]
    pub fn new(namespace: &str) -> Self {
        let home = tempfile::Builder::new()
            .prefix("mirrord-e2e-")
            .tempdir()
            .expect("a temporary folder can be made");
        Self {
            home,
            namespace: namespace.to_owned(),
            kubeconfig: cluster().developer_kubeconfig(),
            lingers: false,
        }
    }

    /// Proxies stay for a while, as on a laptop; else they end with their commands, as in CI.
    #[must_use]
    pub fn with_lingering_proxies(mut self) -> Self {
        self.lingers = true;
        self
    }

    /// With another kubeconfig.
    #[must_use]
    pub fn with_kubeconfig(mut self, path: &Path) -> Self {
        path.clone_into(&mut self.kubeconfig);
        self
    }

    /// Their home.
    #[must_use]
    pub fn home(&self) -> &Path {
        self.home.path()
    }

    /// Whether RBAC lets them; see [`Cluster::may`](crate::cluster::Cluster::may).
    #[must_use]
    pub fn may(&self, verb: &str, what: &str) -> bool {
        cluster().may(&Who::Developer, verb, what, &self.namespace)
    }

    /// Runs a command in the context of the target.
    #[must_use]
    pub fn exec<A: AsRef<OsStr>>(&self, target: &str, command: impl IntoIterator<Item = A>) -> Run {
        Run::of(&mut self.exec_command(target, command))
    }

    /// Panics unless a session with the target sees its file, which only the application's user may read.
    #[track_caller]
    pub fn sees_the_pods_file(&self, target: &str) {
        let read = self.exec(target, ["cat", "/var/lib/checkout/private"]).succeeded();
        assert_eq!(read.text(), "only for 4321\n");
    }

    /// `mirrord exec …`, not yet started.
    #[must_use]
    pub fn exec_command<A: AsRef<OsStr>>(
        &self,
        target: &str,
        command: impl IntoIterator<Item = A>,
    ) -> Command {
        let mut mirrord = self.mirrord(["exec", "-t", target, "-n", &self.namespace, "--"]);
        mirrord.args(command);
        mirrord
    }

    /// `mirrord …` at their machine.
    #[must_use]
    pub fn mirrord<A: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = A>) -> Command {
        let mut command = self.command(mirrord());
        command.args(arguments);
        command
    }

    /// Any command at their machine, without mirrord.
    #[must_use]
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new(program);
        command
            .env_clear()
            .env("PATH", "/usr/local/bin:/usr/bin:/bin")
            .env("HOME", self.home())
            .env("LANG", "C.UTF-8")
            .env("XDG_RUNTIME_DIR", self.home())
            .env("KUBECONFIG", &self.kubeconfig)
            .current_dir(self.home());
        if !self.lingers {
            command.env("CI", "true");
        }
        command
    }

    /// Numbers of the processes that were started at their machine and still run: their environment has its home.
    #[must_use]
    pub fn processes(&self) -> Vec<u32> {
        let home = format!("HOME={}", self.home().display());
        let mine = |number: &u32| {
            let environment = fs::read(format!("/proc/{number}/environ")).unwrap_or_default();
            environment.split(|byte| *byte == 0).any(|variable| variable == home.as_bytes())
        };
        let folders = fs::read_dir("/proc").into_iter().flatten().flatten();
        folders.filter_map(|folder| folder.file_name().to_str()?.parse().ok()).filter(mine).collect()
    }
}

impl Drop for Developer {
    /// Shuts the machine down: proxies may end their sessions, then they are killed.
    fn drop(&mut self) {
        let left = self.processes();
        left.iter().for_each(|number| signal("-TERM", *number));
        let gone = || left.iter().all(|number| !Path::new(&format!("/proc/{number}")).exists());
        if !eventually(Duration::from_secs(3), gone) {
            self.processes().into_iter().for_each(|number| signal("-KILL", number));
        }
    }
}

fn signal(signal: &str, number: u32) {
    let _ = Command::new("kill").args([signal, &number.to_string()]).stderr(Stdio::null()).status();
}
