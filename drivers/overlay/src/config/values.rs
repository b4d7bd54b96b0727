// SPDX-License-Identifier: Apache-2.0
//! Values of options in the forms that Go's libraries read; errors are their texts.

/// The spellings of `strconv.ParseBool`.
pub(crate) fn boolean(text: &str) -> Result<bool, String> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        _ => Err(format!(
            "strconv.ParseBool: parsing \"{text}\": invalid syntax"
        )),
    }
}

/// A decimal number, as `strconv.ParseUint` reads it.
pub(crate) fn count(text: &str) -> Result<u64, String> {
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(format!(
            "strconv.ParseUint: parsing \"{text}\": invalid syntax"
        ));
    }
    text.parse()
        .map_err(|_| format!("strconv.ParseUint: parsing \"{text}\": value out of range"))
}

/// `shared`, `private` or an octal mode.
pub(crate) fn mask(text: &str) -> Result<u32, String> {
    match text {
        "shared" => Ok(0o755),
        "private" => Ok(0o700),
        _ if text.is_empty() || !text.bytes().all(|byte| (b'0'..=b'7').contains(&byte)) => Err(
            format!("strconv.ParseInt: parsing \"{text}\": invalid syntax"),
        ),
        _ => u32::from_str_radix(text, 8)
            .ok()
            .filter(|mask| *mask <= 0o7777)
            .ok_or_else(|| format!("strconv.ParseInt: parsing \"{text}\": value out of range")),
    }
}

/// A number of bytes with an optional binary unit: `10`, `1.5g`, `20 MiB`.
pub(crate) fn size(text: &str) -> Result<u64, String> {
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

    #[test]
    fn masks_are_octal_or_named() {
        assert_eq!(mask("shared"), Ok(0o755));
        assert_eq!(mask("private"), Ok(0o700));
        assert_eq!(mask("0750"), Ok(0o750));
        assert_eq!(
            mask("9").unwrap_err(),
            "strconv.ParseInt: parsing \"9\": invalid syntax"
        );
        assert!(mask("").is_err());
        assert!(mask("77777").unwrap_err().ends_with("value out of range"));
    }

    #[test]
    fn counts_are_plain_decimal() {
        assert_eq!(count("0"), Ok(0));
        assert!(count("-1").unwrap_err().ends_with("invalid syntax"));
        assert!(
            count("99999999999999999999")
                .unwrap_err()
                .ends_with("value out of range")
        );
    }
}
