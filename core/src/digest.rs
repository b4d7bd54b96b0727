// SPDX-License-Identifier: Apache-2.0
//! Content digests in the form `algorithm:hex`.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::{Error, ErrorKind, Result};

/// A digest such as `sha256:9f86d0...`.
///
/// Parsing checks the form; a digest that was read from a record is kept as it is, since other
/// tools may have written it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Digest(String);

impl Digest {
    /// The SHA-256 of `bytes`.
    pub fn sha256(bytes: &[u8]) -> Self {
        Self::from_sha256(&Sha256::digest(bytes))
    }

    /// A finished SHA-256 value.
    pub fn from_sha256(hash: &[u8]) -> Self {
        Self(format!("sha256:{}", data_encoding::HEXLOWER.encode(hash)))
    }

    /// The digest as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The part before the colon.
    pub fn algorithm(&self) -> &str {
        self.0
            .split_once(':')
            .map_or("", |(algorithm, _)| algorithm)
    }

    /// The part after the colon.
    pub fn hex(&self) -> &str {
        self.0.split_once(':').map_or("", |(_, hex)| hex)
    }
}

impl FromStr for Digest {
    type Err = Error;

    /// Accepts `sha256`, `sha384` and `sha512` in lower-case hex; the sentences are those of
    /// `opencontainers/go-digest`.
    fn from_str(text: &str) -> Result<Self> {
        let refuse = |why: &str| Error::new(ErrorKind::InvalidDigest, why).subject(text);
        let (algorithm, hex) = text
            .split_once(':')
            .filter(|(a, h)| !a.is_empty() && !h.is_empty())
            .ok_or_else(|| refuse("invalid checksum digest format"))?;
        let length = match algorithm {
            "sha256" => 64,
            "sha384" => 96,
            "sha512" => 128,
            _ => return Err(refuse("unsupported digest algorithm")),
        };
        if hex.len() != length {
            return Err(refuse("invalid checksum digest length"));
        }
        if !hex
            .bytes()
            .all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
        {
            return Err(refuse("invalid checksum digest format"));
        }
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_form_is_checked() {
        let good = Digest::sha256(b"");
        assert_eq!(good.as_str().parse::<Digest>().unwrap(), good);
        for (bad, why) in [
            ("bad", "invalid checksum digest format"),
            ("sha256:abc", "invalid checksum digest length"),
            ("md5:abc", "unsupported digest algorithm"),
        ] {
            assert_eq!(bad.parse::<Digest>().unwrap_err().to_string(), why, "{bad}");
        }
    }
}
