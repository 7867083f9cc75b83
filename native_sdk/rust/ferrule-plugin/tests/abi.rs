//! A library as a host sees it: through the three functions, by the rules of ferrule.h.

mod host;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::time::Duration;

use ferrule_plugin::prelude::*;
use ferrule_sys::*;
use host::*;
use serde_json::{Value, json};

// ---- the library -------------------------------------------------------------------------------------------------

config! {
    /// What to do wrong.
    struct Trouble {
        fault: Fault = Fault::None,
    }
    enum Fault { None, PanicInCreate, PanicInCall, PanicInDrop, Nothing, Unfinished, Twice, Again, LostError }
}

struct Troubled(Fault);

impl EnrichmentFunction for Troubled {
    const NAME: &str = "troubled";
    type Config = Trouble;
    const METHODS: Methods<Self> = &[
        unary("health_check", |_: &Self, _: Empty, _: &Context| Ok("fine".to_owned())).about("How it is."),
        unary("sum", |_: &mut Self, numbers: Vec<u32>, _: &Context| Ok(numbers.iter().sum::<u32>())),
        unary("metadata", |_: &Self, _: Empty, cx: &Context| Ok(cx.metadata::<Value>()?.unwrap_or(json!("none")))),
    ];
    fn create(config: Trouble, host: &Host) -> Result<Self> {
        host.info(format_args!("created with {:?}", config.fault));
        assert!(config.fault != Fault::PanicInCreate, "in create");
        Ok(Self(config.fault))
    }
    fn process(&mut self, record: &Record, out: &mut Output, _cx: &Context) -> Result {
        match self.0 {
            Fault::PanicInCall => panic!("in call {}", 7),
            Fault::Nothing => Ok(()),
            Fault::Unfinished => {
                let _ = out.extend(record);
                Ok(())
            }
            Fault::LostError => {
                let _ = out.extend(record).raw_field("x", "{").finish();
                Ok(())
            }
            Fault::Twice => {
                out.extend(record).finish()?;
                out.object().field("a", 1).finish()
            }
            Fault::Again => {
                let instance = AGAIN.load(Ordering::SeqCst) as *mut ferrule_instance;
                let (status, _, error) = call(instance, 0, b"{}");
                Err(Error::internal(format!("{status} {}", error["message"])).retry_after(Duration::from_millis(1500)))
            }
            _ => out.extend(record).field("done", true).finish(),
        }
    }
}

static AGAIN: AtomicUsize = AtomicUsize::new(0);

impl Drop for Troubled {
    fn drop(&mut self) {
        assert!(self.0 != Fault::PanicInDrop, "in drop");
    }
}

/// Two records for one.
struct Twin;

impl EnrichmentFunction for Twin {
    const NAME: &str = "twin";
    const MANY: bool = true;
    type Config = Empty;
    fn create(_: Empty, _host: &Host) -> Result<Self> {
        Ok(Self)
    }
    fn process(&mut self, record: &Record, out: &mut Output, _cx: &Context) -> Result {
        if record.get_raw("none")?.is_some() {
            return Ok(());
        }
        out.extend(record).field("twin", 1).finish()?;
        out.extend(record).field("twin", 2).finish()
    }
}

/// Counts to three, then waits for ever.
struct Clock;

impl SourceConnector for Clock {
    const NAME: &str = "clock";
    type Config = Empty;
    type Reader = Ticks;
    fn create(_: Empty, _host: &Host) -> Result<Self> {
        Ok(Self)
    }
    fn read_data(&mut self, from: Option<u32>, _cx: &Context) -> Result<Ticks> {
        Ok(Ticks(from.unwrap_or(0)))
    }
}

struct Ticks(u32);

impl Reader for Ticks {
    type Position = u32;
    fn next(&mut self, out: &mut Output) -> Result<Next> {
        self.0 += 1;
        match self.0 {
            1 | 3 => out.item(&json!({ "tick": self.0 })),
            2 => Err(Error::invalid_data("the second tick is bad").detail("record", "tick?")),
            4 if out.context().timeout().is_none() => {
                while !out.context().cancelled() {
                    std::thread::yield_now();
                }
                Err(Error::cancelled("asked to stop"))
            }
            4 => {
                self.0 -= 1;
                std::thread::sleep(out.context().timeout().unwrap_or_default());
                Ok(Next::Timeout)
            }
            5 => panic!("tick five"),
            _ => Ok(Next::End),
        }
    }
    fn position(&self) -> u32 {
        self.0
    }
}

/// Keeps what it is given.
#[derive(Default)]
struct Memory(Vec<u8>);

