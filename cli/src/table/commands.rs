// SPDX-License-Identifier: Apache-2.0
//! The commands of containers-storage.

use super::{JSON, QUIET_IDS, Spec, flag};
use crate::{
    cmd::{
        config, containers, copy, create, data, delete, diff, exists, images, layers, metadata,
        mount, names, parents, store,
    },
    mflag::{Flag, Kind},
    run::Action,
};

const LABEL: Flag = flag(&["--label", "-l"], Kind::Text("LABEL"), "Mount Label");
const READONLY: Flag = flag(&["--readonly", "-r"], Kind::Bool, "Mark as read-only");
const LAYER_ID: Flag = flag(&["--id", "-i"], Kind::Text("ID"), "Layer ID");
const LAYER_NAME: Flag = flag(&["--name", "-n"], Kind::List("NAME"), "Layer name");
const METADATA: Flag = flag(&["--metadata", "-m"], Kind::Text("TEXT"), "Metadata");
const METADATA_FILE: Flag = flag(
    &["--metadata-file", "-f"],
    Kind::Text("FILE"),
    "Metadata File",
);
const READ_FILE: Flag = flag(&["--file", "-f"], Kind::Text("FILE"), "Read data from file");
const WRITE_FILE: Flag = flag(&["--file", "-f"], Kind::Text("FILE"), "Write data to file");
const FROM_FILE: Flag = flag(
    &["--file", "-f"],
    Kind::Text("FILE"),
    "Read from file instead of stdin",
);
const NEW_NAME: Flag = flag(&["--name", "-n"], Kind::List("NAME"), "New name");
const DRIVER_PATH: &str = "LayerOrContainerNameOrID";
const ANY_IDS: &str = "[LayerOrImageOrContainerNameOrID [...]]";

macro_rules! command {
    ($names:expr, $arguments:expr, $about:expr, $min:literal .. $max:expr, $flags:expr, $action:expr) => {
        Spec {
            names: &$names,
            arguments: $arguments,
            about: $about,
            min: $min,
            max: $max,
            flags: &$flags,
            action: Action::Store($action),
        }
    };
}

