// SPDX-License-Identifier: Apache-2.0
//! Id maps, masks, limits and what else a target or a caller may ask for.

use std::{
    io::{self, Read, Write as _},
    os::unix::fs::MetadataExt as _,
    path::Path,
    sync::{
        Mutex,
        atomic::{AtomicBool, Ordering},
    },
};

use plywood::{
    ErrorKind,
    archive::import::{ImportOptions, import, unpack_plain},
    sdk::{IdMap, IdMaps, UnpackTarget, WhiteoutForm},
    tar_split::assemble::assemble,
};

use super::import_support::{
    Item, Scratch, dir, file, hardlink, item, mode_of, names, symlink, tar,
};

fn maps() -> IdMaps {
    let map = |host_id| {
        vec![IdMap {
            container_id: 0,
            host_id,
            size: 1000,
        }]
    };
    IdMaps {
        uids: map(100_000),
        gids: map(200_000),
    }
}

fn import_mapped(scratch: &Scratch, form: WhiteoutForm, items: &[Item]) -> plywood::Result<()> {
    let (target, maps) = (scratch.target(form), maps());
    let options = ImportOptions::new(&target, &maps);
    import(&tar(items)[..], &options, io::sink()).map(|_| ())
}

#[test]
fn root_owners_are_mapped() {
    let scratch = Scratch::new();
    let items = [
        dir("d/").owner(1, 2),
        file("d/f", "x").owner(3, 4),
        symlink("s", "d").owner(5, 6),
        item(b'6', "p").owner(7, 8),
        item(b'0', ".wh.w").owner(9, 10),
        file("implied/f", "").owner(999, 999),
        hardlink("d/h", "d/f").owner(11, 12),
    ];
    import_mapped(&scratch, WhiteoutForm::Overlay, &items).unwrap();
    let expected = [
        ("d", (1, 2)),
        ("d/f", (11, 12)),
        ("s", (5, 6)),
        ("p", (7, 8)),
        ("w", (9, 10)),
        ("implied", (0, 0)),
        ("implied/f", (999, 999)),
    ];
    for (path, (uid, gid)) in expected {
        let data = scratch.root().join(path).symlink_metadata().unwrap();
        assert_eq!(
            (data.uid(), data.gid()),
            (100_000 + uid, 200_000 + gid),
            "{path}"
        );
    }
}

#[test]
fn root_ids_outside_the_map_are_refused() {
    for bad in [file("f", "").owner(1000, 0), file("f", "").owner(0, 1000)] {
        let error = import_mapped(&Scratch::new(), WhiteoutForm::Overlay, &[bad]).unwrap_err();
        let sentence = "container ID 1000 cannot be mapped to a host ID";
        assert_eq!(error.to_string(), sentence);
        assert_eq!(error.about(), Some("f"));
    }
}

#[test]
fn root_modes_do_not_depend_on_the_umask() {
    let modes = [0o777, 0o666, 0o2777, 0o4755, 0o6711, 0o1777, 0o000, 0o070];
    let items: Vec<Item> = modes
        .iter()
        .flat_map(|mode| {
            [
                file(&format!("f{mode:o}"), "x").mode(*mode),
                dir(&format!("d{mode:o}/")).mode(*mode),
                item(b'6', format!("p{mode:o}")).mode(*mode).owner(1, 1),
            ]
        })
        .collect();
    let scratch = Scratch::new();
    scratch.import(WhiteoutForm::Overlay, &tar(&items)).unwrap();
    for mode in modes {
        for kind in ["f", "d", "p"] {
            let path = scratch.root().join(format!("{kind}{mode:o}"));
            assert_eq!(mode_of(&path), mode, "{}", path.display());
        }
    }
}

