//! `make demo`: a developer without any right on pods works in the context of the shop's `checkout`.
#![forbid(unsafe_code)]

use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader},
    os::unix::process::ExitStatusExt,
    process::{Command, ExitCode, Stdio},
};

use mirrord_e2e::{
    cluster::{checkout, cluster},
    developer::Developer,
    run::{Run, line},
    shop::{CHECKOUT, NAMESPACE, Shop, shop},
    story::Story,
};
use serde_json::Value;

/// What the developer must not be able to do, and needn't.
const FORBIDDEN: [(&str, &str); 5] = [
    ("create", "pods"),
    ("create", "pods/exec"),
    ("create", "pods/portforward"),
    ("patch", "pods/ephemeralcontainers"),
    ("get", "secrets"),
];

const QUERY: [&str; 4] = ["psql", "-At", "-c", "select count(*) from orders"];

fn main() -> ExitCode {
    let mut story = Story::default();
    let (shop, developer) = (shop(), Developer::new(NAMESPACE).with_lingering_proxies());
    println!("\nOn this machine, as the user `developer` of the cluster, who may …");
    for (verb, resource) in FORBIDDEN {
        let may = developer.may(verb, resource);
        println!("  {verb} {resource}: {}", if may { "yes" } else { "no" });
        assert!(!may, "the demo would prove nothing: the developer may {verb} {resource}");
    }
    let (before, sessions_before) = (shop.snapshot(), shop.sessions());

    environment(&mut story, shop, &developer);
    files(&mut story, shop, &developer);
    network(&mut story, shop, &developer);
    process(&mut story, &developer);

    story.chapter("Nothing moved in the cluster");
    let differences = before.differences(&shop.snapshot());
    differences.iter().for_each(|line| story.tell(line));
    story.expect(
        "pods, Deployments, Services and all the rest of the shop are byte for byte as before",
        differences.is_empty(),
    );
    let name = |session: &Value| session["metadata"]["name"].clone();
    let known: Vec<Value> = sessions_before.iter().map(name).collect();
    let new: Vec<Value> =
        shop.sessions().into_iter().filter(|session| !known.contains(&name(session))).collect();
    for session in &new {
        let text = |at: &str| session.pointer(at).and_then(Value::as_str).unwrap_or_default().to_owned();
        let (name, user, target) =
            (text("/metadata/name"), text("/status/creator/username"), text("/spec/target"));
        story.tell(&format!("session {name} of {user} on {target}"));
    }
    story.expect("all that is new is a Session, which lingers for the next `exec`", !new.is_empty());
    let code = story.end();
    println!("\nNow you:\n");
    println!("  export PATH={0}/target/dist:{0}/target/cluster/bin:$PATH", checkout().display());
    println!("  export KUBECONFIG={}", cluster().developer_kubeconfig().display());
    println!("  mirrord ls -n {NAMESPACE}");
    println!("  mirrord exec -t {CHECKOUT} -n {NAMESPACE} -- bash");
    code
}

fn environment(story: &mut Story, shop: &Shop, developer: &Developer) {
    story.chapter("The environment is the pod's");
    let here = developer.exec(CHECKOUT, ["env"]);
    story.show(&here, |line| {
        line.starts_with("PG") || line.starts_with("CHECKOUT") || line.starts_with("INVENTORY")
    });
    let there = variables(&shop.inside(&["env"]));
    let here = variables(&here);
    let same = |names: &[&str]| {
        names.iter().all(|name| there.contains_key(*name) && here.get(*name) == there.get(*name))
    };
    story.expect(
        "from the pod's spec, a Secret's value included",
        same(&["PGHOST", "PGUSER", "PGDATABASE", "PGPASSWORD", "INVENTORY_URL"]),
    );
    story.expect("from the image", same(&["CHECKOUT_RELEASE", "CHECKOUT_CONFIG"]));
    let home = developer.home().display().to_string();
    story.expect(
        "PATH and HOME are this machine's",
        here.get("HOME") == Some(&home) && here["PATH"] != there["PATH"],
    );
}

