//! Logs: one line per event on stderr, `time LEVEL message key=value …`, or an object of JSON with the keys that
//! tracing-subscriber's have. A subscriber of our own, because it is two pages of code where the usual one is a quarter of
//! the binary.
//!
//! Only events of this crate at INFO and above are written. Text from outside is quoted in either format, so no peer can
//! forge a line. Tokens, keys and the contents of variables and files are never given to a log call.

use std::{
    fmt::{self, Write as _},
    io::Write as _,
    sync::atomic::{AtomicBool, Ordering::Relaxed},
};

use tracing::{
    Event, Level, Metadata, Subscriber,
    field::{Field, Visit},
    span,
};

/// How lines look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Format {
    /// For people.
    #[default]
    Text,
    /// For machines.
    Json,
}

static JSON: AtomicBool = AtomicBool::new(false);

/// Starts logging, as text.
pub(crate) fn install() {
    // Fails only where a subscriber is installed already, which then does its work.
    let _ = tracing::subscriber::set_global_default(Lines);
}

/// Goes on in this format.
pub(crate) fn choose(format: Format) {
    JSON.store(format == Format::Json, Relaxed);
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
        let format = if JSON.load(Relaxed) { Format::Json } else { Format::Text };
        // One write, so that lines of threads don't mix; a closed stderr is no reason to stop.
        let _ = std::io::stderr().write_all(line(event, format, crate::clock::now()).as_bytes());
    }

    fn new_span(&self, _span: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }

    fn record(&self, _span: &span::Id, _values: &span::Record<'_>) {}
    fn record_follows_from(&self, _span: &span::Id, _follows: &span::Id) {}
    fn enter(&self, _span: &span::Id) {}
    fn exit(&self, _span: &span::Id) {}
}

/// An event's line. Writing to a String can't fail.
fn line(event: &Event<'_>, format: Format, now: u64) -> String {
    let mut fields = Fields { format, message: String::new(), rest: String::new() };
    event.record(&mut fields);
    let Fields { message, rest, .. } = fields;
    let (level, target) = (event.metadata().level(), event.metadata().target());
    match format {
        Format::Text => format!("{now} {level} {message}{rest}\n"),
        Format::Json => {
            let (now, message) = (Moment(now), Quoted(&message));
            let level = level.as_str();
            format!(
                r#"{{"timestamp":"{now}","level":"{level}","message":{message}{rest},"target":"{target}"}}"#
            ) + "\n"
        }
    }
}

struct Fields {
    format: Format,
    message: String,
    rest: String,
}

impl Fields {
    /// A number or a switch, which needs no quotes.
    fn plain(&mut self, field: &Field, value: &dyn fmt::Display) {
        let _ = match self.format {
            Format::Text => write!(self.rest, " {}={value}", field.name()),
            Format::Json => write!(self.rest, ",{}:{value}", Quoted(field.name())),
        };
    }
}

impl Visit for Fields {
    fn record_str(&mut self, field: &Field, value: &str) {
        let _ = match self.format {
            Format::Text => write!(self.rest, " {}={value:?}", field.name()),
            Format::Json => write!(self.rest, ",{}:{}", Quoted(field.name()), Quoted(value)),
        };
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.plain(field, &value);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.plain(field, &value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.plain(field, &value);
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let _ = match (field.name(), self.format) {
            ("message", _) => write!(self.message, "{value:?}"),
            (name, Format::Text) => write!(self.rest, " {name}={value:?}"),
            (name, Format::Json) => {
                write!(self.rest, ",{}:{}", Quoted(name), Quoted(&format!("{value:?}")))
            }
        };
    }
}

/// A string of JSON (RFC 8259 §7).
struct Quoted<'a>(&'a str);

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_char('"')?;
        for character in self.0.chars() {
            match character {
                '"' => f.write_str("\\\"")?,
                '\\' => f.write_str("\\\\")?,
                control if control.is_control() => write!(f, "\\u{:04x}", u32::from(control))?,
                other => f.write_char(other)?,
            }
        }
        f.write_char('"')
    }
}

/// Seconds since 1970, as RFC 3339 writes them.
struct Moment(u64);

impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (day, second) = (self.0 / 86_400, self.0 % 86_400);
        // Years that begin in March, in eras of 400: then a leap day is the last of its year, and each month's length
        // follows from its number.
        let day = day + 719_468;
        let (era, day) = (day / 146_097, day % 146_097);
        let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
        let day = day - (365 * year + year / 4 - year / 100);
        let month = (5 * day + 2) / 153;
        let day = day - (153 * month + 2) / 5 + 1;
        let (year, month) = if month < 10 { (year, month + 3) } else { (year + 1, month - 9) };
        let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
        write!(f, "{:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z", 400 * era + year)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    /// A subscriber that keeps the line of an event.
    struct Keeping(Format, Arc<Mutex<String>>);

    impl Subscriber for Keeping {
        fn enabled(&self, _metadata: &Metadata<'_>) -> bool {
            true
        }
        fn event(&self, event: &Event<'_>) {
            *self.1.lock().expect("not poisoned") = line(event, self.0, 1_764_108_000);
        }
        fn new_span(&self, _span: &span::Attributes<'_>) -> span::Id {
            span::Id::from_u64(1)
        }
        fn record(&self, _span: &span::Id, _values: &span::Record<'_>) {}
        fn record_follows_from(&self, _span: &span::Id, _follows: &span::Id) {}
        fn enter(&self, _span: &span::Id) {}
        fn exit(&self, _span: &span::Id) {}
    }

    fn kept(format: Format) -> String {
        let kept = Arc::new(Mutex::new(String::new()));
        tracing::subscriber::with_default(Keeping(format, Arc::clone(&kept)), || {
            tracing::info!(creator = "eve\n0 INFO \"boot\\", count = 3, on = true, view = ?Some("\t"), "session");
        });
        let line = kept.lock().expect("not poisoned");
        line.clone()
    }

    #[test]
    fn a_peers_text_cannot_forge_a_line() {
        let expected =
            r#"1764108000 INFO session creator="eve\n0 INFO \"boot\\" count=3 on=true view=Some("\t")"#;
        assert_eq!(kept(Format::Text), format!("{expected}\n"));
    }

    #[test]
    fn nor_an_object_of_json() {
        let expected = r#"{"timestamp":"2025-11-25T22:00:00Z","level":"INFO","message":"session","creator":"eve\u000a0 INFO \"boot\\","count":3,"on":true,"view":"Some(\"\\t\")","target":"mirrord_agent::telemetry::tests"}"#;
        assert_eq!(kept(Format::Json), format!("{expected}\n"));
    }

    #[test]
    fn moments_are_written_as_calendars_do() {
        for (seconds, written) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_868_799, "2000-02-29T23:59:59Z"),
            (951_868_800, "2000-03-01T00:00:00Z"),
            (1_735_689_599, "2024-12-31T23:59:59Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
        ] {
            assert_eq!(Moment(seconds).to_string(), written);
        }
    }
}
