//! Flags, read by hand: a dormant sidecar pays for every page that it touches, and these are few.
//!
//! What the webhook bakes into the pod comes as flags, never as variables: a program under mirrord sees the
//! sidecar's environment, and shall find nothing of ours in it.

use std::{ffi::OsString, path::PathBuf, time::Duration};

use thiserror::Error;

use crate::telemetry::Format;

/// What `--help` prints.
pub(crate) const USAGE: &str = "\
mirrord-agent: the sidecar of a pod that opted into mirrord.

  mirrord-agent copy DIR        put this program into DIR, executable but not readable by others
  mirrord-agent serve FLAGS     wait for the control plane, then serve the sessions it announces
    --container NAME            the container whose twin this is
    --port PORT                 UDP port to wait on
    --identity DIR              folder with the files token, uid, name, namespace
    --ca BASE64[,BASE64]        certificates (DER) of the authorities that the control plane may come from
    --namespace-shared          the pod shares its process namespace: lend the running program's view
    --secret-mount PATH         a volume with secrets, needs the feature `secrets`; may be repeated
    --linger-seconds N          how long to stay awake after the last session (default 10)
    --log-format text|json      how lines of the log look (default text)
  mirrord-agent --version | --help";

/// What to do.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Command {
    /// Copy this program into a folder.
    Copy(PathBuf),
    /// Be a sidecar.
    Serve(Settings),
    /// Print [`USAGE`].
    Help,
    /// Print the release.
    Version,
}

/// How to be a sidecar.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Settings {
    pub(crate) container: String,
    pub(crate) port: u16,
    pub(crate) identity: PathBuf,
    /// Base64 of DER, comma-separated; decoded when they are needed.
    pub(crate) authorities: String,
    pub(crate) namespace_shared: bool,
    pub(crate) secret_mounts: Vec<PathBuf>,
    pub(crate) linger: Duration,
    pub(crate) log_format: Format,
}

/// Why arguments make no command.
#[derive(Debug, Error, PartialEq, Eq)]
pub(crate) enum UsageError {
    #[error("say what to do: copy or serve (see --help)")]
    NoCommand,
    #[error("unknown argument {0:?} (see --help)")]
    Unknown(OsString),
    #[error("{0} needs a value (see --help)")]
    NoValue(&'static str),
    #[error("serve needs {0} (see --help)")]
    Missing(&'static str),
    #[error("{flag} {value:?} is not {expected}")]
    Invalid { flag: &'static str, value: OsString, expected: &'static str },
}

/// Reads the arguments behind the program's name.
pub(crate) fn parse(arguments: impl Iterator<Item = OsString>) -> Result<Command, UsageError> {
    let arguments: Vec<OsString> = arguments.collect();
    let mut rest = arguments.iter();
    let command = rest.next().ok_or(UsageError::NoCommand)?;
    match command.to_str() {
        Some("--help" | "-h" | "help") => Ok(Command::Help),
        Some("--version" | "-V") => Ok(Command::Version),
        Some("copy") => match (rest.next(), rest.next()) {
            (Some(folder), None) => Ok(Command::Copy(folder.into())),
            (None, _) => Err(UsageError::NoValue("copy")),
            (_, Some(extra)) => Err(UsageError::Unknown(extra.clone())),
        },
        Some("serve") => Raw::read(rest)?.resolve().map(Command::Serve),
        _ => Err(UsageError::Unknown(command.clone())),
    }
}

/// Flags as they came.
#[derive(Default)]
struct Raw<'a> {
    container: Option<&'a OsString>,
    port: Option<&'a OsString>,
    identity: Option<&'a OsString>,
    authorities: Option<&'a OsString>,
    linger: Option<&'a OsString>,
    log_format: Option<&'a OsString>,
    secret_mounts: Vec<PathBuf>,
    namespace_shared: bool,
}

impl<'a> Raw<'a> {
    fn read(mut rest: impl Iterator<Item = &'a OsString>) -> Result<Self, UsageError> {
        let mut raw = Self::default();
        while let Some(argument) = rest.next() {
            let mut value = |flag| rest.next().ok_or(UsageError::NoValue(flag));
            match argument.to_str() {
                Some("--container") => raw.container = Some(value("--container")?),
                Some("--port") => raw.port = Some(value("--port")?),
                Some("--identity") => raw.identity = Some(value("--identity")?),
                Some("--ca") => raw.authorities = Some(value("--ca")?),
                Some("--linger-seconds") => raw.linger = Some(value("--linger-seconds")?),
                Some("--log-format") => raw.log_format = Some(value("--log-format")?),
                Some("--secret-mount") => raw.secret_mounts.push(value("--secret-mount")?.into()),
                Some("--namespace-shared") => raw.namespace_shared = true,
                _ => return Err(UsageError::Unknown(argument.clone())),
            }
        }
        Ok(raw)
    }

