// SPDX-License-Identifier: Apache-2.0
//! Capabilities as the suite sees them: who declares them, and what must be refused otherwise.

use plywood::sdk::{
    self, Capabilities, CreateRequest, DriverError, DriverErrorCode, LayerId, LayerKind,
    MountRequest,
};

use crate::{
    Target,
    case::{Failure, Outcome, demand},
};

/// A capability that cases depend on.
#[derive(Debug)]
pub struct Gate {
    /// The name of the SDK's field.
    pub name: &'static str,
    /// The profile that its cases make up.
    pub profile: &'static str,
    /// Whether a driver declares it.
    pub declared: fn(&Capabilities) -> bool,
    /// What must be refused by a driver that does not declare it; `None` when there is nothing to
    /// ask for.
    pub(crate) refused: Option<fn(&Target) -> Outcome>,
}

macro_rules! gates {
    ($($name:ident $profile:literal $refused:expr;)*) => {
        /// Every capability that the suite knows.
        pub static GATES: &[Gate] = &[$(Gate {
            name: stringify!($name),
            profile: $profile,
            declared: |can| can.$name,
            refused: $refused,
        },)*];
    };
}

gates! {
    list "list" Some(|target| refuses("list", || target.driver.unguarded().list().map(drop)));
    read_only_mounts "mounts" Some(|target| refuses_mount(target, |request| request.read_only = true));
    mount_options "mounts" Some(|target| {
        refuses_mount(target, |request| request.options = vec!["nosuid".to_owned()])
    });
    mount_labels "mounts" Some(|target| {
        let label = "system_u:object_r:container_file_t:s0";
        refuses_mount(target, |request| request.label = Some(label.to_owned()))
    });
    volatile_mounts "mounts" None;
    idmapped_mounts "idmap" None;
    native_diff "native-diff" None;
    native_changes "native-diff" Some(|target| {
        let id = layer(target)?;
        refuses("native_changes", || target.driver.unguarded().native_changes(&id, None).map(drop))
    });
    staging "staging" Some(|target| {
        refuses("stage", || target.driver.unguarded().stage(&request("gate-staged")).map(drop))
    });
    deferred_removal "staging" Some(|target| {
        let id = layer(target)?;
        refuses("trash", || target.driver.unguarded().trash(&id).map(drop))?;
        demand!(target.driver.exists(&id)?, "the refused `trash` removed the layer");
        Ok(())
    });
    sync "durable" Some(|target| {
        let id = layer(target)?;
        refuses("sync", || target.driver.unguarded().sync(&id))
    });
    size_quota "quota" Some(|target| refuses_option(target, "size", "16m"));
    inode_quota "quota" Some(|target| refuses_option(target, "inodes", "100"));
    template "template" Some(|target| {
        let id = layer(target)?;
        let mut request = request("gate-copy");
        request.template = Some(id);
        refuses("create from a template", || target.driver.unguarded().create(&request))?;
        demand!(!target.driver.exists(&request.id)?, "the refused template made a layer");
        Ok(())
    });
    image_stores "image-store" None;
    external_directory "als" Some(|target| {
        let external = sdk::ExternalDirectory::new("/", "/", std::time::Duration::from_secs(1));
        let request = request("gate-external");
        let driver = target.driver.unguarded();
        refuses("create_external", || driver.create_external(&request, &external))?;
        demand!(!target.driver.exists(&request.id)?, "the refused `create_external` made a layer");
        Ok(())
    });
    cheap_usage "usage" None;
    directory_rename "tree" None;
    stable_inodes "tree" None;
    hard_link_copy_up "tree" None;
    space_sharing "tree" None;
    holes "tree" None;
}

/// The capability of that name.
pub(crate) fn find(name: &str) -> Option<&'static Gate> {
    GATES.iter().find(|gate| gate.name == name)
}

fn layer(target: &Target) -> Result<LayerId, Failure> {
    let request = request("gate");
    if !target.driver.exists(&request.id)? {
        target.driver.create(&request)?;
    }
    Ok(request.id)
}

fn request(id: &str) -> CreateRequest {
    CreateRequest::new(crate::target::layer_id(id), None)
}

fn code<T>(answer: &sdk::Result<T>) -> Option<DriverErrorCode> {
    answer.as_ref().err().map(|error: &DriverError| error.code)
}

/// The guard refuses what is not declared before the driver sees it, so the driver is asked alone.
fn refuses(operation: &str, call: impl FnOnce() -> sdk::Result<()>) -> Outcome {
    let answer = call();
    demand!(
        code(&answer) == Some(DriverErrorCode::NOT_SUPPORTED),
        "the driver does not declare what `{operation}` needs, and answered {answer:?} instead of \
         refusing it as not supported"
    );
    Ok(())
}

fn refuses_mount(target: &Target, change: impl FnOnce(&mut MountRequest)) -> Outcome {
    let id = layer(target)?;
    let mut request = MountRequest::default();
    change(&mut request);
    let answer = target.driver.unguarded().mount_plan(&id, &request);
    demand!(
        code(&answer).is_some_and(refusal),
        "the driver does not declare what {request:?} needs, and answered {answer:?}"
    );
    Ok(())
}

fn refuses_option(target: &Target, key: &str, value: &str) -> Outcome {
    let mut request = request("gate-limited");
    request.kind = LayerKind::ReadWrite;
    request
        .storage_options
        .insert(key.to_owned(), value.to_owned());
    let answer = target.driver.unguarded().create(&request);
    demand!(
        code(&answer).is_some_and(refusal),
        "the driver does not declare a limit, and answered `{key}={value}` with {answer:?}"
    );
    demand!(
        !target.driver.exists(&request.id)?,
        "the refused option `{key}` left a layer"
    );
    Ok(())
}

fn refusal(code: DriverErrorCode) -> bool {
    code == DriverErrorCode::NOT_SUPPORTED || code == DriverErrorCode::INVALID_ARGUMENT
}
