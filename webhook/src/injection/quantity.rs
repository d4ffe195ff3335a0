//! Kubernetes quantities (`500m`, `64Mi`, `1e3`), exact down to a billionth.
//!
//! The grammar is the one of `k8s.io/apimachinery/pkg/api/resource`: digits with an optional fraction and one
//! suffix, binary, decimal or an exponent. What is finer than a billionth or larger than the type is no quantity
//! here; callers then leave the value alone.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, de};
use thiserror::Error;

const NANO: u128 = 1_000_000_000;
const MILLI: u128 = NANO / 1000;
const MEBI: u128 = 1024 * 1024;

/// An amount of something, not negative.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Quantity(u128);

/// Text that is no quantity.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("`{0}` is no quantity: digits and one suffix are expected, as in 500m, 64Mi or 1.5")]
pub struct NoQuantity(String);

impl Quantity {
    /// Thousandths: the usual unit of CPU.
    #[must_use]
    pub const fn milli(thousandths: u64) -> Self {
        Self(thousandths as u128 * MILLI)
    }

    /// Mebibytes: the usual unit of memory.
    #[must_use]
    pub const fn mebi(mebibytes: u64) -> Self {
        Self(mebibytes as u128 * MEBI * NANO)
    }

    /// The sum, or the largest quantity there is.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }

    /// The difference, or nothing.
    #[must_use]
    pub fn minus(self, other: Self) -> Self {
        Self(self.0.saturating_sub(other.0))
    }

    /// `self × factor`, or the largest quantity there is.
    #[must_use]
    pub fn times(self, factor: Self) -> Self {
        // The whole part first, so that the product of two large quantities saturates no earlier than it must.
        let whole = self.0.saturating_mul(factor.0 / NANO);
        let rest = self.0.saturating_mul(factor.0 % NANO) / NANO;
        Self(whole.saturating_add(rest))
    }

    /// `self ÷ divisor`, rounded up; unchanged where the divisor is less than one.
    #[must_use]
    pub fn divided_by(self, divisor: Self) -> Self {
        if divisor.0 <= NANO {
            return self;
        }
        self.0.checked_mul(NANO).map_or(self, |scaled| Self(scaled.div_ceil(divisor.0)))
    }
}

impl fmt::Display for Quantity {
    /// Whole mebibytes or units where it is such a number, else thousandths, rounded up.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 != 0 && self.0.is_multiple_of(MEBI * NANO) {
            write!(f, "{}Mi", self.0 / (MEBI * NANO))
        } else if self.0.is_multiple_of(NANO) {
            write!(f, "{}", self.0 / NANO)
        } else {
            write!(f, "{}m", self.0.div_ceil(MILLI))
        }
    }
}

impl FromStr for Quantity {
    type Err = NoQuantity;

    fn from_str(text: &str) -> Result<Self, NoQuantity> {
        parse(text).map(Self).ok_or_else(|| NoQuantity(text.chars().take(32).collect()))
    }
}

impl<'de> Deserialize<'de> for Quantity {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

fn parse(text: &str) -> Option<u128> {
    let text = text.strip_prefix('+').unwrap_or(text);
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, suffix) = text.split_at_checked(end)?;
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() && fraction.is_empty() || fraction.contains('.') {
        return None;
    }
    let fraction = fraction.trim_end_matches('0');
    let digits: u128 = format!("0{whole}{fraction}").parse().ok()?;
    let (multiplier, exponent) = scale(suffix)?;
    // nano = digits × multiplier × 10^(exponent + 9 − fraction digits)
    let power = exponent.checked_add(9)?.checked_sub(i32::try_from(fraction.len()).ok()?)?;
    let scaled = digits.checked_mul(multiplier)?;
    let ten = 10_u128.checked_pow(power.unsigned_abs());
    if power >= 0 { scaled.checked_mul(ten?) } else { Some(scaled.div_ceil(ten?)) }
}

/// What a suffix multiplies by: a factor and a power of ten.
fn scale(suffix: &str) -> Option<(u128, i32)> {
    Some(match suffix {
        "n" => (1, -9),
        "u" => (1, -6),
        "m" => (1, -3),
        "" => (1, 0),
        "k" => (1, 3),
        "M" => (1, 6),
        "G" => (1, 9),
        "T" => (1, 12),
        "P" => (1, 15),
        "E" => (1, 18),
        "Ki" => (1 << 10, 0),
        "Mi" => (1 << 20, 0),
        "Gi" => (1 << 30, 0),
        "Ti" => (1 << 40, 0),
        "Pi" => (1 << 50, 0),
        "Ei" => (1 << 60, 0),
        _ => (1, suffix.strip_prefix(['e', 'E'])?.parse().ok()?),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn quantity(text: &str) -> Quantity {
        text.parse().unwrap()
    }

    #[test]
    fn the_same_amount_is_equal_however_it_is_written() {
        for (one, other) in [
            ("1", "1000m"),
            ("0.5", "500m"),
            ("1Gi", "1024Mi"),
            ("1e3", "1k"),
            ("1E", "1e18"),
            (".5", "500m"),
        ] {
            assert_eq!(quantity(one), quantity(other), "{one} and {other}");
        }
        assert!(quantity("100M") < quantity("100Mi"));
    }

    #[test]
    fn text_that_is_no_quantity_is_refused() {
        for text in
            ["", ".", "Mi", "-1", "1.2.3", "1Q", "1e", "1 Mi", "9999999999999999999999999999Ei", "1e999"]
        {
            assert!(text.parse::<Quantity>().is_err(), "{text}");
        }
    }

    #[test]
    fn amounts_are_written_as_a_person_would() {
        for text in ["10m", "24Mi", "2", "0", "1500m"] {
            assert_eq!(quantity(text).to_string(), text);
        }
        assert_eq!(quantity("100001u").to_string(), "101m");
    }

    #[test]
    fn ratios_round_so_that_the_bound_holds() {
        let limit = Quantity::milli(500);
        let ratio = quantity("3");
        let request = limit.divided_by(ratio);
        assert!(request.times(ratio) >= limit);
        assert_eq!(Quantity::milli(10).times(quantity("2.5")), Quantity::milli(25));
    }
}
