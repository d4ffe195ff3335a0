//! The webhook's own goldens, before injection, sent to a real API server: each is admitted or refused as it would be
//! without us, and each that the node can run starts, lends its environment and files, and ends where it has to.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Mutex, PoisonError},
    thread,
    time::Duration,
};

use mirrord_e2e::{
    cluster::cluster,
    developer::Developer,
    goldens::{END, Golden, VALUE, goldens},
    namespace::{Namespace, USUAL},
    run::{Run, until},
    scene::injection_status,
};
use serde_json::{Value, json};

/// Sessions at a time: the machine is small.
const AT_ONCE: usize = 3;
/// Stands between variables and files.
const MARK: &str = "==files==";
/// What every session of an image without a shell must show.
const GREETING: &str = "hello from an image without a shell\n";

/// What the API server makes of a pod.
#[derive(Debug)]
enum Verdict {
    Admitted(Box<Value>),
    Refused(String),
}

fn by_home(goldens: impl Iterator<Item = Golden>) -> Vec<Vec<Golden>> {
    let mut homes: BTreeMap<String, Vec<Golden>> = BTreeMap::new();
    goldens.for_each(|golden| homes.entry(golden.home()).or_default().push(golden));
    homes.into_values().collect()
}

/// One thread for each; panics of all are told.
fn for_each_home(homes: &[Vec<Golden>], check: impl Fn(&[Golden]) + Sync) {
    let check = &check;
    let failed = thread::scope(|scope| {
        let threads: Vec<_> = homes.iter().map(|home| (home, scope.spawn(move || check(home)))).collect();
        let failed =
            threads.into_iter().filter_map(|(home, thread)| thread.join().is_err().then_some(&home[0].kind));
        failed.cloned().collect::<Vec<_>>()
    });
    assert!(failed.is_empty(), "in the namespaces of {failed:?}");
}

#[test]
fn every_kind_of_pod_is_admitted_or_refused_as_it_would_be_without_us() {
    let all = goldens();
    assert!(all.len() >= 30, "the goldens are where they were");
    let homes = by_home(all.iter().cloned());
    assert!(homes.len() >= 7, "levels of Pod Security, LimitRanges, a quota, a namespace without our label");
    for_each_home(&homes, |home| {
        let namespace = home[0].namespace("verdict");
        // The webhook and the API server learn of a LimitRange a moment later.
        until(Duration::from_secs(10), "the namespace's bounds to count", || {
            let first = verdicts(&home[..1], namespace.name(), |_| ());
            as_the_golden_says(&home[0], &first[&home[0].kind]).then_some(())
        });
        let with = verdicts(&all, namespace.name(), |_| ());
        let without = verdicts(&all, namespace.name(), |pod| {
            pod["metadata"]["labels"]["mirrord.dev/inject"] = "disabled".into();
        });
        for golden in &all {
            let (with, without) = (&with[&golden.kind], &without[&golden.kind]);
            assert_eq!(reason(with), reason(without), "{} in {}", golden.kind, namespace.name());
        }
        for golden in home {
            let verdict = &with[&golden.kind];
            assert!(as_the_golden_says(golden, verdict), "{}: {verdict:?}", golden.kind);
        }
    });
}

fn as_the_golden_says(golden: &Golden, verdict: &Verdict) -> bool {
    // What was injected before brings its annotation along.
    let injected = golden.is_injected() || golden.about["outcome"] == "already_injected";
    matches!(verdict, Verdict::Admitted(pod) if is_injected(pod) == injected)
}

fn is_injected(pod: &Value) -> bool {
    pod.pointer("/metadata/annotations/mirrord.dev~1status").is_some()
}

