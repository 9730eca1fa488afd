//! R2.3, R2.5 to R2.7: what the pool promises.

#![allow(clippy::unwrap_used, reason = "these are tests")]

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use portolan_core::{Delivery, Error, Kind, Phase, Result, clock};
use portolan_pool::{Life, Liveness, Manage, Pool, PoolOptions};

#[derive(Clone)]
struct Conn {
    id: usize,
    live: Liveness,
    stale: Arc<AtomicBool>,
}

#[derive(Default)]
struct World {
    made: AtomicUsize,
    refuse: AtomicBool,
    live: Mutex<Vec<Liveness>>,
}

struct Manager {
    world: Arc<World>,
    capacity: usize,
    delay: Duration,
}

impl Manage for Manager {
    type Key = &'static str;
    type Conn = Conn;

    async fn connect(&self, _: &&'static str) -> Result<Conn> {
        clock::sleep(self.delay).await;
        if self.world.refuse.load(Ordering::SeqCst) {
            return Err(Error::io(Phase::Connect, std::io::ErrorKind::ConnectionRefused.into()));
        }
        let conn =
            Conn { id: self.world.made.fetch_add(1, Ordering::SeqCst), live: Liveness::new(), stale: Arc::default() };
        self.world.live.lock().unwrap().push(conn.live.clone());
        Ok(conn)
    }

    fn is_fit(&self, conn: &mut Conn) -> bool {
        !conn.stale.load(Ordering::SeqCst)
    }

    fn liveness(&self, conn: &Conn) -> Option<Liveness> {
        Some(conn.live.clone())
    }

    fn share(&self, conn: &Conn) -> Option<Conn> {
        (self.capacity > 1).then(|| conn.clone())
    }

    fn capacity(&self, _: &Conn) -> usize {
        self.capacity
    }

    fn is_shared(&self, _: &&'static str) -> bool {
        self.capacity > 1
    }
}

fn pool(capacity: usize, options: PoolOptions) -> (Pool<Manager>, Arc<World>) {
    let world = Arc::new(World::default());
    (Pool::new(Manager { world: world.clone(), capacity, delay: Duration::from_millis(10) }, options), world)
}

#[tokio::test(start_paused = true)]
async fn a_connection_given_back_is_used_again_unless_it_is_stale_or_discarded() {
    let (pool, _) = pool(1, PoolOptions::default());
    let first = pool.acquire(&"a").await.unwrap();
    assert!(first.id == 0 && !first.is_reused());
    drop(first);
    let second = pool.acquire(&"a").await.unwrap();
    assert!(second.id == 0 && second.is_reused());
    let stale = second.stale.clone();
    drop(second);
    // The server closed it while it was idle: seen when it is taken out.
    stale.store(true, Ordering::SeqCst);
    let third = pool.acquire(&"a").await.unwrap();
    assert_eq!(third.id, 1);
    third.discard();
    assert_eq!(pool.acquire(&"a").await.unwrap().id, 2);
    let metrics = pool.metrics();
    assert_eq!((metrics.opened, metrics.dead, metrics.leases, metrics.reused), (3, 2, 4, 1));
}

