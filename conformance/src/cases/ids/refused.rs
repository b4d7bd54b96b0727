// SPDX-License-Identifier: Apache-2.0
//! Ids that are refused before anything is done with them.

use std::fs;

use plywood::{
    ErrorKind,
    layers::{PutOptions, UnmountOptions},
    sdk::{LayerId, MountRequest},
};

use crate::{
    Target,
    case::{Outcome, demand},
    cases::{
        asks::{self, Traces},
        lifecycle::sample,
    },
    manifest::{self, Manifest},
    target::new_layer,
};

/// The store with a layer in it, and files around it, which a refused id must not touch.
struct Surroundings {
    traces: Traces,
    layer: Manifest,
    around: Manifest,
}

impl Surroundings {
    fn prepare(target: &Target) -> Result<Self, crate::case::Failure> {
        target.put("bystander", None, &sample())?;
        let layer = target.manifest("bystander")?;
        let around = target.scratch("around")?;
        for name in ["file", "x", "a", "b"] {
            fs::write(around.join(name), name)?;
        }
        fs::create_dir_all(target.root.join("graph/x"))?;
        fs::write(target.root.join("graph/x/diff"), "a file of somebody else")?;
        Ok(Self {
            traces: Traces::of(target)?,
            layer,
            around: manifest::of(&around)?,
        })
    }

    fn untouched(&self, target: &Target, id: &str) -> Outcome {
        self.traces
            .unchanged(target, &format!("the refused id {id:?}"))?;
        asks::equal(
            &format!("the refused id {id:?} changed files outside the store"),
            &self.around,
            &manifest::of(&target.root.join("around"))?,
        )?;
        asks::equal(
            &format!("the refused id {id:?} changed another layer"),
            &self.layer,
            &target.manifest("bystander")?,
        )
    }
}

/// It must be refused as an argument, before the system is asked.
fn refused_as_id<T>(id: &str, what: &str, answer: plywood::Result<T>) -> Outcome {
    let text = answer.as_ref().err().map(ToString::to_string);
    asks::refused(
        &format!("{what} with the id {id:?}"),
        answer,
        &[ErrorKind::InvalidArgument],
    )?;
    let text = text.unwrap_or_default();
    demand!(
        !text.contains("os error"),
        "the id {id:?} reached the system before it was refused: {text}"
    );
    demand!(
        !text.chars().any(char::is_control) || id.chars().any(char::is_control),
        "the message about {id:?} has control characters: {text:?}"
    );
    Ok(())
}

fn all_refused(target: &Target, ids: &[&str]) -> Outcome {
    let surroundings = Surroundings::prepare(target)?;
    for id in ids {
        target.step(&format!("{id:?}"))?;
        demand!(
            LayerId::new(*id).is_err(),
            "{id:?} is a layer id for the SDK"
        );
        refused_as_id(id, "creating a layer", target.create(id, None))?;
        refused_as_id(id, "a child", target.create(id, Some("bystander")))?;
        let put = target.put(id, Some("bystander"), &sample());
        refused_as_id(id, "putting a layer", put)?;
        surroundings.untouched(target, id)?;
    }
    Ok(())
}

pub(super) fn too_long(target: &mut Target) -> Outcome {
    let texts = [129, 130, 255, 256, 300, 4096, 100_000].map(|length| "a".repeat(length));
    all_refused(target, &texts.each_ref().map(String::as_str))
}

pub(super) fn empty(target: &mut Target) -> Outcome {
    all_refused(target, &[""])
}

pub(super) fn dotdot(target: &mut Target) -> Outcome {
    let ids = [
        "..",
        "../x",
        "../../x",
        "a/../b",
        "../around/file",
        "..x",
        "../bystander",
        "...",
        "x/..",
    ];
    all_refused(target, &ids)
}

pub(super) fn slash(target: &mut Target) -> Outcome {
    all_refused(
        target,
        &[
            "a/b",
            "/a",
            "a/",
            "/",
            "//",
            "bystander/",
            "x/diff",
            "bystander/diff",
        ],
    )
}

pub(super) fn dot(target: &mut Target) -> Outcome {
    all_refused(
        target,
        &[
            ".",
            "./",
            "./bystander",
            ".hidden",
            "bystander/.",
            "trailing.",
        ],
    )
}

