//! `config!`: types that know their own schema.

use std::fmt::Display;

use serde::de::{self, DeserializeOwned, DeserializeSeed, Deserializer, Visitor};

use crate::schema::Schema;
use crate::{Error, Result};

/// Declares types whose JSON Schema the manifest holds: configurations, and what methods take and answer with.
///
/// A struct's fields are bool, integers, f32, f64, char, String, PathBuf, Option, Vec, BTreeMap and HashMap of String,
/// `serde_json::Value`, and other types of `config!`. A field must be given, unless it has a default or is an Option.
/// What is not declared is refused, and an integer must fit. Doc comments are the schema's descriptions.
///
/// ```
/// use std::{collections::BTreeMap, path::PathBuf, time::Duration};
/// use ferrule_plugin::prelude::*;
///
/// config! {
///     /// Where to look things up.
///     pub struct Lookup {
///         /// The table, a CSV file.
///         path: PathBuf,
///         /// The columns to compare.
///         keys: Vec<String> = &["carrier"],
///         delimiter: char = ',',
///         on_miss: OnMiss = OnMiss::KeepAsIs,
///         rename: BTreeMap<String, String> = &[("name", "airline")],
///         limit: Option<u64>,
///         retry: Retry = Defaults,
///     }
///     pub struct Retry {
///         attempts: u8 = 3,
///         /// Seconds.
///         wait: f64 = 0.25,
///     }
///     /// What to do with a record that is not found.
///     pub enum OnMiss {
///         KeepAsIs,
///         /// It leaves the flow.
///         Skip,
///         Fail = "error",
///     }
/// }
///
/// let config: Lookup = serde_json::from_str(r#"{"path": "airlines.csv", "on_miss": "skip"}"#)?;
/// assert_eq!(config.on_miss, OnMiss::Skip);
/// assert_eq!((config.delimiter, config.retry.attempts, config.limit), (',', 3, None));
/// let error = serde_json::from_str::<Lookup>(r#"{"path": "x", "retry": {"attempts": 256}}"#).unwrap_err();
/// assert!(error.to_string().starts_with(".retry.attempts: invalid value: integer `256`, expected u8"), "{error}");
/// # serde_json::Result::Ok(())
/// ```
///
/// A default is a constant: `&str` for String and PathBuf, a slice for a Vec (`&["a"]`) and of pairs for a map,
/// `Defaults` for a struct all of whose fields have one. An enum's names in JSON are its own in snake case, unless
/// another is given. Every type derives Clone and Debug, an enum also Copy, PartialEq and Eq; Serialize and
/// Deserialize are written by the macro.
#[macro_export]
macro_rules! config {
    () => {};
    (
        $(#[$($meta:tt)*])* $vis:vis struct $name:ident {
            $($(#[$($field_meta:tt)*])* $field_vis:vis $field:ident : $type:ty $(= $default:expr)?),* $(,)?
        }
        $($rest:tt)*
    ) => {
        $(#[$($meta)*])*
        #[derive(Clone, Debug)]
        $vis struct $name {
            $($(#[$($field_meta)*])* $field_vis $field: $type),*
        }

        const _: () = {
            use $crate::__private as __ferrule;

            const __FERRULE_NAMES: &[&str] = &[$(__ferrule::plain_name(stringify!($field))),*];

            #[allow(non_camel_case_types, clippy::upper_case_acronyms)]
            enum __FerruleField { $($field,)* __FerruleNone }

            // SAFETY: the constant is never read: an object's default is made from its fields.
            unsafe impl $crate::Schema for $name {
                const SHAPE: $crate::Shape = $crate::Shape::object(
                    &[$($crate::__doc!($($meta)*)),*],
                    {
                        const FIELDS: &[__ferrule::Field] = &[$(__ferrule::Field::new::<$type>(
                            __ferrule::plain_name(stringify!($field)),
                            &[$($crate::__doc!($($field_meta)*)),*],
                            $crate::__default!($type $(, $default)?),
                        )),*];
                        FIELDS
                    },
                );
                type Constant = $crate::Defaults;
                fn from_constant(_: $crate::Defaults) -> Self {
                    // The manifest was rendered, so every field has a default.
                    __ferrule::Deserialize::deserialize(__ferrule::no_fields())
                        .unwrap_or_else(|error| ::core::panic!("{}", error))
                }
            }

            impl<'de> __ferrule::Deserialize<'de> for $name {
                fn deserialize<D: __ferrule::Deserializer<'de>>(
                    deserializer: D,
                ) -> ::core::result::Result<Self, D::Error> {
                    struct Fields;
                    impl<'de> __ferrule::Visitor<'de> for Fields {
                        type Value = $name;

                        fn expecting(&self, f: &mut ::core::fmt::Formatter<'_>) -> ::core::fmt::Result {
                            f.write_str(concat!("an object (", stringify!($name), ")"))
                        }

                        #[allow(unused_mut, unused_variables, unreachable_code)]
                        fn visit_map<A: __ferrule::MapAccess<'de>>(
                            self,
                            mut map: A,
                        ) -> ::core::result::Result<$name, A::Error> {
                            $(let mut $field: ::core::option::Option<$type> = ::core::option::Option::None;)*
                            while let ::core::option::Option::Some(index) =
                                map.next_key_seed(__ferrule::Names(__FERRULE_NAMES))?
                            {
                                $(if index == __FerruleField::$field as usize {
                                    $field = ::core::option::Option::Some(__ferrule::field_value(
                                        &mut map,
                                        $field.is_some(),
                                        __FERRULE_NAMES[index],
                                    )?);
                                    continue;
                                })*
                            }
                            ::core::result::Result::Ok($name {
                                $($field: match $field {
                                    ::core::option::Option::Some(value) => value,
                                    ::core::option::Option::None => $crate::__missing!(
                                        $type, __FERRULE_NAMES[__FerruleField::$field as usize] $(, $default)?
                                    ),
                                }),*
                            })
                        }
                    }
                    deserializer.deserialize_map(Fields)
                }
            }

            impl __ferrule::Serialize for $name {
                fn serialize<S: __ferrule::Serializer>(
                    &self,
                    serializer: S,
                ) -> ::core::result::Result<S::Ok, S::Error> {
                    #[allow(unused_mut)]
                    let mut object = __ferrule::Serializer::serialize_struct(
                        serializer,
                        stringify!($name),
                        __FerruleField::__FerruleNone as usize,
                    )?;
                    $(__ferrule::SerializeStruct::serialize_field(
                        &mut object,
                        const { __ferrule::plain_name(stringify!($field)) },
                        &self.$field,
                    )?;)*
                    __ferrule::SerializeStruct::end(object)
                }
            }
        };

        $crate::config! { $($rest)* }
    };
    (
        $(#[$($meta:tt)*])* $vis:vis enum $name:ident {
            $($(#[$($variant_meta:tt)*])* $variant:ident $(= $text:literal)?),+ $(,)?
        }
        $($rest:tt)*
    ) => {
        $(#[$($meta)*])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(u8)]
        $vis enum $name {
            $($(#[$($variant_meta)*])* $variant),+
        }

        const _: () = {
            use $crate::__private as __ferrule;

            const __FERRULE_NAMES: &[&str] = &[$($crate::__variant!($variant $(, $text)?)),+];

            const __FERRULE_VARIANTS: &[__ferrule::Variant] = &[$(__ferrule::Variant {
                name: __FERRULE_NAMES[$name::$variant as usize],
                docs: &[$($crate::__doc!($($variant_meta)*)),*],
            }),+];

            // SAFETY: an enum without data that is repr(u8) is the place of its variant, counted from zero.
            unsafe impl $crate::Schema for $name {
                const SHAPE: $crate::Shape = $crate::Shape::choice(
                    &[$($crate::__doc!($($meta)*)),*],
                    __FERRULE_VARIANTS,
                );
                type Constant = Self;
                fn from_constant(constant: Self) -> Self {
                    constant
                }
            }

            impl<'de> __ferrule::Deserialize<'de> for $name {
                fn deserialize<D: __ferrule::Deserializer<'de>>(
                    deserializer: D,
                ) -> ::core::result::Result<Self, D::Error> {
                    const ALL: &[$name] = &[$($name::$variant),+];
                    __ferrule::variant(deserializer, __FERRULE_NAMES).map(|index| ALL[index])
                }
            }

            impl __ferrule::Serialize for $name {
                fn serialize<S: __ferrule::Serializer>(
                    &self,
                    serializer: S,
                ) -> ::core::result::Result<S::Ok, S::Error> {
                    serializer.serialize_str(__FERRULE_NAMES[*self as usize])
                }
            }
        };

        $crate::config! { $($rest)* }
    };
    ($(#[$($meta:tt)*])* $vis:vis enum $name:ident $($rest:tt)*) => {
        ::core::compile_error!(concat!(
            "config!: the variants of enum `", stringify!($name), "` must be without data: `Name`, or `Name = \"text\"`"
        ));
    };
    ($(#[$($meta:tt)*])* $vis:vis struct $name:ident $($rest:tt)*) => {
        ::core::compile_error!(concat!(
            "config!: struct `", stringify!($name), "` must have named fields (`name: Type` or `name: Type = default`, \
             separated by commas) and no generics"
        ));
    };
    ($($rest:tt)*) => {
        ::core::compile_error!("config! holds structs with named fields and enums without data, nothing else");
    };
}

/// The text of one attribute, if it is a doc comment.
#[doc(hidden)]
#[macro_export]
macro_rules! __doc {
    (doc = $text:expr) => {
        $text
    };
    ($($other:tt)*) => {
        ""
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! __default {
    ($type:ty) => {
        ::core::option::Option::None
    };
    ($type:ty, $default:expr) => {
        ::core::option::Option::Some({
            const __FERRULE_DEFAULT: <$type as $crate::Schema>::Constant = $default;
            &__FERRULE_DEFAULT
        })
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! __missing {
    ($type:ty, $name:expr) => {
        __ferrule::missing::<$type, A::Error>($name)?
    };
    ($type:ty, $name:expr, $default:expr) => {
        <$type as $crate::Schema>::from_constant($default)
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! __variant {
    ($variant:ident) => {{
        const __FERRULE_LEN: usize = __ferrule::snake_len(stringify!($variant));
        const __FERRULE_BYTES: [u8; __FERRULE_LEN] = __ferrule::snake(stringify!($variant));
        __ferrule::text(&__FERRULE_BYTES)
    }};
    ($variant:ident, $text:literal) => {
        $text
    };
}

/// An identifier without `r#`.
pub const fn plain_name(name: &'static str) -> &'static str {
    match name.as_bytes() {
        [b'r', b'#', rest @ ..] => text(rest),
        _ => name,
    }
}

/// A name that is known to be UTF-8.
pub const fn text(bytes: &'static [u8]) -> &'static str {
    match std::str::from_utf8(bytes) {
        Ok(text) => text,
        Err(_) => panic!("a name is UTF-8"),
    }
}

/// How long [`snake`] is.
pub const fn snake_len(name: &str) -> usize {
    snake_into(name, &mut [])
}

/// A variant's name in JSON.
pub const fn snake<const N: usize>(name: &str) -> [u8; N] {
    let mut bytes = [0; N];
    snake_into(name, &mut bytes);
    bytes
}

/// `KeepAsIs` as `keep_as_is`, `HTTPProxy` as `http_proxy`.
const fn snake_into(name: &str, out: &mut [u8]) -> usize {
    let name = name.as_bytes();
    let (mut i, mut len) = (0, 0);
    while i < name.len() {
        let byte = name[i];
        let after_word = i > 0 && (name[i - 1].is_ascii_lowercase() || name[i - 1].is_ascii_digit());
        let before_word =
            i > 0 && name[i - 1].is_ascii_uppercase() && i + 1 < name.len() && name[i + 1].is_ascii_lowercase();
        if byte.is_ascii_uppercase() && (after_word || before_word) {
            if len < out.len() {
                out[len] = b'_';
            }
            len += 1;
        }
        if len < out.len() {
            out[len] = byte.to_ascii_lowercase();
        }
        len += 1;
        i += 1;
    }
    len
}

/// Reads a key as its place in a list of names.
#[derive(Debug)]
pub struct Names(pub &'static [&'static str]);

impl<'de> DeserializeSeed<'de> for Names {
    type Value = usize;
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<usize, D::Error> {
        deserializer.deserialize_identifier(self)
    }
}

impl Visitor<'_> for Names {
    type Value = usize;
    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a field's name")
    }
    fn visit_str<E: de::Error>(self, name: &str) -> Result<usize, E> {
        self.0.iter().position(|known| *known == name).ok_or_else(|| E::unknown_field(name, self.0))
    }
}

/// Reads a unit variant as its place in a list of names.
pub fn variant<'de, D: Deserializer<'de>>(deserializer: D, names: &'static [&'static str]) -> Result<usize, D::Error> {
    struct Variants(&'static [&'static str]);
    impl Visitor<'_> for Variants {
        type Value = usize;
        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            write!(f, "one of {}", self.0.join(", "))
        }
        fn visit_str<E: de::Error>(self, name: &str) -> Result<usize, E> {
            self.0.iter().position(|known| *known == name).ok_or_else(|| E::unknown_variant(name, self.0))
        }
    }
    deserializer.deserialize_str(Variants(names))
}

/// The value of a field. An error names the field: `.retry.attempts: …`.
pub fn field_value<'de, A: de::MapAccess<'de>, T: de::Deserialize<'de>>(
    map: &mut A,
    again: bool,
    name: &'static str,
) -> Result<T, A::Error> {
    if again {
        return Err(de::Error::duplicate_field(name));
    }
    map.next_value().map_err(|error| in_field(name, &error))
}

#[cold]
fn in_field<E: de::Error>(name: &str, error: &impl Display) -> E {
    let error = error.to_string();
    E::custom(format_args!(".{name}{}{error}", if error.starts_with('.') { "" } else { ": " }))
}

/// What a field without a default is when it is not given.
pub fn missing<T: Schema, E: de::Error>(name: &'static str) -> Result<T, E> {
    T::missing().ok_or_else(|| E::missing_field(name))
}

/// A deserializer of an object without fields.
pub fn no_fields() -> impl Deserializer<'static, Error = de::value::Error> {
    de::value::MapDeserializer::new(std::iter::empty::<(&'static str, bool)>())
}

/// What serde_json says of a value that is no text of a file: without line and column, and `retry.attempts`, not
/// `.retry.attempts`.
#[cold]
pub(crate) fn explain(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let text = match text.rsplit_once(" at line ") {
        Some((text, _)) if !error.is_syntax() => text,
        _ => &text,
    };
    text.strip_prefix('.').unwrap_or(text).to_owned()
}

/// A plugin's configuration, as create is given it.
pub(crate) fn parse<T: DeserializeOwned>(config: &[u8]) -> Result<T> {
    let config = if config.is_empty() { b"{}" } else { config };
    serde_json::from_slice(config).map_err(|error| Error::invalid_config(explain(&error)))
}
