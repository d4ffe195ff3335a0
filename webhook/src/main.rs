//! Parses, builds, runs, and maps errors to an exit code.

use std::process::ExitCode;

use clap::Parser;
use mirrord_telemetry::log;
use mirrord_webhook::{control_plane, self_test, settings::Settings};

#[tokio::main]
async fn main() -> ExitCode {
    if std::env::args_os().nth(1).is_some_and(|word| word == "self-test") {
        return self_test().await;
    }
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

async fn self_test() -> ExitCode {
    let settings = self_test::Settings::parse_from(std::env::args_os().skip(1));
    match self_test::run(&settings).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("failed: {error}");
            ExitCode::FAILURE
        }
    }
}
