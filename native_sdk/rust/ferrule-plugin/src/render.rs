//! Renders the manifest, in const functions: the compiler runs them and puts the text into the library.

use crate::manifest::{Described, Library, MethodInfo, PluginInfo};
use crate::schema::{Field, Kind, Shape, Variant};

/// Text that is being written; with no room it only counts.
pub(crate) struct Text<'a> {
    bytes: &'a mut [u8],
    len: usize,
}

impl<'a> Text<'a> {
    pub(crate) const fn measure() -> Self {
        Self { bytes: &mut [], len: 0 }
    }

    pub(crate) const fn into(bytes: &'a mut [u8]) -> Self {
        Self { bytes, len: 0 }
    }

    pub(crate) const fn len(&self) -> usize {
        self.len
    }

    const fn byte(&mut self, byte: u8) {
        if self.len < self.bytes.len() {
            self.bytes[self.len] = byte;
        }
        self.len += 1;
    }

    /// Text as it is.
    const fn raw(&mut self, text: &str) {
        let text = text.as_bytes();
        let mut i = 0;
        while i < text.len() {
            self.byte(text[i]);
            i += 1;
        }
    }

    /// What stands within a JSON string.
    const fn escaped(&mut self, byte: u8) {
        match byte {
            b'"' | b'\\' => {
                self.byte(b'\\');
                self.byte(byte);
            }
            b'\n' => self.raw("\\n"),
            b'\t' => self.raw("\\t"),
            0..0x20 => {
                self.raw("\\u00");
                self.byte(b'0' + byte / 16);
                self.byte(b"0123456789abcdef"[byte as usize % 16]);
            }
            _ => self.byte(byte),
        }
    }

    const fn string(&mut self, text: &str) {
        self.byte(b'"');
        let text = text.as_bytes();
        let mut i = 0;
        while i < text.len() {
            self.escaped(text[i]);
            i += 1;
        }
        self.byte(b'"');
    }

    const fn key(&mut self, name: &str) {
        self.string(name);
        self.byte(b':');
    }

    const fn natural(&mut self, number: u128) {
        if number >= 10 {
            self.natural(number / 10);
        }
        self.byte(b'0' + (number % 10) as u8);
    }

    const fn integer(&mut self, number: i128) {
        if number < 0 {
            self.byte(b'-');
        }
        self.natural(number.unsigned_abs());
    }

    /// The decimal that reads back as the same number, a short one where there is one.
    const fn number(&mut self, number: f64, single: bool) {
        assert!(number.is_finite(), "JSON has no NaN and no infinities: choose another default");
        let positive = if number < 0.0 { -number } else { number };
        if number < 0.0 {
            self.byte(b'-');
        }
        // A quotient or product of two exact numbers is rounded right, so it is the number nearest to that decimal.
        let mut scale = 1.0;
        let mut places = 0;
        while places <= 22 {
            let digits = positive * scale;
            if digits < 9_007_199_254_740_992.0 {
                let whole = (digits + 0.5) as u64;
                let same = if single && places <= 10 && whole < 16_777_216 {
                    whole as f32 / scale as f32 == positive as f32
                } else {
                    whole as f64 / scale == positive
                };
                if same {
                    return self.decimal(whole, places);
                }
            }
            scale *= 10.0;
            places += 1;
        }
        self.exact(positive);
    }

    const fn decimal(&mut self, whole: u64, places: u32) {
        let unit = 10_u64.pow(if places > 19 { 19 } else { places });
        if places > 19 || (places > 6 && whole < unit / 1_000_000) {
            self.natural(whole as u128);
            self.raw("e-");
            return self.natural(places as u128);
        }
        self.natural((whole / unit) as u128);
        self.byte(b'.');
        let mut rest = whole % unit;
        let mut unit = unit;
        while unit >= 10 {
            unit /= 10;
            self.byte(b'0' + (rest / unit) as u8);
            rest %= unit;
        }
        if places == 0 {
            self.byte(b'0');
        }
    }

