//! Runs commands to their end, within a time limit.
//!
//! The end is that of the process *and* of its output: whoever leaves a process behind that holds the descriptors
//! meets the limit.

use std::{
    fmt::Write as _,
    io::{Read, Write as _},
    os::unix::process::ExitStatusExt,
    process::{Child, Command, ExitStatus, Stdio},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

/// No command of a test may take longer.
pub const LIMIT: Duration = Duration::from_secs(60);

/// What became of a command.
#[derive(Clone, Debug)]
pub struct Run {
    /// The command, as one would type it.
    pub line: String,
    /// How it ended.
    pub status: ExitStatus,
    /// What it printed.
    pub stdout: Vec<u8>,
    /// What it complained about.
    pub stderr: String,
    /// From start to end.
    pub took: Duration,
}

impl Run {
    /// Runs the command without input.
    pub fn of(command: &mut Command) -> Self {
        Self::with_input(command, &[])
    }

    /// Runs the command; it reads `input`, then end of file.
    pub fn with_input(command: &mut Command, input: &[u8]) -> Self {
        let began = Instant::now();
        let line = line(command);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap_or_else(|error| panic!("`{line}` can't be run: {error}"));
        let mut stdin = child.stdin.take().expect("just piped");
        let input = input.to_owned();
        // A command that doesn't read to the end breaks the pipe: its own affair.
        thread::spawn(move || drop(stdin.write_all(&input)));
        let (stdout, stderr) = outputs(&mut child, &line);
        let status = child.wait().expect("a child can be waited for");
        let stderr = String::from_utf8_lossy(&stderr).into_owned();
        Self { line, status, stdout, stderr, took: began.elapsed() }
    }

    /// Itself; panics with everything known unless the command ended with 0.
    #[must_use]
    #[track_caller]
    pub fn succeeded(self) -> Self {
        assert!(self.status.success(), "{}", self.story());
        self
    }

    /// Itself; panics unless it ended with this code and said all of `words`.
    #[must_use]
    #[track_caller]
    pub fn failed_with(self, code: i32, words: &[&str]) -> Self {
        assert_eq!(self.status.code(), Some(code), "{}", self.story());
        for word in words {
            assert!(self.stderr.contains(word), "no {word:?} in: {}", self.story());
        }
        self
    }

    /// What it printed.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    /// Everything known, for people.
    #[must_use]
    pub fn story(&self) -> String {
        let mut story = format!("$ {}\n{}", self.line, self.text());
        // Writing to a String can't fail.
        let _ = match (self.status.code(), self.status.signal()) {
            (_, Some(signal)) => writeln!(story, "[signal {signal}]"),
            (code, None) => writeln!(story, "[exit {}]", code.unwrap_or_default()),
        };
        story + &self.stderr
    }
}

/// The command as one would type it.
#[must_use]
pub fn line(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    let quoted = words.map(|word| {
        let word = word.to_string_lossy();
        let plain = |letter: char| letter.is_ascii_alphanumeric() || "-_./:=,@%+".contains(letter);
        if !word.is_empty() && word.chars().all(plain) {
            word.into_owned()
        } else if word.contains('\'') {
            format!("\"{word}\"")
        } else {
            format!("'{word}'")
        }
    });
    quoted.collect::<Vec<_>>().join(" ")
}

fn outputs(child: &mut Child, line: &str) -> (Vec<u8>, Vec<u8>) {
    let stdout = read(child.stdout.take().expect("just piped"));
    let stderr = read(child.stderr.take().expect("just piped"));
    let deadline = Instant::now() + LIMIT;
    let mut end = |output: &mpsc::Receiver<Vec<u8>>| {
        output.recv_timeout(deadline.saturating_duration_since(Instant::now())).unwrap_or_else(|_| {
            let _ = child.kill();
            panic!("`{line}` did not end, or left its output open, within {LIMIT:?}")
        })
    };
    (end(&stdout), end(&stderr))
}

fn read(mut from: impl Read + Send + 'static) -> mpsc::Receiver<Vec<u8>> {
    let (all_tx, all_rx) = mpsc::channel();
    thread::spawn(move || {
        let mut all = Vec::new();
        // What came before an error is the output.
        let _ = from.read_to_end(&mut all);
        let _ = all_tx.send(all);
    });
    all_rx
}

/// Polls until `condition` answers; panics with `what` when it doesn't in time.
#[track_caller]
pub fn until<T>(limit: Duration, what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let mut answer = None;
    let came = eventually(limit, || {
        answer = condition();
        answer.is_some()
    });
    assert!(came, "waited {limit:?} for {what}, in vain");
    answer.expect("it came")
}

/// Polls until `condition` holds; says whether it did in time.
pub fn eventually(limit: Duration, mut condition: impl FnMut() -> bool) -> bool {
    let deadline = Instant::now() + limit;
    let (_never_tx, tick) = mpsc::channel::<()>();
    while !condition() {
        if Instant::now() >= deadline {
            return false;
        }
        let _ = tick.recv_timeout(Duration::from_millis(25));
    }
    true
}
