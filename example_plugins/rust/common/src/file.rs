//! Files that open, or say which and why not.

use std::borrow::Cow;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;

use ferrule_plugin::{Error, Result};

/// A bad record's own text goes into its error, up to here: a host's room for errors is not endless.
const LONGEST_TEXT: usize = 128 * 1024;

/// How a file begins, so that one that was replaced is not taken for the one that was read.
#[derive(Clone, Debug, Default)]
pub struct Head(Vec<u8>);

/// A head is that long, or as long as the file.
const HEAD: usize = 4096;

impl Head {
    /// A regular file's; of anything else, which cannot be read twice, none.
    pub fn of(path: &Path) -> Result<Self> {
        if !path.metadata().is_ok_and(|metadata| metadata.is_file()) {
            return Ok(Self::default());
        }
        let mut head = Vec::with_capacity(HEAD);
        open(path)?.take(HEAD as u64).read_to_end(&mut head).map_err(|error| failed(path, &error))?;
        Ok(Self(head))
    }

    /// How much of it a position behind `byte` bytes stands on, and that part's hash (FNV-1a, 64 bits).
    pub fn at(&self, byte: u64) -> (u64, u64) {
        let part = &self.0[..self.0.len().min(usize::try_from(byte).unwrap_or(usize::MAX))];
        let hash = part.iter().fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| {
            (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
        });
        (part.len() as u64, hash)
    }

    /// That a position that was taken with `hash` over the first `bytes` bytes is one of this file.
    pub fn check(&self, path: &Path, bytes: u64, hash: u64) -> Result {
        if self.at(bytes) == (bytes, hash) {
            return Ok(());
        }
        Err(Error::invalid_argument(format!(
            "{}: its first {bytes} bytes are not those of the file that was read: it was replaced, and the position is of \
             no use",
            path.display()
        )))
    }
}

/// Opens a file to read. NOT_FOUND or IO, with the path.
pub fn open(path: &Path) -> Result<File> {
    let file = File::open(path).map_err(|error| failed(path, &error))?;
    match file.metadata() {
        Ok(metadata) if metadata.is_dir() => {
            Err(Error::io(format!("{}: it is a folder, and a file is expected", path.display())))
        }
        Ok(_) => Ok(file),
        Err(error) => Err(failed(path, &error)),
    }
}

/// Opens a file to go on reading at a byte of it. UNSUPPORTED if it is no file, INVALID_ARGUMENT if it has not that many.
pub fn open_at(path: &Path, byte: u64) -> Result<File> {
    // Before it is opened: that would disturb whoever writes into it.
    if path.metadata().is_ok_and(|metadata| !metadata.is_file() && !metadata.is_dir()) {
        return Err(Error::unsupported(format!(
            "{}: it is no regular file, so it can be read once, and from its beginning only",
            path.display()
        )));
    }
    let mut file = open(path)?;
    let len = file.seek(SeekFrom::End(0)).map_err(|error| failed(path, &error))?;
    if byte > len {
        return Err(Error::invalid_argument(format!(
            "{}: the position is byte {byte}, and the file has {len}: it is not the file that was read",
            path.display()
        )));
    }
    file.seek(SeekFrom::Start(byte)).map_err(|error| failed(path, &error))?;
    Ok(file)
}

/// What went wrong with a file: NOT_FOUND or IO, with the path, and for a relative one with where it is seen from.
#[cold]
pub fn failed(path: &Path, error: &io::Error) -> Error {
    let here = match std::env::current_dir() {
        Ok(folder) if path.is_relative() => format!(" (seen from {})", folder.display()),
        _ => String::new(),
    };
    if error.kind() == io::ErrorKind::NotFound {
        return Error::not_found(format!("{}: there is no such file{here}", path.display()));
    }
    Error::io(format!("{}: {error}", path.display()))
}

/// Puts a bad record's own text and its line's number into its error.
#[cold]
pub fn bad_record(error: Error, text: &[u8], line: u64) -> Error {
    let shown: Cow<'_, str> = String::from_utf8_lossy(&text[..text.len().min(LONGEST_TEXT)]);
    let error = error.detail("record", shown).detail("line", line);
    if text.len() > LONGEST_TEXT { error.detail("record_bytes", text.len()) } else { error }
}
