//! A test's world: a remote root, a proxy that serves it, and programs run under the layer or natively.

use std::{
    env,
    ffi::{OsStr, OsString},
    fs,
    io::{Read, Write},
    net::{IpAddr, SocketAddr, TcpListener},
    os::{
        fd::BorrowedFd,
        unix::{ffi::OsStringExt, fs::PermissionsExt, net::UnixListener},
    },
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    sync::{Arc, Once, OnceLock},
    thread,
};

use mirrord_layer_brain::settings::{FileMode, Settings};
use tempfile::TempDir;

use crate::proxy::{Pod, serve};

/// What the tests' own caller left open (`flock`, for one) isn't passed on: programs here count their descriptors.
fn keep_inherited_descriptors() {
    for entry in fs::read_dir("/proc/self/fd").unwrap() {
        let number = entry.unwrap().file_name().to_str().unwrap().parse().unwrap();
        if number > 2 {
            // SAFETY: the number is only used for this one call, and a number that is closed by now is an error.
            let descriptor = unsafe { BorrowedFd::borrow_raw(number) };
            let _ = rustix::io::fcntl_setfd(descriptor, rustix::io::FdFlags::CLOEXEC);
        }
    }
}

/// Everything one test needs; gone with it.
pub(crate) struct World {
    folder: TempDir,
    pub(crate) pod: Arc<Pod>,
    pub(crate) settings: Settings,
}

/// What a program left behind.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Outcome {
    pub(crate) stdout: String,
    pub(crate) stderr: String,
    pub(crate) code: Option<i32>,
}

impl From<Output> for Outcome {
    fn from(output: Output) -> Self {
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        Self { stdout: text(output.stdout), stderr: text(output.stderr), code: output.status.code() }
    }
}

impl Outcome {
    /// Its stdout; fails where the program did.
    #[track_caller]
    pub(crate) fn ok(self) -> String {
        assert_eq!((self.code, self.stderr.as_str()), (Some(0), ""), "{self:?}");
        self.stdout
    }
}

/// The library under test, which cargo builds beside the tests.
pub(crate) fn library() -> PathBuf {
    let test = env::current_exe().unwrap();
    let library = test.parent().unwrap().join("libmirrord_layer_preload.so");
    assert!(library.exists(), "{} is missing", library.display());
    library
}

impl World {
    pub(crate) fn new() -> Self {
        Self::with(|_| {})
    }

    /// A world whose settings differ.
    pub(crate) fn with(change: impl FnOnce(&mut Settings)) -> Self {
        static KEPT: Once = Once::new();
        KEPT.call_once(keep_inherited_descriptors);
        let folder = tempfile::Builder::new().prefix("layer").tempdir_in("/tmp").unwrap();
        let root = folder.path().join("pod");
        fs::create_dir(&root).unwrap();
        let socket = folder.path().join("proxy.sock");
        let pod = Arc::new(Pod::new(root));
        serve(Arc::clone(&pod), UnixListener::bind(&socket).unwrap());
        let mut settings = Settings {
            proxy: socket,
            layer: library(),
            files: FileMode::Read,
            outgoing: true,
            remote_mounts: vec![],
            local_trees: vec![env::var_os("HOME").map_or_else(|| "/root".into(), PathBuf::from)],
        };
        change(&mut settings);
        let world = Self { folder, pod, settings };
        world.remote("/srv/data/hello.txt", "hello from the pod\n");
        world.remote("/srv/data/more/list.txt", "one\ntwo\nthree\n");
        world.remote("/etc/app/config.yaml", "key: value\n");
        std::os::unix::fs::symlink("hello.txt", world.place("/srv/data/link")).unwrap();
        world
    }

    /// Where a remote path lies.
    pub(crate) fn place(&self, path: &str) -> PathBuf {
        self.pod.root.join(path.trim_start_matches('/'))
    }

    /// Makes a remote file.
    pub(crate) fn remote(&self, path: &str, content: impl AsRef<[u8]>) {
        let place = self.place(path);
        fs::create_dir_all(place.parent().unwrap()).unwrap();
        fs::write(place, content).unwrap();
    }

    /// Makes a local file.
    pub(crate) fn local(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.folder.path().join(name);
        fs::write(&path, content).unwrap();
        path
    }