    /// 17 digits, which tell any two numbers apart, by long arithmetic: for the few that no short decimal meets.
    const fn exact(&mut self, number: f64) {
        let bits = number.to_bits();
        let (mantissa, exponent) = match (bits >> 52) as i32 {
            0 => (bits, -1074),
            biased => ((bits & ((1 << 52) - 1)) | 1 << 52, biased - 1075),
        };
        // mantissa * 2^exponent, or mantissa * 5^-exponent * 10^exponent, in digits of 9, the lowest first
        let mut parts = [0_u64; 90];
        parts[0] = mantissa % 1_000_000_000;
        parts[1] = mantissa / 1_000_000_000;
        let mut power = exponent;
        while power != 0 {
            let mut carry = 0;
            let mut i = 0;
            while i < parts.len() {
                carry += parts[i] * if power > 0 { 2 } else { 5 };
                parts[i] = carry % 1_000_000_000;
                carry /= 1_000_000_000;
                i += 1;
            }
            assert!(carry == 0);
            power += if power > 0 { -1 } else { 1 };
        }
        let mut leading = 0_u64; // the first 17 digits, rounded
        let mut digits = 0;
        let mut i = parts.len();
        while i > 0 {
            i -= 1;
            let mut unit = 100_000_000;
            while unit > 0 {
                let digit = parts[i] / unit % 10;
                if digits > 0 || digit > 0 {
                    digits += 1;
                }
                if digits > 0 && digits <= 17 {
                    leading = leading * 10 + digit;
                }
                if digits == 18 && digit >= 5 {
                    leading += 1;
                }
                unit /= 10;
            }
        }
        let mut power = digits - 1 + if exponent < 0 { exponent } else { 0 };
        let mut unit = 1;
        while leading / unit >= 10 {
            unit *= 10;
        }
        if unit == 100_000_000_000_000_000 {
            power += 1; // rounded up to one digit more
        }
        self.natural((leading / unit) as u128);
        self.byte(b'.');
        let mut rest = leading % unit;
        if rest == 0 {
            self.byte(b'0');
        }
        while rest > 0 {
            unit /= 10;
            self.byte(b'0' + (rest / unit) as u8);
            rest %= unit;
        }
        self.byte(b'e');
        self.integer(power as i128);
    }

    /// Lines of doc comments as a JSON string: what a paragraph's lines say stands on one line; a blank line, an
    /// indented one and an item of a list begin a new one.
    const fn docs_inner(&mut self, lines: &[&str]) {
        let mut i = 0;
        let mut breaks = 0;
        let mut begun = false;
        while i < lines.len() {
            let line = trim(lines[i].as_bytes());
            if line.is_empty() {
                breaks = 2;
            } else {
                if begun && breaks == 0 && (line[0] == b'-' || line[0] == b'*' || line[0] == b' ') {
                    breaks = 1;
                }
                if begun && breaks == 0 {
                    self.byte(b' ');
                }
                while begun && breaks > 0 {
                    self.escaped(b'\n');
                    breaks -= 1;
                }
                let mut j = 0;
                while j < line.len() {
                    self.escaped(line[j]);
                    j += 1;
                }
                begun = true;
                breaks = 0;
            }
            i += 1;
        }
    }

    const fn docs(&mut self, lines: &[&str]) {
        self.byte(b'"');
        self.docs_inner(lines);
        self.byte(b'"');
    }

    /// A shape as JSON Schema.
    pub(crate) const fn schema(&mut self, shape: &Shape) {
        self.byte(b'{');
        self.keywords(shape, false);
        self.byte(b'}');
    }

    const fn kind(&mut self, name: &str, nullable: bool) {
        self.key("type");
        if nullable {
            self.byte(b'[');
            self.string(name);
            self.raw(",\"null\"]");
        } else {
            self.string(name);
        }
    }

