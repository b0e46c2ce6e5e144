//! When a play ends before its time. An unreachable host counts as failed: whatever it was to do has not been done.

use crate::plan::Play;

/// Returns why the play has to end now, when `failed` of the `total` hosts that it began with have failed in it so far.
pub fn verdict(play: &Play, total: usize, failed: usize) -> Option<String> {
    if failed == 0 {
        return None;
    }
    if play.any_error_stops {
        return Some("a host failed, and the play says `any_error_stops`".to_owned());
    }
    let limit = play.max_failures?.of(total);
    (failed > limit).then(|| format!("{failed} of {total} hosts failed, and `max_failures` allows {limit}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::diagnostic::Place;
    use crate::plan::Share;

    fn play(max_failures: Option<Share>, any_error_stops: bool) -> Play {
        Play {
            name: "web".to_owned(),
            hosts: (0..10).collect(),
            serial: Vec::new(),
            max_failures,
            any_error_stops,
            undo_on_failure: false,
            become_user: None,
            tags: Vec::new(),
            place: Place::line("p.lua", 1),
        }
    }

    #[test]
    fn tolerance_counts_hosts_or_shares() {
        assert_eq!(verdict(&play(None, false), 10, 9), None);
        assert_eq!(verdict(&play(Some(Share::Count(1)), false), 10, 1), None);
        assert!(verdict(&play(Some(Share::Count(1)), false), 10, 2).is_some());
        assert_eq!(verdict(&play(Some(Share::Percent(20)), false), 10, 2), None);
        assert!(verdict(&play(Some(Share::Percent(0)), false), 10, 1).is_some());
        assert!(verdict(&play(None, true), 10, 1).is_some());
        assert_eq!(verdict(&play(None, true), 10, 0), None);
    }
}