    /// Makes a local script that can be executed.
    pub(crate) fn script(&self, name: &str, content: &str) -> PathBuf {
        let path = self.local(name, content);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        path
    }

    /// Compiles a C program.
    pub(crate) fn compile(&self, name: &str, source: &str, flags: &[&str]) -> PathBuf {
        let code = self.local(&format!("{name}.c"), source);
        let program = self.folder.path().join(name);
        let status =
            Command::new("cc").args(["-Wall", "-pthread", "-o"]).arg(&program).arg(code).args(flags).status();
        assert!(status.unwrap().success(), "{name}.c doesn't compile");
        program
    }

    /// A remote address that a server of this machine stands behind.
    pub(crate) fn route(&self, remote: &str, local: SocketAddr) {
        self.pod.addresses.lock().unwrap().insert(remote.parse().unwrap(), local);
    }

    /// A remote name.
    pub(crate) fn name(&self, name: &str, addresses: &[&str]) {
        let addresses = addresses.iter().map(|address| address.parse::<IpAddr>().unwrap()).collect();
        self.pod.names.lock().unwrap().insert(name.to_owned(), addresses);
    }

    /// A program under the layer, to be run.
    pub(crate) fn command<S: AsRef<OsStr>>(&self, line: &[S]) -> Command {
        let mut command = native(self.folder.path(), line);
        command.envs(self.settings.variables(None).unwrap());
        command
    }

    /// Runs a program under the layer.
    #[track_caller]
    pub(crate) fn run<S: AsRef<OsStr>>(&self, line: &[S]) -> Outcome {
        self.command(line).output().unwrap().into()
    }

    /// Runs a program under the layer, and the same natively with `/srv`, `/etc/app` standing where the pod's are; both
    /// must leave the same behind.
    #[track_caller]
    pub(crate) fn same(&self, line: &[&str]) -> String {
        let root = self.pod.root.display();
        let real: Vec<String> = line
            .iter()
            .map(|part| {
                part.replace("/srv", &format!("{root}/srv")).replace("/etc/app", &format!("{root}/etc/app"))
            })
            .collect();
        let natively: Outcome = native(self.folder.path(), &real).output().unwrap().into();
        let expected = Outcome {
            stdout: natively.stdout.replace(&root.to_string(), ""),
            stderr: natively.stderr.replace(&root.to_string(), ""),
            code: natively.code,
        };
        let found = self.run(line);
        assert_eq!(found, expected, "{line:?}");
        found.stdout
    }
}

fn native<S: AsRef<OsStr>>(folder: &Path, line: &[S]) -> Command {
    let mut command = Command::new(if line[0].as_ref() == "python3" { python() } else { line[0].as_ref() });
    command.args(&line[1..]).current_dir(folder).stdin(Stdio::null());
    command.env("LC_ALL", "C.UTF-8").env_remove("LD_PRELOAD");
    command
}

/// Python itself: what `PATH` has may be a script that only looks for it.
fn python() -> &'static OsStr {
    static PYTHON: OnceLock<OsString> = OnceLock::new();
    PYTHON.get_or_init(|| {
        let found =
            Command::new("python3").args(["-c", "import sys; print(sys.executable, end='')"]).output();
        OsString::from_vec(found.expect("these tests need python3").stdout)
    })
}

/// A server that answers each connection with a line and what it was sent, until the client has no more.
pub(crate) fn echo_server(address: &str) -> SocketAddr {
    let listener = TcpListener::bind(address).unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            thread::spawn(move || {
                let mut text = Vec::new();
                stream.write_all(b"welcome\n")?;
                stream.read_to_end(&mut text)?;
                stream.write_all(&text)
            });
        }
    });
    address
}

/// A server that answers each request with a page.
pub(crate) fn web_server(page: &'static str) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            thread::spawn(move || {
                let mut request = Vec::new();
                let mut part = [0; 1024];
                while !request.windows(4).any(|end| end == b"\r\n\r\n") {
                    match stream.read(&mut part)? {
                        0 => return Ok(()),
                        count => request.extend_from_slice(&part[..count]),
                    }
                }
                let length = page.len();
                write!(
                    stream,
                    "HTTP/1.1 200 OK\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{page}"
                )
            });
        }
    });
    address
}