    /// The keywords of a schema, without the braces. Nothing at all for what may be anything.
    const fn keywords(&mut self, shape: &Shape, nullable: bool) {
        match &shape.0 {
            Kind::Any => {}
            Kind::Record => self.kind("object", nullable),
            Kind::Null => self.kind("null", false),
            Kind::Boolean => self.kind("boolean", nullable),
            Kind::Integer { bytes, signed } => {
                self.kind("integer", nullable);
                let bits = *bytes as u32 * 8 - *signed as u32;
                if !*signed {
                    self.raw(",\"minimum\":0");
                }
                if *bytes <= 8 {
                    let end = 1_i128 << bits;
                    if *signed {
                        self.raw(",\"minimum\":");
                        self.integer(-end);
                    }
                    self.raw(",\"maximum\":");
                    self.integer(end - 1);
                }
            }
            Kind::Number { .. } => self.kind("number", nullable),
            Kind::Character => {
                self.kind("string", nullable);
                self.raw(",\"minLength\":1,\"maxLength\":1");
            }
            Kind::Text => self.kind("string", nullable),
            Kind::Path => {
                self.kind("string", nullable);
                self.raw(",\"format\":\"path\"");
            }
            Kind::Optional(shape) => self.keywords(shape, true),
            Kind::Array { item, .. } => {
                self.kind("array", nullable);
                self.raw(",\"items\":");
                self.schema(item);
            }
            Kind::Map { value, .. } => {
                self.kind("object", nullable);
                self.raw(",\"additionalProperties\":");
                self.schema(value);
            }
            Kind::Choice { docs, variants } => self.choice(docs, variants, nullable),
            Kind::Object { docs, fields } => self.object(docs, fields, nullable),
        }
    }

    const fn choice(&mut self, docs: &[&str], variants: &[Variant], nullable: bool) {
        self.kind("string", nullable);
        self.raw(",\"enum\":[");
        let mut i = 0;
        while i < variants.len() {
            if i > 0 {
                self.byte(b',');
            }
            self.string(variants[i].name);
            i += 1;
        }
        self.raw(if nullable { ",null]" } else { "]" });
        if described(docs) || any_described(variants) {
            self.raw(",\"description\":\"");
            self.docs_inner(docs);
            let mut i = 0;
            let mut begun = described(docs);
            while i < variants.len() {
                if described(variants[i].docs) {
                    if begun {
                        self.escaped(b'\n');
                    }
                    begun = true;
                    self.raw("- ");
                    self.raw(variants[i].name);
                    self.raw(": ");
                    self.docs_inner(variants[i].docs);
                }
                i += 1;
            }
            self.byte(b'"');
        }
    }

    const fn object(&mut self, docs: &[&str], fields: &[Field], nullable: bool) {
        self.kind("object", nullable);
        if described(docs) {
            self.raw(",\"description\":");
            self.docs(docs);
        }
        self.raw(",\"properties\":{");
        let mut i = 0;
        while i < fields.len() {
            if i > 0 {
                self.byte(b',');
            }
            self.field(&fields[i]);
            i += 1;
        }
        self.raw("},\"required\":[");
        let mut i = 0;
        let mut begun = false;
        while i < fields.len() {
            if fields[i].required {
                if begun {
                    self.byte(b',');
                }
                begun = true;
                self.string(fields[i].name);
            }
            i += 1;
        }
        self.raw("],\"additionalProperties\":false");
    }

    const fn field(&mut self, field: &Field) {
        self.key(field.name);
        self.byte(b'{');
        let before = self.len;
        // Its own words first: those of its type would stand for every field of that type.
        if described(field.docs) {
            match &field.shape.0 {
                Kind::Object { fields, .. } => self.object(field.docs, fields, false),
                Kind::Choice { variants, .. } => self.choice(field.docs, variants, false),
                Kind::Optional(Shape(Kind::Object { fields, .. })) => self.object(field.docs, fields, true),
                Kind::Optional(Shape(Kind::Choice { variants, .. })) => self.choice(field.docs, variants, true),
                _ => {
                    self.keywords(field.shape, false);
                    if self.len > before {
                        self.byte(b',');
                    }
                    self.key("description");
                    self.docs(field.docs);
                }
            }
        } else {
            self.keywords(field.shape, false);
        }
        if !field.required {
            if self.len > before {
                self.byte(b',');
            }
            self.key("default");
            self.default_of(field);
        }
        self.byte(b'}');
    }

