//! What the API server takes for the creation of a pod, over plain HTTP as a controller would ask.

use crate::{cluster::cluster, run::Run};

/// Dry runs in each namespace, one after the other, on one kept-alive connection.
const SCRIPT: &str = r#"
import base64, http.client, json, os, ssl, statistics, sys, tempfile, time, urllib.parse
config = json.load(sys.stdin)
user, cluster = config["users"][0]["user"], config["clusters"][0]["cluster"]
server = urllib.parse.urlparse(cluster["server"])
context = ssl.create_default_context(cadata=base64.b64decode(cluster["certificate-authority-data"]).decode())
with tempfile.NamedTemporaryFile() as chain:
    chain.write(base64.b64decode(user["client-certificate-data"]) + b"\n" + base64.b64decode(user["client-key-data"]))
    chain.flush()
    context.load_cert_chain(chain.name)
connection = http.client.HTTPSConnection(server.hostname, server.port, context=context)
pod = json.dumps({
    "apiVersion": "v1", "kind": "Pod", "metadata": {"generateName": "app-"},
    "spec": {
        "securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
        "containers": [{
            "name": "app", "image": "app:1", "env": [{"name": "A", "value": "1"}],
            "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
        }],
    },
})
def create(namespace):
    began = time.perf_counter()
    connection.request("POST", f"/api/v1/namespaces/{namespace}/pods?dryRun=All", pod, {"Content-Type": "application/json"})
    answer = connection.getresponse()
    made = json.loads(answer.read())
    took = (time.perf_counter() - began) * 1e3
    assert answer.status == 201, made
    return took, "initContainers" in made["spec"]
took = {namespace: [] for namespace in sys.argv[1:]}
for round in range(220):
    for index, namespace in enumerate(sys.argv[1:]):
        time_taken, injected = create(namespace)
        assert injected == (index == 0), namespace
        if round >= 20:
            took[namespace].append(time_taken)
print(json.dumps([statistics.median(times) for times in took.values()]))
"#;

/// The middle of 200 each, in milliseconds: of a namespace that is opted in, and of one that isn't.
#[must_use]
pub fn p50(namespaces: [&str; 2]) -> [f64; 2] {
    let config = cluster().run(&["config", "view", "--raw", "--flatten", "--output", "json"]);
    let mut python = std::process::Command::new("python3");
    python.args(["-c", SCRIPT]).args(namespaces);
    let answer = Run::with_input(&mut python, &config.stdout).succeeded();
    serde_json::from_slice(&answer.stdout).expect("the script prints two numbers")
}
