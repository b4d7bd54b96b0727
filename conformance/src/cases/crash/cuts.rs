// SPDX-License-Identifier: Apache-2.0
//! Runs a role of a case and cuts it short, one change later each time.

use std::os::unix::process::ExitStatusExt as _;

use crate::{
    Site,
    case::{Failure, Outcome, count_assertion, demand},
    sweep::{self, Action, Point, Run},
    wire::{self, Status},
};

/// An operation that takes more changes than this is not swept to its end but reported.
const MOST: u64 = 20_000;

/// A role that is to be cut short.
pub(super) struct Cuts<'a> {
    pub(super) site: &'a Site,
    pub(super) role: &'static str,
    pub(super) arguments: &'a [&'a str],
}

impl Cuts<'_> {
    /// Kills the role before each of its changes and lets it come to its end at last; `after` is
    /// called after every run, with the point of the kill.
    pub(super) fn each(&self, mut after: impl FnMut(Option<&Point>) -> Outcome) -> Outcome {
        for at in 1..MOST {
            let ended = self.killed_at(at, &mut after)?;
            if ended {
                demand!(at > 1, "`{}` changed nothing at all", self.role);
                return self.counted("kills", at - 1);
            }
        }
        Err(Failure::new(format!(
            "`{}` has not come to its end after {MOST} changes",
            self.role
        )))
    }

    /// As [`Self::each`], but kills only where `wanted` says so, of what an undisturbed run did.
    ///
    /// `after` is called after that run first.
    pub(super) fn some(
        &self,
        wanted: impl Fn(&Point) -> bool,
        mut after: impl FnMut(Option<&Point>) -> Outcome,
    ) -> Outcome {
        let (run, ended) = self.run(Action::Count)?;
        ended?;
        after(None)?;
        demand!(run.points > 0, "`{}` changed nothing at all", self.role);
        let mut kills = 0;
        for point in run.trace.iter().filter(|point| wanted(point)) {
            // With several threads the last of them may not be reached again.
            self.killed_at(point.number, &mut after)?;
            kills += 1;
        }
        self.counted("changes", run.points)?;
        self.counted("kills", kills)
    }

    fn killed_at(
        &self,
        at: u64,
        after: &mut impl FnMut(Option<&Point>) -> Outcome,
    ) -> Result<bool, Failure> {
        let (run, ended) = self.run(Action::KillAt(at))?;
        count_assertion();
        if let Some(point) = &run.cut {
            after(Some(point)).map_err(|failure| self.told(failure, "killed", point))?;
        } else {
            ended?;
            after(None)?;
        }
        Ok(run.cut.is_none())
    }

    /// Makes one call after the other fail for lack of space, with `action`; `after` gets what the
    /// role said.
    pub(super) fn failing(
        &self,
        action: fn(u64) -> Action<'static>,
        mut after: impl FnMut(Outcome) -> Outcome,
    ) -> Outcome {
        for at in 1..MOST {
            let (run, ended) = self.run(action(at))?;
            count_assertion();
            let Some(point) = &run.cut else {
                ended?;
                demand!(at > 1, "`{}` needed no space at all", self.role);
                self.counted("refusals", at - 1)?;
                return after(Ok(()));
            };
            after(ended).map_err(|failure| self.told(failure, "refused space", point))?;
        }
        Err(Failure::new(format!(
            "`{}` has not come to its end after {MOST} changes",
            self.role
        )))
    }

    /// For the report: how much was tried.
    fn counted(&self, what: &str, number: u64) -> Outcome {
        let number = f64::from(u32::try_from(number).unwrap_or(u32::MAX));
        Ok(wire::measure(&format!("{}: {what}", self.role), number)?)
    }

    /// One run, and what the role said at its end; a kill is no failure of it.
    pub(super) fn run(&self, action: Action<'_>) -> Result<(Run, Outcome), Failure> {
        let (command, messages) = self.site.role(self.role, self.arguments)?;
        let run = sweep::run(command, action, &messages)?;
        let said = wire::read(&messages)?;
        std::fs::remove_file(&messages).ok();
        let outcome = match (said.verdict, run.status) {
            (Some(verdict), _) if verdict.status == Status::Pass => Ok(()),
            (Some(verdict), _) => Err(verdict.failure()),
            (None, Some(status)) if status.signal() == Some(libc::SIGKILL) => Ok(()),
            (None, status) => Err(Failure::new(format!(
                "the process of `{}` ended without a word: {status:?}",
                self.role
            ))),
        };
        Ok((run, outcome))
    }

    /// Says of a failure when it came about.
    pub(super) fn told(&self, mut failure: Failure, how: &str, point: &Point) -> Failure {
        let root = format!("{}/", self.site.root.display());
        let point = point.to_string().replace(&root, "");
        failure.text = format!(
            "`{}`, {how} before its {point}: {}",
            self.role, failure.text
        );
        failure
    }
}
