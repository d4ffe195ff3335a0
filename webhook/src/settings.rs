//! Settings, from flags that the chart writes.

use std::net::SocketAddr;

use clap::{Parser, ValueEnum};
use mirrord_protocol::limits;
use mirrord_telemetry::log;

use crate::injection;

/// The control plane of mirrord: injection, sessions, boot.
#[derive(Clone, Debug, Parser)]
#[command(name = "mirrord-webhook", version)]
pub struct Settings {
    /// The namespace that it runs in.
    #[arg(long, env = "POD_NAMESPACE", default_value = "mirrord")]
    pub namespace: String,
    /// Where the API server reaches it (HTTPS).
    #[arg(long, default_value = "[::]:8443")]
    pub listen: SocketAddr,
    /// Where the kubelet reaches it, and Prometheus (HTTP).
    #[arg(long, default_value = "[::]:8080")]
    pub health_listen: SocketAddr,
    /// Its own Service: the name in the serving certificate.
    #[arg(long, default_value = "mirrord-webhook")]
    pub service: String,
    /// The MutatingWebhookConfiguration whose caBundle it writes.
    #[arg(long, default_value = "mirrord")]
    pub webhook_configuration: String,
    /// The Secret with the certificate authority.
    #[arg(long, default_value = "mirrord-ca")]
    pub ca_secret: String,
    /// The Secret by which others supply certificate authorities (kubernetes.io/tls); without, the control plane makes its own.
    #[arg(long)]
    pub supplied_ca_secret: Option<String>,
    /// The Secret with the key of gate tokens.
    #[arg(long, default_value = "mirrord-gate")]
    pub gate_secret: String,
    /// The image that carries the sidecar's agent.
    #[arg(long)]
    pub agent_image: String,
    /// When nodes pull that image.
    #[arg(long, value_enum, default_value = "IfNotPresent")]
    pub agent_pull_policy: PullPolicy,
    /// The ingress's Service: its load balancer's address is what clients are told.
    #[arg(long, default_value = "mirrord-ingress")]
    pub ingress_service: String,
    /// What clients are told instead, as host:port.
    #[arg(long)]
    pub ingress_address: Option<String>,
    /// How long a session lives without being renewed.
    #[arg(long, default_value_t = 300, value_parser = clap::value_parser!(u64).range(30..=86_400))]
    pub session_ttl_seconds: u64,
    /// How long a session lives at most.
    #[arg(long, default_value_t = 43_200, value_parser = clap::value_parser!(u64).range(60..=604_800))]
    pub session_deadline_seconds: u64,
    /// How long an expired session is kept, so that a laptop that slept can renew it.
    #[arg(long, default_value_t = 1800, value_parser = clap::value_parser!(u64).range(0..=604_800))]
    pub session_grace_seconds: u64,
    /// How many sessions one user may have in a namespace.
    #[arg(long, default_value_t = 64, value_parser = sessions_per_user)]
    pub sessions_per_user: usize,
    /// How lines of the log look, its own and those of the sidecars that it injects from now on.
    #[arg(long, value_enum, default_value = "text")]
    pub log_format: log::Format,
}

/// More than a sidecar serves would be no bound.
fn sessions_per_user(text: &str) -> Result<usize, String> {
    let number = text.parse().ok().filter(|number| (1..=limits::SESSIONS).contains(number));
    number.ok_or_else(|| format!("give a number from 1 to {}", limits::SESSIONS))
}

/// `imagePullPolicy`, as Kubernetes spells it.
#[derive(Clone, Copy, Debug, ValueEnum)]
#[value(rename_all = "PascalCase")]
#[expect(missing_docs, reason = "the names are those of Kubernetes")]
pub enum PullPolicy {
    Always,
    IfNotPresent,
    Never,
}

impl From<PullPolicy> for injection::settings::PullPolicy {
    fn from(policy: PullPolicy) -> Self {
        match policy {
            PullPolicy::Always => Self::Always,
            PullPolicy::IfNotPresent => Self::IfNotPresent,
            PullPolicy::Never => Self::Never,
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_flags_are_consistent() {
        Settings::command().debug_assert();
    }

    #[test]
    fn one_user_may_have_no_more_sessions_than_a_sidecar_serves() {
        let parse = |number| {
            Settings::try_parse_from(["x", "--agent-image", "i", "--sessions-per-user", number])
                .map(|settings| settings.sessions_per_user)
        };
        assert_eq!(parse("256").unwrap(), 256);
        for number in ["0", "257", "many"] {
            assert!(parse(number).unwrap_err().to_string().contains("from 1 to 256"), "{number}");
        }
    }

    #[test]
    fn pull_policies_are_spelt_as_kubernetes_does() {
        let parse = |policy| {
            Settings::try_parse_from(["x", "--agent-image", "i", "--agent-pull-policy", policy])
                .map(|settings| settings.agent_pull_policy)
        };
        assert!(matches!(parse("IfNotPresent"), Ok(PullPolicy::IfNotPresent)));
        assert!(parse("ifnotpresent").is_err());
    }
}
