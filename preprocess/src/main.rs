//! The program `preprocess`, which parses the configuration, builds the service, and runs the service until
//! SIGTERM or SIGINT arrives.

use std::process::ExitCode;

use platform::{config, shutdown};
use preprocess::{Application, Config};

fn main() -> ExitCode {
    let config: Config = config::parse_or_exit();
    config.log.init();
    shutdown::run_program(async {
        let application = Application::build(config).await?;
        application.run(shutdown::stop_on_signal()).await;
        anyhow::Ok(())
    })
}
