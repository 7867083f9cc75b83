//! A runner as a host sees it: calls that overlap, and streams that never wait and always wake.

mod host;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Barrier, Mutex};
use std::time::{Duration, Instant};

use ferrule_plugin::prelude::*;
use ferrule_plugin::testing;
use ferrule_sys::*;
use host::*;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

// ---- the library -------------------------------------------------------------------------------------------------

config! {
    struct Count {
        /// How many items.
        count: u64 = 3,
        /// How long each is.
        bytes: u64 = 10,
    }
    struct Number { number: u64 }
    struct Settings { counted: bool = false }
}

/// Does what it is told, well or badly.
struct Worker {
    counted: bool,
    meeting: Barrier,
}

/// Panics as it is written.
struct Bomb;

impl<'de> Deserialize<'de> for Bomb {
    fn deserialize<D: serde::Deserializer<'de>>(_: D) -> std::result::Result<Self, D::Error> {
        Ok(Self)
    }
}

impl Serialize for Bomb {
    fn serialize<S: serde::Serializer>(&self, _: S) -> std::result::Result<S::Ok, S::Error> {
        panic!("cannot be written")
    }
}

// SAFETY: there are no constants of it.
unsafe impl Schema for Bomb {
    const SHAPE: Shape = Shape::ANY;
    type Constant = ();
    fn from_constant((): ()) -> Self {
        Self
    }
}

/// How many bytes were sent by `flood` so far, and whether jobs that were told to end have.
static SENT: AtomicU64 = AtomicU64::new(0);
static ENDED: AtomicU64 = AtomicU64::new(0);
static LISTENS: AtomicBool = AtomicBool::new(false);
static DROPPED: AtomicU64 = AtomicU64::new(0);

impl Drop for Worker {
    fn drop(&mut self) {
        DROPPED.fetch_add(u64::from(self.counted), Ordering::SeqCst);
    }
}

impl JobRunner for Worker {
    const NAME: &str = "worker";
    type Config = Settings;
    const METHODS: Methods<Self> = &[
        unary("run", Self::run).and_stream(Self::numbers).about("Says what it was given, or counts.").cancellable(),
        unary("meet", Self::meet),
        unary("upper", Self::upper).input("text/plain", "any text").output("text/plain", ""),
        unary("tell", Self::tell),
        unary("boom", |_: &Self, _: Empty, _: &Context| -> Result { panic!("in a call") }),
        stream("told", Self::told).with_metadata().on_open(Self::may_open),
        stream("flood", Self::flood),
        stream("deaf", Self::deaf),
        stream("sleepy", Self::sleepy),
        stream("fails", Self::fails),
        stream("panics", Self::panics),
        stream("panics_beside", Self::panics_beside),
        stream("bomb", |_: &Self, _: Empty, out: &Sender<Bomb>, _: &Context| out.send(&Bomb)),
        stream("undeclared", |_: &Self, _: Empty, out: &Sender<u64>, _: &Context| out.send_with(&1, &json!({}))),
        feed("echo", Self::echo).fed("audio/x-raw", "16 bit"),
        feed("add", Self::add),
        feed("first", Self::first),
        none("planned").about("Some day."),
    ];
    fn create(settings: Settings, _host: &Host) -> Result<Self> {
        Ok(Self { counted: settings.counted, meeting: Barrier::new(2) })
    }
}

impl Worker {
    fn run(&self, count: Count, cx: &Context) -> Result<Number> {
        cx.sleep(Duration::ZERO)?;
        Ok(Number { number: count.count })
    }

    fn numbers(&self, count: Count, out: &Sender<Number>, _cx: &Context) -> Result {
        (0..count.count).try_for_each(|number| out.send(&Number { number }))
    }

    fn meet(&self, _: Empty, _cx: &Context) -> Result {
        self.meeting.wait();
        Ok(())
    }

    fn upper(&self, text: Bytes, _cx: &Context) -> Result<Bytes> {
        Ok(text.to_ascii_uppercase().into())
    }

