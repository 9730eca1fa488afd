use std::io::{self, Read, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::StreamExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::{Io, Iter, Runtime, Wait, reader};
use crate::clock;
use crate::error::{Error, Kind, Phase, Result};

async fn after(time: Duration) -> Result<u32> {
    clock::sleep(time).await;
    Ok(7)
}

const MOMENT: Duration = Duration::from_millis(1);
const LONG: Duration = Duration::from_secs(3600);

/// Says when it is dropped.
struct Told(Arc<AtomicBool>);

impl Drop for Told {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

#[test]
fn a_plain_thread_waits_for_what_is_neither_send_nor_static() {
    let (text, here) = (String::from("seven"), std::rc::Rc::new(1));
    let work = async { after(MOMENT).await.map(|n| (n, &text, here.clone())) };
    let (n, word, _) = work.wait().unwrap();
    assert_eq!((n, word.as_str()), (7, "seven"));
}

#[test]
fn a_deadline_drops_the_work_and_names_itself() {
    let dropped = Arc::new(AtomicBool::new(false));
    let told = Told(dropped.clone());
    let work = async move {
        let _told = told;
        after(LONG).await
    };
    let error = work.wait_within(MOMENT).unwrap_err();
    assert_eq!((error.kind(), error.phase()), (Kind::Timeout, Some(Phase::Total)));
    assert!(dropped.load(Ordering::SeqCst));
    assert_eq!(after(MOMENT).wait_within(Duration::MAX).unwrap(), 7);
}

fn is_refused(result: Result<u32>) -> bool {
    result.is_err_and(|error| error.kind() == Kind::Usage && error.message().contains("async"))
}

#[test]
fn tasks_of_every_kind_of_runtime_are_refused_and_their_blocking_threads_are_not() {
    let multi = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let single = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    for runtime in [&multi, &single] {
        runtime.block_on(async {
            assert!(is_refused(after(MOMENT).wait()));
            assert!(tokio::spawn(async { is_refused(after(MOMENT).wait()) }).await.unwrap());
            // The budget is as it was: the same task can go on.
            for _ in 0..3 {
                assert!(is_refused(Runtime::new().unwrap().wait(after(MOMENT))));
                assert_eq!(after(MOMENT).await.unwrap(), 7);
            }
            let waited = tokio::task::spawn_blocking(|| after(MOMENT).wait()).await.unwrap();
            assert_eq!(waited.unwrap(), 7);
        });
        // Known to the thread, but nothing runs in it.
        let _inside = runtime.enter();
        assert_eq!(after(MOMENT).wait().unwrap(), 7);
    }
    multi.block_on(async {
        let local = tokio::task::LocalSet::new();
        local.run_until(async { assert!(is_refused(after(MOMENT).wait())) }).await;
        assert_eq!(tokio::task::block_in_place(|| after(MOMENT).wait()).unwrap(), 7);
    });
    // A task of the shared runtime itself.
    let inner = async { Ok::<_, Error>(tokio::spawn(async { is_refused(after(MOMENT).wait()) }).await.unwrap()) };
    assert!(inner.wait().unwrap());
}

#[test]
fn many_threads_wait_at_once_and_tasks_go_on_between_waits() {
    let runtime = Runtime::new().unwrap();
    let (tell, mut told) = tokio::sync::mpsc::channel(1);
    let task = runtime.enter(|| tokio::spawn(async move { while tell.send(()).await.is_ok() {} })).unwrap();
    std::thread::scope(|scope| {
        for _ in 0..32 {
            let runtime = runtime.clone();
            scope.spawn(move || (0..50).for_each(|_| assert_eq!(runtime.wait(after(MOMENT)).unwrap(), 7)));
        }
    });
    for _ in 0..3 {
        runtime.wait(async { told.recv().await.ok_or_else(|| Error::closed("gone")) }).unwrap();
    }
    drop(told);
    runtime.wait(async { task.await.map_err(|error| Error::closed("gone").with_source(error)) }).unwrap();
}

#[test]
fn a_runtime_ends_with_its_last_clone_wherever_that_is_dropped() {
    // On a plain thread: when it is gone, so are its tasks.
    let start = || {
        let (runtime, dropped) = (Runtime::new().unwrap(), Arc::new(AtomicBool::new(false)));
        let told = Told(dropped.clone());
        let task = async move {
            let _told = told;
            clock::sleep(LONG).await;
        };
        runtime.enter(|| tokio::spawn(task)).unwrap();
        (runtime, dropped)
    };
    let (runtime, dropped) = start();
    drop(runtime.clone());
    assert!(!dropped.load(Ordering::SeqCst));
    drop(runtime);
    assert!(dropped.load(Ordering::SeqCst));
    // Within async code.
    let (runtime, dropped) = start();
    let other = tokio::runtime::Builder::new_current_thread().build().unwrap();
    other.block_on(async { drop(runtime) });
    assert!(dropped.load(Ordering::SeqCst));
    // By a task of its own.
    let (runtime, dropped) = start();
    let (last, ended) = (runtime.clone(), tokio::sync::oneshot::channel::<()>());
    runtime.enter(|| tokio::spawn(async move { drop((last, ended.0)) })).unwrap();
    drop(runtime);
    let _ = ended.1.blocking_recv();
    while !dropped.load(Ordering::SeqCst) {
        std::thread::yield_now();
    }
}

#[test]
fn a_stream_reads_and_writes_as_those_of_std_do() {
    let (near, far) = tokio::io::duplex(64);
    let (mut near, mut far) = (Io::new(near), Io::new(far));
    near.write_all(b"ahoy").unwrap();
    near.shutdown().unwrap();
    let mut text = String::new();
    far.read_to_string(&mut text).unwrap();
    assert_eq!(text, "ahoy");
    far.write_all(b"back").unwrap();
    near.set_read_timeout(Some(MOMENT));
    let mut room = [0; 4];
    near.read_exact(&mut room).unwrap();
    let late = near.read(&mut room).unwrap_err();
    assert_eq!(late.kind(), io::ErrorKind::TimedOut);
    let inner = late.get_ref().and_then(|inner| inner.downcast_ref::<Error>()).unwrap();
    assert_eq!(inner.phase(), Some(Phase::Idle));
    far.set_write_timeout(Some(MOMENT));
    assert_eq!(far.write_all(&[0; 65]).unwrap_err().kind(), io::ErrorKind::TimedOut);
}

#[test]
fn both_halves_of_a_stream_serve_two_threads() {
    let (near, far) = tokio::io::duplex(16);
    let (mut read, mut write) = Io::new(near).split();
    let echo = async move {
        let (mut from, mut to) = tokio::io::split(far);
        tokio::io::copy(&mut from, &mut to).await?;
        to.shutdown().await
    };
    let sent: Vec<u8> = (0..=255).cycle().take(10_000).collect();
    let mut back = Vec::new();
    std::thread::scope(|scope| {
        scope.spawn(|| echo.wait().unwrap());
        scope.spawn(|| {
            write.write_all(&sent).unwrap();
            write.shutdown().unwrap();
        });
        read.read_to_end(&mut back).unwrap();
    });
    assert_eq!(back, sent);
}

#[test]
fn pieces_are_iterated_and_a_late_one_is_not_lost() {
    let (tell, told) = tokio::sync::mpsc::channel(4);
    let stream = futures_util::stream::unfold(told, |mut told| async { told.recv().await.map(|n| (n, told)) });
    let mut iter = Iter::new(stream.boxed()).within(MOMENT);
    assert!(iter.next().unwrap().is_err_and(|error: Error| error.is_timeout()));
    tell.blocking_send(Ok(1)).unwrap();
    tell.blocking_send(Err(Error::closed("torn"))).unwrap();
    drop(tell);
    assert_eq!(iter.next().unwrap().unwrap(), 1);
    assert!(iter.next().unwrap().unwrap_err().is_closed());
    assert!(iter.next().is_none());
}

#[test]
fn what_std_reads_is_read_whole_and_its_errors_come_through() {
    /// Gives what it has, then fails.
    struct Torn(&'static [u8]);
    impl Read for Torn {
        fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
            match Read::read(&mut self.0, buf)? {
                0 => Err(io::ErrorKind::BrokenPipe.into()),
                n => Ok(n),
            }
        }
    }
    let sent: Vec<u8> = (0..=255).cycle().take(300_000).collect();
    let all = |mut from: super::Reader<io::Cursor<Vec<u8>>>| async move {
        let mut back = Vec::new();
        from.read_to_end(&mut back).await.map(|_| back)
    };
    assert_eq!(all(reader(io::Cursor::new(sent.clone()))).wait().unwrap(), sent);
    let mut torn = reader(Torn(b"ahoy"));
    let mut room = [0; 9];
    let read = torn.read_exact(&mut room).wait().unwrap_err();
    assert_eq!((read.kind(), &room[..4]), (io::ErrorKind::BrokenPipe, &b"ahoy"[..]));
}

#[test]
fn a_wait_after_a_panic_elsewhere_goes_on() {
    let broken = std::panic::catch_unwind(|| {
        let work =
            async { if clock::now().elapsed() < LONG { panic!("a bug of the caller") } else { after(LONG).await } };
        work.wait()
    });
    assert!(broken.is_err());
    assert_eq!(after(MOMENT).wait().unwrap(), 7);
}
