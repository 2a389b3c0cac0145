//! The signal that ends a run. It is checked before each callback, without being polled each time.
//!
//! A signal is any future, and to poll it may take a lock, which costs too much for each frame. So it is polled
//! with a waker that sets a flag when it is woken, and is polled again only then. Before each callback only the
//! flag is read.

use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Wake, Waker};

use tokio::task::coop::unconstrained;

/// A signal that has not come yet, or none.
pub(crate) struct Signal<'a, F> {
    future: Option<Pin<&'a mut F>>,
    /// The waker that it was polled with last, if it was polled.
    wakes: Option<Arc<Wakes>>,
}

/// Wakes a task, and remembers it.
struct Wakes {
    woken: AtomicBool,
    task: Waker,
}

impl<'a, F> Signal<'a, F> {
    pub(crate) fn new(future: Option<Pin<&'a mut F>>) -> Self {
        Signal { future, wakes: None }
    }

    /// Whether it may have come since it was polled last, so that it is to be polled before anything else is
    /// done.
    #[inline]
    pub(crate) fn may_have_come(&self) -> bool {
        self.future.is_some() && self.wakes.as_ref().is_none_or(|wakes| wakes.woken())
    }
}

impl<F: Future<Output = ()>> Signal<'_, F> {
    /// Polls it, if that may change anything, and says whether it has come now. It says so once.
    #[inline]
    pub(crate) fn poll(&mut self, cx: &Context<'_>) -> bool {
        let Signal { future, wakes } = self;
        let has_come =
            future.as_mut().is_some_and(|future| poll_future(future.as_mut(), wakes, cx));
        if has_come {
            *self = Signal::new(None);
        }
        has_come
    }
}

/// Polls the future, unless it was polled and has not woken the task since. Says whether it is ready now.
fn poll_future(
    future: Pin<&mut impl Future<Output = ()>>,
    wakes: &mut Option<Arc<Wakes>>,
    cx: &Context<'_>,
) -> bool {
    let wakes = match wakes {
        Some(wakes) if wakes.task.will_wake(cx.waker()) => {
            if !wakes.woken() {
                return false;
            }
            // The flag is cleared before the poll, so that a wake during the poll is not lost.
            wakes.woken.swap(false, Ordering::AcqRel);
            wakes
        }
        _ => wakes.insert(Arc::new(Wakes::new(cx.waker().clone()))),
    };
    let waker = Waker::from(wakes.clone());
    // Without `unconstrained`, a future of Tokio's would be pending and wake the task as soon as that has used up
    // its coop budget, though the signal has come.
    pin!(unconstrained(future)).poll(&mut Context::from_waker(&waker)).is_ready()
}

impl Wakes {
    fn new(task: Waker) -> Self {
        Wakes { woken: AtomicBool::new(false), task }
    }

    fn woken(&self) -> bool {
        self.woken.load(Ordering::Acquire)
    }
}

impl Wake for Wakes {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.woken.store(true, Ordering::Release);
        self.task.wake_by_ref();
    }
}