fn files(story: &mut Story, shop: &Shop, developer: &Developer) {
    story.chapter("Files are the pod's");
    for path in ["/etc/checkout/config.yaml", "/etc/resolv.conf"] {
        let here = developer.exec(CHECKOUT, ["cat", path]);
        story.show_all(&here);
        let same = here.status.success() && here.stdout == shop.inside(&["cat", path]).stdout;
        story.expect(&format!("{path} as in the pod"), same);
    }
    let read = "print(open('/etc/checkout/config.yaml').read(), end='')";
    let here = developer.exec(CHECKOUT, ["python3", "-c", read]);
    story.show_all(&here);
    story.expect(
        "the same in Python",
        here.stdout == shop.inside(&["cat", "/etc/checkout/config.yaml"]).stdout,
    );

    let key = ["cat", "/etc/payment/api-key"];
    let denied = developer.exec(CHECKOUT, key);
    story.show_all(&denied);
    story.expect(
        "a mounted Secret takes a right of its own …",
        !denied.status.success() && denied.stdout.is_empty(),
    );
    let granted = shop.grant_secrets();
    // The tunnel that lingers was granted before: a developer would end it by `mirrord session stop`.
    let allowed = Developer::new(NAMESPACE).exec(CHECKOUT, key);
    story.show_all(&allowed);
    story.expect(
        "… the verb `secrets`, granted just now",
        allowed.status.success() && allowed.stdout == shop.inside(&key).stdout,
    );
    drop(granted);
}

fn network(story: &mut Story, shop: &Shop, developer: &Developer) {
    story.chapter("Connections and names are the pod's");
    let mut alone = developer.command("psql");
    alone.args(["-h", "orders-db", "-U", "shop", "-w"]).args(&QUERY[1..]);
    let alone = Run::of(&mut alone);
    story.show_all(&alone);
    story.expect("without mirrord the name means nothing here", !alone.status.success());
    for command in [&QUERY[..], &["curl", "-sS", "http://inventory/"]] {
        let here = developer.exec(CHECKOUT, command);
        story.show_all(&here);
        story.expect(
            &format!("{} answers as in the pod", command[0]),
            here.status.success() && here.stdout == shop.inside(command).stdout,
        );
    }
    let program = ["python3", "checkout.py", "--once"];
    let mut command = developer.exec_command(CHECKOUT, program);
    let here = Run::of(command.current_dir(checkout().join("e2e/shop/checkout")));
    story.show_all(&here);
    let there = shop.inside(&program);
    story.expect(
        "the shop's own program, run from its source, prints what it prints in the pod",
        here.status.success() && here.stdout == there.stdout,
    );
}

fn process(story: &mut Story, developer: &Developer) {
    story.chapter("The process is the command itself");
    let failing = developer.exec(CHECKOUT, ["sh", "-c", "exit 7"]);
    story.show_all(&failing);
    story.expect("its exit code", failing.status.code() == Some(7));

    let piped = Run::with_input(&mut developer.exec_command(CHECKOUT, ["sort"]), b"tea\nmilk\n");
    story.show_all(&piped);
    story.expect("its standard input and output", piped.text() == "milk\ntea\n");

    let mut waiting = developer.exec_command(CHECKOUT, ["sh", "-c", "echo $$; exec sleep infinity"]);
    let (pid, said, signal) = terminated(&mut waiting);
    story.command(&format!("{} & echo $!; kill -TERM $!", line(&waiting)));
    println!("    {pid}\n    {said}    [signal {}]", signal.unwrap_or_default());
    story.expect("its process number", said.trim() == pid.to_string());
    story.expect("its death by a signal", signal == Some(15));

    let again = developer.exec(CHECKOUT, ["true"]);
    story.show_all(&again);
    story.expect(
        "a second `exec` finds the tunnel open",
        again.status.success() && again.took.as_millis() < 500,
    );
}

/// Starts the command, reads a line of it and ends it by SIGTERM: its number, the line, and the signal it died of.
fn terminated(command: &mut Command) -> (u32, String, Option<i32>) {
    let mut child = command.stdout(Stdio::piped()).spawn().expect("mirrord can be started");
    let mut said = String::new();
    let _ = BufReader::new(child.stdout.take().expect("just piped")).read_line(&mut said);
    let _ = Command::new("kill").args(["-TERM", &child.id().to_string()]).status();
    let status = child.wait().expect("a child can be waited for");
    (child.id(), said, status.signal())
}

fn variables(run: &Run) -> BTreeMap<String, String> {
    let pairs = run.text();
    pairs
        .lines()
        .filter_map(|line| line.split_once('='))
        .map(|(name, value)| (name.into(), value.into()))
        .collect()
}
