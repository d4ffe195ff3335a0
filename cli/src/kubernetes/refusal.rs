//! What the API server's errors mean, and the next step.
//!
//! Four voices speak through one error type: the admission webhook (its denials carry a word in
//! `details.causes[0].reason`, see the webhook's `sessions::denial`), RBAC, the API server about itself or about a webhook
//! that doesn't answer, and the connection. Pure, so that recorded answers can be tests.

use std::io::ErrorKind;

use kube::{client::AuthError, core::Status};
use thiserror::Error;
use tokio::time::error::Elapsed;

use super::access::CONNECT;
use crate::exit::{Exit, Problem};

/// What was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// As RBAC calls it.
    pub verb: &'static str,
    /// Where; all where `None`.
    pub namespace: Option<String>,
    /// Whom, as messages call it.
    pub server: String,
}

/// Why the API server gave no Session.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum Refusal {
    /// mirrord's webhook said no.
    #[error("{message}")]
    Denied {
        /// The word for programs.
        word: String,
        /// Its sentence.
        message: String,
    },
    /// RBAC said no.
    #[error("you may not {} sessions.mirrord.dev{}: {message}", attempt.verb, in_namespace(attempt))]
    Forbidden {
        /// What was asked for.
        attempt: Attempt,
        /// The API server's sentence.
        message: String,
    },
    /// The API server doesn't know who asks.
    #[error("the API server {server} doesn't accept the kubeconfig's credentials: {message}")]
    Unauthorized {
        /// Whom.
        server: String,
        /// Its sentence.
        message: String,
    },
    /// There are no Sessions in this cluster.
    #[error("mirrord isn't installed in this cluster: {server} has no resource sessions.mirrord.dev")]
    NotInstalled {
        /// Whom.
        server: String,
    },
    /// Whoever answers is no API server, or somebody answers in its place.
    #[error("{server} doesn't answer as a Kubernetes API server does{}{}", code_after(*code), quoted_after(text))]
    Foreign {
        /// Whom.
        server: String,
        /// The status, where it is known.
        code: Option<u16>,
        /// The beginning of what came.
        text: String,
    },
    /// It has too much to do, or a proxy before it can't reach it: both answer by a text.
    #[error("the API server {server} is busy or restarting: HTTP {code}{}", quoted_after(text))]
    Busy {
        /// Whom.
        server: String,
        /// The status.
        code: u16,
        /// The beginning of what came.
        text: String,
    },
    /// There is no such namespace.
    #[error("there is no namespace {0:?}")]
    NoNamespace(String),
    /// There is no such Session.
    #[error("there is no such session: {0}")]
    NoSession(String),
    /// The Session was stored, but nobody filled it in.
    #[error("the API server stored the session without asking mirrord's webhook")]
    NotAdmitted,
    /// A renewal was stored, but nobody looked at it.
    #[error(
        "mirrord is no longer installed: the API server renewed the session without asking mirrord's webhook"
    )]
    NoLongerInstalled,
    /// The webhook doesn't answer.
    #[error("mirrord's webhook doesn't answer the API server: {0}")]
    WebhookDown(String),
    /// The API server doesn't answer.
    #[error("the API server {server} can't be reached: {message}")]
    Unreachable {
        /// Whom.
        server: String,
        /// What happened.
        message: String,
    },
    /// The API server takes too long.
    #[error("the API server {server} didn't answer within {seconds} s")]
    Silent {
        /// Whom.
        server: String,
        /// How long.
        seconds: u64,
    },
    /// The kubeconfig's credential plugin failed.
    #[error("the kubeconfig's credentials can't be had: {0}")]
    Credentials(String),
    /// Anything else.
    #[error("the API server answered: {0}")]
    Other(String),
}

/// What API servers, and other programs in Go, say of a path they don't serve: not as a Status.
const NO_SUCH_PATH: &str = "404 page not found";
/// How much of a stranger's answer is told, in characters.
const STRANGER: usize = 120;

/// kube's word for an answer that is no Status.
fn is_foreign(status: &Status) -> bool {
    status.reason == "Failed to parse error data"
}

