//! What an admission costs: of pods, at the handler; of Sessions, at the real API server.

use std::process::Command;

use mirrord_e2e::{
    cluster::{checkout, cluster},
    creation,
    measure::{Against, Report, median},
    namespace::Namespace,
    run::Run,
    shop::{CHECKOUT, NAMESPACE},
};
use serde_json::Value;

/// `cargo bench` of the webhook: HTTP/2 over TLS, connections kept alive, one core for the server.
pub(crate) fn pods(report: &mut Report) {
    let mut cargo = Command::new("cargo");
    cargo.args(["bench", "--quiet", "--locked", "--package", "mirrord-webhook", "--bench", "admission"]);
    // Building takes longer than any command of a test may.
    let output = cargo.current_dir(checkout()).output().expect("cargo can be run");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let rows: Vec<Value> = serde_json::from_slice(&output.stdout).expect("the benchmark prints JSON");
    report.extend(&rows);
}

/// Dry runs of the shop's session by the developer, on one kept-alive connection: what a POST costs besides TLS.
pub(crate) fn sessions(report: &mut Report) {
    let script = r#"
import base64, hashlib, http.client, json, os, ssl, sys, tempfile, time
kubeconfig = json.load(sys.stdin)
cluster, user = kubeconfig["clusters"][0]["cluster"], kubeconfig["users"][0]["user"]
context = ssl.create_default_context(cadata=base64.b64decode(cluster["certificate-authority-data"]).decode())
with tempfile.NamedTemporaryFile() as pem:
    for part in ("client-certificate-data", "client-key-data"):
        pem.write(base64.b64decode(user[part]) + b"\n")
    pem.flush()
    context.load_cert_chain(pem.name)
connection = http.client.HTTPSConnection(cluster["server"].removeprefix("https://"), context=context)
times = []
for _ in range(60):
    key = bytes.fromhex("302a300506032b6570032100") + os.urandom(32)
    session = {
        "apiVersion": "mirrord.dev/v1alpha1", "kind": "Session",
        "metadata": {"name": "s-" + hashlib.sha256(key).hexdigest()[:40]},
        "spec": {"target": sys.argv[2], "features": ["env", "files", "outgoing"], "publicKey": base64.b64encode(key).decode()},
    }
    began = time.perf_counter()
    path = f"/apis/mirrord.dev/v1alpha1/namespaces/{sys.argv[1]}/sessions?dryRun=All"
    connection.request("POST", path, json.dumps(session), {"Content-Type": "application/json"})
    answer = connection.getresponse()
    text = answer.read()
    times.append((time.perf_counter() - began) * 1e3)
    assert answer.status == 201, text
print(json.dumps(times))
"#;
    let kubeconfig = cluster().developer_kubeconfig();
    let mut view = cluster().kubectl(&["config", "view", "--raw", "--output", "json", "--kubeconfig"]);
    let kubeconfig = Run::of(view.arg(kubeconfig)).succeeded();
    let mut python = Command::new("python3");
    python.args(["-c", script, NAMESPACE, CHECKOUT]);
    let answer = Run::with_input(&mut python, &kubeconfig.stdout).succeeded();
    let mut times: Vec<f64> = serde_json::from_slice(&answer.stdout).expect("the script prints numbers");
    times.drain(..10);
    report.add("session_admission_p50_ms", median(times), "ms", Against::Limit(15.0));
}

/// What the API server takes for a pod's creation, with and without us: dry runs on one kept-alive connection.
pub(crate) fn creations(report: &mut Report) {
    let (with, without) =
        (Namespace::opted_in("bench-create-with"), Namespace::plain("bench-create-without"));
    let [with, without] = creation::p50([with.name(), without.name()]);
    report.add("pod_create_injected_p50_ms", with, "ms", Against::Baseline("not injected", without));
    report.add("pod_create_added_p50_ms", with - without, "ms", Against::Nothing);
}
