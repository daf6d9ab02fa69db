//! Handles the announcements of images, which a publisher or the bucket itself sends.
//!
//! An event is a pushed or pulled message that normally contains an announcement. An acknowledged event is
//! never delivered again. `event` handles one event. `in_flight` makes sure that an image is handled by one
//! task at a time. `records` publishes and stores the prediction. [`Outcome`] is the table that decides
//! whether an event is acknowledged.

mod error;
mod event;
mod in_flight;
mod outcome;
mod reason;
mod records;

pub use outcome::{Action, Handling, Outcome};
pub use reason::{DeadReason, IgnoreReason};

pub(crate) use event::{AnnouncementHandler, EventResult, HandledEvent};
pub(crate) use records::{Records, StoredRecord, parse_object_name};
