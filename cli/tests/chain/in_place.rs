//! `mirrord exec` as a whole, with its proxy's real processes: only API server, sidecar and layer are the tests' own.

use std::{
    fs,
    io::{Read, Write},
    os::{
        fd::AsFd,
        unix::process::{CommandExt, ExitStatusExt},
    },
    path::PathBuf,
    process::{Child, Command, Output, Stdio},
    time::{Duration, Instant},
};

use mirrord_protocol::control::CloseCode;
use serde_json::{Value, json};

use super::{
    api_server::{Answer, ApiServer},
    sidecar::{Sidecar, World},
};

/// A developer's machine, a cluster and a pod.
pub(crate) struct Stage {
    pub(crate) folder: tempfile::TempDir,
    pub(crate) api: ApiServer,
    pub(crate) sidecar: Sidecar,
}

impl Stage {
    pub(crate) fn new() -> Self {
        let environment = b"GREETING=from the pod\0PATH=/pod\0LD_PRELOAD=/evil.so\0HOSTNAME=pod-1\0".to_vec();
        Self::with(World { environment, ..World::default() })
    }

    /// With another pod.
    pub(crate) fn with(world: World) -> Self {
        let sidecar = Sidecar::start("checkout-1", world);
        let api = ApiServer::start(Answer::Status(Box::new(sidecar.status())));
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("kubeconfig"), api.kubeconfig()).unwrap();
        Self { folder, api, sidecar }
    }

    pub(crate) fn mirrord(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_mirrord"));
        command
            .env_clear()
            .current_dir(self.folder.path())
            .env("PATH", "/usr/bin:/bin")
            .env("HOME", "/nowhere")
            .env("XDG_RUNTIME_DIR", self.folder.path())
            .env("KUBECONFIG", "kubeconfig")
            // Any library that loads: what the real one does is for e2e to show.
            .env("MIRRORD_LAYER_FILE", library());
        command
    }

    pub(crate) fn exec(&self, command: &[&str]) -> Command {
        let mut exec = self.mirrord();
        exec.args(["exec", "-t", "deployment/checkout", "--"]).args(command);
        exec
    }

    pub(crate) fn sessions(&self) -> Value {
        let output = self.mirrord().args(["session", "ls", "-o", "json"]).output().unwrap();
        serde_json::from_slice(&output.stdout).unwrap()
    }

    /// Waits until all proxies are gone.
    fn wait_for_the_end(&self) {
        let start = Instant::now();
        while !self.sessions()["local"].as_array().unwrap().is_empty() {
            assert!(start.elapsed() < Duration::from_secs(20), "a proxy is still there");
        }
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        let _ = self.mirrord().args(["session", "stop", "--all"]).output();
    }
}

fn library() -> PathBuf {
    let maps = fs::read_to_string("/proc/self/maps").unwrap();
    maps.lines()
        .filter_map(|line| line.split_whitespace().nth(5))
        .find(|path| path.contains("libc.so"))
        .unwrap()
        .into()
}

pub(crate) fn text(output: &Output) -> (i32, String, String) {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    (output.status.code().unwrap_or(-1), text(&output.stdout), text(&output.stderr))
}

#[test]
fn a_session_that_was_stored_without_admission_is_deleted_again_and_the_missing_webhook_named() {
    let stage = Stage::new();
    let stored =
        json!({ "apiVersion": "mirrord.dev/v1alpha1", "kind": "Session", "metadata": {}, "spec": {} });
    stage.api.answers(Answer::Error(201, stored));
    let (code, _, err) = text(&stage.exec(&["true"]).output().unwrap());
    assert_eq!(code, 69, "{err}");
    assert!(err.contains("stored the session without asking mirrord's webhook"), "{err}");
    assert!(err.contains("help: it was uninstalled"), "{err}");
    let sessions = "/apis/mirrord.dev/v1alpha1/namespaces/shop/sessions/s-";
    assert_eq!(stage.api.count(&format!("DELETE {sessions}")), 1);
}

