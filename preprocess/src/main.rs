//! The program `preprocess`: parse the configuration, build the service, run it.

use platform::{config, shutdown};
use preprocess::{Application, Config};

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let config: Config = config::parse_or_exit();
    config.log.init();
    let application = Application::build(config).await?;
    application.run(shutdown::stop_on_signal()).await
}
