//! [`BodyBuffer`] collects the bytes of a body in one piece of memory.

use bytes::Bytes;

use crate::buffer::ZeroedBuffer;

/// Capacities of the buffer on the heap, in bytes. A longer body moves to a [`ZeroedBuffer`].
const HEAP_CAPACITIES: [usize; 4] = [16 << 10, 64 << 10, 256 << 10, 1 << 20];

/// A growing buffer for a body.
///
/// The buffer of a long body has the maximum length from the start and is never copied, because pages that
/// were never written use no memory. While a short body is copied to the next capacity, both copies exist for
/// a moment. They have at most 1.25 MiB together, and only one body per async worker is copied at a time.
pub(super) enum BodyBuffer {
    Short(Vec<u8>),
    Long(LongBody),
}

/// A buffer and the number of bytes that were written to it.
pub(super) struct LongBody {
    buffer: ZeroedBuffer,
    length: usize,
}

impl AsRef<[u8]> for LongBody {
    fn as_ref(&self) -> &[u8] {
        &self.buffer[..self.length]
    }
}

impl Default for BodyBuffer {
    fn default() -> Self {
        Self::Short(Vec::new())
    }
}

impl BodyBuffer {
    /// Appends `piece` to a body of at most `max_length` bytes. Returns false if the body would be longer.
    #[must_use]
    pub(super) fn push(&mut self, piece: &[u8], max_length: usize) -> bool {
        match self {
            Self::Short(bytes) => {
                let length = bytes.len() + piece.len();
                if length > max_length {
                    return false;
                }
                if length > bytes.capacity() {
                    let capacity = HEAP_CAPACITIES.into_iter().find(|&capacity| capacity >= length);
                    let Some(capacity) = capacity else {
                        let mut long = LongBody { buffer: ZeroedBuffer::new(max_length), length: 0 };
                        let is_complete = long.push(bytes) && long.push(piece);
                        *self = Self::Long(long);
                        return is_complete;
                    };
                    bytes.reserve_exact(capacity.min(max_length) - bytes.len());
                }
                bytes.extend_from_slice(piece);
                true
            }
            Self::Long(long) => long.push(piece),
        }
    }

    pub(super) fn into_bytes(self) -> Bytes {
        match self {
            Self::Short(bytes) => bytes.into(),
            Self::Long(long) => Bytes::from_owner(long),
        }
    }
}

impl LongBody {
    fn push(&mut self, piece: &[u8]) -> bool {
        let end = self.length + piece.len();
        let Some(target) = self.buffer.get_mut(self.length..end) else { return false };
        target.copy_from_slice(piece);
        self.length = end;
        true
    }
}
