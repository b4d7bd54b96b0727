// SPDX-License-Identifier: Apache-2.0
//! Layers whose content a layer source has in directories.

use std::{
    fs,
    os::fd::AsRawFd,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant, UNIX_EPOCH},
};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use plywood::{
    Digest, Error, ErrorKind,
    archive::Compression,
    plugin::SourceHandle,
    sdk::{
        self, DriverErrorCode, LayerQuery, LayerSource, SourceLayer,
        toolkit::layer_store::LayerDirectory,
    },
    store::{AdditionalLayer, DiffOptions, MountOptions, NewLayer, Store},
};

use crate::{
    Target,
    case::{Failure, Outcome, demand, same},
    manifest::{self, Manifest},
    tar_file::TarFile,
    target::layer_id,
};

/// How long the source, and the driver, may wait for an answer.
const TIMEOUT: Duration = Duration::from_secs(2);

/// What an operation may take that waits for an answer once or twice.
const BOUND: Duration = Duration::from_secs(10);

const TOC: &str = "sha256:000000000000000000000000000000000000000000000000000000000000d1e5";

const REFERENCE: &str = "localhost/suite:1";

/// How often layers were looked up and given back, by directory.
#[derive(Clone, Default)]
struct Uses(Arc<Mutex<Vec<PathBuf>>>);

impl Uses {
    fn list(&self) -> std::sync::MutexGuard<'_, Vec<PathBuf>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A source in the suite itself; a layer in use is in the list once for each use.
struct Suite {
    root: PathBuf,
    uses: Uses,
}

impl LayerSource for Suite {
    fn status(&self) -> sdk::Result<Vec<(String, String)>> {
        Ok(Vec::new())
    }

    fn lookup(&self, query: &LayerQuery) -> sdk::Result<Option<SourceLayer>> {
        let given = [&query.toc_digest, &query.digest];
        let by_name = query.reference.as_deref() == Some(REFERENCE);
        for digest in given.into_iter().flatten() {
            let name = if digest == TOC && by_name {
                "by-toc"
            } else {
                digest
            };
            let layer = LayerDirectory::new(self.root.join(name), TIMEOUT);
            if !layer.is_complete()? {
                continue;
            }
            let mut found = SourceLayer::new(layer.path(), layer.info()?, TIMEOUT);
            found.blob = Some(layer.blob());
            self.uses.list().push(layer.path().to_owned());
            return Ok(Some(found));
        }
        Ok(None)
    }

    fn release(&self, directory: &Path) -> sdk::Result<()> {
        let mut uses = self.uses.list();
        let at = uses.iter().position(|used| used == directory);
        let at = at.ok_or_else(|| {
            let message = format!("`{}` is given back too often", directory.display());
            sdk::DriverError::new(DriverErrorCode::INVALID_ARGUMENT, message)
        })?;
        uses.remove(at);
        Ok(())
    }
}

/// A store, the source that it asks, and where the source has its layers.
struct Stage {
    store: Store,
    served: PathBuf,
    uses: Uses,
}

/// A layer that is served.
struct Served {
    tar: Vec<u8>,
    digest: Digest,
    directory: PathBuf,
}

impl Stage {
    fn new(target: &Target) -> Result<Self, Failure> {
        let mut site = target.at(target.scratch("with-source")?);
        let seconds = TIMEOUT.as_secs();
        site.options
            .push(format!("additionallayerstore_timeout={seconds}"));
        let store = site.whole_store()?;
        let (served, uses) = (target.scratch("served")?, Uses::default());
        let source = Suite {
            root: served.clone(),
            uses: uses.clone(),
        };
        store.add_layer_source(SourceHandle::from_source("suite", Box::new(source)))?;
        Ok(Self {
            store,
            served,
            uses,
        })
    }

    /// Serves a layer with the files of `tar`, and with overlay's marks for what is deleted.
    fn serve(&self, tar: TarFile, deleted: &[&str]) -> Result<Served, Failure> {
        let plain = tar.done();
        let files = plain.clone();
        let mut tar = TarFile::new();
        for name in deleted {
            tar = tar.whiteout(name);
        }
        let stream = [&files[..files.len() - 1024], &tar.done()].concat();
        let digest = Digest::sha256(&stream);
        let directory = self.served.join(digest.as_str());
        let diff = directory.join("diff");
        fs::create_dir_all(&diff)?;
        let mut archive = tar::Archive::new(&*plain);
        archive.set_preserve_permissions(true);
        archive.set_preserve_ownerships(true);
        archive.unpack(&diff)?;
        for entry in fs::read_dir(&diff)? {
            let entry = entry?;
            // The unpacker leaves them as its own work made them.
            if entry.file_type()?.is_dir() {
                let then = UNIX_EPOCH + Duration::from_secs(1_700_000_000);
                fs::File::open(entry.path())?.set_modified(then)?;
            }
        }
        for name in deleted {
            nix::sys::stat::mknod(
                &diff.join(name),
                nix::sys::stat::SFlag::S_IFCHR,
                nix::sys::stat::Mode::empty(),
                0,
            )?;
        }
        fs::write(directory.join("blob"), &stream)?;
        let info = format!(
            "{{\"id\":\"theirs\",\"compressed-diff-digest\":\"{digest}\",\
             \"diff-digest\":\"{digest}\",\"diff-size\":{}}}",
            stream.len()
        );
        fs::write(directory.join("info"), info)?;
        Ok(Served {
            tar: stream,
            digest,
            directory,
        })
    }

