//! JSON Schemas of Rust types, as data that the compiler evaluates into the library's manifest.

use std::collections::{BTreeMap, HashMap};
use std::hash::BuildHasher;
use std::mem::offset_of;
use std::path::PathBuf;

use serde::de::{self, Deserialize, DeserializeOwned, Deserializer, MapAccess, Visitor};
use serde::ser::{Serialize, SerializeMap, Serializer};

use crate::render::Text;

/// What a type looks like in JSON. Written as JSON Schema when it is displayed, and into the manifest.
///
/// ```
/// use ferrule_plugin::{Schema, Shape};
/// assert_eq!(Vec::<u8>::SHAPE.to_string(), r#"{"type":"array","items":{"type":"integer","minimum":0,"maximum":255}}"#);
/// assert_eq!(Shape::RECORD.to_string(), r#"{"type":"object"}"#);
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Shape(pub(crate) Kind);

#[derive(Clone, Copy, Debug)]
pub(crate) enum Kind {
    Any,
    /// An object of any fields.
    Record,
    Null,
    Boolean,
    Integer {
        bytes: usize,
        signed: bool,
    },
    Number {
        bytes: usize,
    },
    Character,
    Text,
    Path,
    Optional(&'static Shape),
    Array {
        item: &'static Shape,
        /// From one item of a constant slice to the next.
        stride: usize,
    },
    Map {
        value: &'static Shape,
        /// From one pair of a constant slice to the next, and within a pair to its key and value.
        stride: usize,
        offsets: [usize; 2],
    },
    Choice {
        docs: &'static [&'static str],
        variants: &'static [Variant],
    },
    Object {
        docs: &'static [&'static str],
        fields: &'static [Field],
    },
}

impl Shape {
    /// Anything.
    pub const ANY: Self = Self(Kind::Any);
    /// An object of any fields.
    pub const RECORD: Self = Self(Kind::Record);

    #[doc(hidden)]
    pub const fn object(docs: &'static [&'static str], fields: &'static [Field]) -> Self {
        Self(Kind::Object { docs, fields })
    }

    #[doc(hidden)]
    pub const fn choice(docs: &'static [&'static str], variants: &'static [Variant]) -> Self {
        Self(Kind::Choice { docs, variants })
    }

    pub(crate) const fn is_object(&self) -> bool {
        matches!(self.0, Kind::Object { .. })
    }
}

impl std::fmt::Display for Shape {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut text = Text::measure();
        text.schema(self);
        let mut bytes = vec![0; text.len()];
        Text::into(&mut bytes).schema(self);
        f.write_str(&String::from_utf8_lossy(&bytes))
    }
}

impl Serialize for Shape {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let value: serde_json::Value = serde_json::from_str(&self.to_string()).map_err(serde::ser::Error::custom)?;
        value.serialize(serializer)
    }
}

/// One field of an object. Made by `config!`.
#[doc(hidden)]
#[derive(Clone, Copy, Debug)]
pub struct Field {
    pub(crate) name: &'static str,
    pub(crate) docs: &'static [&'static str],
    pub(crate) shape: &'static Shape,
    /// A `T::Constant` of the type whose shape it is.
    pub(crate) default: Option<*const ()>,
    pub(crate) required: bool,
}

// SAFETY: a default is a constant, which nobody changes.
unsafe impl Send for Field {}
// SAFETY: as above.
unsafe impl Sync for Field {}

impl Field {
    pub const fn new<T: Schema>(
        name: &'static str,
        docs: &'static [&'static str],
        default: Option<&'static T::Constant>,
    ) -> Self {
        let default = match default {
            Some(constant) => Some((&raw const *constant).cast()),
            None => None,
        };
        Self { name, docs, shape: &T::SHAPE, required: T::REQUIRED && default.is_none(), default }
    }
}

/// One name of a unit enum. Made by `config!`.
#[doc(hidden)]
#[derive(Clone, Copy, Debug)]
pub struct Variant {
    pub name: &'static str,
    pub docs: &'static [&'static str],
}

/// A type whose JSON Schema is known when the plugin is compiled: it stands in the manifest, so that a host can check
/// a configuration, fill its defaults in, and show it, without running the plugin.
///
/// bool, the integers, f32, f64, char, String, PathBuf, Option, Vec, maps of String, `serde_json::Value`, and what is
/// declared in [`config!`](crate::config).
///
/// # Safety
/// [`SHAPE`](Self::SHAPE) describes how a [`Constant`](Self::Constant) lies in memory: defaults are read by it. Leave
/// it to `config!`.
#[diagnostic::on_unimplemented(
    message = "`{Self}` has no schema that a manifest could hold",
    label = "no schema is known for this type",
    note = "declare it inside `config! {{ struct … }}` (an enum without data is fine, too), or use one of bool, integers, f32, f64, \
            char, String, PathBuf, Option<T>, Vec<T>, BTreeMap<String, T>, HashMap<String, T>, serde_json::Value"
)]
pub unsafe trait Schema: Serialize + DeserializeOwned {
    /// What it looks like in JSON.
    const SHAPE: Shape;
    /// Whether a field of this type must be given.
    #[doc(hidden)]
    const REQUIRED: bool = true;
    /// How a default is written in a `config!`: `&str` for a String, a slice for a Vec.
    type Constant: Copy + 'static;
    #[doc(hidden)]
    fn from_constant(constant: Self::Constant) -> Self;
    /// What a missing field is, if anything.
    #[doc(hidden)]
    fn missing() -> Option<Self> {
        None
    }
}

