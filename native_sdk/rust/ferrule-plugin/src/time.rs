//! The time of day, as records carry it.

use std::fmt;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::ser::{Serialize, Serializer};

/// Now, in UTC: `2026-03-01T12:34:56.123456Z`.
///
/// ```
/// let text = ferrule_plugin::now_rfc3339().to_string();
/// assert!(text.starts_with("20") && text.ends_with('Z') && text.len() == 27);
/// ```
pub fn now_rfc3339() -> Timestamp {
    SystemTime::now().into()
}

/// Nanoseconds of the system's monotonic clock: the one that Python's `time.monotonic_ns()` tells, so that a moment in a
/// plugin and one in the program that holds it can be compared.
///
/// ```
/// let before = ferrule_plugin::monotonic_ns();
/// assert!(ferrule_plugin::monotonic_ns() >= before);
/// ```
pub fn monotonic_ns() -> u64 {
    monotonic::now()
}

#[cfg(all(unix, not(target_vendor = "apple")))]
mod monotonic {
    use std::ffi::{c_int, c_long};

    #[repr(C)]
    #[derive(Default)]
    struct Time {
        seconds: c_long,
        nanoseconds: c_long,
    }

    const CLOCK_MONOTONIC: c_int = if cfg!(target_os = "linux") || cfg!(target_os = "android") { 1 } else { 4 }; // BSD's

    unsafe extern "C" {
        fn clock_gettime(clock: c_int, time: *mut Time) -> c_int;
    }

    pub(super) fn now() -> u64 {
        let mut time = Time::default();
        // SAFETY: the system's function, and a place for what it tells.
        unsafe { clock_gettime(CLOCK_MONOTONIC, &mut time) };
        time.seconds as u64 * 1_000_000_000 + time.nanoseconds as u64
    }
}

#[cfg(target_vendor = "apple")]
mod monotonic {
    unsafe extern "C" {
        safe fn clock_gettime_nsec_np(clock: u32) -> u64;
    }

    pub(super) fn now() -> u64 {
        clock_gettime_nsec_np(8) // CLOCK_UPTIME_RAW, which is mach_absolute_time
    }
}

#[cfg(windows)]
mod monotonic {
    unsafe extern "system" {
        fn QueryPerformanceCounter(count: *mut i64) -> i32;
        fn QueryPerformanceFrequency(frequency: *mut i64) -> i32;
    }

    pub(super) fn now() -> u64 {
        let (mut count, mut frequency) = (0, 1);
        // SAFETY: the system's functions, and places for what they tell; neither fails since Windows XP.
        unsafe {
            QueryPerformanceCounter(&mut count);
            QueryPerformanceFrequency(&mut frequency);
        }
        (count as u128 * 1_000_000_000 / frequency as u128) as u64
    }
}

/// A moment that is written as RFC 3339 in UTC with microseconds. It allocates nothing.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp([u8; 27]);

impl Timestamp {
    /// `2026-03-01T12:34:56.123456Z`
    pub fn as_str(&self) -> &str {
        // SAFETY: ASCII, as `from` writes it: that is not looked at for every record.
        unsafe { std::str::from_utf8_unchecked(&self.0) }
    }
}

/// Moments before 1970 are 1970, and those after the year 9999 its end: RFC 3339 has four digits.
impl From<SystemTime> for Timestamp {
    fn from(time: SystemTime) -> Self {
        let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
        let (seconds, micros) = match since.as_secs() {
            seconds @ 0..=253_402_300_799 => (seconds, since.subsec_micros()),
            _ => (253_402_300_799, 999_999),
        };
        let (year, month, day) = civil((seconds / 86_400) as u32);
        let second = (seconds % 86_400) as u32;
        let mut text = *b"0000-00-00T00:00:00.000000Z";
        let mut pair = |at: usize, number: u32| {
            text[at] = b'0' + (number / 10) as u8;
            text[at + 1] = b'0' + (number % 10) as u8;
        };
        pair(0, year / 100);
        pair(2, year % 100);
        pair(5, month);
        pair(8, day);
        pair(11, second / 3600);
        pair(14, second / 60 % 60);
        pair(17, second % 60);
        pair(20, micros / 10_000);
        pair(22, micros / 100 % 100);
        pair(24, micros % 100);
        Self(text)
    }
}

/// Year, month and day of a day counted from 1970-01-01. Howard Hinnant, "chrono-Compatible Low-Level Date
/// Algorithms": a year that begins in March has its leap day at the end.
fn civil(day: u32) -> (u32, u32, u32) {
    let day = day + 719_468; // 0000-03-01
    let (era, of_era) = (day / 146_097, day % 146_097);
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let from_march = (5 * of_year + 2) / 153;
    let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
    let year = era * 400 + year_of_era + u32::from(month <= 2);
    (year, month, of_year - (153 * from_march + 2) / 5 + 1)
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl fmt::Debug for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn at(seconds: u64, nanos: u32) -> String {
        Timestamp::from(UNIX_EPOCH + Duration::new(seconds, nanos)).to_string()
    }

    /// Known moments, leap days and the ends of the range among them.
    #[test]
    fn known_moments() {
        assert_eq!(at(0, 0), "1970-01-01T00:00:00.000000Z");
        assert_eq!(at(951_782_400, 1_000), "2000-02-29T00:00:00.000001Z");
        assert_eq!(at(1_709_251_199, 999_999_999), "2024-02-29T23:59:59.999999Z");
        assert_eq!(at(4_107_542_400, 0), "2100-03-01T00:00:00.000000Z");
        assert_eq!(at(253_402_300_800, 0), "9999-12-31T23:59:59.999999Z");
        assert_eq!(Timestamp::from(UNIX_EPOCH - Duration::from_secs(1)).as_str(), at(0, 0));
    }

    /// Every day of 400 years follows its forerunner as the calendar says.
    #[test]
    fn days_follow_each_other() {
        let mut expected = (1970, 1, 1);
        for day in 0..146_097 {
            assert_eq!(civil(day), expected);
            let (year, month, of_month) = expected;
            let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
            let last = [31, 28 + u32::from(leap), 31, 30, 31, 30, 31, 31, 30, 31, 30, 31][month as usize - 1];
            expected = match (month, of_month) {
                (12, 31) => (year + 1, 1, 1),
                _ if of_month == last => (year, month + 1, 1),
                _ => (year, month, of_month + 1),
            };
        }
    }
}
