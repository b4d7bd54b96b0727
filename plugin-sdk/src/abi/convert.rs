// SPDX-License-Identifier: Apache-2.0
//! Between the public types and their twins.
//!
//! Everything that arrives is checked: ids against the grammar, numbers and flags against what
//! this version knows.

use std::{
    ffi::OsString,
    os::unix::ffi::{OsStrExt, OsStringExt},
    path::{Path, PathBuf},
    sync::Arc,
};

use abi_stable::std_types::{ROption, RResult, RStr, RString, RVec, Tuple2};

use super::types::{
    AbiCapabilities, AbiCreate, AbiError, AbiIdMap, AbiIdMaps, AbiMount, AbiOpen, AbiPath,
    AbiResult, AbiUsage, Extra,
};
use crate::{
    Capabilities, CreateRequest, DriverError, DriverErrorCode, Host, IdMap, IdMaps, LayerId,
    LayerKind, LogLevel, MountRequest, OpenRequest, Removed, Result, Usage,
};

const OPEN_ROOTLESS: u64 = 1;
const MOUNT_READ_ONLY: u64 = 1;
const MOUNT_VOLATILE: u64 = 2;

/// The set bits of `pairs`.
pub(super) fn flags(pairs: &[(u64, bool)]) -> u64 {
    pairs
        .iter()
        .filter(|(_, set)| *set)
        .fold(0, |flags, (bit, _)| flags | bit)
}

/// Refuses flags outside `known`: the sender is newer and means something by them.
pub(super) fn known_flags(what: &str, flags: u64, known: u64) -> Result<()> {
    match flags & !known {
        0 => Ok(()),
        unknown => Err(newer(what, &format!("flags {unknown:#x}"))),
    }
}

pub(super) fn newer(what: &str, value: &str) -> DriverError {
    DriverError::new(
        DriverErrorCode::NOT_SUPPORTED,
        format!("{what} carries {value}, which this side of the plugin boundary does not know"),
    )
    .remedy("use a plugin and a program of the same release")
}

macro_rules! numbers {
    ($to:ident, $from:ident, $type:ty, $what:literal: $($variant:path = $number:literal),* $(,)?) => {
        pub(super) fn $to(value: $type) -> u32 {
            match value { $($variant => $number),* }
        }

        pub(super) fn $from(number: u32) -> Result<$type> {
            match number {
                $($number => Ok($variant),)*
                other => Err(newer($what, &format!("the number {other}"))),
            }
        }
    };
}
pub(super) use numbers;

numbers! { kind_number, kind_of, LayerKind, "the kind of a layer":
LayerKind::ReadOnly = 0, LayerKind::ReadWrite = 1 }
numbers! { removed_number, removed_of, Removed, "the outcome of a removal":
Removed::Now = 0, Removed::AlreadyGone = 1 }

pub(super) fn level_number(level: LogLevel) -> u32 {
    match level {
        LogLevel::Error => 1,
        LogLevel::Warn => 2,
        LogLevel::Info => 3,
        LogLevel::Debug => 4,
    }
}

/// A level that this version does not know is finer than those that it knows.
pub(super) fn level_of(number: u32) -> LogLevel {
    match number {
        0 | 1 => LogLevel::Error,
        2 => LogLevel::Warn,
        3 => LogLevel::Info,
        _ => LogLevel::Debug,
    }
}

impl From<&Path> for AbiPath {
    fn from(path: &Path) -> Self {
        Self {
            bytes: path.as_os_str().as_bytes().into(),
        }
    }
}

impl From<AbiPath> for PathBuf {
    fn from(path: AbiPath) -> Self {
        OsString::from_vec(path.bytes.into_vec()).into()
    }
}

pub(super) fn paths(paths: &[PathBuf]) -> RVec<AbiPath> {
    paths.iter().map(|path| path.as_path().into()).collect()
}

pub(super) fn path_bufs(paths: RVec<AbiPath>) -> Vec<PathBuf> {
    paths.into_iter().map(Into::into).collect()
}

pub(super) fn maybe_path(path: Option<&PathBuf>) -> ROption<AbiPath> {
    path.map(|path| path.as_path().into()).into()
}

