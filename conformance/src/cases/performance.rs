// SPDX-License-Identifier: Apache-2.0
//! Numbers for the report. They decide nothing, but for the bounds that stand in the catalogue;
//! sizes are such that a case takes a second or two.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read, Write as _},
    path::Path,
    thread,
    time::{Duration, Instant, SystemTime},
};

use plywood::{layers::PutOptions, sdk::MountRequest};

use crate::{
    Case, Site, Target,
    case::{Failure, Outcome, case, demand, same},
    tar_file::TarFile,
    target::{layer_id, new_layer},
    wire,
};

pub(super) const CASES: &[Case] = &[
    case("GD-PRF-001", create_by_depth).on_disk(),
    case("GD-PRF-002", mount_and_unmount).on_disk(),
    case("GD-PRF-003", exists).on_disk(),
    case("GD-PRF-004", diff_of_base).on_disk(),
    case("GD-PRF-005", small_diff_on_much).on_disk(),
    case("GD-PRF-006", large_diff).on_disk(),
    case("GD-PRF-007", throughput).on_disk(),
    case("GD-PRF-008", deep_read).on_disk(),
    case("GD-PRF-009", remove).on_disk(),
    case("GD-PRF-010", parallel_create).on_disk(),
    case("GD-PRF-011", space_of_children).on_disk(),
    case("GD-PRF-012", first_write).on_disk(),
    case("GD-PRF-013", opening).on_disk(),
    case("GD-PRF-014", workload).on_disk(),
    case("GD-PRF-015", memory)
        .on_disk()
        .roles(&[("put", put_role)]),
];

/// How long a chain is made longer before the case makes do with what there is.
const PATIENCE: Duration = Duration::from_millis(1500);

fn timed<T>(work: impl FnOnce() -> Result<T, Failure>) -> Result<(Duration, T), Failure> {
    let start = Instant::now();
    let done = work()?;
    Ok((start.elapsed(), done))
}

/// Durations of one kind of work.
struct Times(Vec<Duration>);

impl Times {
    fn of(rounds: usize, mut work: impl FnMut(usize) -> Outcome) -> Result<Self, Failure> {
        let mut times = Vec::with_capacity(rounds);
        for round in 0..rounds {
            times.push(timed(|| work(round))?.0);
        }
        times.sort();
        Ok(Self(times))
    }

    fn at(&self, hundredth: usize) -> Duration {
        self.0[(self.0.len() - 1) * hundredth / 100]
    }

    fn median(&self) -> Duration {
        self.at(50)
    }

