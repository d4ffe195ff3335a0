//! Who stands beside us: the application, which has its twin's uid and, where the process namespace is shared, sees its
//! processes; whoever may `kubectl exec` into it; and other users of a developer's machine.

use std::{collections::BTreeMap, fs, os::unix::fs::PermissionsExt, process::Command, time::Duration};

use mirrord_cli::proxy::control::{self, Question};
use mirrord_e2e::{
    cluster::cluster,
    developer::Developer,
    namespace::{Namespace, USUAL},
    run::{Run, until},
    scene::injection_status,
};
use serde_json::{Value, json};

/// Tries all that would tell something of a process, or take it over: of each twin, of the application and of itself. Prints
/// what came of each.
const SPY: &str = r"
import ctypes, errno, json, os
libc = ctypes.CDLL(None, use_errno=True)

def tried(call):
    try:
        call()
        return 'open'
    except OSError as error:
        return errno.errorcode[error.errno]

def kernel(*numbers):
    ctypes.set_errno(0)
    result = libc.syscall(*map(ctypes.c_long, numbers))
    if result < 0:
        raise OSError(ctypes.get_errno(), '')
    return result

def stolen_descriptor(pid):
    kernel(438, kernel(434, pid, 0), 0, 0)  # pidfd_getfd of a pidfd_open

def read_memory(pid):
    buffer = ctypes.create_string_buffer(8)
    class Part(ctypes.Structure):
        _fields_ = [('at', ctypes.c_void_p), ('length', ctypes.c_size_t)]
    here, there = Part(ctypes.addressof(buffer), 8), Part(0x400000, 8)
    kernel(310, pid, ctypes.addressof(here), 1, ctypes.addressof(there), 1, 0)

def spy(pid):
    at = lambda name: f'/proc/{pid}/{name}'
    files = ['environ', 'mem', 'maps', 'smaps', 'auxv', 'pagemap', 'syscall', f'task/{pid}/environ',
             'root/etc/hostname', 'root/.mirrord/identity/token', 'root/.mirrord/bin/mirrord-agent']
    found = {name: tried(lambda: open(at(name), 'rb').read(1)) for name in files}
    found |= {name: tried(lambda: os.readlink(at(name))) for name in ['root', 'cwd', 'exe', 'fd/0', 'ns/net']}
    found |= {name: tried(lambda: os.listdir(at(name))) for name in ['root/', 'cwd/', 'map_files']}
    found['mem, to write'] = tried(lambda: open(at('mem'), 'r+b'))
    found['process_vm_readv'] = tried(lambda: read_memory(pid))
    found['pidfd_getfd'] = tried(lambda: stolen_descriptor(pid))
    found['ptrace attach'] = tried(lambda: kernel(101, 16, pid, 0, 0))
    found['ptrace seize'] = tried(lambda: kernel(101, 0x4206, pid, 0, 0))
    return found

twins, others = {}, {}
for pid in filter(str.isdigit, os.listdir('/proc')):
    try:
        words = open(f'/proc/{pid}/cmdline', 'rb').read().split(b'\0')
    except OSError:
        continue
    if words[0].endswith(b'/mirrord-agent'):
        twins[pid] = spy(int(pid))
    elif words[0] == b'sleep':
        others[pid] = {name: tried(lambda: open(f'/proc/{pid}/{name}', 'rb').read(1)) for name in ['environ', 'maps']}
print(json.dumps({'twins': twins, 'others': others, 'own': os.path.exists('/.mirrord')}))
";

/// Kills every process of the twin, as often as it takes for all to be gone at once.
const KILLER: &str = r"
import os, signal
def twins():
    for pid in filter(str.isdigit, os.listdir('/proc')):
        try:
            if open(f'/proc/{pid}/cmdline', 'rb').read().split(b'\0')[0].endswith(b'/mirrord-agent'):
                yield int(pid)
        except OSError:
            pass
killed = 0
for pid in sorted(twins()):
    try:
        os.kill(pid, signal.SIGKILL)
        killed += 1
    except ProcessLookupError:
        pass
print(killed)
";

/// Binds a UDP port beside its owner in every way there is, and a free port in the same ways.
const SQUATTER: &str = r"
import errno, socket, sys
def tried(family, address, options, port):
    taken = socket.socket(family, socket.SOCK_DGRAM)
    try:
        for option in options:
            taken.setsockopt(socket.SOL_SOCKET, option, 1)
        taken.bind((address, port))
        return 'bound'
    except OSError as error:
        return errno.errorcode[error.errno]
    finally:
        taken.close()
port, own = int(sys.argv[1]), sys.argv[2]
reuse = [[], [socket.SO_REUSEADDR], [socket.SO_REUSEPORT], [socket.SO_REUSEADDR, socket.SO_REUSEPORT]]
for number in [port, 0]:
    ways = [tried(socket.AF_INET, address, options, number) for address in ['', '127.0.0.1', own] for options in reuse]
    ways += [tried(socket.AF_INET6, '::', options, number) for options in reuse]
    print(*sorted(set(ways)))
";

fn inside(namespace: &Namespace, container: &str, script: &str, arguments: &[&str]) -> String {
    let exec = ["exec", "--namespace", namespace.name(), "deployment/app", "--container", container, "--"];
    let python = ["python3", "-c", script];
    Run::of(&mut cluster().kubectl(&[&exec[..], &python, arguments].concat())).succeeded().text()
}

