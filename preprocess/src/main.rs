//! The program `preprocess`, which parses the configuration, builds the service, and runs the service until
//! SIGTERM or SIGINT arrives.

use platform::{config, shutdown};
use preprocess::{Application, Config};

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let config: Config = config::parse_or_exit();
    config.log.init();
    let application = Application::build(config).await?;
    application.run(shutdown::stop_on_signal()).await;
    Ok(())
}