    fn record(&self, what: &str) -> io::Result<()> {
        wire::measure(&format!("{what}, p50 ms"), milliseconds(self.median()))?;
        wire::measure(&format!("{what}, p95 ms"), milliseconds(self.at(95)))
    }
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

fn files(directory: &str, count: usize) -> Vec<u8> {
    let mut tar = TarFile::new().directory(&format!("{directory}/"));
    for file in 0..count {
        tar = tar.file(
            &format!("{directory}/{file}"),
            format!("file {file}").as_bytes(),
        );
    }
    tar.done()
}

fn name(depth: usize) -> String {
    format!("depth-{depth}")
}

/// Makes a chain of layers above the layer `depth-0` up to `depth`, as far as time and the driver
/// allow; says how far it got.
fn chain(target: &Target, depth: usize) -> Result<usize, Failure> {
    let most = target.driver.capabilities().depth_limit;
    let most = most.map_or(depth, |limit| depth.min(limit as usize - 1));
    target.put(&name(0), None, &files("base", 10))?;
    let start = Instant::now();
    for above in 1..=most {
        if start.elapsed() > PATIENCE {
            return Ok(above - 1);
        }
        target.create(&name(above), Some(&name(above - 1)))?;
    }
    Ok(most)
}

fn create_by_depth(target: &mut Target) -> Outcome {
    let reached = chain(target, 128)?;
    let mut medians = Vec::new();
    for depth in [1, 8, 32, 128]
        .into_iter()
        .filter(|depth| *depth <= reached)
    {
        let parent = name(depth - 1);
        let times = Times::of(10, |round| {
            let id = format!("at-{depth}-{round}");
            Ok(target.create(&id, Some(&parent)).map(drop)?)
        })?;
        times.record(&format!("create at depth {depth}"))?;
        medians.push(times.median());
    }
    demand!(
        !medians.is_empty(),
        "no layer could be created in {PATIENCE:?}"
    );
    Ok(())
}

fn mount_and_unmount(target: &mut Target) -> Outcome {
    let reached = chain(target, 128)?;
    for (what, parent) in [("empty", None), ("deep", Some(name(reached)))] {
        target.create_writable(what, parent.as_deref())?;
        let mut mounts = Vec::new();
        let times = Times::of(20, |_| {
            let (time, _) = timed(|| Ok(target.mount(what, &MountRequest::default())?))?;
            mounts.push(time);
            Ok(target.unmount(what)?)
        })?;
        mounts.sort();
        let depth = if parent.is_some() { reached + 1 } else { 0 };
        Times(mounts).record(&format!("mount of depth {depth}"))?;
        times.record(&format!("mount and unmount of depth {depth}"))?;
    }
    demand!(reached > 0, "no layer could be created in {PATIENCE:?}");
    Ok(())
}

fn exists(target: &mut Target) -> Outcome {
    target.create("layer", None)?;
    for (id, there) in [("layer", true), ("absent", false)] {
        let id = layer_id(id);
        let times = Times::of(200, |_| {
            same!(there, target.driver.exists(&id)?, "whether `{id}` exists");
            Ok(())
        })?;
        times.record(&format!("exists, {there}"))?;
    }
    Ok(())
}

fn diff_of_base(target: &mut Target) -> Outcome {
    for count in [0, 100] {
        let id = format!("base-{count}");
        target.put(&id, None, &files("base", count))?;
        let times = Times::of(10, |_| {
            let bytes = target.diff(&id)?.len();
            demand!(
                bytes > count * 512,
                "the diff of {count} files has {bytes} bytes"
            );
            Ok(())
        })?;
        times.record(&format!("diff of {count} files"))?;
    }
    Ok(())
}

/// A layer with ten files written through its mount.
fn write_ten(target: &Target, id: &str, parent: Option<&str>) -> Outcome {
    target.create_writable(id, parent)?;
    target.within(id, |path| {
        for file in 0..10 {
            fs::write(path.join(format!("written-{file}")), "text")?;
        }
        age(path)
    })
}

fn small_diff_on_much(target: &mut Target) -> Outcome {
    const MANY: usize = 2000;
    target.put("many", None, &files("many", MANY))?;
    target.put("few", None, &files("few", 10))?;
    write_ten(target, "above-few", Some("few"))?;
    write_ten(target, "above-many", Some("many"))?;
    let mut medians = Vec::new();
    for id in ["above-few", "above-many"] {
        let times = Times::of(7, |_| {
            demand!(
                target.diff(id)?.len() >= 10 * 1024,
                "the diff of `{id}` is too small"
            );
            Ok(())
        })?;
        times.record(&format!("diff of 10 files {id}"))?;
        medians.push(times.median());
    }
    if target.driver.capabilities().native_diff {
        let (few, many) = (medians[0], medians[1]);
        // A few milliseconds are nothing that could be told from noise.
        demand!(
            many <= few * 3 + Duration::from_millis(30),
            "a diff of 10 files takes {many:?} above {MANY} files and {few:?} above 10, with \
             changes that the driver says can be read by themselves"
        );
    }
    Ok(())
}

fn large_diff(target: &mut Target) -> Outcome {
    const MANY: usize = 1000;
    target.create_writable("layer", None)?;
    target.within("layer", |path| {
        for file in 0..MANY {
            fs::write(path.join(file.to_string()), "text")?;
        }
        Ok::<_, Failure>(())
    })?;
    let (time, bytes) = timed(|| Ok(target.diff("layer")?.len()))?;
    wire::measure("diff, files per second", per_second(MANY, time))?;
    demand!(
        bytes > MANY * 1024,
        "the diff of {MANY} files has {bytes} bytes"
    );
    Ok(())
}

#[expect(clippy::cast_precision_loss, reason = "the numbers are small")]
fn per_second(count: usize, time: Duration) -> f64 {
    count as f64 / time.as_secs_f64()
}

fn throughput(target: &mut Target) -> Outcome {
    const LARGE: usize = 64;
    for count in [100, 2000] {
        let tar = files("files", count);
        let id = format!("files-{count}");
        let (time, _) = timed(|| Ok(target.put(&id, None, &tar)?))?;
        wire::measure(
            &format!("put of {count} files, files per second"),
            per_second(count, time),
        )?;
    }
    let tar = TarFile::new()
        .file("large", &vec![b'x'; LARGE << 20])
        .done();
    let (time, _) = timed(|| Ok(target.put("large", None, &tar)?))?;
    wire::measure("put of one file, MiB per second", per_second(LARGE, time))?;
    target.within("large", |path| {
        let size = fs::metadata(path.join("large"))?.len();
        same!(LARGE as u64 * (1 << 20), size, "the file's size");
        Ok(())
    })
}

fn deep_read(target: &mut Target) -> Outcome {
    const LARGE: usize = 16;
    let tar = TarFile::new()
        .file("large", &vec![b'x'; LARGE << 20])
        .done();
    target.put("large", None, &tar)?;
    let start = Instant::now();
    let mut parent = "large".to_owned();
    for depth in 1..=128_usize {
        let id = name(depth);
        target.create(&id, Some(&parent))?;
        parent = id;
        let enough = start.elapsed() > PATIENCE;
        if depth == 20 || depth == 128 || enough {
            target.within(&parent, |path| {
                let file = path.join("large");
                let (cold, bytes) = timed(|| Ok(fs::read(&file)?.len()))?;
                same!(LARGE << 20, bytes, "the bytes that were read");
                wire::measure(
                    &format!("read through {depth} layers, MiB per second"),
                    per_second(LARGE, cold),
                )?;
                let opens = Times::of(200, |_| Ok(File::open(&file).map(drop)?))?;
                Ok::<_, Failure>(opens.record(&format!("open through {depth} layers"))?)
            })?;
        }
        if enough {
            break;
        }
    }
    Ok(())
}

fn remove(target: &mut Target) -> Outcome {
    for count in [0, 100, 1000] {
        let id = format!("files-{count}");
        target.put(&id, None, &files("files", count))?;
        let (time, reaper) = timed(|| Ok(target.delete_later(&id)?))?;
        wire::measure(
            &format!("removing {count} files, ms until gone"),
            milliseconds(time),
        )?;
        let (time, ()) = timed(|| Ok(reaper.run()?))?;
        wire::measure(
            &format!("removing {count} files, ms until freed"),
            milliseconds(time),
        )?;
        demand!(
            !target.driver.exists(&layer_id(&id))?,
            "the removed layer exists"
        );
    }
    Ok(())
}

fn parallel_create(target: &mut Target) -> Outcome {
    const EACH: usize = 48;
    target.create("base", None)?;
    let site: &Site = target;
    for threads in [1, 4, 16] {
        let (time, made) = timed(|| {
            thread::scope(|scope| {
                let work = |thread: usize| -> Outcome {
                    let target = site.open()?;
                    for layer in 0..EACH / threads {
                        target.create(&format!("l-{threads}-{thread}-{layer}"), Some("base"))?;
                    }
                    Ok(())
                };
                let started: Vec<_> = (0..threads)
                    .map(|thread| scope.spawn(move || work(thread)))
                    .collect();
                let mut done = 0;
                for thread in started {
                    let ended = thread.join();
                    ended.map_err(|_| Failure::new("a thread panicked"))??;
                    done += EACH / threads;
                }
                Ok(done)
            })
        })?;
        same!(EACH, made, "the layers that {threads} threads made");
        wire::measure(
            &format!("creates per second, {threads} threads"),
            per_second(made, time),
        )?;
    }
    Ok(())
}

fn space_of_children(target: &mut Target) -> Outcome {
    const CHILDREN: u32 = 50;
    target.put(
        "base",
        None,
        &TarFile::new().file("file", &vec![b'x'; 1 << 20]).done(),
    )?;
    let used = || -> Result<u64, Failure> {
        nix::unistd::syncfs(File::open(&target.root)?)?;
        let stat = nix::sys::statvfs::statvfs(&target.root)?;
        Ok((stat.blocks() - stat.blocks_free()) * stat.fragment_size())
    };
    let before = used()?;
    for child in 0..CHILDREN {
        target.create_writable(&format!("child-{child}"), Some("base"))?;
    }
    let grown = used()?.saturating_sub(before);
    #[expect(clippy::cast_precision_loss, reason = "a number for people")]
    wire::measure(
        "bytes of a child of a 1 MiB layer",
        grown as f64 / f64::from(CHILDREN),
    )?;
    same!(
        CHILDREN as usize + 1,
        target.layers()?.len(),
        "the layers that were made"
    );
    Ok(())
}

fn first_write(target: &mut Target) -> Outcome {
    let sizes = [("4 KiB", 4 << 10), ("1 MiB", 1 << 20), ("16 MiB", 16 << 20)];
    let mut tar = TarFile::new();
    for (name, bytes) in sizes {
        tar = tar.file(name, &vec![b'x'; bytes]);
    }
    target.put("base", None, &tar.done())?;
    target.create_writable("child", Some("base"))?;
    target.within("child", |path| {
        for (name, bytes) in sizes {
            let (time, ()) = timed(|| {
                let mut file = OpenOptions::new().append(true).open(path.join(name))?;
                Ok(file.write_all(b"y")?)
            })?;
            wire::measure(&format!("first write to {name}, ms"), milliseconds(time))?;
            same!(
                bytes as u64 + 1,
                fs::metadata(path.join(name))?.len(),
                "the size of {name}"
            );
        }
        Ok(())
    })
}

fn opening(target: &mut Target) -> Outcome {
    let mut made = 0;
    for layers in [0, 50, 200] {
        let start = Instant::now();
        while made < layers && start.elapsed() < PATIENCE {
            target.create(&format!("layer-{made}"), None)?;
            made += 1;
        }
        let times = Times::of(5, |_| {
            let again = target.reopened()?;
            same!(made, again.layers()?.len(), "the layers that are listed");
            Ok(())
        })?;
        times.record(&format!("opening with {made} layers"))?;
    }
    Ok(())
}

fn workload(target: &mut Target) -> Outcome {
    const LAYERS: usize = 16;
    let mut spent = [Duration::ZERO; 3];
    let mut parent: Option<String> = None;
    for layer in 0..LAYERS {
        let id = format!("layer-{layer}");
        let (prepared, path) = timed(|| {
            target.create_writable(&id, parent.as_deref())?;
            Ok(target.mount(&id, &MountRequest::default())?)
        })?;
        let (written, ()) = timed(|| write_some(&path, layer))?;
        let (committed, bytes) = timed(|| {
            target.unmount(&id)?;
            Ok(target.diff(&id)?.len())
        })?;
        demand!(
            bytes > 20 * 1024,
            "the diff of layer {layer} has {bytes} bytes"
        );
        for (sum, time) in spent.iter_mut().zip([prepared, written, committed]) {
            *sum += time;
        }
        parent = Some(id);
    }
    for (what, time) in ["prepare", "write", "commit"].iter().zip(spent) {
        wire::measure(&format!("{LAYERS} layers, {what}, ms"), milliseconds(time))?;
    }
    Ok(())
}

/// New files, and changes to one of each layer below.
fn write_some(path: &Path, layer: usize) -> Outcome {
    for file in 0..20 {
        fs::write(path.join(format!("{layer}-{file}")), "text of a small file")?;
    }
    for below in 0..layer {
        let text = format!("changed by {layer}");
        fs::write(path.join(format!("{below}-0")), text)?;
    }
    age(path)
}

/// Gives everything in a directory a time of long ago: trees with changes of the present second
/// cannot be compared before it is over, which is no work of the driver.
fn age(directory: &Path) -> Outcome {
    let old = SystemTime::UNIX_EPOCH + Duration::from_hours(400_000);
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let young = entry.metadata()?.modified()?.elapsed().unwrap_or_default();
        if young < Duration::from_mins(1) {
            File::open(entry.path())?.set_modified(old)?;
        }
    }
    Ok(File::open(directory)?.set_modified(old)?)
}

