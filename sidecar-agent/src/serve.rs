//! A sidecar's life: dormant, awake, and dormant again.
//!
//! The way back is an exec of the same program with the bound socket left open: only that returns *everything* to the
//! kernel (heap and its fragments, thread stacks, touched pages of the program), without trusting any library to let
//! go, and a dormant sidecar is the same whether it ever served or not. Certificate and gate keys are forgotten and
//! come again with the next call; the newest revision goes along, so that no old announcement counts.

use std::{
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
};

use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, socket_with, sockopt};
use thiserror::Error;

use crate::{
    awake::{self, Outcome, WakeError},
    cli::{Command, INHERIT, Settings, USAGE, UsageError},
    copy::{CopyError, copy},
    dormant::{self, Wake},
    identity::{Identity, IdentityError},
    sys::{process, signals::Termination},
};

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
    #[error(transparent)]
    Wake(#[from] WakeError),
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
    let termination = Termination::watch()?;
    let identity = Identity::load(&settings.identity, &settings.container)?;
    let socket = match settings.inherited {
        Some(inherited) => process::inherit_socket(inherited.socket)?,
        None => listen(settings.port).map_err(|error| AgentError::Bind { port: settings.port, error })?,
    };
    let mut revision = settings.inherited.map_or(0, |inherited| inherited.revision);
    loop {
        // Fails only on kernels that never glue datagrams together.
        let _ = process::separate_datagrams(&socket);
        tracing::info!(port = socket.local_addr()?.port(), route = %identity.route, "dormant");
        let early = match dormant::wait(&socket, &termination, identity.route)? {
            Wake::Called(early) => early,
            Wake::Stopped => return Ok(()),
        };
        match awake::run(settings, &identity, &socket, &termination, early, revision)? {
            Outcome::Stopped => return Ok(()),
            Outcome::Rest { revision: newest } => revision = newest,
        }
        let error = start_over(settings, &socket, revision);
        tracing::warn!(%error, "starting over; staying as it is");
    }
}

/// Becomes dormant by exec; returns only where that fails.
fn start_over(settings: &Settings, socket: &UdpSocket, revision: u64) -> io::Error {
    let number = match process::bequeath(socket) {
        Ok(number) => number,
        Err(error) => return error,
    };
    let mut arguments = settings.arguments.clone();
    arguments.extend([INHERIT.into(), format!("{number}:{revision}").into()]);
    process::start_over(&arguments)
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
