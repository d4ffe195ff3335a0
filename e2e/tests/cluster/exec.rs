use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader},
    os::unix::process::ExitStatusExt,
    process::{Command, Stdio},
    time::{SystemTime, UNIX_EPOCH},
};

use mirrord_e2e::{
    cluster::checkout,
    developer::Developer,
    namespace::{Namespace, USUAL},
    run::Run,
    shop::{CHECKOUT, NAMESPACE, shop},
};

fn developer() -> Developer {
    Developer::new(NAMESPACE)
}

/// Runs it here under mirrord and there in the pod: both succeed and print the same.
#[track_caller]
fn same_as_inside(command: &[&str]) {
    let here = developer().exec(CHECKOUT, command).succeeded();
    let there = shop().inside(command).succeeded();
    assert_eq!(here.text(), there.text(), "{}", here.story());
}

#[test]
fn the_developer_has_no_right_on_pods() {
    let developer = developer();
    assert!(developer.may("create", "sessions.mirrord.dev"));
    for (verb, resource) in [
        ("create", "pods"),
        ("create", "pods/exec"),
        ("create", "pods/portforward"),
        ("patch", "pods/ephemeralcontainers"),
        ("update", "pods/ephemeralcontainers"),
        ("get", "secrets"),
        ("list", "secrets"),
        ("get", "pods"),
    ] {
        assert!(!developer.may(verb, resource), "{verb} {resource}");
    }
}

#[test]
fn the_environment_is_the_pods_but_for_what_describes_this_machine() {
    let developer = developer();
    let here = variables(&developer.exec(CHECKOUT, ["env"]).succeeded());
    let there = variables(&shop().inside(&["env"]).succeeded());
    // Of the two replicas `kubectl exec` may take the other.
    let apart = ["PATH", "HOME", "HOSTNAME", "POD_NAME"];
    for (name, value) in there.iter().filter(|(name, _)| !apart.contains(&name.as_str())) {
        assert_eq!(here.get(name), Some(value), "{name}");
    }
    for name in ["PGPASSWORD", "CHECKOUT_RELEASE", "KUBERNETES_SERVICE_HOST"] {
        assert!(there.contains_key(name), "{name} is to be seen in the pod");
    }
    assert!(here["POD_NAME"].starts_with("checkout-"));
    assert_eq!(here["HOME"], developer.home().to_string_lossy());
    assert_ne!(here["PATH"], there["PATH"]);
}

#[test]
fn a_mounted_config_map_reads_as_in_the_pod() {
    same_as_inside(&["cat", "/etc/checkout/config.yaml"]);
    same_as_inside(&["python3", "-c", "print(open('/etc/checkout/config.yaml').read())"]);
    same_as_inside(&["ls", "/etc/checkout"]);
}

#[test]
fn the_resolver_configuration_is_the_pods() {
    same_as_inside(&["cat", "/etc/resolv.conf"]);
    same_as_inside(&["python3", "-c", "print(open('/etc/resolv.conf').read())"]);
}

#[test]
fn a_file_that_only_the_images_user_may_read_is_read() {
    same_as_inside(&["cat", "/var/lib/checkout/private"]);
}

#[test]
fn names_resolve_as_in_the_pod() {
    let addresses = "import socket; print(sorted({a[4][0] for a in socket.getaddrinfo('orders-db', 5432)}))";
    same_as_inside(&["python3", "-c", addresses]);
}

#[test]
fn postgres_answers_although_only_pods_reach_it() {
    let query = ["-At", "-c", "select count(*) from orders"];
    let developer = developer();
    let mut alone = developer.command("psql");
    let alone = Run::of(alone.args(["-h", "orders-db", "-U", "shop", "-w"]).args(query));
    assert!(alone.stderr.contains("could not translate host name"), "{}", alone.story());

    let here = developer.exec(CHECKOUT, [&["psql"], &query[..]].concat()).succeeded();
    assert_eq!(here.text(), "42\n");
}

#[test]
fn curl_gets_what_the_pod_gets() {
    same_as_inside(&["curl", "-sS", "http://inventory/"]);
    same_as_inside(&[
        "curl",
        "-sS",
        "-o",
        "/dev/null",
        "-w",
        "%{http_code}",
        "http://inventory/items/nothing",
    ]);
}

#[test]
fn a_refused_connection_is_refused_here_too() {
    let refused = developer().exec(CHECKOUT, ["curl", "-sS", "http://inventory:81/"]);
    assert_eq!(refused.status.code(), shop().inside(&["curl", "-sS", "http://inventory:81/"]).status.code());
}

#[test]
fn the_very_program_of_the_image_prints_what_it_prints_in_the_pod() {
    let program = ["python3", "checkout.py", "--once"];
    let developer = developer();
    let mut here = developer.exec_command(CHECKOUT, program);
    let here = Run::of(here.current_dir(checkout().join("e2e/shop/checkout"))).succeeded();
    assert_eq!(here.text(), shop().inside(&program).succeeded().text(), "{}", here.story());
}

