//! The service on its own: parse the configuration, build, run until SIGTERM or SIGINT.

use classify::{Application, Config};
use platform::{config::parse_or_exit, telemetry};
use tokio_util::sync::CancellationToken;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let config: Config = parse_or_exit();
    config.log.init();

    let stop = CancellationToken::new();
    tokio::spawn({
        let stop = stop.clone();
        async move {
            telemetry::shutdown_signal().await;
            stop.cancel();
        }
    });
    Application::build(config).await?.run(stop).await
}
