//! The webhook's goldens (`webhook/tests/goldens`) as they can stand in this cluster: pods of every kind, by the controllers
//! that make such pods, from images that are here, doing nothing.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    sync::LazyLock,
    time::Duration,
};

use serde_json::{Value, json};

use crate::{
    cluster::{checkout, cluster},
    namespace::Namespace,
    run::{Run, until},
    shop,
};

/// What every key of the objects that goldens need is worth; base64 as well as text.
pub const VALUE: &str = "aGVsbG8=";
/// Where a container leaves word that it has seen enough.
pub const END: &str = "/tmp/end";

/// A kind of pod.
#[derive(Clone, Debug)]
pub struct Golden {
    /// Its name.
    pub kind: String,
    /// What one has to know of it.
    pub about: Value,
    /// The pod as the webhook gets it.
    pub pod: Value,
}

/// All of them.
#[must_use]
pub fn goldens() -> Vec<Golden> {
    let folder = checkout().join("webhook/tests/goldens");
    let read = |name: &str| -> Value {
        let text = fs::read(folder.join(name)).unwrap_or_else(|error| panic!("{name}: {error}"));
        serde_json::from_slice(&text).unwrap_or_else(|error| panic!("{name}: {error}"))
    };
    let files = fs::read_dir(&folder).expect("the goldens are where they were");
    let names: BTreeSet<String> =
        files.filter_map(|file| file.ok()?.file_name().into_string().ok()).collect();
    let kinds = names.iter().filter_map(|name| name.strip_suffix(".pod.json"));
    kinds
        .map(|kind| Golden {
            kind: kind.replace('_', "-"),
            about: read(&format!("{kind}.about.json")),
            pod: read(&format!("{kind}.pod.json")),
        })
        .collect()
}

/// An image of `e2e/images`, which `samples.sh` has put on the node.
#[must_use]
pub fn sample_image(name: &str) -> String {
    let path = checkout().join(format!("target/dist/images/pods-{name}.image"));
    fs::read_to_string(&path)
        .unwrap_or_else(|error| panic!("{}: {error}; e2e/scripts/samples.sh makes it", path.display()))
}

impl Golden {
    /// Whether it gets its sidecar.
    #[must_use]
    pub fn is_injected(&self) -> bool {
        self.about["outcome"] == "injected"
    }

    /// Whether the node can run it.
    #[must_use]
    pub fn starts(&self) -> bool {
        self.about["start"] == true
    }

    /// Whether its image has a shell.
    #[must_use]
    pub fn has_shell(&self) -> bool {
        !self.needs("image/no-shell")
    }

    /// Whether it has to end by itself.
    #[must_use]
    pub fn ends(&self) -> bool {
        matches!(self.pod["spec"]["restartPolicy"].as_str(), Some("Never" | "OnFailure"))
    }

    fn needs(&self, what: &str) -> bool {
        self.all_needs().any(|need| need == what)
    }

    fn all_needs(&self) -> impl Iterator<Item = &str> {
        self.about["needs"].as_array().into_iter().flatten().filter_map(Value::as_str)
    }

    /// What tells namespaces apart: level of Pod Security, label, LimitRange and quota.
    #[must_use]
    pub fn home(&self) -> String {
        let extras =
            ["level", "opted_in", "limit_ranges", "quota"].map(|field| self.about[field].to_string());
        extras.join(" ")
    }

