//! What the control plane's ServiceAccount needs, each with the reason: the chart's Role and ClusterRole hold these
//! rules and no others. None lets it read other Secrets, write workloads, or enter pods.

/// Where a rule applies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// The whole cluster: a ClusterRole.
    Cluster,
    /// The control plane's own namespace: a Role.
    OwnNamespace,
}

/// One rule of RBAC.
#[derive(Clone, Copy, Debug)]
pub struct Rule {
    /// Where.
    pub scope: Scope,
    /// `apiGroups`, one.
    pub group: &'static str,
    /// `resources`.
    pub resources: &'static [&'static str],
    /// `resourceNames`, as the chart names them by default; none means all.
    pub names: &'static [&'static str],
    /// `verbs`.
    pub verbs: &'static [&'static str],
    /// What for.
    pub reason: &'static str,
}

/// All of them.
pub const RULES: &[Rule] = &[
    Rule {
        scope: Scope::Cluster,
        group: "",
        resources: &["pods"],
        names: &[],
        verbs: &["get", "list"],
        reason: "find a session's pods and their sidecars",
    },
    Rule {
        scope: Scope::Cluster,
        group: "apps",
        resources: &["deployments", "replicasets", "statefulsets", "daemonsets"],
        names: &[],
        verbs: &["get", "list"],
        reason: "find the workload that a target means, and names near to a mistyped one",
    },
    Rule {
        scope: Scope::Cluster,
        group: "batch",
        resources: &["jobs", "cronjobs"],
        names: &[],
        verbs: &["get", "list"],
        reason: "find the workload that a target means",
    },
    Rule {
        scope: Scope::Cluster,
        group: "",
        resources: &["namespaces"],
        names: &[],
        verbs: &["get"],
        reason: "say whether a namespace lacks the label or its pods are too old",
    },
    Rule {
        scope: Scope::Cluster,
        group: "",
        resources: &["limitranges", "resourcequotas"],
        names: &[],
        verbs: &["list", "watch"],
        reason: "keep sidecars within them, without a call at a pod's admission",
    },
    Rule {
        scope: Scope::Cluster,
        group: "mirrord.dev",
        resources: &["sessions"],
        names: &[],
        verbs: &["list", "watch", "delete"],
        reason: "tell sidecars of stored sessions; remove those that are over",
    },
    Rule {
        scope: Scope::Cluster,
        group: "events.k8s.io",
        resources: &["events"],
        names: &[],
        verbs: &["create"],
        reason: "tell by Events of sessions that start and end",
    },
    Rule {
        scope: Scope::Cluster,
        group: "authorization.k8s.io",
        resources: &["subjectaccessreviews"],
        names: &[],
        verbs: &["create"],
        reason: "ask what the creator of a session may do",
    },
    Rule {
        scope: Scope::Cluster,
        group: "authentication.k8s.io",
        resources: &["tokenreviews"],
        names: &[],
        verbs: &["create"],
        reason: "ask which pod a sidecar's token is bound to",
    },
    Rule {
        scope: Scope::Cluster,
        group: "admissionregistration.k8s.io",
        resources: &["mutatingwebhookconfigurations"],
        names: &["mirrord"],
        verbs: &["get", "list", "watch", "patch"],
        reason: "keep caBundle of our own webhooks right",
    },
    Rule {
        scope: Scope::OwnNamespace,
        group: "",
        resources: &["secrets"],
        names: &["mirrord-ca", "mirrord-gate"],
        verbs: &["get", "list", "watch", "update"],
        reason: "fill our two Secrets, follow them, and rotate what they hold",
    },
    Rule {
        scope: Scope::OwnNamespace,
        group: "",
        resources: &["services"],
        names: &["mirrord-ingress"],
        verbs: &["get", "list", "watch"],
        reason: "tell clients the ingress's public address",
    },
];
