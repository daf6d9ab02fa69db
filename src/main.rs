//! `image-pipeline`: parse the configuration, build, run until SIGTERM or Ctrl-C.

use std::net::SocketAddr;

use image_pipeline::{Config, Pipeline};
use platform::{config, shutdown};

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let config: Config = config::parse_or_exit();
    config.log.init();

    let pipeline = Pipeline::build(config).await?;
    let (upload, classify) = (pipeline.preprocess_addr(), pipeline.classify_addr());
    let readiness = pipeline.classify_readiness();
    tokio::spawn(async move {
        if readiness.wait_ready().await.is_some() {
            greet(upload, classify);
        }
    });
    pipeline.run(shutdown::stop_on_signal()).await
}

/// Tells a person what to type next.
#[expect(clippy::print_stdout, reason = "this is for the person at the terminal, not for the log")]
fn greet(upload: SocketAddr, classify: SocketAddr) {
    println!(
        "\nReady. Send a photo, then ask for its prediction with the id from the answer:\n\
         \n  curl -F file=@samples/coffee.jpg http://{upload}/preprocess\
         \n  curl \"http://{upload}/predictions/ID?wait=10\"\n\
         \nOr classify one without storing it:\n\
         \n  curl -F file=@samples/coffee.jpg http://{classify}/classify\n"
    );
}