impl SinkConnector for Memory {
    const NAME: &str = "memory";
    type Config = Empty;
    type Mark = usize;
    fn create(_: Empty, _host: &Host) -> Result<Self> {
        Ok(Self::default())
    }
    fn open(&mut self, mark: Option<usize>, _cx: &Context) -> Result {
        self.0.resize(mark.unwrap_or(0), b'?');
        Ok(())
    }
    fn write(&mut self, records: &Records, _cx: &Context) -> Result {
        for record in records {
            record.fields()?; // all or nothing
        }
        self.0.extend_from_slice(records.as_bytes());
        Ok(())
    }
    fn flush(&mut self, _cx: &Context) -> Result<Option<usize>> {
        Ok((!self.0.is_empty()).then_some(self.0.len()))
    }
}

export_plugins! {
    /// Does what it is told to do wrong.
    function Troubled,
    function Twin,
    source Clock,
    sink Memory,
}

// ---- the claims --------------------------------------------------------------------------------------------------

/// The manifest is the header, JSON, and NULs at most; it names what was exported, and descriptions come from docs.
#[test]
fn the_manifest_tells_what_is_exported() {
    let manifest = manifest();
    assert_eq!(manifest["name"], env!("CARGO_PKG_NAME"));
    let plugins = manifest["plugins"].as_array().expect("plugins");
    let of = |key: &str| plugins.iter().map(|plugin| plugin[key].as_str().expect(key)).collect::<Vec<_>>();
    assert_eq!(of("name"), ["troubled", "twin", "clock", "memory"]);
    assert_eq!(of("kind"), ["function", "function", "source", "sink"]);
    assert_eq!(plugins[0]["description"], "Does what it is told to do wrong.");
    assert_eq!(plugins[0]["config"]["properties"]["fault"]["default"], "none");
    assert_eq!(plugins[1]["methods"][0]["output"], "application/x-ndjson");
    for plugin in plugins {
        assert_eq!((&plugin["language"], &plugin["threading"]), (&json!("rust"), &json!("serial")));
    }
    let methods = plugins[0]["methods"].as_array().expect("methods");
    assert_eq!(methods[1]["description"], "How it is.");
    assert_eq!(
        methods[2]["args"],
        json!({ "type": "array", "items": { "type": "integer", "minimum": 0, "maximum": u32::MAX } })
    );
}

/// Every method of the manifest has a number, and no other has.
#[test]
fn methods_have_numbers() {
    let instance = made("troubled", "{}");
    let numbers =
        ["process", "health_check", "sum", "metadata", "reset", "", "proces"].map(|name| number(instance, name));
    assert_eq!(numbers, [0, 1, 2, 3, FERRULE_NOT_FOUND, FERRULE_NOT_FOUND, FERRULE_NOT_FOUND]);
    destroy(instance);
}

/// A record goes through, a bad one is INVALID_DATA, and what is not an object has EKB's message.
#[test]
fn a_function_takes_records() {
    let instance = made("troubled", "");
    assert_eq!(call(instance, 0, b"{\"a\":1}"), (FERRULE_OK, "{\"a\":1,\"done\":true}".to_owned(), Value::Null));
    for (input, expected) in [
        ("[1]", "Data must be a JSON object"),
        ("{", "invalid JSON at byte 1: the text ends too soon"),
        ("", "invalid JSON at byte 0: the text ends too soon"),
        ("{\"a\":tru}", "invalid JSON at byte 5: expected a value"),
    ] {
        let (status, _, error) = call(instance, 0, input.as_bytes());
        assert_eq!((status, message(&error)), (FERRULE_INVALID_DATA, expected));
    }
    destroy(instance);
}

/// Methods of its own are called with their types, and wrong arguments are named.
#[test]
fn own_methods_are_typed() {
    let instance = made("troubled", "{}");
    assert_eq!(named(instance, "health_check", ""), (FERRULE_OK, "\"fine\"".to_owned(), Value::Null));
    assert_eq!(named(instance, "sum", "[1,2,3]"), (FERRULE_OK, "6".to_owned(), Value::Null));
    let (status, _, error) = named(instance, "sum", "[-1]");
    assert_eq!((status, message(&error)), (FERRULE_INVALID_ARGUMENT, "invalid value: integer `-1`, expected u32"));
    assert_eq!(named(instance, "metadata", "{}").1, "\"none\"");
    assert_eq!(call_with(instance, 3, b"", "{\"k\":1}", usize::MAX).1, "{\"k\":1}");
    let (status, _, error) = call(instance, 99, b"");
    assert_eq!((status, message(&error).contains("number")), (FERRULE_INTERNAL, true));
    destroy(instance);
}

