//! Handles the announcements of images, which a publisher or the bucket itself sends.
//!
//! An event is a pushed or pulled message that normally contains an announcement. An acknowledged event is
//! never delivered again. `event` handles one event. `in_flight` makes sure that an image is handled by one
//! task at a time. `records` publishes and stores the prediction. `repeated_failures` records the failure of an
//! image that the topic no longer delivers. [`Outcome`] is the table that decides
//! whether an event is acknowledged.

mod error;
mod event;
mod in_flight;
mod outcome;
mod reason;
mod records;
mod repeated_failures;

pub use outcome::{Action, Handling, Outcome};
pub use reason::{DeadReason, IgnoreReason};
pub use repeated_failures::RepeatedFailures;

pub(crate) use event::{AnnouncementHandler, EventResult, HandledEvent};
pub(crate) use records::{Records, StoredRecord, parse_object_name};
