// SPDX-License-Identifier: Apache-2.0
//! Where a case runs: the driver's source, an empty root, and processes of the case's own.

use std::{
    ffi::OsString,
    fs, io,
    os::unix::process::{CommandExt as _, ExitStatusExt as _},
    path::PathBuf,
    process::{Child, Command, ExitStatus, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    thread,
    time::{Duration, Instant},
};

use plywood::{
    Error, ErrorKind, Result,
    plugin::{DriverHandle, PluginOptions, Registry, tracing_host},
    sdk::OpenRequest,
    store::{Store, StoreOptions},
};
use serde::{Deserialize, Serialize};

use crate::{
    Target,
    case::{Failure, Outcome},
    scratch::{Backing, pool},
    wire::{self, Status},
    worker::PEER,
};

/// The suite's own program as it was started; the file may have been replaced since.
pub(crate) const PROGRAM: &str = "/proc/self/exe";

/// Where the driver comes from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Source {
    /// A plugin file.
    Plugin(PathBuf),
    /// A driver that is linked into this program.
    Embedded(String),
}

impl Source {
    /// The driver's name: the one in the file's name, for a plugin.
    ///
    /// # Errors
    /// `InvalidArgument` for a file that is not called like a plugin.
    pub fn name(&self) -> Result<String> {
        match self {
            Self::Embedded(name) => Ok(name.clone()),
            Self::Plugin(path) => path
                .file_name()
                .and_then(|name| name.to_str())
                .and_then(|name| name.strip_prefix("libplywood_driver_")?.strip_suffix(".so"))
                .map(|name| name.replace('_', "-"))
                .ok_or_else(|| {
                    Error::new(
                        ErrorKind::InvalidArgument,
                        format!(
                            "`{}` is not called libplywood_driver_NAME.so",
                            path.display()
                        ),
                    )
                }),
        }
    }

    /// A registry that has this driver alone (or all that are linked in).
    pub(crate) fn registry(&self) -> Result<Registry> {
        Ok(Registry::discover(self.plugins()?))
    }

    /// Where plugins are looked for, so that this driver alone is found.
    pub(crate) fn plugins(&self) -> Result<PluginOptions> {
        let mut options = PluginOptions::only_embedded();
        if let Self::Plugin(path) = self {
            options.embedded = false;
            options.configured.push(plywood::plugin::ConfiguredPlugin {
                name: self.name()?,
                path: path.clone(),
                sha256: None,
            });
        }
        Ok(options)
    }
}

/// Everything that a case's processes share.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Site {
    /// The driver.
    pub source: Source,
    /// An empty directory on the scratch file system, the case's own.
    pub root: PathBuf,
    /// Driver options, `key=value`.
    pub options: Vec<String>,
    /// The file system under `root`.
    pub backing: Backing,
    pub(crate) case: String,
    pub(crate) seed: u64,
    /// How long cases with random input go on.
    pub(crate) fuzz: Duration,
    /// How many times longer than usual everything may take.
    pub(crate) patience: u32,
    pub(crate) messages: PathBuf,
    /// Turns a failure into a pass, to show that the suite's own test notices.
    pub(crate) sabotaged: bool,
}

impl Site {
    /// The driver's home directory.
    pub(crate) fn home(&self) -> Result<PathBuf> {
        Ok(self.root.join("graph").join(self.source.name()?))
    }

    /// The driver's run directory.
    pub(crate) fn run_dir(&self) -> Result<PathBuf> {
        Ok(self.root.join("run").join(self.source.name()?))
    }

    /// What the driver is opened with.
    pub(crate) fn request(&self) -> Result<OpenRequest> {
        let mut request = OpenRequest::new(self.home()?, self.run_dir()?, tracing_host());
        request.options.clone_from(&self.options);
        Ok(request)
    }

    /// Opens the driver alone.
    pub(crate) fn driver(&self) -> Result<DriverHandle> {
        self.driver_with(self.request()?)
    }

    /// Opens the driver alone, with another request.
    pub(crate) fn driver_with(&self, request: OpenRequest) -> Result<DriverHandle> {
        self.source.registry()?.open(&self.source.name()?, request)
    }

    /// Opens the driver and the store around it.
    pub(crate) fn open(&self) -> Result<Target> {
        Target::open(self.clone())
    }

    /// Opens a whole store on the same directories: layers, images and containers.
    pub(crate) fn whole_store(&self) -> Result<Store> {
        Store::open(StoreOptions {
            graph_root: self.root.join("graph"),
            run_root: self.root.join("run"),
            driver: Some(self.source.name()?),
            driver_options: self.options.clone(),
            plugins: self.source.plugins()?,
            ..StoreOptions::default()
        })
    }

    /// How long something may take in this run that usually may take `usual`.
    pub(crate) fn bound(&self, usual: Duration) -> Duration {
        usual * self.patience
    }

    /// The same driver on another root, which gets what a store needs to itself.
    pub(crate) fn at(&self, root: impl Into<PathBuf>) -> Self {
        let root = root.into();
        if let Err(error) = pool::own_root(&root) {
            // The driver fails on it, and says that in its own words.
            let _lost = wire::step(&format!("no dataset for `{}`: {error}", root.display()));
        }
        Self {
            root,
            ..self.clone()
        }
    }

