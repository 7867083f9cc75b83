//! What a library says of itself, made by the compiler from the types of its plugins.

use ferrule_sys::{FERRULE_ABI_MAJOR, FERRULE_ABI_MINOR, FERRULE_MAGIC, ferrule_instance, ferrule_manifest};

use crate::kinds::Plugin;
use crate::methods::ErasedMethod;
use crate::render::Text;
use crate::schema::Shape;
use crate::{Host, Result};

/// JSON, the media type of everything that names none.
pub(crate) const JSON: &str = "application/json";
/// What nobody has said anything of.
pub(crate) const BYTES: &str = "application/octet-stream";
/// A JSON object a line.
pub(crate) const LINES: &str = "application/x-ndjson";

/// A library and its plugins. Made by `export_plugins!`.
#[doc(hidden)]
#[derive(Debug)]
pub struct Library {
    pub name: &'static str,
    pub version: &'static str,
    pub description: &'static str,
    pub license: &'static str,
    pub plugins: &'static [Entry],
}

/// A plugin, as its library has it: what it is, and how one is made.
#[doc(hidden)]
#[derive(Clone, Copy, Debug)]
pub struct Entry {
    pub(crate) info: PluginInfo,
    pub(crate) instance: fn(&[u8], &Host) -> Result<*mut ferrule_instance>,
}

impl Entry {
    pub const fn new<K, P: Plugin<K>>(docs: &'static [&'static str]) -> Self {
        let mut info = P::INFO;
        info.docs = docs;
        Self { info, instance: P::instance }
    }
}

/// A plugin, as its manifest has it.
#[doc(hidden)]
#[derive(Clone, Copy, Debug)]
pub struct PluginInfo {
    pub(crate) name: &'static str,
    pub(crate) kind: &'static str,
    /// Whether calls come at once, from several threads. Else one at a time.
    pub(crate) concurrent: bool,
    pub(crate) docs: &'static [&'static str],
    pub(crate) config: &'static Shape,
    /// The methods of its kind. Their places are their numbers.
    pub(crate) contract: &'static [MethodInfo],
    /// Its own, numbered on.
    pub(crate) extra: &'static [ErasedMethod],
}

/// A method, as a manifest has it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct MethodInfo {
    pub(crate) name: &'static str,
    pub(crate) mode: &'static str,
    pub(crate) input: &'static str,
    pub(crate) output: &'static str,
    pub(crate) args: Option<Described>,
    pub(crate) result: Option<Described>,
    pub(crate) cancellable: bool,
    pub(crate) need_feed: bool,
    pub(crate) feed_input: &'static str,
    pub(crate) feed: Option<Described>,
    /// Items, or the end, may carry metadata.
    pub(crate) metadata: bool,
    pub(crate) description: &'static str,
    /// It takes `&mut self`. Not in the manifest.
    pub(crate) exclusive: bool,
}

impl MethodInfo {
    pub(crate) const fn unary(name: &'static str) -> Self {
        Self {
            name,
            mode: "unary",
            input: JSON,
            output: JSON,
            args: None,
            result: None,
            cancellable: false,
            need_feed: false,
            feed_input: "",
            feed: None,
            metadata: false,
            description: "",
            exclusive: false,
        }
    }
}

/// What is said of a method's input or output.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Described {
    Shape(&'static Shape),
    /// A media type, and what describes it there.
    Text(&'static str, &'static str),
}

impl Described {
    pub(crate) const fn shape(shape: Option<&'static Shape>) -> Option<Self> {
        match shape {
            Some(shape) => Some(Self::Shape(shape)),
            None => None,
        }
    }

    pub(crate) const fn text(media_type: &'static str, text: &'static str) -> Option<Self> {
        if text.is_empty() { None } else { Some(Self::Text(media_type, text)) }
    }
}

/// The number of a method: its place in the contract, or after it among the plugin's own.
pub(crate) fn number_of(contract: &[MethodInfo], extra: &[ErasedMethod], name: &str) -> Option<i32> {
    let all = contract.iter().chain(extra.iter().map(|method| &method.info));
    all.zip(0..).find_map(|(method, number)| (method.name == name).then_some(number))
}

/// The section `.ferrule`: header, JSON, and what fills it up to its alignment.
#[doc(hidden)]
#[repr(C)]
#[derive(Debug)]
pub struct Image<const N: usize> {
    head: ferrule_manifest,
    json: [u8; N],
}

impl<const N: usize> Image<N> {
    pub const fn head(&'static self) -> *const ferrule_manifest {
        (&raw const *self).cast()
    }
}

impl Library {
    /// Bytes of its JSON. What is wrong with the library stops the compiler here.
    pub const fn measure(&self) -> usize {
        self.check();
        let mut text = Text::measure();
        text.library(self);
        text.len()
    }

    pub const fn image<const N: usize>(&self) -> Image<N> {
        let mut json = [0; N];
        let mut text = Text::into(&mut json);
        text.library(self);
        assert!(text.len() == N);
        let head = ferrule_manifest {
            magic: FERRULE_MAGIC,
            abi_major: FERRULE_ABI_MAJOR,
            abi_minor: FERRULE_ABI_MINOR,
            json_len: N as u64,
        };
        Image { head, json }
    }

    const fn check(&self) {
        let mut i = 0;
        while i < self.plugins.len() {
            let plugin = &self.plugins[i].info;
            assert!(
                is_name(plugin.name),
                "a plugin's NAME consists of a-z, 0-9, `-` and `_`, and begins with a letter or a digit"
            );
            assert!(plugin.contract.len() + plugin.extra.len() > 0, "a plugin without METHODS can do nothing");
            assert!(plugin.config.is_object(), "a plugin's Config is a struct of `config!`, or Empty");
            let mut j = 0;
            while j < i {
                assert!(
                    !same(plugin.name, self.plugins[j].info.name),
                    "two plugins of this library have the same NAME"
                );
                j += 1;
            }
            let mut j = 0;
            while j < plugin.extra.len() {
                let name = plugin.extra[j].info.name;
                assert!(!name.is_empty(), "a method in METHODS has no name");
                let method = &plugin.extra[j].info;
                assert!(
                    plugin.concurrent || same(method.mode, "unary"),
                    "only a runner has streams: METHODS of a function, source or sink are made by `unary`"
                );
                assert!(
                    !plugin.concurrent || !method.exclusive,
                    "a runner's methods run beside each other: they take &self, and what changes stands in a Mutex or an atomic"
                );
                let mut k = 0;
                while k < plugin.contract.len() {
                    assert!(!same(name, plugin.contract[k].name), "METHODS names a method that every such plugin has");
                    k += 1;
                }
                let mut k = 0;
                while k < j {
                    assert!(!same(name, plugin.extra[k].info.name), "METHODS names a method twice");
                    k += 1;
                }
                j += 1;
            }
            i += 1;
        }
    }
}

const fn is_name(name: &str) -> bool {
    let name = name.as_bytes();
    let mut i = 0;
    while i < name.len() {
        match name[i] {
            b'a'..=b'z' | b'0'..=b'9' => {}
            b'-' | b'_' if i > 0 => {}
            _ => return false,
        }
        i += 1;
    }
    !name.is_empty()
}

const fn same(a: &str, b: &str) -> bool {
    let (a, b) = (a.as_bytes(), b.as_bytes());
    if a.len() != b.len() {
        return false;
    }
    let mut i = 0;
    while i < a.len() {
        if a[i] != b[i] {
            return false;
        }
        i += 1;
    }
    true
}