    /// A namespace for this and all others of the same [`home`](Self::home).
    #[must_use]
    pub fn namespace(&self, prefix: &str) -> Namespace {
        let extra = ["limit_ranges", "quota", "opted_in"].iter().any(|field| !self.about[*field].is_null());
        let level = self.about["level"].as_str().expect("a level");
        let name = format!("{prefix}-{}", if extra { &self.kind } else { level });
        let mut labels = json!({"pod-security.kubernetes.io/enforce": level});
        if self.about["opted_in"] != "pod" {
            labels["mirrord.dev/inject"] = "enabled".into();
        }
        let namespace = Namespace::with_labels(&name, &labels);
        let about = &self.about;
        for (kind, spec) in [
            (
                "LimitRange",
                (!about["limit_ranges"].is_null()).then(|| json!({"limits": about["limit_ranges"]})),
            ),
            ("ResourceQuota", (!about["quota"].is_null()).then(|| json!({"hard": about["quota"]}))),
        ] {
            if let Some(spec) = spec {
                let metadata = json!({"name": "golden", "namespace": namespace.name()});
                cluster()
                    .apply(&json!({"apiVersion": "v1", "kind": kind, "metadata": metadata, "spec": spec}));
            }
        }
        let exists = |what: &[&str], field: &str| {
            let get = ["get", "--namespace", namespace.name(), "--output", field];
            let found = Run::of(cluster().kubectl(&get).args(what));
            (found.status.success() && !found.stdout.is_empty()).then_some(())
        };
        until(Duration::from_secs(20), "the namespace's ServiceAccount", || {
            exists(&["serviceaccount", "default"], "name")
        });
        if !about["quota"].is_null() {
            until(Duration::from_secs(20), "the quota to be counted", || {
                exists(&["resourcequota", "golden"], "jsonpath={.status.hard}")
            });
        }
        namespace
    }

    /// The pod as it may stand in this cluster, named after its kind.
    #[must_use]
    pub fn at_home(&self, namespace: &str) -> Value {
        let mut pod = self.pod.clone();
        let metadata = pod["metadata"].as_object_mut().expect("metadata");
        metadata.insert("namespace".into(), namespace.into());
        metadata.insert("name".into(), self.kind.clone().into());
        metadata.remove("generateName");
        metadata.remove("ownerReferences");
        pod["metadata"]["labels"]["golden"] = self.kind.clone().into();
        let image = self.image();
        for (list, first) in [("containers", true), ("initContainers", false)] {
            for container in pod["spec"][list].as_array_mut().into_iter().flatten() {
                let ours = container["command"][0]
                    .as_str()
                    .is_some_and(|program| program.ends_with("mirrord-agent"));
                if ours {
                    continue;
                }
                let stays = first || container["restartPolicy"] == "Always";
                container["image"] = image.clone().into();
                container["imagePullPolicy"] = "IfNotPresent".into();
                let command = match (stays, first && self.ends(), self.has_shell()) {
                    (true, true, _) => json!(["sh", "-c", format!("until [ -e {END} ]; do sleep 0.1; done")]),
                    (true, _, true) => json!(["sleep", "infinity"]),
                    (true, _, false) => Value::Null,
                    (false, ..) => json!(["true"]),
                };
                container["command"] = command;
                let container = container.as_object_mut().expect("a container");
                for field in ["args", "livenessProbe", "readinessProbe", "startupProbe", "lifecycle"] {
                    container.remove(field);
                }
            }
        }
        let spec = pod["spec"].as_object_mut().expect("a specification");
        spec.remove("imagePullSecrets");
        spec.insert("terminationGracePeriodSeconds".into(), 1.into());
        pod
    }

    fn image(&self) -> String {
        for name in ["named-user", "no-shell"] {
            if self.needs(&format!("image/{name}")) {
                return sample_image(name);
            }
        }
        static CHECKOUT: LazyLock<String> = LazyLock::new(|| cluster().image_of("checkout", shop::NAMESPACE));
        CHECKOUT.clone()
    }

