// SPDX-License-Identifier: Apache-2.0
//! Conversions of what a driver answers: plans, views, places and changes.

use abi_stable::std_types::{ROption, RString, RVec};

use super::{
    convert::{
        flags, known_flags, maybe_path, maybe_path_buf, maybe_string, maybe_text, newer, numbers,
        path_bufs, paths, strings, texts,
    },
    types::{AbiChange, AbiPath, AbiPlan, AbiStaged, AbiStep, AbiTarget, AbiView, Extra},
};
use crate::{
    ChangeKind, DiffView, DriverError, MountPlan, MountStep, MountSteps, NativeChange,
    OverlayMount, Result, Staged, UnpackTarget, WhiteoutForm,
};

const PLAN_DIRECTORY: u32 = 0;
const PLAN_MOUNTS: u32 = 1;
const PLAN_BY_DRIVER: u32 = 2;

const STEP_OVERLAY: u32 = 0;
const STEP_FILESYSTEM: u32 = 1;
const STEP_BIND: u32 = 2;
const STEP_READ_ONLY: u64 = 1;

const VIEW_UPPER: u32 = 0;
const VIEW_TREES: u32 = 1;
const VIEW_MOUNTED: u32 = 2;

const TARGET_APPLY_ROOT: u64 = 1;
const TARGET_IMPLIED_UMASK: u64 = 2;
const TARGET_IGNORE_CHOWN: u64 = 4;
const TARGET_FRESH: u64 = 8;
const TARGET_KNOWN: u64 =
    TARGET_APPLY_ROOT | TARGET_IMPLIED_UMASK | TARGET_IGNORE_CHOWN | TARGET_FRESH;

numbers! { whiteout_number, whiteout_of, WhiteoutForm, "a form of deletions":
WhiteoutForm::Removal = 0, WhiteoutForm::Overlay = 1, WhiteoutForm::OverlayUserXattr = 2,
WhiteoutForm::Literal = 3 }
numbers! { change_number, change_of, ChangeKind, "a change":
ChangeKind::Modify = 0, ChangeKind::Add = 1, ChangeKind::Delete = 2 }

impl From<MountPlan> for AbiPlan {
    fn from(plan: MountPlan) -> Self {
        let (kind, target, steps) = match plan {
            MountPlan::Directory(path) => (PLAN_DIRECTORY, path, RVec::new()),
            MountPlan::Mounts(MountSteps { target, steps }) => (
                PLAN_MOUNTS,
                target,
                steps.into_iter().map(Into::into).collect(),
            ),
            MountPlan::ByDriver { target } => (PLAN_BY_DRIVER, target, RVec::new()),
        };
        Self {
            kind,
            target: target.as_path().into(),
            steps,
            extra: Extra::new(),
        }
    }
}

impl TryFrom<AbiPlan> for MountPlan {
    type Error = DriverError;

    fn try_from(plan: AbiPlan) -> Result<Self> {
        let target = plan.target.into();
        Ok(match plan.kind {
            PLAN_DIRECTORY => Self::Directory(target),
            PLAN_MOUNTS => {
                let steps = plan.steps.into_iter().map(TryInto::try_into);
                let steps = steps.collect::<Result<_>>()?;
                Self::Mounts(MountSteps { target, steps })
            }
            PLAN_BY_DRIVER => Self::ByDriver { target },
            other => return Err(newer("a mount plan", &format!("the number {other}"))),
        })
    }
}

impl From<MountStep> for AbiStep {
    fn from(step: MountStep) -> Self {
        match step {
            MountStep::Overlay(overlay) => Self {
                kind: STEP_OVERLAY,
                target: overlay.target.as_path().into(),
                source: overlay.base.as_path().into(),
                options: texts(&overlay.options),
                lowers: paths(&overlay.lowers),
                upper: maybe_path(overlay.upper.as_ref()),
                work: maybe_path(overlay.work.as_ref()),
                label: maybe_text(overlay.label.as_ref()),
                ..Self::default()
            },
            MountStep::Filesystem {
                fstype,
                source,
                target,
                options,
                read_only,
            } => Self {
                kind: STEP_FILESYSTEM,
                flags: flags(&[(STEP_READ_ONLY, read_only)]),
                target: target.as_path().into(),
                fstype: fstype.into(),
                source: AbiPath {
                    bytes: source.into_bytes().into(),
                },
                options: texts(&options),
                ..Self::default()
            },
            MountStep::Bind {
                source,
                target,
                read_only,
            } => Self {
                kind: STEP_BIND,
                flags: flags(&[(STEP_READ_ONLY, read_only)]),
                target: target.as_path().into(),
                source: source.as_path().into(),
                ..Self::default()
            },
        }
    }
}

impl TryFrom<AbiStep> for MountStep {
    type Error = DriverError;

