//! [`BindError`] says why an address cannot be bound and which setting to change.

use std::{io, net::SocketAddr};

/// The error of a server that cannot listen on its address.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address} ({setting}): {reason}")]
pub struct BindError {
    address: SocketAddr,
    setting: &'static str,
    reason: String,
    source: io::Error,
}

impl BindError {
    /// Creates the error for `address`, whose port comes from the setting `port_setting`.
    pub(super) fn new(address: SocketAddr, port_setting: &'static str, source: io::Error) -> Self {
        let (setting, reason) = match source.kind() {
            io::ErrorKind::AddrInUse => (
                port_setting,
                format!("the address is already in use; end the program that uses it, or set {port_setting} to another port"),
            ),
            io::ErrorKind::PermissionDenied => (
                port_setting,
                format!("this port is not permitted; set {port_setting} to a port above 1023"),
            ),
            io::ErrorKind::AddrNotAvailable => (
                "HOST",
                "this machine does not have the address; set HOST to an address of this machine, or to 0.0.0.0 for all"
                    .to_owned(),
            ),
            _ => (port_setting, "the system refused it".to_owned()),
        };
        Self { address, setting, reason, source }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn error_names_the_setting_that_solves_it() {
        let text = |kind: io::ErrorKind| {
            BindError::new(([127, 0, 0, 1], 80).into(), "CLASSIFY_PORT", kind.into()).to_string()
        };
        assert_eq!(
            text(io::ErrorKind::AddrInUse),
            "cannot listen on 127.0.0.1:80 (CLASSIFY_PORT): the address is already in use; end the program that \
             uses it, or set CLASSIFY_PORT to another port"
        );
        assert_eq!(
            text(io::ErrorKind::PermissionDenied),
            "cannot listen on 127.0.0.1:80 (CLASSIFY_PORT): this port is not permitted; set CLASSIFY_PORT to a \
             port above 1023"
        );
        assert!(text(io::ErrorKind::AddrNotAvailable).starts_with("cannot listen on 127.0.0.1:80 (HOST): "));
        assert!(text(io::ErrorKind::Other).contains("(CLASSIFY_PORT)"));
    }
}
