//! An async generator in Rust, for Python's `async for`: what a stream costs through PyO3 and tokio, without ferrule.
//!
//! A tokio task pushes items into a bounded channel; `__anext__` is a future that takes one.

use std::sync::Arc;

use pyo3::exceptions::PyStopAsyncIteration;
use pyo3::prelude::*;
use pyo3::types::PyBytes;
use pyo3_async_runtimes::tokio::{future_into_py, get_runtime};
use tokio::sync::{Mutex, mpsc};

/// Items that may lie between the two, each of 16 bytes: as much as ferrule's queue holds.
const ROOM: usize = 16 * 1024;

#[pyclass]
struct Items(Arc<Mutex<mpsc::Receiver<Vec<u8>>>>);

#[pymethods]
impl Items {
    #[new]
    fn new(count: usize, bytes: usize) -> Self {
        let (sender, receiver) = mpsc::channel(ROOM);
        get_runtime().spawn(async move {
            for _ in 0..count {
                if sender.send(vec![b'x'; bytes]).await.is_err() {
                    return; // nobody reads any more
                }
            }
        });
        Self(Arc::new(Mutex::new(receiver)))
    }

    fn __aiter__(this: PyRef<'_, Self>) -> PyRef<'_, Self> {
        this
    }

    fn __anext__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let receiver = Arc::clone(&self.0);
        future_into_py(py, async move {
            let item = receiver.lock().await.recv().await;
            match item {
                Some(item) => Ok(Python::attach(|py| PyBytes::new(py, &item).unbind())),
                None => Err(PyStopAsyncIteration::new_err(())),
            }
        })
    }
}

#[pymodule]
fn pyo3_stream(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<Items>()
}
