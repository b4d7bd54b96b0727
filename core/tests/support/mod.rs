// SPDX-License-Identifier: Apache-2.0
//! What several test modules need.

pub(crate) mod plugins;
