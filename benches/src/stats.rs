//! Median, spread and geometric mean; pure.

/// The median of the samples, the mean of the middle two for an even count;
/// `None` when there is none.
pub(crate) fn median(samples: &[f64]) -> Option<f64> {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    let upper = *sorted.get(middle)?;
    if sorted.len() % 2 == 1 {
        return Some(upper);
    }
    Some(f64::midpoint(sorted[middle - 1], upper))
}

/// Half the distance from the least to the greatest sample, as a share of the
/// median: "median ± spread" covers all samples when they lie evenly around it.
/// `None` when there is no sample or the median is zero.
pub(crate) fn spread(samples: &[f64]) -> Option<f64> {
    let median = median(samples).filter(|median| *median > 0.0)?;
    let least = samples.iter().copied().fold(f64::INFINITY, f64::min);
    let greatest = samples.iter().copied().fold(0.0, f64::max);
    Some((greatest - least) / 2.0 / median)
}

/// The geometric mean of positive ratios; `None` when there is none or one is
/// not positive and finite.
pub(crate) fn geometric_mean(ratios: &[f64]) -> Option<f64> {
    if ratios.is_empty() || !ratios.iter().all(|ratio| ratio.is_finite() && *ratio > 0.0) {
        return None;
    }
    let count = f64::from(u32::try_from(ratios.len()).ok()?);
    Some((ratios.iter().map(|ratio| ratio.ln()).sum::<f64>() / count).exp())
}

/// `value / base`, where both are known and the base is not zero.
pub(crate) fn ratio(value: Option<f64>, base: Option<f64>) -> Option<f64> {
    let base = base.filter(|base| *base > 0.0)?;
    value.map(|value| value / base)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn median_is_the_middle_or_the_mean_of_the_middle_two() {
        assert_eq!(median(&[]), None);
        assert_eq!(median(&[3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), Some(2.5));
    }

    #[test]
    fn spread_is_half_the_range_over_the_median() {
        assert_eq!(spread(&[1.0, 2.0, 3.0]), Some(0.5));
        assert_eq!(spread(&[2.0]), Some(0.0));
        assert_eq!(spread(&[0.0, 0.0]), None);
    }

    #[test]
    fn geometric_mean_of_a_ratio_and_its_inverse_is_one() {
        let mean = geometric_mean(&[0.5, 2.0]).expect("two positive ratios");
        assert!((mean - 1.0).abs() < 1e-12, "{mean}");
        let mean = geometric_mean(&[2.0, 4.0, 8.0]).expect("three positive ratios");
        assert!((mean - 4.0).abs() < 1e-12, "{mean}");
        assert_eq!(geometric_mean(&[]), None);
        assert_eq!(geometric_mean(&[1.0, 0.0]), None);
        assert_eq!(geometric_mean(&[1.0, f64::INFINITY]), None);
    }

    #[test]
    fn ratio_needs_both_sides_and_a_base() {
        assert_eq!(ratio(Some(1.0), Some(4.0)), Some(0.25));
        assert_eq!(ratio(Some(1.0), Some(0.0)), None);
        assert_eq!(ratio(None, Some(1.0)), None);
    }
}