    fn lookup(&self, served: &Served) -> Result<AdditionalLayer<'_>, Error> {
        let digest = Some(&served.digest);
        self.store.lookup_additional_layer(digest, None, None)
    }

    fn put(&self, served: &Served, id: &str, parent: Option<&str>) -> Result<(), Failure> {
        let layer = self.lookup(served)?.put_as(Some(id), parent, &[])?;
        same!(id, layer.id, "the id of the layer that was put");
        Ok(())
    }

    fn diff(&self, id: &str) -> Result<Vec<u8>, Error> {
        let mut options = DiffOptions::default();
        options.compression = Some(Compression::None);
        let mut out = Vec::new();
        self.store.diff(None, id, options, &mut out)?;
        Ok(out)
    }

    /// What a child of the layer shows.
    fn seen(&self, id: &str) -> Result<Manifest, Failure> {
        let child = format!("{id}-child");
        let new = NewLayer {
            id: Some(child.clone()),
            parent: Some(id.to_owned()),
            kind: sdk::LayerKind::ReadWrite,
            ..NewLayer::default()
        };
        self.store.create_layer(new)?;
        let path = self.store.mount(&child, &MountOptions::default())?;
        let seen = manifest::of(&path);
        self.store.unmount(&child, false)?;
        self.store.delete_layer(&child)?;
        Ok(seen?)
    }

    fn end(self) -> Outcome {
        same!(
            Vec::<PathBuf>::new(),
            *self.uses.list(),
            "layers that were looked up and not given back"
        );
        self.store.shutdown(false)?;
        Ok(())
    }
}

fn one_file(text: &[u8]) -> TarFile {
    TarFile::new().file("file", text)
}

fn kind_of<T>(answer: Result<T, Error>) -> Option<ErrorKind> {
    answer.err().map(|error| error.kind())
}

pub(super) fn lookup(target: &mut Target) -> Outcome {
    let stage = Stage::new(target)?;
    let served = stage.serve(one_file(b"text"), &[])?;
    let found = stage.lookup(&served)?;
    same!(
        Some(&served.digest),
        found.info().diff_digest.as_ref(),
        "the digest that is told"
    );
    same!(
        "",
        found.info().id,
        "the id of a layer that was not put yet"
    );
    drop(found);
    fs::rename(&served.directory, stage.served.join("by-toc"))?;
    let toc: Digest = TOC.parse()?;
    let by_toc = |reference| {
        let found = stage
            .store
            .lookup_additional_layer(None, Some(&toc), reference);
        found.map(|found| found.directory().to_owned())
    };
    same!(
        stage.served.join("by-toc"),
        by_toc(Some(REFERENCE))?,
        "what the contents' digest finds"
    );
    same!(
        Some(ErrorKind::LayerUnknown),
        kind_of(by_toc(None)),
        "a lookup without reference"
    );
    stage.end()
}

pub(super) fn lookup_missing(target: &mut Target) -> Outcome {
    let stage = Stage::new(target)?;
    let served = stage.serve(one_file(b"text"), &[])?;
    fs::remove_dir_all(&served.directory)?;
    let missing = kind_of(stage.lookup(&served));
    same!(
        Some(ErrorKind::LayerUnknown),
        missing,
        "a lookup of what is not there"
    );
    let nothing = stage.store.lookup_additional_layer(None, None, None);
    same!(
        Some(ErrorKind::InvalidArgument),
        kind_of(nothing),
        "a lookup of nothing"
    );
    stage.end()
}

pub(super) fn bad_info(target: &mut Target) -> Outcome {
    let stage = Stage::new(target)?;
    let served = stage.serve(one_file(b"text"), &[])?;
    for text in [
        "",
        "{",
        "[]",
        "null",
        "{\"id\":7}",
        "{}, {}",
        "{\"diff-size\":\"x\"}",
    ] {
        fs::write(served.directory.join("info"), text)?;
        let answer = kind_of(stage.lookup(&served));
        same!(
            Some(ErrorKind::Corrupt),
            answer,
            "a lookup of a layer whose `info` is {text:?}"
        );
    }
    same!(0, stage.store.layers()?.len(), "the layers afterwards");
    stage.end()
}

