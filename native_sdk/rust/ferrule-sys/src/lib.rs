//! `ferrule.h` as Rust types, ABI 0.1: the boundary between a host and a native plugin.
//!
//! The header is the truth, and its comments are the rules; what stands here repeats their gist. Names are the
//! header's own, so that both can be read side by side. Nothing here is safe to get wrong: to write a plugin, use
//! `ferrule-plugin`, which wraps all of it.
//!
//! ```
//! assert_eq!((ferrule_sys::FERRULE_ABI_MAJOR, ferrule_sys::FERRULE_ABI_MINOR), (0, 1));
//! ```
#![no_std]
#![allow(non_camel_case_types)] // the header's names

use core::ffi::{c_char, c_void};

/// A host takes exactly its own 0.minor until 1.0.
pub const FERRULE_ABI_MAJOR: u32 = 0;
/// A host takes exactly its own 0.minor until 1.0.
pub const FERRULE_ABI_MINOR: u32 = 1;
/// What a manifest begins with.
pub const FERRULE_MAGIC: [u8; 8] = *b"ferrule\0";

/// An answer.
pub const FERRULE_OK: i32 = 0;
/// next, feed: no more.
pub const FERRULE_END: i32 = 1;
/// next, feed: not now.
pub const FERRULE_PENDING: i32 = 2;
/// call: no answer for this input, on purpose.
pub const FERRULE_SKIP: i32 = 3;
/// The caller's input, judged alone.
pub const FERRULE_INVALID_ARGUMENT: i32 = -1;
/// The configuration.
pub const FERRULE_INVALID_CONFIG: i32 = -2;
/// This one item; does not end a stream.
pub const FERRULE_INVALID_DATA: i32 = -3;
/// Right call, wrong moment.
pub const FERRULE_INVALID_STATE: i32 = -4;
/// No such thing.
pub const FERRULE_NOT_FOUND: i32 = -5;
/// Not offered.
pub const FERRULE_UNSUPPORTED: i32 = -6;
/// Nobody said who is asking.
pub const FERRULE_UNAUTHENTICATED: i32 = -7;
/// Who is asking may not.
pub const FERRULE_DENIED: i32 = -8;
/// Try again; does not end a stream.
pub const FERRULE_UNAVAILABLE: i32 = -9;
/// The time ran out; does not end a stream.
pub const FERRULE_TIMEOUT: i32 = -10;
/// Somebody asked to stop.
pub const FERRULE_CANCELLED: i32 = -11;
/// No memory, or the host refused it.
pub const FERRULE_OUT_OF_MEMORY: i32 = -12;
/// Files, sockets, devices.
pub const FERRULE_IO: i32 = -13;
/// A broken promise of the header; poisons the instance.
pub const FERRULE_INTERNAL: i32 = -14;
/// Caught by the SDK; poisons the instance.
pub const FERRULE_PANIC: i32 = -15;

/// [`ferrule_stream_ops::flags`]: the host takes no lock for it.
pub const FERRULE_STREAM_UNLOCKED: u32 = 1;
/// [`ferrule_stream_ops::flags`]: a wake follows every PENDING.
pub const FERRULE_STREAM_WAKES: u32 = 2;

/// The head of section `.ferrule` (`__DATA,__ferrule` on Mach-O); `json_len` bytes of JSON follow, then NULs at most.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct ferrule_manifest {
    /// [`FERRULE_MAGIC`].
    pub magic: [u8; 8],
    /// [`FERRULE_ABI_MAJOR`] as the plugin was compiled.
    pub abi_major: u32,
    /// From 1.0 on, the lowest that the plugin needs.
    pub abi_minor: u32,
    /// Bytes of JSON that follow.
    pub json_len: u64,
}

/// Where output goes. The host's, always: append at `len`, touch nothing below the `len` at entry.
#[repr(C)]
#[derive(Debug)]
pub struct ferrule_buffer {
    /// Its size, as the host was compiled.
    pub struct_size: u32,
    /// None yet.
    pub flags: u32,
    /// May move in `reserve`; null only while `capacity` is 0.
    pub data: *mut u8,
    /// Bytes in use.
    pub len: usize,
    /// Bytes there are.
    pub capacity: usize,
    /// Makes `capacity - len` at least `additional`: OK, or OUT_OF_MEMORY with the buffer unchanged. Only from inside
    /// the call that lent the buffer.
    pub reserve: Option<unsafe extern "C" fn(buffer: *mut ferrule_buffer, additional: usize) -> i32>,
}