/// The default of a field that has none of its own to write: `retry: Retry = Defaults` takes every default of `Retry`.
#[derive(Clone, Copy, Debug)]
pub struct Defaults;

/// The type of a default that cannot be written, as there is none but null.
#[derive(Clone, Copy, Debug)]
pub enum NoDefault {}

macro_rules! itself {
    ($($type:ty => $kind:expr;)*) => {
        $(
            // SAFETY: the constant is the value, and the shape says so.
            unsafe impl Schema for $type {
                const SHAPE: Shape = Shape($kind);
                type Constant = Self;
                fn from_constant(constant: Self) -> Self {
                    constant
                }
            }
        )*
    };
}

itself! {
    () => Kind::Null;
    bool => Kind::Boolean;
    char => Kind::Character;
    f32 => Kind::Number { bytes: 4 };
    f64 => Kind::Number { bytes: 8 };
    i8 => Kind::Integer { bytes: 1, signed: true };
    i16 => Kind::Integer { bytes: 2, signed: true };
    i32 => Kind::Integer { bytes: 4, signed: true };
    i64 => Kind::Integer { bytes: 8, signed: true };
    i128 => Kind::Integer { bytes: 16, signed: true };
    isize => Kind::Integer { bytes: size_of::<isize>(), signed: true };
    u8 => Kind::Integer { bytes: 1, signed: false };
    u16 => Kind::Integer { bytes: 2, signed: false };
    u32 => Kind::Integer { bytes: 4, signed: false };
    u64 => Kind::Integer { bytes: 8, signed: false };
    u128 => Kind::Integer { bytes: 16, signed: false };
    usize => Kind::Integer { bytes: size_of::<usize>(), signed: false };
}

// SAFETY: the constant is a &str, as Kind::Text says.
unsafe impl Schema for String {
    const SHAPE: Shape = Shape(Kind::Text);
    type Constant = &'static str;
    fn from_constant(constant: &'static str) -> Self {
        constant.to_owned()
    }
}

// SAFETY: the constant is a &str, as Kind::Path says.
unsafe impl Schema for PathBuf {
    const SHAPE: Shape = Shape(Kind::Path);
    type Constant = &'static str;
    fn from_constant(constant: &'static str) -> Self {
        constant.into()
    }
}

// SAFETY: there are no constants of it.
unsafe impl Schema for serde_json::Value {
    const SHAPE: Shape = Shape::ANY;
    type Constant = NoDefault;
    fn from_constant(constant: NoDefault) -> Self {
        match constant {}
    }
}

// SAFETY: there are no constants of it.
unsafe impl<T: Schema> Schema for Option<T> {
    const SHAPE: Shape = Shape(Kind::Optional(&T::SHAPE));
    const REQUIRED: bool = false;
    type Constant = NoDefault;
    fn from_constant(constant: NoDefault) -> Self {
        match constant {}
    }
    fn missing() -> Option<Self> {
        Some(None)
    }
}

// SAFETY: the constant is a slice of the item's constants, whose size is the stride.
unsafe impl<T: Schema> Schema for Vec<T> {
    const SHAPE: Shape = Shape(Kind::Array { item: &T::SHAPE, stride: size_of::<T::Constant>() });
    type Constant = &'static [T::Constant];
    fn from_constant(constant: Self::Constant) -> Self {
        constant.iter().map(|item| T::from_constant(*item)).collect()
    }
}

type Pair<T> = (&'static str, <T as Schema>::Constant);

impl Kind {
    const fn map<T: Schema>() -> Self {
        let offsets = [offset_of!(Pair<T>, 0), offset_of!(Pair<T>, 1)];
        Self::Map { value: &T::SHAPE, stride: size_of::<Pair<T>>(), offsets }
    }
}

// SAFETY: the constant is a slice of pairs, whose layout `Kind::map` takes from the type.
unsafe impl<T: Schema> Schema for BTreeMap<String, T> {
    const SHAPE: Shape = Shape(Kind::map::<T>());
    type Constant = &'static [Pair<T>];
    fn from_constant(constant: Self::Constant) -> Self {
        constant.iter().map(|(key, value)| ((*key).to_owned(), T::from_constant(*value))).collect()
    }
}

// SAFETY: as for BTreeMap.
unsafe impl<T: Schema, S: BuildHasher + Default + 'static> Schema for HashMap<String, T, S> {
    const SHAPE: Shape = Shape(Kind::map::<T>());
    type Constant = &'static [Pair<T>];
    fn from_constant(constant: Self::Constant) -> Self {
        constant.iter().map(|(key, value)| ((*key).to_owned(), T::from_constant(*value))).collect()
    }
}

/// No fields: the configuration of a plugin that has none, and the argument of a method that takes none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Empty {}

// SAFETY: the constant is never read: an object's default is made from its fields.
unsafe impl Schema for Empty {
    const SHAPE: Shape = Shape::object(&[], &[]);
    type Constant = Defaults;
    fn from_constant(_: Defaults) -> Self {
        Self {}
    }
}

impl Serialize for Empty {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_map(Some(0))?.end()
    }
}

/// `{}`, or null: a method without an argument may be called with none.
impl<'de> Deserialize<'de> for Empty {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Nothing;
        impl<'de> Visitor<'de> for Nothing {
            type Value = Empty;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an empty object")
            }
            fn visit_unit<E: de::Error>(self) -> Result<Empty, E> {
                Ok(Empty {})
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Empty, A::Error> {
                match map.next_key::<String>()? {
                    None => Ok(Empty {}),
                    Some(key) => Err(de::Error::unknown_field(&key, &[])),
                }
            }
        }
        deserializer.deserialize_any(Nothing)
    }
}
