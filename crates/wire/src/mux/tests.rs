use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Mutex;

use bytes::{BufMut, Bytes};
use portolan_core::Kind;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, ReadBuf, duplex};

use super::*;
use crate::error::DecodeError;
use crate::line::{LineRule, Lines};

/// Lines by order; those that start with `!` are unasked.
#[derive(Clone)]
struct Ordered(Lines);

impl Codec for Ordered {
    type Frame = Bytes;
    type Out = [u8];
    fn protocol(&self) -> &'static str {
        "ordered"
    }
    fn decode(&mut self, src: &mut BytesMut) -> Result<Option<Bytes>, DecodeError> {
        self.0.decode(src)
    }
    fn encode(&mut self, item: &[u8], dst: &mut BytesMut) -> Result<()> {
        self.0.encode(item, dst)
    }
}

impl Correlate for Ordered {
    fn route(&mut self, frame: &Bytes) -> Route {
        if frame.starts_with(b"!") { Route::Event } else { Route::Next }
    }
}

/// An id of one byte, whether it is the last, and a byte of content. Ids 1 to 4.
#[derive(Clone)]
struct Numbered;

impl Codec for Numbered {
    type Frame = (u8, bool, u8);
    type Out = u8;
    fn protocol(&self) -> &'static str {
        "numbered"
    }
    fn decode(&mut self, src: &mut BytesMut) -> Result<Option<Self::Frame>, DecodeError> {
        if src.len() < 3 {
            return Ok(None);
        }
        let bytes = src.split_to(3);
        Ok(Some((bytes[0], bytes[1] != 0, bytes[2])))
    }
    fn encode(&mut self, item: &u8, dst: &mut BytesMut) -> Result<()> {
        dst.put_slice(&[0, *item]);
        Ok(())
    }
}

impl Correlate for Numbered {
    fn route(&mut self, frame: &Self::Frame) -> Route {
        Route::Id { id: u64::from(frame.0), last: frame.1 }
    }
    fn ids(&self) -> Option<RangeInclusive<u64>> {
        Some(1..=4)
    }
    fn encode_call(&mut self, id: u64, item: &u8, dst: &mut BytesMut) -> Result<()> {
        dst.put_slice(&[u8::try_from(id).unwrap(), *item]);
        Ok(())
    }
}

fn ordered(options: MuxOptions) -> (Mux<Ordered>, DuplexStream) {
    let (near, far) = duplex(64 * 1024);
    (Mux::spawn(near, Ordered(Lines::new("ordered", LineRule::Strict, 1000)), options), far)
}

fn numbered() -> (Mux<Numbered>, DuplexStream) {
    let (near, far) = duplex(64 * 1024);
    (Mux::spawn(near, Numbered, MuxOptions::default()), far)
}

async fn heard<const N: usize>(far: &mut DuplexStream) -> [u8; N] {
    let mut bytes = [0; N];
    far.read_exact(&mut bytes).await.unwrap();
    bytes
}

/// Answers every line with itself.
async fn echo(far: DuplexStream) {
    let (mut read, mut write) = tokio::io::split(far);
    let _ = tokio::io::copy(&mut read, &mut write).await;
}

/// Polls once and must not be ready.
async fn start<F: Future>(mut future: Pin<&mut F>) {
    poll_fn(|cx| {
        assert!(future.as_mut().poll(cx).is_pending());
        Poll::Ready(())
    })
    .await;
}

/// A stream that counts its writes.
struct Counting(DuplexStream, Arc<AtomicUsize>);

