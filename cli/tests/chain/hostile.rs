//! A pod that means harm: what its sidecar answers, says and sets is used, shown and passed on only as far as it can do none
//! on the developer's machine.

use std::{
    collections::BTreeSet,
    fs,
    io::Read,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use mirrord_layer_brain::{
    conversation::{Answer, Ask, Link, ReadLink, Resolve, Resolved},
    listing,
};
use mirrord_protocol::{
    control::CloseCode,
    frame,
    limits::{ADDRESSES, FIRST_BYTES, LISTING_ENTRIES, READ_BYTES},
    reply::{self, Attributes, Data, Entry, Listing, Opened, Pong, Reply},
    request::Family,
};
use mirrord_usage::Usage;
use serde::Serialize;

use super::{
    in_place::{Stage, text},
    layer::{Layer, Proxy, remote},
    sidecar::{MODE, Sidecar, World},
};

fn reply<T: Serialize>(value: T, tail: &[u8]) -> Vec<u8> {
    frame::encode_with_tail(&Reply::Ok(value), tail).unwrap()
}

fn names<'a>(names: impl IntoIterator<Item = &'a [u8]>, more: bool) -> Vec<u8> {
    let entry = |name: &[u8]| Entry { name: name.to_vec(), attributes: None };
    let entries = names.into_iter().map(entry).collect();
    reply(Listing { entries, more, attributes: Some(Attributes::default()) }, &[])
}

fn listed(layer: &mut Layer, path: &str) -> Result<Vec<String>, Option<i32>> {
    let (_, mut file) = layer.open(path, true)?;
    let (mut bytes, mut names, mut position) = (Vec::new(), Vec::new(), 0);
    file.read_to_end(&mut bytes).unwrap();
    while let Some(record) = listing::record(&bytes, position) {
        names.push(String::from_utf8_lossy(record.name).into_owned());
        position = record.next;
    }
    assert_eq!(position, bytes.len());
    Ok(names)
}

#[test]
fn names_that_programs_could_take_for_paths_are_left_out_of_a_folder() {
    let evil: [&[u8]; 8] =
        [b"..", b".", b"", b"../../.bashrc", b"/etc/passwd", b"a/b", b"nul\0", &[b'x'; 256]];
    let world = World::default()
        .with_trick("/evil", names(evil.into_iter().chain([&b"fine"[..]]), false), [])
        .with_trick("/crowd", names(vec![&b"x"[..]; LISTING_ENTRIES + 1], false), [])
        .with_trick("/stuck", names([], true), names([], true));
    let sidecar = Sidecar::start("pod-1", world);
    let proxy = Proxy::start(sidecar.status());
    let mut layer = proxy.layer();
    assert_eq!(listed(&mut layer, "/evil").unwrap(), [".", "..", "fine"]);
    for senseless in ["/crowd", "/stuck"] {
        assert_eq!(listed(&mut layer, senseless), Err(Some(libc::EIO)), "{senseless}");
    }
}

#[test]
fn an_answer_that_makes_no_sense_fails_one_call_and_no_other() {
    let too_long = [0xff_u8; frame::PREFIX_BYTES];
    let cut_off = reply(Opened { attributes: Attributes::default(), end: true }, &[7; 100]);
    let socket = Attributes { mode: libc::S_IFSOCK | 0o777, ..Attributes::default() };
    let world = World::default()
        .with_trick("/another-type", reply(Pong {}, &[]), [])
        .with_trick("/too-long", too_long, [])
        .with_trick("/cut-off", &cut_off[..cut_off.len() - 1], [])
        .with_trick("/no-cbor", [0, 0, 0, 2, 0, 0, 0, 0, 0xff, 0xff], [])
        .with_trick("/silent", [], [])
        .with_trick("/socket", reply(Opened { attributes: socket, end: true }, &[]), [])
        .with_file("/etc/app", "fine");
    let sidecar = Sidecar::start("pod-1", world);
    let proxy = Proxy::start(sidecar.status());
    let mut layer = proxy.layer();
    for (path, errno) in [
        ("/another-type", libc::EIO),
        ("/too-long", libc::EIO),
        ("/cut-off", libc::EIO),
        ("/no-cbor", libc::EIO),
        ("/silent", libc::EIO),
        ("/socket", libc::EACCES),
    ] {
        assert_eq!(layer.open(path, false).map(drop), Err(Some(errno)), "{path}");
        assert_eq!(std::io::read_to_string(layer.open("/etc/app", false).unwrap().1).unwrap(), "fine");
    }
}

