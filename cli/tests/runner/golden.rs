// SPDX-License-Identifier: Apache-2.0
//! The same commands given to containers-storage and to us, on a store each: what they print, on
//! which stream, and with which exit code must be the same.

use super::support::{Answer, Normal, Place, can_run, same, tar_of, words};

/// `A`, `B`, ... stand for ids; `@NAME` for what is read from standard input.
struct Step {
    line: &'static str,
    input: &'static str,
}

const fn step(line: &'static str) -> Step {
    Step { line, input: "" }
}

const fn fed(line: &'static str, input: &'static str) -> Step {
    Step { line, input }
}

const SCRIPT: &[Step] = &[
    step("status"),
    step("status -j"),
    // An empty store.
    step("layers"),
    step("layers -t"),
    step("images"),
    step("images -j"),
    step("containers"),
    step("containers -j"),
    step("exists nothing"),
    step("exists -j nothing"),
    step("exists -q nothing"),
    step("layer nothing"),
    step("layer -j nothing"),
    step("image nothing"),
    step("image -j nothing"),
    step("container nothing"),
    step("container -j nothing"),
    step("metadata nothing"),
    step("metadata -j nothing"),
    step("get-names nothing"),
    step("add-names -n x nothing"),
    step("set-names -n x nothing"),
    step("set-metadata -m x nothing"),
    step("set-metadata nothing"),
    step("delete nothing"),
    step("delete -j nothing"),
    step("delete-layer nothing"),
    step("delete-image nothing"),
    step("delete-image -j nothing"),
    step("delete-container nothing"),
    step("unmount nothing"),
    step("mounted nothing"),
    step("mounted -j nothing"),
    step("changes nothing"),
    step("diffsize nothing"),
    step("list-image-data nothing"),
    step("list-container-data nothing"),
    step("list-layer-data nothing"),
    step("get-image-data nothing k"),
    step("get-container-data nothing k"),
    step("get-layer-data nothing k"),
    step("get-image-data-size nothing k"),
    step("get-image-data-digest nothing k"),
    step("get-container-dir nothing"),
    step("get-container-run-dir nothing"),
    step("layer-parent-owners nothing"),
    step("container-parent-owners nothing"),
    step("create-container -n c nothing"),
    step("create-image -n i nothing"),
    step("create-layer -n l nothing"),
    // Layers.
    fed("import-layer -n base -n other -i A", "base"),
    fed("import-layer -j -n child -i B A", "child"),
    fed("import-layer -i A", "base"),
    fed("import-layer -n base", "base"),
    step("create-layer -i A"),
    step("create-layer -n base"),
    step("create-layer -n empty -i C B"),
    step("create-layer -j -i D C"),
    step("layer A"),
    step("layer base"),
    step("layer -j A"),
    step("layer A nothing B"),
    step("layer AAAAAAAA"),
    step("layers"),
    step("layers -j"),
    step("layers -t"),
    step("changes A"),
    step("changes B"),
    step("changes -j B"),
    step("changes C"),
    step("changes -j C"),
    step("changes B A"),
    step("changes C A"),
    step("diffsize A"),
    step("diffsize B"),
    step("diffsize C"),
    step("diffsize B A"),
    step("diff -x A"),
    step("diff -b A"),
    step("layer-parent-owners A"),
    step("layer-parent-owners -j A nothing"),
    fed("set-layer-data A some-key", "text"),
    fed("set-layer-data A empty", ""),
    step("list-layer-data A"),
    step("list-layer-data -j A"),
    step("list-layer-data -j B"),
    step("get-layer-data A some-key"),
    step("get-layer-data A nothing"),
    fed("applydiff D", "child"),
    step("layer -j D"),
    fed("applydiff nothing", "child"),
    // Images.
    step("create-image -n first:1 -n first:2 -i E -m text B"),
    step("create-image -n first:1 B"),
    step("create-image -i E B"),
    step("create-image -j -i F"),
    step("create-image -d sha256:abc -i 0"),
    step("create-image -n q nothing"),
    step("image first:1"),
    step("image -j E"),
    step("image EEEEEE F nothing"),
    step("images"),
    step("images -q"),
    step("images -j"),
    fed("set-image-data E manifest", "text"),
    fed("set-image-data E other-key", "base"),
    step("list-image-data E"),
    step("list-image-data -j E"),
    step("list-image-data -j F"),
    step("get-image-data E manifest"),
    step("get-image-data E nothing"),
    step("get-image-data-size E manifest"),
    step("get-image-data-size E nothing"),
    step("get-image-data-digest E other-key"),
    step("get-image-data-digest E nothing"),
    step(
        "images-by-digest sha256:982d9e3eb996f559e633f4d194def3761d909f5a3b647d1a851fead67c32c9d1",
    ),
    step(
        "images-by-digest -q sha256:982d9e3eb996f559e633f4d194def3761d909f5a3b647d1a851fead67c32c9d1",
    ),
    step(
        "images-by-digest -j sha256:0000000000000000000000000000000000000000000000000000000000000000",
    ),
    step("image E"),
    // Containers.
    step("create-container -j -n ctr -i 1 -m meta first:1"),
    step("create-container -n ctr first:1"),
    step("create-container -i 1 first:1"),
    step("container ctr"),
    step("container -j 1"),
    step("containers"),
    step("containers -j"),
    fed("set-container-data ctr a/b", "text"),
    step("list-container-data ctr"),
    step("list-container-data -j ctr"),
    step("get-container-data ctr a/b"),
    step("get-container-data ctr nothing"),
    step("get-container-data-size ctr a/b"),
    step("get-container-data-size ctr nothing"),
    step("get-container-data-digest ctr a/b"),
    step("get-container-data-digest ctr nothing"),
    step("get-container-dir ctr"),
    step("get-container-run-dir ctr"),
    step("container-parent-owners ctr"),
    step("container-parent-owners -j ctr nothing"),
    step("container 1"),
    step("layers"),
    step("layers -t"),
    // Names and metadata of all kinds.
    step("get-names base"),
    step("get-names -j E"),
    step("get-names -j F"),
    step("set-names -n one -n two E"),
    step("set-names -j -n three E"),
    step("set-names -j -n base C"),
    step("set-names -j F"),
    step("image -j E"),
    step("metadata base"),
    step("metadata E"),
    step("metadata -q E ctr nothing"),
    step("metadata -j ctr"),
    step("set-metadata -m new E"),
    step("set-metadata -m layer A"),
    step("metadata E A"),
    step("exists A"),
    step("exists -l A"),
    step("exists -i A"),
    step("exists -c ctr"),
    step("exists -q -c E"),
    // Mounts.
    step("mount ctr"),
    step("mount -j ctr"),
    step("mounted ctr"),
    step("mounted -j ctr"),
    step("layers -t"),
    step("shutdown"),
    step("unmount ctr"),
    step("unmount -j ctr"),
    step("mounted ctr"),
    step("mount A"),
    step("mounted A"),
    step("umount -f A"),
    step("mount -r three"),
    step("umount three"),
    step("copy nothing:/x /tmp"),
    // Deleting, with what stands in the way.
    step("delete-layer A"),
    step("delete-layer -j B"),
    step("delete-image three"),
    step("delete-image -j three"),
    step("delete-layer E"),
    step("delete-image A"),
    step("delete-container A"),
    step("delete-container ctr"),
    step("delete-container -j ctr"),
    step("delete-image -t F"),
    step("delete-layer D"),
    step("delete D"),
    step("delete -j C"),
    step("delete-image -j -t three"),
    step("delete-image three"),
    step("image three"),
    fed("import-layer -n again -i A", "base"),
    step("layers"),
    step("shutdown -j"),
    step("wipe -j"),
    step("wipe"),
    step("images"),
    step("containers -j"),
    step("shutdown"),
];

