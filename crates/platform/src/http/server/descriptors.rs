//! The number of file descriptors that this process may have, and the number of connections that follows.

use super::settings::{MAX_CLOSING_CONNECTIONS, RESERVED_CONNECTIONS};

/// Descriptors of a service's connections that are not part of its maximum.
const EXTRA_CONNECTIONS: usize = RESERVED_CONNECTIONS + MAX_CLOSING_CONNECTIONS;

/// Descriptors that connections leave to files, SQLite and HTTP clients.
const DESCRIPTORS_FOR_OTHER_USES: u64 = 256;

/// Raises the soft limit on open descriptors to the hard limit, and returns the limit that applies then.
///
/// Returns `None` if there is no limit.
#[cfg(unix)]
pub(super) fn raise_limit() -> Option<u64> {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current == maximum {
        return current;
    }
    match setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }) {
        Ok(()) => maximum,
        Err(error) => {
            tracing::debug!(%error, ?current, ?maximum, "the limit on open files cannot be raised");
            current
        }
    }
}

/// Returns `None`, because this system has no limit on open descriptors.
#[cfg(not(unix))]
pub(super) fn raise_limit() -> Option<u64> {
    None
}

/// Returns the number of connections for each of `service_count` services in a process that may have
/// `descriptor_limit` descriptors.
///
/// Other uses keep [`DESCRIPTORS_FOR_OTHER_USES`] descriptors, or half of them if there are fewer than twice
/// as many. The result is at least 1 and does not include [`EXTRA_CONNECTIONS`].
pub(super) fn max_connections(descriptor_limit: u64, service_count: usize) -> usize {
    let for_connections = descriptor_limit - DESCRIPTORS_FOR_OTHER_USES.min(descriptor_limit / 2);
    let for_service = usize::try_from(for_connections).unwrap_or(usize::MAX) / service_count.max(1);
    for_service.saturating_sub(EXTRA_CONNECTIONS).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_of_all_services_leave_descriptors_for_other_uses() {
        assert_eq!(max_connections(1024, 1), 1024 - 256 - EXTRA_CONNECTIONS);
        assert_eq!(max_connections(1024, 2), (1024 - 256) / 2 - EXTRA_CONNECTIONS);
        assert_eq!(max_connections(256, 1), 128 - EXTRA_CONNECTIONS);
        assert_eq!(max_connections(20, 2), 1);
        assert_eq!(max_connections(0, 1), 1);
    }

    #[cfg(unix)]
    #[test]
    fn raised_limit_is_the_hard_limit() {
        use rustix::process::{Resource, getrlimit};
        let raised = raise_limit();
        let limit = getrlimit(Resource::Nofile);
        assert_eq!(raised, limit.current);
        assert_eq!(limit.current, limit.maximum);
    }
}
