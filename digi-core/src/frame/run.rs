//! Frames that follow each other, handed out as one.

use std::fmt;
use std::sync::Arc;
#[cfg(feature = "server")]
use std::sync::OnceLock;

#[cfg(feature = "server")]
use bytes::Bytes;

use super::Frame;

/// Frames that follow each other, the same for all who get them: a recipient costs a pointer, however many frames a
/// batch brings to a room.
#[derive(Clone)]
pub struct Run(Arc<Shared>);

struct Shared {
    frames: Vec<Frame>,
    bytes: usize,
    /// See [`Run::wire`].
    #[cfg(feature = "server")]
    wire: OnceLock<Bytes>,
}

impl Run {
    /// These frames, in this order.
    pub fn new(frames: Vec<Frame>) -> Self {
        let bytes = frames.iter().map(|frame| frame.as_bytes().len()).sum();
        Self(Arc::new(Shared {
            frames,
            bytes,
            #[cfg(feature = "server")]
            wire: OnceLock::new(),
        }))
    }

    /// The frames.
    pub fn frames(&self) -> &[Frame] {
        &self.0.frames
    }

    /// The bytes of all frames together.
    pub fn bytes(&self) -> usize {
        self.0.bytes
    }

    /// What goes over a socket: the first who asks makes it out of the frames, for all.
    #[cfg(feature = "server")]
    pub(crate) fn wire(&self, make: impl FnOnce(&[Frame]) -> Bytes) -> &Bytes {
        self.0.wire.get_or_init(|| make(&self.0.frames))
    }
}

impl From<Frame> for Run {
    fn from(frame: Frame) -> Self {
        Self::new(vec![frame])
    }
}

impl fmt::Debug for Run {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Run({} frames, {} bytes)", self.frames().len(), self.bytes())
    }
}
