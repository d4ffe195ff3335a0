//! What a check has to say.

use std::fmt;

use serde::Serialize;

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// As it should be.
    Ok,
    /// Worth knowing.
    Note,
    /// Something isn't as somebody may think.
    Warning,
    /// Something doesn't work.
    Error,
}

/// What it is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Topic {
    /// Kubernetes and the chart's objects.
    Cluster,
    /// The control plane.
    Webhook,
    /// The way in.
    Ingress,
    /// Whether workloads can have a sidecar.
    Injection,
    /// Sidecars that run, or should.
    Sidecars,
    /// Who is process 1.
    Processes,
    /// RBAC.
    Rights,
}

/// One finding.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Finding {
    /// How bad it is.
    pub severity: Severity,
    /// What it is about.
    pub topic: Topic,
    /// The object, as kubectl names it.
    #[serde(rename = "where")]
    pub place: String,
    /// What was found.
    pub what: String,
    /// What to do: a command line where there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fix: Option<String>,
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ok => "ok",
            Self::Note => "note",
            Self::Warning => "warning",
            Self::Error => "error",
        })
    }
}

impl fmt::Display for Topic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Cluster => "cluster",
            Self::Webhook => "webhook",
            Self::Ingress => "ingress",
            Self::Injection => "injection",
            Self::Sidecars => "sidecars",
            Self::Processes => "processes",
            Self::Rights => "rights",
        })
    }
}

impl Topic {
    fn finding(self, severity: Severity, place: impl Into<String>, what: impl Into<String>) -> Finding {
        Finding { severity, topic: self, place: place.into(), what: what.into(), fix: None }
    }

    /// As it should be.
    #[must_use]
    pub fn ok(self, place: impl Into<String>, what: impl Into<String>) -> Finding {
        self.finding(Severity::Ok, place, what)
    }

    /// Worth knowing.
    #[must_use]
    pub fn note(self, place: impl Into<String>, what: impl Into<String>) -> Finding {
        self.finding(Severity::Note, place, what)
    }

    /// Not as somebody may think.
    #[must_use]
    pub fn warning(self, place: impl Into<String>, what: impl Into<String>) -> Finding {
        self.finding(Severity::Warning, place, what)
    }

    /// Doesn't work.
    #[must_use]
    pub fn error(self, place: impl Into<String>, what: impl Into<String>) -> Finding {
        self.finding(Severity::Error, place, what)
    }
}

impl Finding {
    /// Adds what to do.
    #[must_use]
    pub fn fix(mut self, fix: impl Into<String>) -> Self {
        self.fix = Some(fix.into());
        self
    }
}

/// Of several, the first few, so that a line stays a line.
#[must_use]
pub fn some_of(names: &[String]) -> String {
    const SHOWN: usize = 5;
    match names.len().checked_sub(SHOWN) {
        None | Some(0) => names.join(", "),
        Some(more) => format!("{} and {more} more", names[..SHOWN].join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn machines_read_a_finding_as_plain_words() {
        let finding =
            Topic::Rights.warning("role/dev -n shop", "grants nothing").fix("kubectl edit role dev -n shop");
        let json = r#"{"severity":"warning","topic":"rights","where":"role/dev -n shop","what":"grants nothing","fix":"kubectl edit role dev -n shop"}"#;
        assert_eq!(serde_json::to_string(&finding).unwrap(), json);
    }

    #[test]
    fn many_names_are_counted() {
        let names: Vec<String> = (1..=7).map(|number| format!("p{number}")).collect();
        assert_eq!(some_of(&names[..5]), "p1, p2, p3, p4, p5");
        assert_eq!(some_of(&names), "p1, p2, p3, p4, p5 and 2 more");
    }
}