/// The commands of containers-storage, in the order in which its usage lists them.
pub(crate) const COMMANDS: &[Spec] = &[
    Spec {
        names: &["config"],
        arguments: "[configurationFile]",
        about: "Print storage library configuration as JSON",
        min: 0,
        max: Some(1),
        flags: &[],
        action: Action::Store(config::show),
    },
    command!(
        ["container"],
        "[options [...]] containerNameOrID [...]",
        "Examine a container",
        1..None,
        [JSON],
        containers::show
    ),
    command!(
        ["list-container-data", "listcontainerdata"],
        "[options [...]] containerNameOrID",
        "List data items that are attached to an container",
        1..Some(1),
        [JSON],
        data::list_container
    ),
    command!(
        ["get-container-data", "getcontainerdata"],
        "[options [...]] containerNameOrID dataName",
        "Get data that is attached to an container",
        2..Some(2),
        [WRITE_FILE],
        data::get_container
    ),
    command!(
        ["get-container-data-size", "getcontainerdatasize"],
        "[options [...]] containerNameOrID dataName",
        "Get size of data that is attached to an container",
        2..Some(2),
        [],
        data::size_container
    ),
    command!(
        ["get-container-data-digest", "getcontainerdatadigest"],
        "[options [...]] containerNameOrID dataName",
        "Get digest of data that is attached to an container",
        2..Some(2),
        [],
        data::digest_container
    ),
    command!(
        ["set-container-data", "setcontainerdata"],
        "[options [...]] containerNameOrID dataName",
        "Set data that is attached to an container",
        2..Some(2),
        [READ_FILE],
        data::set_container
    ),
    command!(
        ["get-container-dir", "getcontainerdir"],
        "[options [...]] containerNameOrID",
        "Find the container's associated data directory",
        1..Some(1),
        [],
        containers::directory
    ),
    command!(
        ["get-container-run-dir", "getcontainerrundir"],
        "[options [...]] containerNameOrID",
        "Find the container's associated runtime directory",
        1..Some(1),
        [],
        containers::run_directory
    ),
    command!(
        ["container-parent-owners"],
        "[options [...]] containerNameOrID [...]",
        "Compute the set of unmapped parent UIDs and GIDs of the container",
        1..None,
        [JSON],
        parents::container
    ),
    command!(
        ["containers"],
        "[options [...]]",
        "List containers",
        0..Some(0),
        [JSON],
        containers::list
    ),
    command!(
        ["copy"],
        "[options [...]] [sourceLayerNameOrID:]/path [...] targetLayerNameOrID:/path",
        "Copy files or directories into a layer, possibly from another layer",
        2..None,
        [
            flag(
                &["--chown", "-o"],
                Kind::Text("UID:GID"),
                "Set owner on new copies"
            ),
            JSON
        ],
        copy::copy
    ),
    command!(
        ["create-layer", "createlayer"],
        "[options [...]] [parentLayerNameOrID]",
        "Create a new layer",
        0..Some(1),
        [LABEL, LAYER_NAME, LAYER_ID, READONLY, JSON],
        create::layer
    ),
    command!(
        ["create-storage-layer"],
        "[options [...]] [parentLayerNameOrID]",
        "Create a new storage layer",
        0..Some(1),
        [LABEL, LAYER_ID, READONLY, JSON],
        create::storage_layer
    ),
    command!(
        ["import-layer", "importlayer"],
        "[options [...]] [parentLayerNameOrID]",
        "Import a new layer",
        0..Some(1),
        [LABEL, LAYER_NAME, LAYER_ID, READONLY, JSON, FROM_FILE],
        create::import
    ),
    command!(
        ["create-image", "createimage"],
        "[options [...]] topLayerNameOrID",
        "Create a new image using layers",
        0..Some(1),
        [
            flag(&["--name", "-n"], Kind::List("NAME"), "Image name"),
            flag(&["--id", "-i"], Kind::Text("ID"), "Image ID"),
            flag(&["--digest", "-d"], Kind::Text("DIGEST"), "Image Digest"),
            METADATA,
            METADATA_FILE,
            JSON
        ],
        create::image
    ),
    command!(
        ["create-container", "createcontainer"],
        "[options [...]] parentImageNameOrID",
        "Create a new container from an image",
        1..Some(1),
        [
            flag(&["--name", "-n"], Kind::List("NAME"), "Container name"),
            flag(&["--volatile"], Kind::Bool, "Mark as volatile"),
            flag(&["--id", "-i"], Kind::Text("ID"), "Container ID"),
            METADATA,
            METADATA_FILE,
            JSON
        ],
        create::container
    ),
    command!(
        ["delete"],
        ANY_IDS,
        "Delete a layer or image or container, with no safety checks",
        1..None,
        [JSON],
        delete::anything
    ),
    command!(
        ["delete-layer", "deletelayer"],
        "[LayerNameOrID [...]]",
        "Delete a layer, with safety checks",
        1..None,
        [JSON],
        delete::layer
    ),
    command!(
        ["delete-image", "deleteimage"],
        "[ImageNameOrID [...]]",
        "Delete an image, with safety checks",
        1..None,
        [
            flag(&["--test", "-t"], Kind::Bool, "Only test removal"),
            JSON
        ],
        delete::image
    ),
    command!(
        ["delete-container", "deletecontainer"],
        "[ContainerNameOrID [...]]",
        "Delete a container, with safety checks",
        1..None,
        [JSON],
        delete::container
    ),
    command!(
        ["changes"],
        "[options [...]] layerNameOrID [referenceLayerNameOrID]",
        "Compare two layers",
        1..Some(2),
        [JSON],
        diff::changes
    ),
    command!(
        ["diffsize", "diff-size"],
        "[options [...]] layerNameOrID [referenceLayerNameOrID]",
        "Compare two layers",
        1..Some(2),
        [],
        diff::size
    ),
    command!(
        ["diff"],
        "[options [...]] layerNameOrID [referenceLayerNameOrID]",
        "Compare two layers",
        1..Some(2),
        [
            flag(
                &["--file", "-f"],
                Kind::Text("FILE"),
                "Write to file instead of stdout"
            ),
            flag(&["--uncompressed", "-u"], Kind::Bool, "Use no compression"),
            flag(&["--gzip", "-c"], Kind::Bool, "Compress using gzip"),
            flag(
                &["--bzip2", "--bz2", "-b"],
                Kind::Bool,
                "Compress using bzip2 (not currently supported)"
            ),
            flag(
                &["--xz", "-x"],
                Kind::Bool,
                "Compress using xz (not currently supported)"
            )
        ],
        diff::diff
    ),
    command!(
        ["applydiff", "apply-diff"],
        "[options [...]] layerNameOrID [referenceLayerNameOrID]",
        "Apply a diff to a layer",
        1..Some(1),
        [FROM_FILE],
        diff::apply
    ),
    command!(
        ["exists"],
        ANY_IDS,
        "Check if a layer or image or container exists",
        1..None,
        [
            flag(&["--quiet", "-q"], Kind::Bool, "Don't print names"),
            flag(
                &["--layer", "-l"],
                Kind::Bool,
                "Only succeed if the match is a layer"
            ),
            flag(
                &["--image", "-i"],
                Kind::Bool,
                "Only succeed if the match is an image"
            ),
            flag(
                &["--container", "-c"],
                Kind::Bool,
                "Only succeed if the match is a container"
            ),
            JSON
        ],
        exists::exists
    ),
    command!(
        ["gc"],
        "",
        "Perform garbage collection",
        0..Some(0),
        [JSON],
        store::gc
    ),
    command!(
        ["image"],
        "[options [...]] imageNameOrID [...]",
        "Examine an image",
        1..None,
        [JSON],
        images::show
    ),
    command!(
        ["list-image-data", "listimagedata"],
        "[options [...]] imageNameOrID",
        "List data items that are attached to an image",
        1..Some(1),
        [JSON],
        data::list_image
    ),
    command!(
        ["get-image-data", "getimagedata"],
        "[options [...]] imageNameOrID dataName",
        "Get data that is attached to an image",
        2..Some(2),
        [WRITE_FILE],
        data::get_image
    ),
    command!(
        ["get-image-data-size", "getimagedatasize"],
        "[options [...]] imageNameOrID dataName",
        "Get size of data that is attached to an image",
        2..Some(2),
        [],
        data::size_image
    ),
    command!(
        ["get-image-data-digest", "getimagedatadigest"],
        "[options [...]] imageNameOrID dataName",
        "Get digest of data that is attached to an image",
        2..Some(2),
        [],
        data::digest_image
    ),
    command!(
        ["get-image-dir", "getimagedir"],
        "[options [...]] imageNameOrID",
        "Find the image's associated data directory",
        1..Some(1),
        [],
        images::directory
    ),
    command!(
        ["get-image-run-dir", "getimagerundir"],
        "[options [...]] imageNameOrID",
        "Find the image's associated runtime directory",
        1..Some(1),
        [],
        images::run_directory
    ),
    command!(
        ["set-image-data", "setimagedata"],
        "[options [...]] imageNameOrID dataName",
        "Set data that is attached to an image (with sometimes wrong digest)",
        2..Some(2),
        [READ_FILE],
        data::set_image
    ),
    command!(
        ["images"],
        "[options [...]]",
        "List images",
        0..Some(0),
        [JSON, QUIET_IDS],
        images::list
    ),
    command!(
        ["images-by-digest"],
        "[options [...]] DIGEST",
        "List images by digest",
        1..Some(1),
        [JSON, QUIET_IDS],
        images::by_digest
    ),
    command!(
        ["layer"],
        "[options [...]] layerNameOrID [...]",
        "Examine a layer",
        1..None,
        [JSON],
        layers::show
    ),
    command!(
        ["layer-parent-owners"],
        "[options [...]] layerNameOrID [...]",
        "Compute the set of unmapped parent UIDs and GIDs of the layer",
        1..None,
        [JSON],
        parents::layer
    ),
    command!(
        ["list-layer-data", "listlayerdata"],
        "[options [...]] layerNameOrID",
        "List data items that are attached to a layer",
        1..Some(1),
        [JSON],
        data::list_layer
    ),
    command!(
        ["get-layer-data", "getlayerdata"],
        "[options [...]] layerID dataName",
        "Get data that is attached to a layer",
        2..Some(2),
        [WRITE_FILE],
        data::get_layer
    ),
    command!(
        ["set-layer-data", "setlayerdata"],
        "[options [...]] layerID dataName",
        "Set data that is attached to a layer",
        2..Some(2),
        [READ_FILE],
        data::set_layer
    ),
    command!(
        ["layers"],
        "[options [...]]",
        "List layers",
        0..Some(0),
        [
            flag(&["--tree", "-t"], Kind::Bool, "Use a tree"),
            flag(&["--quick", "-q"], Kind::Bool, "Just the IDs"),
            JSON
        ],
        layers::list
    ),
    command!(
        ["storage-layers"],
        "[options [...]]",
        "List storage layers",
        0..Some(0),
        [JSON],
        layers::in_driver
    ),
    command!(
        ["metadata"],
        ANY_IDS,
        "Retrieve layer, image, or container metadata",
        1..None,
        [
            flag(&["--quiet", "-q"], Kind::Bool, "Omit names and IDs"),
            JSON
        ],
        metadata::get
    ),
    command!(
        ["set-metadata", "setmetadata"],
        "[options [...]] layerOrImageOrContainerNameOrID",
        "Set layer, image, or container metadata",
        1..Some(1),
        [METADATA, METADATA_FILE],
        metadata::set
    ),
    command!(
        ["mount"],
        "[options [...]] LayerOrContainerNameOrID",
        "Mount a layer or container",
        1..None,
        [
            flag(&["--opt", "-o"], Kind::Text("OPTIONS"), "Mount Options"),
            LABEL,
            flag(
                &["--read-only", "--ro", "-r"],
                Kind::Bool,
                "Mount image readonly"
            ),
            JSON
        ],
        mount::mount
    ),
    command!(
        ["unmount", "umount"],
        DRIVER_PATH,
        "Unmount an image, layer or container",
        1..None,
        [
            JSON,
            flag(&["--force", "-f"], Kind::Bool, "Force the umount")
        ],
        mount::unmount
    ),
    command!(
        ["mounted"],
        DRIVER_PATH,
        "Check if a file system is mounted",
        1..None,
        [JSON],
        mount::mounted
    ),
    command!(
        ["get-names", "getnames"],
        "[options [...]] imageOrContainerNameOrID",
        "Get layer, image, or container name or names",
        1..Some(1),
        [JSON],
        names::get
    ),
    command!(
        ["add-names", "addnames"],
        "[options [...]] imageOrContainerNameOrID",
        "Add layer, image, or container name or names",
        1..None,
        [NEW_NAME, JSON],
        names::add
    ),
    command!(
        ["remove-names", "removenames"],
        "[options [...]] imageOrContainerNameOrID",
        "Remove layer, image, or container name or names",
        1..None,
        [
            flag(&["--name", "-n"], Kind::List("NAME"), "Name to remove"),
            JSON
        ],
        names::remove
    ),
    command!(
        ["set-names", "setnames"],
        "[options [...]] imageOrContainerNameOrID",
        "Set layer, image, or container name or names",
        1..None,
        [NEW_NAME, JSON],
        names::set
    ),
    command!(
        ["shutdown"],
        "",
        "Shut down layer storage",
        0..Some(0),
        [
            JSON,
            flag(
                &["--force", "-f"],
                Kind::Bool,
                "Unmount mounted layers first"
            )
        ],
        store::shutdown
    ),
    command!(
        ["status"],
        "",
        "Check on graph driver status",
        0..Some(0),
        [JSON],
        store::status
    ),
    command!(
        ["version"],
        "",
        "Return containers-storage version information",
        0..Some(0),
        [JSON],
        store::version
    ),
    command!(
        ["wipe"],
        "",
        "Wipe all layers, images, and containers",
        0..Some(0),
        [JSON],
        store::wipe
    ),
];