    fn resolve(self) -> Result<Settings, UsageError> {
        let text = |flag, expected, value: &OsString| {
            value.to_str().map(str::to_owned).ok_or(UsageError::Invalid {
                flag,
                value: value.clone(),
                expected,
            })
        };
        let container = self.container.ok_or(UsageError::Missing("--container"))?;
        let authorities = self.authorities.ok_or(UsageError::Missing("--ca"))?;
        Ok(Settings {
            container: text("--container", "a container's name", container)?,
            port: number("--port", "a port", self.port.ok_or(UsageError::Missing("--port"))?)?,
            identity: self.identity.ok_or(UsageError::Missing("--identity"))?.into(),
            authorities: text("--ca", "base64", authorities)?,
            namespace_shared: self.namespace_shared,
            secret_mounts: self.secret_mounts,
            linger: match self.linger {
                Some(value) => Duration::from_secs(number("--linger-seconds", "a number of seconds", value)?),
                None => Duration::from_secs(10),
            },
            log_format: self.log_format.map_or(Ok(Format::Text), log_format)?,
        })
    }
}

fn log_format(value: &OsString) -> Result<Format, UsageError> {
    match value.to_str() {
        Some("text") => Ok(Format::Text),
        Some("json") => Ok(Format::Json),
        _ => {
            Err(UsageError::Invalid { flag: "--log-format", value: value.clone(), expected: "text or json" })
        }
    }
}

fn number<T: std::str::FromStr>(
    flag: &'static str,
    expected: &'static str,
    value: &OsString,
) -> Result<T, UsageError> {
    let number = value.to_str().and_then(|text| text.parse().ok());
    number.ok_or_else(|| UsageError::Invalid { flag, value: value.clone(), expected })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse_words(words: &str) -> Result<Command, UsageError> {
        parse(words.split_whitespace().map(OsString::from))
    }

    const SERVE: &str = "serve --container app --port 4433 --identity /.mirrord/identity --ca AAAA";

    #[test]
    fn serve_reads_every_flag() {
        let words = format!(
            "{SERVE} --namespace-shared --secret-mount /etc/tls --secret-mount /etc/token --linger-seconds 3 --log-format json"
        );
        let Ok(Command::Serve(settings)) = parse_words(&words) else { panic!("{words}") };
        assert_eq!((settings.container.as_str(), settings.port), ("app", 4433));
        assert_eq!(settings.identity, PathBuf::from("/.mirrord/identity"));
        assert_eq!(settings.secret_mounts, [PathBuf::from("/etc/tls"), PathBuf::from("/etc/token")]);
        assert_eq!((settings.authorities.as_str(), settings.linger.as_secs()), ("AAAA", 3));
        assert!(settings.namespace_shared);
        assert_eq!(settings.log_format, Format::Json);
        let Ok(Command::Serve(settings)) = parse_words(SERVE) else { panic!("{SERVE}") };
        assert_eq!(settings.log_format, Format::Text, "as pods of older webhooks expect");
    }

    #[test]
    fn mistakes_are_named() {
        assert_eq!(parse_words(""), Err(UsageError::NoCommand));
        assert_eq!(parse_words("serve --port 1"), Err(UsageError::Missing("--container")));
        assert_eq!(parse_words("serve --port"), Err(UsageError::NoValue("--port")));
        assert_eq!(parse_words("copy"), Err(UsageError::NoValue("copy")));
        assert_eq!(parse_words("copy a b"), Err(UsageError::Unknown("b".into())));
        assert_eq!(parse_words("serve --prot 1"), Err(UsageError::Unknown("--prot".into())));
        let error = parse_words(&SERVE.replace("4433", "70000"));
        assert!(matches!(error, Err(UsageError::Invalid { flag: "--port", .. })));
        let error = parse_words(&format!("{SERVE} --log-format xml")).expect_err("no format");
        assert_eq!(error.to_string(), r#"--log-format "xml" is not text or json"#);
    }
}
