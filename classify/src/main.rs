//! The program `classify`, which runs the service until SIGTERM or SIGINT.

use classify::{Application, Config};
use platform::{config::parse_or_exit, shutdown};

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let config: Config = parse_or_exit();
    config.log.init();
    Application::build(config).await?.run(shutdown::stop_on_signal()).await
}
