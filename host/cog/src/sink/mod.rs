//! Where a COG goes.

mod file;

use std::io;

pub use file::FileSink;

/// Bytes of which the body's place in the file is a multiple, wherever the file is: what file systems can insert without
/// copying, and the same bytes where they cannot.
pub const ALIGNMENT: u64 = 4096;

/// Takes a COG in the order in which it is made: the data of the full resolution first, although it stands last, and then
/// what stands before it.
pub trait Sink {
    /// Appends data of the full resolution.
    ///
    /// # Errors
    /// Where it cannot be written.
    fn body(&mut self, bytes: &[u8]) -> io::Result<()>;

    /// Makes room for exactly `head` bytes before the body, a multiple of [`ALIGNMENT`] where there is a body.
    ///
    /// # Errors
    /// Where it cannot be made.
    fn make_room(&mut self, head: u64) -> io::Result<()>;

    /// Appends to the head.
    ///
    /// # Errors
    /// Where it cannot be written.
    fn head(&mut self, bytes: &[u8]) -> io::Result<()>;

    /// Everything was written; answers the size in bytes.
    ///
    /// # Errors
    /// Where what was written cannot be kept.
    fn finish(&mut self) -> io::Result<u64>;
}