/// By kind; nothing is stored.
fn verdicts(goldens: &[Golden], namespace: &str, edit: impl Fn(&mut Value)) -> BTreeMap<String, Verdict> {
    let pods = goldens.iter().map(|golden| {
        let mut pod = golden.at_home(namespace);
        edit(&mut pod);
        pod
    });
    let list = json!({"apiVersion": "v1", "kind": "List", "items": pods.collect::<Vec<_>>()});
    let mut create =
        cluster().kubectl(&["create", "--dry-run=server", "--output", "json", "--filename", "-"]);
    let answer = Run::with_input(&mut create, list.to_string().as_bytes());
    let mut verdicts = BTreeMap::new();
    for pod in serde_json::Deserializer::from_slice(&answer.stdout).into_iter::<Value>() {
        let pod = pod.unwrap_or_else(|error| panic!("{error}: {}", answer.story()));
        let kind = pod["metadata"]["name"].as_str().unwrap().to_owned();
        verdicts.insert(kind, Verdict::Admitted(Box::new(pod)));
    }
    for golden in goldens.iter().filter(|golden| !verdicts.contains_key(&golden.kind)).collect::<Vec<_>>() {
        let name = format!("\"{}\"", golden.kind);
        let line = answer.stderr.lines().find(|line| line.contains(&name) && !line.starts_with("Warning"));
        let line = line.unwrap_or_else(|| panic!("nothing of {name}: {}", answer.story()));
        verdicts.insert(golden.kind.clone(), Verdict::Refused(line.to_owned()));
    }
    verdicts
}

/// Why, without the names of containers, which are listed in parentheses or after `for:`.
fn reason(verdict: &Verdict) -> Option<BTreeSet<String>> {
    let Verdict::Refused(line) = verdict else { return None };
    let mut depth = 0_u32;
    let mut outside = String::new();
    for letter in line.chars() {
        match letter {
            '(' => depth += 1,
            ')' => depth = depth.saturating_sub(1),
            _ if depth == 0 => outside.push(letter),
            _ => {}
        }
    }
    // A LimitRange's complaints, in brackets, come in the order of a map of the API server's.
    let parts = outside.split([';', '[', ']']).map(|part| part.split(" for: ").next().unwrap_or_default());
    Some(parts.flat_map(|part| part.split(", ")).map(|part| part.trim().to_owned()).collect())
}

#[test]
fn every_kind_that_the_node_can_run_starts_lends_what_it_has_and_ends_where_it_has_to() {
    let homes = by_home(goldens().into_iter().filter(Golden::starts));
    for_each_home(&homes, |home| {
        let namespace = home[0].namespace("golden");
        namespace.allow_all(&USUAL);
        let makers: Vec<Value> = home
            .iter()
            .map(|golden| {
                golden.prepare(namespace.name());
                golden.maker(namespace.name())
            })
            .collect();
        cluster().apply(&json!({"apiVersion": "v1", "kind": "List", "items": makers}));
        for golden in home.iter().filter(|golden| golden.target("").starts_with("cronjob/")) {
            let from = format!("--from=cronjob/{}", golden.kind);
            cluster().run(&["create", "job", &golden.kind, &from, "--namespace", namespace.name()]);
        }
        let pods = ready(home, &namespace);
        work_through(home.iter().zip(&pods).collect(), |(golden, pod)| look_into(golden, pod, &namespace));
    });
}

/// The pods in the order of their goldens, once all of them are ready.
fn ready(home: &[Golden], namespace: &Namespace) -> Vec<Value> {
    let list = || {
        let mut pods: BTreeMap<String, Value> = BTreeMap::new();
        for pod in namespace.pods() {
            pods.insert(pod["metadata"]["labels"]["golden"].as_str().unwrap().to_owned(), pod);
        }
        home.iter().map(|golden| pods.remove(&golden.kind)).collect::<Option<Vec<_>>>()
    };
    until(Duration::from_secs(20), "every controller to make its pod", list);
    let wait =
        ["wait", "--for=condition=Ready", "pods", "--all", "--namespace", namespace.name(), "--timeout=55s"];
    let mut waited = Run::of(&mut cluster().kubectl(&wait));
    if !waited.status.success() {
        // All kinds at once are much for a small machine that also runs the other tests.
        waited = Run::of(&mut cluster().kubectl(&wait));
    }
    if !waited.status.success() {
        let pods = cluster().run(&["describe", "pods", "--namespace", namespace.name()]);
        panic!("{}\n{}", waited.story(), pods.text());
    }
    list().expect("they are still there")
}

/// Some at a time.
fn work_through<T: Send>(work: Vec<T>, each: impl Fn(T) + Sync) {
    let work = Mutex::new(work);
    let (work, each) = (&work, &each);
    thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(move || {
                loop {
                    let Some(next) = work.lock().unwrap_or_else(PoisonError::into_inner).pop() else { break };
                    each(next);
                }
            });
        }
    });
}

