//! A workload at work while a developer uses it, watched from both sides: what is taken away from beneath them must not be
//! noticed by the application, and may only be noticed by the developer's program as an error that says what happened.

use std::{
    io::{BufRead, BufReader, Read},
    process::{Child, Stdio},
    sync::{Arc, Mutex, PoisonError},
    thread,
    time::Duration,
};

use serde_json::{Value, json};

use crate::{
    cluster::cluster,
    developer::Developer,
    namespace::{Namespace, USUAL},
    run::{Run, until},
};

/// Reads two remote files and asks the application over a connection, over and over, and tells of each whether it was right.
/// One of the files is there on every machine, with another content: a silent step aside to the local one is seen.
const PROGRAM: &str = r"
import socket, sys, time
address, resolver = sys.argv[1:]

def read(path, expected):
    with open(path) as file:
        seen = file.read()
    return None if seen == expected else f'{path}: {seen!r}'

def fetch():
    with socket.create_connection((address, 80), 60) as connection:
        connection.sendall(b'GET /private HTTP/1.0\r\n\r\n')
        answer = b''
        while piece := connection.recv(4096):
            answer += piece
    return None if answer.endswith(b'\r\n\r\nonly for 4321\n') else repr(answer)

while True:
    for name, use in [
        ('file', lambda: read('/var/lib/checkout/private', 'only for 4321\n')),
        ('file', lambda: read('/etc/resolv.conf', resolver)),
        ('connection', fetch),
    ]:
        try:
            wrong = use()
        except OSError as error:
            print(name, 'failed:', error, flush=True)
        else:
            print(name, f'wrong: {wrong}' if wrong else 'right', flush=True)
    time.sleep(0.02)
";

/// Asks the application twenty times a second, each time by a new connection, and tells of each that was lost.
const CALLER: &str = r"
import sys, time, urllib.request
asked = 0
while True:
    try:
        with urllib.request.urlopen(sys.argv[1], timeout=5) as answer:
            if answer.read() != b'only for 4321\n':
                print('lost: wrong answer', flush=True)
    except OSError as error:
        print('lost:', error, flush=True)
    asked += 1
    if asked % 20 == 0:
        print('asked', asked, flush=True)
    time.sleep(0.05)
";

/// What a connection says that stood when it was cut.
pub const CUT: [&str; 2] = ["Connection reset by peer", "Software caused connection abort"];

/// What the program has said so far.
#[derive(Clone, Debug, Default)]
struct Said {
    files: usize,
    connections: usize,
    failures: Vec<String>,
    wrong: Vec<String>,
}

/// The developer's program.
#[derive(Debug)]
pub struct Program {
    child: Child,
    said: Arc<Mutex<Said>>,
    /// By mirrord, on its stderr.
    told: Arc<Mutex<Vec<String>>>,
}

/// The workload, its developer, and who watches.
#[derive(Debug)]
pub struct Scene {
    /// Where all is.
    pub namespace: Namespace,
    /// At work in it; their proxies linger.
    pub developer: Developer,
    /// Runs under `mirrord exec`.
    pub program: Program,
    /// The application's pod, as it was in the beginning.
    pod: Value,
}

impl Scene {
    /// Deploys `deployment/app`, asks it from another pod all the time, and starts the developer's program.
    #[must_use]
    pub fn begin(name: &str) -> Self {
        let namespace = Namespace::opted_in(name);
        namespace.deploy("app", |deployment| {
            let container = &mut deployment["spec"]["template"]["spec"]["containers"][0];
            container["command"] =
                json!(["python3", "-m", "http.server", "8000", "--directory", "/var/lib/checkout"]);
        });
        namespace.allow("deployment.app", &USUAL);
        let pod = pod(&namespace);
        let address = service(&namespace);
        call(&namespace, "caller", &format!("http://{address}/private"));
        let address_of_pod = pod["status"]["podIP"].as_str().expect("it runs");
        call(&namespace, "neighbour", &format!("http://{address_of_pod}:8000/private"));

        let developer = Developer::new(namespace.name()).with_lingering_proxies();
        let program = Program::start(&developer, &namespace, &address);
        Self { namespace, developer, program, pod }
    }

    /// Another program of the same kind, in a session that the next `exec` gets.
    #[must_use]
    pub fn another_program(&self) -> Program {
        Program::start(&self.developer, &self.namespace, &address(&self.namespace))
    }

