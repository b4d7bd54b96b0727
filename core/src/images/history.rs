// SPDX-License-Identifier: Apache-2.0
//! The names that an image was given after its creation, newest first.

/// Puts each of `names`, in order, at the front of `history`, so that the last one ends up first.
///
/// # Compatibility
/// Creating an image with names leaves the history alone; every later change walks the resulting
/// list this way.
pub(super) fn record(history: &mut Vec<String>, names: &[String]) {
    for name in names {
        history.retain(|old| old != name);
        history.insert(0, name.clone());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_name_ends_up_first() {
        let list =
            |text: &str| -> Vec<String> { text.split_whitespace().map(str::to_owned).collect() };
        // A name `a` at creation, then `b` is added, then `x`, new names going first.
        let mut history = Vec::new();
        record(&mut history, &list("b a"));
        assert_eq!(history, list("a b"));
        record(&mut history, &list("x b a"));
        assert_eq!(history, list("a b x"));
    }
}
