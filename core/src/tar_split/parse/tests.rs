// SPDX-License-Identifier: Apache-2.0
use super::*;
use crate::archive::quote::quote;

fn all(record: &str) -> Result<Vec<String>, RecordError> {
    let mut entries = Entries::new(record.as_bytes());
    let mut seen = Vec::new();
    while let Some((entry, line)) = entries.next()? {
        seen.push(match entry {
            Entry::Segment(payload) => format!("{line} {}", String::from_utf8_lossy(&payload)),
            Entry::File(file) => {
                format!("{line} {} {} {:x}", quote(&file.name), file.size, file.crc)
            }
        });
    }
    Ok(seen)
}

#[test]
fn reads_every_form_of_a_line() {
    let record = concat!(
        "{\"type\":2,\"payload\":\"ZC8A\",\"position\":0}\n",
        "{\"type\":1,\"name\":\"d/\",\"payload\":null,\"position\":1}\n",
        "{\"type\":1,\"name\":\"d/f\",\"size\":6,\"payload\":\"YUw+7uLYEAA=\",\"position\":2}\n",
        "{\"type\":1,\"name\":\"\\u003c\\n\\u2028\",\"payload\":null,\"position\":3}\n",
        "{\"type\":1,\"name_raw\":\"/w==\",\"payload\":null,\"position\":4}\n",
        "\n",
        "{ \"position\" : 5, \"type\": 2, \"payload\": \"\", \"later\": [1] }",
    );
    assert_eq!(
        all(record).unwrap(),
        [
            "1 ZC8A",
            "2 \"d/\" 0 0",
            "3 \"d/f\" 6 614c3eeee2d81000",
            "4 \"<\\n\u{2028}\" 0 0",
            "5 \"\\xff\" 0 0",
            "6 ",
        ]
    );
}

#[test]
fn refuses_what_is_not_a_record() {
    let cases = [
        (
            "{\"type\":3,\"payload\":\"\",\"position\":0}",
            "unknown type 3",
        ),
        (
            "{\"type\":2,\"payload\":\"\",\"position\":1}",
            "has position 1",
        ),
        (
            "{\"type\":2,\"payload\":\"\",\"position\":-1}",
            "has position -1",
        ),
        (
            "{\"type\":1,\"payload\":null,\"position\":0}",
            "no usable name",
        ),
        (
            "{\"type\":1,\"name\":\"a\\u0000\",\"payload\":null,\"position\":0}",
            "no usable name",
        ),
        (
            "{\"type\":1,\"name\":\"a\",\"size\":-1,\"payload\":null,\"position\":0}",
            "has size -1",
        ),
        (
            "{\"type\":1,\"name\":\"a\",\"size\":1,\"payload\":null,\"position\":0}",
            "not 8 bytes",
        ),
        (
            "{\"type\":1,\"name\":\"a\",\"size\":1,\"payload\":\"AAAAAAAAAAAA\",\"position\":0}",
            "not 8 bytes",
        ),
        (
            "{\"type\":1,\"name\":\"a\",\"size\":1,\"payload\":\"!!!!!!!!!!!=\",\"position\":0}",
            "not base64",
        ),
        (
            "{\"type\":1,\"name\":\"a\nb\",\"payload\":null,\"position\":0}",
            "not the JSON",
        ),
        (
            "{\"type\":1,\"name\":\"a\",\"size\":99999999999999999999,\"payload\":null,\"position\":0}",
            "not the JSON",
        ),
        (
            "{\"type\":2,\"payload\":\"\",\"position\":0}x",
            "not the JSON",
        ),
        ("{\"type\":2,", "not the JSON"),
        ("null", "not the JSON"),
    ];
    for (record, text) in cases {
        let error = all(record).expect_err(record).to_string();
        assert!(error.contains(text), "{record}: {error}");
    }
}

#[test]
fn a_line_may_be_longer_than_the_buffer() {
    let payload = "QUJD".repeat(100_000);
    let record = format!(
        "{{\"type\":2,\"payload\":\"\",\"position\":0}}\n{{\"type\":2,\"payload\":\"{payload}\",\"position\":1}}\n"
    );
    assert_eq!(all(&record).unwrap()[1].len(), payload.len() + 2);
}
