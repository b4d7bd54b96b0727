// SPDX-License-Identifier: Apache-2.0
//! The library's properties, one module each.

mod layers_records;
mod layers_support;