    /// Panics unless the application's pod is the one that it was, ready all the time, and each of its containers.
    #[track_caller]
    pub fn pod_was_left_alone(&self) {
        let now = pod(&self.namespace);
        assert_eq!(ready(&now), ready(&self.pod), "the pod was not ready for a while");
        self.application_was_left_alone();
    }

    /// Panics unless the application's container is the one that it was.
    #[track_caller]
    pub fn application_was_left_alone(&self) {
        let now = pod(&self.namespace);
        assert_eq!(now["metadata"]["uid"], self.pod["metadata"]["uid"], "another pod");
        assert_eq!(now["status"]["containerStatuses"], self.pod["status"]["containerStatuses"]);
    }

    /// Panics where a request to the application's Service was lost.
    #[track_caller]
    pub fn service_lost_nothing(&self) {
        lost_nothing(&self.namespace, "caller");
    }

    /// Panics where a request to the application's pod was lost. (A Service without a ready pod refuses by itself.)
    #[track_caller]
    pub fn application_lost_nothing(&self) {
        lost_nothing(&self.namespace, "neighbour");
    }

    /// Panics where the program saw anything wrong, or got other errors than connections that failed like this. (A file is
    /// asked for again.)
    #[track_caller]
    pub fn only_connections_failed(&self, like: &[&str]) {
        let said = self.program.said();
        assert!(said.wrong.is_empty(), "{:#?}", said.wrong);
        for failure in said.failures {
            let told =
                failure.starts_with("connection failed") && like.iter().any(|word| failure.contains(word));
            assert!(told, "{failure}");
        }
    }

    /// The sidecar's container id.
    #[must_use]
    pub fn sidecar(&self) -> String {
        let pod = pod(&self.namespace);
        let id = self.sidecar_status(&pod)["containerID"].as_str().expect("it runs").to_owned();
        id.trim_start_matches("containerd://").to_owned()
    }

    /// What kubelet says of a pod's sidecar.
    #[must_use]
    pub fn sidecar_status(&self, pod: &Value) -> Value {
        let statuses = pod["status"]["initContainerStatuses"].as_array().expect("kubelet tells");
        let sidecar = statuses.iter().find(|status| status["name"] == "mirrord").expect("it has a sidecar");
        sidecar.clone()
    }

    /// Where the sidecar listens: its address, and the UDP port.
    ///
    /// # Panics
    /// Where the pod's status annotation says no such thing.
    #[must_use]
    pub fn sidecar_door(&self) -> (String, u16) {
        let pod = pod(&self.namespace);
        let port = injection_status(&pod)["containers"][0]["port"]
            .as_u64()
            .and_then(|port| u16::try_from(port).ok());
        let address = pod["status"]["podIP"].as_str().expect("it runs").to_owned();
        (address, port.expect("a port"))
    }

    /// What the sidecar has logged.
    #[must_use]
    pub fn sidecar_log(&self) -> String {
        cluster()
            .run(&["logs", "--namespace", self.namespace.name(), "deployment/app", "-c", "mirrord"])
            .text()
    }
}

/// The application's pod as it is now.
#[must_use]
pub fn pod(namespace: &Namespace) -> Value {
    let pods = namespace.pods();
    pods.into_iter().find(|pod| pod["metadata"]["labels"]["app"] == "app").expect("it is there")
}

/// What injection did to a pod, as it wrote on it.
///
/// # Panics
/// Where nothing was injected.
#[must_use]
pub fn injection_status(pod: &Value) -> Value {
    let status = pod["metadata"]["annotations"]["mirrord.dev/status"].as_str().expect("it was injected");
    serde_json::from_str(status).expect("JSON")
}

/// When the pod became ready, or ceased to be.
fn ready(pod: &Value) -> Value {
    let conditions = pod["status"]["conditions"].as_array().expect("kubelet tells");
    let ready = conditions.iter().find(|condition| condition["type"] == "Ready").expect("it tells that");
    json!([ready["status"], ready["lastTransitionTime"]])
}

fn service(namespace: &Namespace) -> String {
    cluster().apply(&json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": "app", "namespace": namespace.name()},
        "spec": {"selector": {"app": "app"}, "ports": [{"port": 80, "targetPort": 8000}]},
    }));
    address(namespace)
}