fn of_stranger(status: &Status, server: String) -> Refusal {
    let line = status.message.lines().map(str::trim).find(|line| !line.is_empty()).unwrap_or_default();
    let (code, text) = (status.code, line.chars().take(STRANGER).collect());
    match code {
        // API servers shed load this way (kube-apiserver's `tooManyRequests`), and load balancers say it of them.
        429 | 500..=599 => Refusal::Busy { server, code, text },
        _ => Refusal::Foreign { server, code: Some(code), text },
    }
}

fn code_after(code: Option<u16>) -> String {
    code.map_or_else(String::new, |code| format!(": HTTP {code}"))
}

fn quoted_after(text: &str) -> String {
    if text.is_empty() { String::new() } else { format!(", {text:?}") }
}

fn in_namespace(attempt: &Attempt) -> String {
    attempt
        .namespace
        .as_ref()
        .map_or_else(|| " in all namespaces".to_owned(), |name| format!(" in namespace {name:?}"))
}

impl Refusal {
    /// Understands an error.
    #[must_use]
    pub fn new(error: &kube::Error, attempt: Attempt) -> Self {
        match error {
            kube::Error::Api(status) => Self::of_status(status, attempt),
            kube::Error::Auth(error) => Self::Credentials(credentials(error)),
            kube::Error::SerdeError(_) | kube::Error::FromUtf8(_) => {
                Self::Foreign { server: attempt.server, code: None, text: String::new() }
            }
            kube::Error::Service(_) | kube::Error::HyperError(_) => of_connection(error, attempt.server),
            other => Self::Other(other.to_string()),
        }
    }

    fn of_status(status: &Status, attempt: Attempt) -> Self {
        let message = status.message.clone();
        let cause = status.details.as_ref().and_then(|details| details.causes.first());
        if let Some((_, sentence)) = message.split_once("denied the request: ") {
            let word = cause.map(|cause| cause.reason.clone()).unwrap_or_default();
            return Self::Denied { word, message: sentence.to_owned() };
        }
        if message.contains("failed calling webhook") {
            return Self::WebhookDown(message);
        }
        let kind = status.details.as_ref().map(|details| details.kind.as_str()).unwrap_or_default();
        match status.code {
            _ if is_foreign(status) && message != NO_SUCH_PATH => of_stranger(status, attempt.server),
            401 => Self::Unauthorized { server: attempt.server, message },
            403 => Self::Forbidden { attempt, message },
            404 if kind == "namespaces" => Self::NoNamespace(attempt.namespace.unwrap_or_default()),
            404 if kind.starts_with("sessions") => Self::NoSession(message),
            404 => Self::NotInstalled { server: attempt.server },
            _ => Self::Other(message),
        }
    }

    /// Whether the session is gone for good, so that asking again is no use.
    #[must_use]
    pub fn is_final(&self) -> bool {
        match self {
            // A session that was stored before mirrord is installed (again) doesn't count.
            // Another installation counts no Session that is older than itself.
            Self::NoSession(_)
            | Self::NotInstalled { .. }
            | Self::NoLongerInstalled
            | Self::NoNamespace(_) => true,
            Self::Denied { word, .. } => word == "not_granted" || word == "bad_session",
            _ => false,
        }
    }

    fn exit(&self) -> Exit {
        match self {
            Self::Denied { word, .. } => match word.as_str() {
                "not_found" | "no_sidecar" => Exit::Target,
                "not_granted" => Exit::NotGranted,
                "unavailable" | "too_many" => Exit::Temporary,
                _ => Exit::Internal,
            },
            Self::Forbidden { .. } => Exit::NotGranted,
            Self::Unauthorized { .. } | Self::Credentials(_) => Exit::Configuration,
            Self::NoNamespace(_) | Self::NoSession(_) => Exit::Target,
            Self::NotInstalled { .. }
            | Self::Foreign { .. }
            | Self::NotAdmitted
            | Self::NoLongerInstalled
            | Self::WebhookDown(_)
            | Self::Unreachable { .. }
            | Self::Silent { .. } => Exit::Unreachable,
            Self::Busy { .. } | Self::Other(_) => Exit::Temporary,
        }
    }