/// A configuration that does not fit is INVALID_CONFIG and names the field; an unknown plugin is NOT_FOUND.
#[test]
fn create_says_what_is_wrong() {
    let (status, _, error) = create("troubled", "{\"fault\":\"nonsense\"}");
    assert_eq!(status, FERRULE_INVALID_CONFIG);
    assert!(
        message(&error).starts_with("fault: unknown variant `nonsense`, expected one of `none`, `panic_in_create`")
    );
    let (status, _, error) = create("nobody", "{}");
    assert_eq!((status, message(&error).contains("it has troubled, twin, clock, memory")), (FERRULE_NOT_FOUND, true));
}

/// A panic becomes PANIC with its place, in create and in call; the instance is of no use then; one in drop ends there.
/// All are in the host's log.
#[test]
fn panics_do_not_cross() {
    let (status, _, error) = create("troubled", "{\"fault\":\"panic_in_create\"}");
    assert_eq!(status, FERRULE_PANIC);
    assert!(message(&error).starts_with("panicked at "), "{error}");
    assert!(message(&error).contains("abi.rs:") && message(&error).ends_with(": in create"), "{error}");

    let instance = made("troubled", "{\"fault\":\"panic_in_call\"}");
    let (status, _, error) = call(instance, 0, b"{}");
    assert_eq!((status, message(&error).ends_with(": in call 7")), (FERRULE_PANIC, true));
    let (status, _, error) = call(instance, 0, b"{}");
    assert_eq!((status, message(&error).starts_with("it panicked")), (FERRULE_INVALID_STATE, true));
    destroy(instance);

    destroy(made("troubled", "{\"fault\":\"panic_in_drop\"}"));
    let log = LOG.lock().expect("a log");
    assert!(log.iter().any(|line| line.starts_with("0 40 panicked at ") && line.ends_with("in drop")), "{log:?}");
    assert!(log.iter().any(|line| line == "42 20 created with PanicInDrop"), "{log:?}");
}

/// A function that writes nothing, half a record or two is a bug and said to be one; a call from within a call is
/// INVALID_STATE; an error that was dropped is found.
#[test]
fn bugs_are_found_out() {
    for (fault, text) in [
        ("nothing", "nothing was written"),
        ("unfinished", "never finished"),
        ("twice", "a second record"),
        ("lost_error", "never finished"),
    ] {
        let instance = made("troubled", &format!("{{\"fault\":\"{fault}\"}}"));
        let (status, _, error) = call(instance, 0, b"{}");
        assert_eq!((status, message(&error).contains(text)), (FERRULE_INTERNAL, true), "{error}");
        destroy(instance);
    }
    let instance = made("troubled", "{\"fault\":\"again\"}");
    AGAIN.store(instance as usize, Ordering::SeqCst);
    let (_, _, error) = call(instance, 0, b"{}");
    assert!(message(&error).starts_with(&format!("{FERRULE_INVALID_STATE} \"called again")), "{error}");
    assert_eq!(error["retry_after_ms"], 1500);
    destroy(instance);
}

/// A host that gives no room gets OUT_OF_MEMORY, and the plugin works on.
#[test]
fn a_refused_reserve_is_out_of_memory() {
    let instance = made("troubled", "{}");
    let (status, _, error) = call_with(instance, 0, b"{\"a\":1}", "", 16);
    assert_eq!((status, message(&error).contains("refused")), (FERRULE_OUT_OF_MEMORY, true));
    assert_eq!(call_with(instance, 0, b"{\"a\":1}", "", 4096).0, FERRULE_OK);
    destroy(instance);
}

/// Several records for one stand one a line; none is a skip.
#[test]
fn one_record_becomes_many() {
    let instance = made("twin", "{}");
    let lines = "{\"a\":1,\"twin\":1}\n{\"a\":1,\"twin\":2}\n";
    assert_eq!(call(instance, 0, b"{\"a\":1}"), (FERRULE_OK, lines.to_owned(), Value::Null));
    assert_eq!(call(instance, 0, b"{\"none\":1}").0, FERRULE_SKIP);
    destroy(instance);
}

