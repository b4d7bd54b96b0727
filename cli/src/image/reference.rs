// SPDX-License-Identifier: Apache-2.0
//! Image names: `[DOMAIN/]PATH[:TAG][@DIGEST]`, made complete as podman does.

use super::ImageError;

/// The name that podman would store for `name`.
///
/// A name without a registry gets `localhost/`, one on docker.io with a single component gets
/// `library/`, one without tag and digest gets `:latest`.
pub(crate) fn normalize(name: &str) -> Result<String, ImageError> {
    let refuse = |why: &'static str| ImageError::BadName {
        name: name.to_owned(),
        why,
    };
    let (rest, digest) = match name.split_once('@') {
        Some((rest, digest)) => {
            digest
                .parse::<plywood::Digest>()
                .map_err(|_| refuse("its digest is malformed"))?;
            (rest, Some(digest))
        }
        None => (name, None),
    };
    let after_slash = rest.rfind('/').map_or(0, |at| at + 1);
    let (path, tag) = match rest[after_slash..].find(':') {
        Some(at) => (
            &rest[..after_slash + at],
            Some(&rest[after_slash + at + 1..]),
        ),
        None => (rest, None),
    };
    if tag.is_some_and(|tag| !is_tag(tag)) {
        return Err(refuse("its tag is malformed"));
    }
    if path.len() == 64 && path.bytes().all(|b| b.is_ascii_hexdigit()) {
        return Err(refuse("64 hex digits would be an image id"));
    }
    let path = complete(path);
    let (domain, remainder) = path.split_once('/').unwrap_or(("", &path));
    if !is_domain(domain) {
        return Err(refuse("its registry is malformed"));
    }
    if remainder.is_empty() || !remainder.split('/').all(is_component) {
        return Err(refuse(
            "its path may have lower-case letters, digits and single separators only",
        ));
    }
    // A digest says more than a tag; names with both are not stored.
    Ok(match (tag, digest) {
        (_, Some(digest)) => format!("{path}@{digest}"),
        (Some(tag), None) => format!("{path}:{tag}"),
        (None, None) => format!("{path}:latest"),
    })
}

/// The names under which a stored image may be meant by `name`, in order of search.
pub(crate) fn candidates(name: &str) -> Vec<String> {
    let mut names = vec![name.to_owned()];
    if let Ok(full) = normalize(name) {
        if let Some(short) = full.strip_prefix("localhost/")
            && !name.starts_with("localhost/")
        {
            let hub = if short.contains('/') {
                format!("docker.io/{short}")
            } else {
                format!("docker.io/library/{short}")
            };
            names.extend([full, hub]);
        } else {
            names.push(full);
        }
    }
    names
}

/// Whether `text` can be a tag.
pub(crate) fn is_tag(text: &str) -> bool {
    let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    (1..=128).contains(&text.len())
        && text.bytes().next().is_some_and(word)
        && text.bytes().all(|b| word(b) || b == b'.' || b == b'-')
}

fn complete(path: &str) -> String {
    let (first, rest) = path.split_once('/').unwrap_or(("", path));
    match first {
        "docker.io" | "index.docker.io" if rest.contains('/') => format!("docker.io/{rest}"),
        "docker.io" | "index.docker.io" => format!("docker.io/library/{rest}"),
        "localhost" => path.to_owned(),
        _ if first.contains(['.', ':']) => path.to_owned(),
        _ => format!("localhost/{path}"),
    }
}

fn is_domain(domain: &str) -> bool {
    let (host, port) = match domain.rsplit_once(':') {
        Some((host, port)) => (host, Some(port)),
        None => (domain, None),
    };
    port.is_none_or(|port| !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit()))
        && host.split('.').all(|label| {
            !label.is_empty()
                && !label.starts_with('-')
                && !label.ends_with('-')
                && label
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || b == b'-')
        })
}

/// `[a-z0-9]+` parts joined by one `.`, one or two `_`, or any number of `-`.
fn is_component(component: &str) -> bool {
    let alnum = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let bytes = component.as_bytes();
    let [first, .., last] = bytes else {
        return bytes.first().copied().is_some_and(alnum);
    };
    if !alnum(*first) || !alnum(*last) {
        return false;
    }
    bytes.split(|b| alnum(*b)).all(|separator| {
        matches!(separator, b"" | b"." | b"_" | b"__") || separator.iter().all(|b| *b == b'-')
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_become_complete() {
        let digest = plywood::Digest::sha256(b"");
        for (given, full) in [
            ("busybox", "localhost/busybox:latest"),
            ("busybox:1", "localhost/busybox:1"),
            ("foo/bar", "localhost/foo/bar:latest"),
            ("localhost/x", "localhost/x:latest"),
            ("host:5000/y", "host:5000/y:latest"),
            ("docker.io/alpine:3", "docker.io/library/alpine:3"),
            ("docker.io/a/b__c", "docker.io/a/b__c:latest"),
            ("example.org/z-.a:v", ""),
            ("example.org/Z", ""),
            ("a:", ""),
            ("a:b:c", ""),
            ("", ""),
            ("a//b", ""),
            ("../x", ""),
            ("-x.y/z", ""),
        ] {
            assert_eq!(normalize(given).unwrap_or_default(), full, "{given}");
        }
        assert_eq!(
            normalize(&format!("q.io/a:t@{digest}")).unwrap(),
            format!("q.io/a@{digest}")
        );
        assert!(normalize(&"a".repeat(64)).is_err());
    }

    #[test]
    fn short_names_are_searched_on_the_hub_too() {
        assert_eq!(
            candidates("x"),
            ["x", "localhost/x:latest", "docker.io/library/x:latest"]
        );
    }
}
