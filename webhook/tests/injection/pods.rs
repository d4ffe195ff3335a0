//! Pods of all kinds, for properties: with every feature that injection looks at, copies or steps around, also together
//! where nobody would write them together. Strategies are boxed: nested, they are too large for a test's stack.

use mirrord_webhook::injection::LimitRangeItem;
use proptest::{collection::vec, option, prelude::*, sample::select};
use serde_json::{Map, Value, json};

/// Any JSON, with the keys of pods among its own.
pub(crate) fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        select(vec!["", "app", "mirrord", "1", "100m", "Always", "\u{e9}\"\\", "/.mirrord"])
            .prop_map(Value::from),
    ];
    let key = select(vec![
        "name",
        "metadata",
        "spec",
        "containers",
        "annotations",
        "mirrord.dev/status",
        "resources",
        "limits",
        "cpu",
        "env",
        "volumeMounts",
        "mountPath",
        "valueFrom",
        "resourceFieldRef",
        "command",
    ]);
    leaf.prop_recursive(4, 32, 4, move |inner| {
        prop_oneof![
            vec(inner.clone(), 0..4).prop_map(Value::from),
            vec((key.clone(), inner), 0..4).prop_map(|entries| {
                Value::Object(entries.into_iter().map(|(key, value)| (key.to_owned(), value)).collect())
            }),
        ]
    })
}

fn object<T: Into<Value>, const N: usize>(entries: [(&str, Option<T>); N]) -> Value {
    let entries = entries.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value?.into())));
    Value::Object(entries.collect::<Map<_, _>>())
}

/// One of these, or none.
fn maybe<T: Clone + std::fmt::Debug + 'static>(all: Vec<T>) -> impl Strategy<Value = Option<T>> {
    option::of(select(all))
}

fn resources() -> BoxedStrategy<Value> {
    let amounts = || {
        let amount = || maybe(vec!["10m", "1", "1000m", "1500m", "64Mi", "2Gi"]);
        (amount(), amount(), amount(), amount()).prop_map(|(cpu, memory, disk, device)| {
            object([
                ("cpu", cpu),
                ("memory", memory),
                ("ephemeral-storage", disk),
                ("example.com/device", device),
            ])
        })
    };
    (amounts(), amounts(), any::<bool>())
        .prop_map(|(requests, limits, equal)| {
            let requests = if equal { limits.clone() } else { requests };
            json!({"requests": requests, "limits": limits})
        })
        .boxed()
}

/// Bounds of a namespace.
pub(crate) fn limit_ranges() -> impl Strategy<Value = Vec<LimitRangeItem>> {
    let item = (
        select(vec!["Container", "Pod"]),
        maybe(vec!["5m", "100m", "1"]),
        maybe(vec!["200m", "2", "16"]),
        maybe(vec!["1", "2", "10"]),
    );
    let item = item.prop_map(|(kind, min, max, ratio)| {
        let cpu = |amount| object([("cpu", amount)]);
        let item =
            json!({"type": kind, "min": cpu(min), "max": cpu(max), "maxLimitRequestRatio": cpu(ratio)});
        serde_json::from_value(item).unwrap()
    });
    vec(item, 0..3)
}

fn environment() -> BoxedStrategy<Value> {
    let field = |path: &str| json!({"fieldRef": {"fieldPath": path}});
    let from = select(vec![
        json!({"resourceFieldRef": {"resource": "limits.cpu"}}),
        json!({"resourceFieldRef": {"resource": "limits.cpu", "containerName": ""}}),
        json!({"resourceFieldRef": {"resource": "requests.memory", "containerName": "b", "divisor": "1Mi"}}),
        field("metadata.name"),
        field("status.podIP"),
        json!({"secretKeyRef": {"name": "s", "key": "k", "optional": true}}),
        json!({"configMapKeyRef": {"name": "c", "key": "k"}}),
        json!({"fileKeyRef": {"volumeName": "data", "path": "f", "key": "newer"}}),
    ]);
    vec(from, 0..4)
        .prop_map(|sources| {
            let plain = json!({"name": "A", "value": "$(B) 1"});
            let others = sources.into_iter().map(|from| json!({"name": "B", "valueFrom": from}));
            Value::from(std::iter::once(plain).chain(others).collect::<Vec<_>>())
        })
        .boxed()
}

