//! Bytes and rates: the one place where sizes are parsed and printed, and how many of something fit. It knows no model and no machine.

use std::fmt;
use std::iter::Sum;
use std::ops::{Add, AddAssign, Mul, Sub};
use std::str::FromStr;

/// A number of bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
#[serde(transparent)]
pub struct Bytes(pub u64);

/// 1024 bytes.
pub const KIB: Bytes = Bytes(1 << 10);
/// 1024 KiB.
pub const MIB: Bytes = Bytes(1 << 20);
/// 1024 MiB.
pub const GIB: Bytes = Bytes(1 << 30);

impl Bytes {
    /// No bytes.
    pub const ZERO: Bytes = Bytes(0);

    /// The same number as a `usize`; saturates where addresses are narrower.
    pub fn usize(self) -> usize {
        usize::try_from(self.0).unwrap_or(usize::MAX)
    }

    /// The same number as a float, for rates.
    #[expect(clippy::cast_precision_loss, reason = "rates need no exact bytes above 2^53")]
    pub fn f64(self) -> f64 {
        self.0 as f64
    }

    /// Subtraction that stops at zero.
    pub fn saturating_sub(self, other: Bytes) -> Bytes {
        Bytes(self.0.saturating_sub(other.0))
    }

    /// Rounded up to a multiple of `align`, a power of two.
    pub fn align_up(self, align: u64) -> Bytes {
        debug_assert!(align.is_power_of_two());
        Bytes(self.0.saturating_add(align - 1) & !(align - 1))
    }
}

impl From<usize> for Bytes {
    fn from(n: usize) -> Bytes {
        Bytes(n as u64)
    }
}

impl Add for Bytes {
    type Output = Bytes;
    fn add(self, other: Bytes) -> Bytes {
        Bytes(self.0.saturating_add(other.0))
    }
}

impl AddAssign for Bytes {
    fn add_assign(&mut self, other: Bytes) {
        *self = *self + other;
    }
}

impl Sub for Bytes {
    type Output = Bytes;
    fn sub(self, other: Bytes) -> Bytes {
        Bytes(self.0 - other.0)
    }
}

impl Mul<u64> for Bytes {
    type Output = Bytes;
    fn mul(self, n: u64) -> Bytes {
        Bytes(self.0.saturating_mul(n))
    }
}

impl Sum for Bytes {
    fn sum<I: Iterator<Item = Bytes>>(iter: I) -> Bytes {
        iter.fold(Bytes::ZERO, Add::add)
    }
}

impl fmt::Display for Bytes {
    /// Three significant digits in binary units: `512 B`, `3.38 GiB`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const UNITS: [&str; 6] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
        let mut value = self.f64();
        let mut unit = 0;
        while value >= 999.5 && unit + 1 < UNITS.len() {
            value /= 1024.0;
            unit += 1;
        }
        let digits = match (unit, value) {
            (0, _) => 0,
            (_, v) if v < 9.995 => 2,
            (_, v) if v < 99.95 => 1,
            _ => 0,
        };
        f.pad(&format!("{value:.digits$} {}", UNITS[unit]))
    }
}

/// Why a size could not be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is not a size; write it like 4G, 3.2GiB or 800M")]
pub struct ParseBytesError(String);

impl FromStr for Bytes {
    type Err = ParseBytesError;

    /// `4G`, `3.2GiB`, `800M`, `1024`: units are binary, case and the letters after the first do not matter.
    fn from_str(text: &str) -> Result<Bytes, ParseBytesError> {
        let wrong = || ParseBytesError(text.to_owned());
        let trimmed = text.trim();
        let digits =
            trimmed.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(trimmed.len());
        let (number, suffix) = trimmed.split_at(digits);
        let shift = match suffix.trim().to_ascii_lowercase().as_str() {
            "" | "b" => 0,
            "k" | "kb" | "kib" => 10,
            "m" | "mb" | "mib" => 20,
            "g" | "gb" | "gib" => 30,
            "t" | "tb" | "tib" => 40,
            _ => return Err(wrong()),
        };
        let number: f64 = number.parse().map_err(|_| wrong())?;
        let bytes = number * (1_u64 << shift) as f64;
        if !bytes.is_finite() || bytes >= 9e18 {
            return Err(wrong());
        }
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "0 <= bytes < 9e18"
        )]
        Ok(Bytes(bytes.round() as u64))
    }
}

/// Bytes per second.
#[derive(Clone, Copy, Debug, Default, PartialEq, PartialOrd, serde::Serialize)]
#[serde(transparent)]
pub struct Rate(pub f64);

impl Rate {
    /// Seconds that `bytes` take at this rate; infinite at rate zero.
    pub fn seconds(self, bytes: Bytes) -> f64 {
        if bytes == Bytes::ZERO { 0.0 } else { bytes.f64() / self.0 }
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("{:.2} GB/s", self.0 / 1e9))
    }
}

/// The largest number up to `limit` that `fits`, which holds for all below it; 0 need not.
pub fn most(limit: usize, fits: impl Fn(usize) -> bool) -> usize {
    let (mut low, mut high) = (0, limit);
    while low < high {
        let middle = low + (high - low).div_ceil(2);
        if fits(middle) { low = middle } else { high = middle - 1 }
    }
    low
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_as_people_write_them() {
        for (text, want) in [
            ("4G", 4 << 30),
            ("3.5GiB", 7 << 29),
            ("800M", 800 << 20),
            ("1024", 1024),
            ("0", 0),
            (" 2 kb ", 2048),
            ("1t", 1 << 40),
        ] {
            assert_eq!(text.parse(), Ok(Bytes(want)), "{text}");
        }
        for text in ["", "G", "-1", "1x", "1e9", "4 G G", "1.2.3", "99999999999999T", "nan"] {
            assert!(text.parse::<Bytes>().is_err(), "{text}");
        }
    }

    #[test]
    fn sizes_are_printed_with_three_digits() {
        for (bytes, want) in [
            (0, "0 B"),
            (999, "999 B"),
            (1000, "0.98 KiB"),
            (1023, "1.00 KiB"),
            (3_630_000_000, "3.38 GiB"),
            (12 << 20, "12.0 MiB"),
            (123 << 30, "123 GiB"),
        ] {
            assert_eq!(Bytes(bytes).to_string(), want);
        }
    }
}