fn id(letter: char) -> String {
    letter.to_ascii_lowercase().to_string().repeat(64)
}

/// Puts ids in the place of lone capitals and digits, and of a run of one capital a prefix.
fn expand(line: &str) -> Vec<String> {
    words(line)
        .into_iter()
        .map(|word| {
            let (head, tail) = word.split_once(':').unwrap_or((word, ""));
            let mut letters = head.chars();
            let first = letters.next().unwrap_or(' ');
            let is_id = first.is_ascii_uppercase() || first.is_ascii_digit();
            let expanded = if is_id && head.len() == 1 {
                id(first)
            } else if is_id && first.is_ascii_uppercase() && letters.all(|c| c == first) {
                head.to_lowercase()
            } else {
                head.to_owned()
            };
            if word.contains(':') {
                format!("{expanded}:{tail}")
            } else {
                expanded
            }
        })
        .collect()
}

fn input(name: &str) -> Vec<u8> {
    match name {
        "base" => tar_of(&[
            ("etc/", None),
            ("etc/passwd", Some(b"root:x:0:0:::\n")),
            ("etc/we\tird", Some(b"1")),
            ("gone", Some(b"2")),
        ]),
        "child" => tar_of(&[
            ("etc/", None),
            ("etc/new", Some(b"new\n")),
            (".wh.gone", Some(b"")),
        ]),
        text => text.as_bytes().to_vec(),
    }
}

