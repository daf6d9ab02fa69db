//! The program `classify`, which runs the service until SIGTERM or SIGINT.

use std::process::ExitCode;

use classify::{Application, Config};
use platform::{config::parse_or_exit, shutdown};

fn main() -> ExitCode {
    let config: Config = parse_or_exit();
    config.log.init();
    shutdown::run_program(async {
        let application = Application::build(config).await?;
        application.run(shutdown::stop_on_signal()).await
    })
}
