// SPDX-License-Identifier: Apache-2.0
//! Layers for user namespaces: id maps on disk, and id maps that mounts show.

use std::{
    fs,
    io::Read as _,
    os::unix::fs::{MetadataExt as _, chown, lchown},
    path::Path,
};

use plywood::{
    ErrorKind,
    layers::{NewLayer, PutOptions},
    sdk::{IdMap, IdMaps, LayerKind, MountRequest, to_host},
};

use crate::{
    Case, Target,
    case::{Failure, Outcome, case, demand, same},
    tar_file::{Entry, TarFile},
    target::{layer_id, new_layer},
};

pub(super) const CASES: &[Case] = &[
    case("GD-IDM-001", mapped_root),
    case("GD-IDM-002", children),
    case("GD-IDM-003", diff),
    case("GD-IDM-004", put),
    case("GD-IDM-006", unmapped),
    case("GD-IDM-007", bad_maps),
    case("GD-IDM-008", honest),
    case("GD-IDM-009", view),
    case("GD-IDM-010", two_views),
    case("GD-IDM-011", write),
    case("GD-IDM-012", capabilities),
    case("GD-IDM-014", no_process),
    case("GD-IDM-015", owners_above),
];

/// Users from 100000 and groups from 300000 on, so that they cannot be mistaken for each other.
fn maps() -> IdMaps {
    IdMaps {
        uids: vec![range(0, 100_000, 65_536)],
        gids: vec![range(0, 300_000, 65_536)],
    }
}

/// Two ranges that are far from each other on the host.
fn split_maps() -> IdMaps {
    IdMaps {
        uids: vec![range(0, 500_000, 1000), range(1000, 900_000, 64_536)],
        gids: vec![range(0, 700_000, 1), range(1, 1_100_000, 65_535)],
    }
}

fn range(container_id: u32, host_id: u32, size: u32) -> IdMap {
    IdMap {
        container_id,
        host_id,
        size,
    }
}

fn mapped(id: &str, parent: Option<&str>, id_maps: &IdMaps) -> NewLayer {
    NewLayer {
        id_maps: id_maps.clone(),
        kind: LayerKind::ReadWrite,
        ..new_layer(id, parent)
    }
}

/// Files of root, of an ordinary user, of the last id of the map; links and a directory.
const OWNERS: [(&str, u32, u32); 4] = [
    ("root", 0, 0),
    ("user", 1000, 100),
    ("last", 65_535, 65_535),
    ("other", 5, 1234),
];

fn owned() -> TarFile {
    let mut tar = TarFile::new().add(Entry::directory("home/").owner(1000, 100));
    for (name, uid, gid) in OWNERS {
        let entry = Entry::file(name, name).owner(u64::from(uid), u64::from(gid));
        tar = tar.add(entry);
    }
    tar.add(Entry::symlink("soft", "user").owner(5, 6))
        .add(Entry::hard_link("hard", "user").owner(1000, 100))
}

fn owner(path: &Path) -> std::io::Result<(u32, u32)> {
    let meta = fs::symlink_metadata(path)?;
    Ok((meta.uid(), meta.gid()))
}

/// The ids on the host of a container's owner.
fn on_host(maps: &IdMaps, uid: u32, gid: u32) -> Result<(u32, u32), Failure> {
    let found = to_host(&maps.uids, uid).zip(to_host(&maps.gids, gid));
    found.ok_or_else(|| Failure::harness(format!("{uid}:{gid} is not in the maps")))
}

/// Every file of [`owned`] has the owner that the maps say.
fn demand_owners(root: &Path, maps: &IdMaps) -> Outcome {
    let more = [("home", 1000, 100), ("soft", 5, 6), ("hard", 1000, 100)];
    for (name, uid, gid) in OWNERS.into_iter().chain(more) {
        let expected = on_host(maps, uid, gid)?;
        same!(
            expected,
            owner(&root.join(name))?,
            "the owner of `{name}`, {uid}:{gid} in the tar"
        );
    }
    let links = |name: &str| fs::symlink_metadata(root.join(name)).map(|meta| meta.ino());
    same!(
        links("user")?,
        links("hard")?,
        "the inode of two names of one file"
    );
    Ok(())
}

