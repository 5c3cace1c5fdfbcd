//! Where a COG goes.

mod file;

use std::io;

pub use file::FileSink;

/// Takes a COG in the order in which it is made: the data of the full resolution first, although it stands last, and then
/// what stands before it.
pub trait Sink {
    /// Appends data of the full resolution.
    ///
    /// # Errors
    /// Where it cannot be written.
    fn body(&mut self, bytes: &[u8]) -> io::Result<()>;

    /// Makes room for `head` bytes before the body; answers where the body begins then, in bytes from the start. What is
    /// between is padding.
    ///
    /// # Errors
    /// Where it cannot be made.
    fn make_room(&mut self, head: u64) -> io::Result<u64>;

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
