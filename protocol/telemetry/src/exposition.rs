//! `GET /metrics`: a registry in OpenMetrics' text format, and that text read again by whoever makes pages or tests of it.

use std::{collections::BTreeMap, fmt, sync::Arc};

use axum::{
    Router,
    extract::State,
    http::{StatusCode, header::CONTENT_TYPE},
    response::{IntoResponse, Response},
    routing::get,
};
use prometheus_client::{encoding::text::encode, registry::Registry};

/// Where metrics are asked for.
pub const PATH: &str = "/metrics";
const MEDIA_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// The route, to be merged into a plain HTTP listener.
pub fn routes(registry: Registry) -> Router {
    Router::new().route(PATH, get(scrape)).with_state(Arc::new(registry))
}

async fn scrape(State(registry): State<Arc<Registry>>) -> Response {
    match text(&registry) {
        Ok(text) => ([(CONTENT_TYPE, MEDIA_TYPE)], text).into_response(),
        Err(fmt::Error) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

/// All metrics of a registry.
///
/// # Errors
/// What a metric says that can't be written; ours can.
pub fn text(registry: &Registry) -> Result<String, fmt::Error> {
    let mut text = String::new();
    encode(&mut text, registry)?;
    Ok(text)
}

/// One metric and its samples.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Family {
    /// Without the suffixes of its samples.
    pub name: String,
    /// `counter`, `gauge`, `histogram`, `info`.
    pub kind: String,
    /// `seconds`, `bytes`; empty without one.
    pub unit: String,
    /// What it counts.
    pub help: String,
    /// Its samples, in their order.
    pub samples: Vec<Sample>,
}

/// One line of a metric.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Sample {
    /// With its suffix.
    pub name: String,
    /// Label and value.
    pub labels: BTreeMap<String, String>,
    /// The number.
    pub value: f64,
}

/// Reads what [`text`] wrote: label values have no escapes, for they are words of closed sets.
///
/// # Errors
/// The line that makes no sense.
pub fn parse(text: &str) -> Result<Vec<Family>, String> {
    let body = text.strip_suffix("# EOF\n").ok_or("it does not end with # EOF")?;
    let mut families: Vec<Family> = Vec::new();
    for line in body.lines() {
        let nonsense = || format!("not understood: {line}");
        if let Some(comment) = line.strip_prefix("# ") {
            let mut words = comment.splitn(3, ' ');
            let (what, name, rest) = (words.next(), words.next().unwrap_or_default(), words.next());
            if families.last().is_none_or(|family| family.name != name) {
                families.push(Family { name: name.to_owned(), ..Family::default() });
            }
            let (Some(family), Some(rest)) = (families.last_mut(), rest) else { return Err(nonsense()) };
            match what {
                Some("HELP") => rest.clone_into(&mut family.help),
                Some("TYPE") => rest.clone_into(&mut family.kind),
                Some("UNIT") => rest.clone_into(&mut family.unit),
                _ => return Err(nonsense()),
            }
        } else {
            let sample = sample(line).ok_or_else(nonsense)?;
            let family = families.last_mut().filter(|family| sample.name.starts_with(&family.name));
            family.ok_or_else(nonsense)?.samples.push(sample);
        }
    }
    Ok(families)
}

fn sample(line: &str) -> Option<Sample> {
    let (series, value) = line.rsplit_once(' ')?;
    let (name, labels) = match series.split_once('{') {
        Some((name, labels)) => (name, labels.strip_suffix('}')?),
        None => (series, ""),
    };
    let pair = |pair: &str| {
        let (name, value) = pair.split_once('=')?;
        Some((name.to_owned(), value.strip_prefix('"')?.strip_suffix('"')?.to_owned()))
    };
    let labels: Option<_> = labels.split(',').filter(|pair| !pair.is_empty()).map(pair).collect();
    Some(Sample { name: name.to_owned(), labels: labels?, value: value.parse().ok()? })
}

/// The sum of a metric's samples of this name whose labels are, or include, these.
#[must_use]
pub fn sum(families: &[Family], name: &str, labels: &[(&str, &str)]) -> Option<f64> {
    let samples = families.iter().flat_map(|family| &family.samples).filter(|sample| {
        let carries =
            |(label, value): &(&str, &str)| sample.labels.get(*label).is_some_and(|found| found == value);
        sample.name == name && labels.iter().all(carries)
    });
    let mut values = samples.map(|sample| sample.value).peekable();
    values.peek()?;
    Some(values.sum())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Counter, Unit};

    #[test]
    fn what_was_written_is_read_again() {
        let mut registry = Registry::default();
        let counter: Counter = Counter::default();
        counter.inc_by(7);
        let part = crate::part(&mut registry, "it", "1.2.3");
        part.register_with_unit("sent", "What was sent", Unit::Bytes, counter);
        let families = parse(&text(&registry).unwrap()).unwrap();
        let [build, sent] = families.as_slice() else { panic!("{families:?}") };
        assert_eq!((build.name.as_str(), build.kind.as_str()), ("mirrord_it_build", "info"));
        assert_eq!(build.samples[0].labels["version"], "1.2.3");
        assert_eq!(
            (sent.name.as_str(), sent.kind.as_str(), sent.unit.as_str()),
            ("mirrord_it_sent_bytes", "counter", "bytes")
        );
        assert_eq!(sent.help, "What was sent.");
        assert_eq!(sum(&families, "mirrord_it_sent_bytes_total", &[]), Some(7.0));
        assert_eq!(sum(&families, "mirrord_it_lost_bytes_total", &[]), None);
    }

    #[test]
    fn what_is_no_exposition_is_refused_by_its_line() {
        assert_eq!(parse("a 1\n").unwrap_err(), "it does not end with # EOF");
        assert_eq!(parse("a 1\n# EOF\n").unwrap_err(), "not understood: a 1");
        assert_eq!(parse("# TYPE a gauge\na{b} 1\n# EOF\n").unwrap_err(), "not understood: a{b} 1");
    }
}