pub(super) fn create_as(target: &mut Target) -> Outcome {
    let stage = Stage::new(target)?;
    let tar = TarFile::new()
        .directory("d/")
        .file("d/in", b"in")
        .file("file", b"text");
    let served = stage.serve(tar, &[])?;
    let before = manifest::of(&served.directory)?.without_root();
    stage.put(&served, "remote", None)?;
    let new = NewLayer {
        id: Some("local".to_owned()),
        ..NewLayer::default()
    };
    stage.store.put_layer(new, &*served.tar)?;
    let (remote, local) = (stage.seen("remote")?, stage.seen("local")?);
    let differences = local.without_root().differences(&remote.without_root());
    demand!(
        differences.is_empty(),
        "a layer of a source shows another tree than the same stream unpacked: {}",
        differences.join("; ")
    );
    let names: Vec<_> = stage.store.changes(None, "remote")?;
    same!(3, names.len(), "the changes of the layer");
    for id in ["remote", "local"] {
        stage.store.delete_layer(id)?;
    }
    // A use is noted in the directory itself.
    let after = manifest::of(&served.directory)?.without_root();
    let differences = before.differences(&after);
    demand!(
        differences.is_empty(),
        "making and deleting the layer has changed the source's directory: {}",
        differences.join("; ")
    );
    stage.end()
}

pub(super) fn release_once(target: &mut Target) -> Outcome {
    let stage = Stage::new(target)?;
    let served = stage.serve(one_file(b"text"), &[])?;
    let first = stage.lookup(&served)?;
    let second = stage.lookup(&served)?;
    same!(
        2,
        stage.uses.list().len(),
        "the uses of a layer that was looked up twice"
    );
    drop(first);
    same!(
        1,
        stage.uses.list().len(),
        "the uses after one was given back"
    );
    let refused = second.put_as(Some("x"), Some("no-such-parent"), &[]);
    demand!(
        refused.is_err(),
        "a layer was put on a parent that does not exist"
    );
    same!(
        1,
        stage.uses.list().len(),
        "the uses after a layer could not be put"
    );
    second.put_as(Some("x"), None, &[])?;
    let again = kind_of(second.put_as(Some("x"), None, &[]));
    same!(
        Some(ErrorKind::DuplicateId),
        again,
        "putting a layer a second time"
    );
    drop(second);
    stage.store.delete_layer("x")?;
    stage.end()
}

pub(super) fn blob_stream(target: &mut Target) -> Outcome {
    let stage = Stage::new(target)?;
    let served = stage.serve(one_file(&vec![7; 300_000]), &[])?;
    stage.put(&served, "remote", None)?;
    demand!(
        stage.diff("remote")? == served.tar,
        "the diff is not the source's stream"
    );
    if target.driver.capabilities().external_directory {
        target.step("another stream in its place")?;
        fs::write(served.directory.join("blob"), one_file(b"other").done())?;
        let refers = target.at(target.scratch("with-source")?).driver()?;
        if refers.external_layer(&layer_id("remote"))?.is_some() {
            let other = kind_of(stage.diff("remote"));
            same!(
                Some(ErrorKind::Corrupt),
                other,
                "the diff of a layer whose stream was replaced"
            );
        }
        refers.close()?;
    }
    stage.store.delete_layer("remote")?;
    stage.end()
}

/// A file system at a place whose server never answers, for as long as this value lives.
struct Silent {
    place: PathBuf,
    server: Option<fs::File>,
}

impl Silent {
    fn new(place: &Path) -> Result<Self, Failure> {
        let opened = fs::OpenOptions::new()
            .read(true)
            .write(true)
            .open("/dev/fuse");
        let server = opened.map_err(|error| Failure::not_run(format!("/dev/fuse: {error}")))?;
        let data = format!(
            "fd={},rootmode=40000,user_id=0,group_id=0,allow_other",
            server.as_raw_fd()
        );
        let none = MsFlags::empty();
        mount(
            Some("silent"),
            place,
            Some("fuse"),
            none,
            Some(data.as_str()),
        )?;
        Ok(Self {
            place: place.to_owned(),
            server: Some(server),
        })
    }

    /// Ends the server: what waits for it fails.
    fn end(&mut self) {
        self.server = None;
    }
}

