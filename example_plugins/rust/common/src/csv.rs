//! What stands in a CSV field, as JSON.
//!
//! CSV knows text alone. A value is taken for a number where it is written as JSON writes one, so that nothing is lost
//! by it: `12` is a number and `0012` is text, `1.50` keeps its zero, and an integer may be as long as it likes.

/// Whether it is `-?(0|[1-9][0-9]*)`.
#[inline]
pub fn is_integer(text: &[u8]) -> bool {
    matches!(after_integer(text), Some([]))
}

/// Whether it is `-?(0|[1-9][0-9]*)\.[0-9]+([eE][-+]?[0-9]+)?`.
#[inline]
pub fn is_decimal(text: &[u8]) -> bool {
    let Some([b'.', rest @ ..]) = after_integer(text) else { return false };
    let Some(rest) = after_digits(rest) else { return false };
    match rest {
        [] => true,
        [b'e' | b'E', b'-' | b'+', digits @ ..] | [b'e' | b'E', digits @ ..] => {
            matches!(after_digits(digits), Some([]))
        }
        _ => false,
    }
}

/// Whether [`push_inferred`] writes it as a number.
#[inline]
pub fn is_number(text: &[u8]) -> bool {
    match after_integer(text) {
        Some([]) => true,
        Some([b'.', ..]) => is_decimal(text),
        _ => false,
    }
}

#[inline]
fn after_integer(text: &[u8]) -> Option<&[u8]> {
    match text.strip_prefix(b"-").unwrap_or(text) {
        [b'0', rest @ ..] => Some(rest),
        digits => after_digits(digits),
    }
}

/// What follows one digit or more.
#[inline]
fn after_digits(text: &[u8]) -> Option<&[u8]> {
    match text.iter().position(|byte| !byte.is_ascii_digit()).unwrap_or(text.len()) {
        0 => None,
        digits => Some(&text[digits..]),
    }
}

/// Appends a value: a number where it is written as one, else text.
#[inline]
pub fn push_inferred(out: &mut Vec<u8>, text: &str) {
    if is_number(text.as_bytes()) { out.extend_from_slice(text.as_bytes()) } else { push_text(out, text) }
}

/// Appends text, in quotes and escaped.
pub fn push_text(out: &mut Vec<u8>, text: &str) {
    let start = out.len();
    if serde_json::to_writer(&mut *out, text).is_err() {
        out.truncate(start); // a Vec takes everything
    }
}

/// What a column is said to hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The text as it stands.
    Text,
    /// Digits with an optional sign; leading zeros and a `+` are left off.
    Integer,
    /// An integer or a decimal number with an optional exponent; `.5`, `5.` and `+5` are put as JSON writes them.
    Number,
    /// `true` or `false` in any case, or `1` or `0`.
    Boolean,
}

impl Kind {
    /// Its name in a configuration and in errors.
    pub fn name(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Integer => "integer",
            Self::Number => "number",
            Self::Boolean => "boolean",
        }
    }

    /// Appends a value as this kind, or nothing and `false` if it is not of this kind.
    pub fn push(self, out: &mut Vec<u8>, text: &str) -> bool {
        match self {
            Self::Text => push_text(out, text),
            Self::Integer => return push_number(out, text.as_bytes(), false),
            Self::Number => return push_number(out, text.as_bytes(), true),
            Self::Boolean if text == "1" || text.eq_ignore_ascii_case("true") => out.extend_from_slice(b"true"),
            Self::Boolean if text == "0" || text.eq_ignore_ascii_case("false") => out.extend_from_slice(b"false"),
            Self::Boolean => return false,
        }
        true
    }
}

/// `[-+]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][-+]?[0-9]+)?` in JSON's own form; without `decimal` only `[-+]?[0-9]+`.
fn push_number(out: &mut Vec<u8>, text: &[u8], decimal: bool) -> bool {
    let (minus, rest) = match text {
        [b'-', rest @ ..] => (true, rest),
        [b'+', rest @ ..] => (false, rest),
        rest => (false, rest),
    };
    let (whole, rest) = split_digits(rest);
    let (part, rest) = match rest {
        [b'.', rest @ ..] if decimal => {
            let (part, rest) = split_digits(rest);
            (Some(part), rest)
        }
        rest => (None, rest),
    };
    if whole.is_empty() && part.is_none_or(<[u8]>::is_empty) {
        return false;
    }
    let (exponent, rest) = match rest {
        [b'e' | b'E', tail @ ..] if decimal => {
            let (_, after) = split_digits(tail.strip_prefix(b"-").or(tail.strip_prefix(b"+")).unwrap_or(tail));
            let used = &rest[..rest.len() - after.len()];
            if used.last().is_some_and(u8::is_ascii_digit) { (used, after) } else { (&[][..], rest) }
        }
        rest => (&[][..], rest),
    };
    if !rest.is_empty() {
        return false;
    }
    if minus {
        out.push(b'-');
    }
    let zeros = whole.iter().take_while(|digit| **digit == b'0').count();
    match &whole[zeros..] {
        [] => out.push(b'0'),
        digits => out.extend_from_slice(digits),
    }
    if let Some(part) = part.filter(|part| !part.is_empty()) {
        out.push(b'.');
        out.extend_from_slice(part);
    }
    out.extend_from_slice(exponent);
    true
}