#[test]
fn a_size_that_is_a_lie_changes_nothing_about_what_is_read() {
    let lie = |size| Attributes {
        mode: MODE,
        size,
        mtime: reply::Time(i64::MAX, u32::MAX),
        ..Attributes::default()
    };
    let world = World::default()
        .with_trick("/small", reply(Opened { attributes: lie(1), end: true }, b"more than one"), [])
        .with_trick("/large", reply(Opened { attributes: lie(1_000_000), end: true }, b"less"), []);
    let sidecar = Sidecar::start("pod-1", world);
    let proxy = Proxy::start(sidecar.status());
    let mut layer = proxy.layer();
    for (path, content) in [("/small", "more than one"), ("/large", "less")] {
        assert_eq!(std::io::read_to_string(layer.open(path, false).unwrap().1).unwrap(), content);
    }
}

#[test]
fn links_lead_to_what_could_be_a_path_and_names_to_a_bounded_number_of_addresses() {
    let link = |target: &[u8]| reply(Link { target: target.to_vec() }, &[]);
    let crowd = (0..10_000_u32).map(|number| std::net::Ipv4Addr::from(number).into()).collect();
    let world = World::default()
        .with_trick("/empty", link(b""), [])
        .with_trick("/nul", link(b"/etc/\0passwd"), [])
        .with_trick("/long", link(&[b'a'; 5000]), [])
        .with_trick("/fine", link(b"../there"), [])
        .with_trick("crowd.shop", reply(Resolved { addresses: crowd, canonical: None }, &[]), []);
    let sidecar = Sidecar::start("pod-1", world);
    let proxy = Proxy::start(sidecar.status());
    let mut layer = proxy.layer();
    for path in ["/empty", "/nul", "/long"] {
        match layer.ask::<Link>(&Ask::ReadLink(ReadLink { path: remote(path) })).0 {
            Answer::Failed(failure) => {
                assert_eq!(failure.errno, Some(libc::EIO));
                assert!(failure.message.contains("no path"), "{failure}");
            }
            other => panic!("{path}: {other:?}"),
        }
    }
    let fine: Link = layer.ok(&Ask::ReadLink(ReadLink { path: remote("/fine") }));
    assert_eq!(fine.target, b"../there");
    let resolve =
        Resolve { name: "crowd.shop".into(), family: Family::Any, canonical: false, configured: false };
    assert_eq!(layer.ok::<Resolved>(&Ask::Resolve(resolve)).addresses.len(), ADDRESSES);
}

#[test]
fn endless_folders_and_files_end_with_an_error_and_cost_the_proxy_little_memory() {
    /// The stream's window, a frame or two, and what the allocator keeps.
    const MOST: u64 = 48 << 20;
    let long = [b'n'; listing::NAME_BYTES];
    let page = names(vec![&long[..]; LISTING_ENTRIES], true);
    let small = Attributes { mode: MODE, size: 10, ..Attributes::default() };
    let opened = reply(Opened { attributes: small, end: false }, &[1; FIRST_BYTES]);
    let data = reply(Data { end: false }, &vec![1; READ_BYTES as usize]);
    let world =
        World::default().with_trick("/folder", &page[..], &page[..]).with_trick("/file", opened, data);
    let stage = Stage::with(world);
    assert!(stage.exec(&["true"]).status().unwrap().success());
    let pid = stage.sessions()["local"][0]["pid"].as_u64().unwrap();
    let folder = stage.folder.path().join("mirrord");
    let mut layer = Layer::at(&with_ending(&folder, &format!("-{pid}.layer"))).patient();
    let uses = || Usage::of(u32::try_from(pid).unwrap()).unwrap();
    let before = uses().resident * 1024;
    assert_eq!(layer.open("/folder", true).map(drop), Err(Some(libc::EOVERFLOW)));
    assert_eq!(layer.open("/file", false).map(drop), Err(Some(libc::EFBIG)));
    let most = uses().peak * 1024;
    assert!(most < before + MOST, "{before} bytes before, {most} at most");
}