impl AsyncRead for Counting {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl AsyncWrite for Counting {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<std::io::Result<usize>> {
        self.1.fetch_add(1, Ordering::Relaxed);
        Pin::new(&mut self.0).poll_write(cx, buf)
    }
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

async fn writes_per_op() -> f64 {
    let (near, far) = duplex(64 * 1024);
    let writes = Arc::new(AtomicUsize::new(0));
    tokio::spawn(echo(far));
    let codec = Ordered(Lines::new("ordered", LineRule::Strict, 1000));
    let mux = Mux::spawn(Counting(near, writes.clone()), codec, MuxOptions::default());
    let mut callers = Vec::new();
    for caller in 0..100 {
        let mux = mux.clone();
        callers.push(tokio::spawn(async move {
            for turn in 0..100 {
                let text = format!("{caller} {turn}");
                assert_eq!(mux.call(text.as_bytes()).await.unwrap(), text);
            }
        }));
    }
    for caller in callers {
        caller.await.unwrap();
    }
    #[allow(clippy::cast_precision_loss, reason = "small numbers")]
    let per_op = writes.load(Ordering::Relaxed) as f64 / 10_000.0;
    per_op
}

#[tokio::test]
async fn a_hundred_callers_share_their_writes_and_each_gets_its_own_reply() {
    let per_op = writes_per_op().await;
    assert!(per_op <= 0.1, "{per_op} writes per call");
}

#[tokio::test]
async fn the_driver_lets_others_that_are_ready_join_its_write() {
    let (near, _far) = duplex(64);
    let writes = Arc::new(AtomicUsize::new(0));
    let codec = Ordered(Lines::new("ordered", LineRule::Strict, 1000));
    let (mux, driver) = Mux::pair(Counting(near, writes.clone()), codec, MuxOptions::default());
    let (mut driver, mut first, mut second) = (Box::pin(driver), Box::pin(mux.call(b"1")), Box::pin(mux.call(b"2")));
    start(first.as_mut()).await;
    // As where the runtime runs a woken task at once, before those that are ready already.
    start(driver.as_mut()).await;
    assert_eq!(writes.load(Ordering::Relaxed), 0);
    start(second.as_mut()).await;
    start(driver.as_mut()).await;
    assert_eq!(writes.load(Ordering::Relaxed), 1);
    assert_eq!(mux.shared().state.lock().written, 6);
}

#[cfg(feature = "laws")]
#[tokio::test]
async fn a_call_on_a_warm_connection_hardly_allocates() {
    use crate::laws::CountingAlloc;
    let (near, far) = duplex(64 * 1024);
    tokio::spawn(async move {
        let (mut read, mut write) = tokio::io::split(far);
        let mut room = vec![0; 64 * 1024];
        while let Ok(n @ 1..) = read.read(&mut room).await {
            write.write_all(&room[..n]).await.unwrap();
        }
    });
    let codec = Ordered(Lines::new("ordered", LineRule::Strict, 1000));
    let mux = Mux::spawn(near, codec, MuxOptions::default());
    let gate = Arc::new(tokio::sync::Barrier::new(101));
    for _ in 0..100 {
        let (mux, gate) = (mux.clone(), gate.clone());
        tokio::spawn(async move {
            for phase in [10, 100] {
                for _ in 0..phase {
                    assert_eq!(mux.call(b"get the value").await.unwrap(), "get the value");
                }
                gate.wait().await;
            }
        });
    }
    gate.wait().await;
    let before = CountingAlloc::allocations();
    gate.wait().await;
    let made = CountingAlloc::allocations() - before;
    // The read buffer is shared by the replies cut from it: one allocation for each read, not for each call.
    assert!(made < 2_000, "{made} allocations for 10000 calls");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn callers_on_many_threads_each_get_their_own_reply() {
    writes_per_op().await;
}

#[tokio::test]
async fn a_pipeline_takes_as_many_replies_as_it_asked_for() {
    let (mux, mut far) = ordered(MuxOptions::default());
    let many =
        mux.call_many(3, |codec, _, dst| ["a", "b", "c"].iter().try_for_each(|s| codec.encode(s.as_bytes(), dst)));
    let one = mux.call(b"d");
    let peer = async {
        assert_eq!(&heard::<12>(&mut far).await, b"a\r\nb\r\nc\r\nd\r\n");
        far.write_all(b"1\r\n2\r\n3\r\n4\r\n").await.unwrap();
    };
    let (many, one, ()) = tokio::join!(many, one, peer);
    assert_eq!(many.unwrap(), ["1", "2", "3"]);
    assert_eq!(one.unwrap(), "4");
    assert_eq!(mux.in_flight(), 0);
}

#[tokio::test]
async fn the_late_reply_of_a_cancelled_call_is_counted_off_by_order() {
    let (mux, mut far) = ordered(MuxOptions::default());
    for polls in [1, 2, 3, 1, 1, 1] {
        let mut given_up = Box::pin(mux.call(b"one"));
        for _ in 0..polls {
            start(given_up.as_mut()).await;
            tokio::task::yield_now().await;
        }
        drop(given_up);
        let next = mux.call(b"two");
        let peer = async {
            assert_eq!(&heard::<10>(&mut far).await, b"one\r\ntwo\r\n");
            far.write_all(b"late\r\nmine\r\n").await.unwrap();
        };
        let (next, ()) = tokio::join!(next, peer);
        assert_eq!(next.unwrap(), "mine");
        assert_eq!(mux.in_flight(), 0);
    }
    assert_eq!(mux.strays(), 6);
    assert_eq!(mux.shared().state.lock().slots_len(), 2, "slots are recycled");
}

#[tokio::test]
async fn a_pipeline_given_up_half_way_leaves_the_others_in_step() {
    let (mux, mut far) = ordered(MuxOptions::default());
    let mut pipeline = Box::pin(mux.call_many(3, |codec, _, dst| codec.encode(b"three", dst)));
    start(pipeline.as_mut()).await;
    heard::<7>(&mut far).await;
    far.write_all(b"1\r\n").await.unwrap();
    while !mux.shared().state.lock().out.is_empty() {
        tokio::task::yield_now().await;
    }
    start(pipeline.as_mut()).await;
    drop(pipeline);
    far.write_all(b"2\r\n3\r\nmine\r\n").await.unwrap();
    assert_eq!(mux.call(b"next").await.unwrap(), "mine");
}

#[tokio::test]
async fn replies_by_id_come_in_any_order_and_foreign_ones_are_dropped() {
    let (mux, mut far) = numbered();
    let mut given_up = Box::pin(mux.call(&9));
    start(given_up.as_mut()).await;
    drop(given_up);
    let peer = async {
        let asked: [u8; 6] = heard(&mut far).await;
        assert_eq!(asked, [1, 9, 2, 10, 3, 11]);
        far.write_all(&[77, 1, 0, 3, 0, 30, 3, 1, 31, 1, 1, 0, 2, 1, 20]).await.unwrap();
    };
    let (a, b, ()) = tokio::join!(mux.call(&10), mux.collect(&11, 8), peer);
    assert_eq!(a.unwrap().2, 20);
    assert_eq!(b.unwrap().iter().map(|frame| frame.2).collect::<Vec<_>>(), [30, 31]);
    assert_eq!((mux.in_flight(), mux.strays()), (0, 2));
}

#[tokio::test]
async fn ids_wrap_around_and_skip_those_in_use() {
    let (mux, mut far) = numbered();
    let mut stuck = Box::pin(mux.call(&0));
    start(stuck.as_mut()).await;
    assert_eq!(heard::<2>(&mut far).await, [1, 0]);
    for expected in [2, 3, 4, 2, 3, 4, 2] {
        let peer = async {
            let [id, _] = heard::<2>(&mut far).await;
            assert_eq!(id, expected);
            far.write_all(&[id, 1, 0]).await.unwrap();
        };
        let (reply, ()) = tokio::join!(mux.call(&1), peer);
        reply.unwrap();
    }
    // More callers than ids wait for one.
    let mut held: Vec<_> = (0..3).map(|_| Box::pin(mux.call(&5))).collect();
    for call in &mut held {
        start(call.as_mut()).await;
    }
    let mut waits = Box::pin(mux.call(&6));
    start(waits.as_mut()).await;
    far.write_all(&[1, 1, 42]).await.unwrap();
    assert_eq!(stuck.await.unwrap().2, 42);
    assert_eq!(heard::<6>(&mut far).await, [3, 5, 4, 5, 2, 5]);
    let peer = async {
        assert_eq!(heard::<2>(&mut far).await, [1, 6]);
        far.write_all(&[1, 1, 43]).await.unwrap();
    };
    let (reply, ()) = tokio::join!(waits, peer);
    assert_eq!(reply.unwrap().2, 43);
    let error = mux.call_many(2, |_, _, _| Ok(())).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Usage);
}

#[tokio::test]
async fn a_reply_of_more_frames_than_asked_for_is_a_limit_and_harms_nobody_else() {
    let (mux, mut far) = numbered();
    let mut call = Box::pin(mux.collect(&7, 2));
    start(call.as_mut()).await;
    heard::<2>(&mut far).await;
    far.write_all(&[1, 0, 1, 1, 0, 2, 1, 0, 3]).await.unwrap();
    let error = call.await.unwrap_err();
    assert_eq!((error.kind(), error.delivery()), (Kind::Limit, Delivery::Answered));
    far.write_all(&[1, 1, 4, 2, 1, 5]).await.unwrap();
    assert_eq!(mux.call(&8).await.unwrap().2, 5);
}

#[tokio::test]
async fn when_the_peer_goes_the_written_are_unknown_and_the_queued_unsent() {
    let (near, mut far) = duplex(8);
    let codec = Ordered(Lines::new("ordered", LineRule::Strict, 1000));
    let (mux, driver) = Mux::pair(near, codec, MuxOptions::default());
    let mut driver = Box::pin(driver);
    let mut calls: Vec<_> =
        [b"answered".as_slice(), b"written"].into_iter().map(|text| Box::pin(mux.call(text))).collect();
    for call in &mut calls {
        start(call.as_mut()).await;
    }
    // The driver writes what fits: the first call's bytes, after it gave way once.
    start(driver.as_mut()).await;
    start(driver.as_mut()).await;
    heard::<8>(&mut far).await;
    start(driver.as_mut()).await;
    // This one comes while the write is stuck.
    let mut queued = Box::pin(mux.call(b"queued"));
    start(queued.as_mut()).await;
    far.write_all(b"ok\r\n").await.unwrap();
    drop(far);
    driver.await;
    assert!(mux.is_closed());
    let written = calls.pop().unwrap().await.unwrap_err();
    assert_eq!(calls.pop().unwrap().await.unwrap(), "ok");
    assert_eq!((written.kind(), written.delivery()), (Kind::Closed, Delivery::Unknown));
    assert_eq!(queued.await.unwrap_err().delivery(), Delivery::NotSent);
    let after = mux.call(b"x").await.unwrap_err();
    assert_eq!((after.kind(), after.delivery()), (Kind::Closed, Delivery::NotSent));
    assert!(mux.close(Duration::from_secs(1)).await.is_err());
}

#[tokio::test]
async fn it_is_closed_before_any_caller_is_woken() {
    struct Spy(Mux<Ordered>, Mutex<Vec<bool>>);
    impl std::task::Wake for Spy {
        fn wake(self: Arc<Self>) {
            self.1.lock().unwrap().push(self.0.is_closed());
        }
    }
    let (near, far) = duplex(64);
    let codec = Ordered(Lines::new("ordered", LineRule::Strict, 1000));
    let (mux, driver) = Mux::pair(near, codec, MuxOptions::default().in_flight(1));
    let spy = Arc::new(Spy(mux.clone(), Mutex::new(Vec::new())));
    let waker = Waker::from(spy.clone());
    let mut cx = Context::from_waker(&waker);
    let mut calls = [pin!(mux.call(b"in flight")), pin!(mux.call(b"at the gate"))];
    for call in &mut calls {
        assert!(call.as_mut().poll(&mut cx).is_pending());
    }
    drop(far);
    driver.await;
    let seen = spy.1.lock().unwrap().clone();
    assert_eq!(seen, [true, true]);
}

#[tokio::test(start_paused = true)]
async fn a_stalled_peer_fails_the_call_in_time_and_its_late_reply_is_dropped() {
    let (mux, mut far) = ordered(MuxOptions::default());
    let before = clock::now();
    let quick = mux.with_limit(Some(Duration::from_secs(2)));
    let slow = mux.with_limit(Some(Duration::from_secs(9)));
    let slow = tokio::spawn(async move { (slow.call(b"slow").await, clock::now()) });
    tokio::task::yield_now().await;
    let error = quick.call(b"quick").await.unwrap_err();
    assert!(error.is_timeout());
    assert_eq!((error.delivery(), error.protocol_name()), (Delivery::Unknown, Some("ordered")));
    assert_eq!(clock::now() - before, Duration::from_secs(2));
    let (error, when) = slow.await.unwrap();
    assert!(error.unwrap_err().is_timeout());
    assert_eq!(when - before, Duration::from_secs(9));
    assert_eq!(mux.in_flight(), 2);
    far.write_all(b"late\r\nlate\r\nmine\r\n").await.unwrap();
    assert_eq!(mux.call(b"next").await.unwrap(), "mine");
    assert_eq!(mux.in_flight(), 0);
}

#[tokio::test(start_paused = true)]
async fn callers_beyond_the_bounds_wait_in_turn_and_in_time() {
    let (mux, mut far) = ordered(MuxOptions::default().in_flight(1).call_limit(Some(Duration::from_secs(5))));
    let mut first = Box::pin(mux.call(b"first"));
    start(first.as_mut()).await;
    let error = mux.with_limit(Some(Duration::from_secs(1))).call(b"x").await.unwrap_err();
    assert_eq!((error.phase(), error.delivery()), (Some(Phase::Pool), Delivery::NotSent));
    let mut waiting = Box::pin(mux.call(b"second"));
    start(waiting.as_mut()).await;
    let mut cancelled = Box::pin(mux.call(b"third"));
    start(cancelled.as_mut()).await;
    drop(cancelled);
    far.write_all(b"1\r\n2\r\n").await.unwrap_or_default();
    heard::<7>(&mut far).await;
    assert_eq!(first.await.unwrap(), "1");
    // The second reply came before its question: nobody asked for it.
    assert_eq!(waiting.await.unwrap_err().kind(), Kind::Closed);
}

#[tokio::test]
async fn queued_bytes_are_bounded_whatever_the_number_of_callers() {
    let (near, far) = duplex(64);
    let codec = Ordered(Lines::new("ordered", LineRule::Strict, 1000));
    let mux = Mux::spawn(near, codec, MuxOptions::default().queued_bytes(256));
    let mut callers = Vec::new();
    for caller in 0..200 {
        let mux = mux.clone();
        callers.push(tokio::spawn(async move {
            let text = format!("{caller:0100}");
            assert_eq!(mux.call(text.as_bytes()).await.unwrap(), text);
        }));
    }
    for _ in 0..1000 {
        tokio::task::yield_now().await;
        assert!(mux.shared().state.lock().out.len() <= 256 + 102);
    }
    callers[150].abort();
    tokio::spawn(echo(far));
    for (index, caller) in callers.into_iter().enumerate() {
        assert_eq!(caller.await.is_ok(), index != 150);
    }
    assert_eq!(mux.shared().turning.load(Ordering::Relaxed), 0);
    assert!(!mux.shared().full.load(Ordering::Relaxed), "the fast path is open again");
    mux.close(Duration::from_secs(5)).await.unwrap();
}

#[tokio::test]
async fn a_call_that_does_not_encode_leaves_nothing_behind() {
    let (mux, mut far) = ordered(MuxOptions::default().in_flight(1));
    for _ in 0..3 {
        assert_eq!(mux.call(b"in\njected").await.unwrap_err().kind(), Kind::Usage);
    }
    let peer = async {
        assert_eq!(&heard::<6>(&mut far).await, b"fine\r\n");
        far.write_all(b"ok\r\n").await.unwrap();
    };
    let (reply, ()) = tokio::join!(mux.call(b"fine"), peer);
    assert_eq!(reply.unwrap(), "ok");
}

#[tokio::test]
async fn unasked_frames_reach_their_reader_between_replies() {
    let (mux, mut far) = ordered(MuxOptions::default().events(2, Overflow::DropOldest));
    let mut events = mux.events().unwrap();
    assert!(mux.events().is_none());
    let peer = async {
        heard::<6>(&mut far).await;
        far.write_all(b"!1\r\n!2\r\n!3\r\nreply\r\n").await.unwrap();
    };
    let (reply, ()) = tokio::join!(mux.call(b"call"), peer);
    assert_eq!(reply.unwrap(), "reply");
    assert_eq!(events.recv().await.unwrap().unwrap(), "!2");
    assert_eq!(events.recv().await.unwrap().unwrap(), "!3");
    assert_eq!(events.missed(), 1);
    let mut waits = Box::pin(events.recv());
    start(waits.as_mut()).await;
    drop(waits);
    far.write_all(b"!4\r\n").await.unwrap();
    assert_eq!(events.recv().await.unwrap().unwrap(), "!4");
    drop(far);
    assert_eq!(events.recv().await.unwrap_err().kind(), Kind::Closed);
}

#[tokio::test]
async fn a_full_queue_of_events_can_hold_the_peer_back_or_end_the_connection() {
    let (mux, mut far) = ordered(MuxOptions::default().events(1, Overflow::Wait));
    let mut events = mux.events().unwrap();
    for n in 0..50 {
        far.write_all(format!("!{n}\r\n").as_bytes()).await.unwrap();
        tokio::task::yield_now().await;
    }
    for n in 0..50 {
        assert_eq!(events.recv().await.unwrap().unwrap(), format!("!{n}"));
    }
    assert_eq!(events.missed(), 0);
    let (mux, mut far) = ordered(MuxOptions::default().events(1, Overflow::Close));
    let mut events = mux.events().unwrap();
    far.write_all(b"!1\r\n!2\r\n").await.unwrap();
    assert_eq!(mux.call(b"x").await.unwrap_err().kind(), Kind::Limit);
    assert_eq!(events.recv().await.unwrap().unwrap(), "!1");
    assert_eq!(events.recv().await.unwrap_err().kind(), Kind::Limit);
}

#[tokio::test]
async fn a_reply_that_nobody_asked_for_ends_the_connection() {
    let (mux, mut far) = ordered(MuxOptions::default());
    far.write_all(b"surprise\r\n").await.unwrap();
    while !mux.is_closed() {
        tokio::task::yield_now().await;
    }
    assert_eq!(mux.close(Duration::from_secs(1)).await.unwrap_err().kind(), Kind::Protocol);
}

#[tokio::test]
async fn the_last_handle_stops_the_driver_and_frees_the_stream() {
    let (mux, mut far) = ordered(MuxOptions::default());
    let other = mux.clone();
    drop(mux);
    let call = async { other.call(b"still").await.unwrap() };
    let peer = async {
        heard::<7>(&mut far).await;
        far.write_all(b"open\r\n").await.unwrap();
    };
    assert_eq!(tokio::join!(call, peer).0, "open");
    drop(other);
    let mut rest = Vec::new();
    far.read_to_end(&mut rest).await.unwrap();
    assert!(rest.is_empty());
}

#[tokio::test(start_paused = true)]
async fn closing_lets_calls_in_flight_finish_and_takes_no_more() {
    let (mux, mut far) = ordered(MuxOptions::default());
    let mut call = Box::pin(mux.call(b"last"));
    start(call.as_mut()).await;
    mux.post(b"quit").await.unwrap();
    let mut closing = Box::pin(mux.close(Duration::from_secs(3)));
    start(closing.as_mut()).await;
    assert_eq!(mux.call(b"more").await.unwrap_err().delivery(), Delivery::NotSent);
    assert_eq!(&heard::<12>(&mut far).await, b"last\r\nquit\r\n");
    far.write_all(b"done\r\n").await.unwrap();
    assert_eq!(call.await.unwrap(), "done");
    closing.await.unwrap();
    assert_eq!(far.read(&mut [0; 8]).await.unwrap(), 0);
    mux.close(Duration::from_secs(3)).await.unwrap();
    // A peer that does not answer does not hold the closing up.
    let (mux, _far) = ordered(MuxOptions::default());
    let mut call = Box::pin(mux.call(b"never"));
    start(call.as_mut()).await;
    let error = mux.close(Duration::from_secs(3)).await.unwrap_err();
    assert_eq!((error.kind(), error.phase()), (Kind::Timeout, Some(Phase::Close)));
    assert_eq!(call.await.unwrap_err().kind(), Kind::Closed);
}

#[tokio::test]
async fn cancelling_at_every_place_leaves_a_connection_that_works() {
    let (mux, far) = ordered(MuxOptions::default().in_flight(4));
    tokio::spawn(echo(far));
    let mut seed = 7_u32;
    for round in 0..2000 {
        seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let mut call = Box::pin(mux.call(b"given up"));
        for _ in 0..seed >> 29 {
            let ready = poll_fn(|cx| Poll::Ready(call.as_mut().poll(cx).is_ready())).await;
            if ready {
                break;
            }
            tokio::task::yield_now().await;
        }
        drop(call);
        if round % 10 == 0 {
            let text = format!("{round}");
            assert_eq!(mux.call(text.as_bytes()).await.unwrap(), text);
        }
    }
    let state = mux.shared().state.lock();
    assert!(state.slots_len() <= 8, "slots are recycled");
}

#[tokio::test]
async fn a_dropped_driver_fails_the_calls() {
    let (near, _far) = duplex(64);
    let codec = Ordered(Lines::new("ordered", LineRule::Strict, 1000));
    let (mux, driver) = Mux::pair(near, codec, MuxOptions::default());
    let mut call = Box::pin(mux.call(b"x"));
    start(call.as_mut()).await;
    drop(driver);
    let error = call.await.unwrap_err();
    assert_eq!((error.kind(), error.delivery()), (Kind::Closed, Delivery::NotSent));
}

#[tokio::test(start_paused = true)]
async fn the_buffers_of_a_burst_are_given_back_when_it_is_over() {
    let (near, far) = duplex(64 * 1024);
    let codec = Ordered(Lines::new("ordered", LineRule::Strict, 100_000));
    let (mux, mut driver) = Mux::pair(near, codec, MuxOptions::default());
    tokio::spawn(echo(far));
    let long = vec![b'x'; 30_000];
    let burst = async {
        for _ in 0..3 {
            assert_eq!(mux.call(&long).await.unwrap().len(), long.len());
        }
    };
    tokio::select! {
        () = burst => {}
        () = &mut driver => panic!("the connection has ended"),
    }
    assert!(driver.held() > 30_000);
    assert!(tokio::time::timeout(Duration::from_secs(3), &mut driver).await.is_err());
    assert!(driver.held() <= 2048, "{} bytes", driver.held());
    assert_eq!(mux.shared().state.lock().slots_len(), 0);
    let call = mux.call(b"again");
    tokio::select! {
        reply = call => assert_eq!(reply.unwrap(), "again"),
        () = &mut driver => panic!("the connection has ended"),
    }
}