fn split_digits(text: &[u8]) -> (&[u8], &[u8]) {
    text.split_at(text.iter().position(|byte| !byte.is_ascii_digit()).unwrap_or(text.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn inferred(text: &str) -> String {
        let mut out = Vec::new();
        push_inferred(&mut out, text);
        String::from_utf8(out).unwrap()
    }

    fn pushed(kind: Kind, text: &str) -> Option<String> {
        let mut out = b"x".to_vec();
        let done = kind.push(&mut out, text);
        assert!(done || out == b"x", "nothing is left of {text:?}, which is no {}", kind.name());
        done.then(|| String::from_utf8(out[1..].to_vec()).unwrap())
    }

    /// A number is what JSON writes as one; all else is text.
    #[test]
    fn infers_canonical_numbers() {
        for number in
            ["0", "-0", "7", "-12", "10", "123456789012345678901234567890", "0.0", "-1.50", "1.5e9", "1.5E-09"]
        {
            assert_eq!(inferred(number), number);
        }
        for text in [
            "",
            "-",
            "+1",
            "00",
            "0012",
            "01.5",
            "1.",
            ".5",
            "1e5",
            "1.5e",
            "1.5e+",
            "1,5",
            "1 ",
            " 1",
            "NaN",
            "-a",
            "1.5.1",
            "2013-01-01",
        ] {
            assert_eq!(inferred(text), format!("\"{text}\""));
        }
        assert_eq!(inferred("a\n\"b\"\t\\\u{1}é"), "\"a\\n\\\"b\\\"\\t\\\\\\u0001é\"");
    }

    /// What is inferred, and what a kind makes of a text, is JSON.
    #[test]
    fn what_is_written_is_json() {
        let alphabet = ["", "-", "+", "0", "1", ".", "e", "E", "x", "true", "\u{7f}"];
        let mut texts = vec![String::new()];
        for _ in 0..5 {
            texts = texts.iter().flat_map(|text| alphabet.map(|part| format!("{text}{part}"))).collect();
        }
        texts.sort();
        texts.dedup();
        for text in &texts {
            let value: serde_json::Value = serde_json::from_str(&inferred(text)).unwrap();
            assert!(value.is_number() || value == text.as_str());
            for kind in [Kind::Text, Kind::Integer, Kind::Number, Kind::Boolean] {
                if let Some(json) = pushed(kind, text) {
                    let value: serde_json::Value = serde_json::from_str(&json).expect(text);
                    match kind {
                        Kind::Text => assert!(value == text.as_str()),
                        Kind::Boolean => assert!(value.is_boolean()),
                        Kind::Integer => assert!(value.is_number() && is_integer(json.as_bytes())),
                        Kind::Number => assert_eq!(value.as_f64(), text.parse().ok(), "{text}"),
                    }
                } else if kind == Kind::Number {
                    assert!(text.parse::<f64>().is_err(), "{text} is a number");
                }
            }
        }
    }

    /// A column's kind takes what people write, and puts it as JSON does.
    #[test]
    fn kinds_take_what_people_write() {
        assert_eq!(pushed(Kind::Integer, "+007").as_deref(), Some("7"));
        assert_eq!(pushed(Kind::Integer, "-0").as_deref(), Some("-0"));
        assert_eq!(pushed(Kind::Integer, "1.0"), None);
        assert_eq!(pushed(Kind::Number, "-.5e3").as_deref(), Some("-0.5e3"));
        assert_eq!(pushed(Kind::Number, "05.").as_deref(), Some("5"));
        assert_eq!(pushed(Kind::Number, "inf"), None);
        assert_eq!(pushed(Kind::Boolean, "True").as_deref(), Some("true"));
        assert_eq!(pushed(Kind::Boolean, "0").as_deref(), Some("false"));
        assert_eq!(pushed(Kind::Boolean, "yes"), None);
        assert_eq!(pushed(Kind::Text, "0012").as_deref(), Some("\"0012\""));
    }
}
