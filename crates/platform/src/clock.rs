//! Functions that convert timestamps to text and to numbers.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use jiff::Timestamp;

/// Formats `time` as RFC 3339 in UTC with microseconds, such as `2026-03-01T12:00:00.000000Z`.
///
/// A time before 1970 or after the year 9999 is formatted as the start of 1970.
pub fn format_rfc3339(time: SystemTime) -> String {
    let since_epoch = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    let timestamp = Timestamp::try_from(UNIX_EPOCH + since_epoch).unwrap_or(Timestamp::UNIX_EPOCH);
    format!("{timestamp:.6}")
}

/// Returns the milliseconds from the start of 1970 to `time`, or 0 if `time` is earlier.
pub(crate) fn unix_millis(time: SystemTime) -> i64 {
    millis(time.duration_since(UNIX_EPOCH).unwrap_or_default())
}

/// Returns `duration` in whole milliseconds, at most [`i64::MAX`].
pub(crate) fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timestamp_is_utc_with_microseconds() {
        let text =
            |seconds: u64| format_rfc3339(UNIX_EPOCH + Duration::from_micros(seconds * 1_000_000 + 42));
        assert_eq!(text(0), "1970-01-01T00:00:00.000042Z");
        assert_eq!(text(951_782_399), "2000-02-28T23:59:59.000042Z");
        assert_eq!(text(951_782_400), "2000-02-29T00:00:00.000042Z");
        assert_eq!(text(1_709_210_096), "2024-02-29T12:34:56.000042Z");
        assert_eq!(text(4_107_542_400), "2100-03-01T00:00:00.000042Z");
        let with_nanoseconds = UNIX_EPOCH + Duration::from_nanos(1_767_323_045_678_999_999);
        assert_eq!(
            format_rfc3339(with_nanoseconds),
            "2026-01-02T03:04:05.678999Z",
            "the time is truncated to microseconds, not rounded"
        );
        assert_eq!(format_rfc3339(UNIX_EPOCH + Duration::from_secs(5)), "1970-01-01T00:00:05.000000Z");
    }

    #[test]
    fn time_before_1970_becomes_1970() {
        let time = UNIX_EPOCH - Duration::from_secs(1);
        assert_eq!(format_rfc3339(time), "1970-01-01T00:00:00.000000Z");
        assert_eq!(unix_millis(time), 0);
    }

    #[test]
    fn time_after_the_year_9999_becomes_1970() {
        let time = UNIX_EPOCH + Duration::from_secs(400_000_000_000);
        assert_eq!(format_rfc3339(time), "1970-01-01T00:00:00.000000Z");
    }
}
