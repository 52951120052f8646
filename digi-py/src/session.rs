//! `digi.Session`.

use std::cell::RefCell;
use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Poll, Waker};

use bytes::Bytes;
use digi_core::frame::Frame;
use digi_core::{CloseCode, Code, Session as CoreSession};
use futures_util::FutureExt;
use parking_lot::Mutex;
use pyo3::exceptions::{PyRuntimeError, PyStopAsyncIteration, PyStopIteration, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyList, PyString};

use crate::errors::Failure;
use crate::pending::Pending;
use crate::runtime::Owned;

#[pyclass(frozen, weakref, module = "digi._digi")]
pub(crate) struct Session(Arc<Owned<Open>>);

struct Open {
    session: CoreSession,
    user: String,
    reader: Mutex<Reader>,
}

/// Who reads the frames: the last one that asked.
#[derive(Default)]
struct Reader {
    number: u64,
    waker: Option<Waker>,
}

impl Session {
    pub(crate) fn new(session: CoreSession, user: String) -> Self {
        Self(Arc::new(Owned::new(Open { session, user, reader: Mutex::default() })))
    }

    /// Frames when there are some; `at_end` makes the error for when there will be none any more.
    fn read(&self, at_end: Option<fn() -> PyErr>) -> PyResult<Pending> {
        let number = self.0.get()?.take_over();
        let open = self.0.clone();
        let work = poll_fn(move |cx| {
            let open = open.get()?;
            {
                let mut reader = open.reader.lock();
                if reader.number != number {
                    return Poll::Ready(Err(PyRuntimeError::new_err("another reader took over this session").into()));
                }
                reader.waker = Some(cx.waker().clone());
            }
            let mut frames = Vec::new();
            match open.session.poll_frames(cx, &mut frames) {
                Poll::Pending => Poll::Pending,
                Poll::Ready(Ok(())) => Poll::Ready(Ok(frames)),
                Poll::Ready(Err(_)) => Poll::Ready(match at_end {
                    Some(end) => Err(end().into()),
                    None => Ok(frames),
                }),
            }
        });
        Ok(Pending::lazy(work, |py, frames| Ok(texts(py, &frames)?.into_any().unbind())))
    }
}

impl Open {
    /// Makes the caller the reader; who waited before is told.
    fn take_over(&self) -> u64 {
        let mut reader = self.reader.lock();
        reader.number += 1;
        let before = reader.waker.take();
        let number = reader.number;
        drop(reader);
        if let Some(waker) = before {
            waker.wake();
        }
        number
    }
}

#[pymethods]
impl Session {
    fn receive(&self, text: &str) -> PyResult<Pending> {
        let open = self.0.get()?;
        // Nothing is waited for unless the engine has too much to store, and before that nothing is taken in.
        if let Some(done) = open.session.receive(text).now_or_never() {
            done.map_err(Failure::from)?;
            return Ok(Pending::ready(|py| Ok(py.None())));
        }
        let (open, text) = (self.0.clone(), text.to_owned());
        let work = async move { Ok(open.get()?.session.receive(&text).await?) };
        Ok(Pending::new(work, |py, ()| Ok(py.None())))
    }

    fn receive_binary(&self) -> PyResult<()> {
        self.0.get()?.session.receive_unreadable(Code::NotText);
        Ok(())
    }

    fn frames(&self) -> PyResult<Pending> {
        self.read(None)
    }

    fn __aiter__(slf: Bound<'_, Self>) -> Bound<'_, Self> {
        slf
    }

    fn __anext__(&self) -> PyResult<Pending> {
        self.read(Some(|| PyStopAsyncIteration::new_err(())))
    }

    fn __iter__(slf: Bound<'_, Self>) -> Bound<'_, Self> {
        slf
    }

    fn __next__(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        self.read(Some(|| PyStopIteration::new_err(())))?.wait(py, None)
    }

    #[pyo3(signature = (code=1000))]
    fn close(&self, code: u16) -> PyResult<()> {
        let known = CloseCode::ALL.iter().find(|known| known.number() == code);
        let known = known.ok_or_else(|| PyValueError::new_err(format!("code: {code} is no close code of Digi's")))?;
        self.0.get()?.session.close(*known);
        Ok(())
    }

    fn __aenter__(slf: Bound<'_, Self>) -> Pending {
        let session = slf.unbind();
        Pending::ready(move |_| Ok(session.into_any()))
    }

    #[pyo3(signature = (kind, error, trace))]
    fn __aexit__(
        &self,
        kind: Option<Bound<'_, PyAny>>,
        error: Option<Bound<'_, PyAny>>,
        trace: Option<Bound<'_, PyAny>>,
    ) -> PyResult<Pending> {
        self.__exit__(kind, error, trace)?;
        Ok(Pending::ready(|py| Ok(py.None())))
    }

    fn __enter__(slf: Bound<'_, Self>) -> Bound<'_, Self> {
        slf
    }

    #[pyo3(signature = (kind, error, trace))]
    fn __exit__(
        &self,
        kind: Option<Bound<'_, PyAny>>,
        error: Option<Bound<'_, PyAny>>,
        trace: Option<Bound<'_, PyAny>>,
    ) -> PyResult<()> {
        let _ = (kind, error, trace);
        self.close(CloseCode::Normal.number())
    }

    #[getter]
    fn user(&self) -> PyResult<&str> {
        Ok(&self.0.get()?.user)
    }

    #[getter]
    fn close_code(&self) -> PyResult<Option<u16>> {
        Ok(self.0.get()?.session.closed().map(CloseCode::number))
    }

    #[getter]
    fn close_reason(&self) -> PyResult<Option<&'static str>> {
        Ok(self.0.get()?.session.closed().map(CloseCode::name))
    }

    fn __repr__(&self) -> PyResult<String> {
        let open = self.0.get()?;
        let state = open.session.closed().map_or("open".to_owned(), |code| format!("closed {code}"));
        Ok(format!("<digi.Session of {:?}, {state}>", open.user))
    }
}

/// Frames whose Python text was made last: all members of a room are given the same ones.
const CACHED: usize = 64;
/// Longer frames are not kept.
const CACHED_BYTES: usize = 4 * 1024;

/// A frame and its text.
type Cached = (Bytes, Py<PyString>);

thread_local! {
    static TEXTS: RefCell<Vec<Option<Cached>>> = const { RefCell::new(Vec::new()) };
}

fn texts<'py>(py: Python<'py>, frames: &[Frame]) -> PyResult<Bound<'py, PyList>> {
    PyList::new(py, frames.iter().map(|frame| text(py, frame)))
}

/// The text of a frame, made once for the members who are given the same frame one after the other.
fn text<'py>(py: Python<'py>, frame: &Frame) -> Bound<'py, PyString> {
    let bytes = frame.as_bytes();
    if bytes.len() > CACHED_BYTES {
        return PyString::new(py, frame.as_str());
    }
    TEXTS.with_borrow_mut(|cache| {
        if cache.is_empty() {
            cache.resize_with(CACHED, || None);
        }
        // Frames lie anywhere; their addresses differ above the alignment of the allocator. The cache keeps the bytes,
        // so that no other frame can come to lie there.
        let slot = &mut cache[(bytes.as_ptr() as usize >> 4) % CACHED];
        match slot {
            Some((known, text)) if known.as_ptr() == bytes.as_ptr() && known.len() == bytes.len() => {
                text.bind(py).clone()
            }
            _ => {
                let text = PyString::new(py, frame.as_str());
                *slot = Some((frame.clone().into_bytes(), text.clone().unbind()));
                text
            }
        }
    })
}
