// SPDX-License-Identifier: Apache-2.0
//! Random streams and random requests, the same whenever the seed is.

use std::{
    fs,
    os::unix::fs::MetadataExt as _,
    path::{Component, Path},
    time::Instant,
};

use fastrand::Rng;
use plywood::{
    ErrorKind, mount,
    sdk::{
        CreateRequest, Driver, DriverErrorCode, IdMap, LayerId, LayerKind, MountPlan, MountRequest,
        Result as DriverResult,
    },
};
use tar::EntryType;

use super::Victim;
use crate::{
    Case, Target,
    case::{Failure, Outcome, case, demand},
    tar_file::{Dialect, Entry, TarFile},
    target::layer_id,
    wire,
};

pub(in crate::cases) const CASES: &[Case] =
    &[case("GD-SEC-022", streams), case("GD-SEC-023", requests)];

fn one<'a, T: ?Sized>(rng: &mut Rng, from: &[&'a T]) -> &'a T {
    from[rng.usize(..from.len())]
}

/// Rounds of their own random numbers, as long as the run allows.
fn rounds(target: &Target, mut round: impl FnMut(u64, &mut Rng) -> Outcome) -> Outcome {
    let start = Instant::now();
    let seed = target.rng().u64(..);
    let mut number = 0;
    while number < 20 || start.elapsed() < target.fuzz {
        wire::step(&format!("round {number}"))?;
        let mut rng = Rng::with_seed(seed.wrapping_add(number));
        round(number, &mut rng).map_err(|mut failure| {
            failure.text = format!("in round {number}: {}", failure.text);
            failure
        })?;
        number += 1;
    }
    Ok(target.count("rounds", number)?)
}

fn name(rng: &mut Rng, victim: &Victim) -> Vec<u8> {
    const PARTS: [&[u8]; 16] = [
        b"a",
        b"b",
        b"d",
        b"l",
        b"..",
        b".",
        b"",
        b"secret",
        b"victim",
        b".wh.a",
        b".wh..wh..opq",
        b".wh..",
        b"\xff\xfe",
        b"\xe2\x80\xae",
        b"new\nline",
        &[b'n'; 130],
    ];
    let mut name = match rng.u8(..20) {
        0 => b"/".to_vec(),
        1 => b"../".to_vec(),
        2 => format!("{}/", victim.relative()).into_bytes(),
        3 => format!("{}/", victim.absolute()).into_bytes(),
        _ => Vec::new(),
    };
    for number in 0..rng.usize(1..5) {
        if number > 0 {
            name.push(b'/');
        }
        // Most are those of plain files and directories, so that entries meet.
        let parts = if rng.u8(..3) == 0 {
            &PARTS[..]
        } else {
            &PARTS[..4]
        };
        name.extend_from_slice(one(rng, parts));
    }
    name
}

fn entry(rng: &mut Rng, victim: &Victim) -> Entry {
    let kind = [
        EntryType::Regular,
        EntryType::Regular,
        EntryType::Directory,
        EntryType::Directory,
        EntryType::Symlink,
        EntryType::Symlink,
        EntryType::Link,
        EntryType::Char,
        EntryType::Fifo,
        EntryType::Continuous,
    ][rng.usize(..10)];
    let mut entry = Entry::new(kind, name(rng, victim)).mode(rng.u32(..0o10000));
    if matches!(kind, EntryType::Symlink | EntryType::Link) {
        entry = entry.link(name(rng, victim));
    }
    if kind == EntryType::Regular {
        let mut data = vec![0; rng.usize(..2000)];
        rng.fill(&mut data);
        entry = entry.data(data);
    }
    entry =
        entry.dialect([Dialect::V7, Dialect::Ustar, Dialect::Pax, Dialect::Gnu][rng.usize(..4)]);
    for _ in 0..rng.usize(..3).saturating_sub(1) {
        entry = odd(entry, rng, victim);
    }
    entry
}

