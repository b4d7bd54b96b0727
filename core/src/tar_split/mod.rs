// SPDX-License-Identifier: Apache-2.0
//! The tar-split record: what is needed, beside a layer's files, to rebuild its tar stream.

pub mod assemble;
mod files;
mod parse;
