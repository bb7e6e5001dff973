//! A commit that is waited for without a thread.

use core::future::Future;
use core::pin::Pin;
use core::task::{Context, Poll};
use std::sync::Arc;

use crate::error::CommitError;
use crate::group::{Group, GroupError};
use crate::shared::Shared;

/// Resolves when the transaction lasts; see
/// [`WriteTxn::commit_async`](crate::WriteTxn::commit_async).
///
/// Needs no runtime. Dropping it changes nothing: the transaction is committed, and soon
/// lasts. It outlives its store, whose closing makes everything last.
///
/// # Errors
///
/// [`CommitError::Poisoned`] if a barrier failed before the transaction lasted: the next
/// open shows whether it does.
#[derive(Debug)]
#[must_use = "whether the transaction lasts is known when this resolves"]
pub struct CommitFuture {
    group: Arc<Group>,
    txn: u64,
    /// Names the waker that waits.
    ticket: Option<u64>,
}

impl CommitFuture {
    /// For a transaction of which the buffer has the record.
    pub(crate) fn new(shared: &Shared, txn: u64) -> Self {
        Self {
            group: Arc::clone(&shared.group),
            txn,
            ticket: None,
        }
    }
}

impl Future for CommitFuture {
    type Output = Result<(), CommitError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        let polled = this.group.poll(&mut this.ticket, this.txn, cx.waker());
        polled.map_err(|error| match error {
            GroupError::Io(_) | GroupError::Poisoned => CommitError::Poisoned,
        })
    }
}

impl Drop for CommitFuture {
    fn drop(&mut self) {
        if let Some(ticket) = self.ticket {
            self.group.leave(ticket);
        }
    }
}