impl Drop for Silent {
    fn drop(&mut self) {
        self.end();
        // What stays mounted is found after the case.
        let _unmounted = umount2(&self.place, MntFlags::MNT_DETACH);
    }
}

pub(super) fn provider_dies(target: &mut Target) -> Outcome {
    let bound = target.bound(BOUND);
    let stage = Stage::new(target)?;
    let served = stage.serve(one_file(b"text"), &[])?;
    stage.put(&served, "remote", None)?;
    let refers = target.at(target.scratch("with-source")?).driver()?;
    let by_reference = refers.external_layer(&layer_id("remote"))?.is_some();
    refers.close()?;
    target.step("the source does not answer")?;
    let mut silent = Silent::new(&stage.served)?;
    for state in ["silent", "gone"] {
        let start = Instant::now();
        let found = stage.lookup(&served).map(drop);
        demand!(found.is_err(), "a source that is {state} found a layer");
        let answers = [
            ("diff", stage.diff("remote").map(drop)),
            (
                "mount",
                stage
                    .store
                    .mount("remote", &MountOptions::default())
                    .map(drop),
            ),
        ];
        let taken = start.elapsed();
        demand!(
            taken < bound,
            "with a source that is {state}, it took {taken:?}"
        );
        for (what, answer) in answers {
            if !by_reference {
                demand!(
                    answer.is_ok(),
                    "{what} of a copy needs the source: {answer:?}"
                );
                continue;
            }
            let text = answer.as_ref().err().map(|error| format!("{error:?}"));
            let path = served.directory.display().to_string();
            demand!(
                text.is_some_and(|text| text.contains(&path)),
                "{what} with a source that is {state} gave {answer:?}, without `{path}`"
            );
        }
        silent.end();
    }
    if !by_reference {
        stage.store.unmount("remote", true)?;
    }
    let start = Instant::now();
    stage.store.delete_layer("remote")?;
    demand!(
        start.elapsed() < bound,
        "deleting the layer took {:?}",
        start.elapsed()
    );
    drop(silent);
    stage.end()
}

pub(super) fn option_syntax(target: &mut Target) -> Outcome {
    let there = target.scratch("layer-store")?;
    let there = there.display();
    let file = target.scratch("beside")?.join("file");
    fs::write(&file, "")?;
    let open = |value: String| {
        let mut site = target.at(target.scratch("opened")?);
        site.options.push(format!("additionallayerstore={value}"));
        let opened = site.driver();
        if let Ok(driver) = &opened {
            driver.close()?;
        }
        Ok::<_, Failure>(opened.map(drop))
    };
    for good in [
        format!("{there}"),
        format!("{there}:ref"),
        format!("{there},{there}:ref"),
    ] {
        open(good)??;
    }
    for bad in [
        "layer-store".to_owned(),
        format!("{there}/missing"),
        file.display().to_string(),
        format!("{there}:ref:ref"),
        format!("{there}:other"),
        format!("{there},relative"),
    ] {
        let answer = kind_of(open(bad.clone())?);
        same!(
            Some(ErrorKind::InvalidArgument),
            answer,
            "the option additionallayerstore={bad}"
        );
    }
    Ok(())
}

pub(super) fn mixed_stack(target: &mut Target) -> Outcome {
    let stage = Stage::new(target)?;
    let put = |id: &str, parent: &str, tar: TarFile| -> Outcome {
        let new = NewLayer {
            id: Some(id.to_owned()),
            parent: Some(parent.to_owned()),
            ..NewLayer::default()
        };
        stage.store.put_layer(new, &*tar.done())?;
        Ok(())
    };
    let base = TarFile::new()
        .file("base", b"1")
        .file("all", b"1")
        .file("goes", b"1");
    stage.put(&stage.serve(base, &[])?, "one", None)?;
    put(
        "two",
        "one",
        TarFile::new().file("local", b"2").file("all", b"2"),
    )?;
    let upper = TarFile::new().file("remote", b"3").file("all", b"3");
    stage.put(&stage.serve(upper, &["goes"])?, "three", Some("two"))?;
    put("four", "three", TarFile::new().file("all", b"4"))?;
    let seen = stage.seen("four")?;
    for (name, text) in [
        ("base", b"1"),
        ("local", b"2"),
        ("remote", b"3"),
        ("all", b"4"),
    ] {
        let facts = seen.0.get(Path::new(name));
        let content = facts.and_then(|facts| facts.content.clone());
        same!(
            Some(manifest::hash(text)),
            content,
            "the content of `{name}`"
        );
    }
    demand!(
        !seen.has("goes"),
        "what the third layer deletes can be seen"
    );
    for id in ["four", "three", "two", "one"] {
        stage.store.delete_layer(id)?;
    }
    stage.end()
}