    fn tell(&self, fail: bool, cx: &Context) -> Result<bool> {
        cx.metadata_out(&json!({ "first": "is replaced" }))?;
        cx.metadata_out(&json!({ "asked": cx.metadata::<Value>()? }))?;
        if cx.metadata_out(&1).is_ok() { Err(Error::internal("a number is no object")) } else { Ok(()) }?;
        cx.metadata_out(&json!({ "told": true }))?;
        if fail { Err(Error::unavailable("not now")) } else { Ok(true) }
    }

    fn may_open(&self, count: Count, cx: &Context) -> Result {
        if count.count > 10 {
            return Err(Error::denied("at most 10"));
        }
        cx.metadata_out(&json!({ "media_type": "application/x-number" }))
    }

    fn told(&self, count: Count, out: &Sender<u64>, cx: &Context) -> Result {
        assert_eq!(cx.metadata_out(&json!({})).unwrap_err().status(), ferrule_plugin::Status::InvalidState);
        for number in 0..count.count {
            if number == 1 { out.send(&number)? } else { out.send_with(&number, &json!({ "number": number }))? }
        }
        out.metadata(&json!({ "asked": cx.metadata::<Value>()?, "sent": count.count }))
    }

    fn flood(&self, count: Count, out: &Sender<Bytes>, _cx: &Context) -> Result {
        let block = vec![b'x'; count.bytes as usize];
        for _ in 0..count.count {
            out.send_bytes(&block)?;
            SENT.fetch_add(count.bytes, Ordering::SeqCst);
        }
        Ok(())
    }

    fn deaf(&self, _: Empty, _out: &Sender<u64>, _cx: &Context) -> Result {
        while !LISTENS.load(Ordering::SeqCst) {
            std::thread::sleep(Duration::from_millis(1));
        }
        ENDED.fetch_add(1, Ordering::SeqCst);
        Ok(())
    }

    fn sleepy(&self, _: Empty, _out: &Sender<u64>, cx: &Context) -> Result {
        let slept = cx.sleep(Duration::from_secs(3600));
        ENDED.fetch_add(1, Ordering::SeqCst);
        slept
    }

    fn fails(&self, _: Empty, out: &Sender<u64>, _cx: &Context) -> Result {
        out.send(&1)?;
        Err(Error::unavailable("the line is down").detail("line", 7))
    }

    fn panics(&self, _: Empty, out: &Sender<u64>, _cx: &Context) -> Result {
        out.send(&1)?;
        panic!("on its own thread")
    }

    fn panics_beside(&self, _: Empty, _out: &Sender<u64>, cx: &Context) -> Result {
        drop(spawn("beside", || panic!("on another thread"))?);
        cx.sleep(Duration::from_secs(3600))
    }

    fn echo(&self, greeting: String, feed: &Feed<Bytes>, out: &Sender<Bytes>, _cx: &Context) -> Result {
        out.send(&greeting.into())?;
        feed.into_iter().try_for_each(|block| out.send(&block?))
    }

    fn add(&self, _: Empty, feed: &Feed<u64>, out: &Sender<u64>, cx: &Context) -> Result {
        let mut sum = 0;
        loop {
            match feed.try_next()? {
                Fed::Block(number) => sum += number,
                Fed::Nothing => cx.sleep(Duration::from_millis(1))?,
                Fed::Final => break out.send(&sum),
            }
        }
    }

    fn first(&self, _: Empty, feed: &Feed<String>, out: &Sender<String>, _cx: &Context) -> Result {
        feed.next()?.map_or(Ok(()), |block| out.send(&block))
    }
}

export_plugins! {
    /// Works.
    runner Worker,
}

// ---- the claims --------------------------------------------------------------------------------------------------

/// Each test has instances of its own, but what jobs count they count together.
static ONE: Mutex<()> = Mutex::new(());

