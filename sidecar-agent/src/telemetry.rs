//! Logs: one line per event on stderr, `time LEVEL message key=value …`. A subscriber of our own, because it is a page
//! of code where the usual one is a quarter of the binary.
//!
//! Only events of this crate at INFO and above are written. Text from outside goes through `{:?}`, so no peer can
//! forge a line. Tokens, keys and the contents of variables and files are never given to a log call.

use std::{
    fmt::{self, Write as _},
    io::Write as _,
};

use tracing::{
    Event, Level, Metadata, Subscriber,
    field::{Field, Visit},
    span,
};

/// Starts logging.
pub(crate) fn install() {
    // Fails only where a subscriber is installed already, which then does its work.
    let _ = tracing::subscriber::set_global_default(Lines);
}

struct Lines;

impl Subscriber for Lines {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        *metadata.level() <= Level::INFO
            && metadata.is_event()
            && metadata.target().starts_with("mirrord_agent")
    }

    fn max_level_hint(&self) -> Option<tracing::level_filters::LevelFilter> {
        Some(tracing::level_filters::LevelFilter::INFO)
    }

    fn event(&self, event: &Event<'_>) {
        let mut line = Line { message: String::new(), fields: String::new() };
        event.record(&mut line);
        let Line { message, fields } = line;
        let level = event.metadata().level();
        // One write, so that lines of threads don't mix; a closed stderr is no reason to stop.
        let _ = std::io::stderr()
            .write_all(format!("{} {level} {message}{fields}\n", crate::clock::now()).as_bytes());
    }

    fn new_span(&self, _span: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }

    fn record(&self, _span: &span::Id, _values: &span::Record<'_>) {}
    fn record_follows_from(&self, _span: &span::Id, _follows: &span::Id) {}
    fn enter(&self, _span: &span::Id) {}
    fn exit(&self, _span: &span::Id) {}
}

struct Line {
    message: String,
    fields: String,
}

impl Visit for Line {
    fn record_str(&mut self, field: &Field, value: &str) {
        let _ = write!(self.fields, " {}={value:?}", field.name());
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let _ = match field.name() {
            "message" => write!(self.message, "{value:?}"),
            name => write!(self.fields, " {name}={value:?}"),
        };
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    /// A subscriber that keeps what [`Line`] made of an event.
    struct Keeping(Arc<Mutex<String>>);

    impl Subscriber for Keeping {
        fn enabled(&self, _metadata: &Metadata<'_>) -> bool {
            true
        }
        fn event(&self, event: &Event<'_>) {
            let mut line = Line { message: String::new(), fields: String::new() };
            event.record(&mut line);
            *self.0.lock().expect("not poisoned") = line.message + &line.fields;
        }
        fn new_span(&self, _span: &span::Attributes<'_>) -> span::Id {
            span::Id::from_u64(1)
        }
        fn record(&self, _span: &span::Id, _values: &span::Record<'_>) {}
        fn record_follows_from(&self, _span: &span::Id, _follows: &span::Id) {}
        fn enter(&self, _span: &span::Id) {}
        fn exit(&self, _span: &span::Id) {}
    }

    #[test]
    fn a_peers_text_cannot_forge_a_line() {
        let kept = Arc::new(Mutex::new(String::new()));
        tracing::subscriber::with_default(Keeping(Arc::clone(&kept)), || {
            tracing::info!(creator = "eve\n0 INFO boot", count = 3, "session");
        });
        assert_eq!(*kept.lock().expect("not poisoned"), r#"session creator="eve\n0 INFO boot" count=3"#);
    }
}
