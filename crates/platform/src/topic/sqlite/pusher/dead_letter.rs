//! A [`DeadLetterHandler`] records the failure of a message that is given up.

use async_trait::async_trait;

use crate::topic::Message;

/// A message that has failed too often.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadLetter {
    /// The message.
    pub message: Message,
    /// Id of the message.
    pub message_id: String,
    /// Number of failures.
    pub failures: u32,
    /// Description of the last failure, for the log.
    pub reason: String,
}

/// Records the failure of a message that is not delivered again.
#[async_trait]
pub trait DeadLetterHandler: Send + Sync + 'static {
    /// Records that the message of `letter` failed, where the publisher looks for the result.
    ///
    /// The method may be called again for a letter that is recorded already.
    ///
    /// # Errors
    /// Returns an error if the failure cannot be recorded at present. The message is then kept, and the method
    /// is called again after a pause.
    async fn record(&self, letter: DeadLetter) -> Result<(), Box<dyn std::error::Error + Send + Sync>>;
}
