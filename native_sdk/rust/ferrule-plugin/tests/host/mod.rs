//! A host for the tests: what calls a library through its three functions, by the rules of ferrule.h.
#![allow(dead_code, unreachable_pub, missing_docs)] // no test uses all of it

use std::ffi::c_char;
use std::sync::atomic::{AtomicI32, AtomicU64, Ordering};
use std::sync::{Condvar, Mutex};

use ferrule_plugin::Level;
use ferrule_sys::*;
use serde_json::Value;

unsafe extern "C" {
    fn ferrule_plugin_manifest() -> *const ferrule_manifest;
    fn ferrule_plugin_create(
        host: *const ferrule_host,
        call: *const ferrule_call,
        plugin: *const c_char,
        plugin_len: usize,
        config: *const c_char,
        config_len: usize,
        out: *mut *mut ferrule_instance,
        error: *mut ferrule_buffer,
    ) -> i32;
    fn ferrule_plugin_destroy(instance: *mut ferrule_instance);
}

/// The manifest, whose header fits.
pub fn manifest() -> Value {
    // SAFETY: the manifest is as long as it says.
    let (head, json) = unsafe {
        let head = ferrule_plugin_manifest();
        (*head, std::slice::from_raw_parts(head.add(1).cast::<u8>(), (*head).json_len as usize))
    };
    assert_eq!((head.magic, head.abi_major, head.abi_minor), (FERRULE_MAGIC, FERRULE_ABI_MAJOR, FERRULE_ABI_MINOR));
    serde_json::from_slice(json).expect("JSON")
}

pub static LOG: Mutex<Vec<String>> = Mutex::new(Vec::new());

unsafe extern "C" fn log_enabled(_host: *const ferrule_host, _id: u64, level: i32) -> i32 {
    i32::from(level >= Level::Info as i32)
}

unsafe extern "C" fn log(
    _host: *const ferrule_host,
    id: u64,
    level: i32,
    message: *const c_char,
    message_len: usize,
    _fields: *const c_char,
    _fields_len: usize,
) {
    // SAFETY: a text with its length.
    let message = unsafe { std::slice::from_raw_parts(message.cast::<u8>(), message_len) };
    let line = format!("{id} {level} {}", String::from_utf8_lossy(message));
    eprintln!("{line}"); // a failed assertion is a panic, too, and is told nowhere else
    LOG.lock().expect("a log").push(line);
}

/// The streams that were woken, an entry a wake.
static WOKEN: (Mutex<Vec<u64>>, Condvar) = (Mutex::new(Vec::new()), Condvar::new());

unsafe extern "C" fn wake(_host: *const ferrule_host, id: u64) {
    WOKEN.0.lock().expect("a list").push(id);
    WOKEN.1.notify_all();
}

/// How often a stream was woken since this was asked last; it waits for the first time.
pub fn woken(id: u64) -> usize {
    let mut list = WOKEN.1.wait_while(WOKEN.0.lock().expect("a list"), |list| !list.contains(&id)).expect("a list");
    let before = list.len();
    list.retain(|other| *other != id);
    before - list.len()
}

/// How often a stream was woken so far.
pub fn wakes(id: u64) -> usize {
    WOKEN.0.lock().expect("a list").iter().filter(|other| **other == id).count()
}

struct Table(ferrule_host);
// SAFETY: its functions may be called from any thread.
unsafe impl Sync for Table {}

static HOST: Table = Table(ferrule_host {
    struct_size: size_of::<ferrule_host>() as u32,
    flags: 0,
    abi_major: FERRULE_ABI_MAJOR,
    abi_minor: FERRULE_ABI_MINOR,
    log_enabled: Some(log_enabled),
    log: Some(log),
    wake: Some(wake),
    query: None,
});

const GUARD: &[u8] = b"what was there before";

/// A buffer that moves at every reserve, so that whoever keeps a pointer is found out, and that gives up at `limit`.
#[repr(C)]
pub struct Strict {
    raw: ferrule_buffer,
    bytes: Vec<u8>,
    limit: usize,
}

