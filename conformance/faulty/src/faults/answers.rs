// SPDX-License-Identifier: Apache-2.0
//! Wrong answers, refusals and failures.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, process,
    sync::{PoisonError, atomic::Ordering},
};

use plywood_plugin_sdk::{
    Capabilities, ChangeKind, CreateRequest, DiffView, Driver as _, DriverError, DriverErrorCode,
    IoContext, LayerId, MountPlan, MountRequest, NativeChange, OpenRequest, Plugin as _, Removed,
    Result, Staged, Usage, toolkit::options,
};

use super::{
    AcceptsUnknownParent, AnswersUndeclared, Crashes, Deadlocks, DiffsAgainstNothing, ExistsLies,
    FailsSecondClose, FailsToRemoveUnknown, FirstOptionWins, ForgetsDeletions, HalfCreates,
    IgnoresDriverOptions, IgnoresStorageOptions, LocksItselfOut, LongErrors, MetadataOutside,
    OverstatesDepth, Panics, RefusesForeignOptions, RefusesSync, ReplacesExisting, RestlessStatus,
    StatusTwice, UsageIsZero, VagueRefusal,
};
use crate::{
    DEPTH_LIMIT,
    wrapper::{Fault, Wrapper as _},
};

impl AcceptsUnknownParent {
    fn without(&self, request: &CreateRequest) -> Result<CreateRequest> {
        let mut request = request.clone();
        if let Some(parent) = &request.parent
            && !self.driver().exists(parent)?
        {
            request.parent = None;
        }
        Ok(request)
    }
}

impl Fault for AcceptsUnknownParent {
    fn create(&self, request: &CreateRequest) -> Result<()> {
        self.driver().create(&self.without(request)?)
    }

    fn stage(&self, request: &CreateRequest) -> Result<Staged> {
        self.driver().stage(&self.without(request)?)
    }
}

impl Fault for ReplacesExisting {
    fn create(&self, request: &CreateRequest) -> Result<()> {
        self.driver().remove(&request.id)?;
        self.driver().create(request)
    }
}

impl Fault for FailsToRemoveUnknown {
    fn remove(&self, id: &LayerId) -> Result<Removed> {
        match self.driver().remove(id)? {
            Removed::AlreadyGone => Err(DriverError::no_layer(id)),
            Removed::Now => Ok(Removed::Now),
        }
    }
}

impl Fault for AnswersUndeclared {
    fn capabilities(&self) -> Capabilities {
        let mut can = self.driver().capabilities();
        can.list = false;
        can
    }
}

impl Fault for RefusesSync {
    fn sync(&self, _: &LayerId) -> Result<()> {
        Err(DriverError::not_supported("sync"))
    }
}

impl Fault for HalfCreates {
    fn create(&self, request: &CreateRequest) -> Result<()> {
        let made = self.driver().create(request);
        if let Err(error) = &made
            && error.code == DriverErrorCode::NO_SPACE
        {
            let half = self.driver().directory(&request.id).join("tree");
            fs::create_dir_all(&half).at("cannot create", &half)?;
        }
        made
    }
}

impl Fault for FailsSecondClose {
    fn close(&self) -> Result<()> {
        if self.state.swap(true, Ordering::Relaxed) {
            let message = "the driver is closed already";
            return Err(DriverError::new(DriverErrorCode::OTHER, message));
        }
        self.driver().close()
    }
}

impl LocksItselfOut {
    const LOCK: &'static str = "opening";
}

impl Fault for LocksItselfOut {
    fn before_open(request: &mut OpenRequest) -> Result<()> {
        let lock = request.home.join(Self::LOCK);
        fs::create_dir_all(&request.home).at("cannot create", &request.home)?;
        let made = fs::File::create_new(&lock);
        made.map(drop)
            .at("somebody else opens the driver, see", &lock)
    }

    fn capabilities(&self) -> Capabilities {
        // The first question after opening. What cannot be removed keeps the next one out.
        drop(fs::remove_file(self.driver().home().join(Self::LOCK)));
        self.driver().capabilities()
    }
}

impl Fault for Panics {
    fn metadata(&self, id: &LayerId) -> Result<BTreeMap<String, String>> {
        panic!("the metadata of {id} is not where it should be");
    }
}

impl Fault for Crashes {
    fn metadata(&self, _: &LayerId) -> Result<BTreeMap<String, String>> {
        process::abort();
    }
}

impl Deadlocks {
    fn wait(&self) {
        let _outer = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let _inner = self.state.lock().unwrap_or_else(PoisonError::into_inner);
    }
}

impl Fault for Deadlocks {
    fn remove(&self, id: &LayerId) -> Result<Removed> {
        self.wait();
        self.driver().remove(id)
    }

    fn trash(&self, id: &LayerId) -> Result<Option<String>> {
        self.wait();
        self.driver().trash(id)
    }
}

