//! jsonl-sink: writes records as JSON lines.
#![forbid(unsafe_code)]

use std::fs::{File, OpenOptions, create_dir_all};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use common::file::failed;
use ferrule_plugin::prelude::*;

config! {
    /// Where records go.
    struct Config {
        /// The file. Folders that are missing are made. `-` is the standard output.
        path: PathBuf,
        /// Keep what the file holds, and go on after it.
        append: bool = false,
    }

    /// What is written.
    struct Mark {
        /// Bytes of the file, all of them whole lines.
        length: u64,
    }
}

struct JsonLines {
    config: Config,
    target: Option<Target>,
}

enum Target {
    /// A file that can be cut: `length` bytes of it are whole lines.
    File { file: File, length: u64 },
    /// A pipe, a terminal, a device: what is written is gone.
    Special(Box<dyn Write + Send>),
}

impl SinkConnector for JsonLines {
    const NAME: &str = "jsonl-sink";
    type Config = Config;
    type Mark = Mark;

    fn create(config: Config, _host: &Host) -> Result<Self> {
        Ok(Self { config, target: None })
    }

    fn open(&mut self, mark: Option<Mark>, _cx: &Context) -> Result {
        let Config { path, append } = &self.config;
        self.target = Some(open(path, *append, mark)?);
        Ok(())
    }

    fn write(&mut self, records: &Records, _cx: &Context) -> Result {
        let path = &self.config.path;
        let lines = records.as_bytes();
        match &mut self.target {
            None => Err(Error::invalid_state("write before open")),
            Some(Target::Special(target)) => {
                target.write_all(lines).and_then(|()| target.flush()).map_err(|error| failed(path, &error))
            }
            Some(Target::File { file, length }) => match file.write_all(lines) {
                Ok(()) => {
                    *length += lines.len() as u64;
                    Ok(())
                }
                Err(error) => Err(take_back(path, file, *length, &error)),
            },
        }
    }

    fn flush(&mut self, _cx: &Context) -> Result<Option<Mark>> {
        Ok(match &self.target {
            Some(Target::File { length, .. }) => Some(Mark { length: *length }),
            _ => None,
        })
    }

    fn sync(&mut self, _cx: &Context) -> Result {
        match &self.target {
            Some(Target::File { file, .. }) => file.sync_data().map_err(|error| failed(&self.config.path, &error)),
            _ => Ok(()),
        }
    }

    fn close(&mut self, _cx: &Context) -> Result {
        self.target = None;
        Ok(())
    }
}

fn open(path: &Path, append: bool, mark: Option<Mark>) -> Result<Target> {
    // By its name it would be opened anew: emptied, if it is redirected to a file.
    if path == Path::new("-") || path == Path::new("/dev/stdout") {
        no_mark(path, &mark)?;
        return Ok(Target::Special(Box::new(io::stdout())));
    }
    if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        create_dir_all(folder).map_err(|error| failed(folder, &error))?;
    }
    let special = path.metadata().is_ok_and(|metadata| !metadata.is_file() && !metadata.is_dir());
    if special {
        no_mark(path, &mark)?;
        let file = OpenOptions::new().write(true).open(path).map_err(|error| failed(path, &error))?;
        return Ok(Target::Special(Box::new(file)));
    }
    let mut options = OpenOptions::new();
    options.read(true).create(mark.as_ref().is_none_or(|mark| mark.length == 0));
    // In a file that others append to as well, nobody may write at a place of its own.
    if append {
        options.append(true)
    } else {
        options.write(true)
    };
    let mut file = options.open(path).map_err(|error| failed(path, &error))?;
    let length = ready(&mut file, append, mark.as_ref()).map_err(|error| failed(path, &error))?;
    match (length, mark) {
        (Ok(length), _) => Ok(Target::File { file, length }),
        (Err(found), Some(Mark { length })) => Err(Error::invalid_argument(format!(
            "{}: the mark says {length} bytes, and the file has {found}: it is not the file that was written",
            path.display()
        ))),
        (Err(_), None) => Err(Error::internal("a file without a mark cannot be too short")),
    }
}

/// Cuts a file to where writing begins, and says how long it then is; `Err` with its length if it is too short.
fn ready(file: &mut File, append: bool, mark: Option<&Mark>) -> io::Result<Result<u64, u64>> {
    let mut length = file.metadata()?.len();
    match mark {
        Some(mark) if mark.length > length => return Ok(Err(length)),
        Some(mark) => length = mark.length,
        None if append => {}
        None => length = 0,
    }
    if file.metadata()?.len() != length {
        file.set_len(length)?;
    }
    if length > 0 && mark.is_none() {
        // Somebody's last line without its end must not swallow our first record.
        let mut last = [0];
        file.seek(SeekFrom::Start(length - 1))?;
        file.read_exact(&mut last)?;
        if last != *b"\n" {
            file.write_all(b"\n")?;
            length += 1;
        }
    }
    file.seek(SeekFrom::Start(length))?;
    Ok(Ok(length))
}

/// A write failed halfway: the file goes back to where it was.
#[cold]
fn take_back(path: &Path, file: &mut File, length: u64, error: &io::Error) -> Error {
    let back = file.set_len(length).and_then(|()| file.seek(SeekFrom::Start(length)));
    let kept = match back {
        Ok(_) => format!("; nothing of this write is kept, and the file's {length} bytes are whole lines"),
        Err(again) => format!("; and what was written of it cannot be cut off ({again}): keep {length} bytes"),
    };
    let told = failed(path, error);
    Error::new(told.status(), format!("{}{kept}", told.message())).detail("length", length)
}

fn no_mark(path: &Path, mark: &Option<Mark>) -> Result {
    match mark {
        Some(_) => Err(Error::invalid_argument(format!(
            "{}: it is no regular file, so it cannot be cut to a mark",
            path.display()
        ))),
        None => Ok(()),
    }
}

export_plugins! {
    /// Writes a JSON object a line. A write is whole or not at all, and a restart cuts the file to its last mark.
    sink JsonLines,
}

#[cfg(test)]
mod tests {
    use super::*;
    use ferrule_plugin::testing::sink;
    use serde_json::json;

    /// What came after a mark is cut off, and writing goes on there.
    #[test]
    fn goes_on_from_a_mark() {
        let folder = std::env::temp_dir().join(format!("ferrule-jsonl-sink-{}", std::process::id()));
        let path = folder.join("new").join("out.jsonl");
        let config = json!({"path": path});
        let mut first = sink::<JsonLines>(config.clone()).unwrap();
        first.open(None).unwrap();
        first.write(&[json!({"a": 1}), json!({"a": 2})]).unwrap();
        let mark = first.flush().unwrap();
        assert_eq!(mark, Some(json!({"length": 16})));
        first.write(&[json!({"a": 3})]).unwrap();
        first.close().unwrap();
        let mut second = sink::<JsonLines>(config).unwrap();
        second.open(mark).unwrap();
        second.write(&[json!({"a": 4})]).unwrap();
        second.close().unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "{\"a\":1}\n{\"a\":2}\n{\"a\":4}\n");
        std::fs::remove_dir_all(folder).unwrap();
    }
}
