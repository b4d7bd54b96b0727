// SPDX-License-Identifier: Apache-2.0
//! A store served over FUSE, file systems in files, and stores of Plywood on them.

use std::{
    fs::{self, File},
    io::Write as _,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};

use flate2::{Compression as Level, write::GzEncoder};
use plywood::{
    Digest,
    plugin::PluginOptions,
    sdk::{embed_driver, embed_layer_source},
    store::{Store, StoreOptions},
};
use rustix::{
    mount::{UnmountFlags, unmount},
    process::{Pid, Signal, kill_process},
};

embed_driver!(plywood_driver_additional_layer_store::AdditionalLayerStore);
embed_driver!(plywood_driver_btrfs::Btrfs);
embed_driver!(plywood_driver_overlay::Overlay);
embed_driver!(plywood_driver_vfs::Vfs);
embed_layer_source!(plywood_driver_additional_layer_store::AdditionalLayerStore);

/// How long the stores of these tests are waited for.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(1);

/// What an operation that has to wait for one answer may take.
pub(crate) const BOUND: Duration = Duration::from_secs(5);

/// Whether the tests can run here; with `CI` set they must.
pub(crate) fn is_ready() -> bool {
    #[expect(
        clippy::disallowed_methods,
        reason = "tests are configured by the environment"
    )]
    let required = std::env::var_os("CI").is_some();
    let ready = rustix::process::geteuid().is_root() && Path::new("/dev/fuse").exists();
    assert!(ready || !required, "root and /dev/fuse are required");
    if !ready {
        println!("skipped: needs root and /dev/fuse");
    }
    ready
}

/// A directory that everything of one test is in; what is mounted in it is unmounted at the end.
pub(crate) struct Place(tempfile::TempDir);

impl Place {
    pub(crate) fn new() -> Self {
        let dir = tempfile::Builder::new().prefix("plw-als-").tempdir();
        let this = Self(dir.unwrap());
        for name in ["folder", "served"] {
            fs::create_dir(this.path(name)).unwrap();
        }
        this
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Puts a btrfs file system at `disk`; `false`, with the reason printed, without its tools.
    pub(crate) fn mount_btrfs(&self) -> bool {
        let (image, disk) = (self.path("image"), self.path("disk"));
        fs::create_dir(&disk).unwrap();
        File::create(&image).unwrap().set_len(512 << 20).unwrap();
        let Ok(made) = Command::new("mkfs.btrfs").arg("-q").arg(&image).output() else {
            println!("skipped: needs mkfs.btrfs");
            return false;
        };
        assert!(made.status.success(), "{made:?}");
        let mut mount = Command::new("mount");
        mount.args(["-o", "loop"]).arg(&image).arg(&disk);
        assert!(mount.status().unwrap().success());
        true
    }

    /// A store with `driver` on `disk`, which knows the served layers.
    pub(crate) fn store(&self, driver: &str, more: &[&str]) -> Store {
        let mut given = vec![
            format!("additionallayerstore={}", self.path("served").display()),
            format!("additionallayerstore_timeout={}", TIMEOUT.as_secs()),
        ];
        given.extend(more.iter().map(|&option| option.to_owned()));
        let options = StoreOptions {
            graph_root: self.path("disk").join(format!("graph-{driver}")),
            run_root: self.path(&format!("run-{driver}")),
            driver: Some(driver.to_owned()),
            driver_options: given,
            plugins: PluginOptions::only_embedded(),
            ..StoreOptions::default()
        };
        Store::open(options).unwrap()
    }

    /// Puts a layer with `files` into the served folder.
    pub(crate) fn layer(&self, files: &[(&str, Vec<u8>)]) -> Remote {
        let mut builder = tar::Builder::new(Vec::new());
        for (name, bytes) in files {
            let mut header = tar::Header::new_ustar();
            header.set_size(bytes.len() as u64);
            header.set_mode(0o644);
            header.set_mtime(1_700_000_000);
            builder.append_data(&mut header, name, &**bytes).unwrap();
        }
        let tar = builder.into_inner().unwrap();
        let mut gzip = GzEncoder::new(Vec::new(), Level::fast());
        gzip.write_all(&tar).unwrap();
        let blob = gzip.finish().unwrap();
        let (digest, diff_digest) = (Digest::sha256(&blob), Digest::sha256(&tar));
        let directory = self.path("folder").join(digest.as_str());
        fs::create_dir_all(directory.join("diff")).unwrap();
        tar::Archive::new(&*tar)
            .unpack(directory.join("diff"))
            .unwrap();
        fs::write(directory.join("blob"), &blob).unwrap();
        let info = format!(
            "{{\"compressed-diff-digest\":\"{digest}\",\"compressed-size\":{},\
             \"diff-digest\":\"{diff_digest}\",\"diff-size\":{},\"compression\":2}}",
            blob.len(),
            tar.len()
        );
        fs::write(directory.join("info"), info).unwrap();
        Remote { tar, digest }
    }

    pub(crate) fn serve(&self) -> Server {
        Server::start(&self.path("folder"), &self.path("served"))
    }

    /// The counters of the store.
    pub(crate) fn uses(&self) -> String {
        fs::read_to_string(self.path("served/uses")).unwrap()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        let below = self.0.path().to_str().unwrap();
        let targets = mounts.lines().filter_map(|line| line.split(' ').nth(4));
        let mut targets: Vec<_> = targets.filter(|path| path.starts_with(below)).collect();
        targets.reverse();
        for target in targets {
            let done = unmount(target, UnmountFlags::DETACH);
            assert!(
                done.is_ok() || std::thread::panicking(),
                "{target}: {done:?}"
            );
        }
    }
}

/// A layer that is served.
pub(crate) struct Remote {
    pub(crate) tar: Vec<u8>,
    pub(crate) digest: Digest,
}

/// The program that serves, ended with the test.
pub(crate) struct Server(Child);

impl Server {
    fn start(folder: &Path, mount_point: &Path) -> Self {
        let child = Command::new(env!("CARGO_BIN_EXE_layer-store"))
            .args([folder, mount_point])
            .stdin(Stdio::null())
            .spawn();
        let this = Self(child.unwrap());
        let start = Instant::now();
        while !mount_point.join("uses").exists() {
            assert!(start.elapsed() < BOUND, "nothing is served");
            sleep(Duration::from_millis(10));
        }
        this
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.0), signal).unwrap();
        // A stopped process may still be in the middle of an answer for a moment.
        sleep(Duration::from_millis(50));
    }

    pub(crate) fn stop(&self) {
        self.signal(Signal::STOP);
    }
}

impl Drop for Server {
    /// Its end ends every request that still waits for it.
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

/// Bytes that do not compress.
pub(crate) fn noise(length: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let words = (0..length.div_ceil(8)).flat_map(|_| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    });
    words.take(length).collect()
}

/// Runs `work`, which must not take longer than `BOUND`.
pub(crate) fn bounded<T>(what: &str, work: impl FnOnce() -> T) -> T {
    let start = Instant::now();
    let value = work();
    let taken = start.elapsed();
    assert!(taken < BOUND, "{what} took {taken:?}");
    value
}
