// SPDX-License-Identifier: Apache-2.0
//! Layers that start as copies of others.

use plywood::sdk::ChangeKind;

use super::create::{KINDS, everything};
use crate::{
    Target,
    case::{Failure, Outcome, demand, same},
    cases::asks,
    ops::{Chain, Op},
    target::new_layer,
};

/// A base, and a template on it that adds, changes, replaces and deletes.
fn prepare(target: &Target) -> Result<Chain, Failure> {
    let mut chain = Chain::new(target)?;
    chain.grow(target, "base", &everything())?;
    let ops = [
        Op::Write("new".into(), b"new".to_vec()),
        Op::Link("new-too".into(), "new".into()),
        Op::Append("mode1".into(), b"more".to_vec()),
        Op::Unlink("empty".into()),
        Op::RemoveTree("d".into()),
        Op::Mkdir("d".into()),
        Op::Write("d/fresh".into(), b"1".to_vec()),
        Op::Unlink("pipe".into()),
        Op::Mkdir("pipe".into()),
        Op::SetXattr("new".into(), "user.x".into(), b"y".to_vec()),
        Op::Chmod("".into(), 0o711),
    ];
    chain.grow(target, "template", &ops)?;
    Ok(chain)
}

fn copies(target: &Target) -> Result<[String; 2], Failure> {
    let ids = KINDS.map(|(name, _)| format!("{name}-copy"));
    for (id, (_, kind)) in ids.iter().zip(KINDS) {
        target.step(&format!("create {id}"))?;
        let mut new = new_layer(id, Some("base"));
        new.template = Some("template".to_owned());
        new.kind = kind;
        target.create_with(&new)?;
    }
    Ok(ids)
}

pub(super) fn equals(target: &mut Target) -> Outcome {
    let chain = prepare(target)?;
    let ids = copies(target)?;
    let expected = target.manifest("template")?.without_root_time();
    for id in &ids {
        let seen = target.manifest(id)?.without_root_time();
        asks::equal(&format!("{id} differs from its template"), &expected, &seen)?;
        target.step(&format!("change {id}"))?;
        target.within(id, |path| -> Outcome {
            Ok(crate::ops::apply(
                path,
                &[
                    Op::Append("new".into(), b"changed".to_vec()),
                    Op::Unlink("soft".into()),
                    Op::Write("own".into(), b"own".to_vec()),
                ],
            )?)
        })?;
    }
    chain.check_all(target)?;
    target.step("change and remove the template")?;
    let before = target.manifest(&ids[0])?;
    target.within("template", |path| {
        Ok::<_, Failure>(std::fs::write(path.join("new"), "the template's")?)
    })?;
    target.delete("template")?;
    asks::equal(
        "a copy changed with its template",
        &before,
        &target.manifest(&ids[0])?,
    )?;
    demand!(
        target.manifest("base")?.has("d/e/deep"),
        "the base lost content"
    );
    Ok(())
}

pub(super) fn changes(target: &mut Target) -> Outcome {
    prepare(target)?;
    let ids = copies(target)?;
    let listed = |from: &str, to: &str| -> Result<Vec<(String, ChangeKind)>, Failure> {
        let changes = target.changes_between(Some(from), to)?.into_iter();
        Ok(changes
            .map(|change| (change.path.display().to_string(), change.kind))
            .collect())
    };
    let expected = listed("base", "template")?;
    demand!(
        !expected.is_empty(),
        "the template has no changes against its base"
    );
    for id in &ids {
        let own = listed("template", id)?;
        demand!(
            own.is_empty(),
            "{id} has changes against its template: {own:?}"
        );
        same!(
            expected,
            listed("base", id)?,
            "changes of {id} against the base"
        );
    }
    Ok(())
}
