//! Handles announcements of images, pushed or pulled, from a publisher or from the bucket itself.
//!
//! `event` handles one announcement: `in_flight` makes sure that an image is classified once at a time,
//! and `records` stores and publishes its prediction. [`Outcome`] is the table that decides whether an
//! announcement is acknowledged.

mod error;
mod event;
mod in_flight;
mod outcome;
mod reason;
mod records;

pub use outcome::{Action, Handling, Outcome};
pub use reason::{DeadReason, IgnoreReason};

pub(crate) use event::{AnnouncementHandler, EventResult, HandledEvent};
pub(crate) use records::{Records, StoredRecord, object_name};