    fn try_from(step: AbiStep) -> Result<Self> {
        let known = match step.kind {
            STEP_OVERLAY => 0,
            STEP_FILESYSTEM | STEP_BIND => STEP_READ_ONLY,
            other => return Err(newer("a mount step", &format!("the number {other}"))),
        };
        known_flags("a mount step", step.flags, known)?;
        let read_only = step.flags & STEP_READ_ONLY != 0;
        let target = step.target.into();
        Ok(match step.kind {
            STEP_OVERLAY => Self::Overlay(OverlayMount {
                base: step.source.into(),
                lowers: path_bufs(step.lowers),
                upper: maybe_path_buf(step.upper),
                work: maybe_path_buf(step.work),
                target,
                options: strings(step.options),
                label: maybe_string(step.label),
            }),
            STEP_FILESYSTEM => Self::Filesystem {
                fstype: step.fstype.into(),
                source: RString::from_utf8(step.source.bytes)
                    .map_err(|_| newer("the source of a mount step", "bytes outside UTF-8"))?
                    .into(),
                target,
                options: strings(step.options),
                read_only,
            },
            _ => Self::Bind {
                source: step.source.into(),
                target,
                read_only,
            },
        })
    }
}

impl From<UnpackTarget> for AbiTarget {
    fn from(target: UnpackTarget) -> Self {
        Self {
            directory: target.directory.as_path().into(),
            whiteouts: whiteout_number(target.whiteouts),
            implied_directory_mode: target.implied_directory_mode,
            force_mask: target.force_mask.into(),
            flags: flags(&[
                (TARGET_APPLY_ROOT, target.apply_root),
                (TARGET_IMPLIED_UMASK, target.implied_directory_umask),
                (TARGET_IGNORE_CHOWN, target.ignore_chown_errors),
                (TARGET_FRESH, target.fresh),
            ]),
            extra: Extra::new(),
        }
    }
}

impl TryFrom<AbiTarget> for UnpackTarget {
    type Error = DriverError;

    fn try_from(target: AbiTarget) -> Result<Self> {
        known_flags("a place to unpack", target.flags, TARGET_KNOWN)?;
        Ok(Self {
            directory: target.directory.into(),
            whiteouts: whiteout_of(target.whiteouts)?,
            apply_root: target.flags & TARGET_APPLY_ROOT != 0,
            implied_directory_mode: target.implied_directory_mode,
            implied_directory_umask: target.flags & TARGET_IMPLIED_UMASK != 0,
            ignore_chown_errors: target.flags & TARGET_IGNORE_CHOWN != 0,
            force_mask: target.force_mask.into_option(),
            fresh: target.flags & TARGET_FRESH != 0,
        })
    }
}

impl From<DiffView> for AbiView {
    fn from(view: DiffView) -> Self {
        let mut this = Self {
            kind: VIEW_MOUNTED,
            tree: AbiPath::default(),
            lowers: RVec::new(),
            parent: ROption::RNone,
            whiteouts: 0,
            flags: 0,
            extra: Extra::new(),
        };
        match view {
            DiffView::Upper {
                upper,
                lowers,
                whiteouts,
            } => {
                this.kind = VIEW_UPPER;
                this.tree = upper.as_path().into();
                this.lowers = paths(&lowers);
                this.whiteouts = whiteout_number(whiteouts);
            }
            DiffView::Trees { tree, parent } => {
                this.kind = VIEW_TREES;
                this.tree = tree.as_path().into();
                this.parent = maybe_path(parent.as_ref());
            }
            DiffView::Mounted => {}
        }
        this
    }
}

impl TryFrom<AbiView> for DiffView {
    type Error = DriverError;

    fn try_from(view: AbiView) -> Result<Self> {
        known_flags("a view of changes", view.flags, 0)?;
        Ok(match view.kind {
            VIEW_UPPER => Self::Upper {
                upper: view.tree.into(),
                lowers: path_bufs(view.lowers),
                whiteouts: whiteout_of(view.whiteouts)?,
            },
            VIEW_TREES => Self::Trees {
                tree: view.tree.into(),
                parent: maybe_path_buf(view.parent),
            },
            VIEW_MOUNTED => Self::Mounted,
            other => return Err(newer("a view of changes", &format!("the number {other}"))),
        })
    }
}

impl From<NativeChange> for AbiChange {
    fn from(change: NativeChange) -> Self {
        Self {
            path: change.path.as_path().into(),
            kind: change_number(change.kind),
        }
    }
}

impl TryFrom<AbiChange> for NativeChange {
    type Error = DriverError;

    fn try_from(change: AbiChange) -> Result<Self> {
        Ok(Self {
            path: change.path.into(),
            kind: change_of(change.kind)?,
        })
    }
}

impl From<Staged> for AbiStaged {
    fn from(staged: Staged) -> Self {
        Self {
            token: staged.token.into(),
            target: staged.target.into(),
            extra: Extra::new(),
        }
    }
}

impl TryFrom<AbiStaged> for Staged {
    type Error = DriverError;

    fn try_from(staged: AbiStaged) -> Result<Self> {
        Ok(Self {
            token: staged.token.into(),
            target: staged.target.try_into()?,
        })
    }
}
