// SPDX-License-Identifier: Apache-2.0
//! The record from which a layer's original tar is rebuilt byte for byte.
//!
//! It is a gzip file of JSON lines: segments hold headers and padding, file lines name content
//! that is read from the layer.

pub mod assemble;
pub mod entry;
mod files;
mod parse;
pub mod writer;