/// What a call knows beside its input. Never null; lent until return, with all it points at.
#[repr(C)]
#[derive(Debug)]
pub struct ferrule_call {
    /// Its size, as the host was compiled.
    pub struct_size: u32,
    /// None yet.
    pub flags: u32,
    /// create: the instance's; open: the stream's; never reused; 0 in a pump.
    pub id: u64,
    /// Never null; nonzero once cancelled; atomic loads only.
    pub cancelled: *const i32,
    /// What is left at entry; -1: no limit, 0: do not wait.
    pub timeout_ms: i64,
    /// A JSON object, or null with length 0.
    pub metadata: *const c_char,
    /// Bytes of it.
    pub metadata_len: usize,
    /// Or null: nobody listens. One JSON object; also beside an error.
    pub metadata_out: *mut ferrule_buffer,
}

/// What the host offers. Lives until the process ends; any thread; only queues.
#[repr(C)]
#[derive(Debug)]
pub struct ferrule_host {
    /// Its size, as the host was compiled.
    pub struct_size: u32,
    /// None yet.
    pub flags: u32,
    /// The host's ABI.
    pub abi_major: u32,
    /// The host's ABI.
    pub abi_minor: u32,
    /// Whether anybody would see a message of this level (10 debug, 20 info, 30 warning, 40 error, 50 critical).
    pub log_enabled: Option<unsafe extern "C" fn(host: *const ferrule_host, id: u64, level: i32) -> i32>,
    /// Queues a message: UTF-8; `fields`: a JSON object, or null with length 0. Copied; may be dropped.
    pub log: Option<
        unsafe extern "C" fn(
            host: *const ferrule_host,
            id: u64,
            level: i32,
            message: *const c_char,
            message_len: usize,
            fields: *const c_char,
            fields_len: usize,
        ),
    >,
    /// Says that next or feed of stream `id` would no longer answer PENDING. Sticky; never lost.
    pub wake: Option<unsafe extern "C" fn(host: *const ferrule_host, id: u64)>,
    /// A table of functions by NAME/VERSION, or null.
    pub query: Option<unsafe extern "C" fn(host: *const ferrule_host, extension: *const c_char) -> *const c_void>,
}

/// The functions of an instance: const, static, shared by all instances of a plugin.
#[repr(C)]
#[derive(Debug)]
pub struct ferrule_instance_ops {
    /// Its size, as the plugin was compiled.
    pub struct_size: u32,
    /// None yet.
    pub flags: u32,
    /// The number of a method, >= 0, or NOT_FOUND.
    pub method:
        Option<unsafe extern "C" fn(instance: *mut ferrule_instance, name: *const c_char, name_len: usize) -> i32>,
    /// One input, one answer appended to `out`.
    pub call: Option<
        unsafe extern "C" fn(
            instance: *mut ferrule_instance,
            method: i32,
            call: *const ferrule_call,
            input: *const u8,
            input_len: usize,
            out: *mut ferrule_buffer,
            error: *mut ferrule_buffer,
        ) -> i32,
    >,
    /// Starts a stream.
    pub open: Option<
        unsafe extern "C" fn(
            instance: *mut ferrule_instance,
            method: i32,
            call: *const ferrule_call,
            input: *const u8,
            input_len: usize,
            out: *mut *mut ferrule_stream,
            error: *mut ferrule_buffer,
        ) -> i32,
    >,
    /// A table of functions by NAME/VERSION, or null.
    pub query: Option<unsafe extern "C" fn(instance: *mut ferrule_instance, extension: *const c_char) -> *const c_void>,
}

/// An instance; the plugin's own state follows.
#[repr(C)]
#[derive(Debug)]
pub struct ferrule_instance {
    /// Its functions.
    pub ops: *const ferrule_instance_ops,
}

