//! A sidecar's life: dormant, awake in a child ([`worker`]), and dormant again.
//!
//! Certificate and gate keys are forgotten with each child and come again with the next call; the newest revision goes
//! along, so that no old announcement counts.

use std::{
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
    process::ExitCode,
    time::{Duration, Instant},
};

use mirrord_protocol::route::RouteId;
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, socket_with, sockopt};
use thiserror::Error;

use crate::{
    awake,
    cli::{Command, Settings, USAGE, UsageError},
    copy::{CopyError, copy},
    dormant::{self, Datagram, Wake},
    identity::{Identity, IdentityError},
    sys::{process, signals::Termination},
    telemetry,
    worker::{self, Ended, Memory},
};

/// From the start of a worker that crashes to the next one, at least.
const CRASH_PAUSE: Duration = Duration::from_secs(1);

/// Why the program stops.
#[derive(Debug, Error)]
pub(crate) enum AgentError {
    #[error(transparent)]
    Usage(#[from] UsageError),
    #[error(transparent)]
    Copy(#[from] CopyError),
    #[error(transparent)]
    Identity(#[from] IdentityError),
    #[error("taking UDP port {port}: {error}")]
    Bind { port: u16, error: io::Error },
    #[error("waiting for the control plane: {0}")]
    Wait(#[from] io::Error),
}

/// Does what the command line says.
pub(crate) fn command(command: Command) -> Result<(), AgentError> {
    match command {
        Command::Copy(folder) => Ok(copy(&folder)?),
        Command::Serve(settings) => serve(&settings),
        Command::Help => print(USAGE),
        Command::Version => print(concat!("mirrord-agent ", env!("CARGO_PKG_VERSION"))),
    }
}

fn print(text: &str) -> Result<(), AgentError> {
    use io::Write as _;
    Ok(writeln!(io::stdout(), "{text}")?)
}

fn serve(settings: &Settings) -> Result<(), AgentError> {
    telemetry::choose(settings.log_format);
    let termination = Termination::watch()?;
    let identity = Identity::load(&settings.identity, &settings.container)?;
    let socket = listen(settings.port).map_err(|error| AgentError::Bind { port: settings.port, error })?;
    let mut memory = Memory::default();
    let mut crashed = false;
    loop {
        // Fails only on kernels that never glue datagrams together.
        let _ = process::separate_datagrams(&socket);
        // Peers of a worker that crashed are to learn it now, not by waiting: another one takes its place.
        let early = if crashed { Some(Vec::new()) } else { sleep(&socket, &termination, identity.route)? };
        let Some(early) = early else { return Ok(()) };
        let past = memory;
        let began = Instant::now();
        let work = |diary| match awake::run(settings, &identity, &socket, &termination, early, (past, diary))
        {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                tracing::error!(%error, "can't serve");
                ExitCode::FAILURE
            }
        };
        crashed = match worker::run(work, &termination, &mut memory)? {
            Ended::Stopped => return Ok(()),
            Ended::Rested => false,
            Ended::Crashed(status) => {
                tracing::error!(?status, "crashed; starting again");
                // Not faster than that, whatever it is that makes it crash.
                if termination.within(CRASH_PAUSE.saturating_sub(began.elapsed()))? {
                    return Ok(());
                }
                true
            }
        };
    }
}

/// Waits for a call; `None` where the pod stops.
fn sleep(socket: &UdpSocket, termination: &Termination, route: RouteId) -> io::Result<Option<Vec<Datagram>>> {
    tracing::info!(port = socket.local_addr()?.port(), %route, "dormant");
    Ok(match dormant::wait(socket, termination, route)? {
        Wake::Called(early) => Some(early),
        Wake::Stopped => None,
    })
}

/// A socket for both families, or for IPv4 where the kernel has no other.
fn listen(port: u16) -> io::Result<UdpSocket> {
    let both = || -> io::Result<UdpSocket> {
        let socket = socket_with(AddressFamily::INET6, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?;
        sockopt::set_ipv6_v6only(&socket, false)?;
        bind(&socket, &SocketAddr::from((Ipv6Addr::UNSPECIFIED, port)))?;
        Ok(socket.into())
    };
    both().or_else(|error| match error.kind() {
        io::ErrorKind::AddrInUse => Err(error),
        _ => UdpSocket::bind((Ipv4Addr::UNSPECIFIED, port)),
    })
}