fn with_ending(folder: &Path, ending: &str) -> PathBuf {
    let paths = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    paths.into_iter().find(|path| path.to_string_lossy().ends_with(ending)).unwrap()
}

#[test]
fn what_a_sidecar_says_cannot_steer_the_terminal() {
    let reason = "gone\u{1b}]0;owned\u{7}\rmirrord: all is well\u{202e}".to_owned();
    let stage = Stage::with(World { refuse: Some(CloseCode::Deleted), reason, ..World::default() });
    let (code, _, err) = text(&stage.exec(&["true"]).env("CLICOLOR_FORCE", "1").output().unwrap());
    assert_eq!(code, 75);
    assert!(err.contains("\u{1b}[1m"), "colours are on, or nothing is shown by this: {err:?}");
    assert!(err.contains(r"gone\u{1b}]0;owned\u{7}\rmirrord: all is well\u{202e}"), "{err:?}");
    assert!(!err.contains("\u{1b}]"), "{err:?}");
}

#[test]
fn a_variable_that_no_kernel_takes_is_left_out_and_an_environment_that_none_takes_is_told() {
    let environment = [b"BIG=", &[b'x'; 200_000][..], b"\0SMALL=1"].concat();
    let stage = Stage::with(World { environment, ..World::default() });
    let (code, out, err) = text(&stage.exec(&["sh", "-c", "echo $SMALL"]).output().unwrap());
    assert_eq!((code, out.as_str()), (0, "1\n"), "{err}");
    assert!(err.contains("warning: BIG is left out: it is longer than the kernel takes"), "{err}");

    let many =
        (0..25).flat_map(|number| [format!("V{number}=").as_bytes(), &[b'x'; 100_000], b"\0"].concat());
    let stage = Stage::with(World { environment: many.collect(), ..World::default() });
    let (code, _, err) = text(&stage.exec(&["true"]).output().unwrap());
    assert_eq!(code, 126, "{err}");
    assert!(err.contains("can't be executed: Argument list too long"), "{err}");
    assert!(err.contains("help: leave variables out by \"feature.env.exclude\""), "{err}");
}

#[test]
fn no_credential_is_written_down_or_passed_on() {
    let stage = Stage::with(World::default());
    let token = "b3ar3r-0f-g00d-n3w5";
    let kubeconfig = stage.api.kubeconfig().replace("token: t}", &format!("token: {token}}}"));
    assert!(kubeconfig.contains(token));
    fs::write(stage.folder.path().join("kubeconfig"), kubeconfig).unwrap();
    // Its own process's environment, its parent's arguments, and what it sees open.
    let script = "env; cat /proc/$$/cmdline; ls -l /proc/$$/fd";
    let (code, out, err) =
        text(&stage.exec(&["sh", "-c", script]).env("MIRRORD_LOG", "trace").output().unwrap());
    assert_eq!(code, 0, "{err}");
    let pid = stage.sessions()["local"][0]["pid"].as_u64().unwrap();
    let folder = stage.folder.path().join("mirrord");
    let proc =
        |name: &str| String::from_utf8_lossy(&fs::read(format!("/proc/{pid}/{name}")).unwrap()).into_owned();
    let mut places = vec![("the program".into(), out), ("messages".into(), err)];
    places.extend(["cmdline", "environ"].map(|name| (name.into(), proc(name))));
    for entry in fs::read_dir(&folder).unwrap() {
        let entry = entry.unwrap();
        assert_eq!(entry.metadata().unwrap().permissions().mode() & 0o077, 0, "{:?}", entry.path());
        if entry.file_type().unwrap().is_file() {
            let content = String::from_utf8_lossy(&fs::read(entry.path()).unwrap()).into_owned();
            places.push((entry.path().display().to_string(), content));
        }
    }
    assert_eq!(fs::metadata(&folder).unwrap().permissions().mode() & 0o777, 0o700);
    let log = places.iter().find(|(place, _)| place.ends_with(".log")).unwrap();
    assert!(log.1.contains("TRACE"), "all that can be logged was");
    // The gate token of the sidecar's status, in base64.
    for secret in [token, &stage.sidecar.status().pods[0].gate_token, "PRIVATE KEY"] {
        for (place, content) in &places {
            assert!(!content.contains(secret), "{secret} is in {place}");
        }
    }
}