/// The functions of a stream: const and static. `cancel` and `close` are never `None`.
#[repr(C)]
#[derive(Debug)]
pub struct ferrule_stream_ops {
    /// Its size, as the plugin was compiled.
    pub struct_size: u32,
    /// `FERRULE_STREAM_…`.
    pub flags: u32,
    /// Asks everything under way to end soon. Any thread, at once, never beside close.
    pub cancel: Option<unsafe extern "C" fn(stream: *mut ferrule_stream)>,
    /// Frees it. Once; the host calls nothing on it afterwards.
    pub close: Option<unsafe extern "C" fn(stream: *mut ferrule_stream)>,
    /// One item appended to `out`; or END, PENDING, TIMEOUT, an error. `timeout_ms`: -1 none, 0 poll.
    pub next: Option<
        unsafe extern "C" fn(
            stream: *mut ferrule_stream,
            timeout_ms: i64,
            out: *mut ferrule_buffer,
            error: *mut ferrule_buffer,
        ) -> i32,
    >,
    /// Takes a piece of input. `last` (the header's `final`) nonzero: the last piece.
    pub feed: Option<
        unsafe extern "C" fn(
            stream: *mut ferrule_stream,
            input: *const u8,
            input_len: usize,
            last: i32,
            error: *mut ferrule_buffer,
        ) -> i32,
    >,
    /// One JSON value: where to resume, right after the item that next returned last.
    pub position: Option<
        unsafe extern "C" fn(stream: *mut ferrule_stream, out: *mut ferrule_buffer, error: *mut ferrule_buffer) -> i32,
    >,
    /// One JSON object: the last item's, or the stream's after its end.
    pub metadata: Option<
        unsafe extern "C" fn(stream: *mut ferrule_stream, out: *mut ferrule_buffer, error: *mut ferrule_buffer) -> i32,
    >,
    /// A table of functions by NAME/VERSION, or null.
    pub query: Option<unsafe extern "C" fn(stream: *mut ferrule_stream, extension: *const c_char) -> *const c_void>,
}

/// A stream; the plugin's own state follows.
#[repr(C)]
#[derive(Debug)]
pub struct ferrule_stream {
    /// Its functions.
    pub ops: *const ferrule_stream_ops,
}

/// `ferrule_plugin_manifest`: the same manifest that section `.ferrule` holds.
pub type ferrule_plugin_manifest_fn = unsafe extern "C" fn() -> *const ferrule_manifest;
/// `ferrule_plugin_create`: makes an instance of a plugin of the manifest.
pub type ferrule_plugin_create_fn = unsafe extern "C" fn(
    host: *const ferrule_host,
    call: *const ferrule_call,
    plugin: *const c_char,
    plugin_len: usize,
    config: *const c_char,
    config_len: usize,
    out: *mut *mut ferrule_instance,
    error: *mut ferrule_buffer,
) -> i32;
/// `ferrule_plugin_destroy`: frees it, once, after every stream of it was closed.
pub type ferrule_plugin_destroy_fn = unsafe extern "C" fn(instance: *mut ferrule_instance);

/// Sizes, alignments and offsets as a C compiler of 64 bits lays them out. On other platforms the test against the
/// header decides.
macro_rules! layout {
    ($($name:ident = $size:literal { $($field:ident @ $offset:literal),+ $(,)? })+) => {
        #[cfg(target_pointer_width = "64")]
        const _: () = {
            use core::mem::{align_of, offset_of, size_of};
            $(
                assert!(size_of::<$name>() == $size && align_of::<$name>() == 8);
                $(assert!(offset_of!($name, $field) == $offset);)+
            )+
        };
    };
}

layout! {
    ferrule_manifest = 24 { magic @ 0, abi_major @ 8, abi_minor @ 12, json_len @ 16 }
    ferrule_buffer = 40 { struct_size @ 0, flags @ 4, data @ 8, len @ 16, capacity @ 24, reserve @ 32 }
    ferrule_call = 56 {
        struct_size @ 0, flags @ 4, id @ 8, cancelled @ 16, timeout_ms @ 24, metadata @ 32, metadata_len @ 40,
        metadata_out @ 48,
    }
    ferrule_host = 48 {
        struct_size @ 0, flags @ 4, abi_major @ 8, abi_minor @ 12, log_enabled @ 16, log @ 24, wake @ 32, query @ 40,
    }
    ferrule_instance_ops = 40 { struct_size @ 0, flags @ 4, method @ 8, call @ 16, open @ 24, query @ 32 }
    ferrule_instance = 8 { ops @ 0 }
    ferrule_stream_ops = 64 {
        struct_size @ 0, flags @ 4, cancel @ 8, close @ 16, next @ 24, feed @ 32, position @ 40, metadata @ 48,
        query @ 56,
    }
    ferrule_stream = 8 { ops @ 0 }
}
