// SPDX-License-Identifier: Apache-2.0
//! Our own commands.

use super::{JSON, QUIET_IDS, Spec, flag};
use crate::{
    cmd::{config, driver, info, own_image, words},
    mflag::Kind,
    run::Action,
};

/// The commands that exist under the name `plywood` alone.
pub(crate) const OWN_COMMANDS: &[Spec] = &[
    Spec {
        names: &["image load"],
        arguments: "SRC [NAME]",
        about: "Load images from an OCI layout, an OCI archive or a docker archive",
        min: 1,
        max: Some(2),
        flags: &[
            flag(
                &["--platform"],
                Kind::Text("OS/ARCH[/VARIANT]"),
                "Choose from an index; the default is this machine",
            ),
            QUIET_IDS,
            JSON,
        ],
        action: Action::Store(own_image::load),
    },
    Spec {
        names: &["image save"],
        arguments: "NAME DEST",
        about: "Save an image as an OCI layout, an OCI archive or a docker archive",
        min: 2,
        max: Some(2),
        flags: &[
            flag(
                &["--uncompressed", "-u"],
                Kind::Bool,
                "Do not compress the layers of an OCI image",
            ),
            JSON,
        ],
        action: Action::Store(own_image::save),
    },
    Spec {
        names: &["image list"],
        arguments: "",
        about: "Show a table of images",
        min: 0,
        max: Some(0),
        flags: &[JSON],
        action: Action::Store(own_image::list),
    },
    Spec {
        names: &["driver list"],
        arguments: "",
        about: "Show which drivers were found where",
        min: 0,
        max: Some(0),
        flags: &[JSON],
        action: Action::Plain(driver::list),
    },
    Spec {
        names: &["driver inspect"],
        arguments: "NAME",
        about: "Show what a driver can do on this store",
        min: 1,
        max: Some(1),
        flags: &[JSON],
        action: Action::Plain(driver::inspect),
    },
    Spec {
        names: &["driver check"],
        arguments: "FILE",
        about: "Check whether a plugin file can be loaded, in a child process",
        min: 1,
        max: Some(1),
        flags: &[JSON],
        action: Action::Plain(driver::check),
    },
    Spec {
        names: &["driver probe"],
        arguments: "",
        about: "Try every driver on this store's file system",
        min: 0,
        max: Some(0),
        flags: &[JSON],
        action: Action::Plain(driver::probe),
    },
    Spec {
        names: &["config explain"],
        arguments: "",
        about: "Show every setting with the file and line that set it",
        min: 0,
        max: Some(0),
        flags: &[JSON],
        action: Action::Plain(config::explain),
    },
    Spec {
        names: &["info"],
        arguments: "",
        about: "Show where the store is, which driver it uses and why, and what is in it",
        min: 0,
        max: Some(0),
        flags: &[JSON],
        action: Action::Store(info::info),
    },
    Spec {
        names: &["completions"],
        arguments: "SHELL",
        about: "Print a completion script for bash, elvish, fish, powershell or zsh",
        min: 1,
        max: Some(1),
        flags: &[],
        action: Action::Plain(words::completions),
    },
    Spec {
        names: &["man"],
        arguments: "[DIR]",
        about: "Print the manual page, or write all pages into a directory",
        min: 0,
        max: Some(1),
        flags: &[],
        action: Action::Plain(words::man),
    },
];
