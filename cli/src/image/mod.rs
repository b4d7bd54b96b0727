// SPDX-License-Identifier: Apache-2.0
//! Images as files: OCI layouts and archives, docker archives.
//!
//! Reading trusts nothing: names inside are looked up below the layout's directory or in the
//! archive's own list, JSON is limited in size, and every blob is checked against its digest and
//! every layer against the configuration's list before an image is recorded.

mod docker;
mod files;
mod json;
mod load;
mod oci;
mod place;
pub(crate) mod reference;
mod save;
mod writer;

pub(crate) use load::{LoadOptions, load};
pub(crate) use place::Place;
pub(crate) use save::{SaveOptions, save};

use plywood::Digest;
use thiserror::Error;

/// Why an image file cannot be read or written.
#[derive(Debug, Error)]
#[non_exhaustive]
pub(crate) enum ImageError {
    #[error("`{name}` is no image name: {why}")]
    BadName { name: String, why: &'static str },
    #[error("`{0}` is no platform; it looks like linux/arm64 or linux/arm/v7")]
    BadPlatform(String),
    #[error("cannot tell what kind of image `{0}` is")]
    UnknownFormat(String),
    #[error("`{0}` holds no image")]
    Empty(String),
    #[error("no image is tagged `{tag}` there; there are: {known}")]
    NoSuchTag { tag: String, known: String },
    #[error("{count} images are there, which cannot all be named `{name}`; there are: {known}")]
    Ambiguous {
        name: String,
        count: usize,
        known: String,
    },
    #[error("no image for platform {wanted}; there are: {known}")]
    NoPlatform { wanted: String, known: String },
    #[error("`{0}` is missing in the image")]
    Missing(String),
    #[error("`{path}` is larger than the {limit} bytes that are accepted")]
    TooLarge { path: String, limit: u64 },
    #[error("`{path}` is {size} bytes long, but {expected} were announced")]
    WrongSize {
        path: String,
        size: u64,
        expected: u64,
    },
    #[error("`{path}` has digest {actual}, but {expected} was announced")]
    WrongDigest {
        path: String,
        expected: Digest,
        actual: Digest,
    },
    #[error("layer {number} unpacks to {actual}, but the configuration says {expected}")]
    WrongDiffId {
        number: usize,
        expected: Digest,
        actual: Digest,
    },
    #[error("the manifest lists {layers} layers, the configuration {diff_ids}")]
    LayerCount { layers: usize, diff_ids: usize },
    #[error("`{path}` is not valid JSON")]
    BadJson {
        path: String,
        #[source]
        source: serde_json::Error,
    },
    #[error("`{0}` leaves the image's directory")]
    Escapes(String),
    #[error("media type `{0}` is not supported")]
    MediaType(String),
    #[error("digest `{0}` is not supported")]
    BadDigest(String),
    #[error("the configuration `{0}` names no layers")]
    NoLayers(String),
    #[error("layer {digest} may not be distributed, and its content is elsewhere ({media_type})")]
    Foreign { digest: String, media_type: String },
    #[error("the layers of image `{0}` are not complete in this store")]
    Incomplete(String),
    #[error("image `{image}` has no `{item}`, so it cannot be saved")]
    NotAnImage { image: String, item: String },
    #[error("layer `{id}` exports as {actual}, but the configuration says {expected}")]
    ChangedLayer {
        id: String,
        expected: Digest,
        actual: Digest,
    },
    #[error("`{0}` exists already")]
    Exists(String),
    #[error("layer `{id}` exists on another parent, so it is not the layer of that name")]
    OtherParent { id: String },
    #[error("image `{id}` exists with another top layer")]
    OtherImage { id: String },
    #[error("cannot {action} `{path}`")]
    Io {
        action: &'static str,
        path: String,
        #[source]
        source: std::io::Error,
    },
}

impl ImageError {
    /// An input or output failure.
    pub(crate) fn io(
        action: &'static str,
        path: impl Into<String>,
    ) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io {
            action,
            path,
            source,
        }
    }

    /// What the operator can do.
    pub(crate) fn hint(&self) -> Option<String> {
        let text = match self {
            Self::UnknownFormat(_) => {
                "accepted are a directory with an OCI layout, and tar files of `podman save` or \
                 `docker save`; say which with oci:, oci-archive: or docker-archive:"
            }
            Self::NoSuchTag { .. } | Self::Ambiguous { .. } => {
                "choose one with `oci:DIR:TAG`, `oci-archive:FILE:TAG` or \
                 `docker-archive:FILE:NAME`"
            }
            Self::NoPlatform { .. } => "choose one with --platform OS/ARCH",
            Self::WrongDigest { .. } | Self::WrongSize { .. } | Self::WrongDiffId { .. } => {
                "the file is damaged or was changed; get it again"
            }
            Self::Missing(_)
            | Self::BadJson { .. }
            | Self::LayerCount { .. }
            | Self::BadDigest(_)
            | Self::NoLayers(_)
            | Self::Empty(_) => {
                "this is no whole image; save it again with `podman save`, `docker save` or \
                 `skopeo copy`"
            }
            Self::Escapes(_) => "do not trust this file: whole images hold all that they name",
            Self::Foreign { .. } => {
                "save the image with its foreign layers included (for instance `skopeo copy \
                 --preserve-digests` from its registry), then load that"
            }
            Self::Exists(_) => "remove it or choose another place",
            Self::ChangedLayer { .. } => {
                "files of the layer were changed after it was stored; delete the image and load or \
                 pull it again"
            }
            Self::OtherImage { .. } => "delete that image first",
            Self::OtherParent { .. } => "delete that layer first",
            _ => return None,
        };
        Some(text.to_owned())
    }
}
