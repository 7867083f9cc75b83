//! digest: the SHA-2 digest of a large file, or of blocks as they are fed, with progress on the way.
#![forbid(unsafe_code)]

use std::fs::File;
use std::io::Read;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use ferrule_plugin::prelude::*;
use sha2::digest::DynDigest;
use sha2::{Sha256, Sha512};

config! {
    /// Which digest, and how often it tells how far it is.
    struct Config {
        /// The algorithm.
        algorithm: Algorithm = Algorithm::Sha256,
        /// Milliseconds from one item of a stream to the next.
        progress_ms: u64 = 100,
    }

    enum Algorithm {
        Sha256,
        Sha512,
    }

    struct Of {
        /// The file.
        path: PathBuf,
    }

    /// How far it is; the last item of a stream, and an answer, has the digest.
    struct Progress {
        /// Bytes so far.
        bytes: u64,
        /// Bytes there are, as far as that is known.
        total: Option<u64>,
        /// The digest of all of them, in hexadecimal digits.
        digest: Option<String>,
    }
}

/// What is read at once: a millisecond's work or less, so that somebody who cancels need not wait.
const BLOCK: usize = 128 << 10;

struct Digest {
    config: Config,
}

impl JobRunner for Digest {
    const NAME: &str = "digest";
    type Config = Config;
    const METHODS: Methods<Self> = &[
        unary("file", Self::file)
            .and_stream(Self::file_with_progress)
            .cancellable()
            .about("The digest of a file; as a stream, with progress before it."),
        feed("blocks", Self::blocks).about("The digest of what is fed, with progress before it."),
    ];

    fn create(config: Config, _host: &Host) -> Result<Self> {
        Ok(Self { config })
    }
}

impl Digest {
    fn file(&self, of: Of, cx: &Context) -> Result<Progress> {
        self.read(&of, cx, |_| Ok(()))
    }

    fn file_with_progress(&self, of: Of, out: &Sender<Progress>, cx: &Context) -> Result {
        let done = self.read(&of, cx, |progress| out.send(progress))?;
        out.send(&done)
    }

    fn blocks(&self, _: Empty, feed: &Feed<Bytes>, out: &Sender<Progress>, _cx: &Context) -> Result {
        let mut work = Work::new(&self.config, None);
        for block in feed {
            work.take(&block?, |progress| out.send(progress))?;
        }
        out.send(&work.finish())
    }

    /// Reads a file to its end, or until somebody cancels.
    fn read(&self, of: &Of, cx: &Context, mut tell: impl FnMut(&Progress) -> Result) -> Result<Progress> {
        let at = |error: std::io::Error| Error::from(error).context(of.path.display());
        let mut file = File::open(&of.path).map_err(at)?;
        let mut work = Work::new(&self.config, Some(file.metadata().map_err(at)?.len()));
        let mut block = vec![0; BLOCK];
        loop {
            if cx.cancelled() {
                return Err(Error::cancelled(format!("cancelled after {} bytes", work.progress.bytes)));
            }
            match file.read(&mut block).map_err(at)? {
                0 => return Ok(work.finish()),
                len => work.take(&block[..len], &mut tell)?,
            }
        }
    }
}

/// A digest under way.
struct Work {
    hasher: Box<dyn DynDigest>,
    progress: Progress,
    interval: Duration,
    told: Instant,
}

impl Work {
    fn new(config: &Config, total: Option<u64>) -> Self {
        let hasher: Box<dyn DynDigest> = match config.algorithm {
            Algorithm::Sha256 => Box::new(Sha256::default()),
            Algorithm::Sha512 => Box::new(Sha512::default()),
        };
        let interval = Duration::from_millis(config.progress_ms);
        Self { hasher, progress: Progress { bytes: 0, total, digest: None }, interval, told: Instant::now() }
    }

