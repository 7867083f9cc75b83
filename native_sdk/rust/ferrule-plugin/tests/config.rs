//! `config!`: what the manifest says of a type, and what the type takes, are the same.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;

use ferrule_plugin::prelude::*;
use serde_json::{Value, json};

config! {
    /// Every type there is.
    ///
    /// The second paragraph goes on
    /// over two lines, "quoted":
    /// - an item
    #[derive(PartialEq)]
    pub struct Everything {
        flag: bool = true,
        tiny: i8 = -128,
        small: u16 = 65_535,
        int: i32 = -1,
        long: i64 = i64::MIN,
        natural: u64 = u64::MAX,
        size: usize = 1 << 20,
        huge: u128 = 340_282_366_920_938_463_463_374_607_431_768_211_455,
        vast: i128 = -1,
        number: f64 = 0.1,
        single: f32 = 0.1,
        letter: char = '"',
        text: String = "tab\there, ünïcode",
        path: PathBuf = "data/flights.csv",
        list: Vec<String> = &["a", "b"],
        nested: Vec<Vec<u8>> = &[&[1, 2], &[], &[3]],
        sorted: BTreeMap<String, i64> = &[("b", 2), ("a", 1)],
        hashed: HashMap<String, bool> = &[("k", true)],
        modes: Vec<Mode> = &[Mode::KeepAsIs, Mode::Utf8],
        mode: Mode = Mode::HTTPProxy,
        retry: Retry = Defaults,
        maybe: Option<u8>,
        maybe_mode: Option<Mode>,
        anything: Option<Value>,
        r#type: String = "raw",
    }

    /// How often.
    #[derive(PartialEq)]
    pub struct Retry {
        /// At most.
        attempts: u8 = 3,
        wait: f64 = 0.25,
    }

    /// What to do.
    enum Mode {
        /// Nothing.
        KeepAsIs,
        HTTPProxy,
        Utf8 = "utf-8",
    }

    struct Needs {
        /// The one field.
        name: String,
        retry: Option<Retry>,
    }

    struct Numbers {
        a: f64 = 1.0,
        b: f64 = -1.5,
        c: f64 = 1e300,
        d: f64 = 5e-324,
        e: f64 = f64::MAX,
        f: f64 = f64::EPSILON,
        g: f64 = 1e-7,
        h: f64 = 123456789.125,
        i: f64 = 0.30000000000000004,
        j: f64 = 1e22,
        k: f64 = -0.0,
        l: f64 = 9007199254740993.0,
        m: f64 = 1e-10,
        n: f64 = 100.0 / 3.0,
        o: f64 = 0.000001,
        s: f32 = 0.3,
        t: f32 = f32::MAX,
        u: f32 = f32::MIN_POSITIVE,
        v: f32 = 16777216.0,
        w: f32 = 1.0 / 3.0,
    }
}

fn schema<T: Schema>() -> Value {
    serde_json::to_value(T::SHAPE).expect("a schema is JSON")
}

fn refused<T: Schema + std::fmt::Debug>(text: &str) -> String {
    serde_json::from_str::<T>(text).expect_err(text).to_string()
}