/// One thing that most entries do not have.
fn odd(entry: Entry, rng: &mut Rng, victim: &Victim) -> Entry {
    let mut bytes = vec![0; rng.usize(..60)];
    rng.fill(&mut bytes);
    match rng.u8(..14) {
        0 => entry.owner(rng.u64(..), rng.u64(..)),
        1 => entry.mtime(rng.i64(..)),
        2 => entry.device(rng.u32(..), rng.u32(..)),
        3 => entry.claims(rng.u64(..) >> rng.u32(..64)),
        4 => entry.wrong_sum(),
        5 => {
            bytes.truncate(12);
            entry.patch(rng.usize(..500), bytes)
        }
        6 => entry.raw_records(&bytes),
        7 => entry.record("path", name(rng, victim)),
        8 => entry.record("linkpath", name(rng, victim)),
        9 => entry.record(one(rng, &["size", "mtime", "uid", "GNU.sparse.map"]), bytes),
        10 => entry.kind(rng.u8(..)),
        11 => entry.xattr("system.posix_acl_access", bytes),
        12 => entry.xattr("security.capability", bytes),
        _ => entry.xattr(
            one(rng, &["user.x", "trusted.overlay.opaque", "trusted.x"]),
            bytes,
        ),
    }
}

/// A stream that a hostile writer could have made, sometimes damaged on the way.
fn stream(rng: &mut Rng, victim: &Victim) -> Vec<u8> {
    let mut tar = TarFile::new();
    // Short ones have a chance to be acceptable.
    let most = [3, 6, 20][rng.usize(..3)];
    for _ in 0..rng.usize(1..most) {
        tar = tar.add(entry(rng, victim));
    }
    let mut tar = if rng.bool() {
        tar.done()
    } else {
        tar.unended()
    };
    match rng.u8(..10) {
        0 => tar.truncate(rng.usize(..tar.len())),
        1 | 2 => {
            for _ in 0..rng.usize(1..8) {
                let at = rng.usize(..tar.len());
                tar[at] = rng.u8(..);
            }
        }
        3 => {
            let at = rng.usize(..tar.len());
            let piece = tar[at..].to_vec();
            tar.extend(piece);
        }
        _ => {}
    }
    tar
}

fn streams(target: &mut Target) -> Outcome {
    target.without_sync()?;
    let victim = Victim::new(target)?;
    let base = TarFile::new()
        .directory("a/")
        .file("a/b", b"x")
        .add(Entry::symlink("l", victim.absolute()))
        .directory("d/")
        .done();
    target.put("base", None, &base)?;
    let before = target.manifest("base")?;
    let target = &*target;
    let mut exact = 0;
    rounds(target, |number, rng| {
        let tar = stream(rng, &victim);
        fs::write(target.root.join("stream.tar"), &tar)?;
        let parent = rng.bool().then_some("base");
        let put = target.put("fuzz", parent, &tar);
        victim.intact("the stream that is kept as `stream.tar` was unpacked")?;
        if let Err(error) = put {
            demand!(
                error.kind() != ErrorKind::DriverPoisoned,
                "the driver panicked: {error}"
            );
        } else {
            target.within("fuzz", |path| {
                super::holds_no_secret(path, "a random stream")
            })?;
            // One with a deletion that has content cannot come back; that must be said.
            if let Ok(diff) = target.diff("fuzz") {
                exact += 1;
                demand!(
                    diff == tar,
                    "the stream `stream.tar` was accepted, and comes back changed"
                );
            }
            target.delete("fuzz")?;
        }
        if number.is_multiple_of(4) {
            target.create("child", Some("base"))?;
            let _refused = target.apply("child", &tar[..]);
            victim.intact("the stream that is kept as `stream.tar` was applied")?;
            target.manifest("child")?;
            target.delete("child")?;
        }
        Ok(())
    })?;
    demand!(
        exact > 0,
        "not one of the random streams was acceptable, which tests refusals alone"
    );
    let differences = before.differences(&target.manifest("base")?);
    demand!(
        differences.is_empty(),
        "random streams in children changed their parent: {}",
        differences.join("; ")
    );
    Ok(())
}

/// Ids as every driver must take them, also such as a driver may use for itself.
const IDS: [&str; 16] = [
    "a", "b", "c", "a.b", "x-y", "_", "l", "dir", "layers", "tmp", "tempdirs", "staging", "trash",
    "merged", "link", "0",
];

