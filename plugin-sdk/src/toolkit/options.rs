// SPDX-License-Identifier: Apache-2.0
//! Driver options, `key=value`, and their values in the forms that Go's libraries read.

use std::path::{Component, Path, PathBuf};

use crate::{DriverError, DriverErrorCode, Result};

/// An option that is meant for the driver.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DriverOption<'a> {
    /// The key in lower case, without the driver's name.
    pub key: String,
    /// The key as it was given.
    pub given_key: &'a str,
    /// The value.
    pub value: &'a str,
    /// The whole option as it was given.
    pub text: &'a str,
}

/// The options in `options` that are for a driver called one of `names`, in order.
///
/// # Behavior
/// - A key without a driver's name is for every driver; those of the drivers in `known` are
///   skipped.
///
/// # Errors
/// What has no `=`, and the name of a driver that is not known.
///
/// # Compatibility
/// The texts are those of containers/storage.
pub fn own<'a>(
    options: &'a [String],
    names: &[&str],
    known: &[String],
) -> Result<Vec<DriverOption<'a>>> {
    let mut own = Vec::new();
    for text in options {
        let Some((key, value)) = text.split_once('=') else {
            let message = format!("unable to parse key/value option: {text}");
            return Err(refusal(message, text));
        };
        let (given_key, value) = (key.trim(), value.trim());
        let key = given_key.to_ascii_lowercase();
        let key = match key.split_once('.') {
            None => key,
            Some((driver, key)) if driver.is_empty() || names.contains(&driver) => key.to_owned(),
            Some((driver, _)) if known.iter().any(|name| name == driver) => continue,
            Some((driver, _)) => {
                let message = format!("unknown driver \"{driver}\" in option \"{text}\"");
                return Err(refusal(message, text));
            }
        };
        own.push(DriverOption {
            key,
            given_key,
            value,
            text,
        });
    }
    Ok(own)
}

impl DriverOption<'_> {
    /// An error that names the option.
    pub fn refuse(&self, message: impl Into<String>) -> DriverError {
        refusal(message.into(), self.text)
    }

    /// The value as `strconv.ParseBool` reads it.
    ///
    /// # Errors
    /// Any other spelling.
    pub fn boolean(&self) -> Result<bool> {
        boolean(self.value).map_err(|text| self.refuse(text))
    }

    /// The value as a decimal number, as `strconv.ParseUint` reads it.
    ///
    /// # Errors
    /// Anything else.
    pub fn count(&self) -> Result<u64> {
        count(self.value).map_err(|text| self.refuse(text))
    }

    /// The value as a number of bytes, see [`size`].
    ///
    /// # Errors
    /// Anything else.
    pub fn size(&self) -> Result<u64> {
        size(self.value).map_err(|text| self.refuse(text))
    }

    /// The value of `sync`: whether layers are made durable before they are recorded.
    ///
    /// # Errors
    /// Anything but `none` and `filesystem`.
    pub fn sync(&self, driver: &str) -> Result<bool> {
        match self.value {
            "filesystem" => Ok(true),
            "none" => Ok(false),
            other => Err(self
                .refuse(format!("invalid mode for {driver} driver: \"{other}\""))
                .remedy(format!(
                    "use `{driver}.sync=none` or `{driver}.sync=filesystem`"
                ))),
        }
    }
}

impl DriverOption<'_> {
    /// The graph roots of read-only stores that `imagestore` names, separated by commas.
    ///
    /// # Errors
    /// A path that is not absolute or no directory; `driver` is named in the text.
    pub fn image_stores(&self, driver: &str) -> Result<Vec<PathBuf>> {
        let stores = self.value.split(',').filter(|store| !store.is_empty());
        stores
            .map(|store| self.image_store(driver, store))
            .collect()
    }

    fn image_store(&self, driver: &str, store: &str) -> Result<PathBuf> {
        let path: PathBuf = Path::new(store)
            .components()
            .filter(|part| *part != Component::CurDir)
            .collect();
        if !path.is_absolute() {
            return Err(self.refuse(format!(
                "{driver}: image path \"{store}\" is not absolute.  Can not be relative"
            )));
        }
        match std::fs::metadata(&path) {
            Ok(found) if found.is_dir() => Ok(path),
            Ok(_) => Err(self.refuse(format!(
                "{driver}: image path \"{store}\" must be a directory"
            ))),
            Err(error) => Err(self.refuse(format!(
                "{driver}: can't stat imageStore dir {store}: {error}"
            ))),
        }
    }
}

fn refusal(message: String, option: &str) -> DriverError {
    DriverError::new(DriverErrorCode::INVALID_ARGUMENT, message).object(option)
}

fn boolean(text: &str) -> Result<bool, String> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        _ => Err(format!(
            "strconv.ParseBool: parsing \"{text}\": invalid syntax"
        )),
    }
}

fn count(text: &str) -> Result<u64, String> {
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(format!(
            "strconv.ParseUint: parsing \"{text}\": invalid syntax"
        ));
    }
    text.parse()
        .map_err(|_| format!("strconv.ParseUint: parsing \"{text}\": value out of range"))
}

/// A number of bytes with an optional binary unit: `10`, `1.5g`, `20 MiB`.
///
/// # Errors
/// A text for people.
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
    fn options_are_for_the_driver_or_for_all_or_for_another_one() {
        let options = ["b.x=1", "A.Size = 2 ", "plain=3", ".dot=4", "c.y"];
        let options = options.map(str::to_owned);
        let known = ["a".to_owned(), "b".to_owned()];
        let own = |count: usize| own(&options[..count], &["a"], &known);
        let found = own(4).unwrap();
        let pairs: Vec<_> = found.iter().map(|it| (it.key.as_str(), it.value)).collect();
        assert_eq!(pairs, [("size", "2"), ("plain", "3"), ("dot", "4")]);
        assert_eq!(found[0].given_key, "A.Size");
        let error = own(5).unwrap_err();
        assert_eq!(error.message, "unable to parse key/value option: c.y");
        let unknown = ["z.y=1".to_owned()];
        let error = super::own(&unknown, &["a"], &known).unwrap_err();
        assert_eq!(error.message, "unknown driver \"z\" in option \"z.y=1\"");
        assert_eq!(error.object.as_deref(), Some("z.y=1"));
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
