//! The record scanners agree with serde_json, and editing a record's bytes does what editing a map does.
//!
//! `FERRULE_TEXTS` says how many texts are tried (100,000 unless told), `FERRULE_SEED` where the random numbers begin.

use ferrule_plugin::prelude::*;
use ferrule_plugin::testing;
use serde_json::{Map, Value, json};

config! {
    struct Edits {
        /// What to do, in order.
        edits: Vec<Edit>,
    }
    struct Edit {
        key: String,
        /// None: take it out.
        value: Option<Value>,
    }
}

struct Editor(Edits);

impl EnrichmentFunction for Editor {
    const NAME: &str = "editor";
    type Config = Edits;
    fn create(config: Edits, _host: &Host) -> Result<Self> {
        Ok(Self(config))
    }
    fn process(&mut self, record: &Record, out: &mut Output, _cx: &Context) -> Result {
        let mut object = out.extend(record);
        for (number, edit) in self.0.edits.iter().enumerate() {
            match &edit.value {
                Some(value) if number % 2 == 0 => object.field(&edit.key, value),
                Some(value) => object.raw_field(&edit.key, value.to_string()),
                None => object.remove(&edit.key),
            };
            assert_eq!(object.contains(&edit.key), edit.value.is_some());
            let now = object.get(&edit.key).map(|raw| serde_json::from_str::<Value>(raw).expect("JSON"));
            assert_eq!(now, edit.value);
        }
        object.finish()
    }
}

export_plugins! { function Editor }

/// xorshift64*
struct Random(u64);

impl Random {
    fn new() -> Self {
        let seed = std::env::var("FERRULE_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(0x5eed);
        Self(seed | 1)
    }
    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) as usize % end
    }
    fn pick<'a, T: ?Sized>(&mut self, from: &[&'a T]) -> &'a T {
        from[self.below(from.len())]
    }
}

fn texts() -> usize {
    std::env::var("FERRULE_TEXTS").ok().and_then(|texts| texts.parse().ok()).unwrap_or(100_000)
}

const SEEDS: &[&str] = &[
    r#"{}"#,
    r#" { } "#,
    r#"{"id":123456,"carrier":"UA","flight":1545,"dest":"IAH","delay":-2.5e3,"cancelled":false,"note":null}"#,
    r#"{"id": 1, "message": "Hello from the source, which is a long text of more than sixty-four bytes, I say"}"#,
    r#"{"a":{"b":[1,2,{"c":[]},{}],"d":"x"},"e":[[],[[]],["",true]],"":"empty key"}"#,
    "{\n  \"pretty\": [\n    1,\n    2\n  ],\r\n\t\"tab\": {}\n}\n",
    r#"{"esc\u0061ped":"line\nbreak \"quoted\" \\ \/ \ud83d\ude00 \u00e9","other":"\b\f\r\t"}"#,
    "{\"größe\":\"zwölf\",\"日本\":\"😀\",\"mixed\":\"aé😀z\"}",
    r#"{"n":[0,-0,0.0,1e5,1E+5,1e-5,123456789012345678901234567890,0.1234567890123456789,-1.5E-7]}"#,
    r#"{"twice":1,"twice":2}"#,
    r#"[1,2]"#,
    r#""text""#,
    r#"17"#,
    r#"null"#,
];

const PIECES: &[&[u8]] = &[
    b"\"",
    b"\\",
    b"{",
    b"}",
    b"[",
    b"]",
    b":",
    b",",
    b" ",
    b"\n",
    b"\t",
    b"\0",
    b"\x1f",
    b"\x7f",
    b"\x80",
    b"\xc3",
    b"\xc3\xa9",
    b"\xed\xa0\x80",
    b"\xf0\x9f\x98\x80",
    b"\xf4\x90\x80\x80",
    b"\xff",
    b"0",
    b"-",
    b"1",
    b".",
    b"e",
    b"E",
    b"+",
    b"true",
    b"false",
    b"null",
    b"tru",
    b"\\u",
    b"\\ud83d",
    b"\\udc00",
    b"\\u00",
    b"\\n",
    b"\\x",
    b"\"a\":",
    b"{\"a\":1}",
    b"[[[[",
    b"]]]]",
    b"1e400",
];

fn mutate(random: &mut Random, text: &mut Vec<u8>) {
    let at = random.below(text.len() + 1);
    match random.below(5) {
        0 if at < text.len() => {
            text.remove(at);
        }
        1 if at < text.len() => text[at] = random.below(256) as u8,
        2 => text.truncate(at),
        3 => {
            let to = at + random.below(text.len() - at + 1);
            let again = text[at..to].to_vec();
            text.splice(at..at, again);
        }
        _ => {
            let piece = random.pick(PIECES);
            text.splice(at..at, piece.iter().copied());
        }
    }
}

/// What serde_json makes of a text; `None` where it judges more than syntax: a number beyond f64, and depth 128 where
/// ours is 128 and its 127.
fn judge(text: &[u8]) -> Option<std::result::Result<Value, String>> {
    match serde_json::from_slice::<Value>(text) {
        Ok(value) => Some(Ok(value)),
        Err(error) if error.to_string().contains("number out of range") => None,
        Err(error) if error.to_string().contains("recursion limit") => None,
        Err(error) => Some(Err(error.to_string())),
    }
}

