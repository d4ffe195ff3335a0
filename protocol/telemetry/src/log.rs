//! The log, on stderr: lines for people or JSON for machines. Text from outside is always the value of a field, never
//! part of a message: there it is quoted in either format, so that nobody outside can forge a line.

use clap::ValueEnum;
use tracing_subscriber::EnvFilter;

/// The target of audit lines.
pub const AUDIT: &str = "mirrord::audit";

/// How lines look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// `time LEVEL target: message key="value"`.
    #[default]
    Text,
    /// One object a line.
    Json,
}

/// Starts logging what `RUST_LOG` asks for, or `info`; audit lines are written whatever it asks, unless it names them.
pub fn install(format: Format) {
    let asked = std::env::var(EnvFilter::DEFAULT_ENV).unwrap_or_default();
    let log = tracing_subscriber::fmt().with_env_filter(filter(&asked)).with_writer(std::io::stderr);
    match format {
        Format::Text => log.init(),
        Format::Json => log.json().flatten_event(true).init(),
    }
}

fn filter(asked: &str) -> EnvFilter {
    let asked = if asked.trim().is_empty() { "info" } else { asked };
    // Of two directives for one target the later counts.
    EnvFilter::try_new(format!("{AUDIT}=info,{asked}")).unwrap_or_else(|_| EnvFilter::new("info"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn audit_lines_are_written_at_every_level_unless_they_are_named() {
        assert_eq!(filter("").to_string(), "mirrord::audit=info,info");
        assert_eq!(filter("error").to_string(), "mirrord::audit=info,error");
        assert_eq!(filter("error,mirrord::audit=debug").to_string(), "mirrord::audit=debug,error");
        assert_eq!(filter("a=b=c").to_string(), "info");
    }
}