#[test]
fn root_implied_directories_follow_the_target() {
    for (mode, use_umask) in [(0o777, true), (0o777, false), (0o755, false), (0o700, true)] {
        let scratch = Scratch::new();
        let mut target = scratch.target(WhiteoutForm::Overlay);
        target.implied_directory_mode = mode;
        target.implied_directory_umask = use_umask;
        Scratch::import_with(&target, &tar(&[file("a/b/c", "x")])).unwrap();
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let umask = status
            .lines()
            .find_map(|line| line.strip_prefix("Umask:\t"));
        let umask = u32::from_str_radix(umask.unwrap(), 8).unwrap();
        let expected = if use_umask { mode & !umask } else { mode };
        for path in ["a", "a/b"] {
            assert_eq!(
                mode_of(scratch.root().join(path)),
                expected,
                "{mode:o} {use_umask}"
            );
        }
    }
}

/// A set-group-ID directory gives its group to what is created in it.
#[test]
fn root_inherited_groups_and_acls_are_undone() {
    let acl: Vec<u8> = {
        let mut acl = vec![2, 0, 0, 0];
        for (tag, permissions, id) in [
            (1_u16, 7_u16, u32::MAX),
            (4, 0, u32::MAX),
            (32, 0, u32::MAX),
        ] {
            acl.extend_from_slice(&tag.to_le_bytes());
            acl.extend_from_slice(&permissions.to_le_bytes());
            acl.extend_from_slice(&id.to_le_bytes());
        }
        acl
    };
    let scratch = Scratch::new();
    let items = [
        dir("g/").mode(0o2755).owner(0, 50),
        file("g/f", "x").owner(0, 0),
        dir("g/d/").owner(0, 0).mode(0o755),
        symlink("g/s", "x").owner(0, 0),
        dir("acl/").pax("SCHILY.xattr.system.posix_acl_default", &acl),
        file("acl/f", "x").mode(0o644),
        dir("acl/d/").mode(0o755),
        item(b'6', "acl/p").mode(0o644),
    ];
    scratch.import(WhiteoutForm::Overlay, &tar(&items)).unwrap();
    for path in ["g/f", "g/d", "g/s"] {
        let data = scratch.root().join(path).symlink_metadata().unwrap();
        assert_eq!(data.gid(), 0, "{path}");
    }
    assert_eq!(mode_of(scratch.root().join("g/d")), 0o755);
    assert_eq!(mode_of(scratch.root().join("acl/f")), 0o644);
    assert_eq!(mode_of(scratch.root().join("acl/d")), 0o755);
    assert_eq!(mode_of(scratch.root().join("acl/p")), 0o644);
}

#[test]
fn root_a_forced_mask_keeps_attributes_aside() {
    let scratch = Scratch::new();
    let mut target = scratch.target(WhiteoutForm::Literal);
    target.force_mask = Some(0o700);
    let items = [
        dir("./").mode(0o711).owner(1, 2),
        dir("d/").mode(0o1755).owner(3, 4),
        file("d/f", "x").mode(0o4644).owner(5, 6),
        item(b'3', "null").device(1, 3).mode(0o666),
        item(b'6', "p").mode(0o600),
        symlink("s", "d"),
        item(b'0', ".wh.literal").mode(0o600),
    ];
    Scratch::import_with(&target, &tar(&items)).unwrap();
    let tree = scratch.tree();
    let expected = [
        (".", "1:2:0711:dir"),
        ("./d", "3:4:01755:dir"),
        ("./d/f", "5:6:04644:file"),
        ("./null", "0:0:0666:char-1-3"),
        ("./p", "0:0:0600:pipe"),
        ("./.wh.literal", "0:0:0600:file"),
    ];
    for (path, value) in expected {
        let node = &tree[Path::new(path)];
        let stored = &node.attributes[&b"user.containers.override_stat"[..]];
        assert_eq!(String::from_utf8_lossy(stored), value, "{path}");
        assert_eq!(node.owner, (0, 0), "{path}");
        if path != "." {
            assert_eq!(node.mode & 0o7777, 0o700, "{path}");
        }
    }
}

