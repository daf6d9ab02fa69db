//! The settings that the programs `preprocess` and `classify` share, each of which runs one service.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use crate::bucket::BucketLocation;

/// Settings for the address of a service and for the bucket. Each service flattens these flags into its
/// configuration.
///
/// `--port` has no default here, because the services have different ones. Each service sets its own default
/// with `mut_arg`:
///
/// ```
/// use clap::Parser;
/// use platform::service::ServiceArgs;
///
/// #[derive(Parser)]
/// #[command(mut_arg("port", |port| port.required(false).default_value("8000")))]
/// struct Config {
///     #[command(flatten)]
///     service: ServiceArgs,
/// }
///
/// let config = Config::try_parse_from(["program", "--bucket", "file:data"])?;
/// assert_eq!(config.service.port, 8000);
/// # Ok::<_, clap::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, clap::Args)]
pub struct ServiceArgs {
    /// Port to listen on; 0 picks a free one
    #[arg(long, env = "PORT")]
    pub port: u16,
    /// Address to listen on
    #[arg(long, env = "HOST", default_value_t = IpAddr::V4(Ipv4Addr::UNSPECIFIED))]
    pub host: IpAddr,
    /// Bucket of images and predictions: NAME or gs://NAME (Cloud Storage), file:PATH (a folder)
    #[arg(long, env = "BUCKET")]
    pub bucket: BucketLocation,
}

impl ServiceArgs {
    /// Returns the address that the service listens on.
    pub fn listen_address(&self) -> SocketAddr {
        SocketAddr::new(self.host, self.port)
    }
}
