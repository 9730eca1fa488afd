//! Messages told to who wants to hear them, beside those who send and receive them.

use portolan_http::{OnMessage, SocketMessage};

use crate::codec::DataKind;

/// How much is kept of a message that comes or goes in fragments.
const KEPT: usize = 1 << 20;

/// One direction of a connection.
#[derive(Debug)]
pub(crate) struct Ear {
    told: Vec<OnMessage>,
    sent: bool,
    /// The fragments so far.
    begun: Option<Begun>,
}

#[derive(Debug)]
struct Begun {
    kind: DataKind,
    kept: Vec<u8>,
    cut: bool,
}

impl Ear {
    /// `None` where nobody listens.
    pub(crate) fn new(told: &[OnMessage], sent: bool) -> Option<Box<Self>> {
        (!told.is_empty()).then(|| Box::new(Self { told: told.to_vec(), sent, begun: None }))
    }

    pub(crate) fn whole(&self, kind: DataKind, data: &[u8]) {
        self.tell(SocketMessage::new(self.sent, kind == DataKind::Text, data));
    }

    /// A fragment, or a whole message.
    pub(crate) fn piece(&mut self, kind: DataKind, data: &[u8], end: bool) {
        if end && self.begun.is_none() {
            return self.whole(kind, data);
        }
        let begun = self.begun.get_or_insert_with(|| Begun { kind, kept: Vec::new(), cut: false });
        let room = KEPT.saturating_sub(begun.kept.len());
        begun.cut |= data.len() > room;
        begun.kept.extend_from_slice(data.get(..room).unwrap_or(data));
        if let Some(begun) = self.begun.take_if(|_| end) {
            let message = SocketMessage::new(self.sent, begun.kind == DataKind::Text, &begun.kept);
            self.tell(if begun.cut { message.cut() } else { message });
        }
    }

    fn tell(&self, message: SocketMessage<'_>) {
        self.told.iter().for_each(|told| told.call(message));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    #[test]
    fn fragments_are_told_together_and_of_long_ones_the_beginning() {
        let told = Arc::new(Mutex::new(Vec::new()));
        let list = Arc::clone(&told);
        let note = OnMessage::new(move |message| {
            list.lock().unwrap().push((message.text, message.data.len(), message.whole));
        });
        assert!(Ear::new(&[], true).is_none());
        let mut ear = Ear::new(&[note], true).unwrap();
        ear.piece(DataKind::Text, b"whole", true);
        ear.piece(DataKind::Text, b"in ", false);
        assert_eq!(told.lock().unwrap().len(), 1, "not before its end");
        ear.piece(DataKind::Text, b"parts", true);
        let half = vec![0; KEPT / 2];
        for end in [false, true] {
            ear.piece(DataKind::Binary, &half, end);
        }
        for end in [false, false, false, true] {
            ear.piece(DataKind::Binary, &half, end);
        }
        ear.whole(DataKind::Binary, b"");
        let expected = [(true, 5, true), (true, 8, true), (false, KEPT, true), (false, KEPT, false), (false, 0, true)];
        assert_eq!(*told.lock().unwrap(), expected);
    }
}