fn mapped_root(target: &mut Target) -> Outcome {
    for (id, maps) in [("one", maps()), ("two", split_maps())] {
        target.create_with(&mapped(id, None, &maps))?;
        let expected = on_host(&maps, 0, 0)?;
        target.within(id, |path| {
            same!(expected, owner(path)?, "the owner of the root of `{id}`");
            Ok::<_, Failure>(())
        })?;
    }
    target.create("none", None)?;
    target.within("none", |path| {
        same!(
            (0, 0),
            owner(path)?,
            "the owner of the root of a layer without maps"
        );
        Ok(())
    })
}

fn children(target: &mut Target) -> Outcome {
    let maps = maps();
    let new = mapped("base", None, &maps);
    target.put_with(&new, &owned().done()[..], PutOptions::default())?;
    // Without maps of its own a child has its parent's.
    target.create_writable("child", Some("base"))?;
    target.within("child", |path| demand_owners(path, &maps))?;
    target.create_with(&mapped("same", Some("base"), &maps))?;
    target.within("same", |path| demand_owners(path, &maps))?;
    // Others are refused; were they not, every file would have to show them.
    let other = split_maps();
    match target.create_with(&mapped("other", Some("base"), &other)) {
        Ok(_) => target.within("other", |path| demand_owners(path, &other)),
        Err(error) => {
            same!(
                ErrorKind::NotSupported,
                error.kind(),
                "the answer to other maps than the parent's"
            );
            let left = target.driver.exists(&layer_id("other"))?;
            demand!(!left, "the refused layer exists");
            Ok(())
        }
    }
}

/// The owners in a tar, by name.
fn owners_in(tar: &[u8]) -> Result<Vec<(String, u64, u64)>, Failure> {
    let mut found = Vec::new();
    for entry in tar::Archive::new(tar).entries()? {
        let mut entry = entry?;
        let name = entry.path()?.display().to_string();
        std::io::copy(&mut entry.by_ref(), &mut std::io::sink())?;
        let header = entry.header();
        found.push((name, header.uid()?, header.gid()?));
    }
    found.sort();
    Ok(found)
}

fn diff(target: &mut Target) -> Outcome {
    let maps = maps();
    let tar = owned().done();
    target.put_with(
        &mapped("layer", None, &maps),
        &tar[..],
        PutOptions::default(),
    )?;
    same!(
        tar,
        target.diff("layer")?,
        "the diff of a mapped layer that was put"
    );
    // Without a record of the stream, the files are read and their owners taken back.
    target.create_with(&mapped("written", Some("layer"), &maps))?;
    target.within("written", |path| {
        fs::write(path.join("new"), "text")?;
        let (uid, gid) = on_host(&maps, 7, 8)?;
        chown(path.join("new"), Some(uid), Some(gid))?;
        std::os::unix::fs::symlink("new", path.join("link"))?;
        Ok::<_, Failure>(lchown(path.join("link"), Some(uid), Some(gid))?)
    })?;
    let found = owners_in(&target.diff("written")?)?;
    for name in ["new", "link"] {
        let entry = found.iter().find(|(path, ..)| path == name);
        let owner = entry.map(|(_, uid, gid)| (*uid, *gid));
        same!(
            Some((7, 8)),
            owner,
            "the owner of `{name}` in the diff: {found:?}"
        );
    }
    Ok(())
}

fn put(target: &mut Target) -> Outcome {
    let tar = owned().done();
    for (id, maps) in [("one", maps()), ("two", split_maps())] {
        target.put_with(&mapped(id, None, &maps), &tar[..], PutOptions::default())?;
        target.within(id, |path| demand_owners(path, &maps))?;
    }
    // The same for a layer that exists.
    let maps = maps();
    target.create_with(&mapped("applied", None, &maps))?;
    target.apply("applied", &tar[..])?;
    target.within("applied", |path| demand_owners(path, &maps))
}