    fn take(&mut self, block: &[u8], tell: impl FnOnce(&Progress) -> Result) -> Result {
        self.hasher.update(block);
        self.progress.bytes += block.len() as u64;
        if self.told.elapsed() >= self.interval {
            self.told = Instant::now();
            tell(&self.progress)?;
        }
        Ok(())
    }

    fn finish(mut self) -> Progress {
        let digest = self.hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
        self.progress.digest = Some(digest);
        self.progress
    }
}

export_plugins! {
    /// The SHA-2 digest of a large file, or of what is fed, with progress on the way.
    runner Digest,
}

#[cfg(test)]
mod tests {
    use super::*;
    use ferrule_plugin::{Status, testing};
    use serde_json::{Value, json};

    fn digest(config: Value) -> testing::Runner<Digest> {
        testing::runner(config).unwrap()
    }

    /// The digests of "abc", as FIPS 180-4 has them, from blocks however they are cut.
    #[test]
    fn known_digests() {
        let sha256 = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        let sha512 = "ddaf35a193617abacc417349ae20413112e6fa4e89a97ea20a9eeee64b55d39a\
                      2192992a274fc1a836ba3c23a3feebbd454d4423643ce80e2a9ac94fa54ca49f";
        for (algorithm, expected) in [("sha256", sha256), ("sha512", sha512)] {
            for blocks in [&["abc"][..], &["a", "", "bc"]] {
                let mut stream = digest(json!({"algorithm": algorithm})).open("blocks", &json!({})).unwrap();
                blocks.iter().for_each(|block| assert!(stream.feed(block.as_bytes()).unwrap()));
                stream.feed_final(b"").unwrap();
                let done = stream.by_ref().last().unwrap().unwrap();
                assert_eq!(done, json!({"bytes": 3, "total": null, "digest": expected}));
            }
        }
    }

    /// A file's digest is the same called, streamed and fed; progress rises, and the digest comes with the last item.
    #[test]
    fn a_file_with_progress() {
        let path = std::env::temp_dir().join(format!("ferrule-digest-{}", std::process::id()));
        let content: Vec<u8> = (0..5 * BLOCK + 7).map(|at| (at * at / 3) as u8).collect();
        std::fs::write(&path, &content).unwrap();
        let runner = digest(json!({"progress_ms": 0}));
        let of = json!({"path": path});
        let answer = runner.call("file", &of).unwrap();
        let items: Vec<Value> = runner.open("file", &of).unwrap().map(Result::unwrap).collect();
        std::fs::remove_file(&path).unwrap();
        assert_eq!(runner.call("file", &of).unwrap_err().status(), Status::Io);
        assert_eq!(items.last(), Some(&answer));
        assert!(items.len() > 5 && items.iter().all(|item| item["total"] == content.len()));
        assert!(items.is_sorted_by_key(|item| item["bytes"].as_u64()));
        assert!(items[..items.len() - 1].iter().all(|item| item["digest"].is_null()));
        let mut stream = runner.open("blocks", &json!({})).unwrap();
        for (number, block) in content.chunks(1000).enumerate() {
            assert!(stream.feed(block).unwrap());
            assert_eq!(stream.next().unwrap().unwrap()["bytes"], content.len().min(1000 * (number + 1)));
        }
        stream.feed_final(b"").unwrap();
        assert_eq!(stream.next().unwrap().unwrap()["digest"], answer["digest"]);
    }

    /// A file without end is read until somebody cancels.
    #[cfg(unix)]
    #[test]
    fn is_cancelled() {
        let runner = digest(json!({"progress_ms": 1}));
        let of = json!({"path": "/dev/zero"});
        let mut stream = runner.open("file", &of).unwrap();
        assert!(stream.next().unwrap().is_ok());
        stream.canceller()();
        assert_eq!(stream.next().unwrap().unwrap_err().status(), Status::Cancelled);
        let cancel = runner.canceller();
        std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(20));
            cancel();
        });
        assert_eq!(runner.call("file", &of).unwrap_err().status(), Status::Cancelled);
    }
}
