//! my-runner: the smallest runner that shows all of it: an answer, chunks, feed, cancel, protobuf. The twin of the C
//! plugin of that name.
#![forbid(unsafe_code)]

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use ferrule_plugin::prelude::*;
use prost::Message;

config! {
    struct Job {
        /// What to process.
        input_data: String,
        /// How many chunks the stream has.
        chunks: u32 = 5,
        /// Milliseconds between them.
        interval_ms: u64 = 100,
        /// How many milliseconds the one answer takes.
        work_ms: u64 = 0,
    }

    /// When a chunk was sent, by the clock of Python's `time.monotonic_ns`.
    struct Stamp {
        monotonic_ns: u64,
    }
}

/// As proto/my_job_args.proto says.
#[derive(Clone, PartialEq, Message)]
struct MyJobArgs {
    #[prost(string, tag = "1")]
    input_data: String,
}

/// As proto/my_result.proto says.
#[derive(Clone, PartialEq, Message)]
struct MyResult {
    #[prost(string, tag = "1")]
    output_data: String,
}

const PROTOBUF: &str = "application/x-protobuf";

#[derive(Default)]
struct MyRunner {
    runs: AtomicU64,
}

impl JobRunner for MyRunner {
    const NAME: &str = "my-runner";
    type Config = Empty;
    const METHODS: Methods<Self> = &[
        unary("run", Self::run)
            .and_stream(Self::chunks)
            .on_open(Self::begin)
            .with_metadata()
            .about("Processes the input; as a stream, in chunks."),
        feed("echo", Self::echo).about("Gives each block back as it was fed; ends after the final one."),
        unary("encode", Self::encode)
            .input(PROTOBUF, include_str!("../proto/my_job_args.proto"))
            .output(PROTOBUF, include_str!("../proto/my_result.proto"))
            .about("Processes the input, in protobuf."),
        unary("count", Self::count).about("How often run was called since create or reset."),
        unary("reset", Self::reset).about("Forgets the count."),
    ];

    fn create(_: Empty, _host: &Host) -> Result<Self> {
        Ok(Self::default())
    }
}

impl MyRunner {
    fn run(&self, job: Job, cx: &Context) -> Result<String> {
        self.runs.fetch_add(1, Ordering::Relaxed);
        cx.sleep(Duration::from_millis(job.work_ms))?;
        Ok(processed(&job.input_data))
    }

    fn begin(&self, _: Job, _cx: &Context) -> Result {
        self.runs.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    fn chunks(&self, job: Job, out: &Sender<String>, cx: &Context) -> Result {
        for number in 0..job.chunks {
            if number > 0 {
                cx.sleep(Duration::from_millis(job.interval_ms))?;
            }
            let chunk = format!("Stream chunk {number} for {}", job.input_data);
            out.send_with(&chunk, &Stamp { monotonic_ns: monotonic_ns() })?;
        }
        Ok(())
    }

    fn echo(&self, _: Empty, feed: &Feed<Bytes>, out: &Sender<Bytes>, _cx: &Context) -> Result {
        for block in feed {
            out.send(&block?)?;
        }
        Ok(())
    }

    fn encode(&self, args: Bytes, _cx: &Context) -> Result<Bytes> {
        let args = MyJobArgs::decode(args.as_slice())
            .map_err(|error| Error::invalid_argument(format!("The input is no protobuf message MyJobArgs: {error}")))?;
        Ok(MyResult { output_data: processed(&args.input_data) }.encode_to_vec().into())
    }

    fn count(&self, _: Empty, _cx: &Context) -> Result<u64> {
        Ok(self.runs.load(Ordering::Relaxed))
    }

    fn reset(&self, _: Empty, _cx: &Context) -> Result {
        self.runs.store(0, Ordering::Relaxed);
        Ok(())
    }
}

fn processed(input: &str) -> String {
    format!("Processed: {input}")
}

export_plugins! {
    /// A runner that answers, streams, takes feed and can be cancelled.
    runner MyRunner,
}

#[cfg(test)]
mod tests {
    use super::*;
    use ferrule_plugin::{Status, testing};
    use serde_json::{Value, json};

    fn my_runner() -> testing::Runner<MyRunner> {
        testing::runner(json!({})).unwrap()
    }

    /// One answer, and five chunks, each stamped after the one before.
    #[test]
    fn runs_and_streams() {
        let runner = my_runner();
        let job = json!({"input_data": "x", "interval_ms": 1});
        assert_eq!(runner.call("run", &job).unwrap(), "Processed: x");
        let mut chunks = runner.open("run", &job).unwrap();
        let mut before = 0;
        for number in 0..5 {
            assert_eq!(chunks.next().unwrap().unwrap(), format!("Stream chunk {number} for x"));
            let stamp = chunks.metadata().unwrap()["monotonic_ns"].as_u64().unwrap();
            assert!(stamp > before);
            before = stamp;
        }
        assert!(chunks.next().is_none());
        assert_eq!(runner.call("count", &json!(null)).unwrap(), 2);
        runner.call("reset", &json!(null)).unwrap();
        assert_eq!(runner.call("count", &json!(null)).unwrap(), 0);
    }

    /// What is fed comes back, block by block.
    #[test]
    fn echoes() {
        let mut echo = my_runner().open("echo", &json!({})).unwrap();
        for block in [&b"one"[..], b"", &[0, 10, 255]] {
            assert!(echo.feed(block).unwrap());
            assert_eq!(echo.next_bytes().unwrap().unwrap(), block);
        }
        assert!(echo.feed_final(b"last").unwrap());
        assert_eq!(echo.next_bytes().unwrap().unwrap(), b"last");
        assert!(echo.next_bytes().is_none());
    }

    /// Protobuf in and out; what is none is refused.
    #[test]
    fn speaks_protobuf() {
        let runner = my_runner();
        let answer = runner.call_bytes("encode", b"\x0a\x01x").unwrap();
        assert_eq!(answer, b"\x0a\x0cProcessed: x");
        assert_eq!(runner.call_bytes("encode", b"\x0a\x05x").unwrap_err().status(), Status::InvalidArgument);
    }

    /// A long run and a long stream end soon once they are cancelled.
    #[test]
    fn is_cancelled() {
        let runner = my_runner();
        let mut chunks = runner.open("run", &json!({"input_data": "x", "interval_ms": 3_600_000})).unwrap();
        assert!(chunks.next().unwrap().is_ok());
        std::thread::spawn(chunks.canceller());
        assert_eq!(chunks.next().unwrap().unwrap_err().status(), Status::Cancelled);
        std::thread::spawn(runner.canceller());
        let run: Result<Value> = runner.call("run", &json!({"input_data": "x", "work_ms": 3_600_000}));
        assert_eq!(run.unwrap_err().status(), Status::Cancelled);
    }
}