fn unmapped(target: &mut Target) -> Outcome {
    let maps = maps();
    for (what, entry) in [
        ("user", Entry::file("file", "text").owner(70_000, 0)),
        ("group", Entry::file("file", "text").owner(0, 70_000)),
    ] {
        let tar = TarFile::new().add(entry).done();
        let answer = target.put_with(
            &mapped("layer", None, &maps),
            &tar[..],
            PutOptions::default(),
        );
        let kind = answer.map(drop).map_err(|error| error.kind());
        demand!(
            kind.is_err(),
            "a {what} that is not in the maps was unpacked"
        );
        let left = target.driver.exists(&layer_id("layer"))?;
        demand!(!left, "the refused layer exists");
    }
    target.create_with(&mapped("written", None, &maps))?;
    // Root of the host is nobody in the container.
    target.within("written", |path| {
        Ok::<_, Failure>(fs::write(path.join("ours"), "text")?)
    })?;
    match target.diff("written") {
        Err(error) => {
            let about = error.about().unwrap_or_default().to_owned();
            let text = Failure::from(error).text;
            let names = about.contains("ours") || text.contains("ours");
            demand!(
                names,
                "the failure does not name the file but `{about}`: {text}"
            );
        }
        Ok(tar) => {
            let found = owners_in(&tar)?;
            demand!(
                !found
                    .iter()
                    .any(|(name, uid, _)| name == "ours" && *uid == 0),
                "a file of the host's root is one of the container's root in the diff"
            );
            return Err(Failure::new(
                "a file that is in no map was exported without a word",
            ));
        }
    }
    Ok(())
}

fn bad_maps(target: &mut Target) -> Outcome {
    let whole = |ranges: Vec<IdMap>| IdMaps {
        uids: ranges.clone(),
        gids: ranges,
    };
    let many = (0..341).map(|n| range(n, 100_000 + 2 * n, 1)).collect();
    for (what, bad) in [
        ("of size zero", whole(vec![range(0, 100_000, 0)])),
        (
            "that overlap in the container",
            whole(vec![range(0, 100_000, 10), range(5, 200_000, 10)]),
        ),
        (
            "that overlap on the host",
            whole(vec![range(0, 100_000, 10), range(10, 100_005, 10)]),
        ),
        (
            "past the last container id",
            whole(vec![range(0, 1, 1), range(u32::MAX - 1, 100_000, 10)]),
        ),
        (
            "past the last host id",
            whole(vec![range(0, u32::MAX - 5, 10)]),
        ),
        ("without root", whole(vec![range(1, 100_000, 10)])),
        ("more than 340", whole(many)),
    ] {
        let answer = target.create_with(&mapped("layer", None, &bad));
        let kind = answer.map(drop).map_err(|error| error.kind());
        same!(
            Err(ErrorKind::InvalidArgument),
            kind,
            "the answer to ranges {what}"
        );
        let left = target.driver.exists(&layer_id("layer"))?;
        demand!(!left, "the layer that was refused for ranges {what} exists");
    }
    Ok(())
}

fn shown_with(maps: &IdMaps) -> MountRequest {
    let mut request = MountRequest::default();
    request.id_maps = maps.clone();
    request
}

/// A layer without maps, whose files have container ids on disk.
fn plain(target: &Target) -> Outcome {
    target.put("base", None, &owned().done())?;
    Ok(target.create_writable("layer", Some("base")).map(drop)?)
}

fn honest(target: &mut Target) -> Outcome {
    plain(target)?;
    let declared = target.driver.capabilities().idmapped_mounts;
    for (what, maps) in [("one range", maps()), ("two ranges", split_maps())] {
        match target.mount("layer", &shown_with(&maps)) {
            Ok(path) => {
                // Also a driver that mounts by itself may show them; nobody may ignore them.
                let owners = demand_owners(&path, &maps);
                target.unmount("layer")?;
                owners?;
            }
            Err(error) => {
                demand!(
                    !declared,
                    "maps of {what} are declared and refused: {error}"
                );
                same!(
                    ErrorKind::NotSupported,
                    error.kind(),
                    "the answer to maps of {what}"
                );
            }
        }
    }
    let none = IdMaps::default();
    target.within_as("layer", &shown_with(&none), |path| {
        demand_owners(path, &none)
    })
}