#[test]
fn root_rootless_overlay_marks_use_user_attributes() {
    let scratch = Scratch::new();
    let items = [
        dir("d/"),
        item(b'0', "d/.wh..wh..opq"),
        item(b'0', "d/.wh.gone"),
    ];
    scratch
        .import(WhiteoutForm::OverlayUserXattr, &tar(&items))
        .unwrap();
    let tree = scratch.tree();
    let attributes = &tree[Path::new("./d")].attributes;
    assert_eq!(attributes[&b"user.overlay.opaque"[..]], b"y");
    let gone = &tree[Path::new("./d/gone")];
    assert_eq!((gone.mode, gone.device), (0o020_000, 0));
}

#[test]
fn root_aufs_links_are_links() {
    let scratch = Scratch::new();
    let items = [
        dir(".wh..wh.plnk/"),
        file(".wh..wh.plnk/12.34", "shared").mode(0o640).owner(1, 2),
        hardlink("one", ".wh..wh.plnk/12.34")
            .mode(0o640)
            .owner(1, 2),
        hardlink("d/two", ".wh..wh.plnk/12.34")
            .mode(0o640)
            .owner(1, 2),
        item(b'0', ".wh..wh.aufs"),
    ];
    scratch.import(WhiteoutForm::Removal, &tar(&items)).unwrap();
    let tree = scratch.tree();
    assert_eq!(names(&tree), ["d", "d/two", "one"]);
    let one = &tree[Path::new("./one")];
    assert_eq!(
        (one.content.as_slice(), one.owner),
        (&b"shared"[..], (1, 2))
    );
    assert_eq!(one.same_as, tree[Path::new("./d/two")].same_as);
    let error = scratch
        .import(
            WhiteoutForm::Removal,
            &tar(&[hardlink("x", ".wh..wh.plnk/9")]),
        )
        .unwrap_err();
    assert_eq!(error.to_string(), "invalid aufs hardlink");
}

fn gzip(content: impl Read) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    let mut content = content;
    io::copy(&mut content, &mut encoder).unwrap();
    encoder.flush().unwrap();
    encoder.finish().unwrap()
}

#[test]
fn root_a_decompression_bomb_stops_at_the_limit() {
    let bomb = gzip(io::repeat(0).take(200 << 20));
    let sparse = file("s", "")
        .pax("GNU.sparse.map", "0,0")
        .pax("GNU.sparse.numblocks", "1")
        .pax("GNU.sparse.size", (1_u64 << 60).to_string());
    for layer in [bomb, tar(&[sparse])] {
        let scratch = Scratch::new();
        let (target, maps) = (scratch.target(WhiteoutForm::Overlay), IdMaps::default());
        let mut options = ImportOptions::new(&target, &maps);
        options.limit = Some(1 << 20);
        let error = import(&layer[..], &options, io::sink()).unwrap_err();
        assert_eq!(
            error.to_string(),
            "the layer is larger than the limit of 1048576 bytes"
        );
        let error = unpack_plain(&layer[..], &options).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidArchive);
    }
    let scratch = Scratch::new();
    let (target, maps) = (scratch.target(WhiteoutForm::Overlay), IdMaps::default());
    let layer = tar(&[file("f", "x")]);
    let mut options = ImportOptions::new(&target, &maps);
    options.limit = Some(layer.len() as u64);
    import(&layer[..], &options, io::sink()).unwrap();
}

#[test]
fn root_work_can_be_cancelled_and_watched() {
    let scratch = Scratch::new();
    let (target, maps) = (scratch.target(WhiteoutForm::Overlay), IdMaps::default());
    let stop = AtomicBool::new(false);
    let seen = Mutex::new(Vec::new());
    let layer = tar(&[file("f", &"x".repeat(3 << 20)), file("g", "x")]);
    let progress = |bytes| seen.lock().unwrap().push(bytes);
    let mut options = ImportOptions::new(&target, &maps);
    options.progress = Some(&progress);
    options.cancel = Some(&stop);
    import(&layer[..], &options, io::sink()).unwrap();
    let steps = std::mem::take(&mut *seen.lock().unwrap());
    assert!(steps.is_sorted() && steps.len() > 3, "{steps:?}");
    assert_eq!(steps.last(), Some(&(layer.len() as u64)));
    let progress = |bytes| stop.store(bytes > 1 << 20, Ordering::Relaxed);
    options.progress = Some(&progress);
    let error = import(&layer[..], &options, io::sink()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Cancelled);
}