    /// A directory of the case's own, outside the store and on the same file system.
    pub(crate) fn scratch(&self, name: &str) -> io::Result<PathBuf> {
        let path = self.root.join(name);
        fs::create_dir_all(&path)?;
        Ok(path)
    }

    /// Numbers that are the same whenever the run's seed is.
    pub(crate) fn rng(&self) -> fastrand::Rng {
        let mut mixed = self.seed;
        for byte in self.case.bytes() {
            mixed = mixed.rotate_left(7) ^ u64::from(byte).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        }
        fastrand::Rng::with_seed(mixed)
    }

    /// The command line that runs a role of this case on this site, not yet started; its messages
    /// go to the file that is returned beside it.
    pub(crate) fn role(&self, role: &str, arguments: &[&str]) -> io::Result<(Command, PathBuf)> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let mut name = self.messages.clone().into_os_string();
        name.push(format!("-{}-{number}", std::process::id()));
        let messages = PathBuf::from(name);
        let site = Self {
            messages: messages.clone(),
            ..self.clone()
        };
        let mut command = Command::new(PROGRAM);
        command
            .arg(PEER)
            .arg(serde_json::to_string(&site)?)
            .arg(role)
            .args(arguments)
            .stdin(Stdio::null());
        Ok((command, messages))
    }

    /// Starts a role of this case in a process of its own.
    pub(crate) fn peer(&self, role: &str, arguments: &[&str]) -> Result<Peer, Failure> {
        let (command, messages) = self.role(role, arguments)?;
        let mut peer = Peer::start(command, messages)?;
        peer.wait = STEP * self.patience;
        Ok(peer)
    }

    /// Runs a role of this case in a process of its own to its end.
    pub(crate) fn in_peer(&self, role: &str, arguments: &[&str]) -> Outcome {
        self.peer(role, arguments)?.join()
    }
}

/// A part of a case in a process of its own; killed when it is dropped.
#[derive(Debug)]
pub(crate) struct Peer {
    child: Child,
    messages: PathBuf,
    /// How long it may take to come to a step.
    wait: Duration,
}

/// The same where nobody asked for patience.
const STEP: Duration = Duration::from_secs(30);

impl Peer {
    /// Starts what [`Site::role`] gave, perhaps changed.
    pub(crate) fn start(mut command: Command, messages: PathBuf) -> Result<Self, Failure> {
        Ok(Self {
            child: command.spawn()?,
            messages,
            wait: STEP,
        })
    }

    /// The process's id.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Kills it as a crash would, and waits for its end.
    pub(crate) fn kill(&mut self) -> io::Result<ExitStatus> {
        self.child.kill()?;
        self.child.wait()
    }

    /// Waits until it has named the step `text`.
    pub(crate) fn wait_for_step(&mut self, text: &str) -> Outcome {
        let end = Instant::now() + self.wait;
        loop {
            let ended = self.child.try_wait()?;
            let steps = wire::read(&self.messages)?.steps;
            if steps.iter().any(|step| step == text) {
                return Ok(());
            }
            if let Some(status) = ended {
                return Err(self.outcome(status).err().unwrap_or_else(|| {
                    Failure::harness(format!("the process ended before its step `{text}`"))
                }));
            }
            if Instant::now() > end {
                let seconds = self.wait.as_secs();
                return Err(Failure::new(format!("no step `{text}` after {seconds} s")));
            }
            thread::sleep(Duration::from_millis(2));
        }
    }

    /// Waits for its end, and fails as it failed.
    pub(crate) fn join(mut self) -> Outcome {
        let status = self.child.wait()?;
        self.outcome(status)
    }

    fn outcome(&self, status: ExitStatus) -> Outcome {
        let messages = wire::read(&self.messages)?;
        for (name, value) in &messages.measures {
            wire::measure(name, *value)?;
        }
        let last = messages.steps.last();
        match messages.verdict {
            Some(verdict) if verdict.status == Status::Pass => {
                crate::case::count_assertions(verdict.assertions);
                Ok(())
            }
            Some(verdict) => Err(verdict.failure()),
            None => Err(Failure::new(format!(
                "a process of the case {} after its step {last:?}",
                how(status)
            ))),
        }
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        if let Ok(None) = self.child.try_wait()
            && self.child.kill().is_ok()
        {
            // Nothing is left to tell when the wait for a killed child fails.
            let _status = self.child.wait();
        }
    }
}

/// How a process ended, in words.
pub(crate) fn how(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("ended with status {code}"),
        (None, Some(signal)) => {
            let name = nix::sys::signal::Signal::try_from(signal)
                .map_or_else(|_| signal.to_string(), |signal| signal.to_string());
            format!("was killed by {name}")
        }
        (None, None) => "ended".to_owned(),
    }
}

/// Starts the suite's own program in a process group of its own, which dies with this process.
pub(crate) fn own_group(arguments: &[OsString]) -> Command {
    let mut command = Command::new(PROGRAM);
    command
        .args(arguments)
        .stdin(Stdio::null())
        .process_group(0);
    command
}
