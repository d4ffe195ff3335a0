//! The demo's manner of speaking: chapters, commands with what they print, and marks for what was expected.

use std::process::ExitCode;

use crate::{cluster::mirrord, run::Run};

/// A story that is told while it happens.
#[derive(Debug, Default)]
pub struct Story {
    chapters: Vec<(String, bool)>,
}

impl Story {
    /// Opens a chapter.
    pub fn chapter(&mut self, title: &str) {
        println!("\n\x1b[1m{}. {title}\x1b[0m\n", self.chapters.len() + 1);
        self.chapters.push((title.to_owned(), true));
    }

    /// A sentence in between.
    pub fn tell(&self, sentence: &str) {
        println!("  \x1b[2m{sentence}\x1b[0m");
    }

    /// Shows a command, as one would type it.
    pub fn command(&self, line: &str) {
        println!("  \x1b[36m$ {}\x1b[0m", line.replace(&*mirrord().to_string_lossy(), "mirrord"));
    }

    /// Shows a command and what it printed; `keep` says which lines are worth it.
    pub fn show(&self, run: &Run, keep: impl Fn(&str) -> bool) {
        self.command(&run.line);
        let (shown, hidden): (Vec<_>, Vec<_>) =
            run.text().lines().map(str::to_owned).partition(|line| keep(line));
        shown.iter().for_each(|line| println!("    {line}"));
        if !hidden.is_empty() {
            println!("    \x1b[2m… and {} more lines\x1b[0m", hidden.len());
        }
        run.stderr.lines().for_each(|line| println!("    \x1b[33m{line}\x1b[0m"));
        println!("    \x1b[2m[{}, {:.0?}]\x1b[0m", run.status, run.took);
    }

    /// Shows a command and all that it printed.
    pub fn show_all(&self, run: &Run) {
        self.show(run, |_| true);
    }

    /// Marks whether something is as it must be.
    pub fn expect(&mut self, what: &str, holds: bool) {
        println!("  {} {what}", if holds { "\x1b[32m✓\x1b[0m" } else { "\x1b[31m✗\x1b[0m" });
        if let Some((_, chapter)) = self.chapters.last_mut() {
            *chapter &= holds;
        }
    }

    /// Sums up.
    #[must_use]
    pub fn end(self) -> ExitCode {
        println!("\n\x1b[1mResults\x1b[0m\n");
        for (number, (title, holds)) in self.chapters.iter().enumerate() {
            println!(
                "  {} {}. {title}",
                if *holds { "\x1b[32m✓\x1b[0m" } else { "\x1b[31m✗\x1b[0m" },
                number + 1
            );
        }
        ExitCode::from(u8::from(!self.chapters.iter().all(|(_, holds)| *holds)))
    }
}