fn look_into(golden: &Golden, pod: &Value, namespace: &Namespace) {
    assert_eq!(is_injected(pod), golden.is_injected(), "{}: {pod:#}", golden.kind);
    let files = files(golden);
    let script = format!("env; echo {MARK}; exec cat {files}");
    if golden.is_injected() {
        let target = golden.target(namespace.name());
        let here = Developer::new(namespace.name()).exec(&target, ["sh", "-c", &script]).succeeded();
        let there =
            if golden.has_shell() { inside(pod, &script, namespace) } else { as_specified(golden, pod) };
        same(golden, &here, &there);
        says_whose_view_it_is(golden, &here);
    }
    if golden.ends() {
        let _ = inside(pod, &format!("touch {END}"), namespace);
        let job = format!("job/{}", golden.kind);
        let wait =
            ["wait", "--for=condition=complete", &job, "--namespace", namespace.name(), "--timeout=55s"];
        let _ = Run::of(&mut cluster().kubectl(&wait)).succeeded();
    }
}

fn files(golden: &Golden) -> String {
    let named = golden.about["reads"].as_array().into_iter().flatten().filter_map(Value::as_str);
    let always = if golden.has_shell() { "/etc/hosts" } else { "/srv/greeting" };
    [always].into_iter().chain(named).collect::<Vec<_>>().join(" ")
}

/// What an admin sees in the container that sessions are about.
fn inside(pod: &Value, script: &str, namespace: &Namespace) -> String {
    let status = injection_status(pod);
    let container = status["containers"][0]["name"].as_str().unwrap();
    let name = pod["metadata"]["name"].as_str().unwrap();
    cluster()
        .run(&[
            "exec",
            "--namespace",
            namespace.name(),
            name,
            "--container",
            container,
            "--",
            "sh",
            "-c",
            script,
        ])
        .text()
}

/// The same of a container without a shell: from its specification and its image.
fn as_specified(golden: &Golden, pod: &Value) -> String {
    let variables = pod["spec"]["containers"][0]["env"].as_array().into_iter().flatten();
    let variables =
        variables.map(|it| format!("{}={}\n", it["name"].as_str().unwrap(), it["value"].as_str().unwrap()));
    let mounted = VALUE.repeat(golden.about["reads"].as_array().map_or(0, Vec::len));
    format!("IMAGE_SAYS=no shell\n{}{MARK}\n{GREETING}{mounted}", variables.collect::<String>())
}

fn same(golden: &Golden, here: &Run, there: &str) {
    let text = here.text();
    let (ours, our_files) =
        text.split_once(&format!("{MARK}\n")).unwrap_or_else(|| panic!("{}", here.story()));
    let (theirs, their_files) = there.split_once(&format!("{MARK}\n")).unwrap();
    assert!(
        !their_files.is_empty() && our_files == their_files,
        "{}: {} not\n{there}",
        golden.kind,
        here.story()
    );
    let ours: Vec<&str> = ours.lines().collect();
    // What describes the machine, and what shells make themselves.
    let apart = ["PATH", "HOME", "HOSTNAME", "PWD", "OLDPWD", "SHLVL", "_"];
    let variables: Vec<&str> =
        theirs.lines().filter(|line| !apart.contains(&line.split('=').next().unwrap_or_default())).collect();
    assert!(!variables.is_empty(), "{}: {there}", golden.kind);
    for variable in variables {
        assert!(ours.contains(&variable), "{}: no {variable} in {}", golden.kind, here.story());
    }
}

/// The support matrix (`charts/mirrord/SUPPORT.md`), kind by kind.
fn says_whose_view_it_is(golden: &Golden, here: &Run) {
    let word = match golden.about["view"].as_str() {
        Some("live") => None,
        Some("isolated") => Some("mirrord.dev/process-namespace: shared"),
        Some("capabilities") => Some("securityContext.capabilities.drop: [ALL]"),
        other => panic!("{}: {other:?} is no view", golden.kind),
    };
    let said = here.stderr.contains("environment and files are those that the container starts with");
    assert_eq!(said, word.is_some(), "{}: {}", golden.kind, here.story());
    assert!(word.is_none_or(|word| here.stderr.contains(word)), "{}: {}", golden.kind, here.story());
}
