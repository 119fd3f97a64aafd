//! A moment of wall-clock time, as it stands in a config.

use std::fmt;
use std::str::FromStr;

use crate::types::ParseError;

/// Whole seconds since 1970, in UTC: `2026-11-23T10:00:00Z` (RFC 3339).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Moment(pub u64);

/// The first second that has no year of four digits.
const END: u64 = 253_402_300_800;

impl fmt::Display for Moment {
    #[allow(clippy::arithmetic_side_effects, reason = "a moment has at most 58 bits of days and seconds")]
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.0.min(END - 1);
        let (days, second) = (seconds / 86_400, seconds % 86_400);
        // Howard Hinnant, "chrono-compatible low-level date algorithms", civil_from_days: years begin in March.
        let z = days + 719_468;
        let (era, doe) = (z / 146_097, z % 146_097);
        let yoe = (doe - doe / 1460 + doe / 36_524 - doe / 146_096) / 365;
        let doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
        let mp = (5 * doy + 2) / 153;
        let day = doy - (153 * mp + 2) / 5 + 1;
        let month = if mp < 10 { mp + 3 } else { mp - 9 };
        let year = yoe + era * 400 + u64::from(month <= 2);
        let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
        write!(f, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
    }
}

impl FromStr for Moment {
    type Err = ParseError;

    fn from_str(s: &str) -> Result<Self, ParseError> {
        let wrong =
            || ParseError(format!("{s:?} is no moment; write one in UTC, like \"2026-11-23T10:00:00Z\""));
        let parsed = parse(s).ok_or_else(wrong)?;
        // What is written back otherwise is a day or an hour that does not exist.
        if parsed.to_string() == s { Ok(parsed) } else { Err(wrong()) }
    }
}

#[allow(clippy::arithmetic_side_effects, reason = "no field has more than four digits")]
fn parse(s: &str) -> Option<Moment> {
    let (date, time) = s.strip_suffix('Z')?.split_once('T')?;
    let field = |text: &str, from: usize, to: usize| text.get(from..to)?.parse::<u64>().ok();
    let (year, month, day) = (field(date, 0, 4)?, field(date, 5, 7)?, field(date, 8, 10)?);
    let (hour, minute, second) = (field(time, 0, 2)?, field(time, 3, 5)?, field(time, 6, 8)?);
    if year < 1970 || !(1..=12).contains(&month) || !(1..=31).contains(&day) {
        return None;
    }
    let y = if month <= 2 { year - 1 } else { year };
    let (era, yoe) = (y / 400, y % 400);
    let doy = (153 * (if month > 2 { month - 3 } else { month + 9 }) + 2) / 5 + day - 1;
    let days = era * 146_097 + yoe * 365 + yoe / 4 - yoe / 100 + doy - 719_468;
    Some(Moment(days * 86_400 + hour * 3600 + minute * 60 + second))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn known_moments_are_written_as_everybody_writes_them() {
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_827_696, "2000-02-29T12:34:56Z"),
            (1_795_428_000, "2026-11-23T10:00:00Z"),
            (END - 1, "9999-12-31T23:59:59Z"),
        ] {
            assert_eq!(Moment(seconds).to_string(), text);
            assert_eq!(text.parse(), Ok(Moment(seconds)));
        }
    }

    #[test]
    fn days_that_do_not_exist_are_refused_with_the_form_to_write() {
        for bad in [
            "",
            "2026-11-23",
            "2026-02-30T00:00:00Z",
            "2026-11-23T24:00:00Z",
            "1969-12-31T23:59:59Z",
            "2026-11-23 10:00:00Z",
            "+026-11-23T10:00:00Z",
            "é026-11-23T10:00:00Z",
        ] {
            assert!(bad.parse::<Moment>().is_err_and(|e| e.0.contains("in UTC")), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn every_moment_survives_being_written(seconds in 0..END) {
            prop_assert_eq!(Moment(seconds).to_string().parse(), Ok(Moment(seconds)));
        }
    }
}