fn view(target: &mut Target) -> Outcome {
    plain(target)?;
    for maps in [maps(), split_maps()] {
        target.within_as("layer", &shown_with(&maps), |path| {
            demand_owners(path, &maps)
        })?;
        let none = IdMaps::default();
        target.within("layer", |path| demand_owners(path, &none))?;
    }
    if target.driver.capabilities().read_only_mounts {
        let maps = maps();
        let mut request = shown_with(&maps);
        request.read_only = true;
        target.within_as("layer", &request, |path| {
            demand_owners(path, &maps)?;
            let written = fs::write(path.join("new"), "text");
            let number = written.err().and_then(|error| error.raw_os_error());
            same!(
                Some(libc::EROFS),
                number,
                "the answer to writing through a read-only view"
            );
            Ok::<_, Failure>(())
        })?;
    }
    Ok(())
}

fn two_views(target: &mut Target) -> Outcome {
    plain(target)?;
    let (first, second) = (maps(), split_maps());
    let path = target.mount("layer", &shown_with(&first))?;
    let again = target.mount("layer", &shown_with(&first))?;
    same!(path, again, "where the same view is seen the second time");
    target.unmount("layer")?;
    for (what, request) in [
        ("other maps", shown_with(&second)),
        ("no maps", MountRequest::default()),
    ] {
        match target.mount("layer", &request) {
            Ok(other) => {
                demand_owners(&other, &request.id_maps)?;
                target.unmount("layer")?;
            }
            Err(error) => same!(
                ErrorKind::Busy,
                error.kind(),
                "the answer to a second view with {what}"
            ),
        }
        demand_owners(&path, &first)?;
    }
    target.unmount("layer")?;
    target.within_as("layer", &shown_with(&second), |path| {
        demand_owners(path, &second)
    })
}

fn write(target: &mut Target) -> Outcome {
    plain(target)?;
    let maps = maps();
    let (uid, gid) = on_host(&maps, 7, 8)?;
    target.within_as("layer", &shown_with(&maps), |path| {
        // Only an owner who is in the maps can own something here.
        chown(path.join("user"), Some(uid), Some(gid))?;
        let number = chown(path.join("root"), Some(3), Some(3)).err();
        let number = number.and_then(|error| error.raw_os_error());
        demand!(
            matches!(number, Some(libc::EOVERFLOW | libc::EINVAL | libc::EPERM)),
            "an owner that is in no map could be set: {number:?}"
        );
        same!(
            (uid, gid),
            owner(&path.join("user"))?,
            "the new owner through the view"
        );
        Ok::<_, Failure>(())
    })?;
    target.within("layer", |path| {
        same!((7, 8), owner(&path.join("user"))?, "the new owner on disk");
        same!(
            (0, 0),
            owner(&path.join("root"))?,
            "the owner that was not changed"
        );
        Ok::<_, Failure>(())
    })?;
    let found = owners_in(&target.diff("layer")?)?;
    let entry = found.iter().find(|(name, ..)| name == "user");
    same!(
        Some((7, 8)),
        entry.map(|(_, u, g)| (*u, *g)),
        "the owner in the diff: {found:?}"
    );
    Ok(())
}

/// A POSIX access list of the user `uid`, as `system.posix_acl_access` holds it.
fn access_list(uid: u32) -> Vec<u8> {
    const NOBODY: u32 = u32::MAX;
    let mut bytes = 2_u32.to_le_bytes().to_vec();
    let entries = [
        (1, 6, NOBODY),
        (2, 4, uid),
        (4, 4, NOBODY),
        (0x10, 6, NOBODY),
        (0x20, 4, NOBODY),
    ];
    for (tag, rights, id) in entries {
        bytes.extend(u16::to_le_bytes(tag));
        bytes.extend(u16::to_le_bytes(rights));
        bytes.extend(u32::to_le_bytes(id));
    }
    bytes
}