fn id(rng: &mut Rng) -> LayerId {
    if rng.u8(..10) == 0 {
        return layer_id(&"x".repeat(128));
    }
    layer_id(one(rng, &IDS))
}

fn text(rng: &mut Rng, victim: &Victim) -> String {
    let place = victim.absolute();
    let texts = [
        String::new(),
        "ro".to_owned(),
        "nodev".to_owned(),
        "size=1".to_owned(),
        "a,b=c".to_owned(),
        format!("lowerdir={place}"),
        format!("upperdir={place},workdir={place}"),
        format!("x=y,upperdir={place}"),
        "\u{e9}\n\0\u{202e}".to_owned(),
        "%s%n".to_owned(),
        "x".repeat(5000),
        place,
        victim.relative(),
        "18446744073709551616".to_owned(),
    ];
    texts[rng.usize(..texts.len())].clone()
}

fn maps(rng: &mut Rng) -> Vec<IdMap> {
    let number = |rng: &mut Rng| match rng.u8(..4) {
        0 => 0,
        1 => u32::MAX,
        2 => rng.u32(..),
        _ => 1000,
    };
    let count = if rng.bool() { 0 } else { rng.usize(..4) };
    (0..count)
        .map(|_| IdMap {
            container_id: number(rng),
            host_id: number(rng),
            size: number(rng),
        })
        .collect()
}

fn create_request(rng: &mut Rng, victim: &Victim) -> CreateRequest {
    let parent = match rng.u8(..3) {
        0 => None,
        1 => Some(layer_id("base")),
        _ => Some(id(rng)),
    };
    let mut request = CreateRequest::new(id(rng), parent);
    if rng.bool() {
        request.kind = LayerKind::ReadWrite;
    }
    if rng.u8(..4) == 0 {
        let (key, value) = (text(rng, victim), text(rng, victim));
        request.storage_options.insert(key, value);
    }
    if rng.u8(..4) == 0 {
        request.mount_label = Some(text(rng, victim));
    }
    if rng.u8(..6) == 0 {
        request.template = Some(id(rng));
    }
    request.id_maps.uids = maps(rng);
    request.id_maps.gids = maps(rng);
    request
}

fn mount_request(rng: &mut Rng, victim: &Victim) -> MountRequest {
    let mut request = MountRequest::default();
    request.read_only = rng.u8(..4) == 0;
    request.volatile = rng.u8(..4) == 0;
    if rng.u8(..4) == 0 {
        request.label = Some(text(rng, victim));
    }
    if rng.bool() {
        request.options = (0..rng.usize(1..3)).map(|_| text(rng, victim)).collect();
    }
    request.id_maps.uids = maps(rng);
    request.id_maps.gids = maps(rng);
    request
}

/// An answer that was an error must be one that a person can use.
fn sound<T>(what: &str, answer: DriverResult<T>) -> Result<Option<T>, Failure> {
    match answer {
        Ok(answer) => Ok(Some(answer)),
        Err(error) => {
            demand!(
                error.code != DriverErrorCode::PANICKED,
                "`{what}` panicked: {}",
                error.message
            );
            demand!(
                !error.message.is_empty(),
                "`{what}` failed without saying why ({:?})",
                error.code
            );
            Ok(None)
        }
    }
}

/// The same, where the answer itself does not matter.
fn check<T>(what: &str, answer: DriverResult<T>) -> Outcome {
    sound(what, answer).map(|_| ())
}

fn requests(target: &mut Target) -> Outcome {
    target.without_sync()?;
    let victim = Victim::new(target)?;
    target.put("base", None, &TarFile::new().file("file", b"x").done())?;
    let before = target.manifest("base")?;
    let target = &*target;
    let driver = target.driver.unguarded();
    let mut tokens: Vec<String> = Vec::new();
    rounds(target, |_, rng| {
        for _ in 0..10 {
            ask(target, driver, rng, &victim, &mut tokens)?;
        }
        victim.intact("after random requests")
    })?;
    for token in tokens {
        let _gone = driver.discard(&token);
    }
    let differences = before.differences(&target.manifest("base")?);
    demand!(
        differences.is_empty(),
        "a layer that no request named was changed: {}",
        differences.join("; ")
    );
    Ok(())
}

