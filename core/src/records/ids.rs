// SPDX-License-Identifier: Apache-2.0
//! Ids of layers, images and containers.

use data_encoding::HEXLOWER;
use plywood_plugin_sdk::LayerId;

use crate::{Error, ErrorKind, Result};

/// Digits that peers show of an id; an id that is a number up to there is never drawn.
const SHOWN: usize = 12;

/// Draws a new id: 32 random bytes in hex.
///
/// An id whose first twelve digits are all decimal is drawn again, since tools that show that
/// much of it might take it for a number.
pub(crate) fn new_id() -> Result<String> {
    loop {
        let mut bytes = [0; 32];
        getrandom::fill(&mut bytes).map_err(|error| {
            Error::new(
                ErrorKind::Io,
                "cannot draw a new id: the system gives no random bytes",
            )
            .caused_by(error.to_string())
        })?;
        let id = HEXLOWER.encode(&bytes);
        if !reads_as_number(&id) {
            return Ok(id);
        }
    }
}

fn reads_as_number(id: &str) -> bool {
    id.bytes().take(SHOWN).all(|digit| digit.is_ascii_digit())
}

/// Checks an id that a caller gives to a new object.
///
/// Ids in existing records are not checked this way: they can still be read and deleted.
pub(crate) fn check_new_id(id: &str) -> Result<()> {
    match LayerId::new(id) {
        Ok(_) => Ok(()),
        Err(error) => Err(Error::new(ErrorKind::InvalidArgument, error.to_string())
            .subject(id)
            .hint(
                "use letters, digits, `_`, `.` and `-`, at most 128, not starting with `.` or `-`",
            )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn new_ids_are_64_hex_digits_and_no_numbers() {
        let id = new_id().unwrap();
        assert_eq!(id.len(), 64);
        assert_ne!(id, new_id().unwrap());
        check_new_id(&id).unwrap();
        assert!(reads_as_number("123456789012abcdef"));
        assert!(!reads_as_number("12345678901abcdef"));
    }

    #[test]
    fn ids_that_leave_the_store_are_refused() {
        for bad in ["", "../bad", "a/b", ".", "a\0b"] {
            assert_eq!(
                check_new_id(bad).unwrap_err().kind(),
                ErrorKind::InvalidArgument,
                "{bad:?}"
            );
        }
    }
}