/// How a pod could have programs run its code: a variable, and a command that falls for it. `TRAP` stands for a shell
/// command that leaves a file behind, `EVIL` for a folder with files that do so.
const TRAPS: &[(&str, &str, &[&str])] = &[
    ("bash", "BASH_ENV=EVIL/run.sh", &["-c", "true"]),
    ("bash", "BASH_FUNC_true%%=() { TRAP; }", &["-c", "true"]),
    ("bash", "PROMPT_COMMAND=TRAP", &["--norc", "-i"]),
    ("dash", "ENV=EVIL/run.sh", &["-i"]),
    ("python3", "PYTHONPATH=EVIL", &["-c", "pass"]),
    ("python3", "PYTHONSTARTUP=EVIL/sitecustomize.py", &["-i"]),
    ("perl", "PERL5LIB=EVIL\0PERL5OPT=-MEvil", &["-e", "1"]),
    ("git", "GIT_CONFIG_COUNT=1\0GIT_CONFIG_KEY_0=alias.trap\0GIT_CONFIG_VALUE_0=!TRAP", &["trap"]),
    ("git", "GIT_SSH_COMMAND=TRAP; false", &["ls-remote", "ssh://127.0.0.1:1/x"]),
    ("make", "MAKEFILES=EVIL/evil.mk", &["-f", "/dev/null"]),
    ("curl", "CURL_HOME=EVIL", &["-s", "file:///etc/hostname"]),
    ("node", "NODE_OPTIONS=--require=EVIL/evil.js", &["-e", "0"]),
    ("ruby", "RUBYOPT=-revil\0RUBYLIB=EVIL", &["-e", "0"]),
    ("java", "JAVA_TOOL_OPTIONS=-Xlog:gc:file=SPRUNG", &["-version"]),
];

#[test]
fn a_pods_variables_run_nothing_here_though_programs_would_fall_for_them() {
    let folder = tempfile::tempdir().unwrap();
    let (evil, sprung) = (folder.path().join("evil"), folder.path().join("sprung"));
    let trap = format!("touch {}", sprung.display());
    fs::create_dir(&evil).unwrap();
    for (name, content) in [
        ("run.sh", trap.clone()),
        ("sitecustomize.py", format!("import os; os.system('{trap}')")),
        ("Evil.pm", format!("package Evil; system('{trap}'); 1;")),
        ("evil.mk", format!("X := $(shell {trap})")),
        (".curlrc", format!("output = {}", sprung.display())),
        ("evil.js", format!("require('child_process').execSync('{trap}')")),
        ("evil.rb", format!("system('{trap}')")),
    ] {
        fs::write(evil.join(name), content).unwrap();
    }
    let mut sprang = BTreeSet::new();
    let installed = |program: &str| Path::new("/usr/bin").join(program).exists();
    for (program, variables, arguments) in TRAPS.iter().filter(|(program, ..)| installed(program)) {
        let variables = variables
            .replace("EVIL", evil.to_str().unwrap())
            .replace("TRAP", &trap)
            .replace("SPRUNG", sprung.to_str().unwrap());
        let quiet = |command: &mut Command| {
            command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status().unwrap();
            fs::remove_file(&sprung).is_ok()
        };
        let mut alone = Command::new(program);
        alone.args(*arguments).env_clear().env("PATH", "/usr/bin:/bin").current_dir(folder.path());
        alone.envs(variables.split('\0').map(|variable| variable.split_once('=').unwrap()));
        assert!(quiet(&mut alone), "{program} falls for {variables:?} no more: another trap is needed");
        let stage = Stage::with(World { environment: variables.clone().into(), ..World::default() });
        let command = [&[*program][..], arguments].concat();
        assert!(!quiet(&mut stage.exec(&command)), "{program} {arguments:?} fell for {variables:?}");
        sprang.insert(*program);
    }
    assert!(sprang.is_superset(&BTreeSet::from(["bash", "git", "perl", "python3"])), "{sprang:?}");
}
