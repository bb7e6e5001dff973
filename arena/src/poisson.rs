//! Poisson sampling of bytes: a stream of random numbers, and the bytes from one sample to
//! the next. Pure.
//!
//! If the gaps are exponential with mean *p*, every byte is a sample with chance 1 ÷ *p*,
//! whatever was sampled before, and a block of *s* bytes holds one with chance
//! `1 − exp(−s ÷ p)`. No pattern in a program's allocations can hide from it or be
//! counted twice.

/// The number after `state` in a stream of random numbers, which is also the next state.
/// (A multiplication and three shifts of a counter: `SplitMix64` of Steele, Lea and
/// Flood, OOPSLA 2014.)
pub(crate) fn next(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut mixed = *state;
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

/// Bytes to the next sample: an exponential gap with this mean, at least 1.
#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a random length; conversions from floats saturate"
)]
pub(crate) fn gap(random: u64, mean: usize) -> usize {
    // In 1 ..= 2^53, which a float holds exactly.
    let uniform = (random >> 11) + 1;
    let gap = -(ln(uniform) - 53.0 * core::f64::consts::LN_2) * mean as f64;
    (gap as usize).max(1)
}

/// The natural logarithm of a number from 1 to 2^53, which `core` does not have, to six
/// digits.
#[expect(clippy::cast_precision_loss, reason = "at most 2^53 by contract")]
fn ln(number: u64) -> f64 {
    let exponent = number.ilog2();
    let mantissa = number as f64 / (1u64 << exponent) as f64;
    // ln m = 2 artanh((m − 1) ÷ (m + 1)); the argument is at most 1/3.
    let s = (mantissa - 1.0) / (mantissa + 1.0);
    let square = s * s;
    let series = 1.0 + square * (1.0 / 3.0 + square * (0.2 + square * (1.0 / 7.0 + square / 9.0)));
    f64::from(exponent) * core::f64::consts::LN_2 + 2.0 * s * series
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_logarithm_is_right_to_six_digits() {
        for number in (0..53).flat_map(|bit| [1u64 << bit, (1 << bit) + (1 << bit) / 3]) {
            #[expect(clippy::cast_precision_loss, reason = "at most 2^53")]
            let exact = (number as f64).ln();
            assert!((ln(number) - exact).abs() < 2e-6, "{number}");
        }
    }

    /// Of an exponential gap the mean is the mean, and 1 − 1/e of the gaps are below it.
    #[test]
    fn gaps_are_exponential() {
        const DRAWS: u32 = 100_000;
        const MEAN: usize = 1 << 19;
        let mut state = 7;
        let (mut sum, mut below) = (0.0, 0u32);
        for _ in 0..DRAWS {
            let gap = gap(next(&mut state), MEAN);
            #[expect(clippy::cast_precision_loss, reason = "far below 2^53")]
            let gap = gap as f64;
            sum += gap;
            below += u32::from(gap < 524_288.0);
        }
        let mean = sum / f64::from(DRAWS);
        assert!((mean / 524_288.0 - 1.0).abs() < 0.02, "{mean}");
        let share = f64::from(below) / f64::from(DRAWS);
        assert!((share - 0.632).abs() < 0.01, "{share}");
    }

    #[test]
    fn the_ends_of_the_range_give_gaps() {
        assert_eq!(gap(u64::MAX, 1 << 19), 1);
        assert!(gap(0, 1 << 19) > 30 << 19);
        assert_eq!(gap(1 << 63, 1), 1);
        assert_eq!(gap(0, usize::MAX), usize::MAX);
    }
}
