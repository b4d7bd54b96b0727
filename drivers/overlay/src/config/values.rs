// SPDX-License-Identifier: Apache-2.0
//! Values of options that only overlay has; errors are the texts of Go's libraries.

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

#[cfg(test)]
mod tests {
    use super::*;

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
}
