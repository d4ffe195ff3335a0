//! What mirrord says while it works: one line a step, on stderr, never on stdout.
//!
//! `MIRRORD_PROGRESS_MODE` chooses `standard` lines, `json` objects, or `off`: then stderr is the program's alone,
//! and mirrord speaks only if there will be no program.

use std::{io::Write as _, time::Instant};

use anstyle::{AnsiColor, Style};
use mirrord_layer_brain::text::printable;
use serde::Serialize;

use crate::exit::{Exit, Problem};

/// The variable that chooses the [`Mode`].
pub const VARIABLE: &str = "MIRRORD_PROGRESS_MODE";

/// How progress is shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// Lines for people.
    #[default]
    Standard,
    /// None.
    Off,
    /// One JSON object a line.
    Json,
}

/// The user's stderr.
#[derive(Clone, Copy, Debug)]
pub struct Progress {
    mode: Mode,
    start: Instant,
}

#[derive(Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum Line<'a> {
    Step { message: &'a str, elapsed_ms: f64 },
    Warning { message: &'a str },
    Error(&'a Problem),
}

impl Mode {
    /// Reads the variable's value.
    ///
    /// # Errors
    /// A word that is no mode.
    pub fn parse(word: Option<&str>) -> Result<Self, Problem> {
        match word {
            None | Some("" | "standard") => Ok(Self::Standard),
            Some("off") => Ok(Self::Off),
            Some("json") => Ok(Self::Json),
            Some(other) => Err(Problem::new(Exit::Usage, format!("{VARIABLE} can't be {other:?}"))
                .help("use standard, off or json")),
        }
    }
}

impl Progress {
    /// Starts the clock.
    #[must_use]
    pub fn new(mode: Mode) -> Self {
        Self { mode, start: Instant::now() }
    }

    /// As the environment says.
    ///
    /// # Errors
    /// See [`Mode::parse`].
    pub fn from_environment() -> Result<Self, Problem> {
        Ok(Self::new(Mode::parse(std::env::var(VARIABLE).ok().as_deref())?))
    }

    /// Milliseconds since the start.
    #[must_use]
    pub fn elapsed_ms(&self) -> f64 {
        (self.start.elapsed().as_secs_f64() * 10_000.0).round() / 10.0
    }

    /// A step is done.
    pub fn step(&self, message: &str) {
        match self.mode {
            Mode::Standard => line(&format!("mirrord: {}", printable(message))),
            Mode::Json => json(&Line::Step { message, elapsed_ms: self.elapsed_ms() }),
            Mode::Off => {}
        }
    }

    /// Something isn't as the user may think.
    pub fn warning(&self, message: &str) {
        let style = Style::new().fg_color(Some(AnsiColor::Yellow.into()));
        match self.mode {
            Mode::Standard => line(&format!("mirrord: {style}warning{style:#}: {}", printable(message))),
            Mode::Json => json(&Line::Warning { message }),
            Mode::Off => {}
        }
    }

    /// The end: also said where progress is off, as no program will speak.
    pub fn problem(&self, problem: &Problem) {
        if self.mode == Mode::Json {
            return json(&Line::Error(problem));
        }
        let red = Style::new().fg_color(Some(AnsiColor::Red.into())).bold();
        let cyan = Style::new().fg_color(Some(AnsiColor::Cyan.into()));
        // Its lines are its own, but what it repeats may come from a pod.
        let text = problem.to_string();
        let text = text.split('\n').map(printable).collect::<Vec<_>>().join("\n");
        let text = text.replacen("error:", &format!("{red}error{red:#}:"), 1);
        line(&text.replacen("\n  help:", &format!("\n  {cyan}help{cyan:#}:"), 1));
    }
}

fn json(value: &Line<'_>) {
    if let Ok(text) = serde_json::to_string(value) {
        line(&text);
    }
}

/// A closed stderr is no reason to fail: there is nobody to tell.
fn line(text: &str) {
    let _ = writeln!(anstream::stderr().lock(), "{text}");
}
