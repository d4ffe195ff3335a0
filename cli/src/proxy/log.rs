//! A log of bounded size: when it is full it starts anew, so that a proxy that runs for days fills no disk.

use std::{
    fs::File,
    io::{self, Seek, SeekFrom, Write},
    path::Path,
    sync::Mutex,
};

use tracing_subscriber::EnvFilter;

/// Bytes after which it starts anew.
const LIMIT: u64 = 1024 * 1024;

/// The file.
#[derive(Debug)]
pub struct Bounded {
    file: File,
    limit: u64,
    written: u64,
}

impl Bounded {
    /// Starts a log.
    ///
    /// # Errors
    /// As the kernel says.
    pub fn create(path: &Path, limit: u64) -> io::Result<Self> {
        Ok(Self { file: File::create(path)?, limit, written: 0 })
    }
}

impl Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.written + bytes.len() as u64 > self.limit {
            self.file.set_len(0)?;
            self.file.seek(SeekFrom::Start(0))?;
            self.written = 0;
        }
        let count = self.file.write(bytes)?;
        self.written += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// Sends this process's log there; `MIRRORD_LOG` filters it.
///
/// # Errors
/// As the kernel says.
pub fn start(path: &Path) -> io::Result<()> {
    let filter =
        EnvFilter::try_from_env("MIRRORD_LOG").unwrap_or_else(|_| EnvFilter::new("warn,mirrord_cli=info"));
    let file = Bounded::create(path, LIMIT)?;
    tracing_subscriber::fmt().with_env_filter(filter).with_ansi(false).with_writer(Mutex::new(file)).init();
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_log_starts_anew() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let mut log = Bounded::create(&path, 10).unwrap();
        for line in ["one\n", "two\n", "three\n"] {
            log.write_all(line.as_bytes()).unwrap();
        }
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "three\n");
    }
}
