// SPDX-License-Identifier: Apache-2.0
//! The processes in which cases run.
//!
//! The suite starts [`INIT`], which enters a mount and a PID namespace of its own and starts
//! [`CASE`] as that namespace's first process; what it starts in turn ([`PEER`]) dies with it.

use std::{
    ffi::OsString,
    fs, io,
    os::unix::{fs::DirBuilderExt as _, process::ExitStatusExt as _},
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
    process::{Command, Stdio},
};

use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
    sys::{prctl::set_pdeathsig, signal::Signal},
};

use crate::{
    Case, Site,
    case::{Body, Failure, Outcome, assertions},
    catalogue::Entry,
    leaks::Baseline,
    manifest::{self, Manifest},
    scratch::pool,
    sweep::do_not_wait_for_disks,
    wire::{self, Status, Verdict},
};

/// The hidden argument of the process that prepares a case's namespaces.
pub(crate) const INIT: &str = "__init";
/// The hidden argument of the process that runs a case.
pub(crate) const CASE: &str = "__case";
/// The hidden argument of a process that runs a part of a case.
pub(crate) const PEER: &str = "__peer";
/// The hidden argument of a process that opens the driver and says what it declares.
pub(crate) const DESCRIBE: &str = "__describe";

/// Does what one of the suite's own processes is there for; `None` when `arguments` are a user's.
///
/// # Behavior
/// - To be called first thing in the suite's program, before it starts any thread.
pub fn worker_main(arguments: &[OsString]) -> Option<i32> {
    let name = arguments.first()?.to_str()?;
    let ended = match name {
        INIT => init(arguments),
        CASE => run_case(arguments).map(|()| 0),
        PEER => run_peer(arguments).map(|()| 0),
        DESCRIBE => run_describe(arguments).map(|()| 0),
        _ => return None,
    };
    Some(ended.unwrap_or_else(|error| {
        // The last resort of a process that has nobody to report to.
        let _lost = wire::verdict(Verdict::new(Status::Error, error.to_string()));
        3
    }))
}

fn misused() -> io::Error {
    io::Error::other("a case's process is started by the suite alone")
}

fn site(arguments: &[OsString]) -> io::Result<Site> {
    let text = arguments.get(1).and_then(|text| text.to_str());
    Ok(serde_json::from_str(text.ok_or_else(misused)?)?)
}

fn init(arguments: &[OsString]) -> io::Result<i32> {
    set_pdeathsig(Signal::SIGKILL)?;
    let site = site(arguments)?;
    wire::open(&site.messages)?;
    unshare(CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWPID)
        .map_err(|error| io::Error::other(format!("cannot make namespaces: {error}")))?;
    private_mounts()?;
    pool::leave_other_roots(&site.root)?;
    let rest = arguments[1..].iter().cloned();
    let arguments: Vec<OsString> = std::iter::once(CASE.into()).chain(rest).collect();
    // It stays in the process group of this one, which is what the watchdog kills.
    let status = Command::new(crate::site::PROGRAM)
        .args(arguments)
        .stdin(Stdio::null())
        .status()?;
    Ok(status
        .code()
        .unwrap_or_else(|| 128 + status.signal().unwrap_or(0)))
}

fn run_describe(arguments: &[OsString]) -> io::Result<()> {
    let site = site(arguments)?;
    unshare(CloneFlags::CLONE_NEWNS)?;
    private_mounts()?;
    crate::describe::describe(&site)
}

fn private_mounts() -> io::Result<()> {
    mount::<str, str, str, str>(None, "/", None, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None)?;
    Ok(())
}

/// Gives the first process of the namespace its own `/proc` and, where the case's own files are
/// not hidden by that, its own places for temporary files.
fn private_places(site: &Site) -> io::Result<Vec<&'static Path>> {
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    mount::<str, str, str, str>(Some("proc"), "/proc", Some("proc"), flags, None)?;
    let program = std::env::current_exe()?;
    let mut needed = vec![site.root.as_path(), site.messages.as_path(), &program];
    if let crate::Source::Plugin(path) = &site.source {
        needed.push(path);
    }
    let mut own = Vec::new();
    for place in ["/tmp", "/dev/shm"].map(Path::new) {
        if place.is_dir() && !needed.iter().any(|path| path.starts_with(place)) {
            let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
            mount(
                Some("tmpfs"),
                place,
                Some("tmpfs"),
                flags,
                Some("mode=1777"),
            )?;
            own.push(place);
        }
    }
    Ok(own)
}

