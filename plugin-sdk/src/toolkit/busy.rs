// SPDX-License-Identifier: Apache-2.0
//! What is in use for a moment.

use std::{
    thread,
    time::{Duration, Instant},
};

/// The pause after the first attempt; each is twice as long as the one before.
const FIRST_PAUSE: Duration = Duration::from_millis(20);
/// No pause is longer: between others who take turns, only who asks often gets one.
const LONGEST_PAUSE: Duration = Duration::from_millis(80);

/// Tries again until nothing is in the way, or `patience` is over; returns what the last attempt
/// gave.
///
/// # Behavior
/// - Between two attempts are 20 to 80 ms.
/// - It is tried at least once, and for the last time when `patience` is over.
///
/// # Errors
/// Those of `attempt`: at once where `is_busy` says no, after `patience` otherwise.
///
/// # Panics
/// When the clock cannot tell so late a time as the end of `patience`.
pub fn while_busy<T, E>(
    patience: Duration,
    is_busy: impl Fn(&E) -> bool,
    mut attempt: impl FnMut() -> Result<T, E>,
) -> Result<T, E> {
    let end = Instant::now() + patience;
    let mut pause = FIRST_PAUSE;
    loop {
        let left = end.saturating_duration_since(Instant::now());
        match attempt() {
            Err(error) if is_busy(&error) && !left.is_zero() => {
                thread::sleep(pause.min(left));
                pause = LONGEST_PAUSE.min(pause * 2);
            }
            other => return other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHORT: Duration = Duration::from_millis(100);

    fn tries(patience: Duration, outcomes: &[Result<u8, &str>]) -> (Result<u8, String>, usize) {
        let mut tried = 0;
        let last = while_busy(
            patience,
            |error| *error == "busy",
            || {
                tried += 1;
                outcomes[(tried - 1).min(outcomes.len() - 1)]
            },
        );
        (last.map_err(str::to_owned), tried)
    }

    #[test]
    fn what_is_busy_is_tried_again_and_nothing_else_is() {
        let outcomes = [Err("busy"), Err("busy"), Ok(7)];
        assert_eq!(tries(SHORT * 100, &outcomes), (Ok(7), 3));
        let outcomes = [Err("busy"), Err("gone"), Ok(7)];
        let gone = Err("gone".to_owned());
        assert_eq!(tries(SHORT * 100, &outcomes), (gone, 2));
    }

    #[test]
    fn patience_ends() {
        let busy = Err("busy".to_owned());
        assert_eq!(tries(Duration::ZERO, &[Err("busy")]), (busy.clone(), 1));
        let start = Instant::now();
        let (last, tried) = tries(SHORT, &[Err("busy")]);
        assert!(start.elapsed() >= SHORT);
        assert_eq!(last, busy);
        // 20 and 40 ms, the rest, and once more at the end.
        assert!((2..=4).contains(&tried), "{tried}");
    }
}
