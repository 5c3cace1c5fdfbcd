//! Strips that go back to whoever fills them, once nobody reads them any more.

use std::sync::mpsc::Sender;

use crate::overview::Strip;

/// A strip that is read by several threads.
#[derive(Debug)]
pub(crate) struct Lent {
    strip: Strip,
    back: Option<Sender<Strip>>,
}

impl Lent {
    /// A strip that goes `back`, or nowhere.
    pub(crate) fn new(strip: Strip, back: Option<Sender<Strip>>) -> Self {
        Self { strip, back }
    }

    pub(crate) fn strip(&self) -> &Strip {
        &self.strip
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        if let Some(back) = &self.back {
            // The reader may have ended: after its last strip, or with an error.
            let _ = back.send(std::mem::take(&mut self.strip));
        }
    }
}
