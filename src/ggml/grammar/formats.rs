//! Formats of texts, as patterns: what is written by one fits the format, though not all that fits may be written.

/// What is known of a format.
pub(super) enum Format {
    Pattern(String),
    /// The standard's, and no pattern says it.
    Unsayable,
    /// Not the standard's.
    Unknown,
}

/// Days of months, those of leap years among them.
const DATE: &str = r"(?:\d{4}-(?:(?:0[13578]|1[02])-(?:0[1-9]|[12]\d|3[01])|(?:0[469]|11)-(?:0[1-9]|[12]\d|30)|02-(?:0[1-9]|1\d|2[0-8]))|(?:\d\d(?:0[48]|[2468][048]|[13579][26])|(?:[02468][048]|[13579][26])00)-02-29)";
const TIME: &str =
    r"(?:[01]\d|2[0-3]):[0-5]\d:[0-5]\d(?:\.\d{1,6})?(?:Z|[+-](?:[01]\d|2[0-3]):[0-5]\d)";
const LABEL: &str = "[A-Za-z0-9](?:-?[A-Za-z0-9]){0,30}";
const BYTE: &str = r"(?:25[0-5]|2[0-4]\d|1\d\d|[1-9]?\d)";
/// A part of a path.
const SEGMENT: &str = r"(?:[A-Za-z0-9._~!$&'()*+,;=:@-]|%[0-9A-Fa-f]{2})";
const POINTER: &str = r"(?:/(?:[^~/]|~[01])*)*";

/// The format called `name`.
pub(super) fn of(name: &str) -> Format {
    let tail = format!(r"(?:\?(?:{SEGMENT}|[/?])*)?(?:#(?:{SEGMENT}|[/?])*)?");
    let uri = format!(
        r"[a-z][a-z0-9+.-]{{1,15}}:(?://{LABEL}(?:\.{LABEL})*(?::\d{{1,4}})?(?:/{SEGMENT}*)*|{SEGMENT}+(?:/{SEGMENT}*)*){tail}"
    );
    let hex = |n: usize| format!("[0-9a-fA-F]{{{n}}}");
    let uuid = |version: &str| {
        let variant = if version == "[0-9a-fA-F]" { version } else { "[89abAB]" };
        let (two, three, four) = (hex(8), hex(3), hex(4));
        format!("{two}-{four}-{version}{three}-{variant}{three}-{}", hex(12))
    };
    let small = "[a-z0-9]{1,30}";
    let pattern = match name {
        "date" => DATE.to_owned(),
        "time" => TIME.to_owned(),
        "date-time" => format!("{DATE}T{TIME}"),
        "duration" => {
            let time = r"T(?:\d{1,9}H(?:\d{1,9}M(?:\d{1,9}S)?)?|\d{1,9}M(?:\d{1,9}S)?|\d{1,9}S)";
            let days = r"(?:\d{1,9}Y(?:\d{1,9}M(?:\d{1,9}D)?)?|\d{1,9}M(?:\d{1,9}D)?|\d{1,9}D)";
            format!(r"P(?:\d{{1,9}}W|{days}(?:{time})?|{time})")
        }
        // Letters of domain names that are not ASCII's are small.
        "idn-email" => format!(r"[a-z0-9]{{1,30}}@(?:{small}\.){{1,3}}[a-z]{{2,24}}"),
        "idn-hostname" => format!(r"(?:{small}\.){{0,3}}[a-z]{{1,24}}"),
        "email" => {
            let local = "[A-Za-z0-9](?:[._+-]?[A-Za-z0-9]){0,30}";
            format!(r"{local}@(?:{LABEL}\.){{1,3}}[A-Za-z]{{2,24}}")
        }
        "hostname" => {
            format!(r"(?:{LABEL}\.){{0,3}}[A-Za-z](?:-?[A-Za-z0-9]){{0,30}}")
        }
        "ipv4" => format!(r"{BYTE}(?:\.{BYTE}){{3}}"),
        "ipv6" => ipv6(),
        "uri" | "iri" | "url" => uri,
        "uri-template" => r"(?:/(?:[A-Za-z0-9_-]+|\{[a-z]+\}))+".to_owned(),
        "uri-reference" | "iri-reference" => {
            format!(r"(?:{uri}|(?:/{SEGMENT}+)+/?{tail})")
        }
        "uuid" => uuid("[0-9a-fA-F]"),
        "uuid1" | "uuid2" | "uuid3" | "uuid4" | "uuid5" | "uuid6" | "uuid7" | "uuid8" => {
            uuid(&name[4..])
        }
        "json-pointer" => POINTER.to_owned(),
        "relative-json-pointer" => format!(r"(?:0|[1-9]\d{{0,8}})(?:#|{POINTER})"),
        "regex" => return Format::Unsayable,
        _ => return Format::Unknown,
    };
    Format::Pattern(format!("^{pattern}$"))
}

/// Eight groups, some of which two colons may stand for.
fn ipv6() -> String {
    let h = "[0-9a-fA-F]{1,4}";
    let mut ways = vec![format!("(?:{h}:){{7}}{h}"), format!("(?:{h}:){{1,7}}:")];
    ways.extend((1..=6).map(|n| format!("(?:{h}:){{1,{}}}(?::{h}){{1,{n}}}", 7 - n)));
    ways.push(format!(":(?:(?::{h}){{1,7}}|:)"));
    format!("(?:{})", ways.join("|"))
}

#[cfg(test)]
mod tests {
    use super::super::automaton::Automaton;
    use super::super::pattern::parsed;
    use super::*;

    #[test]
    fn formats_know_theirs() {
        for (name, good, bad) in [
            ("date", "2024-02-29", "2023-02-29"),
            ("date", "2000-02-29", "1900-02-29"),
            ("time", "23:59:59.5Z", "24:00:00Z"),
            ("date-time", "2024-01-31T00:00:00+02:00", "2024-01-32T00:00:00Z"),
            ("duration", "P1Y2M3DT4H", "P"),
            ("duration", "PT5S", "PT"),
            ("email", "a.b@example.com", "a@b"),
            ("hostname", "a-1.example", "-a"),
            ("ipv4", "255.0.10.1", "256.0.0.1"),
            ("ipv6", "::1", "1::2::3"),
            ("ipv6", "1:2:3:4:5:6:7:8", "1:2:3"),
            ("uri", "https://example.com:80/a?b=c#d", "//x"),
            ("uri", "mailto:a@b.c", "a b"),
            ("uri-reference", "/a/b", "a b"),
            ("uuid", "01234567-89ab-cdef-0123-456789abcdef", "0123"),
            (
                "uuid4",
                "01234567-89ab-4def-8123-456789abcdef",
                "01234567-89ab-cdef-0123-456789abcdef",
            ),
            ("json-pointer", "/a~1b/0", "a"),
            ("relative-json-pointer", "1/a", "/a"),
        ] {
            let Format::Pattern(pattern) = of(name) else { panic!("{name}") };
            let wholes = parsed(&pattern).unwrap().unwrap();
            let automaton =
                Automaton::of(&wholes, 0, None).unwrap_or_else(|_| panic!("{name}")).unwrap();
            assert!(automaton.fits(good), "{name} {good}");
            assert!(!automaton.fits(bad), "{name} {bad}");
        }
    }
}