pub(super) fn control_characters(target: &mut Target) -> Outcome {
    let mut texts: Vec<String> = (0..0x20_u8)
        .chain([0x7f])
        .map(|byte| format!("a{}b", char::from(byte)))
        .collect();
    texts.extend(
        [
            "\0",
            "a\0",
            "\n",
            "a\n",
            "\ta",
            "\u{1b}[31m",
            "a\u{85}b",
            "bystander\n",
            " ",
            "a b",
        ]
        .map(str::to_owned),
    );
    let ids: Vec<&str> = texts.iter().map(String::as_str).collect();
    all_refused(target, &ids)
}

pub(super) fn separators(target: &mut Target) -> Outcome {
    let ids = [
        "a:b",
        "a,b",
        "a=b",
        "a\\b",
        ":",
        ",",
        "=",
        "\\",
        "upper=x",
        "a,lowerdir=b",
        "a@b",
        "a#b",
        "a%2fb",
        "a*",
        "?",
        "[a]",
        "{a}",
        "$a",
        "`a`",
        "a;b",
        "a|b",
        "a&b",
        "'a'",
        "\"a\"",
        "~",
        "a+b",
        "-a",
        "--help",
        "!a",
    ];
    all_refused(target, &ids)
}

pub(super) fn beyond_ascii(target: &mut Target) -> Outcome {
    let lossy = String::from_utf8_lossy(b"a\xffb").into_owned();
    let ids = [
        // The same letter composed and decomposed, and what decoding makes of invalid bytes.
        "\u{e9}",
        "e\u{301}",
        &lossy,
        // Letters that look like others, or like none.
        "\u{430}",
        "\u{ff0f}",
        "\u{2024}\u{2024}",
        "a\u{200b}b",
        "\u{202e}abc",
        "\u{feff}a",
        "\u{1f600}",
        "\u{661}",
        "\u{10ffff}",
    ];
    all_refused(target, &ids)
}

/// What is no id is none wherever a layer is named: nothing is found, made or removed.
pub(super) fn every_argument(target: &mut Target) -> Outcome {
    let surroundings = Surroundings::prepare(target)?;
    let long = "a".repeat(129);
    let ids = [
        "", ".", "..", "../x", "a/b", "/", "x/", "a\0b", "a\n", "a:b", "a,b", "\u{e9}", "-a", ".a",
        "a.", &long,
    ];
    // An operation on a layer may answer that it does not know it.
    let kinds = [
        ErrorKind::InvalidArgument,
        ErrorKind::LayerUnknown,
        ErrorKind::ParentUnknown,
    ];
    for id in ids {
        target.step(&format!("{id:?}"))?;
        let said = |what: &str| format!("{what} {id:?}");
        asks::refused(
            &said("a layer on the parent"),
            target.create("new", Some(id)),
            &kinds,
        )?;
        let put = target.put("new", Some(id), &sample());
        asks::refused(&said("putting a layer on the parent"), put, &kinds)?;
        let mut new = new_layer("new", None);
        new.template = Some(id.to_owned());
        asks::refused(
            &said("a copy of the template"),
            target.create_with(&new),
            &kinds,
        )?;
        let put = target.put_with(&new, &sample()[..], PutOptions::default());
        asks::refused(&said("putting a copy of the template"), put, &kinds)?;
        let mount = target.mount(id, &MountRequest::default());
        asks::refused(&said("mounting"), mount, &kinds)?;
        let unmount = target.unmount_with(id, UnmountOptions::default());
        asks::refused(&said("unmounting"), unmount, &kinds)?;
        asks::refused(&said("deleting"), target.delete(id), &kinds)?;
        asks::refused(
            &said("applying to"),
            target.apply(id, &sample()[..]),
            &kinds,
        )?;
        for (from, to) in [(Some(id), "bystander"), (None, id), (Some("bystander"), id)] {
            let what = said(&format!("between {from:?} and {to:?}, with"));
            let changes = target.changes_between(from, to);
            asks::refused(&format!("changes {what}"), changes, &kinds)?;
            asks::refused(
                &format!("a diff {what}"),
                target.diff_between(from, to),
                &kinds,
            )?;
            asks::refused(
                &format!("the size of a diff {what}"),
                target.diff_size(from, to),
                &kinds,
            )?;
        }
        surroundings.untouched(target, id)?;
    }
    Ok(())
}