#[test]
fn exit_code_input_and_output_are_the_commands() {
    let developer = developer();
    assert_eq!(developer.exec(CHECKOUT, ["sh", "-c", "exit 7"]).status.code(), Some(7));
    let sorted = Run::with_input(&mut developer.exec_command(CHECKOUT, ["sort"]), b"tea\nmilk\n").succeeded();
    assert_eq!(sorted.text(), "milk\ntea\n");
    // Descriptors too, but for one of mirrord's own, far above what programs count on.
    let open = ["python3", "-c", "import os; print(*os.listdir('/proc/self/fd'))"];
    let numbers = |run: &Run| -> Vec<u32> {
        run.text()
            .split_whitespace()
            .map(|number| number.parse().unwrap())
            .filter(|number| *number < 200)
            .collect()
    };
    let mut alone = developer.command(open[0]);
    let alone = Run::of(alone.args(&open[1..])).succeeded();
    assert_eq!(numbers(&developer.exec(CHECKOUT, open).succeeded()), numbers(&alone));
}

#[test]
fn the_command_has_the_pid_that_mirrord_had_and_dies_of_its_own_signals() {
    let developer = developer();
    for (signal, number) in [("-TERM", 15), ("-INT", 2), ("-PIPE", 13), ("-KILL", 9)] {
        let command = developer.exec_command(CHECKOUT, ["sh", "-c", "echo $$; exec sleep infinity"]);
        // Who ignores a signal passes that on: a shell in the background does so with SIGINT (POSIX.1 XCU 2.11).
        let mut command = with_default_signals(&developer, &command);
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut said = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut said).unwrap();
        assert_eq!(said.trim(), child.id().to_string());
        Command::new("kill").args([signal, &child.id().to_string()]).status().unwrap();
        assert_eq!(child.wait().unwrap().signal(), Some(number));
    }
}

/// The same command, behind env(1).
fn with_default_signals(developer: &Developer, command: &Command) -> Command {
    let mut env = developer.command("env");
    env.args(["--default-signal", "--"]).arg(command.get_program()).args(command.get_args());
    env
}

#[test]
fn a_second_exec_needs_no_second_session() {
    let developer = developer().with_lingering_proxies();
    let before = shop().sessions().len();
    let first = developer.exec(CHECKOUT, ["printenv", "POD_NAME"]).succeeded();
    let second = developer.exec(CHECKOUT, ["printenv", "POD_NAME"]).succeeded();
    assert_eq!(first.text(), second.text(), "the primary pod stays");
    let mine: Vec<_> = shop().sessions();
    // Other tests run beside this one; each proxy makes one session.
    assert!(mine.len() > before || first.text() == second.text());
    assert_eq!(developer.processes().len(), 1, "one proxy lingers");
}

#[test]
fn nothing_in_the_namespace_changes_while_a_session_works() {
    let namespace = Namespace::opted_in("untouched");
    namespace.allow("deployment.app", &USUAL);
    namespace.deploy("app", |_| ());
    let before = namespace.snapshot();
    let developer = Developer::new(namespace.name()).with_lingering_proxies();
    let _ = developer.exec("deployment/app", ["cat", "/etc/resolv.conf"]).succeeded();
    assert_eq!(namespace.sessions().len(), 1, "one Session while the proxy lingers");
    let _ = developer.exec("deployment/app", ["env"]).succeeded();
    assert_eq!(namespace.sessions().len(), 1, "and no second one");
    assert_eq!(before.differences(&namespace.snapshot()), [""; 0]);
}

#[test]
fn a_variable_that_the_entrypoint_exports_is_seen_and_so_is_a_file_that_it_wrote() {
    let namespace = Namespace::opted_in("live");
    namespace.allow("deployment.app", &USUAL);
    namespace.deploy("app", |deployment| {
        let script = "echo written at run time >/tmp/note; exec /srv/checkout/entrypoint.sh";
        let container = &mut deployment["spec"]["template"]["spec"]["containers"][0];
        container["command"] = serde_json::json!(["sh", "-c", script]);
    });
    let developer = Developer::new(namespace.name());
    let said = developer.exec("deployment/app", ["printenv", "CHECKOUT_STARTED_BY", "GREETING"]).succeeded();
    assert_eq!(said.text(), "entrypoint of 4321\nfrom the pod\n");
}

fn variables(run: &Run) -> BTreeMap<String, String> {
    let text = run.text();
    text.lines()
        .filter_map(|line| line.split_once('='))
        .map(|(name, value)| (name.into(), value.into()))
        .collect()
}

#[test]
fn a_laptop_whose_clock_is_minutes_off_works_as_any_other() {
    const CLOCK: &str = "/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1";
    // Not Python: what it sleeps by, this false clock breaks.
    let work = "cat /etc/checkout/config.yaml && exec curl -sS http://inventory/";
    let there = shop().inside(&["sh", "-c", work]).succeeded();
    for offset in [300, -300] {
        let developer = Developer::new(NAMESPACE);
        let mut exec = developer.exec_command(CHECKOUT, ["sh", "-c", &format!("date +%s && {work}")]);
        exec.env("LD_PRELOAD", CLOCK).env("FAKETIME", format!("{offset:+}s")).env("DONT_FAKE_MONOTONIC", "1");
        let here = Run::of(&mut exec).succeeded();
        let text = here.text();
        let (moment, text) = text.split_once('\n').expect("several lines");
        let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs().cast_signed();
        let off = moment.parse::<i64>().expect("a moment") - now;
        assert!((off - offset).abs() < 60, "its clock is off by {off} s: {}", here.story());
        assert_eq!(text, there.text(), "{}", here.story());
    }
}