fn attribute(path: &Path, name: &str) -> Result<Vec<u8>, Failure> {
    let mut buffer = vec![0; 256];
    let size = rustix::fs::lgetxattr(path, name, &mut buffer[..])?;
    buffer.truncate(size);
    Ok(buffer)
}

fn capabilities(target: &mut Target) -> Outcome {
    const LIST: &str = "system.posix_acl_access";
    const CAPABILITY: &str = "security.capability";
    // Version 2 with CAP_NET_BIND_SERVICE, effective.
    let capability = [[1, 0, 0, 2], [0, 4, 0, 0], [0; 4], [0; 4], [0; 4]].concat();
    plain(target)?;
    target.within("layer", |path| {
        let file = path.join("other");
        let flags = rustix::fs::XattrFlags::empty();
        match rustix::fs::lsetxattr(&file, LIST, &access_list(1000), flags) {
            Err(rustix::io::Errno::OPNOTSUPP) => {
                return Err(Failure::not_run("the file system has no access lists"));
            }
            done => done?,
        }
        rustix::fs::lsetxattr(&file, CAPABILITY, &capability, flags)?;
        Ok(())
    })?;
    let maps = maps();
    let (uid, _) = on_host(&maps, 1000, 0)?;
    target.within_as("layer", &shown_with(&maps), |path| {
        let file = path.join("other");
        same!(
            access_list(uid),
            attribute(&file, LIST)?,
            "the access list through the view"
        );
        let shown = attribute(&file, CAPABILITY)?;
        demand!(
            shown.len() >= 20 && shown[4..20] == capability[4..20],
            "the capabilities through the view: {shown:?}"
        );
        Ok::<_, Failure>(())
    })?;
    target.within("layer", |path| {
        let file = path.join("other");
        same!(
            access_list(1000),
            attribute(&file, LIST)?,
            "the access list on disk"
        );
        same!(
            capability,
            attribute(&file, CAPABILITY)?,
            "the capabilities on disk"
        );
        Ok(())
    })
}

fn no_process(target: &mut Target) -> Outcome {
    plain(target)?;
    let before = processes()?;
    let path = target.mount("layer", &shown_with(&maps()))?;
    same!(
        before,
        processes()?,
        "the processes while a view is mounted"
    );
    demand_owners(&path, &maps())?;
    target.unmount("layer")?;
    same!(
        before,
        processes()?,
        "the processes after a view was mounted"
    );
    Ok(())
}

/// The processes of this namespace.
fn processes() -> Result<String, Failure> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let name = entry?.file_name();
        if let Some(number) = name.to_str().filter(|name| name.parse::<u32>().is_ok()) {
            found.push(number.to_owned());
        }
    }
    found.sort();
    Ok(found.join(" "))
}

fn owners_above(target: &mut Target) -> Outcome {
    let maps = maps();
    target.create_with(&mapped("layer", None, &maps))?;
    let path = target.mount("layer", &MountRequest::default())?;
    let checked = check_owners_above(target, &maps, &path);
    target.unmount("layer")?;
    checked
}

fn check_owners_above(target: &Target, maps: &IdMaps, path: &Path) -> Outcome {
    let (mut uids, mut gids) = (Vec::new(), Vec::new());
    for directory in path
        .ancestors()
        .skip(1)
        .filter(|above| *above != Path::new("/"))
    {
        let (uid, gid) = owner(directory)?;
        if plywood::sdk::to_container(&maps.uids, uid).is_none() {
            uids.push(uid);
        }
        if plywood::sdk::to_container(&maps.gids, gid).is_none() {
            gids.push(gid);
        }
    }
    for ids in [&mut uids, &mut gids] {
        ids.sort_unstable();
        ids.dedup();
    }
    let mut held = plywood::locking::order::Held::nothing();
    let (read, _) = target.store().read(&mut held)?;
    same!(
        (uids, gids),
        read.parent_owners("layer")?,
        "the owners above the mount that are in no map"
    );
    Ok(())
}
