// SPDX-License-Identifier: Apache-2.0
//! Driver options, `key=value`, in the forms that containers/storage reads.

use crate::{DriverError, DriverErrorCode, Result};

/// The key without its driver's name; `None` when it belongs to another driver.
///
/// # Behavior
/// - `names` are the names that the driver answers to, `known` those of all drivers; `option` is
///   the whole option, for the error.
///
/// # Errors
/// [`INVALID_ARGUMENT`](DriverErrorCode::INVALID_ARGUMENT) for the prefix of no driver.
pub fn own_key<'a>(
    names: &[&str],
    key: &'a str,
    option: &str,
    known: &[String],
) -> Result<Option<&'a str>> {
    match key.split_once('.') {
        None => Ok(Some(key)),
        Some((driver, key)) if driver.is_empty() || names.contains(&driver) => Ok(Some(key)),
        Some((driver, _)) if known.iter().any(|name| name == driver) => Ok(None),
        Some((driver, _)) => {
            let message = format!("unknown driver \"{driver}\" in option \"{option}\"");
            Err(DriverError::new(DriverErrorCode::INVALID_ARGUMENT, message).object(option))
        }
    }
}

/// Reads a number of bytes with an optional binary unit: `10`, `1.5g`, `20 MiB`.
///
/// # Errors
/// The text that Go's libraries have for it.
pub fn size(text: &str) -> Result<u64, String> {
    parse_size(text).ok_or_else(|| format!("invalid size: '{text}'"))
}

fn parse_size(text: &str) -> Option<u64> {
    let end = text
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let unit = unit.strip_prefix(' ').unwrap_or(unit).to_ascii_lowercase();
    let unit = unit.strip_suffix('b').unwrap_or(&unit);
    let shift = match unit.strip_suffix('i').unwrap_or(unit) {
        "" if unit.is_empty() => 0,
        "k" => 10,
        "m" => 20,
        "g" => 30,
        "t" => 40,
        "p" => 50,
        _ => return None,
    };
    // In whole numbers: a float would round large sizes.
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() || fraction.len() > 18 || (number.contains('.') && fraction.is_empty()) {
        return None;
    }
    let whole: u128 = whole.parse::<u64>().ok()?.into();
    let parts = 10_u128.pow(u32::try_from(fraction.len()).ok()?);
    let fraction: u128 = if fraction.is_empty() {
        0
    } else {
        fraction.parse::<u64>().ok()?.into()
    };
    let bytes = (whole.checked_mul(parts)? + fraction).checked_mul(1 << shift)? / parts;
    i64::try_from(bytes).ok()?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_says_whose_an_option_is() {
        let known = ["a".to_owned(), "other".to_owned()];
        let key = |key| own_key(&["a", "b"], key, "the option", &known);
        assert_eq!(key("x"), Ok(Some("x")));
        assert_eq!(key(".x"), Ok(Some("x")));
        assert_eq!(key("b.x.y"), Ok(Some("x.y")));
        assert_eq!(key("other.x"), Ok(None));
        let error = key("nobody.x").unwrap_err();
        assert_eq!(error.object.as_deref(), Some("the option"));
    }

    #[test]
    fn sizes_have_binary_units() {
        for (text, bytes) in [
            ("0", 0),
            ("42", 42),
            ("7b", 7),
            ("10k", 10 << 10),
            ("1.5g", 3 << 29),
            ("20 MiB", 20 << 20),
            ("3TB", 3 << 40),
            ("0.5K", 512),
        ] {
            assert_eq!(size(text), Ok(bytes), "{text}");
        }
        for bad in [
            "", "-1", "10x", "k", "1..5", "1.", ".5", "1 ki b", "1i", "9999999p", "1e3",
        ] {
            assert_eq!(size(bad), Err(format!("invalid size: '{bad}'")), "{bad}");
        }
    }
}