impl Strict {
    pub fn new(limit: usize) -> Box<Self> {
        let mut bytes = GUARD.to_vec();
        let raw = ferrule_buffer {
            struct_size: size_of::<ferrule_buffer>() as u32,
            flags: 0,
            data: bytes.as_mut_ptr(),
            len: GUARD.len(),
            capacity: GUARD.len(),
            reserve: Some(Self::reserve),
        };
        Box::new(Self { raw, bytes, limit })
    }
    unsafe extern "C" fn reserve(raw: *mut ferrule_buffer, additional: usize) -> i32 {
        // SAFETY: `raw` is the first field of a repr(C) struct, and was made from the whole of it.
        let this = unsafe { &mut *raw.cast::<Self>() };
        if additional > this.limit {
            return FERRULE_OUT_OF_MEMORY;
        }
        let mut moved = vec![0xee; this.raw.len + additional];
        moved[..this.raw.len].copy_from_slice(&this.bytes[..this.raw.len]);
        this.bytes.fill(0xdd);
        this.bytes = moved;
        (this.raw.data, this.raw.capacity) = (this.bytes.as_mut_ptr(), this.bytes.len());
        FERRULE_OK
    }
    pub fn lend(&mut self) -> *mut ferrule_buffer {
        (&raw mut *self).cast()
    }
    /// What was appended; what was there before must be as it was.
    pub fn text(&self) -> String {
        assert!(GUARD.len() <= self.raw.len && self.raw.len <= self.raw.capacity);
        assert_eq!(&self.bytes[..GUARD.len()], GUARD);
        String::from_utf8(self.bytes[GUARD.len()..self.raw.len].to_vec()).expect("UTF-8")
    }
    pub fn error(&self) -> Value {
        match self.text().as_str() {
            "" => Value::Null,
            text => serde_json::from_str(text).expect("an error is an object"),
        }
    }
}

pub fn with_call<R>(metadata: &str, body: impl FnOnce(*const ferrule_call) -> R) -> R {
    with_metadata(42, metadata, std::ptr::null_mut(), body)
}

pub fn with_metadata<R>(
    id: u64,
    metadata: &str,
    metadata_out: *mut ferrule_buffer,
    body: impl FnOnce(*const ferrule_call) -> R,
) -> R {
    let cancelled = AtomicI32::new(0);
    body(&ferrule_call {
        struct_size: size_of::<ferrule_call>() as u32,
        flags: 0,
        id,
        cancelled: cancelled.as_ptr(),
        timeout_ms: -1,
        metadata: if metadata.is_empty() { std::ptr::null() } else { metadata.as_ptr().cast() },
        metadata_len: metadata.len(),
        metadata_out,
    })
}

pub fn create(plugin: &str, config: &str) -> (i32, *mut ferrule_instance, Value) {
    let (mut out, mut error) = (std::ptr::null_mut(), Strict::new(usize::MAX));
    // SAFETY: by the rules of the header.
    let status = with_call("", |call| unsafe {
        let (plugin, plugin_len, config, config_len) =
            (plugin.as_ptr().cast(), plugin.len(), config.as_ptr().cast(), config.len());
        ferrule_plugin_create(&HOST.0, call, plugin, plugin_len, config, config_len, &mut out, error.lend())
    });
    assert_eq!(status == FERRULE_OK, !out.is_null());
    (status, out, error.error())
}

pub fn made(plugin: &str, config: &str) -> *mut ferrule_instance {
    let (status, instance, error) = create(plugin, config);
    assert_eq!((status, error), (FERRULE_OK, Value::Null));
    instance
}

pub fn destroy(instance: *mut ferrule_instance) {
    // SAFETY: it is used no more.
    unsafe { ferrule_plugin_destroy(instance) }
}

pub fn ops(instance: *mut ferrule_instance) -> &'static ferrule_instance_ops {
    // SAFETY: a live instance has its table.
    let ops = unsafe { &*(*instance).ops };
    assert_eq!(ops.struct_size as usize, size_of::<ferrule_instance_ops>());
    ops
}

pub fn number(instance: *mut ferrule_instance, name: &str) -> i32 {
    // SAFETY: by the rules of the header.
    unsafe { ops(instance).method.expect("method")(instance, name.as_ptr().cast(), name.len()) }
}

pub fn call_with(
    instance: *mut ferrule_instance,
    method: i32,
    input: &[u8],
    metadata: &str,
    limit: usize,
) -> (i32, String, Value) {
    let (mut out, mut error) = (Strict::new(limit), Strict::new(usize::MAX));
    let pointer = if input.is_empty() { std::ptr::null() } else { input.as_ptr() };
    // SAFETY: by the rules of the header.
    let status = with_call(metadata, |call| unsafe {
        ops(instance).call.expect("call")(instance, method, call, pointer, input.len(), out.lend(), error.lend())
    });
    (status, out.text(), error.error())
}

pub fn call(instance: *mut ferrule_instance, method: i32, input: &[u8]) -> (i32, String, Value) {
    call_with(instance, method, input, "", usize::MAX)
}

pub fn named(instance: *mut ferrule_instance, method: &str, input: &str) -> (i32, String, Value) {
    let number = number(instance, method);
    assert!(number >= 0, "{method}");
    call(instance, number, input.as_bytes())
}

