// SPDX-License-Identifier: Apache-2.0
//! What is exported and imported again is what was there.

use std::{fs, path::Path};

use plywood::{
    archive::{
        import::{ImportOptions, import, unpack_plain},
        pack::{PackOptions, export, pack_tree},
        walk::{DiffMaps, changes},
    },
    sdk::{DiffView, UnpackTarget, WhiteoutForm},
    tar_split::assemble::assemble,
};

use crate::export_support::{NO_MAPS, Overlay, is_root, listing, run_script};

const MAPS: DiffMaps<'_> = DiffMaps {
    layer: &NO_MAPS,
    parent: &NO_MAPS,
};

/// Everything that a tar of containers/storage can carry.
const TREE: &str = "
    mkdir -p d/e 'sp ace' deep/$(printf 'l%.0s' {1..120}); echo f > d/f; ln d/f d/e/hard; ln -s ../f d/e/soft
    ln -s $(printf 't%.0s' {1..200}) far; mkfifo fifo; mknod chr c 5 2; mknod blk b 7 300; : > empty
    echo x > deep/$(printf 'l%.0s' {1..120})/$(printf 'n%.0s' {1..250}); echo u > $'\\xc3\\xbcml'
    chmod 4711 d/f; chmod 1777 'sp ace'; chmod 000 empty; chown 3000000:4000000 d/e; chown -h 5:6 far
    setfattr -n user.a -v $'v\\nw' d/f; setfattr -n user.d -v d d; head -c 300000 /dev/urandom > big
    setfattr -n security.capability -v 0x0100000200200000000000000000000000000000 big
    touch -hd '2021-03-04 05:06:07.123456789' d/e/soft; touch -d '2021-03-04 05:06:07.123456789' big
    touch -d '2021-03-04' d; touch -d @1234567890.25 deep";

fn no_difference(tree: &Path, parent: &Path) {
    let view = |tree: &Path, parent: &Path| DiffView::Trees {
        tree: tree.to_path_buf(),
        parent: Some(parent.to_path_buf()),
    };
    assert_eq!(changes(&view(tree, parent), &MAPS).unwrap(), []);
}

/// `copy` must not lose an attribute, nor a fraction of a second.
#[test]
fn root_a_packed_tree_unpacks_to_the_same() {
    if !is_root() {
        return;
    }
    let root = tempfile::tempdir().unwrap();
    let (old, new) = (root.path().join("old"), root.path().join("new"));
    fs::create_dir(&old).unwrap();
    fs::create_dir(&new).unwrap();
    run_script(&old, TREE);
    let options = PackOptions {
        id_maps: &NO_MAPS,
        owner: None,
        nanoseconds: true,
    };
    let mut packed = Vec::new();
    pack_tree(&old, &options, &mut packed).unwrap();
    let target = UnpackTarget::tree(&new);
    unpack_plain(&packed[..], &ImportOptions::new(&target, &NO_MAPS)).unwrap();
    no_difference(&new, &old);

    let mut again = Vec::new();
    pack_tree(&new, &options, &mut again).unwrap();
    assert_eq!(listing(&again), listing(&packed));
    assert!(again == packed);
}

/// A layer that is exported, imported and exported again keeps its digest.
#[test]
fn root_an_exported_layer_imports_to_the_same() {
    if !is_root() {
        return;
    }
    let overlay = Overlay::new("mkdir -p gone/x was/y; echo 1 > was/z; echo 2 > r", "");
    overlay.edit(&format!(
        "{TREE}\nrm -rf gone was r; mkdir was; echo 3 > was/z"
    ));
    let view = overlay.view(WhiteoutForm::Overlay);
    let DiffView::Upper { lowers, .. } = &view else {
        unreachable!("it is an upper directory")
    };
    let mut stream = Vec::new();
    export(&view, &MAPS, &mut stream).unwrap();

    let place = tempfile::tempdir().unwrap();
    let mut target = UnpackTarget::tree(place.path());
    target.whiteouts = WhiteoutForm::Overlay;
    target.apply_root = false;
    let mut record = Vec::new();
    import(
        &stream[..],
        &ImportOptions::new(&target, &NO_MAPS),
        &mut record,
    )
    .unwrap();

    let imported = DiffView::Upper {
        upper: place.path().to_path_buf(),
        lowers: lowers.clone(),
        whiteouts: WhiteoutForm::Overlay,
    };
    let mut exported = Vec::new();
    export(&imported, &MAPS, &mut exported).unwrap();
    assert_eq!(listing(&exported), without_links(&stream));

    let mut assembled = Vec::new();
    let roots = [place.path().to_path_buf()];
    assemble(&record[..], &roots, &mut assembled).unwrap();
    assert!(assembled == stream);
}

/// The kernel's whiteouts share an inode, so their entries have a link name; imported ones do not.
fn without_links(tar: &[u8]) -> Vec<String> {
    listing(tar)
        .into_iter()
        .map(|line| {
            if !line.starts_with("0 .wh.") {
                return line;
            }
            let (before, after) = line.split_once(" link ").unwrap();
            let after = after.split_once(" device ").unwrap().1;
            format!("{before} link  device {after}")
        })
        .collect()
}