/// A pod that has a session, so that its twin is awake, with keys.
fn awake(namespace: &Namespace) -> Developer {
    namespace.allow("deployment.app", &USUAL);
    let developer = Developer::new(namespace.name()).with_lingering_proxies();
    let _ = developer.exec("deployment/app", ["true"]).succeeded();
    developer
}

#[track_caller]
fn tells_nothing(namespace: &Namespace) {
    let found: Value = serde_json::from_str(&inside(namespace, "app", SPY, &[])).unwrap();
    let processes = |who: &str| -> BTreeMap<String, BTreeMap<String, String>> {
        serde_json::from_value(found[who].clone()).unwrap()
    };
    let twins = processes("twins");
    assert_eq!(twins.len(), 2, "the one that waits and the one that serves: {found}");
    for (name, came) in twins.values().flatten() {
        assert!(["EACCES", "EPERM"].contains(&came.as_str()), "{name}: {came}\n{found:#}");
    }
    // The very same of the application itself is open, so it isn't the looking that fails.
    let application = processes("others");
    assert!(
        !application.is_empty() && application.values().flatten().all(|(_, came)| came == "open"),
        "{found}"
    );
    assert_eq!(found["own"], false, "nothing of ours is mounted in the application");
}

#[test]
fn the_application_can_neither_read_nor_trace_nor_take_over_its_twin() {
    let namespace = Namespace::opted_in("spied-on");
    namespace.deploy("app", |_| ());
    let _developer = awake(&namespace);
    tells_nothing(&namespace);
}

#[test]
fn nor_can_an_application_that_runs_as_root() {
    let labels = json!({"mirrord.dev/inject": "enabled", "pod-security.kubernetes.io/enforce": "baseline"});
    let namespace = Namespace::with_labels("spied-on-by-root", &labels);
    namespace.deploy("app", |deployment| {
        let pod = &mut deployment["spec"]["template"]["spec"];
        pod["securityContext"] = json!({"runAsUser": 0});
        pod["containers"][0]["securityContext"] = json!({});
    });
    let _developer = awake(&namespace);
    tells_nothing(&namespace);
}

#[test]
fn nobody_binds_the_twins_port_beside_it() {
    let namespace = Namespace::opted_in("squatted");
    namespace.deploy("app", |_| ());
    let pod = namespace.pods().remove(0);
    let port = injection_status(&pod)["containers"][0]["port"].to_string();
    let address = pod["status"]["podIP"].as_str().unwrap();
    assert_eq!(inside(&namespace, "app", SQUATTER, &[&port, address]), "EADDRINUSE\nbound\n");
}

#[test]
fn an_application_that_kills_its_twin_is_left_without_it_for_a_moment_and_otherwise_as_it_was() {
    let namespace = Namespace::opted_in("killed-by-its-own");
    namespace.deploy("app", |_| ());
    let developer = awake(&namespace);
    let before = namespace.pods().remove(0);
    let killed: u32 = inside(&namespace, "app", KILLER, &[]).trim().parse().unwrap();
    assert!(killed >= 1, "the kernel lets equals kill each other");
    let after = until(Duration::from_secs(30), "the sidecar to be started again", || {
        let pod = namespace.pods().remove(0);
        let started = pod["status"]["initContainerStatuses"]
            .as_array()?
            .iter()
            .any(|status| status["restartCount"].as_u64() > Some(0) && status["started"] == true);
        started.then_some(pod)
    });
    assert_eq!(before["metadata"]["uid"], after["metadata"]["uid"]);
    assert_eq!(before["status"]["containerStatuses"], after["status"]["containerStatuses"]);
    developer.sees_the_pods_file("deployment/app");
}

/// Sends bytes to a unix socket and prints how many come back.
const CALLER: &str = "
import socket, sys
caller = socket.socket(socket.AF_UNIX)
caller.settimeout(10)
caller.connect(sys.argv[1])
try:
    caller.sendall(bytes.fromhex(sys.argv[2]))
    print(len(caller.recv(65536)))
except (BrokenPipeError, ConnectionResetError):
    print(0)
";

#[test]
fn other_users_of_a_developers_machine_get_no_answer_from_a_proxy() {
    let namespace = Namespace::opted_in("other-users");
    namespace.deploy("app", |_| ());
    let developer = awake(&namespace);
    let folder = developer.home().join("mirrord");
    let sockets: Vec<_> = fs::read_dir(&folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|kind| kind == "control" || kind == "layer"))
        .collect();
    assert_eq!(sockets.len(), 2, "{sockets:?}");
    let question = control::encode(&Question::Status {}, &[]).unwrap();
    let question: String = question.iter().map(|byte| format!("{byte:02x}")).collect();
    let call = |socket: &std::path::Path, user: &[&str]| {
        // Not PATH's, which may be root's own.
        let words = [user, &["/usr/bin/python3", "-c", CALLER, socket.to_str().unwrap(), &question]].concat();
        Run::of(Command::new(words[0]).args(&words[1..]))
    };
    let nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"];
    let control = sockets.iter().find(|path| path.extension().unwrap() == "control").unwrap();
    assert_ne!(call(control, &[]).succeeded().text(), "0\n", "the user themself is answered");
    for socket in &sockets {
        let _ = call(socket, &nobody).failed_with(1, &["PermissionError"]);
    }
    // And if somebody opened all the doors: the proxy looks who knocks.
    for (path, mode) in [(developer.home(), 0o755), (&folder, 0o755)] {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }
    for socket in &sockets {
        fs::set_permissions(socket, fs::Permissions::from_mode(0o777)).unwrap();
        assert_eq!(call(socket, &nobody).succeeded().text(), "0\n", "{socket:?}");
    }
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o700)).unwrap();
}