fn explained<T>(answer: Result<T>) -> Result<T> {
    answer.map_err(|mut error| {
        let sentence = format!("{}, and that is why nothing can be done; ", error.message);
        error.message = sentence.repeat((1 << 20) / sentence.len());
        error
    })
}

impl Fault for LongErrors {
    fn create(&self, request: &CreateRequest) -> Result<()> {
        explained(self.driver().create(request))
    }

    fn mount_plan(&self, id: &LayerId, request: &MountRequest) -> Result<MountPlan> {
        explained(self.driver().mount_plan(id, request))
    }

    fn metadata(&self, id: &LayerId) -> Result<BTreeMap<String, String>> {
        explained(self.driver().metadata(id))
    }

    fn usage(&self, id: &LayerId) -> Result<Usage> {
        explained(self.driver().usage(id))
    }
}

impl Fault for ExistsLies {
    fn exists(&self, _: &LayerId) -> Result<bool> {
        Ok(true)
    }
}

impl Fault for UsageIsZero {
    fn usage(&self, id: &LayerId) -> Result<Usage> {
        self.driver().usage(id).map(|_| Usage::default())
    }
}

impl Fault for MetadataOutside {
    fn metadata(&self, id: &LayerId) -> Result<BTreeMap<String, String>> {
        let mut facts = self.driver().metadata(id)?;
        facts.insert("Shadow".to_owned(), "/etc/shadow".to_owned());
        Ok(facts)
    }
}

impl Fault for StatusTwice {
    fn status(&self) -> Result<Vec<(String, String)>> {
        let mut pairs = self.driver().status()?;
        let again = pairs.first().cloned();
        pairs.extend(again);
        Ok(pairs)
    }
}

impl Fault for OverstatesDepth {
    fn capabilities(&self) -> Capabilities {
        let mut can = self.driver().capabilities();
        can.depth_limit = Some(DEPTH_LIMIT + 8);
        can
    }
}

fn only_size(request: &CreateRequest) -> CreateRequest {
    let mut request = request.clone();
    request.storage_options.retain(|key, _| key == "size");
    request
}

impl Fault for IgnoresStorageOptions {
    fn create(&self, request: &CreateRequest) -> Result<()> {
        self.driver().create(&only_size(request))
    }

    fn stage(&self, request: &CreateRequest) -> Result<Staged> {
        self.driver().stage(&only_size(request))
    }
}

impl Fault for IgnoresDriverOptions {
    fn before_open(request: &mut OpenRequest) -> Result<()> {
        let known = &request.known_drivers;
        request.options.retain(|option| {
            let one = std::slice::from_ref(option);
            let own = options::own(one, &[Self::NAME], known).unwrap_or_default();
            let keys = ["size", "imagestore", "additionalimagestore"];
            own.iter().all(|option| keys.contains(&option.key.as_str()))
        });
        Ok(())
    }
}

fn prefix(option: &str) -> Option<&str> {
    Some(option.split_once('=')?.0.split_once('.')?.0)
}

impl Fault for RefusesForeignOptions {
    fn before_open(request: &mut OpenRequest) -> Result<()> {
        let mut prefixes = request.options.iter().filter_map(|option| prefix(option));
        match prefixes.find(|prefix| !prefix.is_empty() && *prefix != Self::NAME) {
            None => Ok(()),
            Some(foreign) => Err(DriverError::new(
                DriverErrorCode::INVALID_ARGUMENT,
                format!("`{foreign}` is another driver"),
            )),
        }
    }
}

impl Fault for FirstOptionWins {
    fn before_open(request: &mut OpenRequest) -> Result<()> {
        let mut seen = BTreeSet::new();
        request.options.retain(|option| {
            let key = option.split_once('=').map_or("", |(key, _)| key);
            seen.insert(key.to_owned())
        });
        Ok(())
    }
}

impl Fault for RestlessStatus {
    fn status(&self) -> Result<Vec<(String, String)>> {
        let mut pairs = self.driver().status()?;
        let now = format!("{:?}", std::time::SystemTime::now());
        pairs.push(("Time".to_owned(), now));
        Ok(pairs)
    }
}

impl Fault for VagueRefusal {
    fn before_open(_: &mut OpenRequest) -> Result<()> {
        if rustix::process::geteuid().is_root() {
            return Ok(());
        }
        Err(DriverError::new(DriverErrorCode::OTHER, "it does not work"))
    }
}

impl Fault for DiffsAgainstNothing {
    fn diff_view(&self, id: &LayerId, _: Option<&LayerId>) -> Result<DiffView> {
        self.driver().diff_view(id, None)
    }
}

impl Fault for ForgetsDeletions {
    fn native_changes(&self, id: &LayerId, parent: Option<&LayerId>) -> Result<Vec<NativeChange>> {
        let mut changes = self.driver().native_changes(id, parent)?;
        changes.retain(|change| change.kind != ChangeKind::Delete);
        Ok(changes)
    }
}
