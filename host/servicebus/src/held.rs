//! Messages between the link and the caller.

use tokio::runtime::Handle;

use crate::client::Client;
use crate::message::LockedMessage;

/// Locked messages on their way to the caller. Those that are not taken are unlocked for the next receiver.
pub(crate) struct Held {
    client: Client,
    queue: String,
    messages: Vec<LockedMessage>,
}

impl Held {
    pub(crate) fn new(client: Client, queue: String, messages: Vec<LockedMessage>) -> Self {
        Self { client, queue, messages }
    }

    /// The messages; settling them is up to the caller now.
    pub(crate) fn take(mut self) -> Vec<LockedMessage> {
        std::mem::take(&mut self.messages)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let messages = std::mem::take(&mut self.messages);
        if messages.is_empty() {
            return;
        }
        // Without a runtime the process ends; the locks then end by themselves.
        let Ok(runtime) = Handle::try_current() else { return };
        let give_back = give_back(self.client.clone(), std::mem::take(&mut self.queue), messages);
        self.client.tasks().spawn_on(give_back, &runtime);
    }
}

async fn give_back(client: Client, queue: String, messages: Vec<LockedMessage>) {
    for message in messages {
        if let Err(error) = client.abandon(&queue, message.lock).await {
            tracing::warn!(queue, %error, "a message that nobody took stays locked");
        }
    }
}