/// connect, schema, read_data and close keep their order, and a stream starts from the beginning or from a position.
#[test]
fn a_source_keeps_its_order() {
    let instance = made("clock", "{}");
    for (status, _, error) in [named(instance, "schema", "{}"), named(instance, "read_data", "{}")] {
        assert!([FERRULE_INVALID_STATE, FERRULE_UNSUPPORTED].contains(&status), "{error}");
    }
    assert_eq!(open(instance, "{}").0, FERRULE_INVALID_STATE);
    assert_eq!(named(instance, "connect", "{}"), (FERRULE_OK, "null".to_owned(), Value::Null));
    assert_eq!(named(instance, "schema", "{}").1, "{\"type\":\"object\"}");

    for (input, first) in [("{}", 1), ("{}", 1), ("{\"position\":2}", 3), ("{\"position\":null}", 1)] {
        let (_, stream, _) = open(instance, input);
        assert_eq!(next(stream, -1), (FERRULE_OK, format!("{{\"tick\":{first}}}"), Value::Null));
        assert_eq!(position(stream), first.to_string());
        close(stream);
    }
    let (status, _, error) = open(instance, "{\"position\":\"x\"}");
    assert_eq!((status, message(&error).starts_with("position: ")), (FERRULE_INVALID_ARGUMENT, true));

    assert_eq!(named(instance, "close", "{}").0, FERRULE_OK);
    assert_eq!(named(instance, "close", "{}").0, FERRULE_OK);
    assert_eq!(open(instance, "{}").0, FERRULE_INVALID_STATE);
    destroy(instance);
}

/// A bad record does not end a stream and carries its text; a timeout does not, either; a panic does.
#[test]
fn a_stream_goes_on_after_a_bad_record() {
    let instance = made("clock", "{}");
    named(instance, "connect", "{}");
    let (_, stream, _) = open(instance, "{}");
    assert_eq!(stream_ops(stream).flags, FERRULE_STREAM_UNLOCKED);
    assert_eq!(next(stream, -1).0, FERRULE_OK);
    let (status, _, error) = next(stream, -1);
    assert_eq!(
        (status, &error["details"]["record"], position(stream).as_str()),
        (FERRULE_INVALID_DATA, &json!("tick?"), "2")
    );
    assert_eq!(next(stream, -1).0, FERRULE_OK);
    assert_eq!(next(stream, 0).0, FERRULE_TIMEOUT);
    assert_eq!(next(stream, 1).0, FERRULE_TIMEOUT);
    close(stream);
    let (_, stream, _) = open(instance, "{\"position\":4}");
    let (status, _, error) = next(stream, -1);
    assert_eq!((status, message(&error).ends_with("tick five")), (FERRULE_PANIC, true));
    assert_eq!(next(stream, -1).0, FERRULE_INVALID_STATE);
    close(stream);
    let (_, stream, _) = open(instance, "{\"position\":5}");
    assert_eq!(next(stream, -1), (FERRULE_END, String::new(), Value::Null));
    close(stream);
    destroy(instance);
}

/// cancel, from another thread, ends a next that waits for ever.
#[test]
fn cancel_reaches_a_waiting_reader() {
    let instance = made("clock", "{}");
    named(instance, "connect", "{}");
    let (_, stream, _) = open(instance, "{\"position\":3}");
    let (stream_address, (ready, go)) = (stream as usize, mpsc::channel());
    let waiting = std::thread::spawn(move || {
        ready.send(()).expect("somebody listens");
        next(stream_address as *mut ferrule_stream, -1).0
    });
    go.recv().expect("the thread runs");
    std::thread::sleep(Duration::from_millis(20));
    // SAFETY: by the rules of the header: any thread, not beside close.
    unsafe { stream_ops(stream).cancel.expect("cancel")(stream) };
    assert_eq!(waiting.join().expect("no panic"), FERRULE_CANCELLED);
    close(stream);
    destroy(instance);
}

/// A sink is opened, maybe at a mark, takes whole lines or none, tells its mark and is closed once.
#[test]
fn a_sink_keeps_its_order() {
    let instance = made("memory", "{}");
    assert_eq!(named(instance, "write", "{}\n").0, FERRULE_INVALID_STATE);
    assert_eq!(named(instance, "open", "{}").0, FERRULE_OK);
    assert_eq!(named(instance, "flush", "{}").1, "{}");
    assert_eq!(named(instance, "write", "{\"a\":1}\n{}\n").0, FERRULE_OK);
    assert_eq!(named(instance, "write", "").0, FERRULE_OK);
    assert_eq!(named(instance, "write", "{\"a\":1}").0, FERRULE_INVALID_ARGUMENT);
    assert_eq!(named(instance, "write", "{}\nnonsense\n").0, FERRULE_INVALID_DATA);
    assert_eq!(named(instance, "flush", "{}").1, "{\"mark\":11}");
    assert_eq!(named(instance, "close", "").0, FERRULE_OK);
    assert_eq!(named(instance, "close", "").0, FERRULE_OK);
    assert_eq!(named(instance, "flush", "{}").0, FERRULE_INVALID_STATE);
    assert_eq!(named(instance, "open", "{\"mark\":3}").0, FERRULE_OK);
    assert_eq!(named(instance, "flush", "{}").1, "{\"mark\":3}");
    destroy(instance);
}