/// Types, ranges, defaults and docs are rendered as the host will read them.
#[test]
fn schemas_say_it_all() {
    let schema = schema::<Everything>();
    assert_eq!(
        schema["description"],
        "Every type there is.\n\nThe second paragraph goes on over two lines, \"quoted\":\n- an item"
    );
    assert_eq!(
        (&schema["type"], &schema["required"], &schema["additionalProperties"]),
        (&json!("object"), &json!([]), &json!(false))
    );
    let expected = json!({
        "flag": { "type": "boolean", "default": true },
        "tiny": { "type": "integer", "minimum": -128, "maximum": 127, "default": -128 },
        "small": { "type": "integer", "minimum": 0, "maximum": 65535, "default": 65535 },
        "int": { "type": "integer", "minimum": i32::MIN, "maximum": i32::MAX, "default": -1 },
        "long": { "type": "integer", "minimum": i64::MIN, "maximum": i64::MAX, "default": i64::MIN },
        "natural": { "type": "integer", "minimum": 0, "maximum": u64::MAX, "default": u64::MAX },
        "size": { "type": "integer", "minimum": 0, "maximum": usize::MAX, "default": 1_048_576 },
        "vast": { "type": "integer", "default": -1 },
        "number": { "type": "number", "default": 0.1 },
        "single": { "type": "number", "default": 0.1 },
        "letter": { "type": "string", "minLength": 1, "maxLength": 1, "default": "\"" },
        "text": { "type": "string", "default": "tab\there, ünïcode" },
        "path": { "type": "string", "format": "path", "default": "data/flights.csv" },
        "list": { "type": "array", "items": { "type": "string" }, "default": ["a", "b"] },
        "nested": {
            "type": "array",
            "items": { "type": "array", "items": { "type": "integer", "minimum": 0, "maximum": 255 } },
            "default": [[1, 2], [], [3]],
        },
        "sorted": {
            "type": "object",
            "additionalProperties": { "type": "integer", "minimum": i64::MIN, "maximum": i64::MAX },
            "default": { "a": 1, "b": 2 },
        },
        "hashed": { "type": "object", "additionalProperties": { "type": "boolean" }, "default": { "k": true } },
        "modes": {
            "type": "array",
            "items": {
                "type": "string",
                "enum": ["keep_as_is", "http_proxy", "utf-8"],
                "description": "What to do.\n- keep_as_is: Nothing.",
            },
            "default": ["keep_as_is", "utf-8"],
        },
        "mode": {
            "type": "string",
            "enum": ["keep_as_is", "http_proxy", "utf-8"],
            "description": "What to do.\n- keep_as_is: Nothing.",
            "default": "http_proxy",
        },
        "retry": {
            "type": "object",
            "description": "How often.",
            "properties": {
                "attempts": { "type": "integer", "minimum": 0, "maximum": 255, "description": "At most.", "default": 3 },
                "wait": { "type": "number", "default": 0.25 },
            },
            "required": [],
            "additionalProperties": false,
            "default": { "attempts": 3, "wait": 0.25 },
        },
        "maybe": { "type": ["integer", "null"], "minimum": 0, "maximum": 255, "default": null },
        "maybe_mode": {
            "type": ["string", "null"],
            "enum": ["keep_as_is", "http_proxy", "utf-8", null],
            "description": "What to do.\n- keep_as_is: Nothing.",
            "default": null,
        },
        "anything": { "default": null },
        "type": { "type": "string", "default": "raw" },
    });
    for (name, expected) in expected.as_object().expect("an object") {
        assert_eq!(&schema["properties"][name], expected, "{name}");
    }
    // serde_json reads no integer of 128 bits.
    let text = Everything::SHAPE.to_string();
    assert!(
        text.contains(r#""huge":{"type":"integer","minimum":0,"default":340282366920938463463374607431768211455}"#)
    );
    assert_eq!(
        schema["properties"].as_object().expect("an object").len(),
        expected.as_object().expect("an object").len() + 1
    );
}

/// What the schema gives as defaults is what a missing field becomes, and what is written is read again.
#[test]
fn defaults_are_what_the_schema_says() {
    let empty: Everything = serde_json::from_str("{}").expect("all of it has defaults");
    assert_eq!((empty.tiny, empty.natural, empty.huge, empty.letter), (-128, u64::MAX, u128::MAX, '"'));
    assert_eq!((empty.mode, &*empty.modes, empty.maybe), (Mode::HTTPProxy, &[Mode::KeepAsIs, Mode::Utf8][..], None));
    assert_eq!(empty.retry, Retry { attempts: 3, wait: 0.25 });
    let text = serde_json::to_string(&empty).expect("JSON");
    assert_eq!(serde_json::from_str::<Everything>(&text).expect("its own text"), empty);
    let written: Value =
        serde_json::from_str(&text.replace("340282366920938463463374607431768211455", "0")).expect("JSON");
    for (name, property) in schema::<Everything>()["properties"].as_object().expect("an object") {
        if !["huge", "single"].contains(&name.as_str()) {
            assert_eq!(written[name], property["default"], "{name}");
        }
    }
}

/// A number's default reads back as the very same number, and a plain one is written plainly.
#[test]
fn numbers_are_exact() {
    let empty: Numbers = serde_json::from_str("{}").expect("all of it has defaults");
    let text = Numbers::SHAPE.to_string();
    let written = |name: &str| {
        let begin = format!("\"{name}\":{{\"type\":\"number\",\"default\":");
        let rest = &text[text.find(&begin).expect(name) + begin.len()..];
        rest[..rest.find('}').expect("an end")].to_owned()
    };
    let Numbers { a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, .. } = empty.clone();
    let double = [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o];
    for (name, number) in ('a'..='o').zip(double) {
        let default = written(&name.to_string());
        assert_eq!(default.parse::<f64>(), Ok(number), "{default}");
        assert!(serde_json::from_str::<f64>(&default).is_ok(), "{default}");
    }
    let Numbers { s, t, u, v, w, .. } = empty;
    for (name, number) in ('s'..='w').zip([s, t, u, v, w]) {
        let default = written(&name.to_string());
        assert_eq!(default.parse::<f32>(), Ok(number), "{default}");
    }
    for plain in [
        r#""default":1.0}"#,
        r#""default":-1.5}"#,
        r#""default":1e-7}"#,
        r#""default":123456789.125}"#,
        r#""default":0.3}"#,
        r#""default":0.000001}"#,
    ] {
        assert!(text.contains(plain), "{plain} in {text}");
    }
}

/// What is not declared, missing, given twice or out of range is refused, and the field is named with its path.
#[test]
fn errors_name_the_field() {
    assert!(refused::<Needs>("{}").starts_with("missing field `name`"));
    assert!(
        refused::<Needs>(r#"{"name":"x","nam":"y"}"#).starts_with("unknown field `nam`, expected `name` or `retry`")
    );
    assert!(refused::<Needs>(r#"{"name":"x","name":"y"}"#).starts_with("duplicate field `name`"));
    assert!(refused::<Needs>(r#"{"name":5}"#).starts_with(".name: invalid type: integer `5`, expected a string"));
    assert!(refused::<Needs>(r#"{"name":"x","retry":{"attempts":-1}}"#).starts_with(".retry.attempts: invalid value"));
    assert!(
        refused::<Everything>(r#"{"mode":"off"}"#)
            .starts_with(".mode: unknown variant `off`, expected one of `keep_as_is`")
    );
    assert!(refused::<Needs>("[]").contains("expected an object (Needs)"));
    let fine: Needs = serde_json::from_str(r#"{"n\u0061me":"x","retry":null}"#).expect("fine");
    assert_eq!((fine.name.as_str(), fine.retry), ("x", None));
    assert_eq!(schema::<Needs>()["required"], json!(["name"]));
}

/// No fields: an empty object, or nothing at all.
#[test]
fn empty_is_empty() {
    assert_eq!(serde_json::from_str::<Empty>(" {} ").expect("empty"), Empty {});
    assert_eq!(serde_json::from_str::<Empty>("null").expect("empty"), Empty {});
    assert!(refused::<Empty>(r#"{"a":1}"#).starts_with("unknown field `a`"));
    assert_eq!(serde_json::to_string(&Empty {}).expect("JSON"), "{}");
    assert_eq!(
        schema::<Empty>(),
        json!({ "type": "object", "properties": {}, "required": [], "additionalProperties": false })
    );
}