fn alone() -> std::sync::MutexGuard<'static, ()> {
    ONE.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let started = Instant::now();
    while !holds() {
        assert!(started.elapsed() < Duration::from_secs(30), "{what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Methods stand in the manifest with all that is known of them.
#[test]
fn the_manifest_tells_of_methods() {
    let plugin = &manifest()["plugins"][0];
    assert_eq!((&plugin["kind"], &plugin["threading"]), (&json!("runner"), &json!("concurrent")));
    let method = |name: &str| {
        let methods = plugin["methods"].as_array().expect("methods");
        methods.iter().find(|method| method["name"] == name).unwrap_or_else(|| panic!("{name}")).clone()
    };
    let run = method("run");
    assert_eq!(
        (&run["mode"], &run["cancellable"], &run["input"]),
        (&json!("both"), &json!(true), &json!("application/json"))
    );
    assert_eq!(run["args"]["properties"]["count"]["default"], 3);
    assert_eq!(run["result"]["properties"]["number"]["type"], "integer");
    let upper = method("upper");
    assert_eq!(upper["args"], json!({ "media_type": "text/plain", "text": "any text" }));
    assert_eq!(
        (&upper["input"], &upper["output"], &upper["result"]),
        (&json!("text/plain"), &json!("text/plain"), &Value::Null)
    );
    let told = method("told");
    assert_eq!(
        (&told["mode"], &told["metadata"], &told["cancellable"]),
        (&json!("stream"), &json!(true), &json!(true))
    );
    let echo = method("echo");
    assert_eq!(
        (&echo["need_feed"], &echo["feed_input"], &echo["output"]),
        (&json!(true), &json!("audio/x-raw"), &json!("application/octet-stream"))
    );
    assert_eq!(echo["feed"], json!({ "media_type": "audio/x-raw", "text": "16 bit" }));
    let add = method("add");
    assert_eq!((&add["feed_input"], &add["feed"]["type"]), (&json!("application/json"), &json!("integer")));
    assert_eq!(
        method("planned"),
        json!({
            "name": "planned", "mode": "none", "input": "application/json", "output": "application/json", "description": "Some day.",
        })
    );
}

/// Calls run beside each other on one instance, bytes go as they are, and metadata comes back beside an error, too.
#[test]
fn calls_overlap() {
    let instance = made("worker", "{}");
    let address = instance as usize;
    let other = std::thread::spawn(move || named(address as *mut ferrule_instance, "meet", "{}").0);
    assert_eq!(named(instance, "meet", "{}").0, FERRULE_OK);
    assert_eq!(other.join().expect("no panic"), FERRULE_OK);
    assert_eq!(named(instance, "run", "{}").1, "{\"number\":3}");
    assert_eq!(named(instance, "upper", "Größe"), (FERRULE_OK, "GRößE".to_owned(), Value::Null));
    for (input, status) in [("false", FERRULE_OK), ("true", FERRULE_UNAVAILABLE)] {
        let (mut out, mut error, mut told) =
            (Strict::new(usize::MAX), Strict::new(usize::MAX), Strict::new(usize::MAX));
        let method = number(instance, "tell");
        // SAFETY: by the rules of the header.
        let done = with_metadata(1, "{}", told.lend(), |call| unsafe {
            ops(instance).call.expect("call")(
                instance,
                method,
                call,
                input.as_ptr(),
                input.len(),
                out.lend(),
                error.lend(),
            )
        });
        assert_eq!((done, told.text().as_str()), (status, "{\"told\":true}"));
    }
    destroy(instance);
}

/// What is no stream cannot be opened, what is one alone cannot be called, and what is only listed can be neither.
#[test]
fn modes_are_kept() {
    let instance = made("worker", "{}");
    for (method, calls, opens) in [("meet", true, false), ("told", false, true), ("planned", false, false)] {
        if !calls {
            assert_eq!(named(instance, method, "{}").0, FERRULE_UNSUPPORTED, "{method}");
        }
        if !opens {
            assert_eq!(Stream::try_open(instance, method, "{}").0, FERRULE_UNSUPPORTED, "{method}");
        }
    }
    let (status, _, error) = Stream::try_open(instance, "run", "{\"count\":-1}");
    assert_eq!((status, message(&error).starts_with("count: ")), (FERRULE_INVALID_ARGUMENT, true), "{error}");
    let (status, _, error) = Stream::try_open(instance, "told", "{\"count\":11}");
    assert_eq!((status, message(&error)), (FERRULE_DENIED, "at most 10"));
    destroy(instance);
}

/// Items come in order and end once; after the end there is nothing but the end.
#[test]
fn a_stream_gives_all_and_ends() {
    let instance = made("worker", "{}");
    let stream = Stream::open(instance, "run", "{\"count\":1000}");
    assert_eq!(stream_ops(stream.raw).flags, FERRULE_STREAM_UNLOCKED | FERRULE_STREAM_WAKES);
    assert!(stream_ops(stream.raw).metadata.is_none() && stream_ops(stream.raw).feed.is_none());
    let (items, status, error) = stream.rest();
    assert_eq!((status, error), (FERRULE_END, Value::Null));
    assert_eq!(items, (0..1000).map(|number| format!("{{\"number\":{number}}}")).collect::<Vec<_>>());
    assert_eq!(stream.ask().0, FERRULE_END);
    drop(stream);
    destroy(instance);
}

/// Each item has its own metadata, the end the stream's, and open what was said before.
#[test]
fn metadata_goes_with_items() {
    let instance = made("worker", "{}");
    let stream = Stream::open(instance, "told", "{}");
    assert_eq!(stream.opened, "{\"media_type\":\"application/x-number\"}");
    for number in 0..3 {
        assert_eq!(stream.next().1, number.to_string());
        assert_eq!(stream.metadata(), if number == 1 { json!({}) } else { json!({ "number": number }) });
    }
    assert_eq!(stream.next().0, FERRULE_END);
    assert_eq!(stream.metadata(), json!({ "asked": { "asked": 1 }, "sent": 3 }));
    let stream = Stream::open(instance, "undeclared", "{}");
    let (status, _, error) = stream.next();
    assert_eq!((status, message(&error).contains(".with_metadata()")), (FERRULE_INTERNAL, true), "{error}");
    drop(stream);
    destroy(instance);
}

/// A slow reader stops the sender, in bytes: of small items and of large ones; reading lets it go on.
#[test]
fn a_slow_reader_stops_the_sender() {
    let _alone = alone();
    let instance = made("worker", "{}");
    for (bytes, count) in [(100, 100_000), (30_000, 1_000), (1_000_000, 20)] {
        SENT.store(0, Ordering::SeqCst);
        let stream = Stream::open(instance, "flood", &format!("{{\"count\":{count},\"bytes\":{bytes}}}"));
        let mut before = u64::MAX;
        eventually("it stops", || {
            std::thread::sleep(Duration::from_millis(20));
            std::mem::replace(&mut before, SENT.load(Ordering::SeqCst)) == SENT.load(Ordering::SeqCst)
        });
        assert!(before <= 256 << 10 || before <= bytes, "{before} bytes wait");
        let (items, status, _) = stream.rest();
        assert_eq!((items.len(), status), (count as usize, FERRULE_END));
        assert!(items.iter().all(|item| item.len() == bytes as usize));
    }
    destroy(instance);
}

/// A host that was told PENDING is woken once, and one that was not is not woken at all.
#[test]
fn it_wakes_only_who_sleeps() {
    let instance = made("worker", "{}");
    let stream = Stream::open(instance, "add", "{}");
    assert_eq!(stream.feed(b"1", false), FERRULE_OK);
    std::thread::sleep(Duration::from_millis(20));
    assert_eq!(wakes(stream.id), 0);
    assert_eq!(stream.ask().0, FERRULE_PENDING);
    assert_eq!(stream.ask().0, FERRULE_PENDING);
    assert_eq!(stream.feed(b"2", true), FERRULE_OK);
    assert_eq!(woken(stream.id), 1);
    assert_eq!(stream.rest().0, ["3"]);
    drop(stream);
    destroy(instance);
}

/// What is fed comes out in order, from before the job began; final ends it, and a feed after that is refused.
#[test]
fn a_stream_is_fed() {
    let instance = made("worker", "{}");
    let stream = Stream::open(instance, "echo", "\"hello\"");
    for (block, last) in [(&b"one"[..], false), (b"", false), (b"two", true)] {
        assert_eq!(stream.feed(block, last), FERRULE_OK);
    }
    assert!([FERRULE_INVALID_STATE, FERRULE_END].contains(&stream.feed(b"late", false)));
    assert_eq!(stream.rest(), (["hello", "one", "", "two"].map(str::to_owned).to_vec(), FERRULE_END, Value::Null));
    assert_eq!(stream.feed(b"later", false), FERRULE_END);

    let stream = Stream::open(instance, "echo", "\"\"");
    assert_eq!(stream.feed(b"", true), FERRULE_OK);
    assert_eq!(stream.rest().0, [""]);

    let stream = Stream::open(instance, "first", "{}");
    assert_eq!(stream.feed(b"\"enough\"", false), FERRULE_OK);
    assert_eq!(stream.rest().0, ["\"enough\""]);
    assert_eq!(stream.feed(b"\"more\"", true), FERRULE_END);

    let stream = Stream::open(instance, "first", "{}");
    assert_eq!(stream.feed(b"7", false), FERRULE_OK);
    let (_, status, error) = stream.rest();
    assert_eq!((status, message(&error)), (FERRULE_INVALID_ARGUMENT, "invalid type: integer `7`, expected a string"));
    drop(stream);
    destroy(instance);
}

/// A host that feeds faster than the job reads is told PENDING, with nothing taken, and is woken when there is room.
#[test]
fn a_slow_job_stops_the_feed() {
    let instance = made("worker", "{}");
    let stream = Stream::open(instance, "echo", "\"\"");
    let block = vec![b'y'; 50_000];
    let mut taken = 0;
    while stream.feed(&block, false) == FERRULE_OK {
        taken += 1;
        assert!(taken < 100, "it takes without end");
        std::thread::sleep(Duration::from_millis(1)); // the job sends until its own queue is full
    }
    let (mut read, mut fed) = (0, taken);
    while fed < 40 {
        match stream.ask().0 {
            FERRULE_OK => read += 1,
            status => assert_eq!(status, FERRULE_PENDING),
        }
        match stream.feed(&block, fed == 39) {
            FERRULE_OK => fed += 1,
            status => assert_eq!(status, FERRULE_PENDING),
        }
    }
    assert_eq!((read + stream.rest().0.len(), fed), (41, 40));
    drop(stream);
    destroy(instance);
}

/// cancel ends a stream whose job waits: for room, for its feed, for time, or does not listen at all; each once.
#[test]
fn cancel_ends_a_stream() {
    let _alone = alone();
    let instance = made("worker", "{}");
    let ended = ENDED.load(Ordering::SeqCst);
    for (method, input) in [("flood", "{\"count\":1000000}"), ("echo", "\"\""), ("sleepy", "{}"), ("deaf", "{}")] {
        let stream = Stream::open(instance, method, input);
        if method == "sleepy" {
            assert_eq!(stream.ask().0, FERRULE_PENDING);
            let address = stream.raw as usize;
            let canceller = std::thread::spawn(move || {
                let raw = address as *mut ferrule_stream;
                // SAFETY: by the rules of the header: any thread, not beside close.
                unsafe { stream_ops(raw).cancel.expect("cancel")(raw) }
            });
            assert_eq!(woken(stream.id), 1, "a cancelled stream wakes its host");
            canceller.join().expect("no panic");
        } else {
            stream.cancel();
        }
        let (_, status, error) = stream.rest();
        assert_eq!((status, message(&error)), (FERRULE_CANCELLED, "the stream was cancelled"), "{method}");
        if method == "echo" {
            assert_eq!(stream.feed(b"late", false), FERRULE_END);
        }
    }
    eventually("the sleeper has ended", || ENDED.load(Ordering::SeqCst) == ended + 1);
    LISTENS.store(true, Ordering::SeqCst);
    eventually("the deaf one has ended", || ENDED.load(Ordering::SeqCst) == ended + 2);
    LISTENS.store(false, Ordering::SeqCst);
    destroy(instance);
}

/// A closed stream does not wait for its job, and the job keeps the plugin until it has ended, also past destroy.
#[test]
fn close_does_not_wait() {
    let _alone = alone();
    let (ended, dropped) = (ENDED.load(Ordering::SeqCst), DROPPED.load(Ordering::SeqCst));
    let instance = made("worker", "{\"counted\":true}");
    drop(Stream::open(instance, "deaf", "{}"));
    drop(Stream::open(instance, "sleepy", "{}"));
    destroy(instance);
    eventually("the sleeper has ended", || ENDED.load(Ordering::SeqCst) == ended + 1);
    assert_eq!(DROPPED.load(Ordering::SeqCst), dropped);
    LISTENS.store(true, Ordering::SeqCst);
    eventually("the deaf one has ended, and let the plugin go", || DROPPED.load(Ordering::SeqCst) == dropped + 1);
    LISTENS.store(false, Ordering::SeqCst);
}

/// A job's error ends its stream, after what it sent; also one that would not end a source's.
#[test]
fn errors_end_a_stream() {
    let instance = made("worker", "{}");
    let stream = Stream::open(instance, "fails", "{}");
    assert_eq!(stream.next().1, "1");
    let (status, _, error) = stream.next();
    assert_eq!((status, &error["details"]["line"]), (FERRULE_UNAVAILABLE, &json!(7)));
    assert_eq!(stream.next().0, FERRULE_END);
    drop(stream);
    destroy(instance);
}

/// A panic ends its stream with its place, whichever thread of the job's it was on, and the instance for everybody.
#[test]
fn panics_end_a_stream() {
    for (method, text) in
        [("panics", "on its own thread"), ("panics_beside", "on another thread"), ("bomb", "cannot be written")]
    {
        let instance = made("worker", "{}");
        let other = Stream::open(instance, "echo", "\"goes on\"");
        let stream = Stream::open(instance, method, "{}");
        let (items, status, error) = stream.rest();
        assert_eq!((items.len(), status), (usize::from(method == "panics"), FERRULE_PANIC));
        assert!(message(&error).contains("runner.rs:") && message(&error).ends_with(text), "{error}");
        assert_eq!(named(instance, "run", "{}").0, FERRULE_INVALID_STATE);
        assert_eq!(Stream::try_open(instance, "run", "{}").0, FERRULE_INVALID_STATE);
        drop((stream, other));
        destroy(instance);
    }
    let instance = made("worker", "{}");
    let (status, _, error) = named(instance, "boom", "{}");
    assert_eq!((status, message(&error).ends_with("in a call")), (FERRULE_PANIC, true));
    assert_eq!(named(instance, "run", "{}").0, FERRULE_INVALID_STATE);
    destroy(instance);
}

/// `testing` takes the same ways: calls with metadata, streams, feeds, cancelling.
#[test]
fn a_runner_under_test() {
    let worker = Arc::new(testing::runner::<Worker>(json!({})).unwrap());
    assert_eq!(worker.call("run", &json!({"count": 4})).unwrap(), json!({"number": 4}));
    assert_eq!(worker.call_bytes("upper", b"a").unwrap(), b"A");
    let (answer, metadata) = worker.call_with("tell", b"true", &json!({}));
    assert_eq!((answer.unwrap_err().message(), metadata), ("not now", json!({"told": true})));
    let numbers: Vec<_> =
        worker.open("run", &json!({"count": 2})).unwrap().map(|number| number.unwrap()["number"].clone()).collect();
    assert_eq!(numbers, [0, 1]);
    let mut told = worker.open("told", &json!({"count": 1})).unwrap();
    assert_eq!(told.opened(), &json!({"media_type": "application/x-number"}));
    assert_eq!((told.next().unwrap().unwrap(), told.metadata().unwrap()), (json!(0), json!({"number": 0})));
    assert!(told.next().is_none());
    let mut add = worker.open("add", &json!({})).unwrap();
    assert!((1..=5).all(|number: u64| add.feed(number.to_string().as_bytes()).unwrap()));
    assert!(add.feed_final(b"").unwrap());
    assert_eq!(add.next().unwrap().unwrap(), 15);
    let mut sleepy = worker.open("sleepy", &json!({})).unwrap();
    let cancel = sleepy.canceller();
    std::thread::spawn(cancel);
    assert_eq!(sleepy.next().unwrap().unwrap_err().status(), ferrule_plugin::Status::Cancelled);
    worker.canceller()();
    assert_eq!(worker.call("run", &json!({})).unwrap_err().status(), ferrule_plugin::Status::Cancelled);
}
