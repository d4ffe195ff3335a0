//! Parses, builds, runs, and maps errors to an exit code.

use std::process::ExitCode;

use clap::Parser;
use mirrord_telemetry::log;
use mirrord_webhook::{control_plane, settings::Settings};

#[tokio::main]
async fn main() -> ExitCode {
    let settings = Settings::parse();
    log::install(settings.log_format);
    match control_plane::run(settings).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error}");
            ExitCode::FAILURE
        }
    }
}
