//! Who still needs the proxy, and for how long it lingers.
//!
//! Each connection of a layer and each program that `exec` started is a [`Hold`]. In place of a program, its process
//! is watched by a pidfd (pidfd_open(2)): `exec` keeps its pid, so the hold lasts as long as the program, also before
//! its layer first calls. After the last hold the proxy lingers, and ends if nobody comes.

use std::{os::fd::OwnedFd, time::Duration};

use rustix::process::{Pid, PidfdFlags, pidfd_open};
use tokio::{io::unix::AsyncFd, sync::watch, time::timeout};

/// How long a proxy waits for its first user at least.
const FIRST: Duration = Duration::from_secs(20);

/// Counts.
#[derive(Clone, Debug)]
pub struct Holds(watch::Sender<usize>);

/// One who needs the proxy, until dropped.
#[derive(Debug)]
#[must_use]
pub struct Hold(watch::Sender<usize>);

impl Default for Holds {
    fn default() -> Self {
        Self(watch::Sender::new(0))
    }
}

impl Holds {
    /// One more.
    pub fn hold(&self) -> Hold {
        self.0.send_modify(|count| *count += 1);
        Hold(self.0.clone())
    }

    /// How many.
    #[must_use]
    pub fn count(&self) -> usize {
        *self.0.borrow()
    }

    /// Holds for as long as a process lives.
    ///
    /// # Errors
    /// Where there is no such process, or the kernel has no pidfds.
    #[expect(
        deprecated,
        reason = "the safe constructor; what it is deprecated for can't happen with an OwnedFd"
    )]
    pub fn watch(&self, process: i32) -> std::io::Result<()> {
        let process = Pid::from_raw(process).ok_or(rustix::io::Errno::SRCH)?;
        let descriptor: AsyncFd<OwnedFd> = AsyncFd::new(pidfd_open(process, PidfdFlags::NONBLOCK)?)?;
        let hold = self.hold();
        tokio::spawn(async move {
            // Readable means: it ended.
            let _ = descriptor.readable().await;
            drop(hold);
        });
        Ok(())
    }

    /// Waits until nobody holds it.
    pub async fn free(&self) {
        let _ = self.0.subscribe().wait_for(|count| *count == 0).await;
    }

    /// Waits until nobody has held it for so long; for the first it waits in any case.
    pub async fn idle(&self, linger: Duration) {
        let mut count = self.0.subscribe();
        let _ = timeout(FIRST.max(linger), count.wait_for(|count| *count > 0)).await;
        loop {
            self.free().await;
            if timeout(linger, count.wait_for(|count| *count > 0)).await.is_err() {
                return;
            }
        }
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.0.send_modify(|count| *count -= 1);
    }
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use tokio::time::Instant;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn it_lingers_after_the_last_and_ends_when_nobody_comes() {
        let holds = Holds::default();
        let linger = Duration::from_secs(600);
        let first = holds.hold();
        let start = Instant::now();
        let idle = tokio::spawn({
            let holds = holds.clone();
            async move { holds.idle(linger).await }
        });
        tokio::time::advance(Duration::from_secs(3600)).await;
        assert!(!idle.is_finished(), "it is held");
        drop(first);
        tokio::time::advance(Duration::from_secs(300)).await;
        drop(holds.hold());
        idle.await.unwrap();
        assert_eq!((Instant::now() - start).as_secs(), 3600 + 300 + 600);
    }

    #[tokio::test(start_paused = true)]
    async fn without_lingering_it_still_waits_for_the_first() {
        let holds = Holds::default();
        let start = Instant::now();
        holds.idle(Duration::ZERO).await;
        assert_eq!(Instant::now() - start, FIRST);
    }

    #[tokio::test]
    async fn a_process_holds_it_until_it_ends() {
        let holds = Holds::default();
        let mut child = Command::new("cat").stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
        holds.watch(i32::try_from(child.id()).unwrap()).unwrap();
        assert_eq!(holds.count(), 1);
        drop(child.stdin.take());
        child.wait().unwrap();
        let mut count = holds.0.subscribe();
        timeout(Duration::from_secs(10), count.wait_for(|count| *count == 0)).await.unwrap().unwrap();
        assert!(holds.watch(0).is_err());
    }
}