    fn advice(&self) -> Option<String> {
        let text = match self {
            Self::Denied { word, .. } => return advice_on_denial(word).map(str::to_owned),
            Self::Forbidden { attempt, message } => {
                let user = quoted(message).unwrap_or("YOU");
                let namespace = attempt.namespace.as_deref().unwrap_or("NAMESPACE");
                return Some(format!(
                    "ask an admin of the namespace to bind the ClusterRole mirrord-user to you: \
                     kubectl create rolebinding mirrord-user --clusterrole=mirrord-user --user={user} -n {namespace}"
                ));
            }
            Self::Unauthorized { .. } => {
                "log in to the cluster again; `kubectl auth whoami` shows whether it worked"
            }
            Self::NotInstalled { .. } => {
                "check the context (--context); else install it: helm install mirrord charts/mirrord -n mirrord --create-namespace"
            }
            Self::NoNamespace(_) => "choose another with -n",
            Self::NoSession(_) => "`mirrord session ls` lists those that are there",
            Self::NotAdmitted | Self::NoLongerInstalled => {
                "it was uninstalled, or its entry sessions.mirrord.dev is missing: kubectl get mutatingwebhookconfiguration mirrord"
            }
            Self::WebhookDown(_) => {
                "look after it: kubectl -n mirrord get pods,endpoints; sessions that stand live on"
            }
            Self::Foreign { .. } => {
                "see whether `kubectl version` works: the address in the kubeconfig may be wrong, or a proxy may answer for it"
            }
            Self::Unreachable { .. } | Self::Silent { .. } => {
                "see whether `kubectl version` works; check VPN and --context"
            }
            Self::Credentials(_) => {
                "see whether `kubectl auth whoami` works: log in with it first where it asks for something"
            }
            Self::Busy { .. } | Self::Other(_) => "try again",
        };
        Some(text.to_owned())
    }
}

/// The user in RBAC's sentence: `… is forbidden: User "dev" cannot …`.
fn quoted(message: &str) -> Option<&str> {
    message.split_once("User \"")?.1.split_once('"').map(|(user, _)| user)
}

fn advice_on_denial(word: &str) -> Option<&'static str> {
    match word {
        "not_found" => Some("`mirrord ls` lists the targets of a namespace; choose it with -n"),
        "no_sidecar" => {
            Some("mirrord enters pods only when they are created; `mirrord ls` shows what can be used now")
        }
        "not_granted" => Some(
            "turn off what you don't need in the configuration (feature.env, feature.fs, feature.network)",
        ),
        "too_many" => Some("`mirrord session ls` lists them; `mirrord session stop` ends one"),
        "unavailable" => Some("try again; if it stays: kubectl -n mirrord logs deploy/mirrord-webhook"),
        "bad_session" => Some(
            "client and control plane may be of releases that don't fit: compare `mirrord --version` with the chart's",
        ),
        _ => None,
    }
}

impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Self {
        Self { exit: refusal.exit(), message: refusal.to_string(), help: refusal.advice() }
    }
}

/// The innermost cause says what happened; a credential plugin's failure comes this way too.
fn of_connection(error: &kube::Error, server: String) -> Refusal {
    let mut texts = Vec::new();
    let mut next: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = next {
        if let Some(error) = error.downcast_ref::<AuthError>() {
            return Refusal::Credentials(credentials(error));
        }
        let late = error.downcast_ref::<std::io::Error>().is_some_and(|it| it.kind() == ErrorKind::TimedOut);
        if late || error.is::<Elapsed>() {
            let message = format!("no connection within {} s", CONNECT.as_secs());
            return Refusal::Unreachable { server, message };
        }
        texts.push(error.to_string());
        next = error.source();
    }
    Refusal::Unreachable { server, message: texts.pop().unwrap_or_default() }
}

