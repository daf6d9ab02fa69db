//! The program `preprocess`: parse the configuration, build the service, run it.

use platform::{config, telemetry};
use preprocess::{Application, Config};
use tokio_util::sync::CancellationToken;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let config: Config = config::parse_or_exit();
    config.log.init();
    let application = Application::build(config).await?;
    let stop = CancellationToken::new();
    let signalled = stop.clone();
    tokio::spawn(async move {
        telemetry::shutdown_signal().await;
        signalled.cancel();
    });
    application.run(stop).await
}