fn ask(
    target: &Target,
    driver: &dyn Driver,
    rng: &mut Rng,
    victim: &Victim,
    tokens: &mut Vec<String>,
) -> Outcome {
    let parent = match rng.u8(..3) {
        0 => None,
        1 => Some(layer_id("base")),
        _ => Some(id(rng)),
    };
    let request = create_request(rng, victim);
    let token = match rng.u8(..4) {
        0 => text(rng, victim),
        _ => tokens
            .get(rng.usize(..tokens.len().max(1)))
            .cloned()
            .unwrap_or_default(),
    };
    let id = id(rng);
    match rng.u8(..20) {
        0..=2 => check("create", driver.create(&request))?,
        3 => check("remove", driver.remove(&id))?,
        4 => check("exists", driver.exists(&id))?,
        5 => check("list", driver.list())?,
        6 => check("metadata", driver.metadata(&id))?,
        7 => check("usage", driver.usage(&id))?,
        8 | 9 => mount_and_write(target, driver, &id, &mount_request(rng, victim))?,
        10 => check("released", driver.released(&id))?,
        11 => {
            let found = sound("unpack_target", driver.unpack_target(&id))?;
            if let Some(found) = found {
                demand!(
                    is_own(target, &found.directory)?,
                    "`unpack_target` of `{id}` is `{}`, outside the store",
                    found.directory.display()
                );
            }
        }
        12 => check("diff_view", driver.diff_view(&id, parent.as_ref()))?,
        13 => check("content_roots", driver.content_roots(&id))?,
        14 => check(
            "native_changes",
            driver.native_changes(&id, parent.as_ref()),
        )?,
        15 => {
            if let Some(staged) = sound("stage", driver.stage(&request))? {
                tokens.push(staged.token);
            }
        }
        16 => check("adopt", driver.adopt(&token, &request))?,
        17 => check("discard", driver.discard(&token))?,
        18 => {
            if let Some(Some(token)) = sound("trash", driver.trash(&id))? {
                tokens.push(token);
            }
        }
        _ => {
            check("reap", driver.reap(&token))?;
            check("sync", driver.sync(&id))?;
            check("sync_staged", driver.sync_staged(&token))?;
            check("recover", driver.recover())?;
        }
    }
    Ok(())
}

/// Whether a directory is in the store, or the root of a mount that is attached nowhere: every other
/// directory that a descriptor stands for has a name.
fn is_own(target: &Target, directory: &Path) -> Result<bool, Failure> {
    if directory.starts_with(&target.root) {
        return Ok(true);
    }
    let Ok(number) = directory.strip_prefix("/proc/self/fd") else {
        return Ok(false);
    };
    let Some(Component::Normal(number)) = number.components().next() else {
        return Ok(false);
    };
    let root = Path::new("/");
    let shown = Path::new("/proc/self/fd").join(number);
    let elsewhere = fs::metadata(&shown)?.dev() != fs::metadata(root)?.dev();
    Ok(elsewhere && fs::read_link(&shown)? == root)
}

/// Does with a plan what core does: options must not lead elsewhere.
fn mount_and_write(
    target: &Target,
    driver: &dyn Driver,
    id: &LayerId,
    request: &MountRequest,
) -> Outcome {
    let Some(plan) = sound("mount_plan", driver.mount_plan(id, request))? else {
        return Ok(());
    };
    let by_driver = matches!(plan, MountPlan::ByDriver { .. });
    let path = if by_driver {
        sound("mount", driver.mount(id, request))?
    } else {
        // What the kernel does not take is its affair.
        mount::execute(&plan).ok()
    };
    let Some(path) = path else {
        return Ok(());
    };
    let inside = path.starts_with(&target.root);
    // It may be read-only.
    let _written = fs::write(path.join("written"), "x");
    if by_driver {
        check("unmount", driver.unmount(id))?;
    } else {
        mount::undo(&plan, &path)?;
    }
    check("released", driver.released(id))?;
    demand!(
        inside,
        "mounted with {request:?}, `{id}` is shown at `{}`, outside the store",
        path.display()
    );
    Ok(())
}