#[test]
fn the_command_keeps_pid_streams_and_exit_code() {
    let stage = Stage::new();
    let script = "read line; echo \"$line $$\"; echo problem >&2; exit 7";
    let mut exec = stage.exec(&["sh", "-c", script]);
    let mut child = exec.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let pid = child.id();
    child.stdin.take().unwrap().write_all(b"hello\n").unwrap();
    let (code, out, err) = text(&child.wait_with_output().unwrap());
    assert_eq!(code, 7);
    assert_eq!(out, format!("hello {pid}\n"), "nothing of mirrord on stdout, and its pid");
    assert!(err.ends_with("problem\n"), "{err}");
    let mine: Vec<&str> = err.lines().take_while(|line| line.starts_with("mirrord: ")).collect();
    assert_eq!(mine.len() + 1, err.lines().count(), "one line a step: {err}");
    assert!(
        mine.last().unwrap().contains(
            "deployment/checkout in shop (env, files, outgoing; not granted: secrets) – pod checkout-1"
        ),
        "{err}"
    );
}

#[test]
fn signals_reach_the_command_as_without_mirrord() {
    let stage = Stage::new();
    let killed = stage.exec(&["sh", "-c", "kill -TERM $$"]).output().unwrap();
    assert_eq!(killed.status.signal(), Some(libc::SIGTERM));
    // Rust programs ignore SIGPIPE; theirs must not.
    let script = "trap - PIPE; grep -E 'Sig(Ign|Blk)' /proc/self/status";
    let direct = Command::new("sh").args(["-c", script]).output().unwrap();
    let below = stage.exec(&["sh", "-c", script]).output().unwrap();
    assert_eq!(text(&below).1, text(&direct).1);
    let mask =
        text(&below).1.lines().find_map(|line| line.strip_prefix("SigIgn:\t").map(str::to_owned)).unwrap();
    assert_eq!(u64::from_str_radix(&mask, 16).unwrap() & (1 << (libc::SIGPIPE - 1)), 0);
}

#[test]
fn the_command_sees_the_pod_s_variables_but_not_those_that_run_code() {
    let stage = Stage::new();
    fs::write(
        stage.folder.path().join("m.json"),
        r#"{"target": "deployment/checkout", "feature": {"env": {"override": {"MINE": "1"}, "unset": ["GONE"]}}}"#,
    )
    .unwrap();
    let mut exec = stage.mirrord();
    exec.args(["exec", "-f", "m.json", "env"])
        .env("GREETING", "local")
        .env("KEPT", "local")
        .env("GONE", "local");
    let (code, out, _) = text(&exec.output().unwrap());
    assert_eq!(code, 0);
    let value = |name: &str| out.lines().find_map(|line| line.strip_prefix(&format!("{name}=")));
    assert_eq!(value("GREETING"), Some("from the pod"));
    assert_eq!(value("HOSTNAME"), Some("pod-1"));
    assert_eq!(value("KEPT"), Some("local"));
    assert_eq!(value("PATH"), Some("/usr/bin:/bin"));
    assert_eq!(value("MINE"), Some("1"));
    assert_eq!(value("GONE"), None);
    assert_eq!(value("LD_PRELOAD"), library().to_str());
    let settings = value("MIRRORD_SETTINGS").unwrap();
    let settings = mirrord_layer_brain::settings::Settings::decode(settings.as_ref()).unwrap();
    assert!(settings.outgoing);
    assert!(settings.local_trees.contains(&stage.folder.path().to_owned()));
    assert!(std::os::unix::net::UnixStream::connect(&settings.proxy).is_ok());
}

#[test]
fn a_second_exec_asks_neither_the_api_server_nor_the_pod() {
    let stage = Stage::new();
    assert!(stage.exec(&["true"]).status().unwrap().success());
    let asked = stage.api.asked.lock().unwrap().len();
    assert_eq!(stage.api.count("POST /apis/mirrord.dev/v1alpha1/namespaces/shop/sessions"), 1);
    assert_eq!(asked, 1, "one Session and nothing else");
    let requests = |sessions: Value| sessions["local"][0]["tunnel_requests"].as_u64().unwrap();
    let before = requests(stage.sessions());
    let (code, _, err) = text(&stage.exec(&["true"]).output().unwrap());
    assert_eq!(code, 0);
    assert!(err.ends_with("ms, warm\n"), "{err}");
    assert_eq!(stage.api.count("POST"), 1);
    assert_eq!(requests(stage.sessions()), before);
    assert_eq!(before, 2, "Hello and the environment");
}