/// A tar stream with one file of zeros that is in no memory.
struct Zeros {
    header: Vec<u8>,
    left: u64,
}

impl Zeros {
    fn new(bytes: u64) -> Self {
        let mut header = tar::Header::new_ustar();
        header.set_path("zeros").expect("the name is short");
        header.set_mode(0o644);
        header.set_size(bytes);
        header.set_mtime(1_700_000_000);
        header.set_cksum();
        Self {
            header: header.as_bytes().to_vec(),
            // The end of a stream is two blocks of zeros, too.
            left: bytes.next_multiple_of(512) + 1024,
        }
    }
}

impl Read for Zeros {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if !self.header.is_empty() {
            let count = (&self.header[..]).read(buffer)?;
            self.header.drain(..count);
            return Ok(count);
        }
        let count = buffer
            .len()
            .min(usize::try_from(self.left).unwrap_or(usize::MAX));
        buffer[..count].fill(0);
        self.left -= count as u64;
        Ok(count)
    }
}

/// Four times the memory that may be used for it.
const STREAM: u64 = 256 << 20;
const BOUND_KIB: u64 = 64 << 10;

/// A number of KiB from the process's status.
fn status(key: &str) -> Result<u64, Failure> {
    let text = fs::read_to_string("/proc/self/status")?;
    let value = text
        .lines()
        .find_map(|line| line.strip_prefix(key)?.strip_prefix(':'));
    let number = value.and_then(|value| value.trim().strip_suffix(" kB")?.parse().ok());
    number.ok_or_else(|| Failure::harness(format!("/proc/self/status has no {key}")))
}

fn put_role(site: &Site, _: &[String]) -> Outcome {
    let target = site.open()?;
    // So that the stream alone makes the difference.
    target.put("first", None, &files("files", 10))?;
    let before = status("VmRSS")?;
    let new = new_layer("large", None);
    target.put_with(&new, Zeros::new(STREAM), PutOptions::default())?;
    let grown = status("VmHWM")?.saturating_sub(before);
    wire::measure(
        "growth, KiB",
        u32::try_from(grown).map_or(f64::MAX, f64::from),
    )?;
    demand!(
        grown < BOUND_KIB,
        "the process grew by {grown} KiB while a layer of {} MiB was put",
        STREAM >> 20
    );
    target.close()?;
    Ok(())
}

fn memory(target: &mut Target) -> Outcome {
    target.in_peer("put", &[])?;
    target.within("large", |path| {
        same!(
            STREAM,
            fs::metadata(path.join("zeros"))?.len(),
            "the size of the file"
        );
        Ok(())
    })
}
