//! Cuts a play's hosts into serial batches.

/// How many hosts of a play are changed at a time.
#[derive(Debug, Clone, PartialEq, Default)]
pub enum Serial {
    /// All at once.
    #[default]
    All,
    /// A ramp of sizes; the last one repeats.
    Ramp(Vec<Size>),
}

/// One size of a ramp.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Size {
    /// That many hosts.
    Hosts(usize),
    /// That share of the play's hosts, above 0 and at most 100; never less than one host.
    Percent(f64),
}

impl Size {
    /// Returns how many of `total` hosts the size means, at least one.
    pub fn of(self, total: usize) -> usize {
        match self {
            Self::Hosts(count) => count.max(1),
            #[expect(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "hosts are few and a share lies within 0 to 100")]
            Self::Percent(share) => ((total as f64 * share / 100.0) as usize).max(1),
        }
    }
}

impl Serial {
    /// Returns the batches, in the order of `hosts`.
    pub fn batches<T: Copy>(&self, hosts: &[T]) -> Vec<Vec<T>> {
        let sizes = match self {
            Self::All => return if hosts.is_empty() { Vec::new() } else { vec![hosts.to_vec()] },
            Self::Ramp(sizes) => sizes,
        };
        let mut batches = Vec::new();
        let mut rest = hosts;
        while !rest.is_empty() {
            let size = sizes.get(batches.len()).or(sizes.last()).map_or(rest.len(), |size| size.of(hosts.len()));
            let (batch, after) = rest.split_at(size.min(rest.len()));
            batches.push(batch.to_vec());
            rest = after;
        }
        batches
    }
}

/// When a play ends before its time.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct FailurePolicy {
    /// Ends the play once more hosts than this have failed. An unreachable host has failed.
    pub max_failures: Option<Size>,
    /// Ends the play at the first failure.
    pub any_error_stops: bool,
}

impl FailurePolicy {
    /// Returns why the play has to end, when `failed` of its `total` hosts have failed.
    pub fn verdict(&self, failed: usize, total: usize) -> Option<String> {
        if failed == 0 {
            return None;
        }
        if self.any_error_stops {
            return Some("a host failed, and the play says `any_error_stops`".to_owned());
        }
        let limit = match self.max_failures? {
            Size::Hosts(count) => count,
            // A share of zero hosts is zero: unlike a batch, a tolerance may be nothing.
            #[expect(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "hosts are few and a share lies within 0 to 100")]
            Size::Percent(share) => (total as f64 * share / 100.0) as usize,
        };
        (failed > limit).then(|| format!("{failed} of {total} hosts failed, and `max_failures` allows {limit}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ramp_repeats_its_last_size() {
        let serial = Serial::Ramp(vec![Size::Hosts(1), Size::Percent(50.0)]);
        assert_eq!(serial.batches(&[1, 2, 3, 4, 5]), [vec![1], vec![2, 3], vec![4, 5]]);
    }

    #[test]
    fn a_small_share_still_moves() {
        assert_eq!(Serial::Ramp(vec![Size::Percent(1.0)]).batches(&[1, 2]), [vec![1], vec![2]]);
        assert!(Serial::All.batches::<u8>(&[]).is_empty());
    }

    #[test]
    fn tolerance_counts_hosts_or_shares() {
        let policy = |max_failures| FailurePolicy { max_failures, any_error_stops: false };
        assert_eq!(policy(None).verdict(9, 10), None);
        assert_eq!(policy(Some(Size::Hosts(1))).verdict(1, 10), None);
        assert!(policy(Some(Size::Hosts(1))).verdict(2, 10).is_some());
        assert_eq!(policy(Some(Size::Percent(20.0))).verdict(2, 10), None);
        assert!(policy(Some(Size::Percent(0.0))).verdict(1, 10).is_some());
        assert!(FailurePolicy { any_error_stops: true, ..FailurePolicy::default() }.verdict(1, 10).is_some());
    }
}