pub(super) fn maybe_path_buf(path: ROption<AbiPath>) -> Option<PathBuf> {
    path.into_option().map(Into::into)
}

pub(super) fn texts<'a>(texts: impl IntoIterator<Item = &'a String>) -> RVec<RString> {
    texts.into_iter().map(|text| text.as_str().into()).collect()
}

pub(super) fn strings(texts: RVec<RString>) -> Vec<String> {
    texts.into_iter().map(Into::into).collect()
}

pub(super) fn maybe_text(text: Option<&String>) -> ROption<RString> {
    text.map(|text| text.as_str().into()).into()
}

pub(super) fn maybe_string(text: ROption<RString>) -> Option<String> {
    text.into_option().map(Into::into)
}

pub(super) fn pairs<'a>(pairs: impl IntoIterator<Item = (&'a String, &'a String)>) -> Extra {
    pairs
        .into_iter()
        .map(|(key, value)| Tuple2(key.as_str().into(), value.as_str().into()))
        .collect()
}

pub(super) fn string_pairs<C: FromIterator<(String, String)>>(pairs: Extra) -> C {
    pairs
        .into_iter()
        .map(|Tuple2(key, value)| (key.into(), value.into()))
        .collect()
}

/// Checks an id that crossed the boundary.
pub(super) fn id_of(text: &str) -> Result<LayerId> {
    LayerId::new(text).map_err(|error| {
        DriverError::new(DriverErrorCode::INVALID_ARGUMENT, error.to_string()).object(text)
    })
}

pub(super) fn maybe_id(id: Option<&LayerId>) -> ROption<RStr<'_>> {
    id.map(|id| RStr::from_str(id.as_str())).into()
}

pub(super) fn maybe_id_of(text: ROption<RStr<'_>>) -> Result<Option<LayerId>> {
    text.into_option()
        .map(|text| id_of(text.as_str()))
        .transpose()
}

/// What an answer carries, or its error.
pub(super) fn received<T>(answer: AbiResult<T>) -> Result<T> {
    answer.into_result().map_err(Into::into)
}

/// A result on its way out.
pub(super) fn sent<T>(result: Result<T>) -> AbiResult<T> {
    match result {
        Ok(value) => RResult::ROk(value),
        Err(error) => RResult::RErr(error.into()),
    }
}

impl From<DriverError> for AbiError {
    fn from(error: DriverError) -> Self {
        Self {
            code: error.code.0,
            message: error.message.into(),
            object: error.object.map(Into::into).into(),
            remedy: error.remedy.map(Into::into).into(),
            errno: error.errno.into(),
            extra: Extra::new(),
        }
    }
}

impl From<AbiError> for DriverError {
    fn from(error: AbiError) -> Self {
        Self {
            code: DriverErrorCode(error.code),
            message: error.message.into(),
            object: maybe_string(error.object),
            remedy: maybe_string(error.remedy),
            errno: error.errno.into_option(),
        }
    }
}

impl From<Capabilities> for AbiCapabilities {
    fn from(capabilities: Capabilities) -> Self {
        Self {
            bits: capabilities.to_bits(),
            depth_limit: capabilities.depth_limit.into(),
            extra: Extra::new(),
        }
    }
}

impl From<AbiCapabilities> for Capabilities {
    /// Capabilities of a newer version are ignored: core will never use them.
    fn from(capabilities: AbiCapabilities) -> Self {
        Self::from_bits(capabilities.bits, capabilities.depth_limit.into_option())
    }
}

impl From<&IdMaps> for AbiIdMaps {
    fn from(maps: &IdMaps) -> Self {
        let list = |maps: &[IdMap]| {
            maps.iter()
                .map(|map| AbiIdMap {
                    container_id: map.container_id,
                    host_id: map.host_id,
                    size: map.size,
                })
                .collect()
        };
        Self {
            uids: list(&maps.uids),
            gids: list(&maps.gids),
        }
    }
}