/// What the older oracle prints differently from the version that we follow.
fn adapt(step: &str, driver: &str, ours: &mut Answer, theirs: &mut Answer) {
    match step {
        "layers -j" if theirs.out == "[]\n" => "null\n".clone_into(&mut theirs.out),
        // Newer versions say more about the driver.
        "status" => {
            let kept = |line: &&str| {
                !line.starts_with("Supports volatile") && !line.starts_with("Supports shifting")
            };
            let lines: Vec<&str> = ours.err.lines().filter(kept).collect();
            ours.err = lines.join("\n") + "\n";
        }
        "status -j" => {
            for pair in [
                ",[\"Supports volatile\",\"true\"]",
                ",[\"Supports shifting\",\"true\"]",
            ] {
                ours.out = ours.out.replace(pair, "");
            }
        }
        // Where it compares trees, a directory's changes come in the order of a hash table.
        _ if step.starts_with("changes") && driver == "vfs" => {
            for answer in [ours, theirs] {
                let mut parts: Vec<&str> = answer.out.split_inclusive(['\n', '}']).collect();
                for part in &mut parts {
                    *part = part.trim_start_matches(['[', ',']);
                }
                parts.sort_unstable();
                answer.out = parts.concat();
            }
        }
        // It refuses what newer versions accept.
        "mount -r three" if driver == "vfs" => {
            assert_eq!(ours.code, 0, "{ours:?}");
            *ours = theirs.clone();
        }
        _ => {}
    }
}

fn compare(driver: &'static str) {
    if !can_run(&["containers-storage"]) {
        return;
    }
    let places = [Place::new(driver), Place::new(driver)];
    // Under our own name standard output and exit codes are the same.
    let own = Place::new(driver);
    let mut own_normal = (Normal::default(), Normal::default());
    let mut normals = [Normal::default(), Normal::default()];
    let mut wrong = Vec::new();
    for step in SCRIPT {
        let line = expand(step.line);
        let args: Vec<&str> = line.iter().map(String::as_str).collect();
        let input = input(step.input);
        let mut ours = places[0].drop_in(&args, &input);
        let as_own = own.own(&args, &input);
        let shown = [
            (&own, &as_own, &mut own_normal.0),
            (&places[0], &ours, &mut own_normal.1),
        ]
        .map(|(place, answer, normal)| (answer.code, normal.text(place, &answer.out)));
        if shown[0] != shown[1] {
            wrong.push(format!(
                "{}\n  plywood: {:?}\n  drop-in: {:?}",
                step.line, shown[0], shown[1]
            ));
        }
        let mut theirs = places[1].theirs(&args, &input);
        adapt(step.line, driver, &mut ours, &mut theirs);
        let texts =
            [&ours, &theirs].map(|answer| (answer.code, answer.out.clone(), answer.err.clone()));
        let mut shown = Vec::new();
        for ((code, out, err), (normal, place)) in texts.iter().zip(normals.iter_mut().zip(&places))
        {
            let out = normal.text(place, out);
            let err = normal.text(place, err);
            shown.push(format!("exit {code}\n{out}\n2> {err}"));
        }
        if shown[0] != shown[1] {
            wrong.push(format!(
                "{}\n  ours:   {}\n  theirs: {}",
                step.line, shown[0], shown[1]
            ));
        }
    }
    assert!(
        wrong.is_empty(),
        "{} of {} differ:\n{}",
        wrong.len(),
        SCRIPT.len(),
        wrong.join("\n")
    );
}

#[test]
fn interop_golden_vfs() {
    compare("vfs");
}

#[test]
fn interop_golden_overlay() {
    compare("overlay");
}

/// Each tool goes on with the store that the other one made.
#[test]
fn interop_one_store_two_tools() {
    if !can_run(&["containers-storage"]) {
        return;
    }
    for driver in ["vfs", "overlay"] {
        let place = Place::new(driver);
        place
            .drop_in(&["import-layer", "-n", "base"], &input("base"))
            .ok();
        place
            .theirs(&["import-layer", "-n", "child", "base"], &input("child"))
            .ok();
        place
            .drop_in(&["create-image", "-n", "img", "child"], b"")
            .ok();
        place
            .theirs(&["create-container", "-n", "ctr", "img"], b"")
            .ok();
        for args in [
            &["layers"][..],
            &["layers", "-j"],
            &["layers", "-t"],
            &["images", "-j"],
            &["containers", "-j"],
            &["image", "img"],
            &["container", "ctr"],
            &["changes", "child"],
        ] {
            let (ours, theirs) = (place.drop_in(args, b""), place.theirs(args, b""));
            same(
                &format!("{driver} {args:?}"),
                &format!("{ours:#?}"),
                &format!("{theirs:#?}"),
            );
        }
        // What one exports is to the byte what the other one exports.
        for layer in ["base", "child"] {
            let (a, b) = (place.path("a.tar"), place.path("b.tar"));
            let to = |path: &std::path::Path| path.to_str().unwrap().to_owned();
            place.drop_in(&["diff", "-f", &to(&a), layer], b"").ok();
            place.theirs(&["diff", "-f", &to(&b), layer], b"").ok();
            assert_eq!(
                super::support::read(&a),
                super::support::read(&b),
                "{driver} {layer}"
            );
            assert_eq!(super::support::read(&a), input(layer), "{driver} {layer}");
        }
        place.theirs(&["delete-container", "ctr"], b"").ok();
        place.drop_in(&["delete-image", "img"], b"").ok();
        assert_eq!(
            place
                .theirs(&["layers", "-j"], b"")
                .ok()
                .line()
                .matches("\"id\"")
                .count(),
            0
        );
    }
}