#[test]
fn other_features_are_another_session() {
    let stage = Stage::new();
    assert!(stage.exec(&["true"]).status().unwrap().success());
    fs::write(stage.folder.path().join("m.json"), r#"{"feature": {"fs": "local"}}"#).unwrap();
    assert!(stage.exec(&["true"]).env("MIRRORD_CONFIG_FILE", "m.json").status().unwrap().success());
    assert_eq!(stage.api.count("POST"), 2);
    assert_eq!(stage.sessions()["local"].as_array().unwrap().len(), 2);
}

#[test]
fn two_at_once_share_one_session() {
    let stage = Stage::new();
    let children: Vec<Child> =
        (0..4).map(|_| stage.exec(&["true"]).stderr(Stdio::null()).spawn().unwrap()).collect();
    for mut child in children {
        assert!(child.wait().unwrap().success());
    }
    assert_eq!(stage.api.count("POST"), 1);
}

#[test]
fn in_ci_the_proxy_ends_with_its_last_program_and_deletes_the_session() {
    let stage = Stage::new();
    let mut exec = stage.exec(&["cat"]);
    let mut child = exec.env("CI", "true").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    child.stdin.as_mut().unwrap().write_all(b"x").unwrap();
    child.stdout.as_mut().unwrap().read_exact(&mut [0]).unwrap();
    let sessions = stage.sessions();
    assert_eq!(sessions["local"][0]["users"], 1, "held by the program alone: {sessions}");
    drop(child.stdin.take());
    assert!(child.wait().unwrap().success());
    stage.wait_for_the_end();
    let start = Instant::now();
    while stage.api.count("DELETE /apis/mirrord.dev/v1alpha1/namespaces/shop/sessions/s-") == 0 {
        assert!(start.elapsed() < Duration::from_secs(10), "the session was not deleted");
        std::thread::yield_now();
    }
}

#[test]
fn a_stopped_session_is_gone_and_the_next_exec_makes_a_new_one() {
    let stage = Stage::new();
    assert!(stage.exec(&["true"]).status().unwrap().success());
    let name = stage.sessions()["local"][0]["session"].as_str().unwrap().to_owned();
    let (code, out, err) = text(&stage.mirrord().args(["session", "stop", &name[..12]]).output().unwrap());
    assert_eq!((code, out.as_str()), (0, ""));
    assert!(err.contains(&format!("session {} is stopped", &name[..12])), "{err}");
    assert!(stage.exec(&["true"]).status().unwrap().success());
    assert_eq!(stage.api.count("POST"), 2);
}

#[test]
fn a_session_ended_from_elsewhere_is_replaced_by_the_next_exec() {
    let stage = Stage::new();
    assert!(stage.exec(&["true"]).status().unwrap().success());
    stage.sidecar.close(CloseCode::Deleted, "");
    stage.wait_for_the_end();
    assert!(stage.exec(&["true"]).status().unwrap().success());
    assert_eq!(stage.api.count("POST"), 2);
}

#[test]
fn the_proxy_is_nobody_s_child_and_holds_nothing_of_the_shell_s() {
    let stage = Stage::new();
    // A pipe that the shell left open: its other end must see the end when the program goes.
    let (mut reader, writer) = std::io::pipe().unwrap();
    rustix::io::fcntl_setfd(writer.as_fd(), rustix::io::FdFlags::empty()).unwrap();
    // Only the shell's own commands: another program would be a child.
    let children = "read -r all < /proc/$$/task/$$/children; echo \"$all\"";
    let (code, out, _) = text(&stage.exec(&["sh", "-c", children]).process_group(0).output().unwrap());
    assert_eq!((code, out.trim()), (0, ""), "the program has children that it didn't start");
    drop(writer);
    let mut rest = Vec::new();
    reader.read_to_end(&mut rest).unwrap();
    let pid = stage.sessions()["local"][0]["pid"].as_u64().unwrap();
    let proc = |name: &str| fs::read_link(format!("/proc/{pid}/{name}")).unwrap().display().to_string();
    assert_eq!(proc("cwd"), "/");
    assert_eq!([proc("fd/0"), proc("fd/1"), proc("fd/2")], ["/dev/null"; 3].map(str::to_owned));
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    assert_eq!(fields[4], "0", "it has no terminal");
    assert_ne!(fields[3], pid.to_string(), "it leads no session, so it can't get one");
}

#[test]
fn what_the_cluster_refuses_is_told_with_the_code_of_its_kind() {
    let stage = Stage::new();
    let refused = |code: u16, body: Value| {
        stage.api.answers(Answer::Error(code, body));
        text(&stage.exec(&["true"]).output().unwrap())
    };
    let denial = |word: &str, message: &str| {
        json!({
            "kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "x", "code": 422,
            "message": format!("admission webhook \"sessions.mirrord.dev\" denied the request: {message}"),
            "details": { "causes": [{ "reason": word, "message": message }] },
        })
    };
    let message =
        "no pod of deployment/checkout has a mirrord sidecar: restart it once: kubectl rollout restart …";
    let (code, out, err) = refused(422, denial("no_sidecar", message));
    assert_eq!((code, out.as_str()), (66, ""));
    assert!(err.starts_with(&format!("error: {message}\n  help: ")), "{err}");
    let (code, _, err) =
        refused(403, denial("not_granted", "user \"dev\" may not \"files\" on workloads.mirrord.dev"));
    assert_eq!(code, 77);
    assert!(err.contains("may not \"files\" on workloads.mirrord.dev"), "{err}");
    let missing = json!({ "kind": "Status", "apiVersion": "v1", "status": "Failure", "message": "404 page not found", "reason": "NotFound", "details": {}, "code": 404 });
    let (code, _, err) = refused(404, missing);
    assert_eq!(code, 69);
    assert!(err.contains("mirrord isn't installed") && err.contains("helm install mirrord"), "{err}");
}

#[test]
fn an_api_server_that_is_down_is_told_as_such() {
    let stage = Stage::new();
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let kubeconfig = stage.api.kubeconfig().replace(&stage.api.address.to_string(), &closed.to_string());
    fs::write(stage.folder.path().join("kubeconfig"), kubeconfig).unwrap();
    let (code, _, err) = text(&stage.exec(&["true"]).output().unwrap());
    assert_eq!(code, 69);
    assert!(
        err.contains(&format!("error: the API server http://{closed} "))
            && err.contains("can't be reached: ")
            && err.contains("refused"),
        "{err}"
    );
}

#[test]
fn without_a_target_those_that_could_be_meant_are_named() {
    let stage = Stage::new();
    let report = |name: &str, injected| mirrord_session::TargetReport {
        target: name.to_owned(),
        injected,
        ..mirrord_session::TargetReport::default()
    };
    let targets = vec![report("deployment/checkout", 2), report("deployment/bare", 0)];
    stage.api.answers(Answer::Status(Box::new(mirrord_session::SessionStatus {
        targets,
        ..stage.sidecar.status()
    })));
    let (code, _, err) = text(&stage.mirrord().args(["exec", "--", "true"]).output().unwrap());
    assert_eq!(code, 64);
    assert!(err.starts_with("error: there is no target\n"), "{err}");
    assert!(err.contains("in namespace shop there are deployment/checkout\n"), "{err}");
    let (code, out, _) = text(&stage.mirrord().arg("ls").output().unwrap());
    assert_eq!(code, 0);
    assert!(out.starts_with("TARGET                CONTAINERS"), "{out}");
    assert_eq!(stage.api.count("POST /apis/mirrord.dev/v1alpha1/namespaces/shop/sessions?&dryRun=All"), 2);
}

#[test]
fn progress_can_be_off_or_json() {
    let stage = Stage::new();
    let run = |mode: &str| text(&stage.exec(&["true"]).env("MIRRORD_PROGRESS_MODE", mode).output().unwrap());
    assert_eq!(run("off"), (0, String::new(), String::new()));
    let (_, out, err) = run("json");
    assert_eq!(out, "");
    let line: Value = serde_json::from_str(err.trim()).unwrap();
    assert_eq!(line["type"], "step");
    assert!(line["elapsed_ms"].as_f64().is_some());
}

#[test]
fn a_static_program_is_refused_unless_it_may_run_locally() {
    let stage = Stage::new();
    let program = stage.folder.path().join("static");
    // An ELF file without program headers: what `file` calls statically linked.
    let mut elf = vec![0; 120];
    elf[..5].copy_from_slice(b"\x7fELF\x02");
    elf[16..18].copy_from_slice(&2_u16.to_le_bytes());
    let machine: u16 = if cfg!(target_arch = "x86_64") { 62 } else { 183 };
    elf[18..20].copy_from_slice(&machine.to_le_bytes());
    fs::write(&program, elf).unwrap();
    fs::set_permissions(&program, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let (code, _, err) = text(&stage.exec(&["./static"]).output().unwrap());
    assert_eq!(code, 126);
    assert!(err.contains("statically linked") && err.contains("MIRRORD_ALLOW_LOCAL=1"), "{err}");
    assert_eq!(stage.api.count("POST"), 0);
    let (_, _, err) = text(&stage.exec(&["./static"]).env("MIRRORD_ALLOW_LOCAL", "1").output().unwrap());
    assert!(err.contains("warning: ./static runs without mirrord"), "{err}");
    assert_eq!(stage.api.count("POST"), 1);
}

#[test]
fn who_has_to_log_in_is_told_so_and_by_what_the_plugin_says() {
    let stage = Stage::new();
    let login = "echo 'open https://login.example.com and enter ABCD' >&2; sleep 4; \
                 echo '{\"apiVersion\": \"client.authentication.k8s.io/v1\", \"kind\": \"ExecCredential\", \"status\": {\"token\": \"t\"}}'";
    let plugin = json!({ "exec": {
        "apiVersion": "client.authentication.k8s.io/v1", "command": "sh", "args": ["-c", login],
        "interactiveMode": "IfAvailable",
    }});
    let kubeconfig = stage.api.kubeconfig().replace("{token: t}", &plugin.to_string());
    fs::write(stage.folder.path().join("kubeconfig"), kubeconfig).unwrap();
    let (code, _, err) = text(&stage.exec(&["sh", "-c", "echo mine >&2"]).output().unwrap());
    assert_eq!(code, 0, "{err}");
    let lines: Vec<&str> = err.lines().collect();
    assert_eq!(lines[0], "open https://login.example.com and enter ABCD");
    assert_eq!(lines[1], "mirrord: waiting for the kubeconfig's credential plugin");
    assert_eq!(lines.last(), Some(&"mine"), "and stderr is the program's again");
}

#[test]
fn variables_come_from_the_pod_a_mapping_a_file_and_the_configuration() {
    let stage = Stage::new();
    fs::create_dir(stage.folder.path().join(".mirrord")).unwrap();
    let config = r#"{"feature": {"env": {"env_file": "dev.env", "mapping": {"GREET(.*)": "mapped-$1"}, "override": {"B": "set"}}}}"#;
    fs::write(stage.folder.path().join(".mirrord/mirrord.json"), config).unwrap();
    fs::write(stage.folder.path().join("dev.env"), "A='from a file'\nB=file\n").unwrap();
    let script = "echo \"$GREETING|$A|$B|$HOSTNAME\"";
    let (code, out, err) = text(&stage.exec(&["sh", "-c", script]).output().unwrap());
    assert_eq!((code, out.as_str()), (0, "mapped-ING|from a file|set|pod-1\n"), "{err}");
}