fn run_case(arguments: &[OsString]) -> io::Result<()> {
    set_pdeathsig(Signal::SIGKILL)?;
    let site = site(arguments)?;
    wire::open(&site.messages)?;
    // The directory that the suite was started in may be hidden below.
    std::env::set_current_dir("/")?;
    let places = private_places(&site)?;
    let case = crate::find(&site.case).ok_or_else(misused)?;
    let entry = crate::entry(&site.case).ok_or_else(misused)?;
    if !case.waits {
        do_not_wait_for_disks()?;
    }
    let mut verdict = judge(&case, entry, &site, &places)?;
    verdict.assertions = assertions();
    if verdict.status == Status::Pass && verdict.assertions == 0 {
        verdict = Verdict::new(Status::Error, "the case asserted nothing");
    }
    let named = entry.excuse.map(|excuse| excuse.name);
    if let Some(excuse) = verdict
        .excuse
        .as_deref()
        .filter(|excuse| Some(*excuse) != named)
    {
        let text = format!(
            "the case says that it does not apply (`{excuse}`), which the catalogue does not \
             name for it: {}",
            verdict.message
        );
        verdict = Verdict::new(Status::Error, text);
    }
    if site.sabotaged && verdict.status == Status::Fail {
        verdict.status = Status::Pass;
    }
    wire::verdict(verdict)
}

fn judge(case: &Case, entry: &Entry, site: &Site, places: &[&Path]) -> io::Result<Verdict> {
    let canary = Canary::plant(site)?;
    let baseline = Baseline::take(places)?;
    // The message of a panic goes to standard error, which the suite keeps for the report.
    let outcome = catch_unwind(AssertUnwindSafe(|| perform(case, entry, site)));
    let mut verdict = match outcome {
        Ok(Ok(())) => Verdict::new(Status::Pass, ""),
        Ok(Err(failure)) => failure.into(),
        Err(_) => Verdict::new(
            Status::Fail,
            "a panic ended the case; its message is in the output",
        ),
    };
    if let Some(harm) = canary.harmed(site) {
        verdict.status = Status::Fail;
        verdict.message = harm;
        verdict.host_unsafe = true;
    }
    if verdict.status == Status::Fail {
        let table = fs::read("/proc/self/mountinfo")?;
        fs::write(site.messages.with_extension("mountinfo"), table)?;
    }
    pool::leave_inner_roots(&site.root)?;
    verdict.leaks = baseline.leaks(site)?;
    if verdict.status == Status::Pass && !verdict.leaks.is_empty() {
        verdict.status = Status::Fail;
        let what: Vec<_> = verdict
            .leaks
            .iter()
            .map(|leak| leak.what.as_str())
            .collect();
        verdict.message = format!("the case left behind: {}", what.join(", "));
    }
    Ok(verdict)
}

fn perform(case: &Case, entry: &Entry, site: &Site) -> Outcome {
    if let Some(gate) = entry.gate {
        let target = site.at(site.scratch("gate")?).open()?;
        let declared = (gate.declared)(target.driver.capabilities());
        if !declared {
            if let Some(refused) = gate.refused {
                refused(&target)?;
            }
            target.close()?;
            return Err(Failure::undeclared(format!(
                "`{}` is not declared{}",
                gate.name,
                if gate.refused.is_some() {
                    ", and refused as it must be"
                } else {
                    ""
                }
            )));
        }
        target.close()?;
    }
    match case.body {
        Body::Bare(body) => body(site),
        Body::Open(body) => {
            let mut target = site.open().map_err(|error| {
                let Failure { text, .. } = Failure::from(error);
                Failure::new(format!("the driver cannot be opened: {text}"))
            })?;
            let done = body(&mut target);
            let closed = target.close();
            done?;
            closed?;
            Ok(())
        }
    }
}

fn run_peer(arguments: &[OsString]) -> io::Result<()> {
    set_pdeathsig(Signal::SIGKILL)?;
    let site = site(arguments)?;
    wire::open(&site.messages)?;
    let text = |argument: &OsString| argument.to_str().map(str::to_owned).ok_or_else(misused);
    let words: Vec<String> = arguments[2..].iter().map(text).collect::<io::Result<_>>()?;
    let (role, words) = words.split_first().ok_or_else(misused)?;
    let case = crate::find(&site.case).ok_or_else(misused)?;
    let role = case.role(role).ok_or_else(misused)?;
    let mut verdict = match role(&site, words) {
        Ok(()) => Verdict::new(Status::Pass, ""),
        Err(failure) => failure.into(),
    };
    verdict.assertions = assertions();
    wire::verdict(verdict)
}

/// Files beside the store that nothing may touch.
struct Canary(Manifest);

impl Canary {
    fn plant(site: &Site) -> io::Result<Self> {
        let place = site.root.join("canary");
        fs::DirBuilder::new().mode(0o755).create(&place)?;
        for name in ["graph", "run", "secret"] {
            fs::write(place.join(name), name)?;
        }
        std::os::unix::fs::symlink("secret", place.join("link"))?;
        Ok(Self(manifest::of(&place)?))
    }

    fn harmed(&self, site: &Site) -> Option<String> {
        let place = site.root.join("canary");
        let now = match manifest::of(&place) {
            Ok(now) => now,
            Err(error) => return Some(format!("files outside the store are gone: {error}")),
        };
        let differences = self.0.differences(&now);
        (!differences.is_empty()).then(|| {
            format!(
                "files outside the store were changed: {}",
                differences.join("; ")
            )
        })
    }
}