/// The application's Service's.
fn address(namespace: &Namespace) -> String {
    let service = cluster().get(&["service", "app", "--namespace", namespace.name()]);
    service["spec"]["clusterIP"].as_str().expect("it has one").to_owned()
}

/// A pod without sidecar that asks, and is doing so.
fn call(namespace: &Namespace, name: &str, url: &str) {
    let image = pod(namespace)["spec"]["containers"][0]["image"].clone();
    cluster().apply(&json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "namespace": namespace.name(), "labels": {"mirrord.dev/inject": "disabled"}},
        "spec": {
            "securityContext": {"runAsNonRoot": true, "seccompProfile": {"type": "RuntimeDefault"}},
            "terminationGracePeriodSeconds": 0,
            "containers": [{
                "name": "caller", "image": image, "command": ["python3", "-c", CALLER, url],
                "securityContext": {"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}},
            }],
        },
    }));
    until(Duration::from_secs(20), "the first answers of the application", || {
        log(namespace, name).contains("asked").then_some(())
    });
}

/// What a pod has logged. A kubelet that was just started can't be asked at once.
fn log(namespace: &Namespace, pod: &str) -> String {
    until(Duration::from_secs(20), "a log", || {
        let mut logs = cluster().kubectl(&["logs", "--namespace", namespace.name(), pod]);
        let run = Run::of(&mut logs);
        run.status.success().then(|| run.text())
    })
}

#[track_caller]
fn lost_nothing(namespace: &Namespace, caller: &str) {
    let log = log(namespace, caller);
    // What was asked before the rule of a fresh Service was in place is none of our affair.
    let (_, log) = log.split_once("asked 20\n").expect("it asked");
    assert!(log.contains("asked"), "{caller} asked nothing: {log}");
    assert!(!log.contains("lost"), "{caller}: {log}");
}

impl Program {
    fn start(developer: &Developer, namespace: &Namespace, address: &str) -> Self {
        let inside = ["exec", "--namespace", namespace.name(), "deployment/app", "--container", "app", "--"];
        let resolver = cluster().run(&[&inside[..], &["cat", "/etc/resolv.conf"]].concat()).text();
        let mut command =
            developer.exec_command("deployment/app", ["python3", "-c", PROGRAM, address, &resolver]);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("mirrord starts");
        let (said, told) = (Arc::new(Mutex::new(Said::default())), Arc::default());
        each_line(child.stdout.take().expect("just piped"), &said, Said::hear);
        each_line(child.stderr.take().expect("just piped"), &told, Vec::push);
        let program = Self { child, said, told };
        program.goes_on();
        program
    }

    /// Waits until both files and a connection were right that were begun after this moment.
    #[track_caller]
    pub fn goes_on(&self) {
        let before = self.said();
        until(Duration::from_secs(55), "the program to go on", || {
            let now = self.said();
            // The first may have begun before.
            (now.files > before.files + 2 && now.connections > before.connections + 1).then_some(())
        });
    }

    /// Panics where it got anything but what is in the pod.
    #[track_caller]
    pub fn saw_nothing_wrong(&self) {
        let wrong = self.said().wrong;
        assert!(wrong.is_empty(), "{wrong:#?}");
    }

    /// The errors that it got.
    #[must_use]
    pub fn failures(&self) -> Vec<String> {
        self.said().failures
    }

    /// Waits for the sentence that ends its session.
    #[must_use]
    #[track_caller]
    pub fn end(&self, limit: Duration) -> String {
        until(limit, "the session to end", || {
            let told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
            told.iter().find(|line| line.contains("session ended")).cloned()
        })
    }

    fn said(&self) -> Said {
        self.said.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Said {
    fn hear(&mut self, line: String) {
        match line.as_str() {
            "file right" => self.files += 1,
            "connection right" => self.connections += 1,
            wrong if wrong.contains("wrong") => self.wrong.push(line),
            _ => self.failures.push(line),
        }
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Hands each line that is read to what keeps them, until there are no more.
fn each_line<T: Send + 'static>(
    from: impl Read + Send + 'static,
    keeps: &Arc<Mutex<T>>,
    keep: impl Fn(&mut T, String) + Send + 'static,
) {
    let keeps = keeps.clone();
    thread::spawn(move || {
        for line in BufReader::new(from).lines().map_while(Result::ok) {
            keep(&mut keeps.lock().unwrap_or_else(PoisonError::into_inner), line);
        }
    });
}