fn mounts() -> BoxedStrategy<Value> {
    let all = vec![
        json!({"name": "data", "mountPath": "/data", "mountPropagation": "Bidirectional", "newer": [1.0]}),
        json!({"name": "data", "mountPath": "/sub", "subPath": "a/b"}),
        json!({"name": "data", "mountPath": "/expanded", "subPathExpr": "$(A)", "readOnly": true}),
        json!({"name": "keys", "mountPath": "/keys", "readOnly": true, "recursiveReadOnly": "IfPossible"}),
        json!({"name": "claim", "mountPath": "/claim"}),
        json!({"name": "all", "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount"}),
        json!({"name": "data", "mountPath": "/.mirrord-of-theirs"}),
        json!({"name": "data", "mountPath": "/.mirrord/data"}),
    ];
    proptest::sample::subsequence(all, 0..=4).prop_map(Value::from).boxed()
}

fn identity() -> BoxedStrategy<Value> {
    (
        maybe(vec![0_u32, 1000, 64_317, 65_532]),
        maybe(vec![0_u32, 3000]),
        option::of(any::<bool>()),
        any::<bool>(),
    )
        .prop_map(|(user, group, non_root, more)| {
            let mut context =
                object([("runAsUser", user.map(Value::from)), ("runAsGroup", group.map(Value::from))]);
            context["runAsNonRoot"] = json!(non_root);
            if more {
                context["privileged"] = json!(true);
                context["readOnlyRootFilesystem"] = json!(true);
                context["seLinuxOptions"] = json!({"level": "s0:c1"});
                context["seccompProfile"] = json!({"type": "Localhost", "localhostProfile": "p.json"});
            }
            context
        })
        .boxed()
}

fn container(name: &'static str) -> BoxedStrategy<Value> {
    let from = json!([{"configMapRef": {"name": "absent", "optional": true}}, {"prefix": "P_", "secretRef": {"name": "s"}}]);
    (
        (option::of(environment()), option::of(Just(from)), option::of(mounts())),
        resources(),
        option::of(20_000_u16..20_004),
        option::of(identity()),
        maybe(vec!["/init", "sh", "server"]),
        maybe(vec!["Always", "IfNotPresent"]),
    )
        .prop_map(move |((env, env_from, mounts), resources, port, identity, command, pull)| {
            let mut container = object([
                ("env", env),
                ("envFrom", env_from),
                ("volumeMounts", mounts),
                ("ports", port.map(|port| json!([{"containerPort": port, "hostPort": port}]))),
                ("securityContext", identity),
                ("command", command.map(|command| json!([command]))),
                ("imagePullPolicy", pull.map(Value::from)),
                ("livenessProbe", port.map(|port| json!({"tcpSocket": {"port": port}}))),
                ("volumeDevices", port.map(|_| json!([{"name": "raw", "devicePath": "/dev/raw"}]))),
            ]);
            container["name"] = json!(name);
            container["image"] = json!("app:1");
            container["resources"] = resources;
            container
        })
        .boxed()
}

/// Init containers, native sidecars among them.
fn init_containers() -> BoxedStrategy<Value> {
    let native = (container("proxy"), any::<bool>()).prop_map(|(mut container, native)| {
        container["restartPolicy"] = if native { json!("Always") } else { Value::Null };
        container
    });
    (option::of(container("earlier")), option::of(native))
        .prop_map(|(earlier, native)| Value::from(earlier.into_iter().chain(native).collect::<Vec<_>>()))
        .boxed()
}