#[tokio::test(start_paused = true)]
async fn callers_wait_in_order_within_the_limit_of_the_key() {
    let (pool, world) = pool(1, PoolOptions::default().per_key(2));
    let order = Arc::new(Mutex::new(Vec::new()));
    let tasks: Vec<_> = (0..20)
        .map(|n| {
            let (pool, order) = (pool.clone(), order.clone());
            tokio::spawn(async move {
                clock::sleep(Duration::from_micros(n)).await;
                let lease = pool.acquire(&"a").await.unwrap();
                order.lock().unwrap().push(n);
                clock::sleep(Duration::from_millis(5)).await;
                drop(lease);
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    assert_eq!(world.made.load(Ordering::SeqCst), 2);
    assert!(order.lock().unwrap().is_sorted(), "{order:?}");
    let metrics = pool.metrics();
    assert_eq!((metrics.waited, metrics.gave_up, metrics.leases), (18, 0, 20));
    // Pairs come out every 5 ms after the 10 ms that the connections take: 2 * (10 + 15 + .. + 50), less the staggered start.
    assert!((Duration::from_millis(400)..Duration::from_millis(700)).contains(&metrics.wait_time), "{metrics:?}");
}

#[tokio::test(start_paused = true)]
async fn a_wait_that_is_over_says_why_and_a_full_queue_fails_at_once() {
    let options = PoolOptions::default().per_key(1).queue(1).wait(Duration::from_millis(50));
    let (pool, world) = pool(1, options);
    let held = pool.acquire(&"a").await.unwrap();
    let (waits, full) = tokio::join!(pool.acquire(&"a"), async {
        tokio::task::yield_now().await;
        pool.acquire(&"a").await
    });
    let waits = waits.unwrap_err();
    assert_eq!((waits.kind(), waits.phase(), waits.delivery()), (Kind::Timeout, Some(Phase::Pool), Delivery::NotSent));
    let full = full.unwrap_err();
    assert_eq!((full.kind(), full.phase(), full.delivery()), (Kind::Limit, Some(Phase::Pool), Delivery::NotSent));
    let metrics = pool.metrics();
    assert_eq!((metrics.waited, metrics.gave_up), (1, 2));
    assert_eq!(metrics.wait_time, Duration::from_millis(50));
    held.discard();
    world.refuse.store(true, Ordering::SeqCst);
    // Whoever makes the connection gets the error itself.
    assert!(pool.acquire(&"a").await.unwrap_err().is_refused());
    assert_eq!(pool.metrics().failed, 1);
}

#[tokio::test(start_paused = true)]
async fn a_thousand_callers_who_give_up_leave_nothing_behind() {
    let (pool, _) = pool(1, PoolOptions::default().per_key(3));
    for round in 0..10_u64 {
        let tasks: Vec<_> = (0..100_u64)
            .map(|n| {
                let pool = pool.clone();
                tokio::spawn(async move {
                    let work = async {
                        let _lease = pool.acquire(&"a").await.unwrap();
                        clock::sleep(Duration::from_millis(3)).await;
                    };
                    let _ = tokio::time::timeout(Duration::from_micros((n * 37 + round * 11) % 20_000), work).await;
                })
            })
            .collect();
        for task in tasks {
            task.await.unwrap();
        }
    }
    let leases =
        (pool.acquire(&"a").await.unwrap(), pool.acquire(&"a").await.unwrap(), pool.acquire(&"a").await.unwrap());
    assert_eq!(HashSet::from([leases.0.id, leases.1.id, leases.2.id]).len(), 3);
    let metrics = pool.metrics();
    assert_eq!((metrics.busy, metrics.idle, metrics.waiting), (3, 0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_shared_connection_is_made_once_for_all_who_want_it() {
    let (pool, world) = pool(100, PoolOptions::default());
    let tasks: Vec<_> = (0..100)
        .map(|_| {
            let pool = pool.clone();
            tokio::spawn(async move {
                let lease = pool.acquire(&"a").await.unwrap();
                clock::sleep(Duration::from_millis(1)).await;
                lease.id
            })
        })
        .collect();
    for task in tasks {
        assert_eq!(task.await.unwrap(), 0);
    }
    assert_eq!(world.made.load(Ordering::SeqCst), 1);
}

#[tokio::test(start_paused = true)]
async fn a_draining_connection_takes_nobody_in_and_goes_when_it_is_quiet() {
    let (pool, world) = pool(10, PoolOptions::default());
    let first = pool.acquire(&"a").await.unwrap();
    world.live.lock().unwrap()[0].drain();
    let second = pool.acquire(&"a").await.unwrap();
    assert_eq!((first.id, second.id), (0, 1));
    drop(first);
    // Gone at once, not after the idle timeout.
    let metrics = pool.metrics();
    assert_eq!((metrics.idle, metrics.busy, metrics.dead), (0, 1, 1));
    drop(second);
    assert_eq!(pool.metrics().idle, 1);
    world.live.lock().unwrap()[1].drain();
    assert_eq!((pool.metrics().idle, pool.metrics().dead), (0, 2));
}

#[tokio::test(start_paused = true)]
async fn a_connection_is_marked_dead_before_anyone_is_woken() {
    // A seeded walk over interleavings: connections die at any moment, and no lease is ever handed out dead.
    let (pool, world) = pool(1, PoolOptions::default().per_key(2));
    let mut seed = 7_u64;
    let mut random = move |below: u64| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (seed >> 33) % below
    };
    for _ in 0..300 {
        let (a, b, c) = (random(40), random(40), random(40));
        let user = |wait: u64| {
            let pool = pool.clone();
            async move {
                clock::sleep(Duration::from_millis(wait)).await;
                let lease = pool.acquire(&"a").await.unwrap();
                assert_eq!(lease.live.life(), Life::Open);
                clock::sleep(Duration::from_millis(wait % 7)).await;
            }
        };
        let killer = async {
            clock::sleep(Duration::from_millis(random(40))).await;
            if let Some(live) = world.live.lock().unwrap().last() {
                live.close();
            }
        };
        tokio::join!(user(a), user(b), user(c), killer);
    }
    let metrics = pool.metrics();
    assert!(metrics.dead > 20 && metrics.busy == 0 && metrics.waiting == 0, "{metrics:?}");
}

#[tokio::test(start_paused = true)]
async fn age_idleness_and_uses_retire_a_connection() {
    let (aged, _) = pool(1, PoolOptions::default().lifetime(Duration::from_secs(100)).idle_timeout(None));
    drop(aged.acquire(&"a").await.unwrap());
    clock::sleep(Duration::from_secs(80)).await;
    let lease = aged.acquire(&"a").await.unwrap();
    assert_eq!(lease.id, 0);
    drop(lease);
    clock::sleep(Duration::from_secs(21)).await;
    assert_eq!(aged.acquire(&"a").await.unwrap().id, 1);
    let (idle, _) = pool(1, PoolOptions::default().idle_timeout(Duration::from_secs(10)));
    drop(idle.acquire(&"a").await.unwrap());
    clock::sleep(Duration::from_secs(11)).await;
    idle.sweep();
    assert_eq!((idle.metrics().idle, idle.metrics().retired), (0, 1));
    let (used, _) = pool(1, PoolOptions::default().uses(2));
    for expected in [0, 0, 1, 1, 2] {
        assert_eq!(used.acquire(&"a").await.unwrap().id, expected);
    }
}

#[tokio::test(start_paused = true)]
async fn the_total_limit_takes_room_from_idle_ones_of_other_keys() {
    let (pool, _) = pool(1, PoolOptions::default().total(2));
    drop(pool.acquire(&"a").await.unwrap());
    let b = pool.acquire(&"b").await.unwrap();
    let c = pool.acquire(&"c").await.unwrap();
    assert_eq!((pool.metrics().idle, pool.metrics().busy), (0, 2));
    let waiting = {
        let pool = pool.clone();
        tokio::spawn(async move { pool.acquire(&"d").await.unwrap().id })
    };
    clock::sleep(Duration::from_millis(50)).await;
    assert_eq!(pool.metrics().waiting, 1);
    // Another key's place serves as well.
    b.discard();
    assert_eq!(waiting.await.unwrap(), 3);
    drop(c);
}

#[tokio::test(start_paused = true)]
async fn a_closed_pool_lets_nobody_wait() {
    let (pool, _) = pool(1, PoolOptions::default().per_key(1));
    let held = pool.acquire(&"a").await.unwrap();
    let waiting = {
        let pool = pool.clone();
        tokio::spawn(async move { pool.acquire(&"a").await.map(|lease| lease.id) })
    };
    clock::sleep(Duration::from_millis(5)).await;
    pool.close();
    assert_eq!(waiting.await.unwrap().unwrap_err().kind(), Kind::Closed);
    drop(held);
    assert_eq!(pool.acquire(&"a").await.unwrap_err().kind(), Kind::Closed);
}

#[tokio::test(start_paused = true)]
async fn the_total_limit_takes_room_from_quiet_shared_ones_of_other_keys() {
    let (pool, _) = pool(100, PoolOptions::default().total(2));
    drop(pool.acquire(&"a").await.unwrap());
    let b = pool.acquire(&"b").await.unwrap();
    let c =
        tokio::time::timeout(Duration::from_secs(1), pool.acquire(&"c")).await.expect("nobody has to wait").unwrap();
    assert_eq!((pool.metrics().idle, pool.metrics().busy, pool.metrics().retired), (0, 2, 1));
    // Those in use stay; the first that becomes quiet gives its place to who waits.
    let waiting = {
        let pool = pool.clone();
        tokio::spawn(async move { pool.acquire(&"d").await.unwrap().id })
    };
    clock::sleep(Duration::from_millis(50)).await;
    assert_eq!(pool.metrics().waiting, 1);
    drop(b);
    assert_eq!(waiting.await.unwrap(), 3);
    drop(c);
}

#[tokio::test(start_paused = true)]
async fn idle_connections_end_on_time_though_nobody_asks_again() {
    for capacity in [1, 100] {
        let (pool, _) = pool(capacity, PoolOptions::default().idle_timeout(Duration::from_secs(10)));
        let (a, b) = (pool.acquire(&"a").await.unwrap(), pool.acquire(&"b").await.unwrap());
        drop(a);
        clock::sleep(Duration::from_secs(5)).await;
        drop(b);
        clock::sleep(Duration::from_secs(6)).await;
        assert_eq!((pool.metrics().idle, pool.metrics().retired), (1, 1), "the first of them, {capacity}");
        // One that is used again in between begins anew.
        drop(pool.acquire(&"b").await.unwrap());
        clock::sleep(Duration::from_secs(8)).await;
        assert_eq!(pool.metrics().idle, 1);
        clock::sleep(Duration::from_secs(3)).await;
        assert_eq!((pool.metrics().idle, pool.metrics().retired), (0, 2));
        // And once more, after there was nothing left to wait for.
        drop(pool.acquire(&"a").await.unwrap());
        clock::sleep(Duration::from_secs(11)).await;
        assert_eq!((pool.metrics().idle, pool.metrics().retired), (0, 3));
    }
}

#[tokio::test(start_paused = true)]
async fn a_pool_that_goes_takes_its_task_along() {
    let (pool, _) = pool(1, PoolOptions::default());
    let tasks = || tokio::runtime::Handle::current().metrics().num_alive_tasks();
    let before = tasks();
    drop(pool.acquire(&"a").await.unwrap());
    assert_eq!(tasks(), before + 1);
    drop(pool);
    tokio::task::yield_now().await;
    assert_eq!(tasks(), before);
}

#[test]
fn a_connection_given_back_outside_of_its_runtime_ends_on_time_too() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
    let (pool, _) = pool(1, PoolOptions::default().idle_timeout(Duration::from_secs(10)));
    let lease = runtime.block_on(pool.acquire(&"a")).unwrap();
    drop(lease);
    assert_eq!(pool.metrics().idle, 1);
    runtime.block_on(clock::sleep(Duration::from_secs(11)));
    assert_eq!(pool.metrics().idle, 0);
    // A runtime that is gone takes no task, and does no harm.
    let lease = runtime.block_on(pool.acquire(&"a")).unwrap();
    drop(runtime);
    drop(lease);
    assert_eq!(pool.metrics().idle, 1);
}

#[tokio::test(start_paused = true)]
async fn idle_ones_are_kept_up_to_a_number_of_each_key() {
    for (most, kept) in [(0, 0), (1, 1), (3, 3), (5, 4)] {
        let (pool, world) = pool(1, PoolOptions::default().idle_per_key(most));
        let four = leased(&pool, "a", 4).await;
        let other = pool.acquire(&"b").await.unwrap();
        drop(four);
        assert_eq!((pool.metrics().idle, pool.metrics().busy), (kept, 1));
        drop(other);
        assert_eq!(pool.metrics().idle, kept + usize::from(most > 0), "another key has places of its own");
        // Those that are kept are used before new ones are made.
        let made = world.made.load(Ordering::SeqCst);
        drop(leased(&pool, "a", kept).await);
        assert_eq!(world.made.load(Ordering::SeqCst), made);
    }
}

#[tokio::test(start_paused = true)]
async fn what_drains_takes_no_idle_place() {
    let (pool, world) = pool(1, PoolOptions::default().idle_per_key(1));
    let (first, second) = (pool.acquire(&"a").await.unwrap(), pool.acquire(&"a").await.unwrap());
    world.live.lock().unwrap()[first.id].drain();
    let kept = second.id;
    drop(first);
    drop(second);
    assert_eq!((pool.metrics().idle, pool.metrics().dead), (1, 1));
    assert_eq!(pool.acquire(&"a").await.unwrap().id, kept);
}

#[tokio::test(start_paused = true)]
async fn limits_of_time_and_use_hold_to_the_moment() {
    let (idle, _) = pool(1, PoolOptions::default().idle_timeout(Duration::from_secs(10)).lifetime(None));
    drop(idle.acquire(&"a").await.unwrap());
    clock::sleep(Duration::from_millis(9_990)).await;
    let lease = idle.acquire(&"a").await.unwrap();
    assert_eq!(lease.id, 0);
    drop(lease);
    clock::sleep(Duration::from_millis(10_010)).await;
    assert_eq!(idle.acquire(&"a").await.unwrap().id, 1);
    // Without limits of time it is kept for days.
    let (kept, _) = pool(1, PoolOptions::default().idle_timeout(None).lifetime(None));
    drop(kept.acquire(&"a").await.unwrap());
    clock::sleep(Duration::from_secs(3 * 86_400)).await;
    assert_eq!(kept.acquire(&"a").await.unwrap().id, 0);
    // Age is judged when one comes back, too: nobody is cut off in mid-use.
    let (aged, _) = pool(1, PoolOptions::default().lifetime(Duration::from_secs(10)));
    let lease = aged.acquire(&"a").await.unwrap();
    clock::sleep(Duration::from_secs(11)).await;
    drop(lease);
    assert_eq!((aged.metrics().idle, aged.metrics().retired), (0, 1));
}

#[tokio::test(start_paused = true)]
async fn who_waits_for_nobody_is_given_an_idle_one_all_the_same() {
    let (pool, _) = pool(1, PoolOptions::default().per_key(1).wait(Duration::ZERO));
    drop(pool.acquire(&"a").await.unwrap());
    clock::sleep(Duration::from_secs(1)).await;
    let lease = pool.acquire(&"a").await.unwrap();
    assert_eq!((lease.id, lease.is_reused()), (0, true));
    assert_eq!(pool.acquire(&"a").await.unwrap_err().phase(), Some(Phase::Pool));
}

async fn leased(pool: &Pool<Manager>, key: &'static str, count: usize) -> Vec<portolan_pool::Lease<Manager>> {
    let mut leases = Vec::new();
    for _ in 0..count {
        leases.push(pool.acquire(&key).await.unwrap());
    }
    leases
}