    /// What a field is when it is not given: its default, or null.
    const fn default_of(&mut self, field: &Field) {
        match field.default {
            // SAFETY: `Field::new` took it as a constant of the type whose shape stands beside it.
            Some(constant) => unsafe { self.constant(field.shape, constant) },
            None => self.raw("null"),
        }
    }

    /// Reads a constant by its shape.
    ///
    /// # Safety
    /// `at` points at a `T::Constant`, and `shape` is `T::SHAPE`.
    const unsafe fn constant(&mut self, shape: &Shape, at: *const ()) {
        // SAFETY: `Schema` promises that the shape says what lies there.
        unsafe {
            match &shape.0 {
                Kind::Any | Kind::Record | Kind::Optional(_) => panic!("there are no constants of this type"),
                Kind::Null => self.raw("null"),
                Kind::Boolean => self.raw(if *at.cast::<bool>() { "true" } else { "false" }),
                Kind::Integer { bytes: 1, signed: true } => self.integer(*at.cast::<i8>() as i128),
                Kind::Integer { bytes: 2, signed: true } => self.integer(*at.cast::<i16>() as i128),
                Kind::Integer { bytes: 4, signed: true } => self.integer(*at.cast::<i32>() as i128),
                Kind::Integer { bytes: 8, signed: true } => self.integer(*at.cast::<i64>() as i128),
                Kind::Integer { signed: true, .. } => self.integer(*at.cast::<i128>()),
                Kind::Integer { bytes: 1, .. } => self.natural(*at.cast::<u8>() as u128),
                Kind::Integer { bytes: 2, .. } => self.natural(*at.cast::<u16>() as u128),
                Kind::Integer { bytes: 4, .. } => self.natural(*at.cast::<u32>() as u128),
                Kind::Integer { bytes: 8, .. } => self.natural(*at.cast::<u64>() as u128),
                Kind::Integer { .. } => self.natural(*at.cast::<u128>()),
                Kind::Number { bytes: 4 } => self.number(*at.cast::<f32>() as f64, true),
                Kind::Number { .. } => self.number(*at.cast::<f64>(), false),
                Kind::Character => {
                    let mut bytes = [0; 4];
                    self.string((*at.cast::<char>()).encode_utf8(&mut bytes));
                }
                Kind::Text | Kind::Path => self.string(*at.cast::<&'static str>()),
                Kind::Array { item, stride } => {
                    let items = *at.cast::<&'static [()]>();
                    self.byte(b'[');
                    let mut i = 0;
                    while i < items.len() {
                        if i > 0 {
                            self.byte(b',');
                        }
                        self.constant(item, items.as_ptr().byte_add(i * *stride));
                        i += 1;
                    }
                    self.byte(b']');
                }
                Kind::Map { value, stride, offsets } => {
                    let pairs = *at.cast::<&'static [()]>();
                    self.byte(b'{');
                    let mut i = 0;
                    while i < pairs.len() {
                        if i > 0 {
                            self.byte(b',');
                        }
                        let pair = pairs.as_ptr().byte_add(i * *stride);
                        self.key(*pair.byte_add(offsets[0]).cast::<&'static str>());
                        self.constant(value, pair.byte_add(offsets[1]));
                        i += 1;
                    }
                    self.byte(b'}');
                }
                Kind::Choice { variants, .. } => self.string(variants[*at.cast::<u8>() as usize].name),
                Kind::Object { fields, .. } => {
                    self.byte(b'{');
                    let mut i = 0;
                    while i < fields.len() {
                        assert!(!fields[i].required, "`= Defaults` needs a default for every field of that struct");
                        if i > 0 {
                            self.byte(b',');
                        }
                        self.key(fields[i].name);
                        self.default_of(&fields[i]);
                        i += 1;
                    }
                    self.byte(b'}');
                }
            }
        }
    }

    /// The manifest of a library.
    pub(crate) const fn library(&mut self, library: &Library) {
        self.raw("{\"name\":");
        self.string(library.name);
        self.raw(",\"version\":");
        self.string(library.version);
        self.raw(",\"description\":");
        self.string(library.description);
        self.raw(",\"license\":");
        self.string(library.license);
        self.raw(",\"plugins\":[");
        let mut i = 0;
        while i < library.plugins.len() {
            if i > 0 {
                self.byte(b',');
            }
            self.plugin(&library.plugins[i].info);
            i += 1;
        }
        self.raw("],\"depends\":[]}");
    }

    const fn plugin(&mut self, plugin: &PluginInfo) {
        self.raw("{\"name\":");
        self.string(plugin.name);
        self.raw(",\"kind\":");
        self.string(plugin.kind);
        self.raw(",\"language\":\"rust\",\"description\":");
        self.docs(plugin.docs);
        self.raw(",\"threading\":");
        self.string(if plugin.concurrent { "concurrent" } else { "serial" });
        self.raw(",\"config\":");
        self.schema(plugin.config);
        self.raw(",\"methods\":[");
        let mut i = 0;
        while i < plugin.contract.len() + plugin.extra.len() {
            if i > 0 {
                self.byte(b',');
            }
            if i < plugin.contract.len() {
                self.method(&plugin.contract[i]);
            } else {
                self.method(&plugin.extra[i - plugin.contract.len()].info);
            }
            i += 1;
        }
        self.raw("],\"subscriptions\":[],\"extensions\":[],\"capabilities\":[],\"permissions\":[]}");
    }

    const fn method(&mut self, method: &MethodInfo) {
        self.raw("{\"name\":");
        self.string(method.name);
        self.raw(",\"mode\":");
        self.string(method.mode);
        self.raw(",\"input\":");
        self.string(method.input);
        self.raw(",\"output\":");
        self.string(method.output);
        self.described("args", method.args);
        self.described("result", method.result);
        if method.need_feed {
            self.raw(",\"need_feed\":true,\"feed_input\":");
            self.string(method.feed_input);
            self.described("feed", method.feed);
        }
        if method.metadata {
            self.raw(",\"metadata\":true");
        }
        if method.cancellable {
            self.raw(",\"cancellable\":true");
        }
        if !method.description.is_empty() {
            self.raw(",\"description\":");
            self.string(method.description);
        }
        self.byte(b'}');
    }

    const fn described(&mut self, key: &str, described: Option<Described>) {
        let Some(described) = described else { return };
        self.byte(b',');
        self.key(key);
        match described {
            Described::Shape(shape) => self.schema(shape),
            Described::Text(media_type, text) => {
                self.raw("{\"media_type\":");
                self.string(media_type);
                self.raw(",\"text\":");
                self.string(text);
                self.byte(b'}');
            }
        }
    }
}

/// A line of a doc comment without the blank that follows `///`, and without those at its end.
const fn trim(mut line: &[u8]) -> &[u8] {
    if let [b' ', rest @ ..] = line {
        line = rest;
    }
    while let [rest @ .., b' ' | b'\t' | b'\r'] = line {
        line = rest;
    }
    line
}

const fn described(docs: &[&str]) -> bool {
    let mut i = 0;
    while i < docs.len() {
        if !trim(docs[i].as_bytes()).is_empty() {
            return true;
        }
        i += 1;
    }
    false
}

const fn any_described(variants: &[Variant]) -> bool {
    let mut i = 0;
    while i < variants.len() {
        if described(variants[i].docs) {
            return true;
        }
        i += 1;
    }
    false
}