/// Both scanners take what serde_json takes as an object, refuse what it refuses, and change nothing in what they take;
/// what leaves is one line.
#[test]
fn agrees_with_serde_json_on_mutated_texts() {
    let mut random = Random::new();
    let mut editor = testing::function::<Editor>(json!({ "edits": [] })).expect("an editor");
    let (mut taken, mut refused) = (0_usize, 0_usize);
    for round in 0..texts() {
        let mut text = random.pick(SEEDS).as_bytes().to_vec();
        for _ in 0..random.below(4) {
            mutate(&mut random, &mut text);
        }
        if round % 16 == 0 {
            let long = format!("\"{}\":", "long".repeat(random.below(1500)));
            if text.first() == Some(&b'{') {
                text.splice(1..1, format!("{long}1{}", if text.len() > 2 { "," } else { "" }).into_bytes());
            }
        }
        let Some(judged) = judge(&text) else { continue };
        let fields = Record::new(&text).fields().map(|fields| fields.count());
        let copied = editor.process_bytes(&text);
        let shown = String::from_utf8_lossy(&text);
        match judged {
            Ok(value @ Value::Object(_)) => {
                taken += 1;
                let copied = copied.unwrap_or_else(|error| panic!("{shown}: {error}")).expect("no skip");
                assert!(!copied.contains(&b'\n') && copied[0] == b'{' && copied.ends_with(b"}"), "{shown}");
                assert_eq!(serde_json::from_slice::<Value>(&copied).expect("JSON"), value, "{shown}");
                assert!(fields.is_ok(), "{shown}");
            }
            judged => {
                refused += 1;
                let error = copied.expect_err(&shown);
                assert!(fields.is_err(), "{shown}");
                assert_eq!(error.message() == "Data must be a JSON object", judged.is_ok(), "{shown}: {error}");
            }
        }
    }
    assert!(taken > texts() / 10 && refused > texts() / 10, "one-sided: {taken} taken, {refused} refused");
}

/// Random edits of random records do what the same edits of a map do, whatever the keys' spelling; no key is there
/// twice afterwards that an edit has named.
#[test]
fn edits_do_what_edits_of_a_map_do() {
    const KEYS: &[&str] = &["a", "b", "aa", "a\"b", "ä", "", "long key of more than sixteen bytes", "c\\n", "tab\t"];
    let mut random = Random::new();
    for _ in 0..texts() / 20 {
        let mut text = String::from("{");
        let mut model = Map::new();
        for number in 0..random.below(6) {
            let key = random.pick(KEYS);
            let value = match random.below(5) {
                0 => json!(number),
                1 => json!("text \" with, {braces} [and] more"),
                2 => json!({ "a": 1, "b": [1, { "a": 2 }] }),
                3 => json!(null),
                _ => json!([1.5, "x"]),
            };
            let spelled = match random.below(4) {
                0 => key.encode_utf16().map(|unit| format!("\\u{unit:04x}")).collect(),
                _ => {
                    let quoted = json!(key).to_string();
                    quoted[1..quoted.len() - 1].to_owned()
                }
            };
            let blank = random.pick(&["", " ", "  "]);
            let comma = if number == 0 { "" } else { "," };
            text.push_str(&format!("{comma}{blank}\"{spelled}\"{blank}:{blank}{value}{blank}"));
            model.insert(key.to_owned(), value);
        }
        text.push('}');
        assert_eq!(serde_json::from_str::<Value>(&text).expect("a record"), Value::Object(model.clone()), "{text}");

        let edits: Vec<_> = (0..random.below(5))
            .map(|number| {
                let key = random.pick(KEYS);
                match random.below(3) {
                    0 => {
                        model.remove(key);
                        json!({ "key": key, "value": null })
                    }
                    size => {
                        let value = json!({ "new": "x".repeat(size * number * 7) });
                        model.insert(key.to_owned(), value.clone());
                        json!({ "key": key, "value": value })
                    }
                }
            })
            .collect();
        let mut editor = testing::function::<Editor>(json!({ "edits": edits })).expect("an editor");
        let edited = editor.process_bytes(text.as_bytes()).expect("a record").expect("no skip");
        let shown = String::from_utf8_lossy(&edited);
        assert_eq!(serde_json::from_slice::<Value>(&edited).expect(&shown), Value::Object(model), "{text} {shown}");
        for edit in &edits {
            let key = edit["key"].as_str().expect("a key");
            let times = Record::new(&edited).fields().expect(&shown).filter(|field| field.is(key)).count();
            assert!(times <= 1, "{key} stands {times} times in {shown}");
        }
    }
}

/// 128 levels pass, the record among them; 129 are refused by name.
#[test]
fn nesting_ends_at_128() {
    let nested = |inner: usize| format!("{{\"a\":{}1{}}}", "[".repeat(inner), "]".repeat(inner));
    let objects = |inner: usize| format!("{}1{}", "{\"a\":".repeat(inner + 1), "}".repeat(inner + 1));
    let mut editor = testing::function::<Editor>(json!({ "edits": [] })).expect("an editor");
    for text in [nested(127), objects(127)] {
        assert_eq!(editor.process_bytes(text.as_bytes()).expect("deep enough"), Some(text.into_bytes()));
    }
    for text in [nested(128), objects(128), nested(100_000)] {
        let error = editor.process_bytes(text.as_bytes()).expect_err("too deep");
        assert!(error.message().contains("nest more than 128 deep"), "{error}");
    }
}

/// A key that is replaced keeps its place and the others their bytes.
#[test]
fn a_replaced_field_keeps_its_place() {
    let edits =
        json!({ "edits": [{ "key": "b", "value": "new" }, { "key": "d", "value": 4 }, { "key": "a", "value": null }] });
    let mut editor = testing::function::<Editor>(edits).expect("an editor");
    let record = br#"{"a": 1,  "\u0062" :2 , "c": [ 1 ],"b":3}"#;
    let edited = editor.process_bytes(record).expect("a record").expect("no skip");
    assert_eq!(String::from_utf8_lossy(&edited), r#"{"\u0062" :"new" , "c": [ 1 ],"d":4}"#);
}