/// What is told of a credential plugin's failure. Never its arguments or its output on stdout: secrets stand there.
#[must_use]
pub fn credentials(error: &AuthError) -> String {
    match error {
        AuthError::AuthExecRun { cmd, out } => {
            let program = cmd.split_whitespace().find(|word| !word.contains('=')).unwrap_or_default();
            let stderr = String::from_utf8_lossy(&out.stderr);
            let said = stderr.lines().map(str::trim).rfind(|line| !line.is_empty()).unwrap_or_default();
            let said: String = said.chars().take(STRANGER).collect();
            format!("its plugin {} failed ({}){}", program.trim_matches('"'), out.status, quoted_after(&said))
        }
        AuthError::AuthExecParse(_) => "its plugin's answer makes no sense".to_owned(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attempt(verb: &'static str, namespace: Option<&str>) -> Attempt {
        let server = "https://10.0.0.1:6443 (context \"dev\")".to_owned();
        Attempt { verb, namespace: namespace.map(str::to_owned), server }
    }

    /// As the API server of Kubernetes 1.34 wrote it.
    fn told(verb: &'static str, answer: &str) -> Problem {
        let status: Status = serde_json::from_str(answer).unwrap();
        let attempt = attempt(verb, Some("shop"));
        Refusal::new(&kube::Error::Api(Box::new(status)), attempt).into()
    }

    fn denial(word: &str, code: u16, message: &str) -> String {
        serde_json::json!({
            "kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "reason": "x",
            "message": format!("admission webhook \"sessions.mirrord.dev\" denied the request: {message}"),
            "details": { "causes": [{ "reason": word, "message": message }] },
        })
        .to_string()
    }

    #[test]
    fn a_target_without_sidecar_is_told_with_the_line_that_mends_it() {
        let message =
            "no pod of deployment/checkout has a mirrord sidecar: namespace \"shop\" has no label …";
        let problem = told("create", &denial("no_sidecar", 422, message));
        assert_eq!(problem.exit, Exit::Target);
        assert_eq!(problem.message, message, "the webhook's own words, without the API server's in front");
    }

    #[test]
    fn a_missing_verb_is_told_as_a_missing_right() {
        let message = "user \"dev\" may not \"files\" on workloads.mirrord.dev \"deployment.checkout\" in namespace \"shop\": …";
        let problem = told("create", &denial("not_granted", 403, message));
        assert_eq!(problem.exit, Exit::NotGranted);
        assert!(problem.message.contains("\"files\" on workloads.mirrord.dev"), "{problem}");
    }

    #[test]
    fn no_right_on_sessions_names_verb_resource_and_role() {
        let answer = r#"{"kind":"Status","apiVersion":"v1","metadata":{},"status":"Failure","message":"sessions.mirrord.dev is forbidden: User \"dev\" cannot create resource \"sessions\" in API group \"mirrord.dev\" in the namespace \"shop\"","reason":"Forbidden","details":{"group":"mirrord.dev","kind":"sessions"},"code":403}"#;
        let problem = told("create", answer);
        assert_eq!(problem.exit, Exit::NotGranted);
        assert!(
            problem.message.starts_with("you may not create sessions.mirrord.dev in namespace \"shop\": "),
            "{problem}"
        );
        assert!(problem.help.unwrap().contains("--clusterrole=mirrord-user --user=dev -n shop"));
    }

    #[test]
    fn a_cluster_without_mirrord_is_told_apart_from_one_without_the_namespace() {
        let missing = r#"{"kind":"Status","apiVersion":"v1","metadata":{},"status":"Failure","message":"the server could not find the requested resource","reason":"NotFound","details":{},"code":404}"#;
        let problem = told("create", missing);
        assert_eq!(problem.exit, Exit::Unreachable);
        assert!(problem.message.contains("isn't installed"), "{problem}");
        assert!(problem.help.as_ref().is_some_and(|help| help.contains("helm install mirrord")));
        assert!(problem.message.contains("https://10.0.0.1:6443 (context \"dev\")"), "{problem}");
        let namespace = r#"{"kind":"Status","apiVersion":"v1","metadata":{},"status":"Failure","message":"namespaces \"shop\" not found","reason":"NotFound","details":{"name":"shop","kind":"namespaces"},"code":404}"#;
        assert_eq!(told("create", namespace).message, "there is no namespace \"shop\"");
    }

    #[test]
    fn a_deleted_session_is_final_and_a_webhook_that_rests_is_not() {
        let gone = r#"{"kind":"Status","apiVersion":"v1","metadata":{},"status":"Failure","message":"sessions.mirrord.dev \"s-1\" not found","reason":"NotFound","details":{"name":"s-1","group":"mirrord.dev","kind":"sessions"},"code":404}"#;
        let down = r#"{"kind":"Status","apiVersion":"v1","metadata":{},"status":"Failure","message":"Internal error occurred: failed calling webhook \"sessions.mirrord.dev\": failed to call webhook: Post \"https://mirrord-webhook.mirrord.svc:443/sessions?timeout=10s\": dial tcp 10.96.0.9:443: connect: connection refused","reason":"InternalError","details":{"causes":[{"message":"failed calling webhook"}]},"code":500}"#;
        let refusal = |answer: &str| {
            let status: Status = serde_json::from_str(answer).unwrap();
            Refusal::of_status(&status, attempt("patch", None))
        };
        assert!(refusal(gone).is_final());
        assert!(Refusal::NoLongerInstalled.is_final(), "nor does the next installation know it");
        assert!(!refusal(down).is_final());
        let problem = Problem::from(refusal(down));
        assert_eq!(problem.exit, Exit::Unreachable);
        assert!(
            problem.message.contains("webhook doesn't answer")
                && problem.message.contains("connection refused")
        );
        assert!(problem.help.unwrap().contains("kubectl -n mirrord get pods"));
    }

    #[test]
    fn what_is_no_api_server_is_told_as_such_and_shortly() {
        let answered = |code, text: &str| {
            let status = Status::failure(text, "Failed to parse error data").with_code(code);
            Refusal::of_status(&status, attempt("create", Some("shop")))
        };
        let page = format!("\n  <html><body>{}", "not here ".repeat(500));
        let problem = Problem::from(answered(404, &page));
        assert_eq!(problem.exit, Exit::Unreachable);
        assert!(problem.message.contains("HTTP 404, \"<html>") && problem.message.len() < 300, "{problem}");
        // A portal or a proxy that wants a login first isn't RBAC.
        assert!(matches!(answered(403, "<html>Log in</html>"), Refusal::Foreign { code: Some(403), .. }));
        let nonsense = serde_json::from_str::<Status>("<html>").unwrap_err();
        let refusal = Refusal::new(&kube::Error::SerdeError(nonsense), attempt("create", None));
        assert!(refusal.to_string().ends_with("doesn't answer as a Kubernetes API server does"), "{refusal}");
        // An API server without the resource says it this way.
        assert!(matches!(answered(404, "404 page not found"), Refusal::NotInstalled { .. }));
    }

    #[test]
    fn a_busy_api_server_is_worth_another_try() {
        let sentence = "Too many requests, please try again later.";
        for (code, text) in
            [(429, sentence), (500, "Internal Server Error: x"), (502, "Bad Gateway"), (503, "")]
        {
            let status = Status::failure(text, "Failed to parse error data").with_code(code);
            let problem = Problem::from(Refusal::of_status(&status, attempt("create", Some("shop"))));
            assert_eq!(problem.exit, Exit::Temporary);
            assert!(problem.message.contains("is busy or restarting: HTTP"), "{problem}");
        }
    }

    #[test]
    fn a_failed_plugin_is_told_without_what_is_secret() {
        let status = std::process::Command::new("false").status().unwrap();
        let (stdout, stderr) = (b"token-of-mine".to_vec(), b"\nSSO session expired\n".to_vec());
        let cmd = r#"AWS_KEY="mine" "kubelogin" "get-token" "--oidc-client-secret=mine""#.to_owned();
        let out = Box::new(std::process::Output { status, stdout, stderr });
        let told = credentials(&AuthError::AuthExecRun { cmd, out });
        assert_eq!(told, "its plugin kubelogin failed (exit status: 1), \"SSO session expired\"");
    }

    #[test]
    fn a_connection_that_never_stands_is_told_as_such() {
        let late = std::io::Error::new(ErrorKind::TimedOut, "deadline has elapsed");
        let refusal = Refusal::new(&kube::Error::Service(Box::new(late)), attempt("create", None));
        assert!(refusal.to_string().ends_with("can't be reached: no connection within 30 s"), "{refusal}");
    }

    #[test]
    fn wrong_credentials_are_a_matter_of_the_kubeconfig() {
        let answer = r#"{"kind":"Status","apiVersion":"v1","metadata":{},"status":"Failure","message":"Unauthorized","reason":"Unauthorized","code":401}"#;
        let problem = told("create", answer);
        assert_eq!(problem.exit, Exit::Configuration);
        assert!(problem.help.unwrap().contains("kubectl auth whoami"));
    }
}
