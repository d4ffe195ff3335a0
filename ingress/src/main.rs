//! See the library.
#![forbid(unsafe_code)]

use std::process::ExitCode;

use clap::Parser;
use mirrord_ingress::{run::run, settings::Settings};
use mirrord_telemetry::log;

fn main() -> ExitCode {
    let settings = Settings::parse();
    log::install(settings.log_format);
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            tracing::error!(%error, "cannot start");
            return ExitCode::FAILURE;
        }
    };
    match runtime.block_on(run(settings)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(%error, "cannot start");
            ExitCode::FAILURE
        }
    }
}