    /// Who makes the pod: the controller of its kind, else itself. Pods of Deployments stand for themselves.
    #[must_use]
    pub fn maker(&self, namespace: &str) -> Value {
        let mut pod = self.at_home(namespace);
        let owner = &self.pod["metadata"]["ownerReferences"][0]["kind"];
        let name = pod["metadata"]["name"].clone();
        let metadata = json!({"name": name, "namespace": namespace});
        let labels = json!({"golden": self.kind});
        for field in ["name", "namespace"] {
            pod["metadata"].as_object_mut().expect("metadata").remove(field);
        }
        pod["metadata"]["labels"] = labels.clone();
        let template = json!({"metadata": pod["metadata"], "spec": pod["spec"]});
        let apps = |kind: &str| {
            json!({
                "apiVersion": "apps/v1", "kind": kind, "metadata": metadata,
                "spec": {"selector": {"matchLabels": labels}, "template": template},
            })
        };
        match owner.as_str() {
            Some("StatefulSet" | "DaemonSet") => apps(owner.as_str().unwrap_or_default()),
            // Every year: the test makes its Job itself.
            Some("Job") if self.kind.contains("cron") => json!({
                "apiVersion": "batch/v1", "kind": "CronJob", "metadata": metadata,
                "spec": {"schedule": "0 0 1 1 *", "jobTemplate": {"spec": {"template": template}}},
            }),
            Some("Job") => {
                json!({"apiVersion": "batch/v1", "kind": "Job", "metadata": metadata, "spec": {"template": template}})
            }
            _ => self.at_home(namespace),
        }
    }

    /// How users name it.
    #[must_use]
    pub fn target(&self, namespace: &str) -> String {
        let kind = self.maker(namespace)["kind"].as_str().expect("a kind").to_lowercase();
        format!("{kind}/{}", self.kind)
    }

    /// Makes the objects that the pod refers to.
    pub fn prepare(&self, namespace: &str) {
        for need in self.all_needs() {
            match need.split_once('/') {
                Some(("configmap", name)) => self.store("ConfigMap", name, namespace),
                Some(("secret", name)) => self.store("Secret", name, namespace),
                Some(("persistentvolumeclaim", name)) => claim(name, namespace),
                _ => {}
            }
        }
    }

    fn store(&self, kind: &str, name: &str, namespace: &str) {
        let metadata = json!({"name": name, "namespace": namespace});
        let data: BTreeMap<&str, &str> = self.keys().into_iter().map(|key| (key, VALUE)).collect();
        cluster().apply(&json!({"apiVersion": "v1", "kind": kind, "metadata": metadata, "data": data}));
    }

    /// Every key that the containers name. (One that is mounted as a file, and missing, would become a folder.)
    fn keys(&self) -> BTreeSet<&str> {
        let containers = || self.pod["spec"]["containers"].as_array().into_iter().flatten();
        let variables = containers().filter_map(|it| it["env"].as_array()).flatten();
        let references = variables.flat_map(|variable| {
            ["secretKeyRef", "configMapKeyRef"]
                .map(|reference| variable["valueFrom"][reference]["key"].as_str())
        });
        let mounts = containers().filter_map(|it| it["volumeMounts"].as_array()).flatten();
        let files = mounts.map(|mount| mount["subPath"].as_str());
        references.chain(files).flatten().filter(|key| !key.contains('/')).chain(["value"]).collect()
    }
}

/// A volume of the node, and a claim to it.
fn claim(name: &str, namespace: &str) {
    let volume = format!("{namespace}-{name}");
    // Left, and bound to a claim that is gone, by an earlier run.
    cluster().run(&["delete", "persistentvolume", &volume, "--ignore-not-found"]);
    let capacity = json!({"storage": "1Mi"});
    cluster().apply(&json!({
        "apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": volume},
        "spec": {
            "capacity": capacity, "accessModes": ["ReadWriteOnce"], "storageClassName": "",
            "hostPath": {"path": format!("/run/{volume}"), "type": "DirectoryOrCreate"},
        },
    }));
    cluster().apply(&json!({
        "apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": name, "namespace": namespace},
        "spec": {
            "resources": {"requests": capacity}, "accessModes": ["ReadWriteOnce"], "storageClassName": "",
            "volumeName": volume,
        },
    }));
}