impl From<AbiIdMaps> for IdMaps {
    fn from(maps: AbiIdMaps) -> Self {
        let list = |maps: RVec<AbiIdMap>| {
            maps.into_iter()
                .map(|map| IdMap {
                    container_id: map.container_id,
                    host_id: map.host_id,
                    size: map.size,
                })
                .collect()
        };
        Self {
            uids: list(maps.uids),
            gids: list(maps.gids),
        }
    }
}

impl From<&OpenRequest> for AbiOpen {
    fn from(request: &OpenRequest) -> Self {
        Self {
            home: request.home.as_path().into(),
            run_dir: request.run_dir.as_path().into(),
            image_store: maybe_path(request.image_store.as_ref()),
            options: texts(&request.options),
            known_drivers: texts(&request.known_drivers),
            id_maps: (&request.id_maps).into(),
            flags: flags(&[(OPEN_ROOTLESS, request.rootless)]),
            extra: Extra::new(),
        }
    }
}

impl AbiOpen {
    pub(super) fn into_request(self, host: Arc<dyn Host>) -> Result<OpenRequest> {
        known_flags("a request to open", self.flags, OPEN_ROOTLESS)?;
        Ok(OpenRequest {
            home: self.home.into(),
            run_dir: self.run_dir.into(),
            image_store: maybe_path_buf(self.image_store),
            options: strings(self.options),
            known_drivers: strings(self.known_drivers),
            id_maps: self.id_maps.into(),
            rootless: self.flags & OPEN_ROOTLESS != 0,
            host,
        })
    }
}

impl From<&CreateRequest> for AbiCreate {
    fn from(request: &CreateRequest) -> Self {
        let text = |id: &LayerId| RString::from(id.as_str());
        Self {
            id: text(&request.id),
            parent: request.parent.as_ref().map(text).into(),
            kind: kind_number(request.kind),
            mount_label: maybe_text(request.mount_label.as_ref()),
            storage_options: pairs(&request.storage_options),
            id_maps: (&request.id_maps).into(),
            template: request.template.as_ref().map(text).into(),
            flags: 0,
            extra: Extra::new(),
        }
    }
}

impl TryFrom<AbiCreate> for CreateRequest {
    type Error = DriverError;

    fn try_from(request: AbiCreate) -> Result<Self> {
        known_flags("a request to create", request.flags, 0)?;
        let id = |text: ROption<RString>| text.into_option().map(|text| id_of(&text)).transpose();
        Ok(Self {
            id: id_of(&request.id)?,
            parent: id(request.parent)?,
            kind: kind_of(request.kind)?,
            mount_label: maybe_string(request.mount_label),
            storage_options: string_pairs(request.storage_options),
            id_maps: request.id_maps.into(),
            template: id(request.template)?,
        })
    }
}

impl From<&MountRequest> for AbiMount {
    fn from(request: &MountRequest) -> Self {
        Self {
            label: maybe_text(request.label.as_ref()),
            options: texts(&request.options),
            id_maps: (&request.id_maps).into(),
            flags: flags(&[
                (MOUNT_READ_ONLY, request.read_only),
                (MOUNT_VOLATILE, request.volatile),
            ]),
            extra: Extra::new(),
        }
    }
}

impl TryFrom<AbiMount> for MountRequest {
    type Error = DriverError;

    fn try_from(request: AbiMount) -> Result<Self> {
        let known = MOUNT_READ_ONLY | MOUNT_VOLATILE;
        known_flags("a request to mount", request.flags, known)?;
        Ok(Self {
            read_only: request.flags & MOUNT_READ_ONLY != 0,
            label: maybe_string(request.label),
            options: strings(request.options),
            volatile: request.flags & MOUNT_VOLATILE != 0,
            id_maps: request.id_maps.into(),
        })
    }
}

impl From<Usage> for AbiUsage {
    fn from(usage: Usage) -> Self {
        Self {
            bytes: usage.bytes,
            inodes: usage.inodes,
            extra: Extra::new(),
        }
    }
}

impl From<AbiUsage> for Usage {
    fn from(usage: AbiUsage) -> Self {
        Self {
            bytes: usage.bytes,
            inodes: usage.inodes,
        }
    }
}
