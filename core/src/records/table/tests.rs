// SPDX-License-Identifier: Apache-2.0
use serde::Serialize;

use super::*;
use crate::records::{Flags, Unknown};

#[derive(Clone, Debug, Serialize)]
struct Thing {
    id: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    names: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    metadata: Option<String>,
    #[serde(skip_serializing_if = "Flags::is_empty")]
    flags: Flags,
    #[serde(flatten)]
    unknown: Unknown,
}

impl Thing {
    fn new(id: &str, names: &[&str]) -> Self {
        Self {
            id: id.to_owned(),
            names: names.iter().map(|&name| name.to_owned()).collect(),
            metadata: None,
            flags: Flags::default(),
            unknown: Unknown::default(),
        }
    }
}

impl Record for Thing {
    const WHAT: &'static str = "thing";
    fn read(mut members: Members<'_>) -> Result<Self, MemberError> {
        Ok(Self {
            id: members.take_or_default("id")?,
            names: members.take_or_default("names")?,
            metadata: members.take_text("metadata")?,
            flags: members.take_or_default("flags")?,
            unknown: members.rest(),
        })
    }
    fn id(&self) -> &str {
        &self.id
    }
    fn names(&self) -> &[String] {
        &self.names
    }
    fn names_mut(&mut self) -> &mut Vec<String> {
        &mut self.names
    }
}

struct Dir(tempfile::TempDir);

impl Dir {
    fn with(content: &[u8]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("things.json"), content).unwrap();
        Self(dir)
    }
    fn file(&self) -> PathBuf {
        self.0.path().join("things.json")
    }
    fn load(&self) -> Result<Table<Thing>> {
        Table::load(&[(self.file(), Durability::Full)])
    }
    fn text(&self) -> String {
        fs::read_to_string(self.file()).unwrap()
    }
}

#[test]
fn what_is_not_known_survives_a_rewrite_with_its_text() {
    let dir = Dir::with(
        br#"[{"ID":"a","Names":["n"],"size":123456789012345678901234567890,"x":{"y": [1.10]},"flags":{"big":1e400,"a":null}}]"#,
    );
    let mut table = dir.load().unwrap();
    table.edit("a").unwrap().metadata = Some("<&>\u{2028}".to_owned());
    table.save().unwrap();
    assert_eq!(
        dir.text(),
        r#"[{"id":"a","names":["n"],"metadata":"\u003c\u0026\u003e\u2028","flags":{"a":null,"big":1e400},"size":123456789012345678901234567890,"x":{"y": [1.10]}}]"#
    );
}

#[test]
fn empty_forms_are_no_records_and_an_emptied_table_is_brackets() {
    for content in ["null", "[]", " [ ] "] {
        assert_eq!(
            Dir::with(content.as_bytes()).load().unwrap().len(),
            0,
            "{content:?}"
        );
    }
    let dir = Dir::with(br#"[{"id":"a"}]"#);
    let mut table = dir.load().unwrap();
    table.remove("a").unwrap();
    table.save().unwrap();
    assert_eq!(dir.text(), "[]");
}

#[test]
fn text_that_go_would_mend_is_mended_the_same_way() {
    let dir = Dir::with(b"[{\"id\":\"a\",\"metadata\":\"\xff\xfe \\ud800 \\\\ud800 \\ud83d\\ude00\",\"names\":null}]");
    let table = dir.load().unwrap();
    assert_eq!(
        table.get("a").unwrap().metadata.as_deref(),
        Some("\u{fffd}\u{fffd} \u{fffd} \\ud800 \u{1f600}")
    );
}

#[test]
fn damage_is_placed_and_the_file_stays() {
    for (content, place) in [
        ("[{\"id\":\"a\"}", "line 1, column 11"),
        (
            "[\n{\"id\":\"a\"},\n{\"names\":7}]",
            "line 3, column 10: member `names` of record 2",
        ),
        ("{}", "line 1, column 2"),
        ("[1]", "line 1, column 2"),
        ("[{\"id\":\"a\",\"flags\":3}]", "member `flags` of record 1"),
    ] {
        let dir = Dir::with(content.as_bytes());
        let error = dir.load().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt);
        assert!(error.to_string().contains(place), "{content}: {error}");
        assert!(error.remedy().is_some());
        assert_eq!(dir.text(), content);
    }
}

#[test]
fn repeated_names_go_to_the_later_record_and_repeated_ids_to_the_first() {
    let dir = Dir::with(
        br#"[{"id":"a","names":["x","y"]},{"id":"b","names":["x"]},{"id":"a","names":["z"]}]"#,
    );
    let mut table = dir.load().unwrap();
    assert!(table.is_changed());
    table.save().unwrap();
    assert_eq!(
        dir.text(),
        r#"[{"id":"a","names":["y"]},{"id":"b","names":["x"]}]"#
    );
}

#[test]
fn an_empty_file_is_damage_unless_it_is_volatile() {
    let dir = Dir::with(b"");
    let error = dir.load().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    assert!(error.to_string().contains("is empty"), "{error}");
    assert!(error.remedy().is_some());
    let volatile = (dir.file(), Durability::None);
    assert_eq!(Table::<Thing>::load(&[volatile]).unwrap().len(), 0);
}

#[test]
fn search_is_by_id_then_name_then_unique_prefix() {
    let dir = Dir::with(b"[]");
    let mut table = dir.load().unwrap();
    for (id, name) in [("abc1", "one"), ("abc2", "abd"), ("abd9", "two")] {
        table.insert(Thing::new(id, &[name]), 0).unwrap();
    }
    let found = |what: &str| match table.lookup(what) {
        Lookup::Found(thing) => thing.id.clone(),
        Lookup::Ambiguous(ids) => ids.join(","),
        Lookup::Missing => "-".to_owned(),
    };
    for (what, id) in [
        ("abc1", "abc1"),
        ("one", "abc1"),
        ("abd", "abc2"),
        ("abd9", "abd9"),
        ("abc", "abc1,abc2"),
        ("ab", "abc1,abc2,abd9"),
        ("", "-"),
        ("b", "-"),
    ] {
        assert_eq!(found(what), id, "{what:?}");
    }
}

#[test]
fn ids_and_names_are_unique_and_names_can_be_taken_over() {
    let dir = Dir::with(br#"[{"id":"a","names":["x","y"]}]"#);
    let mut table = dir.load().unwrap();
    assert_eq!(table.insert(Thing::new("a", &[]), 0), Err(Taken::Id));
    assert_eq!(
        table.insert(Thing::new("b", &["n", "y"]), 0),
        Err(Taken::Name {
            name: "y".to_owned(),
            owner: "a".to_owned()
        })
    );
    table.insert(Thing::new("b", &["n"]), 0).unwrap();
    table.set_names("b", vec!["y".to_owned()]).unwrap();
    table.save().unwrap();
    assert_eq!(
        dir.text(),
        r#"[{"id":"a","names":["x"]},{"id":"b","names":["y"]}]"#
    );
    assert!(table.by_name("n").is_none());
    assert_eq!(table.by_name("y").unwrap().id, "b");
}
