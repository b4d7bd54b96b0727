// SPDX-License-Identifier: Apache-2.0
//! What core and the driver log while a case runs.

use std::{
    fmt::{Debug, Write as _},
    sync::{Mutex, Once, PoisonError},
};

use tracing::{
    Event, Metadata, Subscriber,
    field::{Field, Visit},
    span,
};

static MESSAGES: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// From now on, everything that this process logs is kept.
pub(crate) fn record() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // A case's process has no other subscriber.
        let set = tracing::subscriber::set_global_default(Recorder);
        debug_assert!(set.is_ok(), "a process runs one case");
    });
}

/// Everything that was logged since [`record`], with its fields.
pub(crate) fn messages() -> Vec<String> {
    MESSAGES
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .clone()
}

struct Recorder;

struct Text(String);

impl Visit for Text {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        // Writing to a string does not fail.
        let _written = write!(self.0, " {}={value:?}", field.name());
    }
}

impl Subscriber for Recorder {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }

    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}

    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut text = Text(event.metadata().level().to_string());
        event.record(&mut text);
        MESSAGES
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(text.0);
    }

    fn enter(&self, _: &span::Id) {}

    fn exit(&self, _: &span::Id) {}
}
