//! The program `image-pipeline`: parses its configuration and runs the pipeline until SIGTERM or Ctrl-C.

use std::{net::SocketAddr, process::ExitCode};

use image_pipeline::{Config, Pipeline};
use platform::{config, shutdown};

fn main() -> ExitCode {
    let config: Config = config::parse_or_exit();
    config.log.init();
    shutdown::run_program(run(config))
}

async fn run(config: Config) -> anyhow::Result<()> {
    let pipeline = Pipeline::build(config).await?;
    let (preprocess_addr, classify_addr) = (pipeline.preprocess_addr(), pipeline.classify_addr());
    let readiness = pipeline.classify_readiness();
    tokio::spawn(async move {
        if readiness.wait_ready().await.is_some() {
            print_first_steps(preprocess_addr, classify_addr);
        }
    });
    pipeline.run(shutdown::stop_on_signal()).await
}

/// Prints the commands with which a user gets a first prediction.
#[expect(clippy::print_stdout, reason = "these lines are for the person at the terminal, not for the log")]
fn print_first_steps(preprocess_addr: SocketAddr, classify_addr: SocketAddr) {
    println!(
        "\nReady. Upload a photo, then request its prediction with the id from the response:\n\
         \n  curl -F file=@samples/coffee.jpg http://{preprocess_addr}/preprocess\
         \n  curl \"http://{preprocess_addr}/predictions/ID?wait=10\"\n\
         \nOr classify a photo without storing it:\n\
         \n  curl -F file=@samples/coffee.jpg http://{classify_addr}/classify\n"
    );
}