#[test]
fn root_failures_of_the_input_are_told() {
    struct Broken;
    impl Read for Broken {
        fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
            Err(io::Error::from_raw_os_error(libc::EIO))
        }
    }
    let layer = tar(&[file("f", "x")]);
    for prefix in [&layer[..0], &layer[..700], &gzip(&layer[..])[..30]] {
        let scratch = Scratch::new();
        let (target, maps) = (scratch.target(WhiteoutForm::Overlay), IdMaps::default());
        let options = ImportOptions::new(&target, &maps);
        let error = import(prefix.chain(Broken), &options, io::sink()).unwrap_err();
        assert_eq!(
            error.to_string(),
            "cannot read the layer's stream",
            "{}",
            prefix.len()
        );
        assert_eq!(error.kind(), ErrorKind::Io);
        assert!(std::error::Error::source(&error).is_some());
    }
}

#[test]
fn root_plain_unpacking_replaces_and_counts() {
    let scratch = Scratch::new();
    let target = UnpackTarget::tree(scratch.root());
    let maps = IdMaps::default();
    let layer = tar(&[
        file("f", "one"),
        dir("d/"),
        file("f", "two"),
        file("d", "three"),
    ]);
    let size = unpack_plain(&layer[..], &ImportOptions::new(&target, &maps)).unwrap();
    assert_eq!(size, layer.len() as u64);
    let content = |name: &str| std::fs::read_to_string(scratch.root().join(name)).unwrap();
    assert_eq!(
        (content("f").as_str(), content("d").as_str()),
        ("two", "three")
    );
}

/// What was imported can be given back byte for byte.
#[test]
fn root_the_record_rebuilds_the_stream() {
    let layer = tar(&super::import_interop::everything());
    for layer in [
        layer.clone(),
        [layer, vec![0; 10_000], vec![b'x'; 3 << 20]].concat(),
    ] {
        let scratch = Scratch::new();
        let (target, maps) = (scratch.target(WhiteoutForm::Overlay), IdMaps::default());
        let mut record = Vec::new();
        import(&layer[..], &ImportOptions::new(&target, &maps), &mut record).unwrap();
        let mut rebuilt = Vec::new();
        let size = assemble(&record[..], &[scratch.root()], &mut rebuilt).unwrap();
        assert_eq!(size, layer.len() as u64);
        assert!(rebuilt == layer);
    }
}

/// As later versions of containers/storage do; 1.43 drops them.
#[test]
fn root_empty_attributes_are_set() {
    let scratch = Scratch::new();
    let items = [file("f", "x").pax("SCHILY.xattr.user.e", "")];
    scratch.import(WhiteoutForm::Overlay, &tar(&items)).unwrap();
    let tree = scratch.tree();
    let attributes = &tree[Path::new("./f")].attributes;
    assert_eq!(attributes[&b"user.e"[..]], b"");
}

#[test]
fn root_holes_stay_holes() {
    let scratch = Scratch::new();
    let sparse = file("s", "tail")
        .pax("GNU.sparse.map", "67108864,4")
        .pax("GNU.sparse.numblocks", "1")
        .pax("GNU.sparse.size", "134217728");
    scratch
        .import(WhiteoutForm::Overlay, &tar(&[sparse]))
        .unwrap();
    let data = scratch.root().join("s").metadata().unwrap();
    assert_eq!(data.len(), 128 << 20);
    assert!(data.blocks() * 512 < 1 << 20, "{}", data.blocks());
}
