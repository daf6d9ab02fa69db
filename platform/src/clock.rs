//! Points in time as text and as numbers.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// RFC 3339 in UTC with microseconds, such as `2026-03-01T12:00:00.000000Z`. A time before 1970 is
/// written as the start of 1970.
pub(crate) fn rfc3339(time: SystemTime) -> String {
    let since_epoch = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    let seconds = since_epoch.as_secs();
    let (year, month, day) = civil_date(seconds / 86_400);
    let (hour, minute, second) = (seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
    let micros = since_epoch.subsec_micros();
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{micros:06}Z")
}

/// Milliseconds since the start of 1970, which is how times are kept in files.
pub(crate) fn unix_millis(time: SystemTime) -> i64 {
    millis(time.duration_since(UNIX_EPOCH).unwrap_or_default())
}

/// A duration in milliseconds.
pub(crate) fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

/// Year, month and day of the Gregorian calendar, `days` after 1970-01-01.
///
/// Years are counted from March, so that the leap day is a year's last day and every month's start
/// follows from one linear formula.
fn civil_date(days: u64) -> (u64, u64, u64) {
    const DAYS_OF_400_YEARS: u64 = 146_097;
    let since_march_0000 = days + 719_468;
    let era = since_march_0000 / DAYS_OF_400_YEARS;
    let day_of_era = since_march_0000 % DAYS_OF_400_YEARS;
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    (year, month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_dates() {
        let text = |seconds: u64| rfc3339(UNIX_EPOCH + Duration::from_micros(seconds * 1_000_000 + 42));
        assert_eq!(text(0), "1970-01-01T00:00:00.000042Z");
        assert_eq!(text(951_782_399), "2000-02-28T23:59:59.000042Z");
        assert_eq!(text(951_782_400), "2000-02-29T00:00:00.000042Z");
        assert_eq!(text(951_868_800), "2000-03-01T00:00:00.000042Z");
        assert_eq!(text(1_709_210_096), "2024-02-29T12:34:56.000042Z");
        assert_eq!(text(4_107_542_400), "2100-03-01T00:00:00.000042Z");
    }

    #[test]
    fn every_day_of_400_years_follows_the_one_before() {
        let mut last = civil_date(0);
        for days in 1..=146_097 {
            let (year, month, day) = civil_date(days);
            let next_day = (last.0, last.1, last.2 + 1) == (year, month, day);
            let next_month = day == 1
                && last.2 >= 28
                && ((last.0, last.1 + 1) == (year, month) || (month, year, last.1) == (1, last.0 + 1, 12));
            assert!(next_day || next_month, "{last:?} then {:?}", (year, month, day));
            last = (year, month, day);
        }
    }

    #[test]
    fn before_1970_is_1970() {
        let time = UNIX_EPOCH - Duration::from_secs(1);
        assert_eq!(rfc3339(time), "1970-01-01T00:00:00.000000Z");
        assert_eq!(unix_millis(time), 0);
    }
}