pub fn open(instance: *mut ferrule_instance, input: &str) -> (i32, *mut ferrule_stream, Value) {
    let (mut out, mut error) = (std::ptr::null_mut(), Strict::new(usize::MAX));
    let method = number(instance, "read_data");
    // SAFETY: by the rules of the header.
    let status = with_call("", |call| unsafe {
        let open = ops(instance).open.expect("open");
        open(instance, method, call, input.as_ptr(), input.len(), &mut out, error.lend())
    });
    assert_eq!(status == FERRULE_OK, !out.is_null());
    (status, out, error.error())
}

pub fn stream_ops(stream: *mut ferrule_stream) -> &'static ferrule_stream_ops {
    // SAFETY: a live stream has its table.
    unsafe { &*(*stream).ops }
}

pub fn next(stream: *mut ferrule_stream, timeout_ms: i64) -> (i32, String, Value) {
    let (mut out, mut error) = (Strict::new(usize::MAX), Strict::new(usize::MAX));
    // SAFETY: by the rules of the header.
    let status = unsafe { stream_ops(stream).next.expect("next")(stream, timeout_ms, out.lend(), error.lend()) };
    (status, out.text(), error.error())
}

pub fn position(stream: *mut ferrule_stream) -> String {
    let (mut out, mut error) = (Strict::new(usize::MAX), Strict::new(usize::MAX));
    // SAFETY: by the rules of the header.
    let status = unsafe { stream_ops(stream).position.expect("position")(stream, out.lend(), error.lend()) };
    assert_eq!(status, FERRULE_OK);
    out.text()
}

pub fn message(error: &Value) -> &str {
    error["message"].as_str().expect("an error has a message")
}

pub fn close(stream: *mut ferrule_stream) {
    // SAFETY: it is used no more.
    unsafe { stream_ops(stream).close.expect("close")(stream) }
}

/// A runner's stream, as its host holds it: closed when it is dropped.
pub struct Stream {
    pub raw: *mut ferrule_stream,
    pub id: u64,
    /// What open gave beside it.
    pub opened: String,
}

impl Stream {
    pub fn open(instance: *mut ferrule_instance, method: &str, input: &str) -> Self {
        let (status, stream, error) = Self::try_open(instance, method, input);
        stream.unwrap_or_else(|| panic!("{method}: {status} {error}"))
    }

    pub fn try_open(instance: *mut ferrule_instance, method: &str, input: &str) -> (i32, Option<Self>, Value) {
        static IDS: AtomicU64 = AtomicU64::new(1000);
        let id = IDS.fetch_add(1, Ordering::Relaxed);
        let (mut raw, mut error) = (std::ptr::null_mut(), Strict::new(usize::MAX));
        let (method, mut metadata_out) = (number(instance, method), Strict::new(usize::MAX));
        // SAFETY: by the rules of the header.
        let status = with_metadata(id, "{\"asked\":1}", metadata_out.lend(), |call| unsafe {
            let open = ops(instance).open.expect("open");
            open(instance, method, call, input.as_ptr(), input.len(), &mut raw, error.lend())
        });
        assert_eq!(status == FERRULE_OK, !raw.is_null());
        let opened = metadata_out.text();
        (status, (!raw.is_null()).then(|| Self { raw, id, opened }), error.error())
    }

    /// What next says now.
    pub fn ask(&self) -> (i32, String, Value) {
        next(self.raw, 0)
    }

    /// What next says, once it says something: sleeps until a wake.
    pub fn next(&self) -> (i32, String, Value) {
        loop {
            match self.ask() {
                (FERRULE_PENDING, ..) => woken(self.id),
                answer => return answer,
            };
        }
    }

    /// All items up to the end, and the end.
    pub fn rest(&self) -> (Vec<String>, i32, Value) {
        let mut items = Vec::new();
        loop {
            match self.next() {
                (FERRULE_OK, item, _) => items.push(item),
                (status, _, error) => return (items, status, error),
            }
        }
    }

    /// What feed says now.
    pub fn feed(&self, block: &[u8], last: bool) -> i32 {
        let mut error = Strict::new(usize::MAX);
        let feed = stream_ops(self.raw).feed.expect("feed");
        let pointer = if block.is_empty() { std::ptr::null() } else { block.as_ptr() };
        // SAFETY: by the rules of the header.
        unsafe { feed(self.raw, pointer, block.len(), i32::from(last), error.lend()) }
    }

    pub fn metadata(&self) -> Value {
        let (mut out, mut error) = (Strict::new(usize::MAX), Strict::new(usize::MAX));
        // SAFETY: by the rules of the header.
        let status = unsafe { stream_ops(self.raw).metadata.expect("metadata")(self.raw, out.lend(), error.lend()) };
        assert_eq!(status, FERRULE_OK);
        serde_json::from_str(&out.text()).expect("an object")
    }

    pub fn cancel(&self) {
        // SAFETY: by the rules of the header: any thread, not beside close.
        unsafe { stream_ops(self.raw).cancel.expect("cancel")(self.raw) }
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        close(self.raw);
    }
}
