//! When an allocation may fail, and where fault plans come from.

use std::sync::Mutex;

use brickyard_arena::FaultPlan;

/// When null is a legal answer to a sensible request.
#[derive(Debug)]
pub enum Refusals {
    /// The operating system serves every call.
    Never,
    /// After the plan has seen so many calls, the last of which failed.
    AfterCall {
        /// The plan of the driven heap.
        plan: &'static FaultPlan,
        /// Calls seen since the heap's birth when the first one failed.
        call: u64,
    },
    /// Calls have failed, but every call is served again.
    NoLonger,
}

impl Refusals {
    /// Whether an answer of null is legal now.
    #[must_use]
    pub fn permitted(&self) -> bool {
        match self {
            Self::Never | Self::NoLonger => false,
            Self::AfterCall { plan, call } => plan.calls() >= *call,
        }
    }

    /// Whether a call has failed in the heap's life.
    #[must_use]
    pub fn happened(&self) -> bool {
        matches!(self, Self::NoLonger) || self.permitted()
    }
}

/// Plans that no heap uses at the moment. A plan must be `'static`; without a
/// second use every run of a fuzzer would leak one.
static IDLE_PLANS: Mutex<Vec<&'static FaultPlan>> = Mutex::new(Vec::new());

/// Borrows a plan for the life of one heap.
#[derive(Debug)]
pub struct PlanLease(&'static FaultPlan);

impl PlanLease {
    /// A plan that fails nothing yet.
    #[must_use]
    pub fn take() -> Self {
        let idle = IDLE_PLANS
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
            .pop();
        let lease = Self(idle.unwrap_or_else(|| Box::leak(Box::new(FaultPlan::new()))));
        lease.disarm();
        lease
    }

    /// The plan itself.
    #[must_use]
    pub fn plan(&self) -> &'static FaultPlan {
        self.0
    }

    /// From now on no call fails.
    pub fn disarm(&self) {
        self.0.succeed();
    }
}

impl Drop for PlanLease {
    /// The heap must be gone by now: declare the lease before the heap.
    fn drop(&mut self) {
        self.disarm();
        IDLE_PLANS
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
            .push(self.0);
    }
}
