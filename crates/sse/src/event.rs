//! An event.

use std::sync::Arc;

/// What a server sent.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Event {
    /// The kind of event; `message` where the server names none.
    pub name: String,
    /// The data: its lines, joined by LF.
    pub data: String,
    /// The last id that the server gave, in this event or before; empty if none.
    pub id: Arc<str>,
}

impl Event {
    /// An event of the default kind, without an id.
    pub fn new(data: impl Into<String>) -> Self {
        Self { name: "message".to_owned(), data: data.into(), id: Arc::default() }
    }

    /// The same of another kind.
    #[must_use]
    pub fn with_name(mut self, name: impl Into<String>) -> Self {
        self.name = name.into();
        self
    }

    /// The same with an id.
    #[must_use]
    pub fn with_id(mut self, id: impl Into<Arc<str>>) -> Self {
        self.id = id.into();
        self
    }
}