fn metadata() -> BoxedStrategy<Value> {
    let annotations = (
        maybe(vec!["a", "b,a", "c"]),
        maybe(vec!["auto", "shared", "isolated", "?"]),
        maybe(vec!["cache", "mirrord-bin", ""]),
        maybe(vec!["b", "c"]),
        maybe(vec!["{}", "{\"version\":1,\"containers\":[],\"process_namespace\":\"shared\"}"]),
    )
        .prop_map(|(containers, mode, evictable, default, status)| {
            object([
                ("mirrord.dev/containers", containers),
                ("mirrord.dev/process-namespace", mode),
                ("cluster-autoscaler.kubernetes.io/safe-to-evict-local-volumes", evictable),
                ("kubectl.kubernetes.io/default-container", default),
                ("mirrord.dev/status", status),
            ])
        });
    let kinds = vec!["ReplicaSet", "StatefulSet", "DaemonSet", "Job", "Tenant"];
    (option::of(annotations), maybe(kinds), maybe(vec!["enabled", "enabled", "disabled"]), any::<bool>())
        .prop_map(|(annotations, owner, label, named)| {
            let mut metadata = object([
                ("annotations", annotations),
                (
                    "ownerReferences",
                    owner.map(|kind| json!([{"kind": kind, "name": "o", "controller": true}])),
                ),
                ("labels", label.map(|label| json!({"mirrord.dev/inject": label, "app": "a"}))),
            ]);
            metadata[if named { "name" } else { "generateName" }] = json!("app-");
            metadata
        })
        .boxed()
}

fn volumes() -> Value {
    json!([
        {"name": "data", "emptyDir": {}},
        {"name": "keys", "secret": {"secretName": "s"}},
        {"name": "claim", "persistentVolumeClaim": {"claimName": "data-0"}},
        {"name": "all", "projected": {"sources": [{"serviceAccountToken": {"path": "token"}}, {"configMap": {"name": "c"}}]}},
    ])
}

/// Rarely: most pods shall be injected.
fn rarely() -> impl Strategy<Value = Option<bool>> {
    prop_oneof![9 => Just(None), 1 => any::<bool>().prop_map(Some)]
}

pub(crate) fn pod() -> BoxedStrategy<Value> {
    let windows = prop_oneof![9 => Just(None), 1 => select(vec!["windows", "linux"]).prop_map(Some)];
    (
        (metadata(), container("a"), container("b"), option::of(init_containers())),
        (option::of(any::<bool>()), rarely(), rarely(), windows),
        (option::of(resources()), option::of(identity()), maybe(vec!["Always", "OnFailure", "Never"])),
        option::of(Just(volumes())),
        any_json(),
    )
        .prop_map(
            |(
                (metadata, a, b, init),
                (share, network, processes, os),
                (amounts, identity, restart),
                volumes,
                newer,
            )| {
                let mut spec = object([
                    ("initContainers", init),
                    ("shareProcessNamespace", share.map(Value::from)),
                    ("hostNetwork", network.map(Value::from)),
                    ("hostPID", processes.map(Value::from)),
                    ("os", os.map(|name| json!({"name": name}))),
                    ("resources", amounts),
                    ("securityContext", identity),
                    ("restartPolicy", restart.map(Value::from)),
                    ("volumes", volumes),
                ]);
                spec["containers"] = json!([a, b]);
                spec["newerThanThisBuild"] = newer;
                json!({"kind": "Pod", "apiVersion": "v1", "metadata": metadata, "spec": spec})
            },
        )
        .boxed()
}

/// The class of a pod's quality of service (k8s.io/kubernetes/pkg/apis/core/v1/helper/qos), as far as containers say it.
/// The API server takes a limit for the request that is missing.
pub(crate) fn quality(pod: &Value) -> &'static str {
    let containers = ["initContainers", "containers"].map(|list| pod["spec"][list].as_array());
    let amounts: Vec<(Option<&str>, Option<&str>)> = containers
        .into_iter()
        .flatten()
        .flatten()
        .flat_map(|container| ["cpu", "memory"].map(|resource| (&container["resources"], resource)))
        .map(|(resources, resource)| {
            let limit = resources["limits"][resource].as_str();
            (resources["requests"][resource].as_str().or(limit), limit)
        })
        .collect();
    let equal = |(request, limit): &(Option<&str>, Option<&str>)| {
        let milli = |amount: &str| if amount == "1" { "1000m".to_owned() } else { amount.to_owned() };
        limit.is_some() && request.map(milli) == limit.map(milli)
    };
    if amounts.iter().all(|pair| *pair == (None, None)) {
        "BestEffort"
    } else if amounts.iter().all(equal) {
        "Guaranteed"
    } else {
        "Burstable"
    }
}
